//! The agent against a scripted coordinator over real RPC, with an engine that only remembers: what a
//! run relies on whatever the numbers are.
#![allow(clippy::unwrap_used)]

mod scripted;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use medevo_rpc::{Door, serve};
use medevo_types::{
    Generation, PolicyVersion, Step, UnitId, messages::*, settings::OptimizerSettings,
};
use medevo_worker::{
    agent::{AgentError, run},
    token::Token,
};
use tokio::net::TcpListener;

use scripted::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_directive_is_reported_with_its_counters() {
    let (coordinator, address) =
        start(vec![form(3, 0, 1), restore(3), rollout(1), update(3)]).await;
    let reason = run(plan(&address, "w0"), build(&coordinator).0).await.unwrap().reason;
    assert_eq!(reason, "script is over");
    let seen: Vec<_> =
        reports(&coordinator).iter().map(|e| (e.generation.0, e.step.0, e.attempt.0)).collect();
    assert_eq!(seen, [(3, 0, 0), (3, 0, 0), (3, 5, 0), (3, 5, 2)]);
    let bodies: Vec<Report> = reports(&coordinator).into_iter().map(|e| e.body).collect();
    assert_eq!(bodies[0], Report::Formed { holding: None });
    assert_eq!(bodies[1], Report::Restored { holding: held(PolicyVersion(4)) });
    assert!(matches!(&bodies[2], Report::RolloutDone { unit: UnitId(1), .. }));
    assert!(matches!(&bodies[3], Report::Ballot(b) if b.grad_norm == 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_worker_joins_in_a_later_life_and_keeps_its_weights() {
    let orders = vec![form(3, 0, 1), restore(3), Err(Rejection::UnknownWorker), form(4, 0, 1)];
    let (coordinator, address) = start(orders).await;
    let (build, made) = build(&coordinator);
    run(plan(&address, "w0"), build).await.unwrap();
    let lives = coordinator.script.lock().unwrap().lives.clone();
    assert!(lives.len() == 2 && lives[0] < lives[1], "{lives:?}");
    let last = reports(&coordinator).pop().unwrap();
    assert_eq!(last.body, Report::Formed { holding: Some(held(PolicyVersion(4))) });
    assert_eq!(last.from.incarnation, lives[1]);
    assert_eq!(made.load(SeqCst), 1);
}

/// Without the farewell everyone would wait for the lease of a worker that was asked to leave.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_to_leave_says_so_and_takes_no_more_orders() {
    let (coordinator, address) = start(vec![rollout(1)]).await;
    let mut plan = plan(&address, "w0");
    plan.leaving = tokio::sync::watch::Sender::new(true).subscribe();
    let reason = run(plan, build(&coordinator).0).await.unwrap().reason;
    assert_eq!(reason, "it was asked to leave");
    let bodies: Vec<Report> = reports(&coordinator).into_iter().map(|e| e.body).collect();
    assert_eq!(bodies, [Report::Leaving]);
    assert_eq!(coordinator.script.lock().unwrap().orders.len(), 1);
}

/// One that left between its vote and the others' would make the whole step void.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_voted_stays_for_the_step() {
    let wait = || Ok(Directive::Wait { reason: "waiting on w1 (ballot)".to_owned() });
    let apply = Ok(Directive::Apply(ApplyWork {
        generation: Generation(3),
        step: Step(5),
        attempt: medevo_types::Attempt(2),
        policy: PolicyVersion(5),
        optimizer: OptimizerSettings::default(),
        lr: 1e-3,
        reset_moments: false,
    }));
    let orders = vec![form(3, 0, 1), restore(3), update(3), wait(), wait(), apply, rollout(1)];
    let (coordinator, address) = start(orders).await;
    let mut plan = plan(&address, "w0");
    let leave = tokio::sync::watch::Sender::new(false);
    plan.leaving = leave.subscribe();
    coordinator.script.lock().unwrap().leave = Some(leave);
    let departure = run(plan, build(&coordinator).0).await.unwrap();
    assert_eq!(departure.reason, "it was asked to leave");
    let bodies: Vec<Report> = reports(&coordinator).into_iter().map(|e| e.body).collect();
    let [.., Report::Ballot(_), Report::Applied { .. }, Report::Leaving] = &bodies[..] else {
        panic!("{bodies:?}")
    };
    assert_eq!(coordinator.script.lock().unwrap().orders.len(), 1, "no rollout");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_report_is_not_the_end() {
    let (coordinator, address) = start(vec![form(3, 0, 1), form(4, 0, 1)]).await;
    coordinator.script.lock().unwrap().answers = [Err(Rejection::StaleGeneration)].into();
    run(plan(&address, "w0"), build(&coordinator).0).await.unwrap();
    assert_eq!(reports(&coordinator).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_or_replaced_worker_leaves_with_a_sentence() {
    let (coordinator, address) = start(vec![]).await;
    let mut stranger = plan(&address, "w0");
    stranger.token = Token::new("a guess").unwrap();
    let error = run(stranger, build(&coordinator).0).await.unwrap_err().to_string();
    assert!(error.contains("MEDEVO_TOKEN") && !error.contains("guess"), "{error}");
    coordinator.script.lock().unwrap().refusal = Some(JoinRefused::OldLife("w0".into()));
    let error = run(plan(&address, "w0"), build(&coordinator).0).await.unwrap_err().to_string();
    assert!(error.contains("a name of its own"), "{error}");
    let (coordinator, address) = start(vec![Err(Rejection::StaleIncarnation)]).await;
    let error = run(plan(&address, "w0"), build(&coordinator).0).await.unwrap_err();
    assert!(matches!(error, AgentError::Replaced(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_coordinator_is_an_error_at_the_deadline() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let mut plan = plan(&free, "w0");
    plan.join_deadline = Duration::from_millis(300);
    let error = run(plan, build(&Scripted::default()).0).await.unwrap_err().to_string();
    assert!(error.contains(&free), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_is_kept_while_the_engine_is_busy() {
    let (coordinator, address) = start(vec![form(3, 0, 1), rollout(3)]).await;
    run(plan(&address, "w0"), build(&coordinator).0).await.unwrap();
    assert!(matches!(reports(&coordinator)[1].body, Report::RolloutDone { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_errors_are_reported_and_a_panic_ends_the_worker() {
    let (coordinator, address) = start(vec![form(3, 0, 1), rollout(2), rollout(4)]).await;
    let error = run(plan(&address, "w0"), build(&coordinator).0).await.unwrap_err().to_string();
    assert!(error.contains("tensor trouble") && !error.contains("backtrace"), "{error}");
    let bodies: Vec<Report> = reports(&coordinator).into_iter().map(|e| e.body).collect();
    assert!(
        matches!(&bodies[1], Report::Failed { retryable: false, error, .. } if error.contains("q7"))
    );
    assert!(matches!(&bodies[2], Report::Failed { what, .. } if what == "rollout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn update_of_another_generation_is_a_failed_collective() {
    let (coordinator, address) = start(vec![form(3, 0, 1), update(2), update(3)]).await;
    run(plan(&address, "w0"), build(&coordinator).0).await.unwrap();
    for report in &reports(&coordinator)[1..] {
        // The second fails too: after an error only a new generation helps.
        assert!(matches!(&report.body, Report::CollectiveFailed { .. }), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_form_over_rpc_and_a_lone_one_fails_in_time() {
    let (first, one) = start(vec![form(3, 0, 2), update(3), form(4, 0, 2)]).await;
    let second = Scripted { board: Arc::clone(&first.board), ..Scripted::default() };
    second.script.lock().unwrap().orders = [form(3, 1, 2), update(3)].into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let two = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener, second.clone(), Door::open()));
    let (a, b) = tokio::join!(
        run(plan(&one, "w0"), build(&first).0),
        run(plan(&two, "w1"), build(&second).0)
    );
    assert!(a.is_ok() && b.is_ok());
    for reports in [reports(&first), reports(&second)] {
        assert!(matches!(&reports[1].body, Report::Ballot(ballot) if ballot.grad_norm == 2.0));
    }
    let alone = reports(&first).pop().unwrap();
    assert!(
        matches!(&alone.body, Report::CollectiveFailed { operation, .. } if operation == "form"),
        "{alone:?}"
    );
}
