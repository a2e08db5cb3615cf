//! Carrying effects out beside the driver, and turning their results back into inputs.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use medevo_core::{
    api::{CheckpointRef, Effect, Event, Input, Outcome, Recovered, Rollout, RunSpec, StageKind},
    rollout_steps,
};
use medevo_scoring::ScorerSettings;
use medevo_types::{Step, messages::FileEntry};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

use super::{
    Retention, Scores,
    copier::{Copier, Job},
    evaluator::Evaluator,
    materialise::Materialiser,
    publish::{self, Identity},
    retention::expired,
    rollouts::Rollouts,
    samples::sample_records,
    scoring::{Finished, Round, Scorers},
};
use crate::run_dir::{EvaluationRecord, SampleRecord};

/// Longest measurement of one evaluation pass: judging and bootstrap, no model.
const EVALUATION: Duration = Duration::from_secs(300);

/// What effects need.
pub(super) struct Context {
    pub(super) spec: RunSpec,
    pub(super) scoring: BTreeMap<usize, ScorerSettings>,
    pub(super) evaluator: Evaluator,
    pub(super) materialiser: Arc<Materialiser>,
    pub(super) identity: Identity,
    pub(super) retention: Retention,
    pub(super) scores: Scores,
    /// Standing checkpoints, oldest first.
    pub(super) published: Vec<CheckpointRef>,
    pub(super) rollouts: Rollouts,
    pub(super) copier: Option<Copier>,
    /// Events of the driver's own.
    pub(super) news: mpsc::Sender<Value>,
    pub(super) done: mpsc::Sender<Done>,
}

/// An effect that is done.
pub(super) enum Done {
    Scored { step: Step, epoch: u64, result: Result<Box<Finished>, String> },
    Published { checkpoint: CheckpointRef, result: Result<(), String> },
}

/// Records of the groups that were scored, and the groups.
pub(super) type Readable = (Vec<SampleRecord>, Box<Finished>);

/// A measured evaluation pass.
pub(super) struct Evaluation {
    pub(super) record: EvaluationRecord,
    /// A training stage makes it on its way: the same pass will come again.
    pub(super) during_training: bool,
}

/// The run's effects.
pub(super) struct Effects {
    spec: RunSpec,
    scorers: Scorers,
    evaluator: Arc<Evaluator>,
    materialiser: Arc<Materialiser>,
    identity: Identity,
    retention: Retention,
    scores: Scores,
    published: Vec<CheckpointRef>,
    rollouts: Rollouts,
    /// The best of them, as it was last announced.
    best: Option<PathBuf>,
    copier: Option<Copier>,
    news: mpsc::Sender<Value>,
    done: mpsc::Sender<Done>,
}

impl Effects {
    /// Starts from the newest standing checkpoint and what `recovered` says of the steps since then: the scorers
    /// remember those that it goes on from, and it gets the candidates that are still there. Where those do not
    /// suffice, the run goes on from the checkpoint.
    pub(super) fn new(context: Context, recovered: &mut Recovered) -> anyhow::Result<Self> {
        let mut scorers = Scorers::new(context.scoring);
        let checkpoint = context.published.last();
        let saved = checkpoint.map_or(Step(0), |checkpoint| checkpoint.step);
        scorers.go_back(checkpoint.map(|checkpoint| checkpoint.dir.as_path()))?;
        let kept = context.rollouts.read(saved, recovered.committed.next());
        if let Some(last) = &recovered.last
            && let Err(error) = replay(&mut scorers, &context.spec, &kept, saved, last.step)
        {
            tracing::warn!("going on from the checkpoint, not from step {}: {error:#}", last.step);
            recovered.last = None;
            recovered.before = None;
            scorers.go_back(checkpoint.map(|checkpoint| checkpoint.dir.as_path()))?;
        }
        recovered.rollouts = kept.into_values().collect();
        let effects = Self {
            spec: context.spec,
            scorers,
            evaluator: Arc::new(context.evaluator),
            materialiser: context.materialiser,
            identity: context.identity,
            retention: context.retention,
            scores: context.scores,
            // On record are those, too, that are deleted by now.
            published: context.published.into_iter().filter(|c| c.dir.is_dir()).collect(),
            best: None,
            copier: context.copier,
            news: context.news,
            rollouts: context.rollouts,
            done: context.done,
        };
        if let Some(newest) = effects.published.last() {
            effects.copy(newest.clone());
        }
        Ok(effects)
    }

