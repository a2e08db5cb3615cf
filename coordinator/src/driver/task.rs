//! The task that owns the core: inputs in, and for every output persist, tell, act, reply, in that order.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use anyhow::Context;
use medevo_core::{
    Core,
    api::{Input, Millis, Outcome},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    Admission, Chronicle, Clock, CopyTo, Handle, Identity, Pace, Plan, Retention, Scores, Status,
    acting::leave,
    asked::Asked,
    authority::{Authority, Halt},
    copier::Copier,
    effects::{Context as EffectContext, Done, Effects},
    fault::Fault,
    handle::{Answer, Command},
    materialise::Materialiser,
    rollouts::Rollouts,
};
use crate::{
    leadership::Lead,
    run_dir::ROLLOUTS,
    store::{Journal, Recovery},
};

/// Time between two ticks of the core.
const TICK: Duration = Duration::from_millis(100);
/// Milliseconds between two updates of the status file.
const STATUS: Millis = 500;
/// Commands that may wait for the driver.
const QUEUE: usize = 1024;

/// Everything that a driver needs.
pub struct Parts {
    /// The run, resolved.
    pub plan: Plan,
    /// The right to act; what the driver does not hold, it gives up.
    pub lead: Lead,
    /// What the store knew; its journal takes this term's records.
    pub recovery: Recovery,
    /// Where people read what happens.
    pub chronicle: Chronicle,
    /// For manifests.
    pub identity: Identity,
    /// Which checkpoints stay.
    pub retention: Retention,
    /// How good the checkpoints so far are.
    pub scores: Scores,
    /// Where checkpoints are copied to.
    pub copies: Option<CopyTo>,
}

/// The driver.
pub struct Driver {
    pub(super) core: Core,
    pub(super) authority: Authority,
    pub(super) journal: Journal,
    pub(super) materialiser: Arc<Materialiser>,
    pub(super) effects: Effects,
    pub(super) chronicle: Chronicle,
    pub(super) asked: Asked,
    pub(super) pace: Pace,
    pub(super) fault: Option<Fault>,
    pub(super) clock: Clock,
    pub(super) now: Millis,
    pub(super) status_at: Millis,
    /// Why nothing is stepped any more, once that is so.
    pub(super) halted: Option<Halt>,
    pub(super) deposed: Arc<AtomicBool>,
    /// When the loop last came round: a longer pause than usual was this process's own.
    pub(super) round: Instant,
    pub(super) lease_ttl: Duration,
    pub(super) admission: Arc<Admission>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) done: mpsc::Receiver<Done>,
    pub(super) news: mpsc::Receiver<serde_json::Value>,
    pub(super) wake: watch::Sender<u64>,
    pub(super) over: watch::Sender<Option<Outcome>>,
    pub(super) status: watch::Sender<Status>,
}

