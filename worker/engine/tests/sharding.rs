//! `train.shard = "optimizer"`: the same run as unsharded, restored at any number of ranks, and never trained on with
//! moments that are gone.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

mod common;

use std::{path::Path, sync::Arc, thread, time::Duration};

use common::{Fixture, apply_work, figure, groups, grpo, update_work};
use medevo_collective::{Collective, Gloo, InProcess, MemoryStore, Rendezvous, Solo};
use medevo_engine::{Engine, EngineError};
use medevo_model::Qwen25Vl;
use medevo_types::{
    Generation, PolicyVersion, Step,
    messages::{CheckpointWork, EngineSetup, Holding, RestoreSource, UpdateWork},
    settings::{Dtype, Objective, Shard},
};
use tch::{Device, Kind};

type Ranks = Vec<(Engine, Box<dyn Collective>)>;

fn setup(fixture: &Fixture, shard: Shard, dtype: Dtype) -> EngineSetup {
    let mut setup = fixture.setup();
    (setup.train.shard, setup.dtype) = (shard, dtype);
    setup
}

fn in_process(world: usize) -> Vec<Box<dyn Collective>> {
    InProcess::group(world).into_iter().map(|c| Box::new(c) as Box<dyn Collective>).collect()
}

fn gloo(world: usize) -> Vec<Box<dyn Collective>> {
    let store: Arc<dyn Rendezvous> = Arc::new(MemoryStore::new());
    let form = |rank| {
        let store = Arc::clone(&store);
        let wait = Duration::from_secs(20);
        thread::spawn(move || Gloo::form(store, "g", rank, world, "127.0.0.1", wait).unwrap())
    };
    let forming: Vec<_> = (0..world).map(form).collect();
    forming.into_iter().map(|t| Box::new(t.join().unwrap()) as Box<dyn Collective>).collect()
}

