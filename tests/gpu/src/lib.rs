//! What the GPU tests share: whether there are GPUs, and communicators over them.

use std::{
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use medevo_collective::{
    Collective, CollectiveError, MemoryStore, Nccl, Rendezvous, load_libtorch_cuda,
};
use tch::Cuda;

/// How many GPUs libtorch sees; else why it sees none.
static GPUS: LazyLock<Result<usize, String>> = LazyLock::new(|| {
    load_libtorch_cuda()?;
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if Cuda::is_available() && count > 0 {
        Ok(count)
    } else {
        Err("libtorch_cuda is loaded and finds no device".to_owned())
    }
});

/// How many GPUs there are.
#[must_use]
pub fn gpus() -> usize {
    GPUS.as_ref().map_or(0, |count| *count)
}

/// Whether there are `wanted` GPUs; says so where there are not.
#[must_use]
pub fn there_are(wanted: usize) -> bool {
    match &*GPUS {
        Err(why) => println!("skipped: no CUDA device visible to libtorch ({why})"),
        Ok(count) if *count < wanted => {
            println!("skipped: this needs {wanted} GPUs and libtorch sees {count}");
        }
        Ok(_) => return true,
    }
    false
}

/// One communicator over GPUs 0 to `world` − 1, by rank; each rank is formed on a thread.
///
/// # Errors
/// As [`Nccl::form`], of the first rank that failed.
///
/// # Panics
/// When the forming panics.
pub fn form(world: usize, timeout: Duration) -> Result<Vec<Nccl>, CollectiveError> {
    let store: Arc<dyn Rendezvous> = Arc::new(MemoryStore::new());
    let threads: Vec<_> = (0..world)
        .map(|rank| {
            let store = Arc::clone(&store);
            thread::spawn(move || Nccl::form(&*store, "g1", rank, world, rank, timeout))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("forming does not panic")).collect()
}

/// Runs `body` on every rank at once and returns what each made of it, by rank.
///
/// # Panics
/// When `body` does.
pub fn on_each<T: Send + 'static>(ranks: Vec<Nccl>, body: fn(&mut dyn Collective) -> T) -> Vec<T> {
    let threads: Vec<_> =
        ranks.into_iter().map(|mut rank| thread::spawn(move || body(&mut rank))).collect();
    threads.into_iter().map(|thread| thread.join().expect("a rank ends well")).collect()
}
