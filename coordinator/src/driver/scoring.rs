//! The scorers of the run's rl stages, and one round's scoring as a job beside the driver.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use medevo_core::api::{GroupVerdict, Input, Rollout, SampleIndex, Scored};
use medevo_scoring::{GroupOutcome, Judgements, ScoredStep, Scorer, ScorerSettings, ScorerState};
use medevo_types::{Digest, PolicyVersion, Step, messages::Group};
use tokio::{task::spawn_blocking, time::timeout};

use super::rollouts::Rollouts;

/// Name of the file in a checkpoint that holds what the scorers remember.
pub const STATE_FILE: &str = "scorer.json";

/// A scorer per rl stage, by stage index.
pub(super) struct Scorers {
    settings: BTreeMap<usize, ScorerSettings>,
    scorers: BTreeMap<usize, Scorer>,
    /// The groups of the last step that was scored: another round of its rollout may follow.
    judged: Judgements,
    /// How many groups there were after each round of that step.
    rounds: Vec<usize>,
    /// Bumped whenever an outstanding job no longer counts.
    epoch: u64,
}

/// What the core wants scored: the fields of [`Effect::Score`](medevo_core::api::Effect::Score).
pub(super) struct Round {
    pub(super) stage: usize,
    pub(super) step: Step,
    pub(super) policy: PolicyVersion,
    pub(super) holding: Digest,
    pub(super) earlier: usize,
    pub(super) groups: Vec<(SampleIndex, Group)>,
}

/// A round to score.
pub(super) struct Job {
    round: Round,
    rounds: Vec<usize>,
    rollouts: Rollouts,
    scorer: Scorer,
    judged: Judgements,
    pub(super) epoch: u64,
}

/// A round that was scored.
pub(super) struct Finished {
    pub(super) round: Round,
    /// On all groups of the step so far.
    pub(super) scored: ScoredStep,
    scorer: Scorer,
    judged: Judgements,
}

impl Scorers {
    pub(super) fn new(settings: BTreeMap<usize, ScorerSettings>) -> Self {
        let mut scorers = Self {
            settings,
            scorers: BTreeMap::new(),
            judged: Judgements::default(),
            rounds: Vec::new(),
            epoch: 0,
        };
        scorers.reset(BTreeMap::new());
        scorers
    }

    /// The scorers as a checkpoint in `dir` left them, or new ones when there is none: a run that goes
    /// back scores as if the lost steps had never been (INV-7).
    pub(super) fn go_back(&mut self, dir: Option<&Path>) -> anyhow::Result<()> {
        let states = match dir.map(|dir| dir.join(STATE_FILE)) {
            Some(file) if file.exists() => {
                let text =
                    std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
                serde_json::from_slice(&text)
                    .with_context(|| format!("reading {}", file.display()))?
            }
            _ => BTreeMap::new(),
        };
        self.reset(states);
        Ok(())
    }

    /// Scores a step again as an earlier coordinator did, for what the stage's scorer remembers of it.
    ///
    /// # Errors
    /// The stage has no scorer, or the candidates cannot be scored.
    pub(super) fn replay(&mut self, rollout: &Rollout) -> anyhow::Result<()> {
        let (stage, step) = (rollout.stage, rollout.step);
        let scorer = self.scorers.get_mut(&stage);
        let scorer = scorer.with_context(|| format!("stage {stage} has no scorer"))?;
        let groups: Vec<Group> = rollout.groups.iter().map(|(_, group)| group.clone()).collect();
        let mut judged = Judgements::default();
        for &round in &rollout.rounds {
            let so_far = groups.get(..round).context("a round is longer than its rollout")?;
            scorer
                .score_round(&mut judged, so_far)
                .with_context(|| format!("scoring step {step} again"))?;
        }
        Ok(())
    }

