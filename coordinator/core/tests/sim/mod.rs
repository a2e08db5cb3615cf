//! A small world around the core: workers that obey orders, a disk, a driver that carries out effects,
//! and a checker that watches everything that passes between them.
#![allow(dead_code)] // each test file uses its own part

pub mod checker;
pub mod spec;
pub mod worker;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
};

use medevo_core::*;
use medevo_types::{
    Incarnation, Step, Term, WorkerId, WorkerTag,
    messages::{Envelope, Holding, Rejection, TrainAnswer},
};

use self::{checker::Checker, worker::Worker};

/// A trouble that a worker makes of the next order it carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Collective,
    Retryable,
    OtherGradient,
    NonFinite,
}

/// The world.
pub struct Sim {
    pub core: Core,
    pub spec: RunSpec,
    pub now: Millis,
    pub workers: BTreeMap<WorkerId, Worker>,
    pub checker: Checker,
    pub events: Vec<Event>,
    pub records: Vec<Record>,
    pub effects: VecDeque<Effect>,
    /// Weights that lie in each checkpoint directory.
    pub disk: BTreeMap<PathBuf, Holding>,
    /// Who has written into which.
    pub written: BTreeSet<(PathBuf, WorkerId)>,
    pub history: Vec<Envelope>,
    pub lives: u64,
    pub scorings: u64,
    /// Every so many scorings find nothing to train on; 0: none does.
    pub quiet_every: u64,
    /// Every so many samples never train; 0: all may.
    pub dull_every: usize,
    /// Units that were drawn.
    pub draws: u64,
    /// What the driver keeps of every rollout that was scored.
    pub rollouts: BTreeMap<Step, Rollout>,
    /// Verdicts of the rollout's rounds so far, which the driver's scorer remembers.
    verdicts: Vec<GroupVerdict>,
}

impl Sim {
    pub fn new(spec: RunSpec) -> Sim {
        let recovered = Recovered { term: Term(1), ..Recovered::default() };
        Sim {
            core: Core::new(spec.clone(), recovered),
            checker: Checker::new(spec.clone()),
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
            scorings: 0,
            quiet_every: 0,
            dull_every: 0,
            draws: 0,
            rollouts: BTreeMap::new(),
            verdicts: Vec::new(),
        }
    }

    /// Feeds the core as the driver does: records, events, effects, then the reply.
    pub fn feed(&mut self, input: Input) -> Option<Reply> {
        self.checker.input(self.now, &input);
        let output = self.core.step(self.now, input.clone());
        self.checker.output(self.now, &input, &output);
        self.records.extend(output.records);
        self.events.extend(output.events);
        self.effects.extend(output.effects);
        self.checker.explained(&self.core, self.now);
        output.reply
    }

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

    pub fn tag(&self, name: &str) -> WorkerTag {
        self.workers[&WorkerId::from(name)].tag.clone()
    }

    pub fn pull(&mut self, name: &str) -> Order {
        let tag = self.tag(name);
        match self.feed(Input::Pull(tag)) {
            Some(Reply::Order(Ok(order))) => order,
            other => panic!("{name} got no order but {other:?}"),
        }
    }

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
        match effect {
            Effect::Score { stage, step, policy, holding, earlier, groups } if well => {
                self.keep(Rollout {
                    stage,
                    step,
                    policy,
                    holding,
                    rounds: vec![earlier],
                    groups: groups.clone(),
                });
                self.scorings += 1;
                self.verdicts.truncate(earlier);
                for (sample, group) in &groups[self.verdicts.len()..] {
                    let verdict = self.verdict(*sample, group);
                    self.verdicts.push(verdict);
                }
                let (groups, figures) = (self.verdicts.clone(), vec![("share".to_owned(), 0.5)]);
                self.feed(Input::Scored(Scored { step, policy, earlier, groups, figures }));
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

    fn keep(&mut self, mut rollout: Rollout) {
        let earlier = rollout.rounds[0];
        rollout.rounds = match self.rollouts.get(&rollout.step) {
            Some(before) if earlier > 0 => before.rounds.clone(),
            _ => Vec::new(),
        };
        rollout.rounds.push(rollout.groups.len());
        self.rollouts.insert(rollout.step, rollout);
    }

    /// The number of the scoring stands in the advantage, so that the checker can tell scorings apart.
    fn verdict(&self, sample: SampleIndex, group: &medevo_types::messages::Group) -> GroupVerdict {
        let quiet = self.quiet_every > 0 && self.scorings.is_multiple_of(self.quiet_every);
        if quiet || (self.dull_every > 0 && sample.is_multiple_of(self.dull_every)) {
            return GroupVerdict::NoVariance;
        }
        let answer = |c: &medevo_types::messages::Candidate| TrainAnswer {
            ids: c.ids.clone(),
            count: 1,
            advantage: self.scorings as f64,
            logprobs: c.logprobs.clone(),
        };
        GroupVerdict::Train(group.candidates.iter().map(answer).collect())
    }

    /// Kills the coordinator and starts it again from its records. The workers live on.
    pub fn restart_coordinator(&mut self) {
        let recovered = self.recovered();
        self.checker.restarted(&recovered);
        self.effects.clear();
        self.verdicts.clear();
        self.core = Core::new(self.spec.clone(), recovered);
    }

    fn recovered(&self) -> Recovered {
        let mut ledger = Ledger::default();
        self.records.iter().cloned().for_each(|record| ledger.replay(record));
        let mut recovered = ledger.recovered(self.checker.term.next());
        recovered.rollouts = self.rollouts.values().cloned().collect();
        recovered
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

    pub fn finish(&mut self) -> Outcome {
        self.run_until(4000, |sim| sim.core.finished().is_some());
        match self.core.finished() {
            Some(outcome) => outcome.clone(),
            None => panic!("the run does not end: {}", self.core.explain(self.now)),
        }
    }

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
