//! A worker's engine, as worker/src/executor.rs and worker/engine have it: one order at a time, never interrupted;
//! weights that outlive a membership; a gradient that does not outlive its roster.

use medevo_core::{Millis, Order};
use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step, WorkerTag,
    messages::{Envelope, FileEntry, Holding, Report, RestoreSource},
};

use super::{
    Mutation, World,
    agent::Nudge,
    collective::{Key, Kind},
    weather::use_up,
};
use crate::weights::{group, model, stepped};

/// A process of a worker: its place and its number.
pub(super) type Process = (usize, u64);

/// What an engine has in memory.
#[derive(Debug, Default)]
pub(super) struct Engine {
    pub holding: Option<Holding>,
    /// Who holds the optimizer's state of `holding`, when it is sharded and there is any.
    pub parts: Vec<Process>,
    /// The reduced gradient that waits for its commit.
    pub kept: Option<((Generation, Step, Attempt), Digest)>,
    /// The generation whose communicator stands.
    pub standing: Option<Generation>,
    /// The last generation that was formed or tried.
    pub last: Generation,
    /// Who is in it.
    pub roster: Vec<Process>,
}

/// An order that is being carried out.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub number: u64,
    pub order: Order,
    from: WorkerTag,
    place: (Generation, Step, Attempt),
}

/// Why an order was not carried out.
pub(super) enum Failure {
    /// The collective failed: the communicator is gone.
    Collective,
    /// Something else, perhaps for now only.
    Other(&'static str),
}

impl World {
    /// The engine begins to carry an order out.
    pub(super) fn begin(&mut self, w: usize, order: Order) {
        self.trace.note(self.now, || format!("w{w} begins {}", name(&order)));
        if let Order::Form(roster) = &order {
            self.leaves(w, |of| of < roster.generation);
            let members: Vec<Process> =
                roster.members.iter().map(|member| self.process_of(&member.tag)).collect();
            let engine = &mut self.workers[w].engine;
            (engine.standing, engine.kept) = (None, None);
            (engine.last, engine.roster) = (roster.generation, members);
        }
        if let Order::Restore(_) = &order {
            self.workers[w].engine.kept = None;
        }
        let long: Millis = match &order {
            Order::Form(_) => self.random.delay(5, 100),
            Order::Restore(_) => self.random.delay(30, 400),
            Order::Rollout { .. } => self.random.delay(40, 900),
            Order::Update { .. } => self.random.delay(50, 600),
            Order::Apply { .. } => self.random.delay(10, 200),
            _ => self.random.delay(30, 600),
        };
        let none = (Step(0), Attempt(0));
        let worker = &mut self.workers[w];
        let (generation, (step, attempt)) = match &order {
            Order::Form(roster) => (roster.generation, none),
            Order::Restore(restore) => (restore.generation, none),
            Order::Update { generation, step, attempt, .. }
            | Order::Apply { generation, step, attempt, .. } => (*generation, (*step, *attempt)),
            Order::Checkpoint { generation, step, .. } => (*generation, (*step, Attempt(0))),
            Order::Rollout { step, .. } => (worker.engine.last, (*step, Attempt(0))),
            Order::Wait { .. } | Order::Stop { .. } => (worker.engine.last, none),
        };
        worker.jobs += 1;
        let (number, from) = (worker.jobs, worker.tag());
        worker.job = Some(Job { number, order, from, place: (generation, step, attempt) });
        let at = self.now + long * worker.slow;
        self.nudge_at(w, at, Nudge::Computed { job: number });
    }

    /// The process that began a life, if it is still there.
    fn process_of(&self, tag: &WorkerTag) -> Process {
        let place = self.workers.iter().position(|worker| worker.name == tag.worker);
        let place = place.expect("rosters name known workers");
        let worker = &self.workers[place];
        let lives = worker.alive && worker.lives.contains(&tag.incarnation);
        (place, if lives { worker.process } else { u64::MAX })
    }

