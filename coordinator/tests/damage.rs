//! Every kind of damage to the newest checkpoint is named, and the one before it is taken, loudly (INV-5).

mod fleet;

use std::{fs, path::Path, time::Duration};

use fleet::{Run, Worker, outcome};
use medevo_common::manifest::MANIFEST_FILE;
use medevo_coord::store::recover;
use medevo_core::api::Outcome;
use medevo_types::Step;
use tokio::time::timeout;

const STAGES: &str = r#"
    [checkpoint]
    every_steps = 1
    [[stage]]
    kind = "rl"
    name = "adapt"
    data = "target"
    steps = 3
    questions = 4
    rollout = { n = 6 }
"#;

/// A done run with the checkpoints of steps 1 to 3.
async fn run() -> Run {
    let run = Run::new(STAGES);
    let (handle, task) = run.coordinator();
    let _worker = Worker::new("w0", 1).start(&handle);
    assert_eq!(outcome(&handle).await, Outcome::Done);
    handle.shutdown().await;
    timeout(Duration::from_secs(10), task).await.expect("the driver leaves").expect("no panic");
    run
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_damage_is_named_and_the_checkpoint_before_is_taken() {
    type Damage = fn(&Path);
    let kinds: [(&str, Damage); 8] = [
        ("model.safetensors does not have the BLAKE3 digest", |dir| {
            edit(&dir.join("model.safetensors"), |bytes| bytes[3] ^= 1);
        }),
        ("model.safetensors has 6 bytes, but the manifest says 7", |dir| {
            edit(&dir.join("model.safetensors"), |bytes| bytes.truncate(6));
        }),
        ("model.safetensors is missing", |dir| {
            fs::remove_file(dir.join("model.safetensors")).expect("removed");
        }),
        ("scorer.json is missing", |dir| {
            fs::remove_file(dir.join("scorer.json")).expect("removed");
        }),
        ("manifest.json cannot be read as a checkpoint manifest", |dir| {
            fs::remove_file(dir.join(MANIFEST_FILE)).expect("removed");
        }),
        ("manifest.json cannot be read as a checkpoint manifest", |dir| {
            edit(&dir.join(MANIFEST_FILE), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("its manifest is of step 2, not 3", |dir| {
            let before = dir.with_file_name("step-000002");
            fs::copy(before.join(MANIFEST_FILE), dir.join(MANIFEST_FILE)).expect("copied");
            fs::copy(before.join("scorer.json"), dir.join("scorer.json")).expect("copied");
        }),
        ("it was written by a run \"another\"", |dir| {
            edit(&dir.join(MANIFEST_FILE), |bytes| {
                let mut manifest: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
                manifest["run_id"] = "another".into();
                manifest["holding"] = "of other weights".into();
                *bytes = manifest.to_string().into_bytes();
            });
        }),
    ];
    for (words, damage) in kinds {
        let run = run().await;
        let newest = run.dir.checkpoints().join("step-000003");
        damage(&newest);
        let found = recover(&run.lead(), &run.dir.checkpoints()).expect("a term");
        let [said] = found.passed_over.as_slice() else {
            panic!("{words}: {:?}", found.passed_over);
        };
        assert!(said.contains(words), "{words:?} is not in {said:?}");
        assert!(said.contains("step-000003") && said.contains("step-000002"), "by name: {said}");
        assert_eq!(found.recovered.checkpoint.expect("the one before").step, Step(2), "{words}");
    }
}

/// Fails when a run goes on towards another KL reference than its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_reference_is_named() {
    let run = Run::new(
        r#"
        [checkpoint]
        every_steps = 2
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
        steps = 4
        questions = 4
        rollout = { n = 6 }
        objective.beta = 0.1
    "#,
    );
    let (handle, task) = run.coordinator();
    let mut mortal = Worker::new("w0", 1);
    mortal.dies_at = |directive| matches!(directive, medevo_types::messages::Directive::Update(work) if work.step.0 == 5);
    let died = timeout(Duration::from_secs(30), mortal.start(&handle)).await.expect("in time");
    assert!(!died.expect("no panic"), "the worker was to die in step 5");
    handle.shutdown().await;
    timeout(Duration::from_secs(10), task).await.expect("the driver leaves").expect("no panic");
    let weights = run.dir.checkpoints().join("step-000001/model.safetensors");
    edit(&weights, |bytes| bytes[0] ^= 1);
    let found = recover(&run.lead(), &run.dir.checkpoints()).expect("a term");
    let said = &found.passed_over[0];
    assert!(
        said.contains("the KL reference of its stage") && said.contains("step-000001"),
        "{said}"
    );
}
