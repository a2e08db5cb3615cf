//! Training adapters: what moves, what it is measured against, what is saved.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

mod common;

use std::path::{Path, PathBuf};

use common::{Fixture, apply_work, distance, figure, groups, grpo, update_work};
use medevo_collective::{InProcess, Solo};
use medevo_engine::{Engine, EngineError, OPTIMIZER_FILE};
use medevo_model::{Adapter, Qwen25Vl};
use medevo_types::{
    Generation, PolicyVersion, Step,
    messages::{
        Batch, CheckpointWork, EngineSetup, Holding, RestoreSource, SftExample, UpdateWork,
    },
    settings::{Dtype, LoraSettings, Objective},
};
use tch::{Device, Kind};

fn setup(fixture: &Fixture) -> EngineSetup {
    let lora = LoraSettings { rank: 4, alpha: 8.0, ..LoraSettings::default() };
    EngineSetup { lora: Some(lora), ..fixture.setup() }
}

/// A policy update that names no reference weights.
fn work(fixture: &Fixture, policy: u64) -> UpdateWork {
    let mut batch = grpo(groups(fixture.prompts()), Objective::default(), PathBuf::new());
    if let Batch::Grpo { reference, .. } = &mut batch {
        *reference = None;
    }
    update_work(policy, batch)
}

fn supervised(fixture: &Fixture, policy: u64) -> UpdateWork {
    let answers = ["yes", "it is the liver", "ct", "no", "a cyst"];
    let examples = fixture.prompts().into_iter().zip(answers);
    let examples = examples.map(|(prompt, answer)| SftExample { prompt, answer: answer.into() });
    update_work(policy, Batch::Sft { examples: examples.collect() })
}

fn step(engine: &mut Engine, fixture: &Fixture, policy: u64) -> Holding {
    engine.update(&work(fixture, policy), &mut Solo).unwrap();
    engine.apply(&apply_work(policy), &mut Solo).unwrap()
}

fn save(engine: &mut Engine, fixture: &Fixture, policy: u64, name: &str) -> PathBuf {
    let work = CheckpointWork {
        generation: Generation(1),
        step: Step(policy),
        policy: PolicyVersion(policy),
        dir: fixture.dir.path().join(name),
    };
    let mut files: Vec<_> = engine.save(&work).unwrap().into_iter().map(|file| file.name).collect();
    files.sort();
    assert_eq!(files, ["adapter_config.json", "adapter_model.safetensors", OPTIMIZER_FILE]);
    work.dir
}

fn restore(setup: &EngineSetup, dir: &Path, policy: u64) -> Result<(Engine, Holding), EngineError> {
    let mut engine = Engine::new(setup, Device::Cpu)?;
    let source = RestoreSource::Checkpoint { dir: dir.to_path_buf() };
    let holding = engine.restore(&source, PolicyVersion(policy), &mut Solo)?;
    Ok((engine, holding))
}

/// Broken, memory and traffic would be those of the whole model.
#[test]
fn gradient_and_moments_are_of_the_adapters_size() {
    let fixture = Fixture::new();
    let model = Qwen25Vl::load(&fixture.model(), Kind::Float, Device::Cpu).unwrap();
    let whole: usize = model.parameters().iter().map(|(_, tensor)| tensor.numel()).sum();
    for freeze_vision in [false, true] {
        let setup = EngineSetup { freeze_vision, ..setup(&fixture) };
        let mut engine = fixture.engine_with(&setup);
        engine.update(&work(&fixture, 0), &mut Solo).unwrap();
        let lora = setup.lora.clone().unwrap();
        let adapter = Adapter::draw(&model.config, &lora, freeze_vision, 0, Device::Cpu).unwrap();
        let adapted = model.with_adapter(adapter);
        let trained: usize = adapted.parameters().iter().map(|(_, tensor)| tensor.numel()).sum();
        assert_eq!(engine.gradient().unwrap().numel(), trained);
        assert!(trained * 4 < whole, "{trained} of {whole}");
    }
}