impl Driver {
    /// Starts the driver's task. It ends after [`Handle::shutdown`], or when every handle is dropped.
    ///
    /// # Errors
    /// When what the scorers remember cannot be read from the checkpoint, or the test-only fault switch
    /// is malformed.
    pub fn start(parts: Parts) -> anyhow::Result<(Handle, JoinHandle<()>)> {
        let Parts { plan, lead, mut recovery, mut chronicle, identity, retention, scores, copies } =
            parts;
        let Plan { spec, materialiser, scoring, evaluator } = plan;
        let materialiser = Arc::new(materialiser);
        for sentence in &recovery.passed_over {
            chronicle
                .note("checkpoint_passed_over", sentence)
                .context("writing the event stream")?;
        }
        for sentence in &recovery.mended {
            chronicle.note("checkpoint_fetched", sentence).context("writing the event stream")?;
        }
        let (done_sender, done) = mpsc::channel(QUEUE);
        let (news_sender, news) = mpsc::channel(QUEUE);
        let copier = copies.map(|to| {
            let (term, history) = (recovery.recovered.term, recovery.checkpoints.clone());
            Copier::start(to, term, spec.clone(), history, news_sender.clone())
        });
        let copying = copier.as_ref().map(Copier::copying);
        let rollouts = Rollouts::new(identity.run_dir.join(ROLLOUTS), recovery.recovered.term);
        let context = EffectContext {
            spec: spec.clone(),
            scoring,
            evaluator,
            materialiser: materialiser.clone(),
            identity: identity.clone(),
            retention,
            scores,
            published: recovery.checkpoints,
            rollouts,
            copier,
            news: news_sender,
            done: done_sender,
        };
        let effects = Effects::new(context, &mut recovery.recovered)?;
        let clock = Clock::start();
        let lease_ttl = Duration::from_millis(spec.deadlines.lease_ttl_ms);
        let core = Core::new(spec, recovery.recovered);
        let pace = Pace::new(identity.run_id.clone());
        let first = pace.status(core.view(0), 0);
        let (commands_sender, commands) = mpsc::channel(QUEUE);
        let (wake, wake_seen) = watch::channel(0);
        let (over, over_seen) = watch::channel(None);
        let (status, status_seen) = watch::channel(first);
        let admission = Arc::new(Admission::default());
        let deposed = Arc::new(AtomicBool::new(false));
        let handle = Handle {
            deposed: deposed.clone(),
            commands: commands_sender,
            clock,
            wake: wake_seen,
            over: over_seen,
            status: status_seen,
            admission: admission.clone(),
            copying,
        };
        let driver = Self {
            core,
            authority: Authority::new(lead),
            deposed,
            round: Instant::now(),
            lease_ttl,
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
            news,
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
                Some(news) = self.news.recv() => self.tell(&news).await,
                command = self.commands.recv() => match command {
                    Some(Command::Step { at, input, reply }) => self.step(at, input, reply).await,
                    Some(Command::Abort { reason }) => self.halt(Halt::Broken(reason)),
                    Some(Command::Stop { reason }) => self.halt(Halt::Stopped(reason)),
                    Some(Command::Note { name, sentence }) => self.note(name, &sentence).await,
                    Some(Command::Shutdown) | None => break,
                },
                _ = ticks.tick() => self.step(self.clock.now(), Input::Tick, None).await,
            }
            self.show();
        }
        if self.authority.holds() {
            self.publish_status();
        }
    }

    /// Makes sure that this coordinator leads, or halts. After a pause of its own, no worker's silence counts.
    pub(super) async fn lead(&mut self) {
        if self.halted.is_some() || self.over.borrow().is_some() {
            return;
        }
        let paused = std::mem::replace(&mut self.round, Instant::now()).elapsed();
        if !self.authority.holds()
            && let Err(halt) = self.authority.regain().await
        {
            return self.halt(halt);
        }
        if paused > self.lease_ttl / 3 {
            self.now = self.clock.now();
            let output = self.core.step(self.now, Input::Woken);
            if let Err(halt) = self.act(output, None).await {
                self.halt(halt);
            }
        }
    }

    /// One input, carried through. Any failure to persist or to tell stops the driver before it acts.
    pub(super) async fn step(
        &mut self,
        at: Millis,
        input: Input,
        reply: Option<oneshot::Sender<Answer>>,
    ) {
        self.lead().await;
        if let Some(halt) = &self.halted {
            if let Some(reply) = reply {
                // A caller that has gone away needs no answer.
                let _ = reply.send(leave(&input, halt));
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
            Err(halt) => {
                if let (Some(reply), Some(input)) = (reply, refusal) {
                    let _ = reply.send(leave(&input, &halt));
                }
                self.halt(halt);
            }
        }
    }

    fn show(&mut self) {
        if self.now >= self.status_at && self.authority.holds() {
            self.status_at = self.now + STATUS;
            self.publish_status();
        }
    }

    pub(super) fn publish_status(&mut self) {
        let mut view = self.core.view(self.now);
        if let Some(halt) = &self.halted {
            // The core does not know: nothing was stepped when it was halted.
            let outcome = halt.outcome();
            view.phase = outcome.phase().to_owned();
            view.explain = outcome.explain();
            view.ending = Some(outcome.ending());
        }
        let status = self.pace.status(view, self.now);
        if let Err(error) = self.chronicle.status(&status) {
            // A status is a view; the run does not depend on it.
            tracing::warn!("the status file could not be written: {error:#}");
        }
        self.status.send_replace(status);
    }
}
