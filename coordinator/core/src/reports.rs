//! Workers' reports: is it current, and whose phase is it?

use medevo_types::{
    Attempt, Step, WorkerTag,
    messages::{Envelope, Rejection, Report},
};

use crate::{
    Core, Event, Millis, Output,
    phase::{Answer, Phase},
};

impl Core {
    /// Takes a report, or turns it away with its reason counted and on the event stream.
    pub(crate) fn report(
        &mut self,
        now: Millis,
        envelope: Envelope,
        out: &mut Output,
    ) -> Result<(), Rejection> {
        let (worker, report) = (envelope.from.worker.clone(), envelope.body.name());
        let taken = self.take_report(now, envelope, out);
        if let Err(reason) = taken {
            self.count_rejection(reason);
            out.events.push(Event::Rejected { worker, reason, report: report.to_owned() });
        }
        taken
    }

    /// Counts a rejection for `status`.
    pub(crate) fn count_rejection(&mut self, reason: Rejection) {
        *self.rejected.entry(reason).or_insert(0) += 1;
    }

    fn take_report(
        &mut self,
        now: Millis,
        envelope: Envelope,
        out: &mut Output,
    ) -> Result<(), Rejection> {
        self.membership.hear(now, &envelope.from)?;
        let Envelope { from, generation, step, attempt, body } = envelope;
        if let Report::Leaving = body {
            self.lose(now, vec![(from.worker, "it left on purpose".to_owned())], out);
            return Ok(());
        }
        if let Report::RolloutDone { unit, policy, groups } = body {
            let units = self.units().map(|units| units.brief.step);
            let elsewhere = units.or(self.phase.train_step()) != Some(step);
            return match self.rollout_done(now, &from, unit, policy, groups, out) {
                Err(Rejection::UnknownUnit) if elsewhere => Err(Rejection::StaleStep),
                taken => taken,
            };
        }
        if let (Report::Failed { what, error, retryable }, Some(units)) = (&body, self.units()) {
            if !units.holds(&from) {
                return Err(Rejection::UnknownUnit);
            }
            if units.brief.step != step {
                return Err(Rejection::StaleStep);
            }
            if *retryable {
                self.unit_failed(now, &from, &format!("{what}: {error}"), out);
            } else {
                self.fail(now, format!("{} cannot go on: {what}: {error}", from.worker), out);
            }
            return Ok(());
        }
        if let (Report::Failed { what, error, retryable: false }, Phase::Gathering(_)) =
            (&body, &self.phase)
        {
            return self.cannot_serve(now, &from, &format!("{what}: {error}"), out);
        }
        if generation != self.seats.generation {
            return Err(Rejection::StaleGeneration);
        }
        let rank = self.seats.rank(&from).ok_or(Rejection::Unexpected)?;
        match body {
            Report::Formed { holding } => match &self.phase {
                Phase::Linking(linking) if !linking.formed.contains_key(&rank) => {
                    self.linked(now, rank, Answer::Ok(holding), out);
                    Ok(())
                }
                _ => Err(Rejection::Duplicate),
            },
            Report::Restored { holding } => match &self.phase {
                Phase::Restoring(restoring) if !restoring.restored.contains_key(&rank) => {
                    if holding.policy != self.policy {
                        return Err(Rejection::StalePolicy);
                    }
                    self.restored(now, rank, Answer::Ok(holding.digest), out);
                    Ok(())
                }
                Phase::Linking(_) => Err(Rejection::Unexpected),
                _ => Err(Rejection::Duplicate),
            },
            Report::Ballot(ballot) => {
                self.check_try(step, attempt)?;
                match &self.phase {
                    Phase::Committing(_) => Err(Rejection::Duplicate),
                    _ => self.vote(now, rank, ballot, out),
                }
            }
            Report::Applied { holding } => {
                self.check_try(step, attempt)?;
                if !matches!(self.phase, Phase::Committing(_)) {
                    return Err(Rejection::Unexpected);
                }
                if holding.policy != self.policy {
                    return Err(Rejection::StalePolicy);
                }
                self.applied(now, rank, Answer::Ok(holding.digest), out)
            }
            Report::CheckpointWritten { files } => match &self.phase {
                Phase::Checkpointing(saving) if saving.checkpoint.step != step => {
                    Err(Rejection::StaleStep)
                }
                _ => self.files_written(now, rank, files, out),
            },
            Report::CollectiveFailed { operation, error } => {
                let error = format!("{operation}: {error}");
                self.rank_failed(now, rank, step, attempt, &error, out)
            }
            Report::Failed { what, error, retryable: true } => {
                let error = format!("{what}: {error}");
                self.rank_failed(now, rank, step, attempt, &error, out)
            }
            Report::Failed { what, error, retryable: false } => {
                match &self.phase {
                    Phase::Updating(_) | Phase::Committing(_) => self.check_try(step, attempt)?,
                    Phase::Linking(_) | Phase::Restoring(_) => {}
                    // Another rank, or another try, may still write a checkpoint.
                    _ => {
                        let error = format!("{what}: {error}");
                        return self.rank_failed(now, rank, step, attempt, &error, out);
                    }
                }
                self.fail(now, format!("{} cannot go on: {what}: {error}", from.worker), out);
                Ok(())
            }
            // Taken above: it belongs to a policy version, not to a generation.
            Report::RolloutDone { .. } | Report::Leaving => Err(Rejection::UnknownUnit),
        }
    }

