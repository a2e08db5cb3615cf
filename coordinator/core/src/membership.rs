//! Who is in the run: lives, leases, joins and losses.

use std::collections::BTreeMap;

use medevo_types::{
    Incarnation, WorkerId, WorkerTag,
    messages::{JoinRefused, Member, Rejection, WorkerView},
};

use crate::{Core, Event, Millis, Output, phase::Phase, roster::Seats};

/// A worker with a live lease.
#[derive(Clone, Debug)]
struct Lease {
    incarnation: Incarnation,
    device: String,
    address: String,
    heard: Millis,
}

/// All workers with a live lease, and the latest life of every worker ever seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Membership {
    leases: BTreeMap<WorkerId, Lease>,
    lives: BTreeMap<WorkerId, Incarnation>,
    /// No lease runs out before this: nobody has to be looked at for it.
    quiet_until: Millis,
}

impl Membership {
    /// Workers with a live lease.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether some life of this worker has a live lease.
    pub fn has(&self, worker: &WorkerId) -> bool {
        self.leases.contains_key(worker)
    }

    /// Whether this very life has a live lease.
    pub fn check(&self, tag: &WorkerTag) -> Result<(), Rejection> {
        match self.leases.get(&tag.worker) {
            Some(lease) if lease.incarnation == tag.incarnation => Ok(()),
            _ if self.lives.get(&tag.worker).is_some_and(|&latest| tag.incarnation < latest) => {
                Err(Rejection::StaleIncarnation)
            }
            _ => Err(Rejection::UnknownWorker),
        }
    }

    /// Checks a life and renews its lease.
    pub fn hear(&mut self, now: Millis, tag: &WorkerTag) -> Result<(), Rejection> {
        self.check(tag)?;
        if let Some(lease) = self.leases.get_mut(&tag.worker) {
            lease.heard = now;
        }
        Ok(())
    }

    /// Counts everyone's silence from now.
    pub fn forgive(&mut self, now: Millis) {
        for lease in self.leases.values_mut() {
            lease.heard = now;
        }
    }

    /// Everyone, by name: the order of ranks.
    pub fn members(&self) -> Vec<Member> {
        self.leases
            .iter()
            .map(|(worker, lease)| Member {
                tag: WorkerTag { worker: worker.clone(), incarnation: lease.incarnation },
                address: lease.address.clone(),
            })
            .collect()
    }

    /// Everyone as `status` shows them.
    pub fn view(&self, now: Millis, seats: &Seats) -> Vec<WorkerView> {
        self.leases
            .iter()
            .map(|(worker, lease)| WorkerView {
                worker: worker.clone(),
                rank: seats
                    .rank(&WorkerTag { worker: worker.clone(), incarnation: lease.incarnation }),
                device: lease.device.clone(),
                silent_ms: now.saturating_sub(lease.heard),
            })
            .collect()
    }

    /// Whose lease has run out. Every input asks, so that with many workers most of them must not be looked at.
    fn expired(&mut self, now: Millis, ttl: Millis) -> Vec<WorkerId> {
        if now <= self.quiet_until {
            return Vec::new();
        }
        let silent = |lease: &Lease| now.saturating_sub(lease.heard) > ttl;
        let expired = self.leases.iter().filter(|(_, l)| silent(l)).map(|(w, _)| w.clone());
        let expired: Vec<WorkerId> = expired.collect();
        // A lease that is renewed or begins from here on runs out later than every one that is there now could.
        let first = self.leases.values().filter(|l| !silent(l)).map(|l| l.heard).min();
        self.quiet_until = first.unwrap_or(now) + ttl;
        expired
    }
}

impl Core {
    /// Lets a worker in. The same life may ask again; a later life replaces the earlier one.
    pub(crate) fn join(
        &mut self,
        now: Millis,
        tag: &WorkerTag,
        device: String,
        address: String,
        out: &mut Output,
    ) -> Result<(), JoinRefused> {
        if matches!(self.phase, Phase::Finished(_)) {
            return Err(JoinRefused::Over);
        }
        let latest = self.membership.lives.get(&tag.worker).copied();
        if latest.is_some_and(|latest| tag.incarnation < latest) {
            return Err(JoinRefused::OldLife(tag.worker.clone()));
        }
        if self.membership.hear(now, tag).is_ok() {
            return Ok(());
        }
        if self.membership.leases.contains_key(&tag.worker) {
            self.lose(now, vec![(tag.worker.clone(), "a later life joined".to_owned())], out);
        }
        if self.membership.len() >= self.spec.max_workers.max(1) {
            return Err(JoinRefused::Full);
        }
        if matches!(self.phase, Phase::Finished(_)) {
            return Err(JoinRefused::Over);
        }
        self.membership.lives.insert(tag.worker.clone(), tag.incarnation);
        let lease =
            Lease { incarnation: tag.incarnation, device: device.clone(), address, heard: now };
        self.membership.leases.insert(tag.worker.clone(), lease);
        out.events.push(Event::WorkerJoined { worker: tag.worker.clone(), device });
        self.gather(now, out);
        Ok(())
    }

    /// Somebody saw this life end.
    pub(crate) fn gone(&mut self, now: Millis, tag: &WorkerTag, out: &mut Output) {
        if self.membership.check(tag).is_ok() {
            self.lose(now, vec![(tag.worker.clone(), "its process ended".to_owned())], out);
        }
    }

    /// Takes everyone out whose lease has run out.
    pub(crate) fn expire(&mut self, now: Millis, out: &mut Output) {
        let expired = self.membership.expired(now, self.spec.deadlines.lease_ttl_ms);
        let reason = "its lease ran out".to_owned();
        self.lose(now, expired.into_iter().map(|worker| (worker, reason.clone())).collect(), out);
    }

    /// Takes workers out of the run, all of them before the phase reacts to any: a roster opened in
    /// between would count on the dead.
    pub(crate) fn lose(&mut self, now: Millis, lost: Vec<(WorkerId, String)>, out: &mut Output) {
        if lost.is_empty() || matches!(self.phase, Phase::Finished(_)) {
            return;
        }
        let mut ranks = Vec::new();
        let mut names = Vec::new();
        for (worker, reason) in lost {
            let Some(lease) = self.membership.leases.remove(&worker) else { continue };
            let tag = WorkerTag { worker: worker.clone(), incarnation: lease.incarnation };
            if let Some(rank) = self.seats.rank(&tag) {
                self.seats.ranks[rank].present = false;
                ranks.push(rank);
                names.push(format!("{worker} lost: {reason}"));
            }
            out.events.push(Event::WorkerLost { worker, reason });
        }
        out.wake = true;
        if ranks.is_empty() {
            self.gather(now, out);
        } else {
            self.seats_lost(now, &ranks, &names.join("; "), out);
        }
    }

    /// The phase's answer to a loss.
    fn seats_lost(&mut self, now: Millis, ranks: &[usize], reason: &str, out: &mut Output) {
        match &self.phase {
            Phase::Linking(_) | Phase::Restoring(_) => self.regroup(now, reason, out),
            Phase::Rollout(_) | Phase::Evaluating(_) => self.units_lost(now, ranks, reason, out),
            Phase::Updating(_) => self.void(now, reason, out),
            Phase::Committing(_) => self.settle_commit(now, out),
            Phase::Checkpointing(_) => self.writer_lost(now, ranks, reason, out),
            Phase::Gathering(_) => self.gather(now, out),
            Phase::Starting | Phase::Scoring(_) | Phase::Finished(_) => {}
        }
    }
}