    /// The engine has computed what it can by itself; some orders then need the other ranks.
    pub(super) fn computed(&mut self, w: usize, number: u64) {
        let worker = &self.workers[w];
        let Some(job) = worker.job.as_ref().filter(|job| job.number == number) else { return };
        let engine = &worker.engine;
        let (generation, step, attempt) = job.place;
        let several = engine.roster.len() > 1;
        let stands = engine.standing == Some(generation);
        let kind = match &job.order {
            Order::Form(_) => Some(Kind::Form),
            Order::Restore(_) | Order::Update { .. } | Order::Apply { .. } if !stands => {
                return self.finish(w, Err(Failure::Collective));
            }
            Order::Restore(restore) => {
                let peer = matches!(restore.source, RestoreSource::Peer { .. });
                (peer || self.spec.sharded).then_some(Kind::Restore)
            }
            Order::Update { policy, .. } => {
                if engine.holding.as_ref().map(|held| held.policy) != Some(*policy) {
                    return self.finish(w, Err(Failure::Other("other weights are held")));
                }
                Some(Kind::Update)
            }
            Order::Apply { .. } => {
                if engine.kept.as_ref().map(|(of, _)| *of) != Some((generation, step, attempt)) {
                    return self.finish(w, Err(Failure::Other("no such gradient is kept")));
                }
                if use_up(&mut self.weather.bad_applies) {
                    return self.finish(w, Err(Failure::Other("out of memory")));
                }
                self.spec.sharded.then_some(Kind::Apply)
            }
            Order::Rollout { .. } => return self.roll_out(w),
            Order::Checkpoint { .. } => return self.save(w),
            Order::Wait { .. } | Order::Stop { .. } => return,
        };
        match kind.filter(|_| several) {
            Some(kind) => self.arrive(w, Key { generation, kind, step, attempt }),
            None => {
                let kind =
                    kind.unwrap_or(match &self.workers[w].job.as_ref().expect("above").order {
                        Order::Apply { .. } => Kind::Apply,
                        _ => Kind::Restore,
                    });
                self.settle(Key { generation, kind, step, attempt }, &[w], &[]);
            }
        }
    }

    /// The order is done, or cannot be: its report goes out.
    pub(super) fn finish(&mut self, w: usize, result: Result<Report, Failure>) {
        let Some(Job { number, order, from, place }) = self.workers[w].job.clone() else { return };
        let body = match result {
            Ok(report) => report,
            Err(Failure::Collective) => {
                self.leaves(w, |of| of <= place.0);
                let engine = &mut self.workers[w].engine;
                (engine.standing, engine.kept) = (None, None);
                let (operation, error) = (name(&order).to_owned(), "reset".to_owned());
                Report::CollectiveFailed { operation, error }
            }
            Err(Failure::Other(error)) => Report::Failed {
                what: name(&order).to_owned(),
                error: error.to_owned(),
                retryable: true,
            },
        };
        let (generation, step, attempt) = place;
        let envelope = Box::new(Envelope { from, generation, step, attempt, body });
        let at = self.now + 1;
        self.nudge_at(w, at, Nudge::Done { job: number, envelope });
    }

    fn roll_out(&mut self, w: usize) {
        let any = self.mutation == Some(Mutation::AnyWeights);
        let Some(job) = &self.workers[w].job else { return };
        let Order::Rollout { unit, policy, samples, sampling, .. } = &job.order else { return };
        let holding = self.workers[w].engine.holding.as_ref();
        let report = match holding.filter(|held| any || held.policy == *policy) {
            _ if use_up(&mut self.weather.bad_units) => Err(Failure::Other("out of memory")),
            Some(held) => {
                let digest = match any && self.random.chance(300) {
                    true => Digest("stale".to_owned()),
                    false => held.digest.clone(),
                };
                let draw = |&sample: &usize| group(sample, sampling.n.max(1), *policy, &digest);
                let groups = samples.iter().map(draw).collect();
                Ok(Report::RolloutDone { unit: *unit, policy: *policy, groups })
            }
            None => Err(Failure::Other("other weights are held")),
        };
        self.finish(w, report);
    }

