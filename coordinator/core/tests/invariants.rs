//! INV-1 to INV-6 on random schedules: whatever is lost, doubled, delayed or restarted, no invariant
//! breaks, and once faults stop the run is done. A failing schedule is printed and kept by proptest.

use medevo_core::{Input, Outcome, RunSpec};
use medevo_sim::{Sim, Trouble, spec};
use medevo_types::WorkerId;
use proptest::{prelude::*, test_runner::FileFailurePersistence};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happening {
    Act(usize),
    Round(u8),
    Drive(bool),
    Kill(usize, bool),
    Join(usize),
    Trouble(usize, u8),
    ForgetReport(usize),
    RepeatReport(usize),
    Pass(u64),
    Silence(u64),
    RestartCoordinator,
    CrashAfter(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let worker = 0_usize..4;
    prop_oneof![
        20 => worker.clone().prop_map(Act),
        12 => (1_u8..12).prop_map(Round),
        6 => prop::bool::weighted(0.9).prop_map(Drive),
        3 => (worker.clone(), any::<bool>()).prop_map(|(w, seen)| Kill(w, seen)),
        6 => worker.clone().prop_map(Join),
        2 => (worker.clone(), 0_u8..4).prop_map(|(w, t)| Trouble(w, t)),
        2 => worker.clone().prop_map(ForgetReport),
        4 => (0_usize..1000).prop_map(RepeatReport),
        5 => (1_u64..900).prop_map(Pass),
        1 => (1_u64..5000).prop_map(Silence),
        1 => Just(RestartCoordinator),
        1 => worker.prop_map(CrashAfter),
    ]
}

fn name(worker: usize) -> WorkerId {
    WorkerId(format!("w{worker}"))
}

/// Troubles that a run only survives a few times; more of them may end it, rightly.
struct Budget {
    troubles: u32,
    bad_drives: u32,
}

fn happen(sim: &mut Sim, budget: &mut Budget, happening: &Happening) {
    match happening {
        Happening::Act(w) => {
            sim.act(&name(*w));
        }
        Happening::Round(times) => {
            for _ in 0..*times {
                for w in 0..4 {
                    sim.act(&name(w));
                }
                sim.drive(true);
            }
        }
        Happening::Drive(well) => {
            let well = *well || budget.bad_drives == 0;
            budget.bad_drives -= u32::from(!well);
            sim.drive(well);
        }
        Happening::Kill(w, seen) => sim.kill(&name(*w), *seen),
        Happening::Join(w) => {
            if !sim.workers.get(&name(*w)).is_some_and(|worker| worker.alive) {
                sim.join(&name(*w).0);
            }
        }
        Happening::Trouble(w, kind) => {
            if let Some(worker) = sim.workers.get_mut(&name(*w)).filter(|_| budget.troubles > 0) {
                budget.troubles -= 1;
                worker.trouble = Some(match kind {
                    0 => Trouble::Collective,
                    1 => Trouble::Retryable,
                    2 => Trouble::OtherGradient,
                    _ => Trouble::NonFinite,
                });
            }
        }
        Happening::ForgetReport(w) => {
            if let Some(worker) = sim.workers.get_mut(&name(*w)) {
                worker.unsent = None;
            }
        }
        Happening::RepeatReport(i) => {
            if !sim.history.is_empty() {
                let envelope = sim.history[i % sim.history.len()].clone();
                let _ = sim.send(envelope);
            }
        }
        Happening::Pass(millis) => sim.pass(*millis),
        Happening::Silence(millis) => {
            sim.now += millis;
            sim.feed(Input::Tick);
        }
        Happening::RestartCoordinator => sim.restart_coordinator(),
        // The records of the last input are on disk, its effects and its reply are lost.
        Happening::CrashAfter(w) => {
            let effects = sim.effects.len();
            sim.act(&name(*w));
            sim.effects.truncate(effects);
            // A run whose end is on record is not started again.
            if sim.core.finished().is_none() {
                sim.restart_coordinator();
            }
        }
    }
}

/// What a schedule runs under: workers at least, steps a rollout, extra rounds a rollout, sharded moments.
type Settings = (usize, u64, u64, bool);

fn settings() -> impl Strategy<Value = Settings> {
    (1_usize..3, 1_u64..4, 0_u64..3, any::<bool>())
}

fn schedule(settings: Settings, happenings: &[Happening]) -> Sim {
    let (min_workers, iterations, rounds, sharded) = settings;
    let spec = spec::reusing(spec::whole(), iterations, rounds);
    let mut sim = Sim::new(RunSpec { min_workers, sharded, ..spec });
    sim.scorer.quiet_every = 3;
    sim.scorer.dull_every = 2;
    let mut budget = Budget { troubles: 2, bad_drives: 2 };
    for happening in happenings {
        happen(&mut sim, &mut budget, happening);
        if sim.core.finished().is_some() {
            break;
        }
    }
    sim
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        max_shrink_iters: 4000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn inv_1_to_6_hold_on_any_schedule_and_the_run_ends_well(
        settings in settings(), happenings in prop::collection::vec(happening(), 1..160),
    ) {
        let mut sim = schedule(settings, &happenings);
        for w in 0..3 {
            if !sim.workers.get(&name(w)).is_some_and(|worker| worker.alive) {
                sim.join(&name(w).0);
            }
            sim.workers.get_mut(&name(w)).expect("joined").trouble = None;
        }
        prop_assert_eq!(sim.finish(), Outcome::Done);
        sim.checker.complete(6);
    }

    // INV-6: with every worker dead and every driver task stuck, each wait ends.
    #[test]
    fn inv_6_silence_ends_every_phase(
        settings in settings(), happenings in prop::collection::vec(happening(), 1..80),
    ) {
        let mut sim = schedule(settings, &happenings);
        for _ in 0..2000 {
            sim.now += 500;
            sim.feed(Input::Tick);
        }
        prop_assert!(sim.core.finished().is_some(), "{}", sim.core.explain(sim.now));
    }

    // INV-6: workers that live but never do anything must not hold a run for ever.
    #[test]
    fn inv_6_living_workers_that_do_nothing_are_given_up(
        settings in settings(), happenings in prop::collection::vec(happening(), 1..80),
    ) {
        let mut sim = schedule(settings, &happenings);
        for _ in 0..4000 {
            sim.pass(300);
        }
        prop_assert!(sim.core.finished().is_some(), "{}", sim.core.explain(sim.now));
    }
}
