//! Measures evaluation passes. The only reader of references apart from sft stages (INV-9): its results
//! go to the run directory, and nothing that decides about training can see them.

use std::collections::BTreeMap;

use anyhow::Context;
use medevo_common::dataset::{Dataset, Reference};
use medevo_core::api::{DataIndex, EvalPass, SampleIndex};
use medevo_text::{Interval, Protocol, bootstrap, judge, normalize};
use medevo_types::{PolicyVersion, Step, messages::Group};

use crate::run_dir::{EvalKind, EvalRow, EvaluationRecord, Part};

/// Resamples of an interval.
const RESAMPLES: usize = 1000;
/// A field with more values than this is an identifier, not a breakdown.
const MAX_VALUES: usize = 40;

/// Holds the references of evaluation data.
#[derive(Debug)]
pub struct Evaluator {
    seed: u64,
    data: BTreeMap<DataIndex, Measured>,
}

/// One data set that is measured on.
#[derive(Debug)]
struct Measured {
    name: String,
    questions: Vec<Answered>,
}

#[derive(Debug)]
struct Answered {
    closed: bool,
    tags: Vec<(String, String)>,
    reference: Reference,
}

/// One judged question.
struct Judged<'a> {
    question: &'a Answered,
    correct: f64,
    /// Token recall of an open question; a closed one is right or wrong.
    recall: f64,
    f1: f64,
}

impl Evaluator {
    /// An evaluator without data; `seed` is that of the intervals' resampling.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, data: BTreeMap::new() }
    }

    /// Lets a data set in; reference i belongs to question i.
    pub fn admit(&mut self, data: DataIndex, dataset: &Dataset, references: Vec<Reference>) {
        let questions = dataset.questions.iter().zip(references).map(|(question, reference)| {
            Answered { closed: question.closed, tags: question.tags.clone(), reference }
        });
        let measured = Measured { name: dataset.name.clone(), questions: questions.collect() };
        self.data.insert(data, measured);
    }

    /// Measures one pass under the strict protocol. `groups` hold one answer a question (greedy), or N of
    /// which the majority is taken (maj@N).
    ///
    /// # Errors
    /// When the pass is over data, or a sample, that was not let in.
    pub fn measure(
        &self,
        stage: String,
        pass: &EvalPass,
        step: Step,
        policy: PolicyVersion,
        groups: &[(SampleIndex, Group)],
    ) -> anyhow::Result<EvaluationRecord> {
        let context = || format!("pass `{}` is over data that has no answers here", pass.name);
        let measured = self.data.get(&pass.data).with_context(context)?;
        let protocol = Protocol::Strict;
        let mut judged = Vec::with_capacity(groups.len());
        let mut rows = Vec::with_capacity(groups.len());
        for (sample, group) in groups {
            let question = measured.questions.get(*sample).with_context(context)?;
            let answer = majority(group);
            let verdict = judge(protocol, question.closed, question.reference.reveal(), answer);
            // Full denominator: what the protocol would leave out is wrong.
            let right = verdict.correct.unwrap_or(false);
            let correct = f64::from(u8::from(right));
            let recall = if question.closed { correct } else { verdict.recall };
            rows.push(EvalRow {
                sample: group.sample.0.clone(),
                correct: right,
                recall,
                answer: answer.to_owned(),
            });
            judged.push(Judged { question, correct, recall, f1: verdict.f1 });
        }
        let words: usize = rows.iter().map(|row| row.answer.split_whitespace().count()).sum();
        let all: Vec<&Judged> = judged.iter().collect();
        let (closed, open): (Vec<&Judged>, Vec<&Judged>) =
            all.iter().partition(|judged| judged.question.closed);
        let greedy = pass.sampling.temperature == 0.0;
        Ok(EvaluationRecord {
            stage,
            pass: pass.name.clone(),
            data: measured.name.clone(),
            step: step.0,
            policy: policy.0,
            kind: if greedy { EvalKind::Greedy } else { EvalKind::Majority },
            draws: pass.sampling.n,
            protocol,
            n: judged.len(),
            accuracy: self.interval(&all, |judged| judged.correct),
            recall: self.interval(&all, |judged| judged.recall),
            f1: self.interval(&all, |judged| judged.f1),
            closed: self.part(&closed),
            open: self.part(&open),
            by_tag: self.by_tag(&all),
            answer_words: words as f64 / rows.len().max(1) as f64,
            rows,
        })
    }

    fn by_tag(&self, judged: &[&Judged]) -> BTreeMap<String, BTreeMap<String, Part>> {
        let mut fields: BTreeMap<&str, BTreeMap<&str, Vec<&Judged>>> = BTreeMap::new();
        for one in judged {
            for (field, value) in &one.question.tags {
                fields.entry(field).or_default().entry(value).or_default().push(one);
            }
        }
        fields.retain(|_, values| values.len() <= MAX_VALUES);
        let part = |(value, judged): (&str, Vec<&Judged>)| (value.to_owned(), self.part(&judged));
        fields
            .into_iter()
            .map(|(field, values)| (field.to_owned(), values.into_iter().map(part).collect()))
            .collect()
    }

    fn part(&self, judged: &[&Judged]) -> Part {
        Part {
            n: judged.len(),
            accuracy: self.interval(judged, |judged| judged.correct),
            recall: self.interval(judged, |judged| judged.recall),
        }
    }

    fn interval(&self, judged: &[&Judged], value: impl Fn(&Judged) -> f64) -> Interval {
        let values: Vec<f64> = judged.iter().map(|judged| value(judged)).collect();
        bootstrap(&values, RESAMPLES, self.seed)
    }
}

/// The most frequent normalised answer, as its first candidate wrote it; the earliest among equals. Empty
/// answers count only when there are no others.
fn majority(group: &Group) -> &str {
    let normal: Vec<String> =
        group.candidates.iter().map(|candidate| normalize(&candidate.text)).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in normal.iter().filter(|answer| !answer.is_empty()) {
        *counts.entry(answer).or_default() += 1;
    }
    let most = counts.values().max();
    let winner =
        normal.iter().position(|answer| counts.get(answer.as_str()) == most && most.is_some());
    group.candidates.get(winner.unwrap_or(0)).map_or("", |candidate| candidate.text.as_str())
}

#[cfg(test)]
mod tests {
    use medevo_types::messages::Candidate;

    use super::*;

    fn group(answers: &[&str]) -> Group {
        let candidate = |text: &&str| Candidate {
            ids: vec![1],
            text: (*text).to_owned(),
            logprobs: vec![0.0],
            finished: true,
            feature: None,
        };
        Group {
            sample: "q".into(),
            prompt_tokens: 1,
            candidates: answers.iter().map(candidate).collect(),
            entropy: 0.0,
        }
    }

    #[test]
    fn a_majority_is_over_normalised_answers_and_the_earliest_wins_a_tie() {
        assert_eq!(majority(&group(&["heart", "The liver.", "liver"])), "The liver.");
        assert_eq!(majority(&group(&["heart", "liver"])), "heart");
        assert_eq!(majority(&group(&["", "", "liver"])), "liver");
        assert_eq!(majority(&group(&["", ""])), "");
        assert_eq!(majority(&group(&[])), "");
    }
}
