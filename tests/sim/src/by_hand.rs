//! One move at a time: workers that obey orders, a disk, a driver that carries out effects, and a checker that
//! watches everything that passes between them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
};

use medevo_core::*;
use medevo_types::{
    Incarnation, Step, Term, WorkerId, WorkerTag,
    messages::{Envelope, Holding, Rejection},
};

use crate::{checker::Checker, replay, scorer::Scorer, worker::Worker};

/// A trouble that a worker makes of the next order it carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The collective fails.
    Collective,
    /// It fails, and says that another try may do better.
    Retryable,
    /// It reduces another gradient than the others.
    OtherGradient,
    /// Its gradient is not finite.
    NonFinite,
}

/// The world.
pub struct Sim {
    /// The coordinator.
    pub core: Core,
    /// The run.
    pub spec: RunSpec,
    /// The time.
    pub now: Millis,
    /// Processes by name, dead ones too.
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Watches all of it.
    pub checker: Checker,
    /// The event stream.
    pub events: Vec<Event>,
    /// The journal.
    pub records: Vec<Record>,
    /// What the driver has still to do.
    pub effects: VecDeque<Effect>,
    /// Weights that lie in each checkpoint directory.
    pub disk: BTreeMap<PathBuf, Holding>,
    /// Who has written into which.
    pub written: BTreeSet<(PathBuf, WorkerId)>,
    /// Every report that was sent.
    pub history: Vec<Envelope>,
    /// Lives begun so far.
    pub lives: u64,
    /// The driver's scorer.
    pub scorer: Scorer,
    /// Units that were drawn.
    pub draws: u64,
    /// What the driver keeps of every rollout that was scored.
    pub rollouts: BTreeMap<Step, Rollout>,
}

impl Sim {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new(spec: RunSpec) -> Sim {
        let recovered = Recovered { term: Term(1), ..Recovered::default() };
        let mut checker = Checker::new(spec.clone());
        checker.took_over(recovered.term);
        Sim {
            core: Core::new(spec.clone(), recovered),
            checker,
            spec,
            now: 0,
            workers: BTreeMap::new(),
            events: Vec::new(),
            records: Vec::new(),
            effects: VecDeque::new(),
            disk: BTreeMap::new(),
            written: BTreeSet::new(),
            history: Vec::new(),
            lives: 0,
            scorer: Scorer::default(),
            draws: 0,
            rollouts: BTreeMap::new(),
        }
    }

    /// Feeds the core as the driver does: records, events, effects, then the reply.
    pub fn feed(&mut self, input: Input) -> Option<Reply> {
        let output = self.core.step(self.now, input.clone());
        self.checker.stepped(&input, &output);
        for record in &output.records {
            self.checker.recorded(self.checker.term, record);
        }
        self.checker.acted(self.now, &output);
        self.records.extend(output.records);
        self.events.extend(output.events);
        self.effects.extend(output.effects);
        self.checker.explained(&self.core, self.now);
        output.reply
    }

    /// A process starts and asks to be let in.
    pub fn join(&mut self, name: &str) -> Reply {
        self.lives += 1;
        let tag = WorkerTag { worker: name.into(), incarnation: Incarnation(self.lives) };
        self.workers.insert(name.into(), Worker::new(tag.clone()));
        self.admit(tag)
    }

    /// The same process asks again as a new life: it keeps its weights.
    pub fn rejoin(&mut self, name: &WorkerId) {
        self.lives += 1;
        let Some(worker) = self.workers.get_mut(name) else { return };
        worker.tag.incarnation = Incarnation(self.lives);
        worker.unsent = None;
        let tag = worker.tag.clone();
        self.admit(tag);
    }

    fn admit(&mut self, tag: WorkerTag) -> Reply {
        let (device, address) = ("cpu".to_owned(), "127.0.0.1".to_owned());
        self.feed(Input::Join { tag, device, address }).expect("a join is answered")
    }

    /// A worker in its current life.
    #[must_use]
    pub fn tag(&self, name: &str) -> WorkerTag {
        self.workers[&WorkerId::from(name)].tag.clone()
    }

    /// A worker asks for work.
    pub fn pull(&mut self, name: &str) -> Order {
        let tag = self.tag(name);
        match self.feed(Input::Pull(tag)) {
            Some(Reply::Order(Ok(order))) => order,
            other => panic!("{name} got no order but {other:?}"),
        }
    }

    /// A report arrives.
    pub fn send(&mut self, envelope: Envelope) -> Result<(), Rejection> {
        match self.feed(Input::Report(Box::new(envelope))) {
            Some(Reply::Ack(answer)) => answer,
            other => panic!("a report is acknowledged, not {other:?}"),
        }
    }

