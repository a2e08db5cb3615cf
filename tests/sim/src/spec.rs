//! Small runs.

use medevo_core::*;
use medevo_types::settings::{Objective, OptimizerSettings, Sampling};

/// sft (2 steps), evaluate, rl (4 steps, a pass every 2), evaluate; a checkpoint every 2 steps.
#[must_use]
pub fn whole() -> RunSpec {
    let pass = EvalPass { name: "greedy".into(), data: 1, samples: 5, sampling: sampling(1) };
    RunSpec {
        seed: 7,
        model: "model".into(),
        adapters: false,
        checkpoints: "checkpoints".into(),
        stages: vec![
            stage(
                "warm",
                StageKind::Sft {
                    data: 0,
                    samples: 9,
                    batch: 4,
                    together: 2,
                    steps: 2,
                    optimizer: OptimizerSettings::default(),
                },
            ),
            stage("before", StageKind::Evaluate { passes: vec![pass.clone()] }),
            rl("adapt", 4, 2, vec![pass.clone()]),
            stage("after", StageKind::Evaluate { passes: vec![pass] }),
        ],
        min_workers: 1,
        max_workers: 3,
        expected_workers: 3,
        prompts_per_unit: 2,
        checkpoint_every: 2,
        sharded: false,
        max_attempts: 1000,
        deadlines: Deadlines {
            lease_ttl_ms: 1_000,
            grace_ms: 100,
            starve_ms: 600_000,
            form_ms: 3_000,
            restore_ms: 3_000,
            unit_ms: 2_000,
            score_ms: 2_000,
            update_ms: 3_000,
            apply_ms: 3_000,
            checkpoint_ms: 3_000,
        },
    }
}

/// The same run with `num_iterations` steps a rollout and dynamic sampling.
#[must_use]
pub fn reusing(spec: RunSpec, iterations: u64, rounds: u64) -> RunSpec {
    let mut spec = spec;
    for stage in &mut spec.stages {
        if let StageKind::Rl { objective, extra_rounds, .. } = &mut stage.kind {
            objective.num_iterations = iterations;
            *extra_rounds = rounds;
        }
    }
    spec
}

/// One rl stage.
#[must_use]
pub fn only_rl(steps: u64) -> RunSpec {
    RunSpec { stages: vec![rl("adapt", steps, 0, Vec::new())], ..whole() }
}

/// An rl stage on seven samples, four questions a rollout.
#[must_use]
pub fn rl(name: &str, steps: u64, evaluate_every: u64, passes: Vec<EvalPass>) -> StageSpec {
    stage(
        name,
        StageKind::Rl {
            data: 1,
            samples: 7,
            questions: 4,
            extra_rounds: 0,
            steps,
            sampling: sampling(2),
            features: false,
            objective: Objective::default(),
            optimizer: OptimizerSettings::default(),
            evaluate_every,
            passes,
        },
    )
}

fn stage(name: &str, kind: StageKind) -> StageSpec {
    StageSpec { name: name.into(), kind }
}

fn sampling(n: usize) -> Sampling {
    Sampling { n, temperature: if n == 1 { 0.0 } else { 1.0 }, ..Sampling::default() }
}
