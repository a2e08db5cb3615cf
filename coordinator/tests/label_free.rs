//! INV-9: no reference answer reaches a worker in an adaptation stage.

mod fleet;

use fleet::{CANARY, Run, Worker, outcome};
use medevo_core::api::Outcome;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_9_no_reference_reaches_a_worker_in_an_rl_or_evaluate_stage() {
    // The target's references are canaries; it is adapted on and measured on. The source's references are
    // given out, by its sft stage, which shows that the test would see one.
    let run = Run::new(
        r#"
        [[stage]]
        kind = "sft"
        name = "warm"
        data = "source"
        steps = 1
        batch = 4
        [[stage]]
        kind = "rl"
        name = "adapt"
        data = "target"
        steps = 2
        questions = 8
        rollout = { n = 6 }
        evaluate_every = 1
        evaluate = ["target"]
        [[stage]]
        kind = "evaluate"
        name = "after"
        data = ["target"]
        "#,
    );
    let (handle, _task) = run.coordinator();
    let workers = [Worker::new("w0", 1), Worker::new("w1", 1)];
    let heard = workers.clone().map(|worker| worker.heard);
    for worker in workers {
        worker.start(&handle);
    }
    assert_eq!(outcome(&handle).await, Outcome::Done);
    let heard: Vec<String> =
        heard.iter().flat_map(|heard| heard.lock().expect("no panics").clone()).collect();
    assert!(heard.iter().any(|text| text.contains("\"Rollout\"")));
    assert!(heard.iter().any(|text| text.contains("\"Grpo\"")));
    assert!(
        heard.iter().any(|text| text.contains("\"answer\":\"liver")),
        "sft hands its answers out"
    );
    for text in &heard {
        assert!(!text.contains(CANARY), "a worker was told a reference answer: {text}");
    }
}
