//! The task that owns the core: inputs in, and for every output persist, tell, act, reply, in that order.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use medevo_core::{
    Core,
    api::{Event, Input, Millis, Outcome, Output, Record, Reply},
};
use medevo_types::{WorkerTag, messages::Directive};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    Admission, Chronicle, Clock, Handle, Identity, Pace, Plan, Status,
    asked::Asked,
    effects::{Context as EffectContext, Done, Effects},
    fault::Fault,
    handle::{Answer, Command},
    materialise::Materialiser,
    rollouts::Rollouts,
};
use crate::{
    run_dir::ROLLOUTS,
    store::{Journal, Recovery},
};

/// Time between two ticks of the core.
const TICK: Duration = Duration::from_millis(100);
/// Longest write of the store. A slower one is a broken disk, and the run must not act on hope.
const STORE: Duration = Duration::from_secs(30);
/// Milliseconds between two updates of the status file.
const STATUS: Millis = 500;
/// Commands that may wait for the driver.
const QUEUE: usize = 1024;

/// Everything that a driver needs.
pub struct Parts {
    /// The run, resolved.
    pub plan: Plan,
    /// What the store knew; its journal takes this term's records.
    pub recovery: Recovery,
    /// Where people read what happens.
    pub chronicle: Chronicle,
    /// For manifests.
    pub identity: Identity,
    /// Newest checkpoints to keep.
    pub keep: usize,
}

/// The driver.
pub struct Driver {
    core: Core,
    journal: Journal,
    materialiser: Arc<Materialiser>,
    effects: Effects,
    chronicle: Chronicle,
    asked: Asked,
    pace: Pace,
    fault: Option<Fault>,
    clock: Clock,
    now: Millis,
    status_at: Millis,
    /// Why nothing is stepped any more, once that is so.
    halted: Option<String>,
    admission: Arc<Admission>,
    commands: mpsc::Receiver<Command>,
    done: mpsc::Receiver<Done>,
    wake: watch::Sender<u64>,
    over: watch::Sender<Option<Outcome>>,
    status: watch::Sender<Status>,
}

impl Driver {
    /// Starts the driver's task. It ends after [`Handle::shutdown`], or when every handle is dropped.
    ///
    /// # Errors
    /// When what the scorers remember cannot be read from the checkpoint, or the test-only fault switch
    /// is malformed.
    pub fn start(parts: Parts) -> anyhow::Result<(Handle, JoinHandle<()>)> {
        let Parts { plan, mut recovery, mut chronicle, identity, keep } = parts;
        let Plan { spec, materialiser, scoring, evaluator } = plan;
        let materialiser = Arc::new(materialiser);
        for sentence in &recovery.passed_over {
            chronicle
                .note("checkpoint_passed_over", sentence)
                .context("writing the event stream")?;
        }
        let (done_sender, done) = mpsc::channel(QUEUE);
        let rollouts = Rollouts::new(identity.run_dir.join(ROLLOUTS), recovery.recovered.term);
        let context = EffectContext {
            spec: spec.clone(),
            scoring,
            evaluator,
            materialiser: materialiser.clone(),
            identity: identity.clone(),
            keep,
            published: recovery.checkpoints,
            rollouts,
            done: done_sender,
        };
        let effects = Effects::new(context, &mut recovery.recovered)?;
        let clock = Clock::start();
        let core = Core::new(spec, recovery.recovered);
        let pace = Pace::new(identity.run_id.clone());
        let first = pace.status(core.view(0), 0);
        let (commands_sender, commands) = mpsc::channel(QUEUE);
        let (wake, wake_seen) = watch::channel(0);
        let (over, over_seen) = watch::channel(None);
        let (status, status_seen) = watch::channel(first);
        let admission = Arc::new(Admission::default());
        let handle = Handle {
            commands: commands_sender,
            clock,
            wake: wake_seen,
            over: over_seen,
            status: status_seen,
            admission: admission.clone(),
        };
        let driver = Self {
            core,
            journal: recovery.journal,
            materialiser,
            effects,
            chronicle,
            asked: Asked::default(),
            pace,
            fault: Fault::from_env()?,
            clock,
            now: 0,
            status_at: 0,
            halted: None,
            admission,
            commands,
            done,
            wake,
            over,
            status,
        };
        Ok((handle, tokio::spawn(driver.run())))
    }

