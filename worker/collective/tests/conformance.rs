//! What every backend promises, asked of each of them. NCCL is asked in `tests/gpu`.
#![allow(clippy::unwrap_used)]

mod claims;

use std::{sync::Arc, thread, time::Duration};

use claims::Ranks;
use medevo_collective::{Collective, Gloo, InProcess, MemoryStore, Rendezvous, Solo};
use tch::Device;

const TIMEOUT: Duration = Duration::from_secs(20);

fn on_cpu<C: Collective + 'static>(ranks: impl IntoIterator<Item = C>) -> Ranks {
    ranks.into_iter().map(|c| (Box::new(c) as Box<dyn Collective>, Device::Cpu)).collect()
}

fn solo() -> Ranks {
    vec![(Box::new(Solo), Device::Cpu)]
}

fn in_process(world: usize) -> Ranks {
    on_cpu(InProcess::group(world))
}

fn gloo(world: usize) -> Ranks {
    let store: Arc<dyn Rendezvous> = Arc::new(MemoryStore::new());
    let threads: Vec<_> = (0..world)
        .map(|rank| {
            let store = Arc::clone(&store);
            thread::spawn(move || Gloo::form(store, "g1", rank, world, "127.0.0.1", TIMEOUT))
        })
        .collect();
    on_cpu(threads.into_iter().map(|t| t.join().unwrap().unwrap()))
}

conformance!(
    on_solo: solo(),
    on_in_process: in_process(3),
    on_gloo_of_one: gloo(1),
    on_gloo: gloo(3),
);
