//! [`Collective`] over NCCL: every wait has a deadline, and nothing waits inside CUDA.
//!
//! An operation is asked for, NCCL is polled until it stands in torch's stream, an event is put behind it, and event
//! and asynchronous error are polled until the device has come to the event. A read by torch before that would wait
//! for a peer without a deadline. At the deadline, or at any error, the communicator is aborted and gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tch::Tensor;

use super::{
    api::{Api, Operation},
    ffi::Cuda,
    undertaker::{End, Undertaker},
};
use crate::{
    contract::{Collective, CollectiveError, check_parts, check_root},
    rendezvous::Rendezvous,
};

/// How long a wait asks again at once; small operations end within it.
const SPIN: Duration = Duration::from_micros(200);
/// Longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a communicator whose operations have all ended may take to end in peace. A rank of the same machine
/// that is gone or dead keeps it from that.
const FAREWELL: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 1000 });

/// An NCCL communicator; [`Nccl`](super::Nccl) is the one with real calls under it.
///
/// Tensors are on the communicator's GPU, f32, f64, bf16 or i64; they need not be contiguous. The sum of
/// an all-reduce is bit-equal on all ranks: whichever algorithm NCCL picks, each element's sum is made in one place
/// (or, in NVLink's switch, once) and copied from there. Between two worlds, machines or releases of NCCL it may
/// differ in its last bits, as may a reduce-scatter from an all-reduce.
///
/// NCCL chooses network interfaces itself; `NCCL_SOCKET_IFNAME` in the process's environment overrules it.
pub struct Communicator<A: Api> {
    api: Arc<A>,
    rank: usize,
    world: usize,
    timeout: Duration,
    /// None once an operation has failed.
    live: Option<Undertaker<A>>,
}

/// Why a wait was given up.
enum Stop {
    Late,
    Failed(String),
}

impl Communicator<Cuda> {
    /// Forms a communicator of `world` ranks, this one on GPU number `device` of those that the process sees;
    /// returns when all ranks have come. A GPU can be in it once.
    ///
    /// Rank 0 leaves NCCL's id under `prefix` in the rendezvous; a prefix must never be used twice. `timeout` bounds
    /// the forming and then every single operation. A world of one is formed too: whoever needs no NCCL there takes
    /// [`Solo`](crate::Solo).
    ///
    /// # Errors
    /// The rank is not below `world`, libcuda or NCCL is missing, or not all ranks came in time.
    pub fn form(
        rendezvous: &dyn Rendezvous,
        prefix: &str,
        rank: usize,
        world: usize,
        device: usize,
        timeout: Duration,
    ) -> Result<Self, CollectiveError> {
        let api = Cuda::open(device).map_err(|why| CollectiveError::new("form", why))?;
        Self::over(Arc::new(api), rendezvous, prefix, rank, world, timeout)
    }

    /// As [`form`](Self::form), but **wrong on purpose**: in a stream that is not ordered with torch's. The
    /// counterexample with which a test shows that the order matters.
    ///
    /// # Errors
    /// As [`form`](Self::form).
    #[doc(hidden)]
    pub fn form_out_of_order(
        rendezvous: &dyn Rendezvous,
        prefix: &str,
        rank: usize,
        world: usize,
        device: usize,
        timeout: Duration,
    ) -> Result<Self, CollectiveError> {
        let api = Cuda::open_out_of_order(device);
        let api = api.map_err(|why| CollectiveError::new("form", why))?;
        Self::over(Arc::new(api), rendezvous, prefix, rank, world, timeout)
    }
}

impl<A: Api> Communicator<A> {
    pub(super) fn over(
        api: Arc<A>,
        rendezvous: &dyn Rendezvous,
        prefix: &str,
        rank: usize,
        world: usize,
        timeout: Duration,
    ) -> Result<Self, CollectiveError> {
        let fail = |message: String| CollectiveError::new("form", message);
        if rank >= world {
            return Err(fail(format!("rank {rank} is not below the world size {world}")));
        }
        let deadline = Instant::now() + timeout;
        let mut this = Self { api, rank, world, timeout, live: None };
        let key = format!("{prefix}/nccl");
        let share = || {
            if rank > 0 {
                let id = rendezvous.get(&key, deadline);
                return id.map_err(|error| format!("NCCL's id of rank 0 did not come: {error:#}"));
            }
            let id = this.api.unique_id()?;
            let shared = rendezvous.set(&key, &id);
            shared.map_err(|error| format!("NCCL's id cannot be shared: {error:#}"))?;
            Ok(id)
        };
        let begun = share().and_then(|id| this.api.begin(&id, rank, world));
        let live = begun.and_then(|handle| Undertaker::of(Arc::clone(&this.api), handle));
        let live = this.live.insert(live.map_err(|why| fail(this.who(&why)))?);
        let formed = wait(deadline, || live.at_once(|handle| this.api.ready(handle)));
        match formed {
            Ok(()) => Ok(this),
            Err(stop) => Err(this.give_up("form", stop)),
        }
    }

    fn who(&self, message: &str) -> String {
        format!("rank {} of {} on {}: {message}", self.rank, self.world, self.api.device())
    }

    /// Aborts the communicator, and says why.
    fn give_up(&mut self, operation: &str, stop: Stop) -> CollectiveError {
        let mut message = match stop {
            Stop::Failed(why) => self.who(&why),
            Stop::Late => self.who(&format!("not all ranks did their part in {:?}", self.timeout)),
        };
        if let Some(live) = self.live.take()
            && !live.end(End::Abort)
        {
            message.push_str(
                "; and NCCL does not end the communicator: if later ones fail, restart this worker",
            );
        }
        CollectiveError::new(operation, message)
    }