    fn reset(&mut self, mut states: BTreeMap<usize, ScorerState>) {
        self.epoch += 1;
        self.judged = Judgements::default();
        self.scorers = self
            .settings
            .iter()
            .map(|(&stage, settings)| {
                let mut scorer = Scorer::new(settings.clone());
                if let Some(state) = states.remove(&stage) {
                    scorer.restore(state);
                }
                (stage, scorer)
            })
            .collect();
    }

    /// What the scorers remember, for a checkpoint.
    pub(super) fn state(&self) -> anyhow::Result<Vec<u8>> {
        let states: BTreeMap<usize, ScorerState> =
            self.scorers.iter().map(|(&stage, scorer)| (stage, scorer.state())).collect();
        serde_json::to_vec(&states).context("writing down what the scorers remember")
    }

    /// A job over a copy of the stage's scorer; the copy takes its place once the job is accepted.
    ///
    /// # Errors
    /// When the stage has no scorer, or the earlier groups are not those that were scored last.
    pub(super) fn job(&mut self, round: Round, rollouts: Rollouts) -> anyhow::Result<Job> {
        self.epoch += 1;
        let stage = round.stage;
        let scorer = self.scorers.get(&stage).cloned();
        let scorer =
            scorer.with_context(|| format!("stage {stage} has no scorer: it is no rl stage"))?;
        let judged = match round.earlier {
            0 => Judgements::default(),
            _ => self.judged.clone(),
        };
        anyhow::ensure!(
            judged.len() == round.earlier,
            "step {} goes on with {} scored groups, but {} are known; this is a defect, please report it",
            round.step,
            round.earlier,
            judged.len()
        );
        self.rounds.retain(|&groups| groups <= round.earlier);
        self.rounds.push(round.groups.len());
        let rounds = self.rounds.clone();
        Ok(Job { round, rounds, rollouts, scorer, judged, epoch: self.epoch })
    }

    /// Number of the latest job; any other no longer counts.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes over what the latest job remembers.
    pub(super) fn accept(&mut self, finished: &Finished) {
        self.scorers.insert(finished.round.stage, finished.scorer.clone());
        self.judged = finished.judged.clone();
    }
}

impl Job {
    /// Scores on a thread of its own. Past `deadline` the result is not waited for.
    ///
    /// # Errors
    /// A sentence, when scoring failed or took too long.
    pub(super) async fn run(mut self, deadline: Duration) -> Result<Box<Finished>, String> {
        let step = self.round.step;
        let work = spawn_blocking(move || {
            let groups: Vec<Group> =
                self.round.groups.iter().map(|(_, group)| group.clone()).collect();
            let scored = self.scorer.score_round(&mut self.judged, &groups);
            let scored = scored.map_err(|error| error.to_string())?;
            let Self { round, rounds, rollouts, scorer, judged, .. } = self;
            let rollout = Rollout {
                stage: round.stage,
                step,
                policy: round.policy,
                holding: round.holding.clone(),
                rounds,
                groups: round.groups.clone(),
            };
            if let Err(error) = rollouts.keep(&rollout) {
                tracing::warn!("a takeover would have to draw step {step} again: {error:#}");
            }
            Ok(Box::new(Finished { round, scored, scorer, judged }))
        });
        match timeout(deadline, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(format!("the scorer of step {step} broke off: {error}")),
            Err(_) => {
                Err(format!("scoring of step {step} took longer than {} s", deadline.as_secs()))
            }
        }
    }
}

impl Finished {
    /// What the core needs of it.
    pub(super) fn input(&self) -> Input {
        let verdict = |group: &medevo_scoring::ScoredGroup| match group.outcome {
            GroupOutcome::Train => GroupVerdict::Train(group.answers.clone()),
            GroupOutcome::Abstained => GroupVerdict::Abstained,
            GroupOutcome::NoVariance => GroupVerdict::NoVariance,
        };
        Input::Scored(Scored {
            step: self.round.step,
            policy: self.round.policy,
            earlier: self.round.earlier,
            groups: self.scored.groups.iter().map(verdict).collect(),
            figures: self.scored.figures.clone(),
        })
    }
}
