//! The driver with the real core, a store in memory and workers without an engine.

mod fleet;

use std::time::Duration;

use fleet::{Run, Worker, outcome};
use medevo_coord::run_dir::{EvalKind, SampleRecord};
use medevo_core::api::Outcome;
use medevo_types::messages::Directive;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_three_steps_reaches_done() {
    let run = Run::new(fleet::THREE_STEPS);
    let (handle, task) = run.coordinator();
    let workers = ["w0", "w1"].map(|name| Worker::new(name, 1).start(&handle));
    assert_eq!(outcome(&handle).await, Outcome::Done);
    for worker in workers {
        let stopped = timeout(Duration::from_secs(10), worker).await.expect("told to stop in time");
        assert!(stopped.expect("no panic"), "every worker must be let go");
    }
    handle.shutdown().await;
    timeout(Duration::from_secs(10), task).await.expect("the driver leaves").expect("no panic");

    let events = run.events();
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!(named("step_committed"), 3);
    assert_eq!(named("evaluated"), 3, "two passes before, one after");
    assert_eq!(named("finished"), 1);
    let evaluations = run.dir.read_evaluations().expect("evaluations");
    assert_eq!(evaluations.len(), 3);
    assert!(evaluations.iter().all(|evaluation| evaluation.n == 8 && evaluation.rows.len() == 8));
    assert!(evaluations.iter().any(|evaluation| evaluation.kind == EvalKind::Majority));
    let samples = SampleRecord::read_all(&run.dir.samples_file()).expect("samples");
    assert_eq!(samples.len(), 12, "four questions in each of three steps");
    assert_eq!(samples[0].pseudo_label.as_deref(), Some("left lung"));
    assert_eq!(samples[0].candidates[0].count, 4);
    let status = run.dir.status().expect("a status").expect("a status");
    assert_eq!(status.view.step.0, 3);
    assert!(status.figures.contains_key("loss"));
}

