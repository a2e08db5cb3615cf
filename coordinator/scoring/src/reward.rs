//! HSR: the reward of each answer against the pseudo label.

use medevo_types::settings::{RewardKind, RewardSettings};

use crate::{
    answers::Answers,
    embed::{Embedding, cosine},
};

/// The terms of one answer's reward, each 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// 1 for the label's own answer, else 0.
    pub hard: f64,
    /// F1 over answer tokens.
    pub token: f64,
    /// max(0, cosine) of the embeddings.
    pub sem: f64,
}

impl Terms {
    /// Terms of distinct answer `answer` against distinct answer `label`. Opposed answers get nothing.
    pub fn of(answers: &Answers, embeddings: &[Embedding], answer: usize, label: usize) -> Self {
        if answer == label {
            return Self { hard: 1.0, token: 1.0, sem: 1.0 };
        }
        let (a, b) = (&answers.distinct[answer], &answers.distinct[label]);
        if a.facts.opposed(&b.facts) {
            return Self::default();
        }
        Self {
            hard: 0.0,
            token: medevo_text::token_f1(&a.text, &b.text).clamp(0.0, 1.0),
            sem: cosine(&embeddings[answer], &embeddings[label]).max(0.0),
        }
    }

    /// The one reward that the terms make, 0 to 1.
    pub fn reward(&self, settings: &RewardSettings) -> f64 {
        let RewardSettings { kind, w_hard, w_token, w_sem } = *settings;
        let soft = w_token * self.token + w_sem * self.sem;
        match kind {
            // w_token + w_sem < 1 was checked, so soft stays below an exact match.
            RewardKind::Hierarchical if self.hard > 0.0 => 1.0,
            RewardKind::Hierarchical => soft,
            RewardKind::Sum => (w_hard * self.hard + soft) / (w_hard + w_token + w_sem),
        }
        .clamp(0.0, 1.0)
    }
}

/// Terms of every candidate, `[N]`; an empty answer earns none.
pub fn terms(answers: &Answers, embeddings: &[Embedding], label: usize) -> Vec<Terms> {
    let distinct: Vec<Terms> = (0..answers.distinct.len())
        .map(|answer| Terms::of(answers, embeddings, answer, label))
        .collect();
    answers.of.iter().map(|answer| answer.map_or_else(Terms::default, |i| distinct[i])).collect()
}
