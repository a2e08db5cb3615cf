//! The machine: one value, one function.

use std::collections::BTreeMap;

use medevo_types::{PolicyVersion, Step, Term, UnitId, messages::Rejection};

use crate::{
    CheckpointRef, Event, Input, Millis, Outcome, Output, Position, Record, Recovered, Reply,
    RunSpec, View, earlier::Earlier, laps::Laps, membership::Membership, phase::Phase, plan,
    roster::Seats, weights::Weights,
};

/// Bits of a unit's id that count units within a term.
const UNIT_BITS: u32 = 40;

/// The state machine of a run. It owns no clock, no thread and no file: [`Core::step`] is a function of
/// its state, a time and an input.
#[derive(Debug)]
pub struct Core {
    pub(crate) spec: RunSpec,
    pub(crate) term: Term,
    pub(crate) membership: Membership,
    /// The current generation's ranks.
    pub(crate) seats: Seats,
    pub(crate) phase: Phase,
    /// Where the next piece of work lies.
    pub(crate) position: Position,
    /// Last step that is committed and not rolled back.
    pub(crate) committed: Step,
    /// Last step whose commit an earlier term left standing; what lies beyond the checkpoint is void.
    pub(crate) recorded: Step,
    /// Last step that an earlier term had ever committed: its checkpoint directories may exist.
    pub(crate) reached: Step,
    /// Version of the weights.
    pub(crate) policy: PolicyVersion,
    /// How a holding of that version is recognised.
    pub(crate) weights: Weights,
    /// What the pointer names.
    pub(crate) checkpoint: Option<CheckpointRef>,
    /// KL reference of the current stage.
    pub(crate) reference: Option<std::path::PathBuf>,
    /// The stage that began with this version: its first update starts the moments from zero.
    pub(crate) stage_start: Option<(usize, PolicyVersion)>,
    /// Stage whose start is on the event stream.
    pub(crate) announced: Option<usize>,
    pub(crate) next_unit: UnitId,
    /// Tries at checkpoints by step, for fresh directory names.
    pub(crate) save_tries: BTreeMap<Step, u64>,
    /// Failed tries at forming or restoring in a row.
    pub(crate) setbacks: Option<(u32, Millis)>,
    /// Rollbacks since the last checkpoint.
    pub(crate) rollbacks: u32,
    /// What earlier terms left.
    pub(crate) earlier: Earlier,
    /// Somebody asked the run to stop at the next step boundary.
    pub(crate) drain: Option<String>,
    pub(crate) rejected: BTreeMap<Rejection, u64>,
    pub(crate) clock: Laps,
}

impl Core {
    /// A machine for `spec` that goes on from what the store knew. Nothing happens before the first
    /// [`Core::step`].
    #[must_use]
    pub fn new(spec: RunSpec, recovered: Recovered) -> Core {
        let seats = Seats::vacant(recovered.generation);
        let mut core = Core {
            spec,
            term: recovered.term,
            membership: Membership::default(),
            seats,
            phase: Phase::Starting,
            position: Position::default(),
            committed: Step(0),
            recorded: recovered.committed,
            reached: recovered.reached.max(recovered.committed),
            policy: PolicyVersion(0),
            weights: Weights::Unknown,
            checkpoint: recovered.checkpoint.clone(),
            reference: None,
            stage_start: None,
            announced: None,
            next_unit: UnitId(recovered.term.0 << UNIT_BITS),
            save_tries: BTreeMap::new(),
            setbacks: None,
            rollbacks: 0,
            earlier: Earlier::default(),
            drain: None,
            rejected: BTreeMap::new(),
            clock: Laps::default(),
        };
        core.return_to_checkpoint();
        core.reference = core.reference.or(recovered.reference.clone());
        core.inherit(recovered);
        core
    }

    /// Feeds one input that happened at `now` and returns what the driver has to do.
    pub fn step(&mut self, now: Millis, input: Input) -> Output {
        let mut output = Output::default();
        let out = &mut output;
        if matches!(self.phase, Phase::Starting) {
            self.begin(now, out);
        }
        match input {
            Input::Woken => self.membership.forgive(now),
            _ => self.expire(now, out),
        }
        self.handle(now, input, out);
        self.check_deadline(now, out);
        out.wake |= !out.records.is_empty() || !out.effects.is_empty();
        output
    }

