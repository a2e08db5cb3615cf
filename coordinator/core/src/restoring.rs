//! Restoring: every rank ends up with the same weights, those of the run's policy version.

use std::collections::BTreeMap;

use medevo_types::{
    Digest, PolicyVersion, Step,
    messages::{Holding, RestoreSource},
};

use crate::{
    Core, Event, Millis, Output, Position, Record,
    phase::{Answer, Phase, Restoring, Work},
    weights::{Weights, prevailing},
};

/// Rollbacks to one and the same checkpoint before the run gives up.
const MAX_ROLLBACKS: u32 = 10;

impl Core {
    /// All ranks have said what they hold: go on, or get weights to those who lack them.
    pub(crate) fn restore(&mut self, now: Millis, out: &mut Output) {
        let Phase::Linking(linking) = &self.phase else { return };
        let held: BTreeMap<usize, Holding> = linking
            .formed
            .iter()
            .filter_map(|(&rank, answer)| match answer {
                Answer::Ok(Some(held)) => Some((rank, held.clone())),
                _ => None,
            })
            .collect();
        let Some(work) = self.take_work() else { return };
        if let Some((digest, good)) = self.holders(&held) {
            return self.spread(now, digest, &good, work, out);
        }
        if let Some((before, digest)) = self.step_back() {
            // The coordinator was lost between a commit's record and the first optimizer step.
            let good: Vec<usize> = held
                .iter()
                .filter(|(_, held)| held.policy == before.policy && held.digest == digest)
                .map(|(&rank, _)| rank)
                .collect();
            if !good.is_empty() {
                let reason = format!("nobody had applied step {} yet", self.committed);
                let from = self.committed;
                self.stand_on(&before, Weights::Known(digest.clone()));
                self.rolled_back(from, reason, out);
                return self.spread(now, digest, &good, Work::Next, out);
            }
        }
        self.restore_from_disk(now, work, &held, out);
    }

    /// The digest of the run's weights and the ranks that hold them; None when nobody does.
    fn holders(&self, held: &BTreeMap<usize, Holding>) -> Option<(Digest, Vec<usize>)> {
        let held: BTreeMap<usize, &Digest> = held
            .iter()
            .filter(|(_, held)| held.policy == self.policy)
            .map(|(&rank, held)| (rank, &held.digest))
            .collect();
        let all = || held.iter().map(|(&rank, &digest)| (rank, digest));
        let wanted =
            match &self.weights {
                Weights::Known(digest) => digest.clone(),
                Weights::AppliedBy(tags) => prevailing(
                    all().filter(|&(rank, _)| tags.contains(&self.seats.ranks[rank].member.tag)),
                )?,
                Weights::Reported(workers) => prevailing(all().filter(|&(rank, _)| {
                    workers.contains(&self.seats.ranks[rank].member.tag.worker)
                }))?,
                Weights::Unknown => return None,
            };
        let good: Vec<usize> =
            all().filter(|(_, digest)| **digest == wanted).map(|(rank, _)| rank).collect();
        (!good.is_empty()).then_some((wanted, good))
    }

    /// Some ranks hold the weights: the others get them from the first of those.
    fn spread(
        &mut self,
        now: Millis,
        digest: Digest,
        good: &[usize],
        work: Work,
        out: &mut Output,
    ) {
        self.weights = Weights::Known(digest.clone());
        if good.len() == self.seats.ranks.len() {
            self.agreed(now, digest, work, out);
        } else {
            self.order_restore(now, work, RestoreSource::Peer { root: good[0] }, out);
        }
    }

    /// Nobody holds the weights any more.
    fn restore_from_disk(
        &mut self,
        now: Millis,
        work: Work,
        held: &BTreeMap<usize, Holding>,
        out: &mut Output,
    ) {
        let saved = self.checkpoint.as_ref().map(|c| c.policy);
        let mut work = work;
        if saved != Some(self.policy) && self.policy != PolicyVersion(0) {
            self.rollbacks += 1;
            let reason = if self.spec.sharded {
                format!(
                    "version {} is not whole any more: with train.shard = \"optimizer\" a worker that is \
                     lost takes its part of the optimizer's state with it",
                    self.policy
                )
            } else {
                format!("no worker holds version {} any more", self.policy)
            };
            if self.rollbacks > MAX_ROLLBACKS {
                let reason = format!(
                    "{reason}, for the {}th time since the last checkpoint: see the workers' logs \
                     for why they end, or write checkpoints more often",
                    self.rollbacks
                );
                self.fail(now, reason, out);
                return;
            }
            self.roll_back(reason, out);
            work = Work::Next;
            if let Some((digest, good)) = self.holders(held) {
                return self.spread(now, digest, &good, work, out);
            }
        }
        let source = match &self.checkpoint {
            Some(checkpoint) if checkpoint.policy == self.policy => {
                self.weights = Weights::Known(checkpoint.holding.clone());
                RestoreSource::Checkpoint { dir: checkpoint.dir.clone() }
            }
            _ => RestoreSource::Model { dir: self.spec.model.clone() },
        };
        self.order_restore(now, work, source, out);
    }

