//! Groups made of plain texts, as a worker would send them.
#![allow(dead_code)] // every test file uses its own part

use std::sync::Arc;

use medevo_scoring::{ScoredStep, Scorer, ScorerSettings};
use medevo_types::{
    SampleId,
    messages::{Candidate, Group},
    settings::{EmbedderKind, EmbedderSettings, LabelSettings, RewardSettings, ScaleRewards},
};

/// The defaults of every part.
pub fn defaults() -> ScorerSettings {
    ScorerSettings {
        label: LabelSettings::default(),
        embedder: EmbedderSettings::default(),
        reward: RewardSettings::default(),
        scale: ScaleRewards::Group,
        dynamic_sampling: false,
    }
}

/// The defaults with the `policy` embedder.
pub fn policy() -> ScorerSettings {
    let embedder = EmbedderSettings { kind: EmbedderKind::Policy, ..EmbedderSettings::default() };
    ScorerSettings { embedder, ..defaults() }
}

/// A candidate with one token per character: the same text has the same ids.
pub fn candidate(text: &str) -> Candidate {
    let ids: Vec<u32> = text.chars().map(u32::from).chain([2]).collect();
    Candidate {
        logprobs: vec![-0.5; ids.len()],
        ids,
        text: text.to_owned(),
        finished: true,
        feature: None,
    }
}

/// A group of candidates with these texts.
pub fn group<S: AsRef<str>>(sample: &str, texts: &[S]) -> Group {
    Group {
        sample: SampleId::from(sample),
        prompt_tokens: 10,
        candidates: texts.iter().map(|text| candidate(text.as_ref())).collect(),
        entropy: 0.5,
    }
}

/// A group of candidates with policy features.
pub fn featured(sample: &str, answers: &[(&str, &[f32])]) -> Group {
    let texts: Vec<&str> = answers.iter().map(|(text, _)| *text).collect();
    let mut group = group(sample, &texts);
    for (candidate, (_, feature)) in Arc::make_mut(&mut group.candidates).iter_mut().zip(answers) {
        candidate.feature = Some(feature.to_vec());
    }
    group
}

/// A candidate of a group, to be changed.
pub fn candidate_mut(group: &mut Group, index: usize) -> &mut Candidate {
    &mut Arc::make_mut(&mut group.candidates)[index]
}

/// Every text as often as its count says.
pub fn repeat<'a>(counts: &[(&'a str, usize)]) -> Vec<&'a str> {
    counts.iter().flat_map(|&(text, n)| std::iter::repeat_n(text, n)).collect()
}

/// One step scored by a fresh scorer.
pub fn score(settings: ScorerSettings, groups: &[Group]) -> ScoredStep {
    Scorer::new(settings).score(groups).expect("the groups are in order")
}

/// A figure by name.
pub fn figure(step: &ScoredStep, name: &str) -> Option<f64> {
    step.figures.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
}