    /// Measures the evaluation passes among `effects`; returns their records and the other effects.
    pub(super) async fn evaluate(
        &self,
        effects: Vec<Effect>,
    ) -> anyhow::Result<(Vec<Evaluation>, Vec<Effect>)> {
        let mut records = Vec::new();
        let mut others = Vec::new();
        for effect in effects {
            let Effect::Evaluated { stage, pass, step, policy, groups } = effect else {
                others.push(effect);
                continue;
            };
            let stage = self.spec.stages.get(stage).context("an evaluated stage is in the plan")?;
            let during_training = !matches!(stage.kind, StageKind::Evaluate { .. });
            let name = stage.name.clone();
            let evaluator = self.evaluator.clone();
            let measure =
                spawn_blocking(move || evaluator.measure(name, &pass, step, policy, &groups));
            let measured = timeout(EVALUATION, measure).await.with_context(|| {
                format!("measuring an evaluation pass took more than {} s", EVALUATION.as_secs())
            })?;
            let record = measured.context("measuring an evaluation pass broke off")??;
            records.push(Evaluation { record, during_training });
        }
        Ok((records, others))
    }

    /// Starts an effect. `Some` when it says that the run is over.
    pub(super) fn carry_out(&mut self, effect: Effect) -> anyhow::Result<Option<Outcome>> {
        match effect {
            Effect::Score { stage, step, policy, holding, earlier, groups } => {
                let round = Round { stage, step, policy, holding, earlier, groups };
                let job = self.scorers.job(round, self.rollouts.clone())?;
                let deadline = Duration::from_millis(self.spec.deadlines.score_ms);
                let (done, epoch) = (self.done.clone(), job.epoch);
                tokio::spawn(async move {
                    let result = job.run(deadline).await;
                    // The driver has left if this fails; nobody waits for the scores any more.
                    let _ = done.send(Done::Scored { step, epoch, result }).await;
                });
            }
            Effect::WriteManifest { checkpoint, files } => {
                let state = self.scorers.state()?;
                tokio::spawn(write_manifest(
                    self.identity.clone(),
                    checkpoint,
                    files,
                    state,
                    Duration::from_millis(self.spec.deadlines.checkpoint_ms),
                    self.done.clone(),
                ));
            }
            Effect::Finish(outcome) => return Ok(Some(outcome)),
            Effect::Evaluated { .. } => {
                anyhow::bail!("evaluations are measured before their records")
            }
        }
        Ok(None)
    }

    /// The input that a finished effect makes, if it still counts, and, of scoring, what people may read of it.
    pub(super) fn finish(
        &mut self,
        done: Done,
    ) -> anyhow::Result<(Option<Input>, Option<Readable>)> {
        Ok(match done {
            Done::Scored { step, epoch, .. } if epoch != self.scorers.epoch() => {
                tracing::info!(step = step.0, "what came of scoring that was given up is dropped");
                (None, None)
            }
            Done::Scored { step, result: Err(error), .. } => {
                (Some(Input::ScoringFailed { step, error }), None)
            }
            Done::Scored { result: Ok(finished), .. } => {
                self.scorers.accept(&finished);
                let stage = self
                    .spec
                    .stages
                    .get(finished.round.stage)
                    .context("a scored stage is in the plan")?;
                let StageKind::Rl { data, .. } = stage.kind else {
                    anyhow::bail!("stage `{}` was scored but is no rl stage", stage.name);
                };
                let samples = sample_records(&self.materialiser, &stage.name, data, &finished)?;
                (Some(finished.input()), Some((samples, finished)))
            }
            Done::Published { checkpoint, result: Ok(()) } => {
                (Some(Input::ManifestWritten(checkpoint)), None)
            }
            Done::Published { checkpoint, result: Err(error) } => {
                (Some(Input::CheckpointFailed { step: checkpoint.step, error }), None)
            }
        })
    }

