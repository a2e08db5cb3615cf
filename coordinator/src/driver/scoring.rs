//! The scorers of the run's rl stages, and one step's scoring as a job beside the driver.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use medevo_core::api::{GroupVerdict, Input, SampleIndex, Scored};
use medevo_scoring::{GroupOutcome, ScoredStep, Scorer, ScorerSettings, ScorerState};
use medevo_types::{PolicyVersion, Step, messages::Group};
use tokio::{task::spawn_blocking, time::timeout};

/// Name of the file in a checkpoint that holds what the scorers remember.
pub const STATE_FILE: &str = "scorer.json";

/// A scorer per rl stage, by stage index.
pub(super) struct Scorers {
    settings: BTreeMap<usize, ScorerSettings>,
    scorers: BTreeMap<usize, Scorer>,
    /// Bumped whenever an outstanding job no longer counts.
    epoch: u64,
}

/// One step to score.
pub(super) struct Job {
    stage: usize,
    step: Step,
    policy: PolicyVersion,
    groups: Vec<(SampleIndex, Group)>,
    scorer: Scorer,
    epoch: u64,
}

/// A step that was scored.
pub(super) struct Finished {
    pub(super) stage: usize,
    pub(super) step: Step,
    pub(super) policy: PolicyVersion,
    pub(super) groups: Vec<(SampleIndex, Group)>,
    pub(super) scored: ScoredStep,
    scorer: Scorer,
    epoch: u64,
}

impl Scorers {
    pub(super) fn new(settings: BTreeMap<usize, ScorerSettings>) -> Self {
        let mut scorers = Self { settings, scorers: BTreeMap::new(), epoch: 0 };
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

    fn reset(&mut self, mut states: BTreeMap<usize, ScorerState>) {
        self.epoch += 1;
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
    pub(super) fn job(
        &mut self,
        stage: usize,
        step: Step,
        policy: PolicyVersion,
        groups: Vec<(SampleIndex, Group)>,
    ) -> Option<Job> {
        self.epoch += 1;
        let scorer = self.scorers.get(&stage)?.clone();
        Some(Job { stage, step, policy, groups, scorer, epoch: self.epoch })
    }

    /// Takes a finished job's memory over; false when the job no longer counts.
    pub(super) fn accept(&mut self, finished: &Finished) -> bool {
        if finished.epoch != self.epoch {
            return false;
        }
        self.scorers.insert(finished.stage, finished.scorer.clone());
        true
    }
}

impl Job {
    /// Scores on a thread of its own. Past `deadline` the result is not waited for.
    ///
    /// # Errors
    /// A sentence, when scoring failed or took too long.
    pub(super) async fn run(mut self, deadline: Duration) -> Result<Box<Finished>, String> {
        let step = self.step;
        let work = spawn_blocking(move || {
            let groups: Vec<Group> = self.groups.iter().map(|(_, group)| group.clone()).collect();
            let scored = self.scorer.score(&groups).map_err(|error| error.to_string())?;
            let Self { stage, step, policy, groups, scorer, epoch } = self;
            Ok(Box::new(Finished { stage, step, policy, groups, scored, scorer, epoch }))
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
            step: self.step,
            policy: self.policy,
            groups: self.scored.groups.iter().map(verdict).collect(),
            figures: self.scored.figures.clone(),
        })
    }
}
