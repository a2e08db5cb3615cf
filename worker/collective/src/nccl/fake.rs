//! NCCL and CUDA as a script: CPU tensors, peers that bring what this rank brings, and answers that a test chooses.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::sync::{Condvar, Mutex, MutexGuard};

use tch::{Device, Kind, Tensor};

use super::api::{Api, Operation};

/// What the calls answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// Looks at a forming communicator that find it unfinished.
    pub forming: usize,
    /// Looks at an operation that find it not yet in the stream.
    pub entering: usize,
    /// Looks at an event that come too early.
    pub running: usize,
    /// Looks at a communicator that is being finalized, likewise.
    pub finalizing: usize,
    /// The asynchronous error that shows once an operation was asked for.
    pub error: Option<&'static str>,
    /// Asking for an operation stands still until the communicator is aborted.
    pub enqueue_stands_still: bool,
    /// An abort never comes back.
    pub abort_stands_still: bool,
}

/// Any number of looks.
pub(super) const NEVER: usize = usize::MAX;

#[derive(Debug, Default)]
struct Seen {
    calls: Vec<&'static str>,
    /// Looks that have yet to find the communicator busy.
    busy: usize,
    failing: bool,
}

pub(super) struct Fake {
    script: Script,
    world: i64,
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Fake {
    pub fn new(world: usize, script: Script) -> Self {
        let seen = Mutex::new(Seen::default());
        Self { script, world: world as i64, seen, changed: Condvar::new() }
    }

    /// Calls so far, without the looks.
    pub fn calls(&self) -> Vec<&'static str> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn note(&self, call: &'static str, busy: usize) {
        let mut seen = self.lock();
        let over = seen.calls.iter().any(|call| matches!(*call, "abort" | "destroy"));
        assert!(!over, "{call} after the communicator's end");
        seen.calls.push(call);
        seen.busy = busy;
        self.changed.notify_all();
    }
}

impl Api for Fake {
    type Handle = ();
    /// Looks that come too early.
    type Event = Mutex<usize>;

    fn device(&self) -> String {
        "gpu:7".to_owned()
    }

    fn token(&self) -> Tensor {
        Tensor::zeros([1], (Kind::Float, Device::Cpu))
    }

    fn check(&self, tensor: &Tensor) -> Result<(), String> {
        if !tensor.is_contiguous() {
            return Err("a strided view came through".to_owned());
        }
        if tensor.kind() == Kind::Bool { Err("Bool is not exchanged".to_owned()) } else { Ok(()) }
    }

    fn unique_id(&self) -> Result<Vec<u8>, String> {
        Ok(vec![7; 128])
    }

    fn begin(&self, id: &[u8], _rank: usize, _world: usize) -> Result<(), String> {
        assert_eq!(id, [7; 128]);
        self.note("begin", self.script.forming);
        Ok(())
    }

    fn ready(&self, (): ()) -> Result<bool, String> {
        let mut seen = self.lock();
        let over = seen.calls.iter().any(|call| matches!(*call, "abort" | "destroy"));
        assert!(!over, "a look at a communicator that has ended");
        if seen.failing {
            return Err(self.script.error.unwrap_or_default().to_owned());
        }
        let busy = seen.busy;
        seen.busy = if busy == NEVER { NEVER } else { busy.saturating_sub(1) };
        Ok(busy == 0)
    }

    fn enqueue(
        &self,
        (): (),
        operation: Operation,
        from: &Tensor,
        to: &Tensor,
    ) -> Result<(), String> {
        self.note("enqueue", self.script.entering);
        let mut seen = self.lock();
        seen.failing = self.script.error.is_some();
        while self.script.enqueue_stands_still && !seen.calls.contains(&"abort") {
            seen = self.changed.wait(seen).unwrap();
        }
        drop(seen);
        let mut to = to.shallow_clone();
        tch::no_grad(|| match operation {
            Operation::AllReduceSum => to.copy_(&(from * self.world)),
            Operation::Broadcast(_) => to.copy_(from),
            Operation::ReduceScatterSum => {
                to.copy_(&(from.narrow(0, 0, to.numel() as i64) * self.world));
            }
            Operation::AllGather => {
                let whole = from.view([1, -1]).expand([self.world, from.numel() as i64], false);
                to.copy_(&whole.reshape(to.size()));
            }
        });
        Ok(())
    }

    fn record(&self) -> Result<Mutex<usize>, String> {
        assert_eq!(self.lock().busy, 0, "an event before the operation is in the stream");
        self.note("record", 0);
        Ok(Mutex::new(self.script.running))
    }

    fn passed(&self, event: &Mutex<usize>) -> Result<bool, String> {
        let mut left = event.lock().unwrap();
        let early = *left > 0;
        *left = if *left == NEVER { NEVER } else { left.saturating_sub(1) };
        Ok(!early)
    }

    fn finalize(&self, (): ()) -> Result<(), String> {
        self.note("finalize", self.script.finalizing);
        Ok(())
    }

    fn destroy(&self, (): ()) {
        self.note("destroy", 0);
    }

    fn abort(&self, (): ()) {
        self.note("abort", 0);
        if self.script.abort_stands_still {
            let mut seen = self.lock();
            while seen.calls.len() < NEVER {
                seen = self.changed.wait(seen).unwrap();
            }
        }
    }
}
