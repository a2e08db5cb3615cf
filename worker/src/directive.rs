//! Where in the run a directive stands, for its report and for the log.

use medevo_types::{
    Attempt, Generation, Step, WorkerTag,
    messages::{Directive, Envelope, Report},
};

/// The counters that a report repeats from its directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub generation: Generation,
    pub step: Step,
    pub attempt: Attempt,
}

impl Place {
    /// The place of a directive. A rollout belongs to no generation: its report names the one that
    /// stands. What belongs to no step or attempt says 0.
    pub(crate) fn of(directive: &Directive, standing: Generation) -> Self {
        let none = (Step::default(), Attempt::default());
        let (generation, (step, attempt)) = match directive {
            Directive::Form(roster) => (roster.generation, none),
            Directive::Restore(restore) => (restore.generation, none),
            Directive::Rollout(unit) => (standing, (unit.step, Attempt::default())),
            Directive::Update(work) => (work.generation, (work.step, work.attempt)),
            Directive::Apply(work) => (work.generation, (work.step, work.attempt)),
            Directive::Checkpoint(work) => (work.generation, (work.step, Attempt::default())),
            Directive::Wait { .. } | Directive::Stop { .. } => (standing, none),
        };
        Self { generation, step, attempt }
    }

    pub(crate) fn envelope(self, from: WorkerTag, body: Report) -> Envelope {
        let Self { generation, step, attempt } = self;
        Envelope { from, generation, step, attempt, body }
    }
}

/// A directive's name for logs and errors; what it holds stays out of them.
pub(crate) fn name(directive: &Directive) -> &'static str {
    match directive {
        Directive::Wait { .. } => "wait",
        Directive::Form(_) => "form",
        Directive::Restore(_) => "restore",
        Directive::Rollout(_) => "rollout",
        Directive::Update(_) => "update",
        Directive::Apply(_) => "apply",
        Directive::Checkpoint(_) => "checkpoint",
        Directive::Stop { .. } => "stop",
    }
}