    fn save(&mut self, w: usize) {
        let worker = &self.workers[w];
        let Some(job) = &worker.job else { return };
        let Order::Checkpoint { policy, dir, .. } = &job.order else { return };
        let holding = worker.engine.holding.clone().filter(|held| held.policy == *policy);
        let directory = self.disk.entry(dir.clone()).or_default();
        let taken = directory.parts.contains_key(&worker.name)
            || (!self.spec.sharded && !directory.parts.is_empty());
        let report = match holding {
            None => Err(Failure::Other("other weights are held")),
            Some(_) if taken => Err(Failure::Other("the directory is not empty")),
            Some(_) if use_up(&mut self.weather.bad_files) => Err(Failure::Other("disk full")),
            Some(held) => {
                directory.parts.insert(worker.name.clone(), held);
                let (name, digest) = (format!("{}.safetensors", worker.name), Digest("f".into()));
                Ok(Report::CheckpointWritten { files: vec![FileEntry { name, bytes: 1, digest }] })
            }
        };
        self.finish(w, report);
    }

    /// Weights from the starting model or a checkpoint.
    pub(super) fn read(&mut self, w: usize, policy: PolicyVersion, source: &RestoreSource) {
        let holding = match source {
            RestoreSource::Model { .. } => Some(Holding { policy, digest: model() }),
            RestoreSource::Checkpoint { dir } => {
                let directory = self.disk.get(dir);
                directory
                    .and_then(|d| d.parts.values().next())
                    .filter(|h| h.policy == policy)
                    .cloned()
            }
            RestoreSource::Peer { .. } => None,
        };
        match holding {
            Some(holding) => self.takes(w, holding),
            None => self.finish(w, Err(Failure::Other("no such checkpoint"))),
        }
    }

    /// An engine now holds this, its optimizer's state shared with its roster.
    pub(super) fn takes(&mut self, w: usize, holding: Holding) {
        let parts = self.shared(w, &holding);
        let engine = &mut self.workers[w].engine;
        (engine.parts, engine.holding) = (parts, Some(holding.clone()));
        self.finish(w, Ok(Report::Restored { holding }));
    }

    /// Who shares the optimizer's state of a holding, when a rank comes to hold it in its roster.
    pub(super) fn shared(&self, w: usize, holding: &Holding) -> Vec<Process> {
        let divided = self.spec.sharded && holding.policy > PolicyVersion(0);
        if divided { self.workers[w].engine.roster.clone() } else { Vec::new() }
    }

    /// Steps the optimizer with the kept gradient.
    pub(super) fn apply(&mut self, w: usize) {
        let Some(job) = &self.workers[w].job else { return };
        let Order::Apply { policy, .. } = &job.order else { return };
        let policy = *policy;
        let engine = &mut self.workers[w].engine;
        let (Some((on, gradient)), Some(from)) = (engine.kept.take(), engine.holding.take()) else {
            return self.finish(w, Err(Failure::Other("no gradient is kept")));
        };
        let mut digest = stepped(&from.digest, &gradient);
        if self.mutation == Some(Mutation::DoubleStep) && self.random.chance(200) {
            digest = stepped(&digest, &gradient);
        }
        let holding = Holding { policy, digest };
        self.checker.applies(&self.workers[w].name, on, &from, &holding);
        let parts = self.shared(w, &holding);
        let engine = &mut self.workers[w].engine;
        (engine.parts, engine.holding) = (parts, Some(holding.clone()));
        self.finish(w, Ok(Report::Applied { holding }));
    }
}

/// An order's name.
fn name(order: &Order) -> &'static str {
    match order {
        Order::Wait { .. } => "wait",
        Order::Form(_) => "form",
        Order::Restore(_) => "restore",
        Order::Rollout { .. } => "rollout",
        Order::Update { .. } => "update",
        Order::Apply { .. } => "apply",
        Order::Checkpoint { .. } => "checkpoint",
        Order::Stop { .. } => "stop",
    }
}