/// Broken, the adapter would follow another gradient than that of the weights it stands for: with B = 0 the
/// chain rule gives dB = scale · (dW) Aᵀ, where dW is the whole model's gradient.
#[test]
fn the_gradient_is_that_of_the_whole_weights_through_the_adapter() {
    let fixture = Fixture::new();
    let setup = setup(&fixture);
    let lora = setup.lora.clone().unwrap();
    let mut engine = fixture.engine_with(&setup);
    engine.update(&work(&fixture, 0), &mut Solo).unwrap();
    let mut whole = fixture.engine();
    let mut same = work(&fixture, 0);
    if let Batch::Grpo { reference, .. } = &mut same.batch {
        *reference = Some(fixture.model());
    }
    whole.update(&same, &mut Solo).unwrap();

    let model = Qwen25Vl::load(&fixture.model(), Kind::Float, Device::Cpu).unwrap();
    let part = |gradient: &tch::Tensor, parameters: &[(String, tch::Tensor)], wanted: &str| {
        let mut offset = 0;
        for (name, tensor) in parameters {
            let length = tensor.numel() as i64;
            if name == wanted {
                return gradient.narrow(0, offset, length).view_as(tensor);
            }
            offset += length;
        }
        panic!("no {wanted}");
    };
    let adapter = Adapter::draw(&model.config, &lora, false, setup.seed, Device::Cpu).unwrap();
    let adapted = model.with_adapter(adapter);
    let base = model.parameters();
    for (name, a) in adapted.parameters().iter().filter(|(name, _)| name.ends_with("A.weight")) {
        let layer = name.strip_suffix(".lora_A.weight").unwrap();
        let gradient =
            |parameters, name: String| part(engine.gradient().unwrap(), parameters, &name);
        let got = gradient(adapted.parameters(), format!("{layer}.lora_B.weight"));
        let of_weight = part(whole.gradient().unwrap(), base, &format!("{layer}.weight"));
        let expected = of_weight.matmul(&a.transpose(0, 1)) * 2.0;
        assert!(distance(&got, &expected) < 1e-4, "{layer}: {}", distance(&got, &expected));
        let none = gradient(adapted.parameters(), name.clone());
        assert_eq!(none.abs().max().double_value(&[]), 0.0, "{layer}: A learns once B is not 0");
    }
}

/// Broken, the KL term would be measured against something that moves, or against a second copy of the model.
#[test]
fn the_reference_is_the_base_without_the_adapter() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine_with(&setup(&fixture));
    let ballot = engine.update(&work(&fixture, 0), &mut Solo).unwrap();
    assert_eq!(figure(&ballot, "kl"), 0.0, "a fresh adapter is the base");
    let mut apply = apply_work(0);
    apply.lr = 1e-2;
    engine.apply(&apply, &mut Solo).unwrap();
    let ballot = engine.update(&work(&fixture, 1), &mut Solo).unwrap();
    let moved = figure(&ballot, "kl");
    assert!(moved > 0.0, "{moved}");

    // The merged weights as the policy, the base's files as the reference: the same KL.
    let dir = save(&mut engine, &fixture, 1, "adapter");
    let model = Qwen25Vl::load(&fixture.model(), Kind::Float, Device::Cpu).unwrap();
    let adapter = Adapter::read(&dir, &model.config, Device::Cpu).unwrap();
    let merged = fixture.dir.path().join("merged");
    model.with_adapter(adapter).merge().save(&merged).unwrap();
    let mut whole = Engine::new(&fixture.setup(), Device::Cpu).unwrap();
    whole.restore(&RestoreSource::Model { dir: merged }, PolicyVersion(1), &mut Solo).unwrap();
    let mut same = work(&fixture, 1);
    if let Batch::Grpo { reference, .. } = &mut same.batch {
        *reference = Some(fixture.model());
    }
    let expected = figure(&whole.update(&same, &mut Solo).unwrap(), "kl");
    assert!((moved - expected).abs() < 1e-3 * expected, "{moved} and {expected}");
}

/// Broken, a resumed run would silently be another run.
#[test]
fn a_restored_adapter_goes_on_bit_for_bit() {
    let fixture = Fixture::new();
    for (dtype, freeze_vision) in [(Dtype::F32, false), (Dtype::Bf16, true)] {
        let setup = EngineSetup { dtype, freeze_vision, ..setup(&fixture) };
        let mut engine = fixture.engine_with(&setup);
        step(&mut engine, &fixture, 0);
        let held = step(&mut engine, &fixture, 1);
        let dir = save(&mut engine, &fixture, 2, &format!("{dtype:?}"));
        let goes_on = step(&mut engine, &fixture, 2);
        let (mut restored, holding) = restore(&setup, &dir, 2).unwrap();
        assert_eq!(holding, held);
        assert_eq!(step(&mut restored, &fixture, 2), goes_on);
        // Going back within the same engine is the same as coming anew.
        let source = RestoreSource::Checkpoint { dir };
        assert_eq!(restored.restore(&source, PolicyVersion(2), &mut Solo).unwrap(), held);
        assert_eq!(step(&mut restored, &fixture, 2), goes_on);
    }
}

/// Broken, a late worker would train another adapter, or the same one beside another base.
#[test]
fn a_peer_hands_the_adapter_over() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine_with(&setup(&fixture));
    let held = step(&mut engine, &fixture, 0);
    for (model, fits) in [("model", true), ("reference", false)] {
        let mut group = InProcess::group(2).into_iter();
        let (mut ours, mut theirs) = (group.next().unwrap(), group.next().unwrap());
        let setup = EngineSetup { model: fixture.dir.path().join(model), ..setup(&fixture) };
        let other = std::thread::spawn(move || {
            let mut fresh = Engine::new(&setup, Device::Cpu).unwrap();
            let source = RestoreSource::Peer { root: 0 };
            fresh
                .restore(&source, PolicyVersion(1), &mut theirs)
                .map(|holding| (fresh, holding))
                .map_err(|error| error.to_string())
        });
        let source = RestoreSource::Peer { root: 0 };
        let root = engine.restore(&source, PolicyVersion(1), &mut ours);
        let outcome = other.join().unwrap();
        if fits {
            assert_eq!(root.unwrap(), held);
            let (mut fresh, holding) = outcome.unwrap();
            assert_eq!(holding, held);
            let mut same = fixture.engine_with(&self::setup(&fixture));
            step(&mut same, &fixture, 0);
            assert_eq!(step(&mut fresh, &fixture, 1), step(&mut same, &fixture, 1));
        } else {
            let Err(said) = outcome else { panic!("another base is taken for this one") };
            assert!(said.contains("another base model"), "{said}");
        }
    }
}

