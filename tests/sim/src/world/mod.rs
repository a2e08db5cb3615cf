//! The seeded world: processes, a network, a store, and a queue of what happens when.
//!
//! Every event is a pair of a moment and a number, so that two events of one moment keep their order. A process is
//! a place with a number that grows with each start: what is addressed to a process that has ended is dropped, and
//! what is addressed to one that is paused waits.

mod agent;
mod collective;
mod coordinator;
mod driver;
mod effects;
mod engine;
pub mod faults;
mod happen;
mod network;
mod plan;
mod queue;
mod store;
mod told;
mod trace;
mod weather;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use medevo_core::{Millis, Outcome, Record, Rollout, RunSpec};
use medevo_types::{Step, WorkerId, messages::Holding};

use self::{
    agent::Worker, collective::Operations, coordinator::Coordinator, queue::Queue, store::Store,
    trace::Trace, weather::Weather,
};
use crate::{checker::Checker, random::Random};

pub use self::plan::Plan;

/// A rule that is broken on purpose, to prove that the checker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The driver answers and acts before its records are in the store.
    ActBeforePersist,
    /// The store takes writes of any term.
    NoGuard,
    /// A commit is written twice.
    DoubleCommit,
    /// Ballots are passed on as if they belonged to the try under way.
    StaleBallots,
    /// A worker steps its optimizer twice.
    DoubleStep,
    /// A worker takes half of a broadcast for the whole.
    HalfBroadcast,
    /// A worker draws with whatever weights it has.
    AnyWeights,
    /// A new coordinator begins at the first generation again.
    ForgottenGenerations,
    /// The pointer is moved without a look at the files.
    BlindManifest,
    /// A scored round is scored again.
    DoubleScore,
    /// Rejections are not told.
    SilentRejections,
}

/// What lies in a checkpoint's directory.
#[derive(Clone, Debug, Default)]
struct Directory {
    parts: BTreeMap<WorkerId, Holding>,
}

/// How a simulation went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Simulated milliseconds until the end.
    pub millis: Millis,
    /// Events handled.
    pub events: u64,
    /// Coordinators' terms.
    pub terms: u64,
    /// Generations.
    pub generations: u64,
    /// Steps that were committed, rolled back ones included.
    pub commits: u64,
    /// Rollbacks.
    pub rollbacks: u64,
    /// Times that the run failed and the operator resumed it.
    pub resumed: u64,
    /// Writes that an old leader tried in vain.
    pub fenced: u64,
}

/// The world.
pub struct World {
    now: Millis,
    plan: Plan,
    spec: RunSpec,
    random: Random,
    queue: Queue,
    store: Store,
    coordinators: Vec<Coordinator>,
    workers: Vec<Worker>,
    operations: Operations,
    disk: BTreeMap<PathBuf, Directory>,
    /// Scored candidates in the run's directory.
    rollouts: BTreeMap<Step, Rollout>,
    weather: Weather,
    checker: Checker,
    trace: Trace,
    mutation: Option<Mutation>,
    figures: Figures,
    reasons: BTreeSet<String>,
    done: bool,
}

/// Simulated time that a run may take once every fault is over.
const PATIENCE: Millis = 120_000;

impl World {
    /// The world of a seed. With `traced` every event is written down.
    #[must_use]
    pub fn new(seed: u64, traced: bool, mutation: Option<Mutation>) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let mut world = World {
            now: 0,
            spec: plan.spec.clone(),
            queue: Queue::default(),
            store: Store::default(),
            coordinators: Vec::new(),
            workers: Vec::new(),
            operations: Operations::default(),
            disk: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            weather: Weather::new(&plan),
            checker: Checker::new(plan.spec.clone()),
            trace: Trace::new(traced),
            mutation,
            figures: Figures::default(),
            reasons: BTreeSet::new(),
            done: false,
            random,
            plan,
        };
        world.set_up();
        world
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// At the first thing that breaks an invariant, and when the run does not end in time.
    pub fn run(&mut self) -> Figures {
        let limit = self.plan.faults_end + PATIENCE;
        while !self.done {
            let Some((at, happening)) = self.queue.next() else {
                panic!("nothing happens any more")
            };
            assert!(
                at <= limit,
                "liveness: no end {PATIENCE} ms after the last fault: {}",
                self.why()
            );
            self.now = at;
            self.figures.events += 1;
            self.happen(happening);
        }
        self.figures.millis = self.now;
        self.figures.terms = self.store.term.0;
        self.ended_well();
        self.figures.clone()
    }

    /// What was written down.
    #[must_use]
    pub fn trace(&self) -> &[String] {
        self.trace.lines()
    }

    /// Why the run failed in between, each reason once.
    #[must_use]
    pub fn reasons(&self) -> &BTreeSet<String> {
        &self.reasons
    }

    /// After a run that is done: every step stands once, and the pointer names the last weights.
    fn ended_well(&self) {
        self.checker.complete(medevo_core_total(&self.spec));
        let pointer = self.store.records().rfind(|r| matches!(r, Record::Checkpoint(_)));
        let Some(Record::Checkpoint(checkpoint)) = pointer else {
            assert_eq!(self.checker.policy().0, 0, "done without a checkpoint");
            return;
        };
        assert_eq!(checkpoint.policy, self.checker.policy(), "the last weights are not on disk");
    }

    /// A record is in the store.
    fn on_record(&mut self, record: &Record) {
        match record {
            Record::Generation(_) => self.figures.generations += 1,
            Record::Commit { .. } => self.figures.commits += 1,
            Record::Rollback { .. } => self.figures.rollbacks += 1,
            Record::Finished(Outcome::Done) => self.done = true,
            _ => {}
        }
    }

    /// What every coordinator waits for.
    fn why(&self) -> String {
        let lines =
            self.coordinators.iter().enumerate().map(|(i, c)| format!("c{i}: {}", c.explain()));
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// Training steps of a run.
fn medevo_core_total(spec: &RunSpec) -> u64 {
    use medevo_core::StageKind;
    let steps = spec.stages.iter().map(|stage| match &stage.kind {
        StageKind::Sft { steps, .. } | StageKind::Rl { steps, .. } => *steps,
        StageKind::Evaluate { .. } => 0,
    });
    steps.sum()
}
