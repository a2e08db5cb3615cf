//! The scorer: one step's groups in, verdicts out. Labels and rewards are given to a group once; what depends on
//! the step's other groups (advantages by batch, figures) is drawn up anew with every round of a rollout.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use medevo_types::{SampleId, messages::Group, settings::EmbedderKind};

use crate::{
    GroupOutcome, ScoreError, ScoredGroup, ScoredStep, ScorerSettings, ScorerState,
    advantage::{NO_SPREAD, advantages, sd},
    answers::Answers,
    embed::{self, Embedding},
    figures::{Measured, figures},
    label::{Choice, choose},
    lexical::Lexical,
    reward::{Terms, terms},
    settings, train,
};

/// Scores the groups of one `rl` stage, step by step.
#[derive(Clone, Debug)]
pub struct Scorer {
    settings: ScorerSettings,
    lexical: Lexical,
    labels: BTreeMap<SampleId, String>,
}

/// What the scorer found of the groups of a step so far, when they come in several rounds.
#[derive(Clone, Debug, Default)]
pub struct Judgements(Vec<Judged>);

impl Judgements {
    /// Groups that are judged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A group on its way through scoring.
#[derive(Clone, Debug)]
struct Judged {
    answers: Answers,
    choice: Option<Choice>,
    terms: Vec<Terms>,
    rewards: Vec<f64>,
    outcome: GroupOutcome,
    /// Whether the label differs from the sample's last one; none on a first visit or without a label.
    flipped: Option<bool>,
}

impl Scorer {
    /// A scorer that has seen nothing yet. Settings are checked by [`Scorer::score`].
    #[must_use]
    pub fn new(settings: ScorerSettings) -> Self {
        let lexical = Lexical::new(settings.embedder.clone(), BTreeSet::new());
        Self { settings, lexical, labels: BTreeMap::new() }
    }

    /// Scores all groups of a step. Verdicts depend on the groups and on what was scored before, not on
    /// the order of groups within the step; scoring a step again gives the same verdicts.
    ///
    /// # Errors
    /// [`ScoreError`]; nothing is remembered of a step that cannot be scored.
    pub fn score(&mut self, groups: &[Group]) -> Result<ScoredStep, ScoreError> {
        self.score_round(&mut Judgements::default(), groups)
    }

    /// Scores a further round of a step. `groups` are all of the step's so far; those that `judged` holds
    /// already, at the front, keep their labels and rewards. The verdicts are on all of them.
    ///
    /// # Errors
    /// As [`Scorer::score`]; `judged` is then unchanged too.
    pub fn score_round(
        &mut self,
        judged: &mut Judgements,
        groups: &[Group],
    ) -> Result<ScoredStep, ScoreError> {
        settings::check(&self.settings)?;
        let fresh = groups.get(judged.len()..).unwrap_or_default();
        for group in fresh {
            embed::check(group, self.settings.embedder.kind)?;
        }
        let answers: Vec<Answers> = fresh.iter().map(Answers::of).collect();
        let embeddings = self.embed(fresh, &answers)?;
        // Nothing below can fail.
        let mut round: Vec<Judged> =
            answers.into_iter().zip(&embeddings).map(|(a, e)| self.judge(a, e)).collect();
        self.remember(fresh, &mut round);
        judged.0.append(&mut round);
        Ok(self.settle(groups, &judged.0))
    }

    /// Verdicts and figures of all groups that are judged.
    fn settle(&self, groups: &[Group], judged: &[Judged]) -> ScoredStep {
        let step_sd = self.step_sd(judged);
        let scored: Vec<ScoredGroup> =
            groups.iter().zip(judged).map(|(g, j)| self.verdict(g, j, step_sd)).collect();
        let measured: Vec<Measured<'_>> = groups
            .iter()
            .zip(judged)
            .zip(&scored)
            .map(|((group, judged), scored)| Measured {
                group,
                answers: &judged.answers,
                choice: judged.choice.as_ref(),
                terms: &judged.terms,
                scored,
                flipped: judged.flipped,
            })
            .collect();
        ScoredStep { figures: figures(&measured), groups: scored }
    }