    /// Whether a report names the try that is under way.
    fn check_try(&self, step: Step, attempt: Attempt) -> Result<(), Rejection> {
        let (at, current) = match &self.phase {
            Phase::Updating(updating) => (updating.learn.at.step, updating.learn.attempt),
            Phase::Committing(committing) => (committing.at.step, committing.attempt),
            _ if step <= self.committed => return Err(Rejection::StaleStep),
            _ => return Err(Rejection::Unexpected),
        };
        if step != at {
            Err(Rejection::StaleStep)
        } else if attempt != current {
            Err(Rejection::StaleAttempt)
        } else {
            Ok(())
        }
    }

    /// A rank could not do its part, but another try may do better.
    fn rank_failed(
        &mut self,
        now: Millis,
        rank: usize,
        step: Step,
        attempt: Attempt,
        error: &str,
        out: &mut Output,
    ) -> Result<(), Rejection> {
        match &self.phase {
            Phase::Linking(linking) if linking.formed.contains_key(&rank) => {
                Err(Rejection::Duplicate)
            }
            Phase::Linking(_) => {
                self.linked(now, rank, Answer::Err(error.to_owned()), out);
                Ok(())
            }
            Phase::Restoring(restoring) if restoring.restored.contains_key(&rank) => {
                Err(Rejection::Duplicate)
            }
            Phase::Restoring(_) => {
                self.restored(now, rank, Answer::Err(error.to_owned()), out);
                Ok(())
            }
            Phase::Updating(_) => {
                self.check_try(step, attempt)?;
                let reason = format!("{} failed: {error}", self.seats.name(rank));
                self.void(now, &reason, out);
                Ok(())
            }
            Phase::Committing(_) => {
                self.check_try(step, attempt)?;
                self.applied(now, rank, Answer::Err(error.to_owned()), out)
            }
            Phase::Checkpointing(_) if self.writers().contains(&rank) => {
                let reason = format!("{}: {error}", self.seats.name(rank));
                self.save_failed(now, &reason, out);
                Ok(())
            }
            _ => Err(Rejection::Unexpected),
        }
    }

    /// A worker that waits for a roster says that it cannot serve at all. Before the first roster that is
    /// the user's mistake (a model directory without a tensor), so the run ends with the sentence; later
    /// it is that worker's own trouble.
    fn cannot_serve(
        &mut self,
        now: Millis,
        from: &WorkerTag,
        error: &str,
        out: &mut Output,
    ) -> Result<(), Rejection> {
        if self.seats.ranks.is_empty() {
            self.fail(now, format!("{} cannot go on: {error}", from.worker), out);
        } else {
            self.lose(now, vec![(from.worker.clone(), error.to_owned())], out);
        }
        Ok(())
    }
}
