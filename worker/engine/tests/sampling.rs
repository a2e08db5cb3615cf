//! Drawing one token.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use medevo_engine::sampling::{Stream, Vocabulary, draw, entropy, truncate};
use medevo_types::{messages::Purpose, settings::Sampling};
use proptest::prelude::*;
use serde_json::Value;
use tch::{Device, Tensor};

fn row(logits: &[f32]) -> Tensor {
    Tensor::from_slice(logits).view([1, -1])
}

fn one(logits: &[f32], u: f64, sampling: &Sampling, vocabulary: &Vocabulary) -> i64 {
    let logp = vocabulary.log_probabilities(&row(logits), sampling.temperature);
    draw(&logp, &Tensor::from_slice(&[u]).view([1, 1]), sampling).int64_value(&[0, 0])
}

proptest! {
    /// A token outside the vocabulary, a banned one, or one that top-k or top-p cut off would reach the text.
    #[test]
    fn a_draw_stays_within_what_is_allowed(
        logits in prop::collection::vec(-8f32..8.0, 5..40),
        u in 0f64..1.0,
        top_k in 0usize..6,
        top_p in 0.05f64..1.0,
        temperature in 0.2f64..3.0,
    ) {
        let size = logits.len() as i64;
        let banned = [0, 3];
        let vocabulary = Vocabulary::without(&banned, size, Device::Cpu);
        let sampling = Sampling { temperature, top_p, top_k, ..Sampling::default() };
        let id = one(&logits, u, &sampling, &vocabulary);
        prop_assert!((0..size).contains(&id));
        prop_assert!(!banned.contains(&(id as u32)));
        let allowed = |other: usize| !banned.contains(&(other as u32));
        let better = (0..logits.len()).filter(|o| allowed(*o) && logits[*o] > logits[id as usize]);
        let better: Vec<usize> = better.collect();
        if top_k > 0 {
            prop_assert!(better.len() < top_k);
        }
        let mass = |o: &usize| (f64::from(logits[*o]) / temperature).exp();
        let kept: Vec<usize> = {
            let mut ranked: Vec<usize> = (0..logits.len()).filter(|o| allowed(*o)).collect();
            ranked.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
            if top_k > 0 { ranked.truncate(top_k); }
            ranked
        };
        let total: f64 = kept.iter().map(mass).sum();
        let before: f64 = better.iter().map(mass).sum();
        prop_assert!(before / total < top_p + 1e-5);
    }

    /// The last uniform below 1 must not fall off the end of the distribution function.
    #[test]
    fn extreme_uniforms_stay_inside(logits in prop::collection::vec(-20f32..20.0, 2..30)) {
        let banned = [logits.len() as u32 - 1];
        let vocabulary = Vocabulary::without(&banned, logits.len() as i64, Device::Cpu);
        let sampling = Sampling::default();
        for u in [0.0, 1.0 - 1.0 / (1u64 << 52) as f64] {
            let id = one(&logits, u, &sampling, &vocabulary);
            prop_assert!(id >= 0 && id < logits.len() as i64 - 1);
        }
    }
}

/// Frequencies that miss the probabilities would train on another policy than the one reported.
#[test]
fn draws_follow_the_policy() {
    let logits = [0.3f32, -1.0, 1.2, 0.0];
    let vocabulary = Vocabulary::without(&[3], 4, Device::Cpu);
    let logp = vocabulary.log_probabilities(&row(&logits), 0.7);
    let count = 20_000;
    let mut stream = Stream::new(1, 2, Purpose::Train, "s", 0);
    let uniforms: Vec<f64> = (0..count).map(|position| stream.uniform(position)).collect();
    let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
    let ids = draw(&logp, &Tensor::from_slice(&uniforms).view([1, -1]), &sampling);
    for id in 0..3i64 {
        let share = ids.eq(id).sum(tch::Kind::Int64).int64_value(&[]) as f64 / count as f64;
        let wanted = logp.double_value(&[0, id]).exp();
        assert!((share - wanted).abs() < 0.015, "token {id}: {share} against {wanted}");
    }
}

/// A candidate must not depend on what else was drawn before it, and no two may share their numbers.
#[test]
fn streams_are_counters() {
    let make = |sample: &str, index| Stream::new(7, 3, Purpose::Train, sample, index);
    let mut forwards = make("a", 1);
    let numbers: Vec<f64> = (0..40).map(|position| forwards.uniform(position)).collect();
    let mut backwards = make("a", 1);
    for position in (0..40).rev() {
        assert_eq!(backwards.uniform(position), numbers[position]);
    }
    let others = [
        make("a", 2),
        make("b", 1),
        Stream::new(8, 3, Purpose::Train, "a", 1),
        Stream::new(7, 4, Purpose::Train, "a", 1),
        Stream::new(7, 3, Purpose::Evaluate, "a", 1),
    ];
    for mut other in others {
        assert_ne!(other.uniform(0), numbers[0]);
    }
}

/// Minus infinity times zero would make the entropy, and with it a run's alarms, not a number.
#[test]
fn entropy_ignores_banned_tokens() {
    let vocabulary = Vocabulary::without(&[1], 3, Device::Cpu);
    let logp = vocabulary.log_probabilities(&row(&[0.0, 5.0, 0.0]), 1.0);
    assert!((entropy(&logp).double_value(&[0]) - 2f64.ln()).abs() < 1e-6);
}

/// Candidates from another set of tokens, or in other proportions, than the reference's would be drawn from.
#[test]
fn truncation_is_the_references() {
    let path = format!("{}/tests/golden/sampling.json", env!("CARGO_MANIFEST_DIR"));
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let logits: Vec<Vec<f32>> = serde_json::from_value(golden["logits"].clone()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let number = |key: &str| case[key].as_f64().unwrap();
        let (temperature, top_p) = (number("temperature"), number("top_p"));
        let top_k = number("top_k") as usize;
        let sampling = Sampling { temperature, top_p, top_k, ..Sampling::default() };
        for (logits, wanted) in logits.iter().zip(case["rows"].as_array().unwrap()) {
            let logp = Vocabulary::full().log_probabilities(&row(logits), temperature);
            let left = truncate(&logp, &sampling);
            let left = &left / left.sum(tch::Kind::Double);
            let left = Vec::<f64>::try_from(left.view(-1)).unwrap();
            let ids: Vec<usize> = (0..left.len()).filter(|id| left[*id] > 0.0).collect();
            let theirs: Vec<usize> = serde_json::from_value(wanted["ids"].clone()).unwrap();
            assert_eq!(ids, theirs, "T {temperature}, top-p {top_p}, top-k {top_k}");
            for (id, wanted) in ids.iter().zip(wanted["probabilities"].as_array().unwrap()) {
                assert!((left[*id] - wanted.as_f64().unwrap()).abs() < 2e-7);
            }
        }
    }
}
