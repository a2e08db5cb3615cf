//! What is still to happen, by moment.

use std::collections::BTreeMap;

use medevo_core::Millis;

use super::{
    agent::Nudge, collective::Key, coordinator::Knock, faults::Fault, network::Call, store::Write,
};

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// To a process of a worker.
    Worker { worker: usize, process: u64, nudge: Nudge },
    /// To a process of a coordinator.
    Coordinator { coordinator: usize, process: u64, knock: Knock },
    /// A call arrives at whatever process is there.
    Arrives { coordinator: usize, call: Call },
    /// A write arrives at the store.
    Store(Write),
    /// A worker's process starts.
    WorkerStarts(usize),
    /// A coordinator's process starts.
    CoordinatorStarts(usize),
    /// A collective operation is over.
    Reduced(Key),
    /// A collective operation breaks: somebody has left it.
    Broken(Key),
    /// Trouble begins.
    Trouble(Fault),
    /// Trouble ends.
    Over(Fault),
    /// The last trouble is over, and the network is a good one from here on.
    Calm,
    /// Somebody resumes a run that ended before its target.
    Resumed,
    /// Somebody asks for an end at the next step boundary.
    Drain,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<(Millis, u64), Happening>,
    number: u64,
}

impl Queue {
    /// Lets something happen at a moment, behind what is there already.
    pub fn at(&mut self, moment: Millis, happening: Happening) {
        self.number += 1;
        self.waiting.insert((moment, self.number), happening);
    }

    /// The next thing.
    pub fn next(&mut self) -> Option<(Millis, Happening)> {
        self.waiting.pop_first().map(|((at, _), happening)| (at, happening))
    }
}
