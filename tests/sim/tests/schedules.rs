//! INV-1 to INV-6 and INV-8 on thousands of seeded schedules of a whole cluster: whatever crashes, stalls, is cut
//! off, doubled, delayed or failed over, no invariant breaks, and once the faults are over the run is done.
//!
//! `MEDEVO_SIM_SEEDS=N` runs N seeds, `MEDEVO_SIM_SEED=K` replays one with its trace (`make sim SEED=K`).

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use medevo_sim::world::{Figures, World};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 1_000;
/// Threads that share the seeds; each seed runs on one.
const THREADS: usize = 2;

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[derive(Default)]
struct Tally {
    total: Figures,
    worst: (u64, u64),
    resumed: BTreeMap<String, u64>,
    failed: Vec<(u64, String)>,
}

impl Tally {
    fn add(&mut self, seed: u64, world: &World, figures: &Figures) {
        let total = &mut self.total;
        total.millis += figures.millis;
        total.events += figures.events;
        total.terms += figures.terms;
        total.generations += figures.generations;
        total.commits += figures.commits;
        total.rollbacks += figures.rollbacks;
        total.resumed += figures.resumed;
        total.fenced += figures.fenced;
        self.worst = self.worst.max((figures.millis, seed));
        for reason in world.reasons() {
            let kind: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
            *self.resumed.entry(kind).or_insert(0) += 1;
        }
    }
}

#[test]
fn inv_1_to_8_hold_on_every_schedule_and_the_run_is_done() {
    if let Some(seed) = number("MEDEVO_SIM_SEED") {
        let figures = World::new(seed, true, None).run();
        println!("{figures:?}");
        return;
    }
    let first = number("MEDEVO_SIM_FIRST").unwrap_or(0);
    let seeds = number("MEDEVO_SIM_SEEDS").unwrap_or(SEEDS);
    let (next, tally) = (AtomicU64::new(first), Mutex::new(Tally::default()));
    let started = std::time::Instant::now();
    // What a seed says when it panics is kept; the backtraces of many would hide it.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let mut world = World::new(seed, false, None);
                    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
                    let mut tally = tally.lock().expect("no panic while it is held");
                    match outcome {
                        Ok(figures) => tally.add(seed, &world, &figures),
                        Err(panic) => tally.failed.push((seed, words(panic.as_ref()))),
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let tally = tally.into_inner().expect("no panic while it is held");
    println!("{seeds} seeds in {:.1?}: {:?}", started.elapsed(), tally.total);
    println!("longest: {} ms (seed {})", tally.worst.0, tally.worst.1);
    for (reason, times) in &tally.resumed {
        println!("resumed {times} times: {reason}");
    }
    for (seed, what) in &tally.failed {
        println!("seed {seed} fails: {what}\n  replay it with: make sim SEED={seed}");
    }
    assert!(tally.failed.is_empty(), "{} of {seeds} seeds fail, see above", tally.failed.len());
}