    async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What has arrived is handled before time passes: a heartbeat that waited here must count
            // before the lease that it renews is looked at.
            tokio::select! {
                biased;
                Some(done) = self.done.recv() => self.finish_effect(done).await,
                command = self.commands.recv() => match command {
                    Some(Command::Step { at, input, reply }) => self.step(at, input, reply).await,
                    Some(Command::Abort { reason }) => self.halt(reason),
                    Some(Command::Note { name, sentence }) => self.note(name, &sentence),
                    Some(Command::Shutdown) | None => break,
                },
                _ = ticks.tick() => self.step(self.clock.now(), Input::Tick, None).await,
            }
            self.show();
        }
        self.publish_status();
    }

    /// One input, carried through. Any failure to persist or to tell stops the driver before it acts.
    async fn step(&mut self, at: Millis, input: Input, reply: Option<oneshot::Sender<Answer>>) {
        if let Some(reason) = &self.halted {
            if let Some(reply) = reply {
                // A caller that has gone away needs no answer.
                let _ = reply.send(leave(&input, reason));
            }
            return;
        }
        self.now = self.now.max(at);
        let input = self.asked.checked(input);
        self.pace.observe(self.now, &input);
        let joining = match &input {
            Input::Join { tag, .. } => Some(tag.clone()),
            _ => None,
        };
        let refusal = reply.is_some().then(|| input.clone());
        let output = self.core.step(self.now, input);
        match self.act(output, joining).await {
            Ok(answer) => {
                if let (Some(reply), Some(answer)) = (reply, answer) {
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                let reason = format!("{error:#}");
                if let (Some(reply), Some(input)) = (reply, refusal) {
                    let _ = reply.send(leave(&input, &reason));
                }
                self.halt(reason);
            }
        }
    }

    async fn act(
        &mut self,
        output: Output,
        joining: Option<WorkerTag>,
    ) -> anyhow::Result<Option<Answer>> {
        let Output { records, events, effects, reply, wake } = output;
        // Measuring is idempotent and the records may say that it is over: so its results are on disk
        // before they are. The other order could lose an evaluation to a crash.
        let (evaluations, effects) = self.effects.evaluate(effects).await?;
        for evaluation in &evaluations {
            self.chronicle.evaluation(evaluation).context("writing an evaluation")?;
        }
        self.persist(&records).await?;
        for record in &records {
            match record {
                Record::Generation(generation) => self.admission.open(*generation),
                Record::Checkpoint(checkpoint) => self.effects.published(checkpoint.clone()),
                Record::Rollback { step } => self.effects.roll_back(*step)?,
                Record::Commit { .. } | Record::Roster(_) | Record::Finished(_) => {}
            }
        }
        for event in &events {
            self.pace.note(event);
            self.chronicle.event(event).context("writing the event stream")?;
            if let Some(fault) = &self.fault {
                fault.strike(event);
            }
        }
        for evaluation in &evaluations {
            self.chronicle.evaluated(evaluation).context("writing the event stream")?;
        }
        for effect in effects {
            if let Some(outcome) = self.effects.carry_out(effect)? {
                self.publish_status();
                self.over.send_replace(Some(outcome));
            }
        }
        if wake {
            self.wake.send_modify(|count| *count += 1);
        }
        Ok(match reply {
            None => None,
            Some(Reply::Join(answer)) => {
                if let (Ok(()), Some(tag)) = (&answer, joining) {
                    self.admission.admit(&tag);
                }
                Some(Answer::Join(answer))
            }
            Some(Reply::Ack(answer)) => Some(Answer::Ack(answer)),
            Some(Reply::Order(Err(rejection))) => Some(Answer::Next(Err(rejection))),
            Some(Reply::Order(Ok(order))) => {
                let directive = self.materialiser.directive(order)?;
                if let Directive::Rollout(unit) = &directive {
                    self.asked.note(unit);
                }
                Some(Answer::Next(Ok(directive)))
            }
        })
    }

    async fn persist(&mut self, records: &[Record]) -> anyhow::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut journal = self.journal.clone();
        let records = records.to_vec();
        let write = spawn_blocking(move || journal.append(&records).map(|()| journal));
        let written = timeout(STORE, write).await.with_context(|| {
            format!(
                "the run's store took more than {} s for one write; check the disk",
                STORE.as_secs()
            )
        })?;
        self.journal = written.context("the store's writer broke off")??;
        Ok(())
    }

    fn note(&mut self, name: &str, sentence: &str) {
        if let Err(error) = self.chronicle.note(name, sentence) {
            self.halt(format!("writing the event stream: {error:#}"));
        }
    }

    async fn finish_effect(&mut self, done: Done) {
        match self.effects.finish(done) {
            Ok((input, samples)) => {
                if let Err(error) = self.chronicle.samples(&samples) {
                    self.halt(format!("{error:#}"));
                } else if let Some(input) = input {
                    self.step(self.clock.now(), input, None).await;
                }
            }
            Err(error) => self.halt(format!("{error:#}")),
        }
    }

    /// Ends the run as failed without the core: nothing is acted on from here on.
    fn halt(&mut self, reason: String) {
        if self.halted.is_some() || self.over.borrow().is_some() {
            return;
        }
        // The launcher prints it as the run's end.
        tracing::info!("the run stops: {reason}");
        let outcome = Outcome::Failed { reason: reason.clone() };
        // Best effort: the disk may be what failed.
        if let Err(error) = self.chronicle.event(&Event::Finished(outcome.clone())) {
            tracing::warn!("the event stream could not be written either: {error:#}");
        }
        self.halted = Some(reason);
        self.over.send_replace(Some(outcome));
        self.wake.send_modify(|count| *count += 1);
    }

    fn show(&mut self) {
        if self.now >= self.status_at {
            self.status_at = self.now + STATUS;
            self.publish_status();
        }
    }

    fn publish_status(&mut self) {
        let mut view = self.core.view(self.now);
        if let Some(reason) = &self.halted {
            // The core does not know: nothing was stepped when it was halted.
            view.phase = "failed".to_owned();
            view.explain = format!("failed: {reason}");
        }
        let status = self.pace.status(view, self.now);
        if let Err(error) = self.chronicle.status(&status) {
            // A status is a view; the run does not depend on it.
            tracing::warn!("the status file could not be written: {error:#}");
        }
        self.status.send_replace(status);
    }
}

/// The answer of a driver that has halted.
fn leave(input: &Input, reason: &str) -> Answer {
    match input {
        Input::Join { .. } => Answer::Join(Err(medevo_types::messages::JoinRefused::Over)),
        Input::Pull(_) => Answer::Next(Ok(Directive::Stop { reason: reason.to_owned() })),
        _ => Answer::Ack(Err(medevo_types::messages::Rejection::Unexpected)),
    }
}
