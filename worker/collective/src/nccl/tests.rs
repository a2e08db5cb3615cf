//! The communicator's logic without CUDA: what becomes of ranks that do not come, errors, and calls that stand still.
#![allow(clippy::unwrap_used)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};

use super::{
    communicator::Communicator,
    fake::{Fake, NEVER, Script},
};
use crate::{Collective, CollectiveError, MemoryStore, Rendezvous};

const TIMEOUT: Duration = Duration::from_millis(60);

type Formed = (Arc<Fake>, Result<Communicator<Fake>, CollectiveError>);

fn form(script: Script) -> Formed {
    let api = Arc::new(Fake::new(2, script));
    let store = MemoryStore::new();
    store.set("g1/nccl", &[7; 128]).unwrap();
    let formed = Communicator::over(Arc::clone(&api), &store, "g1", 1, 2, TIMEOUT);
    (api, formed)
}

fn ones() -> Tensor {
    Tensor::ones([4], (Kind::Float, Device::Cpu))
}

fn numbers(t: &Tensor) -> Vec<f32> {
    Vec::try_from(t.reshape([-1])).unwrap()
}

#[test]
fn forming_waits_for_the_ranks_and_ends_in_peace() {
    let (api, formed) = form(Script { forming: 5, finalizing: 3, ..Script::default() });
    let group = formed.unwrap();
    assert_eq!((group.rank(), group.world()), (1, 2));
    drop(group);
    assert_eq!(api.calls(), ["begin", "finalize", "destroy"]);
}

#[test]
fn rank_0_shares_the_id_that_the_others_take() {
    let store = MemoryStore::new();
    let form = |rank| {
        let api = Arc::new(Fake::new(2, Script::default()));
        Communicator::over(api, &store, "generation-3", rank, 2, TIMEOUT)
    };
    form(0).unwrap();
    form(1).unwrap();
    assert!(store.check(&["generation-3/nccl"]).unwrap());
}

#[test]
fn forming_without_rank_0_fails_at_the_deadline_before_nccl_is_asked() {
    let api = Arc::new(Fake::new(2, Script::default()));
    let store = MemoryStore::new();
    let error = Communicator::over(Arc::clone(&api), &store, "g1", 1, 2, TIMEOUT).err().unwrap();
    assert_eq!(error.operation, "form");
    assert!(error.message.contains("rank 1 of 2") && error.message.contains("rank 0"), "{error}");
    assert!(api.calls().is_empty());
}

#[test]
fn forming_that_never_ends_is_aborted_at_the_deadline() {
    let begin = Instant::now();
    let (api, formed) = form(Script { forming: NEVER, ..Script::default() });
    let error = formed.err().unwrap();
    assert!(begin.elapsed() >= TIMEOUT && begin.elapsed() < Duration::from_secs(5));
    assert_eq!(error.operation, "form");
    assert!(error.message.contains("rank 1 of 2 on gpu:7: not all ranks"), "{error}");
    assert_eq!(api.calls(), ["begin", "abort"]);
}

#[test]
fn a_rank_outside_the_world_is_refused() {
    let api = Arc::new(Fake::new(2, Script::default()));
    let error = Communicator::over(api, &MemoryStore::new(), "g1", 2, 2, TIMEOUT).err().unwrap();
    assert!(error.message.contains("rank 2"), "{error}");
}

/// An event that is recorded too early passes without the operation; the fake refuses that.
#[test]
fn an_operation_ends_when_the_device_has_come_to_it() {
    let (api, formed) = form(Script { entering: 4, running: 6, ..Script::default() });
    let mut group = formed.unwrap();
    let mut t = ones();
    group.all_reduce_sum(&mut t).unwrap();
    assert_eq!(numbers(&t), [2.0; 4]);
    group.barrier().unwrap();
    assert_eq!(api.calls(), ["begin", "enqueue", "record", "enqueue", "record"]);
}

#[test]
fn an_operation_that_never_ends_is_aborted_and_the_communicator_is_gone() {
    for script in [
        Script { running: NEVER, ..Script::default() },
        Script { entering: NEVER, ..Script::default() },
    ] {
        let (api, formed) = form(script);
        let mut group = formed.unwrap();
        let error = group.broadcast(&mut ones(), 0).unwrap_err();
        assert_eq!(error.operation, "broadcast");
        assert!(error.message.contains("rank 1 of 2 on gpu:7"), "{error}");
        let calls = api.calls();
        assert_eq!(calls.last(), Some(&"abort"));
        let later = group.all_reduce_sum(&mut ones()).unwrap_err();
        assert!(later.message.contains("form a new one"), "{later}");
        assert!(group.barrier().is_err());
        drop(group);
        assert_eq!(api.calls(), calls, "nothing is asked of a communicator that is gone");
    }
}

