//! What the outstanding rollout units ask for, to hold the answers against: the core counts groups but
//! knows no sample by its name, and a group under the wrong question would be scored and trained on.

use std::collections::BTreeMap;

use medevo_core::api::Input;
use medevo_types::{
    PolicyVersion, SampleId, Step, UnitId,
    messages::{Purpose, Report, RolloutUnit},
};

/// The units that were handed out for the work at hand.
#[derive(Debug, Default)]
pub(super) struct Asked {
    work: Option<(Step, PolicyVersion, Purpose)>,
    units: BTreeMap<UnitId, Vec<SampleId>>,
}

impl Asked {
    /// A unit goes out. Those of other work are forgotten: the core takes no answer to them any more.
    pub(super) fn note(&mut self, unit: &RolloutUnit) {
        let work = Some((unit.step, unit.policy, unit.purpose));
        if self.work != work {
            self.work = work;
            self.units.clear();
        }
        let samples = unit.prompts.iter().map(|prompt| prompt.sample.clone()).collect();
        self.units.insert(unit.unit, samples);
    }

    /// The input as it is, or, when it answers a unit with groups of other samples, the failure of that
    /// unit: the core then hands it to somebody else, and gives up after a few tries.
    pub(super) fn checked(&self, mut input: Input) -> Input {
        if let Input::Report(envelope) = &mut input
            && let Report::RolloutDone { unit, groups, .. } = &envelope.body
            && let Some(samples) = self.units.get(unit)
            && !groups.iter().map(|group| &group.sample).eq(samples)
        {
            let error =
                format!("its answer to unit {unit} is of other samples than were asked for");
            tracing::error!(worker = %envelope.from.worker, "{error}");
            envelope.body = Report::Failed { what: "rollout".into(), error, retryable: true };
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use medevo_types::{
        Attempt, Generation, Incarnation, WorkerTag,
        messages::{Envelope, Group, Prompt},
        settings::Sampling,
    };

    use super::*;

    fn unit(number: u64, step: u64, samples: &[&str]) -> RolloutUnit {
        let prompt = |sample: &&str| Prompt {
            sample: SampleId((*sample).into()),
            images: Vec::new(),
            question: String::new(),
        };
        RolloutUnit {
            unit: UnitId(number),
            policy: PolicyVersion(0),
            step: Step(step),
            purpose: Purpose::Train,
            sampling: Sampling { n: 1, temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: 1 },
            features: false,
            prompts: samples.iter().map(prompt).collect(),
        }
    }

    fn answer(number: u64, samples: &[&str]) -> Input {
        let group = |sample: &&str| Group {
            sample: SampleId((*sample).into()),
            prompt_tokens: 1,
            candidates: [].into(),
            entropy: 0.0,
        };
        Input::Report(Box::new(Envelope {
            from: WorkerTag { worker: "w0".into(), incarnation: Incarnation(1) },
            generation: Generation(1),
            step: Step(1),
            attempt: Attempt(1),
            body: Report::RolloutDone {
                unit: UnitId(number),
                policy: PolicyVersion(0),
                groups: samples.iter().map(group).collect(),
            },
        }))
    }

    fn fails(asked: &Asked, input: Input) -> bool {
        match asked.checked(input) {
            Input::Report(envelope) => matches!(envelope.body, Report::Failed { .. }),
            _ => false,
        }
    }

    // Two swapped questions would each be trained on the other's answers.
    #[test]
    fn an_answer_is_of_the_very_samples_in_their_order() {
        let mut asked = Asked::default();
        asked.note(&unit(7, 1, &["a", "b"]));
        assert!(!fails(&asked, answer(7, &["a", "b"])));
        for wrong in [&["b", "a"][..], &["a"], &["a", "c"]] {
            assert!(fails(&asked, answer(7, wrong)), "{wrong:?}");
        }
        asked.note(&unit(8, 2, &["c"]));
        assert_eq!(asked.units.len(), 1, "units of an earlier step are forgotten");
        assert!(!fails(&asked, answer(7, &["b"])), "the core turns it away by itself");
    }
}
