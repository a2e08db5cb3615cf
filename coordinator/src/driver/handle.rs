//! How everything else talks to the driver: bounded, with a deadline on each wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use medevo_core::api::{Input, Millis, Outcome};
use medevo_types::{
    WorkerId, WorkerTag,
    messages::{Directive, Envelope, JoinRefused, Rejection},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{Admission, Clock, Copying, Status};

/// How long a caller waits for the driver's answer before it is told to come back.
const ANSWER: Duration = Duration::from_secs(30);
/// How long [`Handle::next`] waits for work.
pub const LONG_POLL: Duration = Duration::from_secs(2);

/// Something for the driver to do.
pub(super) enum Command {
    /// Feed the core, stamped with the time of arrival.
    Step { at: Millis, input: Input, reply: Option<oneshot::Sender<Answer>> },
    /// End the run at once as failed, without a word to the store: `resume` goes on.
    Abort { reason: String },
    /// The same, because somebody asked for it.
    Stop { reason: String },
    /// Append an event of somebody else's: a name and a sentence.
    Note { name: &'static str, sentence: String },
    /// Leave the loop.
    Shutdown,
}

/// What the driver answers.
pub(super) enum Answer {
    Join(Result<(), JoinRefused>),
    Ack(Result<(), Rejection>),
    Next(Result<Directive, Rejection>),
}

/// A handle on the driver; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) deposed: Arc<AtomicBool>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) clock: Clock,
    pub(super) wake: watch::Receiver<u64>,
    pub(super) over: watch::Receiver<Option<Outcome>>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) admission: Arc<Admission>,
    pub(super) copying: Option<Copying>,
}

impl Handle {
    /// Lets a worker in whose token was found good.
    ///
    /// # Errors
    /// What the core says; [`JoinRefused::Over`] when the driver is gone.
    pub async fn join(
        &self,
        tag: WorkerTag,
        device: String,
        address: String,
    ) -> Result<(), JoinRefused> {
        match self.ask(Input::Join { tag, device, address }).await {
            Some(Answer::Join(answer)) => answer,
            _ if self.deposed() => Err(JoinRefused::NotLeader),
            _ => Err(JoinRefused::Over),
        }
    }

    /// A worker is alive.
    ///
    /// # Errors
    /// What the core says.
    pub async fn heartbeat(&self, from: WorkerTag) -> Result<(), Rejection> {
        self.acknowledge(Input::Heartbeat(from)).await
    }

    /// A worker's report.
    ///
    /// # Errors
    /// What the core says.
    pub async fn report(&self, envelope: Envelope) -> Result<(), Rejection> {
        self.acknowledge(Input::Report(Box::new(envelope))).await
    }

    /// What a worker is to do: at once when there is work, else within [`LONG_POLL`] a
    /// [`Directive::Wait`].
    ///
    /// # Errors
    /// What the core says.
    pub async fn next(&self, from: WorkerTag) -> Result<Directive, Rejection> {
        let until = Instant::now() + LONG_POLL;
        let mut wake = self.wake.clone();
        loop {
            // Marked as seen before asking: work that comes up between the answer and the wait wakes it.
            wake.borrow_and_update();
            let answer = match self.ask(Input::Pull(from.clone())).await {
                Some(Answer::Next(answer)) => answer?,
                _ if self.deposed() => return Err(Rejection::NotLeader),
                _ => {
                    let reason = "the coordinator is leaving".into();
                    return Ok(Directive::Stop { reason, drained: false });
                }
            };
            if matches!(answer, Directive::Stop { .. }) {
                self.admission.dismiss(&from);
            }
            if !matches!(answer, Directive::Wait { .. }) {
                return Ok(answer);
            }
            match timeout_at(until, wake.changed()).await {
                Ok(Ok(())) => {}
                // Nothing came up, or the driver is gone: the next call will tell.
                Ok(Err(_)) | Err(_) => return Ok(answer),
            }
        }
    }

    /// A worker's process is known to have ended. Returns once the core knows.
    pub async fn gone(&self, tag: WorkerTag) {
        // There is no answer to this; its channel closes when the input is handled.
        let _ = self.ask(Input::Gone(tag)).await;
    }

    /// Stop at the next step boundary, with a checkpoint.
    pub async fn drain(&self, reason: String) {
        self.tell(Input::Drain { reason }).await;
    }

    /// End the run at once as failed; nothing is written to the store, so it can be resumed.
    pub async fn abort(&self, reason: String) {
        self.send(Command::Abort { reason }).await;
    }

    /// The same, because somebody asked for it.
    pub async fn stop(&self, reason: String) {
        self.send(Command::Stop { reason }).await;
    }

    /// Appends an event to the run's event stream, if the driver has a moment: never waits.
    pub fn note(&self, name: &'static str, sentence: String) {
        if self.commands.try_send(Command::Note { name, sentence }).is_err() {
            tracing::debug!(name, "the driver was too busy to note an event");
        }
    }

    /// Once the run is over: waits until every worker knows that was heard of within `lease` (the others are
    /// dead). One that is not told takes this coordinator for lost and waits for it. Returns who was not told
    /// within `patience`.
    pub async fn dismiss(&self, lease: Duration, patience: Duration) -> Vec<WorkerId> {
        let (mut dismissed, mut status) = (self.admission.dismissed(), self.status.clone());
        let until = Instant::now() + patience;
        loop {
            let missing: Vec<WorkerId> = {
                let (told, now) = (dismissed.borrow_and_update(), status.borrow_and_update());
                let workers = now.view.workers.iter();
                let alive = |silent_ms| Duration::from_millis(silent_ms) <= lease;
                let missing = workers.filter(|w| alive(w.silent_ms) && !told.contains(&w.worker));
                missing.map(|w| w.worker.clone()).collect()
            };
            if missing.is_empty() {
                return missing;
            }
            tokio::select! {
                Ok(()) = dismissed.changed() => {}
                Ok(()) = status.changed() => {}
                () = sleep_until(until) => return missing,
            }
        }
    }

    /// Leave the driver's loop; workers that ask from now on are told to stop.
    pub async fn shutdown(&self) {
        self.send(Command::Shutdown).await;
    }

    /// Whether another coordinator has taken the run over.
    #[must_use]
    pub fn deposed(&self) -> bool {
        self.deposed.load(Ordering::SeqCst)
    }

    /// How the run ended, once it has.
    #[must_use]
    pub fn over(&self) -> watch::Receiver<Option<Outcome>> {
        self.over.clone()
    }

    /// Where the run stands.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What is being copied, where checkpoints are copied at all.
    #[must_use]
    pub fn copying(&self) -> Option<&Copying> {
        self.copying.as_ref()
    }

    /// Who was let in.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    async fn acknowledge(&self, input: Input) -> Result<(), Rejection> {
        match self.ask(input).await {
            Some(Answer::Ack(answer)) => answer,
            // The driver is gone: asking for work will tell the worker to stop.
            _ => Err(Rejection::Unexpected),
        }
    }

    async fn ask(&self, input: Input) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Step { at: self.clock.now(), input, reply: Some(reply) };
        let asked = async {
            self.commands.send(command).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER, asked).await.ok().flatten()
    }

    async fn tell(&self, input: Input) {
        self.send(Command::Step { at: self.clock.now(), input, reply: None }).await;
    }

    async fn send(&self, command: Command) {
        // A closed channel means that the driver has left already: there is nothing left to tell it.
        if timeout(ANSWER, self.commands.send(command)).await.is_err() {
            tracing::error!("the driver took no command for {} s", ANSWER.as_secs());
        }
    }
}