#[test]
fn an_asynchronous_error_aborts_at_once() {
    let (api, formed) =
        form(Script { running: NEVER, error: Some("remote process exited"), ..Script::default() });
    let mut group = formed.unwrap();
    let error = group.all_reduce_sum(&mut ones()).unwrap_err();
    assert_eq!(error.operation, "all_reduce");
    assert!(error.message.contains("remote process exited"), "{error}");
    assert_eq!(api.calls().last(), Some(&"abort"));
    assert!(group.barrier().unwrap_err().message.contains("form a new one"));
}

/// NCCL promises not to wait in the call; a worker must survive it if it does.
#[test]
fn a_call_that_stands_still_is_aborted_from_beside_it() {
    let (api, formed) = form(Script { enqueue_stands_still: true, ..Script::default() });
    let mut group = formed.unwrap();
    let begin = Instant::now();
    let error = group.all_reduce_sum(&mut ones()).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(error.message.contains("not all ranks"), "{error}");
    assert_eq!(api.calls(), ["begin", "enqueue", "abort"]);
}

#[test]
fn an_abort_that_stands_still_does_not_take_the_worker_with_it() {
    let (_, formed) =
        form(Script { running: NEVER, abort_stands_still: true, ..Script::default() });
    let error = formed.unwrap().barrier().unwrap_err();
    assert!(error.message.contains("restart this worker"), "{error}");
}

/// A rank that died keeps the others of its machine from finalizing.
#[test]
fn a_farewell_that_nobody_answers_ends_in_an_abort() {
    let (api, formed) = form(Script { finalizing: NEVER, ..Script::default() });
    let begin = Instant::now();
    drop(formed.unwrap());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(api.calls(), ["begin", "finalize", "abort"]);
}

#[test]
fn views_parts_and_empty_tensors_go_through() {
    let (api, formed) = form(Script::default());
    let mut group = formed.unwrap();
    let grid = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
    group.all_reduce_sum(&mut grid.transpose(0, 1).narrow(0, 1, 2)).unwrap();
    assert_eq!(numbers(&grid)[..4], [1.0, 2.0, 2.0, 1.0], "the rest of the storage stays");
    let gathered = group.all_gather(&Tensor::from(3i64)).unwrap();
    assert_eq!(
        gathered.iter().map(|t| (t.size(), t.int64_value(&[]))).collect::<Vec<_>>(),
        [(vec![], 3), (vec![], 3)]
    );
    let (mut part, mut whole) = (ones(), Tensor::zeros([8], (Kind::Float, Device::Cpu)));
    group.all_gather_into(&mut whole, &part).unwrap();
    assert_eq!(numbers(&whole), [1.0; 8]);
    group.reduce_scatter_sum(&mut part, &whole).unwrap();
    assert_eq!(numbers(&part), [2.0; 4]);

    let before = api.calls();
    let nothing = || Tensor::zeros([0], (Kind::Float, Device::Cpu));
    group.all_reduce_sum(&mut nothing()).unwrap();
    group.broadcast(&mut nothing(), 1).unwrap();
    assert_eq!(group.all_gather(&nothing()).unwrap().len(), 2);
    group.reduce_scatter_sum(&mut nothing(), &nothing()).unwrap();
    group.all_gather_into(&mut nothing(), &nothing()).unwrap();
    assert_eq!(api.calls(), before, "empty tensors are not exchanged");
}

/// A mistake of this rank must not cost the communicator, or the peers would be left waiting.
#[test]
fn what_cannot_be_exchanged_is_refused_and_the_communicator_stays() {
    let (_, formed) = form(Script::default());
    let mut group = formed.unwrap();
    let mut flags = Tensor::ones([2], (Kind::Bool, Device::Cpu));
    let error = group.all_reduce_sum(&mut flags).unwrap_err();
    assert!(error.message.contains("Bool is not exchanged"), "{error}");
    assert!(group.broadcast(&mut ones(), 2).unwrap_err().message.contains("root 2"));
    assert!(group.all_gather_into(&mut ones(), &ones()).is_err());
    group.barrier().unwrap();
}

/// On a machine without an NVIDIA driver, or without NCCL: a sentence, and the way out.
#[test]
fn a_missing_library_is_an_error_with_the_way_out() {
    let gpu = super::load_libtorch_cuda().is_ok() && tch::Cuda::is_available();
    if gpu {
        println!("skipped: this machine has a GPU");
        return;
    }
    let formed = super::Nccl::form(&MemoryStore::new(), "g1", 0, 1, 0, TIMEOUT);
    let error = formed.err().unwrap();
    assert_eq!(error.operation, "form");
    assert!(error.message.contains("GPU") || error.message.contains("--device cpu"), "{error}");
}
