//! A small version of `make sim-scale`: what may grow with the cluster, and how.

use medevo_sim::scale::{Cost, Size, measure};

fn cost(workers: usize, groups: usize) -> Cost {
    let (candidates, tokens, prompts_per_unit, steps, step_s) = (2, 4, 2, 2, 10);
    measure(Size { workers, groups, candidates, tokens, prompts_per_unit, steps, step_s })
}

// A message a worker and unit, an event a phase: more would drown a coordinator of a thousand workers.
#[test]
fn messages_grow_with_workers_and_units_and_events_do_not_grow() {
    let (small, large) = (cost(20, 100), cost(200, 1_000));
    let a_step = |cost: &Cost| cost.messages / 2;
    assert!(a_step(&large) <= 11 * a_step(&small), "{} and {}", a_step(&small), a_step(&large));
    assert_eq!(small.events, large.events, "events are of the run, not of its workers");
    let heartbeats = 200 * 4;
    let units = 500;
    // Forming, restoring, update, commit: at most three messages a worker each, beside what its units take.
    assert!(a_step(&large) < 2 * units + 12 * 200 + heartbeats, "{}", a_step(&large));
}
