//! What workers do: votes, optimizer steps, lives, and what they hold.

use medevo_core::*;
use medevo_types::{
    PolicyVersion, WorkerId, WorkerTag,
    messages::{Ballot, Holding, Report},
};

use super::{Checker, Try};
use crate::weights::content;

impl Checker {
    /// A worker has voted. Once one has said so, only votes that were said count.
    pub fn cast(&mut self, worker: &WorkerId, on: Try, ballot: &Ballot) {
        let casts = self.casts.get_or_insert_default();
        casts.entry(on).or_default().insert(worker.clone(), ballot.clone());
    }

    /// A worker begins a life.
    pub fn lives(&mut self, tag: &WorkerTag) {
        let before = self.lives.insert(tag.worker.clone(), tag.incarnation);
        let new = before.is_none_or(|before| before < tag.incarnation);
        assert!(new, "life {} of {} is not new", tag.incarnation, tag.worker);
    }

    /// A worker steps its optimizer with a gradient (INV-2, from the worker's side).
    pub fn applies(&self, worker: &WorkerId, on: Try, from: &Holding, to: &Holding) {
        let Some(gradient) = self.commits.get(&on) else {
            panic!("INV-2: {worker} applies {on:?}, which is not on record")
        };
        assert_eq!(from.policy.next(), to.policy, "{worker} moves more than one version");
        let after = crate::weights::stepped(&from.digest, gradient);
        assert_eq!(to.digest, after, "INV-2: {worker} applied another gradient than was voted for");
        let known = self.ever.contains(&(to.policy, to.digest.clone()));
        assert!(known, "{worker} made weights of {on:?} that no commit makes");
    }

    /// Ranks that say they agree hold these very weights.
    pub fn ranks_hold(&self, worker: &WorkerId, held: Option<&Holding>) {
        let (policy, digest) = (self.policy(), self.chain[&self.policy()].clone());
        let agreed = Holding { policy, digest };
        assert_eq!(held, Some(&agreed), "{worker} holds other weights than all agreed on");
    }

    /// An accepted report is of the current life and, where it matters, generation; a rejected one is on the
    /// event stream and counted, once.
    pub fn reported(&mut self, input: &Input, output: &Output, core: &Core, now: Millis) {
        let rejected = match (input, &output.reply) {
            (Input::Report(envelope), Some(Reply::Ack(Ok(())))) => {
                let current = envelope.generation == self.generation;
                let bound = matches!(
                    envelope.body,
                    Report::Formed { .. }
                        | Report::Restored { .. }
                        | Report::Ballot(_)
                        | Report::Applied { .. }
                        | Report::CheckpointWritten { .. }
                        | Report::CollectiveFailed { .. }
                );
                // A new generation may have been opened by this very input.
                let opened = output.records.iter().any(|r| matches!(r, Record::Generation(_)));
                assert!(current || opened || !bound, "a stale report was taken: {envelope:?}");
                None
            }
            (Input::Report(envelope), Some(Reply::Ack(Err(reason)))) => {
                let told = output.events.iter().any(|event| {
                    matches!(event, Event::Rejected { worker, reason: told, .. }
                        if *worker == envelope.from.worker && told == reason)
                });
                assert!(told, "a silent rejection: {reason} of {envelope:?}");
                Some(*reason)
            }
            (Input::Heartbeat(_), Some(Reply::Ack(Err(reason))))
            | (Input::Pull(_), Some(Reply::Order(Err(reason)))) => Some(*reason),
            _ => None,
        };
        if let Some(reason) = rejected {
            *self.rejections.entry(reason).or_insert(0) += 1;
            assert_eq!(core.view(now).rejected, self.rejections, "rejections are counted");
        }
    }

    /// Attempts at one step take their gradients of the same groups. A rank that has missed the end of its
    /// generation may still be at an older one.
    pub fn attempts(&mut self, on: Try, policy: PolicyVersion, ballot: &Ballot) {
        if on.0 != self.generation || self.opened.get(&on.0) != Some(&self.term) {
            return;
        }
        let what = content(&ballot.gradient).to_owned();
        let known = self.contents.entry((on.1, policy)).or_insert_with(|| what.clone());
        assert_eq!(*known, what, "attempt {on:?} learns from other groups than one before");
    }

    /// A worker that is to use weights must hold the version that stands, and its very digest.
    pub fn holds(&self, name: &WorkerId, holding: &Option<Holding>, policy: PolicyVersion) {
        let held = holding.as_ref().unwrap_or_else(|| panic!("{name} holds nothing"));
        assert_eq!(held.policy, policy, "{name} holds another version");
        assert_eq!(held.digest, self.chain[&policy], "{name} holds other weights");
    }
}
