//! The worker of a simulation by hand: it obeys orders at once.

use medevo_core::Order;
use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step, WorkerId, WorkerTag, messages::*,
};

use crate::{
    by_hand::{Sim, Trouble},
    weights::{gradient, group, model, stepped},
};

/// One process.
pub struct Worker {
    pub tag: WorkerTag,
    pub alive: bool,
    pub holding: Option<Holding>,
    /// Who holds the optimizer's state of `holding` together with this one, when it is sharded.
    pub parts: Vec<WorkerId>,
    pub gradient: Option<Digest>,
    pub generation: Generation,
    pub members: Vec<WorkerTag>,
    pub unsent: Option<Envelope>,
    pub trouble: Option<Trouble>,
}

impl Worker {
    pub fn new(tag: WorkerTag) -> Worker {
        Worker {
            tag,
            alive: true,
            holding: None,
            parts: Vec::new(),
            gradient: None,
            generation: Generation(0),
            members: Vec::new(),
            unsent: None,
            trouble: None,
        }
    }
}

impl Sim {
    /// Whether nobody is gone who holds a part of this worker's optimizer state. The starting model has none.
    fn whole(&self, name: &WorkerId) -> bool {
        let own = &self.workers[name];
        let stepped = own.holding.as_ref().is_some_and(|held| held.policy > PolicyVersion(0));
        let there = |other: &WorkerId| {
            self.workers.get(other).is_some_and(|w| w.alive && w.holding == own.holding)
        };
        !self.spec.sharded || !stepped || own.parts.iter().all(there)
    }

    /// Carries an order out; its report waits to be sent. Returns false for an order to wait.
    pub fn carry_out(&mut self, name: &WorkerId, order: Order) -> bool {
        let Some((step, attempt, body)) = self.answer(name, order) else { return false };
        let worker = self.workers.get_mut(name).expect("it pulled");
        worker.unsent = Some(Envelope {
            from: worker.tag.clone(),
            generation: worker.generation,
            step,
            attempt,
            body,
        });
        true
    }

    fn answer(&mut self, name: &WorkerId, order: Order) -> Option<(Step, Attempt, Report)> {
        let peers_alive = |sim: &Sim| {
            sim.workers[name]
                .members
                .iter()
                .all(|tag| sim.workers.values().any(|w| w.alive && w.tag == *tag))
        };
        let (none, first) = (Step(0), Attempt(0));
        let failed = |what: &str, error: &str| Report::Failed {
            what: what.into(),
            error: error.into(),
            retryable: true,
        };
        let collective = || Report::CollectiveFailed {
            operation: "all_reduce".into(),
            error: "connection reset".into(),
        };
        let trouble = match &order {
            Order::Wait { .. } | Order::Stop { .. } => return None,
            _ => self.workers.get_mut(name).expect("it pulled").trouble.take(),
        };
        let holding = self.workers[name].holding.clone();
        match order {
            Order::Wait { .. } | Order::Stop { .. } => None,
            Order::Form(roster) => {
                let worker = self.workers.get_mut(name).expect("it pulled");
                worker.generation = roster.generation;
                worker.members = roster.members.iter().map(|m| m.tag.clone()).collect();
                assert_eq!(worker.members[roster.rank], worker.tag, "the receiver's own rank");
                let broken = trouble == Some(Trouble::Collective) || !peers_alive(self);
                let holding = holding.filter(|_| self.whole(name));
                let worker = self.workers.get_mut(name).expect("it pulled");
                if !broken {
                    worker.holding = holding.clone();
                }
                let body = if broken { collective() } else { Report::Formed { holding } };
                Some((none, first, body))
            }
            Order::Restore(restore) => {
                let digest = match &restore.source {
                    RestoreSource::Model { .. } => Some(model()),
                    RestoreSource::Checkpoint { dir } => Some(self.disk[dir].digest.clone()),
                    RestoreSource::Peer { root } => {
                        let tag = &self.workers[name].members[*root];
                        let peer = self.workers.values().find(|w| w.alive && w.tag == *tag);
                        let held = peer.and_then(|w| w.holding.clone());
                        held.filter(|h| h.policy == restore.policy).map(|h| h.digest)
                    }
                };
                let body = match digest {
                    Some(digest) if trouble != Some(Trouble::Collective) => {
                        let holding = Holding { policy: restore.policy, digest };
                        let worker = self.workers.get_mut(name).expect("it pulled");
                        worker.holding = Some(holding.clone());
                        worker.parts =
                            worker.members.iter().map(|tag| tag.worker.clone()).collect();
                        Report::Restored { holding }
                    }
                    _ => collective(),
                };
                Some((none, first, body))
            }
            Order::Rollout { unit, policy, step, samples, sampling, .. } => {
                self.draws += 1;
                self.checker.holds(name, &holding, policy);
                if trouble == Some(Trouble::Retryable) {
                    return Some((step, first, failed("rollout", "out of memory")));
                }
                let weights = holding.expect("checked above").digest;
                let groups = samples
                    .iter()
                    .map(|&sample| group(sample, sampling.n, policy, &weights))
                    .collect();
                Some((step, first, Report::RolloutDone { unit, policy, groups }))
            }
            Order::Update { generation, step, attempt, policy, .. } => {
                self.checker.holds(name, &holding, policy);
                let weights = holding.expect("checked above").digest;
                let mut ballot = Ballot {
                    gradient: gradient(&weights, step, generation, "batch"),
                    finite: true,
                    grad_norm: 1.0,
                    figures: vec![("loss".into(), 0.1)],
                };
                match trouble {
                    Some(Trouble::OtherGradient) => ballot.gradient = Digest("odd".into()),
                    Some(Trouble::NonFinite) => ballot.finite = false,
                    _ => {}
                }
                if trouble == Some(Trouble::Collective) || !peers_alive(self) {
                    return Some((step, attempt, collective()));
                }
                self.workers.get_mut(name).expect("it pulled").gradient =
                    Some(ballot.gradient.clone());
                Some((step, attempt, Report::Ballot(ballot)))
            }
            Order::Apply { step, attempt, policy, .. } => {
                let mut holding = holding.expect("a voter holds weights");
                if trouble == Some(Trouble::Retryable) {
                    return Some((step, attempt, failed("apply", "out of memory")));
                }
                if holding.policy != policy {
                    assert_eq!(holding.policy.next(), policy, "an update moves one version on");
                    let worker = self.workers.get_mut(name).expect("it pulled");
                    let gradient = worker.gradient.take().expect("a voter has a gradient");
                    let digest = stepped(&holding.digest, &gradient);
                    holding = Holding { policy, digest };
                    worker.holding = Some(holding.clone());
                    worker.parts = worker.members.iter().map(|tag| tag.worker.clone()).collect();
                }
                Some((step, attempt, Report::Applied { holding }))
            }
            Order::Checkpoint { step, policy, dir, .. } => {
                self.checker.holds(name, &holding, policy);
                let again = !self.written.insert((dir.clone(), name.clone()));
                let taken = self.disk.contains_key(&dir) && !self.spec.sharded;
                if trouble == Some(Trouble::Retryable) || again || taken {
                    return Some((step, first, failed("checkpoint", "directory exists")));
                }
                self.disk.insert(dir, holding.expect("checked above"));
                let digest = Digest("file".into());
                let files =
                    vec![FileEntry { name: format!("{name}.safetensors"), bytes: 1, digest }];
                Some((step, first, Report::CheckpointWritten { files }))
            }
        }
    }
}
