//! From orders (samples as indices) to directives (questions and image paths).
//!
//! INV-9 is visible in the types here: [`Materialiser::questions`] has no answers in it, and answers exist
//! only inside [`Supervised`], which holds the data of sft stages alone and is read in one place, the
//! branch of [`Share::Sft`]. In a run without an sft stage it is empty.

use std::collections::BTreeMap;

use medevo_common::dataset::{Dataset, Question, Reference};
use medevo_core::api::{DataIndex, Order, SampleIndex, Share};
use medevo_types::messages::{
    ApplyWork, Batch, CheckpointWork, Directive, Prompt, RolloutUnit, SftExample, TrainGroup,
    UpdateWork,
};

/// The answers that sft stages train on: nothing else in the driver can name them.
#[derive(Debug, Default)]
pub struct Supervised {
    answers: BTreeMap<DataIndex, Vec<Reference>>,
}

impl Supervised {
    /// Lets an sft stage's answers in; reference i belongs to question i of that data set.
    pub fn admit(&mut self, data: DataIndex, answers: Vec<Reference>) {
        self.answers.insert(data, answers);
    }

    fn example(
        &self,
        data: DataIndex,
        sample: SampleIndex,
        prompt: Prompt,
    ) -> Result<SftExample, NoSample> {
        let answers = self.answers.get(&data).ok_or(NoSample { data, sample })?;
        let answer = answers.get(sample).ok_or(NoSample { data, sample })?;
        Ok(SftExample { prompt, answer: answer.reveal().to_owned() })
    }
}

/// An order names a sample that its data set does not have: the core and the data disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the run's plan has no sample {sample} in data set {data}; this is a defect, please report it"
)]
pub struct NoSample {
    /// Index of the data set.
    pub data: DataIndex,
    /// Index of the sample.
    pub sample: SampleIndex,
}

/// Puts questions into orders.
#[derive(Debug)]
pub struct Materialiser {
    questions: Vec<Vec<Question>>,
    supervised: Supervised,
}

impl Materialiser {
    /// Takes the questions of all data sets, never their references.
    #[must_use]
    pub fn new(datasets: &[Dataset], supervised: Supervised) -> Self {
        let questions = datasets.iter().map(|dataset| dataset.questions.clone()).collect();
        Self { questions, supervised }
    }

    /// The question behind an index.
    ///
    /// # Errors
    /// [`NoSample`].
    pub fn question(&self, data: DataIndex, sample: SampleIndex) -> Result<&Question, NoSample> {
        let of_data = self.questions.get(data).ok_or(NoSample { data, sample })?;
        of_data.get(sample).ok_or(NoSample { data, sample })
    }

    /// The directive of an order.
    ///
    /// # Errors
    /// [`NoSample`].
    pub fn directive(&self, order: Order) -> Result<Directive, NoSample> {
        Ok(match order {
            Order::Wait { reason } => Directive::Wait { reason },
            Order::Form(roster) => Directive::Form(roster),
            Order::Restore(restore) => Directive::Restore(restore),
            Order::Rollout { unit, policy, step, purpose, data, samples, sampling, features } => {
                let prompts = samples.iter().map(|&sample| self.prompt(data, sample));
                let prompts = prompts.collect::<Result<_, _>>()?;
                Directive::Rollout(RolloutUnit {
                    unit,
                    policy,
                    step,
                    purpose,
                    sampling,
                    features,
                    prompts,
                })
            }
            Order::Update { generation, step, attempt, policy, share } => {
                let batch = self.batch(share)?;
                Directive::Update(UpdateWork { generation, step, attempt, policy, batch })
            }
            Order::Apply { generation, step, attempt, policy, optimizer, lr, reset_moments } => {
                Directive::Apply(ApplyWork {
                    generation,
                    step,
                    attempt,
                    policy,
                    optimizer,
                    lr,
                    reset_moments,
                })
            }
            Order::Checkpoint { generation, step, policy, dir } => {
                Directive::Checkpoint(CheckpointWork { generation, step, policy, dir })
            }
            Order::Stop { reason, drained } => Directive::Stop { reason, drained },
        })
    }

    fn batch(&self, share: Share) -> Result<Batch, NoSample> {
        match share {
            Share::Grpo {
                data,
                rollout_policy,
                objective,
                temperature,
                max_new_tokens,
                reference,
                groups,
            } => {
                let group = |(sample, answers)| {
                    Ok(TrainGroup { prompt: self.prompt(data, sample)?, answers })
                };
                let groups = groups.into_iter().map(group).collect::<Result<_, _>>()?;
                Ok(Batch::Grpo {
                    rollout_policy,
                    objective,
                    temperature,
                    max_new_tokens,
                    reference,
                    groups,
                })
            }
            Share::Sft { data, samples } => {
                let example =
                    |sample| self.supervised.example(data, sample, self.prompt(data, sample)?);
                let examples = samples.into_iter().map(example).collect::<Result<_, _>>()?;
                Ok(Batch::Sft { examples })
            }
        }
    }

    fn prompt(&self, data: DataIndex, sample: SampleIndex) -> Result<Prompt, NoSample> {
        let question = self.question(data, sample)?;
        Ok(Prompt {
            sample: question.id.clone(),
            images: question.images.clone(),
            question: question.text.clone(),
        })
    }
}
