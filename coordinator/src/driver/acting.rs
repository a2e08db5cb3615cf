//! What a driver does with an output of the core, and how it stops.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Context;
use medevo_core::api::{Event, Input, Output, Record, Reply};
use medevo_store::StoreError;
use medevo_types::{
    WorkerTag,
    messages::{Directive, JoinRefused, Rejection},
};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    authority::{AGAIN, Halt, OUTAGE},
    effects::Done,
    handle::Answer,
    task::Driver,
};

/// Longest write of the store, all tries together. A slower one is a broken store, and the run must not act on hope.
const STORE: Duration = OUTAGE;

impl Driver {
    /// Carries an output through: persist, tell, act, in that order; what is left is the answer.
    pub(super) async fn act(
        &mut self,
        output: Output,
        joining: Option<WorkerTag>,
    ) -> Result<Option<Answer>, Halt> {
        let done = self.carry_through(output, joining).await;
        done.map_err(|error| match error.downcast_ref::<StoreError>() {
            Some(StoreError::GuardFailed { .. }) => Halt::Deposed(error.to_string()),
            _ => Halt::Broken(format!("{error:#}")),
        })
    }

    async fn carry_through(
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
            self.effects.observe(event);
            self.chronicle.event(event).context("writing the event stream")?;
            self.fault.take_if(|fault| fault.strike(event));
        }
        for evaluation in &evaluations {
            self.chronicle.evaluated(evaluation).context("writing the event stream")?;
            self.effects.evaluated(evaluation);
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
        let until = Instant::now() + STORE;
        loop {
            let (mut journal, these) = (self.journal.clone(), records.to_vec());
            let write = spawn_blocking(move || journal.append(&these).map(|()| journal));
            let written = timeout(STORE, write).await.with_context(|| {
                format!(
                    "the run's store took more than {} s for one write; check it",
                    STORE.as_secs()
                )
            })?;
            match written.context("the store's writer broke off")? {
                Ok(journal) => {
                    self.journal = journal;
                    return Ok(());
                }
                // Writing the same records under the same keys again changes nothing.
                Err(error) if error.is_passing() && Instant::now() < until => {
                    tracing::warn!("the run waits for its store: {error}");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An event that is a name and a sentence.
    pub(super) async fn note(&mut self, name: &str, sentence: &str) {
        self.tell(&serde_json::json!({ "event": name, "reason": sentence })).await;
    }

    pub(super) async fn finish_effect(&mut self, done: Done) {
        self.lead().await;
        if self.halted.is_some() {
            return;
        }
        match self.effects.finish(done) {
            Ok((input, scored)) => {
                let written =
                    scored.as_ref().map_or(Ok(()), |(samples, _)| self.chronicle.samples(samples));
                if let Err(error) = written {
                    self.halt(Halt::Broken(format!("{error:#}")));
                } else if let Some(input) = input {
                    self.step(self.clock.now(), input, None).await;
                }
                // Hundreds of thousands of small pieces of memory at the largest scale: not given back on this task.
                drop(spawn_blocking(move || drop(scored)));
            }
            Err(error) => self.halt(Halt::Broken(format!("{error:#}"))),
        }
    }

    /// An event of the driver's own, which nothing depends on but what people read.
    pub(super) async fn tell(&mut self, news: &serde_json::Value) {
        self.lead().await;
        if self.halted.is_none()
            && let Err(error) = self.chronicle.news(news)
        {
            self.halt(Halt::Broken(format!("writing the event stream: {error:#}")));
        }
    }

    /// Ends the run, as far as this coordinator goes, without the core: nothing is acted on from here on.
    pub(super) fn halt(&mut self, halt: Halt) {
        if self.halted.is_some() || self.over.borrow().is_some() {
            return;
        }
        let (outcome, deposed) = (halt.outcome(), matches!(halt, Halt::Deposed(_)));
        // The launcher prints it as the run's end.
        tracing::info!("the run stops: {}", halt.reason());
        self.halted = Some(halt);
        self.deposed.store(deposed, Ordering::SeqCst);
        // Best effort: the disk may be what failed. Of a run that another coordinator leads, nothing is said.
        if !deposed && let Err(error) = self.chronicle.event(&Event::Finished(outcome.clone())) {
            tracing::warn!("the event stream could not be written either: {error:#}");
        }
        self.over.send_replace(Some(outcome));
        self.wake.send_modify(|count| *count += 1);
    }
}

/// The answer of a driver that has halted. One that leads no longer sends nobody away: workers find the leader.
pub(super) fn leave(input: &Input, halt: &Halt) -> Answer {
    match (input, halt) {
        (Input::Join { .. }, Halt::Deposed(_)) => Answer::Join(Err(JoinRefused::NotLeader)),
        (Input::Join { .. }, Halt::Stopped(_) | Halt::Broken(_)) => {
            Answer::Join(Err(JoinRefused::Over))
        }
        (Input::Pull(_), Halt::Deposed(_)) => Answer::Next(Err(Rejection::NotLeader)),
        (Input::Pull(_), Halt::Stopped(reason) | Halt::Broken(reason)) => {
            Answer::Next(Ok(Directive::Stop { reason: reason.clone(), drained: false }))
        }
        (_, Halt::Deposed(_)) => Answer::Ack(Err(Rejection::NotLeader)),
        (_, Halt::Stopped(_) | Halt::Broken(_)) => Answer::Ack(Err(Rejection::Unexpected)),
    }
}