    /// What [`ScaleRewards::Batch`](medevo_types::settings::ScaleRewards::Batch) divides by.
    fn step_sd(&self, judged: &[Judged]) -> f64 {
        let counts = |judged: &&Judged| match judged.outcome {
            GroupOutcome::Train => true,
            GroupOutcome::NoVariance => !self.settings.dynamic_sampling,
            GroupOutcome::Abstained => false,
        };
        let rewards = judged.iter().filter(counts).flat_map(|j| j.rewards.iter().copied());
        sd(&rewards.collect::<Vec<f64>>())
    }

    /// What it remembers, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> ScorerState {
        ScorerState { seen: self.lexical.seen().clone(), labels: self.labels.clone() }
    }

    /// Puts back what an earlier scorer of the same stage remembered.
    pub fn restore(&mut self, state: ScorerState) {
        self.lexical = Lexical::new(self.settings.embedder.clone(), state.seen);
        self.labels = state.labels;
    }

    /// Embeddings of each group's distinct answers, `[groups][distinct][d]`. The lexical embedder counts
    /// all of the round's answers before it embeds the first.
    fn embed(
        &mut self,
        groups: &[Group],
        answers: &[Answers],
    ) -> Result<Vec<Vec<Embedding>>, ScoreError> {
        match self.settings.embedder.kind {
            EmbedderKind::Policy => {
                let mut length = None;
                groups
                    .iter()
                    .zip(answers)
                    .map(|(group, answers)| embed::from_policy(group, answers, &mut length))
                    .collect()
            }
            EmbedderKind::Lexical => {
                let texts = || answers.iter().flat_map(|a| &a.distinct).map(|d| d.text.as_str());
                texts().for_each(|text| self.lexical.see(text));
                let embed = |a: &Answers| {
                    a.distinct.iter().map(|d| self.lexical.embed(&d.text)).collect::<Vec<_>>()
                };
                Ok(answers.iter().map(embed).collect())
            }
        }
    }

    /// FPL and HSR of one group. Without a single answer that says something it abstains and earns
    /// nothing.
    fn judge(&self, answers: Answers, embeddings: &[Embedding]) -> Judged {
        let choice = choose(&self.settings.label, &answers, embeddings);
        let terms = match &choice {
            Some(choice) => terms(&answers, embeddings, choice.answer),
            None => vec![Terms::default(); answers.candidates()],
        };
        let rewards: Vec<f64> = terms.iter().map(|t| t.reward(&self.settings.reward)).collect();
        let outcome = if choice.as_ref().is_none_or(|c| c.abstains(&self.settings.label)) {
            GroupOutcome::Abstained
        } else if sd(&rewards) <= NO_SPREAD {
            GroupOutcome::NoVariance
        } else {
            GroupOutcome::Train
        };
        Judged { answers, choice, terms, rewards, outcome, flipped: None }
    }

    fn verdict(&self, group: &Group, judged: &Judged, step_sd: f64) -> ScoredGroup {
        let Judged { answers, choice, rewards, outcome, .. } = judged;
        let trains = *outcome == GroupOutcome::Train;
        let advantages = if trains {
            advantages(rewards, self.settings.scale, step_sd)
        } else {
            vec![0.0; rewards.len()]
        };
        ScoredGroup {
            outcome: *outcome,
            pseudo_label: choice.as_ref().map_or(0, |c| answers.distinct[c.answer].representative),
            share: choice.as_ref().map_or(0.0, |c| c.share),
            margin: choice.as_ref().map_or(0.0, |c| c.margin),
            rewards: rewards.clone(),
            answers: if trains { train::join(group, &advantages).into() } else { Arc::default() },
            advantages,
        }
    }

    /// Stores the labels of groups with a consensus and notes which of them differ from the sample's last
    /// one. All are compared before any is stored: the order of groups does not matter.
    fn remember(&mut self, groups: &[Group], judged: &mut [Judged]) {
        let label = |j: &Judged| {
            let choice = j.choice.as_ref().filter(|_| j.outcome != GroupOutcome::Abstained)?;
            Some(j.answers.distinct[choice.answer].text.clone())
        };
        let mut now: Vec<(SampleId, String)> = Vec::new();
        for (group, judged) in groups.iter().zip(judged) {
            let label = label(judged);
            let last = self.labels.get(&group.sample);
            judged.flipped = label.as_ref().and_then(|label| last.map(|last| last != label));
            now.extend(label.map(|label| (group.sample.clone(), label)));
        }
        // Sorted, so that a sample that occurs twice in a step leaves the same label in any order.
        now.sort();
        self.labels.extend(now);
    }
}
