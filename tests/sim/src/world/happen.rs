//! What each event does, and what there is at the start.

use medevo_core::Input;
use medevo_types::WorkerId;

use super::{World, agent::Worker, coordinator::Coordinator, faults::Fault, queue::Happening};

impl World {
    pub(super) fn set_up(&mut self) {
        for c in 0..self.plan.coordinators {
            self.coordinators.push(Coordinator::new());
            self.queue.at(c as u64 * 50, Happening::CoordinatorStarts(c));
        }
        for w in 0..self.plan.workers {
            self.workers.push(Worker::new(WorkerId(format!("w{w}"))));
            let at = self.random.delay(60, 3_000);
            self.queue.at(at, Happening::WorkerStarts(w));
        }
        for &(at, fault, _) in &self.plan.faults {
            self.queue.at(at, Happening::Trouble(fault));
        }
        self.queue.at(self.plan.faults_end + 1, Happening::Calm);
        if let Some(at) = self.plan.drain {
            self.queue.at(at, Happening::Drain);
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Worker { worker, process, nudge } => self.nudge(worker, process, nudge),
            Happening::Coordinator { coordinator, process, knock } => {
                self.knock(coordinator, process, knock);
            }
            Happening::Arrives { coordinator, call } => self.arrives(coordinator, call),
            Happening::Store(write) => self.write_arrives(write),
            Happening::WorkerStarts(w) => self.worker_starts(w),
            Happening::CoordinatorStarts(c) => self.coordinator_starts(c),
            Happening::Reduced(key) => self.reduced(key),
            Happening::Broken(key) => self.broken(key),
            Happening::Trouble(fault) => {
                let long = self.long(fault);
                self.trouble(fault, long);
            }
            Happening::Over(fault) => self.over(fault),
            Happening::Calm => self.weather.calm(),
            Happening::Resumed => {
                for c in 0..self.coordinators.len() {
                    let again = self.now + 100;
                    self.coordinator_ends(c, "the run is resumed", again);
                }
            }
            Happening::Drain => {
                for c in 0..self.coordinators.len() {
                    self.input(c, Input::Drain { reason: "enough".to_owned() }, None);
                }
            }
        }
    }

    /// How long the trouble that begins now is to last.
    fn long(&self, fault: Fault) -> u64 {
        let begins = |(at, which, _): &&(u64, Fault, u64)| *at == self.now && *which == fault;
        self.plan.faults.iter().find(begins).map_or(0, |(_, _, long)| *long)
    }
}
