//! The troubles of the moment.

use std::collections::{BTreeSet, VecDeque};

use medevo_core::Millis;

use super::Plan;

/// How a collective operation ends badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// On every rank.
    Everywhere,
    /// On some ranks; the others think that it went well.
    Somewhere,
}

/// What is wrong with a reduced gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// Not finite on any rank.
    NotFinite,
    /// Not finite on one rank.
    NotFiniteOnOne,
    /// Another one on one rank.
    OtherOnOne,
}

/// The troubles of the moment.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Messages lost, in a thousand.
    pub loss: u64,
    /// Calls doubled, in a thousand.
    pub duplicate: u64,
    /// Typical and longest time of a message.
    pub latency: (Millis, Millis),
    /// Pairs of worker and coordinator that do not reach each other.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Coordinators that do not reach the store.
    pub store_cuts: BTreeSet<usize>,
    /// Nobody reaches the store.
    pub store_down: bool,
    /// Writes to a store out of reach that are applied all the same, in a thousand.
    pub ambiguous: u64,
    /// Workers that reach no other worker.
    pub isolated: BTreeSet<usize>,
    /// For the next collective operations.
    pub collectives: VecDeque<Breakage>,
    /// For the next gradients.
    pub gradients: VecDeque<Oddity>,
    /// So many of the next scorings fail.
    pub bad_scorings: u64,
    /// So many of the next scorings take too long.
    pub slow_scorings: u64,
    /// So many of the next checkpoint writes fail.
    pub bad_files: u64,
    /// So many of the next manifests fail.
    pub bad_manifests: u64,
    /// So many of the next units fail.
    pub bad_units: u64,
    /// So many of the next optimizer steps fail.
    pub bad_applies: u64,
}

impl Weather {
    pub fn new(plan: &Plan) -> Self {
        Self {
            loss: plan.loss,
            duplicate: plan.duplicate,
            latency: plan.latency,
            ambiguous: plan.ambiguous,
            ..Self::default()
        }
    }

    /// No more chance: what is left must end well.
    pub fn calm(&mut self) {
        let (typical, longest) = self.latency;
        *self = Self { latency: (typical.min(6), longest.min(100)), ..Self::default() };
    }

    pub fn cut(&self, worker: usize, coordinator: usize) -> bool {
        self.cuts.contains(&(worker, coordinator))
    }

    pub fn store_away(&self, coordinator: usize) -> bool {
        self.store_down || self.store_cuts.contains(&coordinator)
    }
}

/// Uses one up, if there is one.
pub(super) fn use_up(left: &mut u64) -> bool {
    let some = *left > 0;
    *left -= u64::from(some);
    some
}
