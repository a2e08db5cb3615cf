//! Loss, gradient and optimizer against the reference libraries' own numbers (tests/golden).

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use medevo_engine::{
    adamw::{AdamStep, Moments},
    objective::{TokenTerms, normaliser, token_loss, token_weight},
};
use medevo_types::settings::{LossType, Objective, OptimizerSettings};
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

/// Broken, it would mean that a user's `loss_type` does not do what the same name does in TRL.
#[test]
fn loss_and_gradient_equal_trl() {
    let golden = golden("loss.json");
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let loss_type: LossType = serde_json::from_value(case["loss_type"].clone()).unwrap();
        let objective = Objective {
            loss_type,
            beta: case["beta"].as_f64().unwrap(),
            clip_low: case["clip_low"].as_f64().unwrap(),
            clip_high: case["clip_high"].as_f64().unwrap(),
            ..Objective::default()
        };
        let answers = case["logps"].as_array().unwrap();
        let advantages = flat(&case["advantages"]);
        let (mut advantage, mut weight) = (Vec::new(), Vec::new());
        for (answer, a) in answers.iter().zip(&advantages) {
            let tokens = answer.as_array().unwrap().len();
            advantage.extend(vec![*a; tokens]);
            weight.extend(vec![token_weight(loss_type, 1, tokens); tokens]);
        }
        let tokens = advantage.len();
        let logp = Tensor::from_slice(&flat(&case["logps"])).set_requires_grad(true);
        let old = (!case["old"].is_null()).then(|| Tensor::from_slice(&flat(&case["old"])));
        let reference = Tensor::from_slice(&flat(&case["reference"]));
        let sums = token_loss(
            &TokenTerms {
                logp: &logp,
                old: old.as_ref(),
                reference: Some(&reference),
                advantage: &Tensor::from_slice(&advantage),
                weight: &Tensor::from_slice(&weight),
                count: &Tensor::from_slice(&vec![1f32; tokens]),
            },
            &objective,
        );
        let longest = case["max_new_tokens"].as_u64().unwrap() as usize;
        let by = normaliser(loss_type, answers.len() as f64, tokens as f64, longest);
        let loss = &sums.loss / by;
        loss.backward();
        let loss = [loss.double_value(&[]) as f32];
        close(&format!("{name}: loss"), &loss, &flat(&case["loss"]), 1e-5);
        let gradient = Vec::<f32>::try_from(logp.grad()).unwrap();
        close(&format!("{name}: gradient"), &gradient, &flat(&case["gradient"]), 1e-5);
        let kl = [sums.kl.double_value(&[]) as f32 / tokens as f32];
        close(&format!("{name}: kl"), &kl, &flat(&case["kl"]), 1e-5);
        let clipped = [sums.clipped.double_value(&[]) as f32 / tokens as f32];
        close(&format!("{name}: clipped"), &clipped, &flat(&case["clip_fraction"]), 1e-5);
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