#[test]
fn a_supervised_run_learns() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine_with(&setup(&fixture));
    let mut losses = Vec::new();
    for policy in 0..12 {
        let ballot = engine.update(&supervised(&fixture, policy), &mut Solo).unwrap();
        losses.push(figure(&ballot, "loss"));
        let mut apply = apply_work(policy);
        apply.lr = 2e-2;
        engine.apply(&apply, &mut Solo).unwrap();
    }
    assert!(losses[11] < 0.7 * losses[0], "{losses:?}");
}

/// Adapters in the vision tower alone: rows without images have nothing to learn, and say so in peace.
#[test]
fn the_vision_tower_can_be_adapted_alone() {
    let fixture = Fixture::new();
    let targets = vec!["qkv".to_owned(), "attn.proj".to_owned()];
    let lora = LoraSettings { targets, ..LoraSettings::default() };
    let setup = EngineSetup { lora: Some(lora), tokens_per_batch: 200, ..setup(&fixture) };
    let mut engine = fixture.engine_with(&setup);
    for policy in 0..2 {
        let ballot = engine.update(&supervised(&fixture, policy), &mut Solo).unwrap();
        assert!(ballot.finite && ballot.grad_norm > 0.0);
        engine.apply(&apply_work(policy), &mut Solo).unwrap();
    }
}

/// What `generate`, `logprobs` and an evaluation do with a checkpoint of a run with adapters.
#[test]
fn an_adapters_directory_stands_for_the_adapted_model() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine_with(&setup(&fixture));
    let mut apply = apply_work(0);
    apply.lr = 2e-2;
    engine.update(&work(&fixture, 0), &mut Solo).unwrap();
    engine.apply(&apply, &mut Solo).unwrap();
    let dir = save(&mut engine, &fixture, 1, "adapter");
    let image = fixture.dir.path().join("0.bmp");
    let score = |model: &Path, weights: &Path| {
        let setup = EngineSetup { model: model.to_path_buf(), ..fixture.setup() };
        let mut engine = Engine::new(&setup, Device::Cpu).unwrap();
        engine.load_model(weights).unwrap();
        engine.logprobs(Some(&image), "where is the lesion ?", "left lung").unwrap().2
    };
    let merged = fixture.dir.path().join("merged");
    let model = Qwen25Vl::load(&fixture.model(), Kind::Float, Device::Cpu).unwrap();
    let adapter = Adapter::read(&dir, &model.config, Device::Cpu).unwrap();
    model.with_adapter(adapter).merge().save(&merged).unwrap();
    let (alone, beside) = (score(&dir, &dir), score(&fixture.model(), &dir));
    assert_eq!(alone, beside);
    assert_ne!(alone, score(&fixture.model(), &fixture.model()));
    for (a, b) in alone.iter().zip(score(&merged, &merged)) {
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
    // A run may also start from it.
    let mut setup = setup(&fixture);
    setup.model = dir.clone();
    let mut onward = Engine::new(&setup, Device::Cpu).unwrap();
    onward.restore(&RestoreSource::Model { dir }, PolicyVersion(0), &mut Solo).unwrap();
    let ballot = onward.update(&work(&fixture, 0), &mut Solo).unwrap();
    assert!(figure(&ballot, "kl") > 0.0, "the reference is the base, not the start");
}

#[test]
fn what_does_not_fit_the_run_is_refused() {
    let fixture = Fixture::new();
    let mut wrong = setup(&fixture);
    wrong.lora.as_mut().unwrap().targets = vec!["q_prj".into()];
    let Err(error) = Engine::new(&wrong, Device::Cpu) else { panic!("no such layer") };
    assert!(format!("{error:#}").contains("nearest are q_proj"), "{error:#}");

    let mut engine = fixture.engine_with(&setup(&fixture));
    step(&mut engine, &fixture, 0);
    let dir = save(&mut engine, &fixture, 1, "adapter");
    let mut wider = setup(&fixture);
    wider.lora.as_mut().unwrap().rank = 8;
    let Err(error) = restore(&wider, &dir, 1) else { panic!("another rank") };
    assert!(!error.retryable() && error.to_string().contains("rank 4"), "{error}");
    let Err(error) = restore(&setup(&fixture), &fixture.model(), 1) else { panic!("no adapter") };
    assert!(!error.retryable() && error.to_string().contains("no adapter"), "{error}");
}
