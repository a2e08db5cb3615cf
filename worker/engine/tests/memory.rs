//! Peak memory of an update. Each case runs in a process of its own, which tells its own peak.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;

use common::{Fixture, figure, grpo, update_work};
use medevo_collective::Solo;
use medevo_types::{
    messages::{TrainAnswer, TrainGroup},
    settings::Objective,
};

/// What the measured process is told: layers, vocabulary, answers, tokens of each, 1 to recompute.
const CASE: &str = "MEDEVO_TEST_MEMORY_CASE";

/// Bytes that this process holds (`VmRSS`) or held at most (`VmHWM`).
fn resident(which: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Not a test by itself: the process that the others measure. It prints by how much an update raises its peak.
#[test]
fn measured() {
    let Ok(case) = std::env::var(CASE) else { return };
    let case: Vec<usize> = case.split(' ').map(|number| number.parse().unwrap()).collect();
    let [layers, vocabulary, answers, tokens, recompute] = case[..] else { panic!("{case:?}") };
    let fixture = Fixture::of_shape(layers, vocabulary);
    let mut setup = fixture.setup();
    setup.train.recompute = recompute == 1;
    setup.tokens_per_batch = 1 << 20;
    let mut engine = fixture.engine_with(&setup);
    let answer = |number: usize| TrainAnswer {
        ids: (0..tokens).map(|at| 40 + ((number * 7 + at * 3) % 200) as u32).collect(),
        count: 1,
        advantage: 1.0 - number as f64,
        logprobs: vec![-1.0; tokens],
    };
    let prompt = fixture.prompt("a", &[0], "where is the lesion ?");
    let group = TrainGroup { prompt, answers: (0..answers).map(answer).collect() };
    // An entropy bonus takes the most room: its gradient needs all probabilities.
    let objective = Objective { beta: 0.0, entropy_weight: 0.1, ..Objective::default() };
    let work = update_work(0, grpo(vec![group], objective, fixture.model()));
    let before = resident("VmRSS");
    let ballot = engine.update(&work, &mut Solo).unwrap();
    assert_eq!(figure(&ballot, "tokens"), (answers * tokens) as f64);
    println!("grew {}", resident("VmHWM") - before);
}

fn growth(layers: usize, vocabulary: usize, answers: usize, tokens: usize, recompute: bool) -> f64 {
    let case = format!("{layers} {vocabulary} {answers} {tokens} {}", u8::from(recompute));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "measured", "--nocapture"])
        .env(CASE, &case)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let grew = text.lines().find_map(|line| line.split("grew ").nth(1));
    grew.unwrap_or_else(|| panic!("{case}: {text}{error}")).trim().parse().unwrap()
}

/// Broken, `train.recompute` would cost its time for nothing.
#[test]
fn recomputing_needs_less_than_half_of_the_memory() {
    let kept = growth(20, 465, 4, 200, false);
    let recomputed = growth(20, 465, 4, 200, true);
    println!("kept {:.0} MB, recomputed {:.0} MB", kept / 1e6, recomputed / 1e6);
    assert!(recomputed * 2.0 < kept, "{recomputed} against {kept} bytes");
}

/// Broken, a real vocabulary would not fit: a plain backward pass holds all logits of these answers, 0.7 GB,
/// several times.
#[test]
fn logits_exist_a_few_chunks_at_a_time() {
    let (vocabulary, tokens) = (60_000, 3000);
    let grew = growth(1, vocabulary, 4, tokens / 4, false);
    let whole = (vocabulary * tokens * 4) as f64;
    println!("grew {:.0} MB, all logits {:.0} MB", grew / 1e6, whole / 1e6);
    assert!(grew < whole, "{grew} against {whole} bytes");
}
