//! Loss, gradient and optimizer against the reference libraries' own numbers (tests/golden).

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use medevo_engine::{
    adamw::{AdamStep, Moments},
    objective::{
        LossSums, TokenTerms, answer_means, averages_correction, correction, entropy_weight,
        normaliser, sequence_old, token_loss, token_weight,
    },
};
use medevo_types::settings::{Objective, OptimizerSettings};
use serde_json::Value;
use tch::{Device, Tensor};

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn flat(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

fn close(name: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{name}[{at}]: {a} against {b}");
    }
}

/// A case's settings; what it does not name is the default.
fn objective(case: &Value) -> Objective {
    let keys = [
        "loss_type",
        "beta",
        "clip_low",
        "clip_high",
        "importance_sampling_level",
        "kl_estimator",
        "entropy_weight",
        "importance_cap",
    ];
    let named = keys.iter().filter_map(|key| Some(((*key).to_owned(), case.get(key)?.clone())));
    serde_json::from_value(Value::Object(named.collect())).unwrap()
}

/// Broken, it would mean that a user's `loss_type` does not do what the same name does in TRL.
#[test]
fn loss_and_gradient_equal_trl() {
    let golden = golden("loss.json");
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let objective = objective(case);
        let loss_type = objective.loss_type;
        let answers = case["logps"].as_array().unwrap();
        let advantages = flat(&case["advantages"]);
        let (mut advantage, mut weight, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let mut share = Vec::new();
        for (answer, a) in answers.iter().zip(&advantages) {
            let tokens = answer.as_array().unwrap().len();
            advantage.extend(vec![*a; tokens]);
            weight.extend(vec![token_weight(loss_type, 1, tokens); tokens]);
            share.extend(vec![1.0 / tokens as f32; tokens]);
            lengths.push(tokens as i64);
        }
        let tokens = advantage.len();
        let logp = Tensor::from_slice(&flat(&case["logps"])).set_requires_grad(true);
        let tensor =
            |key: &str| (!case[key].is_null()).then(|| Tensor::from_slice(&flat(&case[key])));
        let old = tensor("old");
        let fix = tensor("rollout").map(|rollout| {
            let fix = correction(old.as_ref().unwrap_or(&logp), &rollout, objective.importance_cap);
            if averages_correction(&objective) { answer_means(&fix, &lengths) } else { fix }
        });
        let ratio = old.as_ref().filter(|_| objective.by_sequence());
        let ratio = ratio.map(|old| answer_means(&(logp.detach() - old), &lengths));
        let reference = Tensor::from_slice(&flat(&case["reference"]));
        let longest = case["max_new_tokens"].as_u64().unwrap() as usize;
        let counts = (answers.len() as f64, tokens as f64);
        let entropy = tensor("entropies").map(|entropy| entropy.set_requires_grad(true));
        let bonus = entropy_weight(&objective, counts.0, counts.1, longest);
        let (advantage, weight) = (Tensor::from_slice(&advantage), Tensor::from_slice(&weight));
        // In two chunks that part the third answer, as the engine's chunks part long ones.
        let sums = |count: &[f32]| {
            let count = Tensor::from_slice(count);
            let chunk = |from: i64, to: i64| {
                let part = |all: &Tensor| all.narrow(0, from, to - from);
                let logp = part(&logp);
                let old = match &ratio {
                    Some(ratio) => Some(sequence_old(&logp, &part(ratio))),
                    None => old.as_ref().map(part),
                };
                let entropy = entropy.as_ref().map(part);
                token_loss(
                    &TokenTerms {
                        logp: &logp,
                        old: old.as_ref(),
                        reference: Some(&part(&reference)),
                        advantage: &part(&advantage),
                        weight: &part(&weight),
                        count: &part(&count),
                        correction: fix.as_ref().map(part).as_ref(),
                        entropy: entropy.as_ref().map(|entropy| (entropy, bonus)),
                    },
                    &objective,
                )
            };
            let (a, b) = (chunk(0, 7), chunk(7, tokens as i64));
            LossSums {
                loss: a.loss + b.loss,
                kl: a.kl + b.kl,
                clipped_low: a.clipped_low + b.clipped_low,
                clipped_high: a.clipped_high + b.clipped_high,
            }
        };
        let each = sums(&vec![1.0; tokens]);
        let by = normaliser(loss_type, counts.0, counts.1, longest);
        let loss = &each.loss / by;
        loss.backward();
        let loss = [loss.double_value(&[]) as f32];
        close(&format!("{name}: loss"), &loss, &flat(&case["loss"]), 1e-5);
        let gradient = Vec::<f32>::try_from(logp.grad()).unwrap();
        close(&format!("{name}: gradient"), &gradient, &flat(&case["gradient"]), 1e-5);
        if let Some(entropy) = &entropy {
            let gradient = Vec::<f32>::try_from(entropy.grad()).unwrap();
            let theirs = flat(&case["entropy_gradient"]);
            close(&format!("{name}: entropy's gradient"), &gradient, &theirs, 1e-5);
        }
        let kl = [each.kl.double_value(&[]) as f32 / tokens as f32];
        close(&format!("{name}: kl"), &kl, &flat(&case["kl"]), 1e-5);
        // Where an answer has one ratio, TRL counts answers: each token is then its share of one.
        let (sums, by) = match objective.by_sequence() {
            true => (sums(&share), counts.0),
            false => (each, counts.1),
        };
        let of = |sum: &Tensor| (sum.double_value(&[]) / by) as f32;
        let (low, high) = (of(&sums.clipped_low), of(&sums.clipped_high));
        for (side, ours) in [("either", low + high), ("low", low), ("high", high)] {
            close(&format!("{name}: clipped {side}"), &[ours], &flat(&case["clipped"][side]), 1e-5);
        }
    }
}

/// Broken, it would mean that learning rates and decay found elsewhere do not carry over.
#[test]
fn adamw_equals_torch() {
    let golden = golden("adamw.json");
    let set = &golden["settings"];
    let settings = OptimizerSettings {
        beta1: set["beta1"].as_f64().unwrap(),
        beta2: set["beta2"].as_f64().unwrap(),
        eps: set["eps"].as_f64().unwrap(),
        weight_decay: set["weight_decay"].as_f64().unwrap(),
        ..OptimizerSettings::default()
    };
    let mut weights = Tensor::from_slice(&flat(&golden["start"]));
    let mut moments = Moments::zeros(weights.numel() as i64, Device::Cpu);
    for (number, step) in golden["steps"].as_array().unwrap().iter().enumerate() {
        let gradient = Tensor::from_slice(&flat(&step["gradients"]));
        let lr = step["lr"].as_f64().unwrap();
        AdamStep::new(&settings, lr, number as u64 + 1).apply(
            &mut weights,
            &gradient,
            &mut moments.first,
            &mut moments.second,
        );
        let ours = Vec::<f32>::try_from(&weights).unwrap();
        close(&format!("step {number}"), &ours, &flat(&step["parameters"]), 2e-6);
    }
}
