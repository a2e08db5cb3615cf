//! Ranks that do not come, that stand still, that are refused; and generation after generation.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use medevo_collective::{Collective, CollectiveError, MemoryStore, Nccl, Rendezvous};
use medevo_gpu_tests::{form, gpus, on_each, there_are};
use tch::{Cuda, Device, Kind, Tensor};

use crate::ordering::Busy;

/// What an abort may take on top of the deadline.
const ABORT: Duration = Duration::from_secs(8);

fn ones(rank: usize) -> Tensor {
    Tensor::ones([1 << 16], (Kind::Float, Device::Cuda(rank)))
}

fn a_new_generation_works(world: usize) {
    let sums = on_each(form(world, Duration::from_secs(60)).unwrap(), |c| {
        let mut t = ones(c.rank());
        c.all_reduce_sum(&mut t).unwrap();
        t.double_value(&[7])
    });
    assert_eq!(sums, vec![world as f64; world]);
}

#[test]
fn a_rank_that_never_comes_is_an_error_at_the_deadline() {
    if !there_are(1) {
        return;
    }
    let (begin, timeout) = (Instant::now(), Duration::from_secs(5));
    let error = Nccl::form(&MemoryStore::new(), "g1", 0, 2, 0, timeout).err().unwrap();
    println!("after {:?}: {error}", begin.elapsed());
    assert!(begin.elapsed() >= timeout && begin.elapsed() < timeout + ABORT);
    assert_eq!(error.operation, "form");
    assert!(error.message.contains("rank 0 of 2 on cuda:0"), "{error}");
    a_new_generation_works(1);
}

/// Two workers started with the same `--device` must hear of it, and not wait.
#[test]
fn one_gpu_twice_is_refused_with_a_sentence() {
    if !there_are(1) {
        return;
    }
    let store: Arc<dyn Rendezvous> = Arc::new(MemoryStore::new());
    let begin = Instant::now();
    let ranks = [0, 1].map(|rank| {
        let store = Arc::clone(&store);
        let timeout = Duration::from_secs(20);
        thread::spawn(move || Nccl::form(&*store, "g1", rank, 2, 0, timeout))
    });
    let formed: Vec<Result<Nccl, CollectiveError>> =
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
    println!("after {:?}", begin.elapsed());
    if formed.iter().all(Result::is_ok) {
        println!("this NCCL lets two ranks share a GPU");
        return;
    }
    for rank in &formed {
        if let Err(error) = rank {
            println!("{error}");
        }
    }
    assert!(formed.iter().any(|rank| rank.as_ref().is_err_and(|e| e.message.contains("NCCL:"))));
    drop(formed);
    a_new_generation_works(1);
}

/// Torch's own work before the operation counts too: nothing waits for a GPU without a deadline.
#[test]
fn an_operation_that_is_not_over_in_time_is_aborted() {
    if !there_are(1) {
        return;
    }
    let timeout = Duration::from_secs(4);
    let mut group = form(1, timeout).unwrap().remove(0);
    let mut t = ones(0);
    group.all_reduce_sum(&mut t).unwrap();
    let mut busy = Busy::new();
    let begin = Instant::now();
    busy.for_at_least(Duration::from_secs(7));
    let error = group.all_reduce_sum(&mut t).unwrap_err();
    println!("after {:?}: {error}", begin.elapsed());
    assert!(begin.elapsed() >= timeout && begin.elapsed() < timeout + ABORT);
    assert_eq!(error.operation, "all_reduce");
    assert!(error.message.contains("rank 0 of 1 on cuda:0: not all ranks"), "{error}");
    assert!(group.barrier().unwrap_err().message.contains("form a new one"));
    drop(group);
    Cuda::synchronize(0);
    a_new_generation_works(1);
}

/// A kernel that waits for its peer for ever must go, or torch could never use the GPU again.
#[test]
fn a_peer_that_stands_still_is_an_error_at_the_deadline() {
    if !there_are(2) {
        return;
    }
    let timeout = Duration::from_secs(10);
    let mut ranks = form(2, timeout).unwrap();
    let silent = ranks.pop().unwrap();
    let mut group = ranks.pop().unwrap();
    let begin = Instant::now();
    let error = group.all_reduce_sum(&mut ones(0)).unwrap_err();
    println!("after {:?}: {error}", begin.elapsed());
    assert!(begin.elapsed() >= timeout && begin.elapsed() < timeout + ABORT);
    assert_eq!(ones(0).sum(Kind::Float).double_value(&[]), f64::from(1 << 16), "the GPU is free");
    drop(group);
    drop(silent);
    a_new_generation_works(2);
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Bytes free on GPU 0.
fn free() -> usize {
    Cuda::synchronize(0);
    cudarc::driver::result::mem_get_info().unwrap().0
}

/// A long run forms many generations: each must give back its handles, threads and memory of the GPU.
#[test]
fn twenty_generations_leak_nothing() {
    if !there_are(1) {
        return;
    }
    let world = gpus().min(2);
    for _ in 0..3 {
        a_new_generation_works(world); // what is opened once and for all
    }
    drop(ones(0)); // makes GPU 0 this thread's current one
    let seen = || (entries("/proc/self/fd"), entries("/proc/self/task"));
    let (before, memory) = (seen(), free());
    for _ in 0..20 {
        a_new_generation_works(world);
    }
    // What a thread leaves takes the kernel a while; what leaks never goes.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let (after, left) = (seen(), free());
        let (fds, threads) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        let lost = memory.saturating_sub(left) >> 20;
        if fds <= 2 && threads <= 2 && lost <= 64 {
            println!(
                "world {world}, 20 generations: {fds} handles, {threads} threads, {lost} MiB more"
            );
            return;
        }
        assert!(
            Instant::now() < end,
            "{fds} handles, {threads} threads, {lost} MiB of the GPU leaked"
        );
        thread::sleep(Duration::from_millis(50));
    }
}
