//! The scorer: one step's groups in, verdicts out.

use std::collections::{BTreeMap, BTreeSet};

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

/// A group on its way through scoring.
struct Judged {
    answers: Answers,
    choice: Option<Choice>,
    terms: Vec<Terms>,
    rewards: Vec<f64>,
    abstains: bool,
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
        settings::check(&self.settings)?;
        for group in groups {
            embed::check(group, self.settings.embedder.kind)?;
        }
        let answers: Vec<Answers> = groups.iter().map(Answers::of).collect();
        let embeddings = self.embed(groups, &answers)?;
        // Nothing below can fail.
        let judged: Vec<Judged> =
            answers.into_iter().zip(&embeddings).map(|(a, e)| self.judge(a, e)).collect();
        let consensus: Vec<f64> =
            judged.iter().filter(|j| !j.abstains).flat_map(|j| j.rewards.iter().copied()).collect();
        let step_sd = sd(&consensus);
        let scored: Vec<ScoredGroup> =
            groups.iter().zip(&judged).map(|(g, j)| self.verdict(g, j, step_sd)).collect();
        let flips = self.remember(groups, &judged);
        let measured: Vec<Measured<'_>> = groups
            .iter()
            .zip(&judged)
            .zip(&scored)
            .zip(flips)
            .map(|(((group, judged), scored), flipped)| Measured {
                group,
                answers: &judged.answers,
                choice: judged.choice.as_ref(),
                terms: &judged.terms,
                scored,
                flipped,
            })
            .collect();
        Ok(ScoredStep { figures: figures(&measured), groups: scored })
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
    /// all of the step's answers before it embeds the first.
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
        let rewards = terms.iter().map(|t| t.reward(&self.settings.reward)).collect();
        let abstains = choice.as_ref().is_none_or(|c| c.abstains(&self.settings.label));
        Judged { answers, choice, terms, rewards, abstains }
    }

    fn verdict(&self, group: &Group, judged: &Judged, step_sd: f64) -> ScoredGroup {
        let Judged { answers, choice, rewards, abstains, .. } = judged;
        let outcome = if *abstains {
            GroupOutcome::Abstained
        } else if sd(rewards) <= NO_SPREAD {
            GroupOutcome::NoVariance
        } else {
            GroupOutcome::Train
        };
        let trains = outcome == GroupOutcome::Train;
        let advantages = if trains {
            advantages(rewards, self.settings.scale, step_sd)
        } else {
            vec![0.0; rewards.len()]
        };
        ScoredGroup {
            outcome,
            pseudo_label: choice.as_ref().map_or(0, |c| answers.distinct[c.answer].representative),
            share: choice.as_ref().map_or(0.0, |c| c.share),
            margin: choice.as_ref().map_or(0.0, |c| c.margin),
            rewards: rewards.clone(),
            answers: if trains { train::join(group, &advantages) } else { Vec::new() },
            advantages,
        }
    }

    /// Stores the labels of groups with a consensus and says which of them differ from the sample's last
    /// one. All are compared before any is stored: the order of groups does not matter.
    fn remember(&mut self, groups: &[Group], judged: &[Judged]) -> Vec<Option<bool>> {
        let label = |j: &Judged| {
            let choice = j.choice.as_ref().filter(|_| !j.abstains)?;
            Some(j.answers.distinct[choice.answer].text.clone())
        };
        let mut now: Vec<(SampleId, String)> = Vec::new();
        let mut flips = Vec::with_capacity(groups.len());
        for (group, judged) in groups.iter().zip(judged) {
            let label = label(judged);
            let last = self.labels.get(&group.sample);
            flips.push(label.as_ref().and_then(|label| last.map(|last| last != label)));
            now.extend(label.map(|label| (group.sample.clone(), label)));
        }
        // Sorted, so that a sample that occurs twice in a step leaves the same label in any order.
        now.sort();
        self.labels.extend(now);
        flips
    }
}
