//! Victims × phases: `make chaos` measures all of it (`RUNS=n` times a cell) and writes
//! `target/chaos/kill-matrix.json`; every test run does a few cells once.

use std::time::Duration;

use medevo_tests::{
    chaos::{
        kill::{LEASE_TTL_S, Phase, Victim},
        matrix::{measure, table, write},
    },
    lab::checkout,
};

/// Recovery in a test run, where other work shares the machine: the target with time to spare.
const SLACK: Duration = Duration::from_secs(20);

/// Fails when a run does not survive one of these kills, or takes for ever to find its feet again.
#[test]
fn a_few_cells() {
    let cells = measure(
        &[
            (Victim::Worker, Phase::Updating),
            (Victim::RankZero, Phase::Committing),
            (Victim::CoordinatorAlone, Phase::Scoring),
        ],
        1,
    );
    for cell in &cells {
        assert_eq!(cell.costs.len(), cell.runs, "{cell:?}");
        let most = Duration::from_secs_f64(LEASE_TTL_S) + SLACK;
        assert!(cell.costs.iter().all(|cost| cost.recovery < most), "{cell:?}");
    }
    // Workers that die take no scores along.
    assert!(cells[..2].iter().all(|c| c.costs.iter().all(|cost| cost.candidates_lost == 0)));
}

#[test]
#[ignore = "half an hour; `make chaos` runs it"]
fn the_whole_matrix() {
    let runs = std::env::var("RUNS").map_or(3, |runs| runs.parse().expect("RUNS is a number"));
    let asked = |name| std::env::var(name).unwrap_or_default();
    let (victim, phase) = (asked("VICTIM"), asked("PHASE"));
    let victims = Victim::ALL.into_iter().filter(|v| v.name().starts_with(&victim));
    let phases = || Phase::ALL.into_iter().filter(|p| p.name().starts_with(&phase));
    let cells: Vec<_> = victims.flat_map(|v| phases().map(move |p| (v, p))).collect();
    let cells = measure(&cells, runs);
    println!("\n{}", table(&cells));
    let path = checkout().join("target/chaos/kill-matrix.json");
    write(&cells, &path);
    println!("\nwritten to {}", path.display());
    assert!(cells.iter().all(|cell| cell.costs.len() == cell.runs), "not every run survived");
}
