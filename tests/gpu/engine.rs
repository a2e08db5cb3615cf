//! The engine on a GPU against itself on the CPU, with the tiny model.

use medevo_collective::{Collective, Solo};
use medevo_engine::Engine;
use medevo_gpu_tests::{form, there_are};
use medevo_types::{
    Generation, PolicyVersion, Step,
    messages::{Ballot, CheckpointWork, Holding, RestoreSource},
    settings::{Dtype, Objective, Sampling},
};
use tch::Device;

use crate::common::{Fixture, all_ids, apply_work, figure, groups, grpo, unit, update_work};

fn engine(fixture: &Fixture, dtype: Dtype, on: Device) -> Engine {
    let mut setup = fixture.setup();
    setup.dtype = dtype;
    let mut engine = Engine::new(&setup, on).unwrap();
    let source = RestoreSource::Model { dir: fixture.model() };
    engine.restore(&source, PolicyVersion(0), &mut Solo).unwrap();
    engine
}

fn step(engine: &mut Engine, fixture: &Fixture, group: &mut dyn Collective) -> (Ballot, Holding) {
    let reference = fixture.dir.path().join("reference");
    let batch = grpo(groups(fixture.prompts()), Objective::default(), reference);
    let ballot = engine.update(&update_work(0, batch), group).unwrap();
    let holding = engine.apply(&apply_work(0), group).unwrap();
    (ballot, holding)
}

fn logprobs(engine: &mut Engine, fixture: &Fixture) -> Vec<f32> {
    let image = fixture.dir.path().join("0.bmp");
    engine.logprobs(Some(&image), "where is the lesion ?", "left lung").unwrap().2
}

/// Largest difference.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// f32 agrees to rounding, bf16 to what its 8 bits leave.
const BY_DTYPE: [(Dtype, f32); 2] = [(Dtype::F32, 2e-3), (Dtype::Bf16, 0.5)];

#[test]
fn log_probabilities_are_those_of_the_cpu() {
    if !there_are(1) {
        return;
    }
    let fixture = Fixture::new();
    for (dtype, tolerance) in BY_DTYPE {
        let [cpu, gpu] = [Device::Cpu, Device::Cuda(0)]
            .map(|on| logprobs(&mut engine(&fixture, dtype, on), &fixture));
        let difference = apart(&cpu, &gpu);
        println!("{dtype:?}: log-probabilities are {difference:.2e} apart");
        assert!(difference <= tolerance, "{dtype:?}: {cpu:?} {gpu:?}");
    }
}

/// Candidates are drawn from counted random numbers, so the device hardly matters either.
#[test]
fn greedy_and_drawn_answers_are_those_of_the_cpu() {
    if !there_are(1) {
        return;
    }
    let fixture = Fixture::new();
    for (temperature, n) in [(0.0, 1), (1.0, 8)] {
        let sampling = Sampling { n, temperature, top_p: 1.0, top_k: 0, max_new_tokens: 6 };
        let [cpu, gpu] = [Device::Cpu, Device::Cuda(0)].map(|on| {
            let mut engine = engine(&fixture, Dtype::F32, on);
            engine.rollout(&unit(fixture.prompts(), sampling.clone())).unwrap()
        });
        assert_eq!(all_ids(&cpu), all_ids(&gpu), "at temperature {temperature}");
        for (cpu, gpu) in cpu.iter().zip(&gpu) {
            for (cpu, gpu) in cpu.candidates.iter().zip(gpu.candidates.iter()) {
                assert!(apart(&cpu.logprobs, &gpu.logprobs) <= 2e-3);
                let features = [cpu, gpu].map(|c| c.feature.clone().unwrap());
                assert!(apart(&features[0], &features[1]) <= 1e-3);
            }
        }
    }
}

#[test]
fn a_step_is_that_of_the_cpu() {
    if !there_are(1) {
        return;
    }
    let fixture = Fixture::new();
    for (dtype, tolerance) in BY_DTYPE {
        let [cpu, gpu] = [Device::Cpu, Device::Cuda(0)].map(|on| {
            let mut engine = engine(&fixture, dtype, on);
            let (ballot, _) = step(&mut engine, &fixture, &mut Solo);
            (ballot, logprobs(&mut engine, &fixture))
        });
        let relative = (cpu.0.grad_norm / gpu.0.grad_norm - 1.0).abs();
        let loss = (figure(&cpu.0, "loss") - figure(&gpu.0, "loss")).abs();
        let after = apart(&cpu.1, &gpu.1);
        println!(
            "{dtype:?}: gradient norm {relative:.2e}, loss {loss:.2e}, after the step {after:.2e}"
        );
        assert!(cpu.0.finite && gpu.0.finite);
        assert!(relative <= f64::from(tolerance) && loss <= f64::from(tolerance));
        // AdamW's first step moves each weight by lr whatever its gradient's size, so signs of tiny ones show.
        assert!(after <= 10.0 * tolerance, "{dtype:?}: {:?} {:?}", cpu.1, gpu.1);
    }
}

/// The step through NCCL, of a world of one, is the step without it.
#[test]
fn nccl_does_not_change_a_step() {
    if !there_are(1) {
        return;
    }
    let fixture = Fixture::new();
    let mut group = form(1, std::time::Duration::from_secs(60)).unwrap().remove(0);
    let run = |group: &mut dyn Collective| {
        step(&mut engine(&fixture, Dtype::F32, Device::Cuda(0)), &fixture, group).0
    };
    let (alone, through) = (run(&mut Solo), run(&mut group));
    // Equal to rounding: some of CUDA's backward kernels add in an order that changes from run to run.
    println!("gradients bit-equal: {}", alone.gradient == through.gradient);
    assert!((alone.grad_norm / through.grad_norm - 1.0).abs() < 1e-4);
}

/// A digest that depended on the device would send every worker that comes from a CPU back to a checkpoint.
#[test]
fn a_checkpoint_of_a_gpu_is_the_same_everywhere() {
    if !there_are(1) {
        return;
    }
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let fixture = Fixture::new();
        let mut first = engine(&fixture, dtype, Device::Cuda(0));
        let (_, held) = step(&mut first, &fixture, &mut Solo);
        let dir = fixture.dir.path().join("checkpoint");
        let work = CheckpointWork {
            generation: Generation(1),
            step: Step(1),
            policy: PolicyVersion(1),
            dir: dir.clone(),
        };
        first.save(&work).unwrap();
        for on in [Device::Cuda(0), Device::Cpu] {
            let mut setup = fixture.setup();
            setup.dtype = dtype;
            let mut restored = Engine::new(&setup, on).unwrap();
            let source = RestoreSource::Checkpoint { dir: dir.clone() };
            let holding = restored.restore(&source, PolicyVersion(1), &mut Solo).unwrap();
            assert_eq!(holding, held, "{dtype:?} on {on:?}");
        }
    }
}
