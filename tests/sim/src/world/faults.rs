//! What can go wrong, and how it begins and ends.

use medevo_core::Millis;

use super::{
    World,
    queue::Happening,
    weather::{Breakage, Oddity},
};
use crate::random::Random;

/// A trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A worker's process ends; it is started again when the trouble is over.
    WorkerCrashes(usize),
    /// The same, and it says so first, in the middle of whatever it does.
    WorkerLeaves(usize),
    /// A worker's process stands still; what it had begun ends late.
    WorkerPauses(usize),
    /// A worker computes many times slower.
    WorkerIsSlow(usize),
    /// A coordinator's process ends; it is started again when the trouble is over.
    CoordinatorCrashes(usize),
    /// A coordinator's process stands still; its clock has jumped by so much when it goes on, or stood still too.
    CoordinatorPauses(usize, i64),
    /// A worker and a coordinator do not reach each other.
    Cut(usize, usize),
    /// A worker reaches no coordinator.
    CutOff(usize),
    /// A coordinator does not reach the store.
    StoreCut(usize),
    /// Nobody reaches the store.
    StoreDown,
    /// Many messages are lost.
    Lossy(u64),
    /// Messages take long.
    SlowNetwork(Millis),
    /// A worker reaches no other worker.
    Isolated(usize),
    /// The next collective operation fails.
    Collective(Breakage),
    /// The next gradient is bad.
    Gradient(Oddity),
    /// The next scoring fails.
    Scoring,
    /// The next scoring takes too long.
    SlowScoring,
    /// The next checkpoint files cannot be written.
    Files,
    /// The next manifest cannot be written.
    Manifest,
    /// The next rollout unit fails.
    Unit,
    /// The next optimizer step fails.
    Apply,
}

/// Draws a trouble of a cluster.
pub fn draw(random: &mut Random, workers: usize, coordinators: usize) -> Fault {
    let (w, c) = (random.index(workers), random.index(coordinators));
    match random.below(26) {
        0..=2 => Fault::WorkerCrashes(w),
        3 => Fault::WorkerLeaves(w),
        4..=6 => Fault::WorkerPauses(w),
        7 => Fault::WorkerIsSlow(w),
        8..=9 => Fault::CoordinatorCrashes(c),
        10..=12 => Fault::CoordinatorPauses(c, random.between(0, 6_000) as i64 - 3_000),
        13 => Fault::Cut(w, c),
        14 => Fault::CutOff(w),
        15 => Fault::StoreCut(c),
        16 => Fault::StoreDown,
        17 => Fault::Lossy(random.between(50, 500)),
        18 => Fault::SlowNetwork(random.between(20, 300)),
        19 => Fault::Isolated(w),
        20 => Fault::Collective(Breakage::Everywhere),
        21 => Fault::Collective(Breakage::Somewhere),
        22 => Fault::Gradient(match random.below(5) {
            0 => Oddity::NotFinite,
            1 | 2 => Oddity::NotFiniteOnOne,
            _ => Oddity::OtherOnOne,
        }),
        23 => {
            if random.chance(500) {
                Fault::Scoring
            } else {
                Fault::SlowScoring
            }
        }
        24 => {
            if random.chance(500) {
                Fault::Files
            } else {
                Fault::Manifest
            }
        }
        _ => {
            if random.chance(500) {
                Fault::Unit
            } else {
                Fault::Apply
            }
        }
    }
}

impl World {
    /// Trouble begins.
    pub(super) fn trouble(&mut self, fault: Fault, long: Millis) {
        self.trace.note(self.now, || format!("FAULT  {fault:?} for {long} ms"));
        let until = self.now + long;
        let weather = &mut self.weather;
        match fault {
            Fault::WorkerCrashes(w) => self.worker_ends(w, "crash", until),
            Fault::WorkerLeaves(w) => self.worker_leaves(w, until),
            Fault::WorkerPauses(w) => {
                let worker = &mut self.workers[w];
                worker.paused_until = worker.paused_until.max(until);
            }
            Fault::WorkerIsSlow(w) => self.workers[w].slow = 15,
            Fault::CoordinatorCrashes(c) => self.coordinator_ends(c, "crash", until),
            Fault::CoordinatorPauses(c, _) => {
                let coordinator = &mut self.coordinators[c];
                coordinator.paused_until = coordinator.paused_until.max(until);
            }
            Fault::Cut(w, c) => _ = weather.cuts.insert((w, c)),
            Fault::CutOff(w) => weather.cuts.extend((0..self.coordinators.len()).map(|c| (w, c))),
            Fault::StoreCut(c) => _ = weather.store_cuts.insert(c),
            Fault::StoreDown => weather.store_down = true,
            Fault::Lossy(loss) => weather.loss = loss,
            Fault::SlowNetwork(typical) => weather.latency = (typical, 3_000),
            Fault::Isolated(w) => _ = weather.isolated.insert(w),
            Fault::Collective(breakage) => weather.collectives.push_back(breakage),
            Fault::Gradient(oddity) => weather.gradients.push_back(oddity),
            Fault::Scoring => weather.bad_scorings += 1,
            Fault::SlowScoring => weather.slow_scorings += 1,
            Fault::Files => weather.bad_files += 1,
            Fault::Manifest => weather.bad_manifests += 1,
            Fault::Unit => weather.bad_units += 1,
            Fault::Apply => weather.bad_applies += 1,
        }
        self.queue.at(until, Happening::Over(fault));
    }

    /// Trouble ends. What was to fail and has not come up is forgotten.
    pub(super) fn over(&mut self, fault: Fault) {
        self.trace.note(self.now, || format!("over   {fault:?}"));
        let weather = &mut self.weather;
        match fault {
            Fault::WorkerIsSlow(w) => self.workers[w].slow = 1,
            Fault::CoordinatorPauses(c, jump) => self.coordinators[c].skew += jump.max(-1_000),
            Fault::Cut(w, c) => _ = weather.cuts.remove(&(w, c)),
            Fault::CutOff(w) => weather.cuts.retain(|(of, _)| *of != w),
            Fault::StoreCut(c) => _ = weather.store_cuts.remove(&c),
            Fault::StoreDown => weather.store_down = false,
            Fault::Lossy(_) => weather.loss = self.plan.loss,
            Fault::SlowNetwork(_) => weather.latency = self.plan.latency,
            Fault::Isolated(w) => _ = weather.isolated.remove(&w),
            Fault::Collective(_) => weather.collectives.clear(),
            Fault::Gradient(_) => weather.gradients.clear(),
            Fault::Scoring => weather.bad_scorings = 0,
            Fault::SlowScoring => weather.slow_scorings = 0,
            Fault::Files => weather.bad_files = 0,
            Fault::Manifest => weather.bad_manifests = 0,
            Fault::Unit => weather.bad_units = 0,
            Fault::Apply => weather.bad_applies = 0,
            Fault::WorkerCrashes(_)
            | Fault::WorkerLeaves(_)
            | Fault::WorkerPauses(_)
            | Fault::CoordinatorCrashes(_) => {}
        }
    }
}