    /// What `status` shows.
    #[must_use]
    pub fn view(&self, now: Millis) -> View {
        View {
            phase: self.phase.name().to_owned(),
            explain: self.explain(now),
            ending: self.finished().map(Outcome::ending),
            stage: plan::stage_name(&self.spec, self.position.stage),
            step: self.committed,
            total_steps: plan::total_steps(&self.spec),
            generation: self.seats.generation,
            policy: self.policy,
            term: self.term,
            workers: self.membership.view(now, &self.seats),
            rejected: self.rejected.clone(),
        }
    }

    /// How the run ended, once it has.
    #[must_use]
    pub fn finished(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Finished(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The first thing that happens. What an earlier coordinator committed beyond the place where the run goes on
    /// is void.
    fn begin(&mut self, now: Millis, out: &mut Output) {
        out.events.push(Event::Started { term: self.term, step: self.committed });
        if self.recorded > self.committed {
            let (from, to) = (self.recorded, self.committed);
            let reason = "the coordinator was started again".to_owned();
            out.records.push(Record::Rollback { step: to });
            out.events.push(Event::RolledBack { from, to, reason });
        }
        match plan::problem(&self.spec) {
            Some(problem) => self.fail(now, problem, out),
            None => {
                let work = self.work_after_takeover();
                self.form(now, work, "start", out);
            }
        }
    }

    fn handle(&mut self, now: Millis, input: Input, out: &mut Output) {
        match input {
            Input::Tick | Input::Woken => {}
            Input::Join { tag, device, address } => {
                let admitted = self.join(now, &tag, device, address, out);
                out.reply = Some(Reply::Join(admitted));
            }
            Input::Heartbeat(tag) => {
                let known = self.membership.hear(now, &tag);
                self.count_if_rejected(known);
                out.reply = Some(Reply::Ack(known));
            }
            Input::Gone(tag) => self.gone(now, &tag, out),
            Input::Pull(tag) => {
                let order = self.pull(now, &tag, out);
                self.count_if_rejected(order.as_ref().map(|_| ()).map_err(|&reason| reason));
                out.reply = Some(Reply::Order(order));
            }
            Input::Report(envelope) => {
                let taken = self.report(now, *envelope, out);
                out.reply = Some(Reply::Ack(taken));
            }
            Input::Scored(scored) => self.scored(now, scored, out),
            Input::ScoringFailed { step, error } => self.scoring_failed(now, step, &error, out),
            Input::ManifestWritten(checkpoint) => self.manifest_written(now, checkpoint, out),
            Input::CheckpointFailed { step, error } => {
                self.manifest_failed(now, step, &error, out);
            }
            Input::Drain { reason } => {
                self.drain.get_or_insert(reason);
                self.gather(now, out);
            }
        }
    }

    fn count_if_rejected(&mut self, answer: Result<(), Rejection>) {
        if let Err(reason) = answer {
            self.count_rejection(reason);
        }
    }

    /// Acts on a deadline that has passed.
    fn check_deadline(&mut self, now: Millis, out: &mut Output) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.phase {
            Phase::Gathering(_) => self.gather(now, out),
            Phase::Linking(_) => self.linking_overdue(now, out),
            Phase::Restoring(_) => self.restoring_overdue(now, out),
            Phase::Rollout(_) | Phase::Evaluating(_) => self.units_overdue(now, out),
            Phase::Scoring(scoring) => {
                let step = scoring.at.step;
                self.scoring_failed(now, step, "it was not done in time", out);
            }
            Phase::Updating(_) => self.updating_overdue(now, out),
            Phase::Committing(_) => self.leave_commit(now, out),
            Phase::Checkpointing(_) => self.saving_overdue(now, out),
            Phase::Starting | Phase::Finished(_) => {}
        }
    }

    /// Enters a phase, and says so when it is another one.
    pub(crate) fn enter(&mut self, now: Millis, phase: Phase, out: &mut Output) {
        self.phase = phase;
        out.wake = true;
        if self.clock.enter(now, self.phase.name()) {
            out.events.push(Event::Phase {
                phase: self.phase.name().to_owned(),
                step: self.phase.train_step().unwrap_or(self.committed),
                generation: self.seats.generation,
            });
        }
    }

    /// The run is over.
    pub(crate) fn finish(&mut self, now: Millis, outcome: Outcome, out: &mut Output) {
        out.records.push(Record::Finished(outcome.clone()));
        self.enter(now, Phase::Finished(outcome.clone()), out);
        out.events.push(Event::Finished(outcome.clone()));
        out.effects.push(crate::Effect::Finish(outcome));
    }

    /// The run cannot go on.
    pub(crate) fn fail(&mut self, now: Millis, reason: String, out: &mut Output) {
        self.finish(now, Outcome::Failed { reason }, out);
    }
}