    /// A worker's next move: send what it has to say, else pull and carry out. Returns whether it did
    /// anything but wait.
    pub fn act(&mut self, name: &WorkerId) -> bool {
        let Some(worker) = self.workers.get_mut(name).filter(|w| w.alive) else { return false };
        if let Some(envelope) = worker.unsent.take() {
            self.history.push(envelope.clone());
            if let Err(Rejection::UnknownWorker | Rejection::StaleIncarnation) = self.send(envelope)
            {
                self.rejoin(name);
            }
            return true;
        }
        let tag = worker.tag.clone();
        match self.feed(Input::Pull(tag)) {
            Some(Reply::Order(Ok(order))) => self.carry_out(name, order),
            Some(Reply::Order(Err(_))) => {
                self.rejoin(name);
                true
            }
            other => panic!("a pull is answered with an order, not {other:?}"),
        }
    }

    /// Kills a worker; `seen` when somebody reaps it, else its lease has to run out.
    pub fn kill(&mut self, name: &WorkerId, seen: bool) {
        let Some(worker) = self.workers.get_mut(name).filter(|w| w.alive) else { return };
        worker.alive = false;
        let tag = worker.tag.clone();
        if seen {
            self.feed(Input::Gone(tag));
        }
    }

    /// Lets time pass; living workers keep their leases.
    pub fn pass(&mut self, millis: Millis) {
        self.now += millis;
        let tags: Vec<WorkerTag> =
            self.workers.values().filter(|w| w.alive).map(|w| w.tag.clone()).collect();
        for tag in tags {
            self.feed(Input::Heartbeat(tag));
        }
        self.feed(Input::Tick);
    }

    /// Carries out the driver's oldest effect, well or badly.
    pub fn drive(&mut self, well: bool) -> bool {
        let Some(effect) = self.effects.pop_front() else { return false };
        let scores = |effect: &Effect| matches!(effect, Effect::Score { .. });
        if scores(&effect) && self.effects.iter().any(scores) {
            // The driver starts a job as soon as it is asked for, and an outstanding one no longer counts then.
            return true;
        }
        match effect {
            Effect::Score { stage, step, policy, holding, earlier, groups } if well => {
                replay::keep(&mut self.rollouts, stage, step, policy, holding, earlier, &groups);
                let job = self.scorer.job(step, policy, earlier, &groups);
                if let Some(scored) = self.scorer.accept(job) {
                    self.feed(scored);
                }
            }
            Effect::Score { step, .. } => {
                self.feed(Input::ScoringFailed { step, error: "no".to_owned() });
            }
            Effect::WriteManifest { checkpoint, .. } => {
                let there = self.disk.get(&checkpoint.dir).map(|h| &h.digest);
                if well && there == Some(&checkpoint.holding) {
                    self.checker.manifests.insert(checkpoint.dir.clone());
                    self.feed(Input::ManifestWritten(checkpoint));
                } else {
                    let (step, error) = (checkpoint.step, "bad hash".to_owned());
                    self.feed(Input::CheckpointFailed { step, error });
                }
            }
            Effect::Evaluated { .. } | Effect::Finish(_) => {}
        }
        true
    }

    /// Kills the coordinator and starts it again from its records. The workers live on.
    pub fn restart_coordinator(&mut self) {
        let recovered = replay::recovered(self.checker.term.next(), &self.records, &self.rollouts);
        self.checker.took_over(recovered.term);
        self.effects.clear();
        self.scorer.go_back();
        self.core = Core::new(self.spec.clone(), recovered);
    }

    /// Everyone does what they can, nothing fails, until `done` or the rounds run out.
    pub fn run_until(&mut self, rounds: usize, done: impl Fn(&Sim) -> bool) -> bool {
        for _ in 0..rounds {
            if done(self) {
                return true;
            }
            let names: Vec<WorkerId> = self.workers.keys().cloned().collect();
            for name in names {
                if self.workers[&name].alive {
                    self.act(&name);
                }
            }
            while self.drive(true) {}
            self.pass(20);
        }
        done(self)
    }

    /// Runs until the run is in a phase (and at a step, if given).
    pub fn run_to(&mut self, phase: &str, committed: u64) {
        let there = |sim: &Sim| {
            let view = sim.core.view(sim.now);
            view.phase == phase && view.step == Step(committed)
        };
        for _ in 0..4000 {
            if there(self) {
                return;
            }
            let names: Vec<WorkerId> = self.workers.keys().cloned().collect();
            for name in names {
                self.act(&name);
                if there(self) {
                    return;
                }
            }
            self.drive(true);
            if !there(self) {
                self.pass(5);
            }
        }
        panic!("never reached {phase} after step {committed}; {}", self.core.explain(self.now));
    }

    /// Runs to the end, without faults.
    pub fn finish(&mut self) -> Outcome {
        self.run_until(4000, |sim| sim.core.finished().is_some());
        match self.core.finished() {
            Some(outcome) => outcome.clone(),
            None => panic!("the run does not end: {}", self.core.explain(self.now)),
        }
    }

    /// Steps as the event stream tells of their commits.
    #[must_use]
    pub fn committed_steps(&self) -> Vec<u64> {
        self.events
            .iter()
            .filter_map(|e| match e {
                Event::StepCommitted { step, .. } => Some(step.0),
                _ => None,
            })
            .collect()
    }
}
