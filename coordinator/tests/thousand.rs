//! What a step costs the coordinator with a thousand workers: the real driver, scorer, event stream and samples, a store
//! in memory, workers in this process that answer at once. Transport is not in it. `make driver-scale` runs it.

mod fleet;

use fleet::{Run, Worker, dataset_of, outcome};
use medevo_core::api::Outcome;

const WORKERS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; `make driver-scale` runs it"]
async fn steps_of_a_thousand_workers() {
    println!("| workers | groups | rollout ms | scoring ms | updating ms | committing ms |");
    println!("|---|---|---|---|---|---|");
    for groups in [1_000, 4_000, 10_000] {
        let mut run = Run::new(&format!(
            r#"
            [[stage]]
            kind = "rl"
            name = "adapt"
            data = "target"
            steps = 4
            questions = {groups}
            rollout = {{ n = 8 }}
            "#
        ));
        run.config.cluster.min_workers = WORKERS;
        run.config.cluster.max_workers = WORKERS;
        run.config.cluster.prompts_per_unit = 4;
        run.config.checkpoint.every_steps = 0;
        run.target = dataset_of("target", "liver", groups);
        let (handle, _task) = run.coordinator();
        let worker = |index: usize| Worker::new(&format!("w{index:04}"), 1).start(&handle);
        let workers: Vec<_> = (0..WORKERS).map(worker).collect();
        assert_eq!(outcome(&handle).await, Outcome::Done);
        for worker in workers {
            assert!(worker.await.expect("no panic"), "every worker is let go");
        }
        let events = run.events();
        let steps: Vec<_> =
            events.iter().filter(|event| event["event"] == "step_committed").collect();
        // The first step waits for everybody to join.
        let mean = |phase: &str| {
            let of = |event: &&serde_json::Value| event["millis"][phase].as_f64().unwrap_or(0.0);
            steps[1..].iter().map(of).sum::<f64>() / (steps.len() - 1) as f64
        };
        println!(
            "| {WORKERS} | {groups} | {:.0} | {:.0} | {:.0} | {:.0} |",
            mean("rollout"),
            mean("scoring"),
            mean("updating"),
            mean("committing"),
        );
    }
}