// Driver, core and scorer each keep their own account of a rollout's rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_go_on_until_enough_groups_train_and_serve_two_steps_each() {
    let run = Run::new(
        r#"
        [[stage]]
        kind = "rl"
        name = "adapt"
        data = "target"
        steps = 4
        questions = 4
        dynamic_sampling_rounds = 9
        rollout = { n = 6 }
        objective = { num_iterations = 2, scale_rewards = "batch" }
    "#,
    );
    let (handle, _task) = run.coordinator();
    let mut worker = Worker::new("w0", 1);
    worker.agrees_on = |sample| sample.ends_with(['1', '4', '6']);
    let heard = worker.heard.clone();
    let _worker = worker.start(&handle);
    assert_eq!(outcome(&handle).await, Outcome::Done);

    let events = run.events();
    let commits: Vec<_> =
        events.iter().filter(|event| event["event"] == "step_committed").collect();
    assert_eq!(commits.len(), 4);
    let samples = SampleRecord::read_all(&run.dir.samples_file()).expect("samples");
    for (step, commit) in (1..).zip(&commits) {
        assert_eq!(commit["trained"], 4, "five of the eight questions teach, enough for four");
        let silent = commit["figures"]["groups_without_signal"].as_f64().expect("a number");
        if step % 2 == 1 {
            let drawn = samples.iter().filter(|sample| sample.step == step).count();
            assert_eq!(drawn as f64, 4.0 + silent, "every question drawn is on record once");
        }
    }
    assert!(commits.iter().any(|commit| commit["figures"]["rounds"].as_f64() > Some(1.0)));
    let updates: Vec<serde_json::Value> = heard
        .lock()
        .expect("no panics")
        .iter()
        .map(|text| serde_json::from_str(text).expect("a directive"))
        .filter(|directive: &serde_json::Value| directive["Update"].is_object())
        .collect();
    let groups = |at: usize| &updates[at]["Update"]["batch"]["Grpo"]["groups"];
    assert_eq!(groups(0), groups(1), "one rollout, two steps");
    assert_ne!(groups(1), groups(2));
    // Batch scale: identical groups get identical advantages, whichever round they came in.
    let advantages: Vec<&serde_json::Value> = groups(0)
        .as_array()
        .expect("groups")
        .iter()
        .map(|group| &group["answers"][0]["advantage"])
        .collect();
    assert!(advantages.iter().all(|advantage| *advantage == advantages[0]), "{advantages:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_run_is_known_as_done_and_its_checkpoint_is_whole() {
    let run = Run::new(fleet::THREE_STEPS);
    let (handle, task) = run.coordinator();
    let _worker = Worker::new("w0", 1).start(&handle);
    assert_eq!(outcome(&handle).await, Outcome::Done);
    handle.shutdown().await;
    timeout(Duration::from_secs(10), task).await.expect("the driver leaves").expect("no panic");

    let found = medevo_coord::store::recover(&run.lead(), &run.dir.checkpoints()).expect("a term");
    assert_eq!(found.outcome, Some(Outcome::Done));
    let checkpoint = found.recovered.checkpoint.expect("one at the stage's end");
    assert_eq!(checkpoint.step.0, 3);
    assert!(checkpoint.dir.join("scorer.json").exists(), "a resumed run needs the scorers' memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_run_goes_on_with_another_coordinator() {
    let run = Run::new(fleet::THREE_STEPS);
    let (handle, task) = run.coordinator();
    let survivor = Worker::new("w0", 1).start(&handle);
    // The loss of w1 holds the run in step 2, so that the drain comes neither too early nor too late.
    let mut mortal = Worker::new("w1", 1);
    mortal.dies_at = |directive| matches!(directive, Directive::Update(work) if work.step.0 == 2);
    let tag = mortal.tag.clone();
    let died = timeout(Duration::from_secs(30), mortal.start(&handle)).await.expect("in time");
    assert!(!died.expect("no panic"), "the worker was to die in step 2");
    handle.drain("for the test".into()).await;
    handle.gone(tag).await;
    assert!(matches!(outcome(&handle).await, Outcome::Drained { .. }));
    assert!(timeout(Duration::from_secs(10), survivor).await.expect("in time").expect("no panic"));
    handle.shutdown().await;
    timeout(Duration::from_secs(10), task).await.expect("the driver leaves").expect("no panic");
    let committed = |events: Vec<serde_json::Value>| {
        events.iter().filter(|event| event["event"] == "step_committed").count()
    };
    assert_eq!(
        committed(run.events()),
        2,
        "the step that was going on is finished, no other begun"
    );

    let (handle, _task) = run.coordinator();
    let _worker = Worker::new("w0", 2).start(&handle);
    assert_eq!(outcome(&handle).await, Outcome::Done);
    assert_eq!(committed(run.events()), 3, "INV-1: no step is committed twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_run_goes_on_when_a_worker_dies_in_an_update() {
    let run = Run::new(fleet::THREE_STEPS);
    let (handle, _task) = run.coordinator();
    let _survivor = Worker::new("w0", 1).start(&handle);
    let mut mortal = Worker::new("w1", 1);
    mortal.dies_at = |directive| matches!(directive, Directive::Update(work) if work.step.0 == 2);
    let tag = mortal.tag.clone();
    let died = timeout(Duration::from_secs(30), mortal.start(&handle)).await.expect("in time");
    assert!(!died.expect("no panic"), "the worker was to die in step 2");
    handle.gone(tag).await;
    assert_eq!(outcome(&handle).await, Outcome::Done);
    assert!(run.events().iter().any(|event| event["event"] == "attempt_voided"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acted_on_that_could_not_be_recorded() {
    let run = Run::new(fleet::THREE_STEPS);
    let (handle, _task) = run.coordinator();
    run.store.fail_writes(true);
    let worker = Worker::new("w0", 1);
    let heard = worker.heard.clone();
    let stopped = worker.start(&handle);
    let Outcome::Failed { reason } = outcome(&handle).await else { panic!("the run must fail") };
    assert!(reason.contains("no space left"), "the disk's words must reach people: {reason}");
    assert!(timeout(Duration::from_secs(10), stopped).await.expect("in time").expect("no panic"));
    let heard = heard.lock().expect("no panics");
    let acted = heard.iter().find(|text| !text.contains("\"Wait\"") && !text.contains("\"Stop\""));
    assert_eq!(acted, None, "persist, then act: no generation on record, so none is formed");
}