    /// The pointer is on record: old checkpoints may go.
    pub(super) fn published(&mut self, checkpoint: CheckpointRef) {
        let (rollouts, saved) = (self.rollouts.clone(), checkpoint.step);
        spawn_blocking(move || rollouts.prune(saved));
        self.scores.published(checkpoint.step);
        self.published.push(checkpoint.clone());
        self.copy(checkpoint);
        self.announce_best();
        let scores = self.scores.values();
        let mut expired = expired(&self.published, &self.spec, &self.retention, scores);
        if let Some(copier) = &self.copier {
            let needed = copier.needed();
            expired.retain(|dir| !needed.contains(dir));
        }
        self.published.retain(|standing| !expired.contains(&standing.dir));
        expired.extend(publish::unfinished(&self.spec.checkpoints));
        if !expired.is_empty() {
            // Only space depends on it, so nobody waits for it.
            spawn_blocking(move || publish::delete(&expired));
        }
    }

    fn copy(&self, checkpoint: CheckpointRef) {
        let Some(copier) = &self.copier else { return };
        let reference = checkpoint.reference.as_ref();
        let reference = self.published.iter().find(|standing| Some(&standing.dir) == reference);
        let scores = self.scores.values().clone();
        copier.offer(Job { reference: reference.cloned(), checkpoint, scores });
    }

    /// Events and evaluations that are on record say how good the checkpoints are.
    pub(super) fn observe(&mut self, event: &Event) {
        self.scores.event(event);
    }

    /// See [`Effects::observe`].
    pub(super) fn evaluated(&mut self, evaluation: &Evaluation) {
        self.scores.evaluated(&evaluation.record);
        self.announce_best();
    }

    /// Says which checkpoint is the best, where that is asked for and has changed.
    fn announce_best(&mut self) {
        if self.retention.keep_best == 0 {
            return;
        }
        let ranking = self.retention.ranking(&self.published, self.scores.values());
        let Some((best, score)) = ranking.first() else { return };
        if self.best.as_ref() == Some(&best.dir) {
            return;
        }
        let event = json!({
            "event": "checkpoint_best", "step": best.step, "dir": best.dir, "by": self.scores.name(),
            "value": score,
        });
        self.best = Some(best.dir.clone());
        if self.news.try_send(event).is_err() {
            tracing::warn!("the event of a best checkpoint was lost: too much news at once");
        }
    }

    /// Commits after `step` are void: so is what the scorers learned from them.
    pub(super) fn roll_back(&mut self, step: Step) -> anyhow::Result<()> {
        self.published.retain(|checkpoint| checkpoint.step <= step);
        self.scores.roll_back(step);
        let checkpoint = self.published.last();
        let saved = checkpoint.map_or(Step(0), |checkpoint| checkpoint.step);
        self.scorers.go_back(checkpoint.map(|checkpoint| checkpoint.dir.as_path()))?;
        let kept = self.rollouts.read(saved, step);
        replay(&mut self.scorers, &self.spec, &kept, saved, step)
    }
}

/// Has the scorers remember the rollouts of the steps in `(after, upto]`.
fn replay(
    scorers: &mut Scorers,
    spec: &RunSpec,
    kept: &BTreeMap<Step, Rollout>,
    after: Step,
    upto: Step,
) -> anyhow::Result<()> {
    for step in rollout_steps(spec, after, upto) {
        let rollout = kept.get(&step);
        let rollout =
            rollout.with_context(|| format!("the scored candidates of step {step} are gone"))?;
        scorers.replay(rollout)?;
    }
    Ok(())
}

async fn write_manifest(
    identity: Identity,
    checkpoint: CheckpointRef,
    files: Vec<FileEntry>,
    state: Vec<u8>,
    deadline: Duration,
    done: mpsc::Sender<Done>,
) {
    let target = checkpoint.clone();
    let work = spawn_blocking(move || publish::publish(&identity, &target, files, &state));
    let result = match timeout(deadline, work).await {
        Ok(Ok(result)) => result.map_err(|error| format!("{error:#}")),
        Ok(Err(error)) => Err(format!("writing the manifest broke off: {error}")),
        Err(_) => Err(format!("checking the files took longer than {} s", deadline.as_secs())),
    };
    // The driver has left if this fails; the checkpoint stays without a pointer to it.
    let _ = done.send(Done::Published { checkpoint, result }).await;
}
