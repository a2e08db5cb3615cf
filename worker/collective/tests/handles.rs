//! A long run forms many generations: each must give its sockets and threads back.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use medevo_collective::{Collective, Gloo, MemoryStore, Rendezvous};
use tch::Tensor;

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

fn cycle(prefix: usize) {
    let store: Arc<dyn Rendezvous> = Arc::new(MemoryStore::new());
    let ranks: Vec<_> = (0..2)
        .map(|rank| {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                let timeout = Duration::from_secs(20);
                let mut group =
                    Gloo::form(store, &prefix.to_string(), rank, 2, "127.0.0.1", timeout).unwrap();
                group.all_reduce_sum(&mut Tensor::from(1.0f32)).unwrap();
            })
        })
        .collect();
    for rank in ranks {
        rank.join().unwrap();
    }
    assert_eq!(Arc::strong_count(&store), 1, "a dropped group lets its rendezvous go");
}

// The only test of this file: others in the same process would open handles of their own.
#[test]
fn twenty_generations_leak_no_handles_and_no_threads() {
    cycle(0); // what libtorch opens once and for all
    let before = (entries("/proc/self/fd"), entries("/proc/self/task"));
    for prefix in 1..=20 {
        cycle(prefix);
    }
    // A joined thread stays listed until the kernel has taken it apart, which on a busy machine takes a while;
    // what leaks never goes.
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let after = (entries("/proc/self/fd"), entries("/proc/self/task"));
        if after.0 <= before.0 + 2 && after.1 <= before.1 + 2 {
            break;
        }
        assert!(
            Instant::now() < end,
            "(handles, threads): {before:?} before, {after:?} after 20 generations"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
