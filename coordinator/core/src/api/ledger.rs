//! What the records of a run add up to: where the next coordinator goes on.

use std::path::{Path, PathBuf};

use medevo_types::{Generation, Step, Term, WorkerId};

use super::*;

/// The records of a run, replayed in their order.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The last generation ever opened.
    pub generation: Generation,
    /// The last step that was ever committed, rolled back or not.
    pub reached: Step,
    /// The last step whose commit stands.
    pub committed: Step,
    /// Published checkpoints that still stand, oldest first; the last is the pointer.
    pub checkpoints: Vec<CheckpointRef>,
    /// How the run ended, if it has.
    pub outcome: Option<Outcome>,
    /// Who was in the last roster.
    pub roster: Vec<WorkerId>,
    /// Commits that stand, oldest first.
    standings: Vec<Standing>,
}

impl Ledger {
    /// Takes the next record.
    pub fn replay(&mut self, record: Record) {
        self.outcome = None;
        match record {
            Record::Generation(generation) => self.generation = self.generation.max(generation),
            Record::Roster(workers) => self.roster = workers,
            Record::Commit { step, policy, left, .. } => {
                self.committed = step;
                self.reached = self.reached.max(step);
                match left {
                    Some(left) => {
                        let roster = self.roster.clone();
                        self.standings.push(Standing { step, policy, roster, left });
                    }
                    // Written by a version that did not say where a commit leaves the run.
                    None => self.standings.clear(),
                }
            }
            Record::Rollback { step } => {
                self.committed = step;
                // What lies beyond no longer stands, and must never be gone back to.
                self.checkpoints.retain(|checkpoint| checkpoint.step <= step);
                self.standings.retain(|standing| standing.step <= step);
            }
            Record::Checkpoint(checkpoint) => {
                self.checkpoints.push(checkpoint);
                let oldest = self.checkpoints[0].step;
                self.standings.retain(|standing| standing.step > oldest);
            }
            Record::Finished(outcome) => self.outcome = Some(outcome),
        }
    }

    /// Says where every directory that was recorded lies now.
    pub fn relocate(&mut self, place: impl Fn(&Path) -> PathBuf) {
        let references = self.standings.iter_mut().filter_map(|s| s.left.reference.as_mut());
        let checkpoints = self.checkpoints.iter_mut();
        let both = checkpoints.flat_map(|c| [Some(&mut c.dir), c.reference.as_mut()]).flatten();
        for dir in both.chain(references) {
            *dir = place(dir);
        }
    }

    /// What a coordinator of `term` needs to know. The pointer is the last of [`Ledger::checkpoints`]: whoever
    /// finds that one damaged pops it first.
    #[must_use]
    pub fn recovered(&self, term: Term) -> Recovered {
        let checkpoint = self.checkpoints.last().cloned();
        let saved = checkpoint.as_ref().map_or(Step(0), |checkpoint| checkpoint.step);
        let mut beyond = self.standings.iter().rev().filter(|standing| standing.step > saved);
        let last = beyond.next().filter(|last| last.step == self.committed).cloned();
        let before = beyond.next().filter(|_| last.is_some()).cloned();
        Recovered {
            term,
            generation: self.generation,
            committed: self.committed,
            reached: self.reached,
            reference: checkpoint.as_ref().and_then(|newest| newest.reference.clone()),
            checkpoint,
            last,
            before,
            roster: self.roster.iter().cloned().collect(),
            rollouts: Vec::new(),
        }
    }
}