    /// Runs one operation to its end; aborts the communicator if it fails.
    fn operate(
        &mut self,
        name: &str,
        operation: Operation,
        from: &Tensor,
        to: &Tensor,
    ) -> Result<(), CollectiveError> {
        let deadline = Instant::now() + self.timeout;
        let Some(live) = &self.live else {
            let gone = "the communicator is gone after an earlier error; form a new one";
            return Err(CollectiveError::new(name, self.who(gone)));
        };
        let api = &*self.api;
        let call = |call: &dyn Fn(A::Handle) -> Result<(), String>| {
            live.during(deadline, call).ok_or(Stop::Late)?.map_err(Stop::Failed)
        };
        let run = || {
            call(&|handle| api.enqueue(handle, operation, from, to))?;
            // An event that is recorded before the operation is in the stream would pass without it.
            wait(deadline, || live.at_once(|handle| api.ready(handle)))?;
            let event = live.during(deadline, |_| api.record()).ok_or(Stop::Late)?;
            let event = event.map_err(Stop::Failed)?;
            wait(deadline, || live.at_once(|handle| Ok(api.ready(handle)? && api.passed(&event)?)))
        };
        let outcome = run();
        outcome.map_err(|stop| self.give_up(name, stop))
    }

    /// Runs an operation that changes `t` in place, on a dense copy if `t` is a strided view.
    fn in_place(
        &mut self,
        name: &str,
        operation: Operation,
        t: &mut Tensor,
    ) -> Result<(), CollectiveError> {
        tch::no_grad(|| {
            let strided = !t.is_contiguous();
            let dense = if strided { t.detach().contiguous() } else { t.shallow_clone() };
            self.check(name, &[&dense])?;
            if dense.numel() > 0 {
                self.operate(name, operation, &dense, &dense)?;
            }
            if strided {
                t.copy_(&dense);
            }
            Ok(())
        })
    }

    /// What cannot be exchanged is this rank's own mistake; it is refused before the peers are left waiting.
    fn check(&self, name: &str, tensors: &[&Tensor]) -> Result<(), CollectiveError> {
        let checked = tensors.iter().try_for_each(|tensor| self.api.check(tensor));
        checked.map_err(|why| CollectiveError::new(name, self.who(&why)))
    }
}

/// Looks again and again until it is done. `look` is None once the communicator was aborted.
fn wait(
    deadline: Instant,
    mut look: impl FnMut() -> Option<Result<bool, String>>,
) -> Result<(), Stop> {
    let begin = Instant::now();
    let mut pause = PAUSE / 16;
    loop {
        if look().ok_or(Stop::Late)?.map_err(Stop::Failed)? {
            return Ok(());
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(Stop::Late);
        }
        if now - begin < SPIN {
            std::thread::yield_now();
        } else {
            std::thread::sleep(pause.min(deadline - now));
            pause = (pause * 2).min(PAUSE);
        }
    }
}

impl<A: Api> Collective for Communicator<A> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_reduce_sum(&mut self, t: &mut Tensor) -> Result<(), CollectiveError> {
        self.in_place("all_reduce", Operation::AllReduceSum, t)
    }

    fn broadcast(&mut self, t: &mut Tensor, root: usize) -> Result<(), CollectiveError> {
        check_root(root, self.world)?;
        self.in_place("broadcast", Operation::Broadcast(root), t)
    }

    fn all_gather(&mut self, t: &Tensor) -> Result<Vec<Tensor>, CollectiveError> {
        let name = "all_gather";
        let world = self.world as i64;
        tch::no_grad(|| {
            let mine = t.detach().contiguous();
            self.check(name, &[&mine])?;
            // [world, numel]
            let all = Tensor::zeros([world, mine.numel() as i64], (mine.kind(), mine.device()));
            if mine.numel() > 0 {
                self.operate(name, Operation::AllGather, &mine, &all)?;
            }
            let shape = mine.size();
            Ok((0..world).map(|rank| all.get(rank).view(shape.as_slice())).collect())
        })
    }

    fn reduce_scatter_sum(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError> {
        let name = "reduce_scatter";
        check_parts(name, input, output, self.world)?;
        self.check(name, &[input, output])?;
        if output.numel() == 0 {
            return Ok(());
        }
        self.operate(name, Operation::ReduceScatterSum, input, output)
    }

    fn all_gather_into(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError> {
        let name = "all_gather";
        check_parts(name, output, input, self.world)?;
        self.check(name, &[input, output])?;
        if input.numel() == 0 {
            return Ok(());
        }
        self.operate(name, Operation::AllGather, input, output)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        let t = self.api.token();
        self.operate("barrier", Operation::AllReduceSum, &t, &t)
    }
}

impl<A: Api> Drop for Communicator<A> {
    fn drop(&mut self) {
        let Some(live) = self.live.take() else { return };
        let deadline = Instant::now() + FAREWELL;
        let finalized = live.during(deadline, |handle| self.api.finalize(handle));
        let peaceful = matches!(finalized, Some(Ok(())))
            && wait(deadline, || live.at_once(|handle| self.api.ready(handle))).is_ok();
        let end = if peaceful { End::Destroy } else { End::Abort };
        if !live.end(end) {
            tracing::warn!(rank = self.rank, ?end, "NCCL does not end the communicator");
        }
    }
}