/// Does the same on every rank at once.
fn each<T: Send>(
    ranks: &mut Ranks,
    body: impl Fn(&mut Engine, &mut dyn Collective) -> T + Sync,
) -> Vec<T> {
    let body = &body;
    thread::scope(|scope| {
        let running: Vec<_> = ranks
            .iter_mut()
            .map(|rank| scope.spawn(move || body(&mut rank.0, rank.1.as_mut())))
            .collect();
        running.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// Engines with the starting model in place.
fn start(setup: &EngineSetup, group: Vec<Box<dyn Collective>>) -> Ranks {
    let fresh = |collective| (Engine::new(setup, Device::Cpu).unwrap(), collective);
    let mut ranks: Ranks = group.into_iter().map(fresh).collect();
    let source = RestoreSource::Model { dir: setup.model.clone() };
    each(&mut ranks, |engine, c| engine.restore(&source, PolicyVersion(0), c).unwrap());
    ranks
}

/// Every rank's share: the groups in turn.
fn share(fixture: &Fixture, policy: u64, c: &dyn Collective) -> UpdateWork {
    let (rank, world) = (c.rank(), c.world());
    let all = groups(fixture.prompts()).into_iter().enumerate();
    let mine = all.filter(|(number, _)| number % world == rank).map(|(_, group)| group).collect();
    let reference = fixture.dir.path().join("reference");
    update_work(policy, grpo(mine, Objective::default(), reference))
}

/// One step on every rank: loss, norm, and what is held afterwards, which all ranks agree on.
fn step(ranks: &mut Ranks, fixture: &Fixture, policy: u64) -> (f64, f64, Holding) {
    let mut done = each(ranks, |engine, c| {
        let ballot = engine.update(&share(fixture, policy, c), c).unwrap();
        assert!(ballot.finite);
        let held = engine.apply(&apply_work(policy), c).unwrap();
        (ballot, held)
    });
    let first = done.remove(0);
    for other in done {
        assert_eq!(first, other, "INV-2: every rank votes for the same gradient");
    }
    (figure(&first.0, "loss"), first.0.grad_norm, first.1)
}

fn save(ranks: &mut Ranks, shard: Shard, policy: u64, dir: &Path) -> Vec<String> {
    let work = CheckpointWork {
        generation: Generation(1),
        step: Step(policy),
        policy: PolicyVersion(policy),
        dir: dir.to_owned(),
    };
    // Without sharding the first rank writes all there is.
    let files = each(ranks, |engine, c| {
        let writes = c.rank() == 0 || shard == Shard::Optimizer;
        if writes { engine.save(&work).unwrap() } else { Vec::new() }
    });
    files.into_iter().flatten().map(|file| file.name).collect()
}

fn weights(dir: &Path) -> Vec<f32> {
    let model = Qwen25Vl::load(dir, Kind::Float, Device::Cpu).unwrap();
    let flat = |tensor: &tch::Tensor| Vec::<f32>::try_from(tensor.detach().reshape([-1])).unwrap();
    model.parameters().iter().flat_map(|(_, tensor)| flat(tensor)).collect()
}

/// Broken, what users get would depend on how they spend memory.
#[test]
fn sharded_and_whole_make_the_same_steps() {
    let fixture = Fixture::new();
    for (world, dtype) in [(1, Dtype::F32), (2, Dtype::F32), (3, Dtype::F32), (3, Dtype::Bf16)] {
        let mut whole = start(&setup(&fixture, Shard::None, dtype), in_process(world));
        let mut parts = start(&setup(&fixture, Shard::Optimizer, dtype), in_process(world));
        for policy in 0..3 {
            let (loss, norm, held) = step(&mut whole, &fixture, policy);
            let (other_loss, other_norm, other_held) = step(&mut parts, &fixture, policy);
            assert_eq!(loss, other_loss);
            assert!((norm - other_norm).abs() <= 1e-12 * norm, "{norm} {other_norm}");
            assert_eq!(held, other_held, "to the bit, {world} ranks, {dtype:?}, step {policy}");
        }
    }
}

/// Gloo chooses its own order of adding up.
#[test]
fn over_gloo_the_weights_differ_by_rounding_at_most() {
    let fixture = Fixture::new();
    let mut saved = Vec::new();
    for shard in [Shard::None, Shard::Optimizer] {
        let mut ranks = start(&setup(&fixture, shard, Dtype::F32), gloo(3));
        for policy in 0..3 {
            step(&mut ranks, &fixture, policy);
        }
        let dir = fixture.dir.path().join(format!("{shard:?}"));
        let files = save(&mut ranks, shard, 3, &dir);
        let parts = files.iter().filter(|name| name.starts_with("optimizer-")).count();
        assert_eq!(parts, if shard == Shard::Optimizer { 3 } else { 0 }, "{files:?}");
        saved.push(weights(&dir));
    }
    let apart = saved[0].iter().zip(&saved[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart <= 1e-6, "weights are {apart} apart");
}

/// Broken, a run could only be resumed on as many workers as it was stopped on.
#[test]
fn a_checkpoint_is_restored_at_any_number_of_ranks() {
    let fixture = Fixture::new();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for (from, shard) in [(3, Shard::Optimizer), (2, Shard::Optimizer), (1, Shard::None)] {
            let mut ranks = start(&setup(&fixture, shard, dtype), in_process(from));
            step(&mut ranks, &fixture, 0);
            let (_, _, held) = step(&mut ranks, &fixture, 1);
            let dir = fixture.dir.path().join(format!("{dtype:?}-{from}"));
            save(&mut ranks, shard, 2, &dir);
            let (_, _, next) = step(&mut ranks, &fixture, 2);
            for (to, shard) in [(1, Shard::None), (2, Shard::Optimizer), (3, Shard::Optimizer)] {
                let mut ranks = start(&setup(&fixture, shard, dtype), in_process(to));
                let source = RestoreSource::Checkpoint { dir: dir.clone() };
                for holding in
                    each(&mut ranks, |e, c| e.restore(&source, PolicyVersion(2), c).unwrap())
                {
                    assert_eq!(holding, held, "from {from} to {to}");
                }
                let (_, _, goes_on) = step(&mut ranks, &fixture, 2);
                assert!(to != from || goes_on == next, "from {from} to {to} goes on otherwise");
            }
        }
    }
}

/// Without a rank's moments the step after it would be another one than without sharding.
#[test]
fn a_lost_part_voids_the_others() {
    let fixture = Fixture::new();
    let mut ranks = start(&setup(&fixture, Shard::Optimizer, Dtype::F32), in_process(3));
    let regroup = |ranks: Ranks| -> Ranks {
        let group = in_process(ranks.len());
        ranks.into_iter().zip(group).map(|((engine, _), c)| (engine, c)).collect()
    };
    // Nothing is lost with a rank that has made no step.
    ranks.remove(1);
    ranks = regroup(ranks);
    let held = each(&mut ranks, |engine, c| engine.assemble(c).unwrap());
    assert!(held.iter().all(Option::is_some));
    let (_, _, before) = step(&mut ranks, &fixture, 0);
    // The same ranks in a new roster, in another order: everything is still there.
    ranks.reverse();
    ranks = regroup(ranks);
    let held = each(&mut ranks, |engine, c| engine.assemble(c).unwrap());
    assert!(held.iter().all(|held| held.as_ref() == Some(&before)));
    step(&mut ranks, &fixture, 1);
    ranks.remove(0);
    ranks = vec![(ranks.remove(0).0, Box::new(Solo) as Box<dyn Collective>)];
    assert_eq!(each(&mut ranks, |engine, c| engine.assemble(c).unwrap()), [None]);
    let error = ranks[0].0.update(&share(&fixture, 2, &Solo), &mut Solo).unwrap_err();
    assert!(matches!(error, EngineError::Stale { .. }), "{error}");
}

/// Broken, a worker that joins a sharded run would send it back to its last checkpoint, or worse.
#[test]
fn a_rank_that_joins_gets_its_part() {
    let fixture = Fixture::new();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let setup = setup(&fixture, Shard::Optimizer, dtype);
        let mut ranks = start(&setup, in_process(2));
        let (_, _, held) = step(&mut ranks, &fixture, 0);
        let dir = fixture.dir.path().join(format!("{dtype:?}"));
        save(&mut ranks, Shard::Optimizer, 1, &dir);
        ranks.insert(1, (Engine::new(&setup, Device::Cpu).unwrap(), Box::new(Solo)));
        let mut ranks: Ranks =
            ranks.into_iter().zip(in_process(3)).map(|((engine, _), c)| (engine, c)).collect();
        let brought = each(&mut ranks, |engine, c| engine.assemble(c).unwrap());
        assert_eq!(brought, [Some(held.clone()), None, Some(held.clone())]);
        let source = RestoreSource::Peer { root: 0 };
        let after = each(&mut ranks, |e, c| e.restore(&source, PolicyVersion(1), c).unwrap());
        assert!(after.iter().all(|holding| *holding == held));
        // From then on it is the run that three ranks would have resumed.
        let mut resumed = start(&setup, in_process(3));
        let source = RestoreSource::Checkpoint { dir };
        each(&mut resumed, |e, c| e.restore(&source, PolicyVersion(1), c).unwrap());
        assert_eq!(step(&mut ranks, &fixture, 1), step(&mut resumed, &fixture, 1));
    }
}

/// A rank that cannot read its part must not leave the others waiting for their deadline.
#[test]
fn a_part_that_is_missing_is_said_at_once() {
    let fixture = Fixture::new();
    let setup = setup(&fixture, Shard::Optimizer, Dtype::F32);
    let mut ranks = start(&setup, in_process(2));
    step(&mut ranks, &fixture, 0);
    let dir = fixture.dir.path().join("saved");
    save(&mut ranks, Shard::Optimizer, 1, &dir);
    std::fs::remove_file(dir.join("optimizer-00002-of-00002.safetensors")).unwrap();
    let source = RestoreSource::Checkpoint { dir };
    let errors =
        each(&mut ranks, |e, c| e.restore(&source, PolicyVersion(1), c).unwrap_err().to_string());
    assert!(errors[0].contains("part of rank 1"), "{errors:?}");
    assert!(errors[1].contains("not whole"), "{errors:?}");
}

/// bfloat16 has 8 bits of mantissa: without f32 masters a step much smaller than a weight is lost, and so are a
/// thousand of them.
#[test]
fn masters_keep_what_bfloat16_cannot() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine_with(&setup(&fixture, Shard::None, Dtype::Bf16));
    let before = {
        let model = Qwen25Vl::load(&fixture.model(), Kind::BFloat16, Device::Cpu).unwrap();
        let flat = |t: &tch::Tensor| t.detach().to_kind(Kind::Float).reshape([-1]);
        let parts: Vec<_> = model.parameters().iter().map(|(_, t)| flat(t)).collect();
        Vec::<f32>::try_from(tch::Tensor::cat(&parts, 0)).unwrap()
    };
    let moved = |engine: &mut Engine, policy: u64| {
        let dir = fixture.dir.path().join(format!("after-{policy}"));
        let work = CheckpointWork {
            generation: Generation(1),
            step: Step(policy),
            policy: PolicyVersion(policy),
            dir: dir.clone(),
        };
        engine.save(&work).unwrap();
        let now = weights(&dir);
        let large = before.iter().zip(&now).filter(|(before, _)| before.abs() > 0.125);
        let (all, moved) = large.fold((0, 0), |(all, moved), (before, now)| {
            (all + 1, moved + usize::from(before != now))
        });
        moved as f64 / f64::from(all)
    };
    // A weight above 1/8 has a spacing of at least 2^-10; a step of Adam is about as large as its rate.
    for policy in 0..20 {
        let reference = fixture.dir.path().join("reference");
        let batch = grpo(groups(fixture.prompts()), Objective::default(), reference);
        engine.update(&update_work(policy, batch), &mut Solo).unwrap();
        let mut work = apply_work(policy);
        work.lr = 1e-4;
        engine.apply(&work, &mut Solo).unwrap();
        if policy == 0 {
            let share = moved(&mut engine, 1);
            assert!(share < 0.01, "one small step shows in bfloat16: {share}");
        }
    }
    let share = moved(&mut engine, 20);
    assert!(share > 0.2, "twenty small steps are lost: {share}");
}
