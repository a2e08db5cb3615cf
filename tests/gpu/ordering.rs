//! NCCL runs in torch's stream: it sees what torch was asked for before, although torch has not computed it yet.
//!
//! A chain of matrix products that takes about a second writes its result into a tensor; the operation on that tensor
//! is asked for while the chain runs. In order, it moves the result; out of order, what was there before. The
//! second is shown too, in a stream of its own: a test that could not fail would show nothing.

use std::{
    cell::RefCell,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use medevo_collective::{Collective, MemoryStore, Nccl};
use medevo_gpu_tests::{form, there_are};
use tch::{Cuda, Device, Kind, Tensor};

const TIMEOUT: Duration = Duration::from_secs(60);
/// How long the chain takes, at least.
const CHAIN: Duration = Duration::from_secs(1);
/// What lies in the tensor before the chain's result.
const STALE: f64 = -1.0;

/// Work for a GPU.
pub struct Busy {
    a: Tensor,
    x: Tensor,
    each: Duration,
}

impl Busy {
    pub fn new() -> Self {
        Self::on(0)
    }

    pub fn on(gpu: usize) -> Self {
        const N: i64 = 8192;
        let random = || Tensor::randn([N, N], (Kind::Float, Device::Cuda(gpu)));
        let mut this = Self { a: random() / (N as f64).sqrt(), x: random(), each: Duration::ZERO };
        this.products(2); // loads what products need
        Cuda::synchronize(gpu as i64);
        let begin = Instant::now();
        this.products(4);
        Cuda::synchronize(gpu as i64);
        this.each = begin.elapsed() / 4;
        this
    }

    fn products(&mut self, count: usize) {
        for _ in 0..count {
            self.x = self.x.matmul(&self.a) * 0.9;
        }
    }

    /// Asks for products that take `time` together, and does not wait. Their result depends on all of them.
    pub fn for_at_least(&mut self, time: Duration) -> &Tensor {
        let count = time.as_secs_f64() * 1.2 / self.each.as_secs_f64();
        self.products(count.ceil() as usize);
        &self.x
    }

    /// `[n]`, of the result's numbers.
    fn flat(&self) -> Tensor {
        self.x.view([-1])
    }
}

/// What an operation moved: whether it was the chain's result, or what was there before.
#[derive(Debug, PartialEq)]
enum Moved {
    Result,
    Stale,
    Something,
}

/// Has `operation` move a tensor that the chain writes; it is asked for while the chain runs.
fn while_the_chain_runs(
    gpu: usize,
    operation: impl FnOnce(&Tensor) -> Tensor,
    expected: impl FnOnce(&Tensor) -> Tensor,
) -> Moved {
    let mut busy = Busy::on(gpu);
    let mut input = busy.flat().full_like(STALE);
    Cuda::synchronize(gpu as i64);
    let begin = Instant::now();
    busy.for_at_least(CHAIN);
    input.copy_(&busy.flat());
    let asked = begin.elapsed();
    assert!(asked < CHAIN / 2, "asking for the chain took {asked:?}: it must still run");
    let moved = operation(&input);
    let expected = expected(&busy.flat());
    println!(
        "cuda:{gpu}: chain asked for in {asked:?}, operation over after {:?}",
        begin.elapsed()
    );
    if moved.equal(&expected) {
        Moved::Result
    } else if moved.eq(STALE).all().int64_value(&[]) == 1 {
        Moved::Stale
    } else {
        Moved::Something
    }
}

fn copy(gpu: usize, group: &mut Nccl) -> Moved {
    let copied = |input: &Tensor| {
        let mut output = input.zeros_like();
        group.all_gather_into(&mut output, input).unwrap();
        output
    };
    while_the_chain_runs(gpu, copied, Tensor::copy)
}

fn warm(group: &mut Nccl) {
    let mut two = Tensor::zeros([2], (Kind::Float, Device::Cuda(0)));
    group.all_gather_into(&mut two, &Tensor::ones([2], (Kind::Float, Device::Cuda(0)))).unwrap();
}

#[test]
fn nccl_sees_what_torch_was_asked_for_before() {
    if !there_are(1) {
        return;
    }
    let mut group = form(1, TIMEOUT).unwrap().remove(0);
    warm(&mut group);
    assert_eq!(copy(0, &mut group), Moved::Result);
}

#[test]
fn in_a_stream_of_its_own_it_would_not() {
    if !there_are(1) {
        return;
    }
    let store = MemoryStore::new();
    let mut group = Nccl::form_out_of_order(&store, "g1", 0, 1, 0, TIMEOUT).unwrap();
    warm(&mut group);
    assert_eq!(copy(0, &mut group), Moved::Stale);
}

/// What the engine does: gradients that are still being computed are reduced in place, and read at once.
#[test]
fn a_sum_in_place_is_that_of_what_was_being_computed() {
    if !there_are(2) {
        return;
    }
    let store = Arc::new(MemoryStore::new());
    let threads = [0, 1].map(|rank| {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            let mut group = Nccl::form(&*store, "g1", rank, 2, rank, TIMEOUT).unwrap();
            // NCCL connects at the first operation, which would take its time while the chain runs.
            group
                .all_reduce_sum(&mut Tensor::ones([2], (Kind::Float, Device::Cuda(rank))))
                .unwrap();
            let group = RefCell::new(group);
            let sum = |input: &Tensor| {
                let mut sum = input.shallow_clone();
                group.borrow_mut().all_reduce_sum(&mut sum).unwrap();
                sum
            };
            while_the_chain_runs(rank, sum, |result| {
                let all = group.borrow_mut().all_gather(result).unwrap();
                &all[0] + &all[1]
            })
        })
    });
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Moved::Result);
    }
}