    /// Puts the run back to its checkpoint, or to its start, and says so.
    pub(crate) fn roll_back(&mut self, reason: String, out: &mut Output) {
        let from = self.committed;
        self.return_to_checkpoint();
        self.rolled_back(from, reason, out);
    }

    /// Says that commits after the one that the run now stands on are void.
    fn rolled_back(&self, from: Step, reason: String, out: &mut Output) {
        out.records.push(Record::Rollback { step: self.committed });
        out.events.push(Event::RolledBack { from, to: self.committed, reason });
    }

    /// Takes position, version and digest from the checkpoint, or from the run's start.
    pub(crate) fn return_to_checkpoint(&mut self) {
        self.stage_start = None;
        match &self.checkpoint {
            Some(checkpoint) => {
                self.position = checkpoint.position;
                self.policy = checkpoint.policy;
                self.committed = checkpoint.step;
                self.weights = Weights::Known(checkpoint.holding.clone());
                self.reference = checkpoint.reference.clone();
                self.stage_start =
                    checkpoint.untrained.then_some((checkpoint.position.stage, checkpoint.policy));
            }
            None => {
                self.position = Position::default();
                self.policy = PolicyVersion(0);
                self.committed = Step(0);
                self.weights = Weights::Unknown;
                self.reference = None;
            }
        }
    }

    fn order_restore(&mut self, now: Millis, work: Work, source: RestoreSource, out: &mut Output) {
        let deadline = now + self.spec.deadlines.restore_ms;
        let restoring = Restoring { work, source, restored: BTreeMap::new(), deadline };
        self.enter(now, Phase::Restoring(restoring), out);
    }

    /// A rank has its weights, or could not get them.
    pub(crate) fn restored(
        &mut self,
        now: Millis,
        rank: usize,
        answer: Answer<Digest>,
        out: &mut Output,
    ) {
        let Phase::Restoring(restoring) = &mut self.phase else { return };
        restoring.restored.insert(rank, answer);
        if restoring.restored.len() < self.seats.ranks.len() {
            return;
        }
        let mut digests = BTreeMap::new();
        for (&rank, answer) in &restoring.restored {
            match answer {
                Answer::Ok(digest) => digests.insert(rank, digest.clone()),
                Answer::Err(error) => {
                    let reason = format!("{} could not restore: {error}", self.seats.name(rank));
                    return self.setback(now, 0, &reason, out);
                }
            };
        }
        let wanted = match &self.weights {
            Weights::Known(digest) => Some(digest.clone()),
            _ => prevailing(digests.iter().map(|(&rank, digest)| (rank, digest))),
        };
        let Some(wanted) = wanted else { return };
        let odd: Vec<usize> =
            digests.iter().filter(|&(_, d)| *d != wanted).map(|(&rank, _)| rank).collect();
        if odd.is_empty() {
            self.weights = Weights::Known(wanted.clone());
            if let Some(work) = self.take_work() {
                self.agreed(now, wanted, work, out);
            }
        } else {
            let reason = format!(
                "after restoring version {}, {} hold other weights than expected (digest {wanted})",
                self.policy,
                self.seats.names(odd)
            );
            self.setback(now, 0, &reason, out);
        }
    }

    /// Every rank holds the same weights: the work goes on.
    fn agreed(&mut self, now: Millis, digest: Digest, work: Work, out: &mut Output) {
        self.setbacks = None;
        let (policy, generation) = (self.policy, self.seats.generation);
        out.events.push(Event::DigestsAgree { policy, digest, generation });
        self.start(now, work, out);
    }

    /// Time is up for the weights: who has not answered is given up.
    pub(crate) fn restoring_overdue(&mut self, now: Millis, out: &mut Output) {
        let Phase::Restoring(restoring) = &self.phase else { return };
        let silent: Vec<usize> =
            self.seats.present().filter(|rank| !restoring.restored.contains_key(rank)).collect();
        self.give_up(now, &silent, "it did not restore its weights in time", out);
    }
}
