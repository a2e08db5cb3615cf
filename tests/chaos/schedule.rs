//! Harm at random, from a seed: `make chaos SEED=k MINUTES=m`, and a short one in every test run.

use std::time::Duration;

use medevo_tests::chaos::schedule::play;

/// Fails when some mixture of killed, stopped, cut-off and slow processes stops a run, or breaks an invariant.
#[test]
fn a_short_schedule() {
    println!("{:?}", play(1, Duration::from_secs(20)));
}

#[test]
#[ignore = "as long as you like; `make chaos SEED=k MINUTES=m` runs it"]
fn a_schedule() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"));
    let minutes = std::env::var("MINUTES")
        .map_or(5.0, |minutes| minutes.parse().expect("MINUTES is a number"));
    println!("seed {seed}, {minutes} minutes");
    println!("{:?}", play(seed, Duration::from_secs_f64(60.0 * minutes)));
}
