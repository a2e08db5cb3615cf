//! Calls and answers on their way: late, lost, doubled, out of order, cut off.

use medevo_core::Order;
use medevo_types::{
    WorkerTag,
    messages::{Envelope, JoinRefused, Rejection},
};

use super::{World, agent::Nudge, queue::Happening};

/// What a worker asks.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Join(WorkerTag),
    Heartbeat(WorkerTag),
    Next(WorkerTag),
    Report(Box<Envelope>),
}

/// What it hears.
#[derive(Clone, Debug)]
pub(super) enum Response {
    Join(Result<(), JoinRefused>),
    Ack(Result<(), Rejection>),
    Order(Result<Box<Order>, Rejection>),
    /// No coordinator listens there, or one that does not lead.
    NotHere,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back {
    pub worker: usize,
    pub process: u64,
    pub id: u64,
}

/// A call on its way.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub back: Back,
    pub request: Request,
}

impl World {
    /// Sends a call. It may get lost, or arrive twice (a try that was given up, beside the next one).
    pub(super) fn send(&mut self, coordinator: usize, call: Call) {
        if self.weather.cut(call.back.worker, coordinator) {
            return;
        }
        if self.random.chance(self.weather.duplicate) {
            // Out of a connection that was given up long ago.
            let late = self.random.between(0, 2_500);
            let at = self.now + self.latency() + late;
            self.queue.at(at, Happening::Arrives { coordinator, call: call.clone() });
        }
        if !self.random.chance(self.weather.loss) {
            let at = self.now + self.latency();
            self.queue.at(at, Happening::Arrives { coordinator, call });
        }
    }

    /// Sends an answer.
    pub(super) fn answer(&mut self, coordinator: usize, back: Back, response: Response) {
        if self.weather.cut(back.worker, coordinator) || self.random.chance(self.weather.loss) {
            return;
        }
        let at = self.now + self.latency();
        let Back { worker, process, id } = back;
        let nudge = Nudge::Answer { id, response };
        self.queue.at(at, Happening::Worker { worker, process, nudge });
    }

    fn latency(&mut self) -> u64 {
        let (typical, longest) = self.weather.latency;
        self.random.delay(typical, longest)
    }
}
