//! Weights and moments: applied only when asked for rightly, saved and restored to the bit.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

mod common;

use common::{Fixture, apply_work, groups, grpo, update_work};
use medevo_collective::{InProcess, Solo};
use medevo_engine::{Engine, EngineError, OPTIMIZER_FILE};
use medevo_types::{
    Attempt, Generation, PolicyVersion, Step,
    messages::{CheckpointWork, Holding, RestoreSource, UpdateWork},
    settings::{Dtype, Objective},
};

fn work(fixture: &Fixture, policy: u64) -> UpdateWork {
    let reference = fixture.dir.path().join("reference");
    update_work(policy, grpo(groups(fixture.prompts()), Objective::default(), reference))
}

fn step(engine: &mut Engine, fixture: &Fixture, policy: u64) -> Holding {
    engine.update(&work(fixture, policy), &mut Solo).unwrap();
    engine.apply(&apply_work(policy), &mut Solo).unwrap()
}

fn checkpoint(fixture: &Fixture, policy: u64) -> CheckpointWork {
    CheckpointWork {
        generation: Generation(1),
        step: Step(policy),
        policy: PolicyVersion(policy),
        dir: fixture.dir.path().join(format!("checkpoint-{policy}")),
    }
}

/// Broken, a resumed run would silently be another run.
#[test]
fn a_restored_run_goes_on_bit_for_bit() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine();
    step(&mut engine, &fixture, 0);
    let at_one = step(&mut engine, &fixture, 1);
    let save = checkpoint(&fixture, 2);
    let files = engine.save(&save).unwrap();
    for name in ["config.json", "tokenizer.json", OPTIMIZER_FILE] {
        assert!(files.iter().any(|file| file.name == name), "{name} is missing");
    }
    let goes_on = step(&mut engine, &fixture, 2);
    assert_ne!(at_one, goes_on);

    let mut restored = Engine::new(&fixture.setup(), tch::Device::Cpu).unwrap();
    let source = RestoreSource::Checkpoint { dir: save.dir.clone() };
    let holding = restored.restore(&source, PolicyVersion(2), &mut Solo).unwrap();
    assert_eq!(holding, at_one);
    assert_eq!(step(&mut restored, &fixture, 2), goes_on);
    // A directory with something in it is never written over.
    let again = CheckpointWork { policy: PolicyVersion(3), ..save };
    assert!(matches!(restored.save(&again), Err(EngineError::Refused { .. })));
    // A later checkpoint is whole, too, when this one has made room.
    std::fs::remove_dir_all(&again.dir).unwrap();
    let files = restored.save(&checkpoint(&fixture, 3)).unwrap();
    assert!(files.iter().any(|file| file.name == "config.json"), "{files:?}");
}

/// Broken, a worker that joins late would train other weights than its peers.
#[test]
fn a_peer_hands_over_weights_and_moments() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine();
    let held = step(&mut engine, &fixture, 0);
    let mut group = InProcess::group(2).into_iter();
    let (mut ours, mut theirs) = (group.next().unwrap(), group.next().unwrap());
    let setup = fixture.setup();
    let other = std::thread::spawn(move || {
        let mut fresh = Engine::new(&setup, tch::Device::Cpu).unwrap();
        let source = RestoreSource::Peer { root: 0 };
        let holding = fresh.restore(&source, PolicyVersion(1), &mut theirs).unwrap();
        (fresh, holding)
    });
    let source = RestoreSource::Peer { root: 0 };
    assert_eq!(engine.restore(&source, PolicyVersion(1), &mut ours).unwrap(), held);
    let (mut fresh, holding) = other.join().unwrap();
    assert_eq!(holding, held);
    assert_eq!(step(&mut fresh, &fixture, 1), step(&mut engine, &fixture, 1));
}

/// INV-2: broken, a late word from the coordinator would apply the wrong gradient.
#[test]
fn inv_2_only_the_gradient_asked_for_is_applied() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine();
    let before = engine.holding().unwrap();
    assert!(matches!(engine.apply(&apply_work(0), &mut Solo), Err(EngineError::Stale { .. })));
    engine.update(&work(&fixture, 0), &mut Solo).unwrap();
    let right = apply_work(0);
    let mut wrong = vec![right.clone(), right.clone(), right.clone(), right.clone()];
    wrong[0].attempt = Attempt(2);
    wrong[1].step = Step(2);
    wrong[2].generation = Generation(2);
    wrong[3].policy = PolicyVersion(2);
    for apply in &wrong {
        assert!(matches!(engine.apply(apply, &mut Solo), Err(EngineError::Stale { .. })));
        assert_eq!(engine.holding().unwrap(), before);
    }
    engine.apply(&right, &mut Solo).unwrap();
    assert!(engine.apply(&right, &mut Solo).is_err(), "a gradient is applied once");

    engine.update(&work(&fixture, 1), &mut Solo).unwrap();
    engine.discard();
    assert!(engine.apply(&apply_work(1), &mut Solo).is_err(), "a void gradient is not applied");
}

/// Broken, one overflow would end in weights that are no numbers.
#[test]
fn a_gradient_that_is_not_finite_is_void() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine();
    let before = engine.holding().unwrap();
    let mut work = work(&fixture, 0);
    if let medevo_types::messages::Batch::Grpo { groups, .. } = &mut work.batch {
        std::sync::Arc::make_mut(&mut groups[0].answers)[0].advantage = f64::INFINITY;
    }
    let ballot = engine.update(&work, &mut Solo).unwrap();
    assert!(!ballot.finite);
    assert!(engine.apply(&apply_work(0), &mut Solo).is_err());
    assert_eq!(engine.holding().unwrap(), before);
    // The next attempt starts clean.
    assert!(engine.update(&self::work(&fixture, 0), &mut Solo).unwrap().finite);
}

/// Broken, a frozen tower would move, or bfloat16 weights would lose what is too small for them to hold.
#[test]
fn frozen_towers_and_half_precision_restore_to_the_bit() {
    let fixture = Fixture::new();
    for (dtype, freeze_vision) in [(Dtype::F32, true), (Dtype::Bf16, false), (Dtype::Bf16, true)] {
        let mut setup = fixture.setup();
        (setup.dtype, setup.freeze_vision) = (dtype, freeze_vision);
        let mut engine = fixture.engine_with(&setup);
        let numbers = engine.update(&work(&fixture, 0), &mut Solo).map(|ballot| {
            assert!(ballot.finite);
            engine.gradient().unwrap().numel()
        });
        let model =
            medevo_model::Qwen25Vl::load(&fixture.model(), tch::Kind::Float, tch::Device::Cpu)
                .unwrap();
        let trained = model
            .parameters()
            .iter()
            .filter(|(name, _)| !(freeze_vision && medevo_model::Qwen25Vl::is_vision(name)));
        let trained: usize = trained.map(|(_, tensor)| tensor.numel()).sum();
        assert_eq!(numbers.unwrap(), trained);
        let held = engine.apply(&apply_work(0), &mut Solo).unwrap();
        let mut save = checkpoint(&fixture, 1);
        save.dir = fixture.dir.path().join(format!("{dtype:?}-{freeze_vision}"));
        engine.save(&save).unwrap();
        let source = RestoreSource::Checkpoint { dir: save.dir };
        let mut restored = Engine::new(&setup, tch::Device::Cpu).unwrap();
        assert_eq!(restored.restore(&source, PolicyVersion(1), &mut Solo).unwrap(), held);
        assert_eq!(step(&mut restored, &fixture, 1), step(&mut engine, &fixture, 1));
    }
}
