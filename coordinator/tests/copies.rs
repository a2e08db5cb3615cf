//! Copies of checkpoints: what a run promises about them, with the real driver and stores in memory, on disk, and slow.

mod fleet;

use std::{fs, path::Path, sync::Arc, time::Duration};

use fleet::{Run, Worker, outcome};
use medevo_common::manifest::{MANIFEST_FILE, Manifest};
use medevo_coord::{
    copies::{Destination, LATEST_FILE, Latest, fetch_url, mend},
    driver::{CopyTo, Retention},
    store::recover_with,
};
use medevo_core::api::Outcome;
use medevo_types::{Digest, PolicyVersion, Step, Term, messages::FileEntry};
use object_store::{
    ObjectStore, ObjectStoreExt,
    local::LocalFileSystem,
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
use serde_json::Value;
use tokio::{task::JoinHandle, time::timeout};

const STAGES: &str = r#"
    [checkpoint]
    every_steps = 1
    [[stage]]
    kind = "rl"
    name = "adapt"
    data = "target"
    steps = 6
    questions = 4
    rollout = { n = 6 }
"#;

fn copy_to(store: Arc<dyn ObjectStore>, run: &Run, seconds: f64) -> CopyTo {
    CopyTo {
        destination: Destination::new(store, "memory://copies").child("fleet"),
        retention: Retention::of_copies(&run.config.checkpoint),
        timeout: Duration::from_secs_f64(seconds),
    }
}

/// Runs to the end, waits for copies no longer than `patience`, and leaves. Seconds until the run was done.
async fn carry_out(run: &Run, copies: CopyTo, patience: Duration) -> f64 {
    let (handle, task) = run.coordinator_with(Some(copies));
    let started = std::time::Instant::now();
    let _workers = ["w0", "w1"].map(|name| Worker::new(name, 1).start(&handle));
    assert_eq!(outcome(&handle).await, Outcome::Done);
    let seconds = started.elapsed().as_secs_f64();
    handle.copying().expect("there are copies").settle(patience).await;
    handle.shutdown().await;
    left(task).await;
    seconds
}

async fn left(task: JoinHandle<()>) {
    timeout(Duration::from_secs(10), task).await.expect("the driver leaves").expect("no panic");
}

fn of<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

async fn names(store: &dyn ObjectStore) -> Vec<String> {
    let mut names = Vec::new();
    let mut objects = store.list(None);
    while let Some(object) = futures::StreamExt::next(&mut objects).await {
        names.push(object.expect("an object").location.to_string());
    }
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_checkpoints_are_copied_whole_and_latest_names_the_last() {
    the_newest_are_copied(Arc::new(InMemory::new())).await;
}

/// A folder knows no conditional put.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_in_a_folder_are_as_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("a folder");
    the_newest_are_copied(Arc::new(store)).await;
}

async fn the_newest_are_copied(store: Arc<dyn ObjectStore>) {
    let run = Run::new(STAGES);
    let mut copies = copy_to(store.clone(), &run, 20.0);
    copies.retention.keep = 2;
    let destination = copies.destination.clone();
    carry_out(&run, copies, Duration::from_secs(20)).await;

    let events = run.events();
    let copied = of(&events, "checkpoint_copied");
    let last = copied.last().expect("a copy");
    assert_eq!(last["step"], 6);
    assert_eq!(last["url"], "memory://copies/fleet/step-000006");
    assert!(last["bytes"].as_u64() > Some(0) && last["seconds"].as_f64().is_some(), "{last}");
    let (latest, _) = destination.latest().await.expect("readable").expect("there");
    assert_eq!((latest.step, latest.checkpoint.as_str()), (Step(6), "step-000006"));
    for file in ["model.safetensors", "scorer.json", MANIFEST_FILE] {
        let name = format!("fleet/step-000006/{file}");
        let copy = store.get(&name.as_str().into()).await.expect(&name).bytes().await.expect(&name);
        let own = fs::read(run.dir.checkpoints().join("step-000006").join(file)).expect(file);
        assert_eq!(copy, own, "{file}");
    }
    let whole = destination.copies().await.expect("a list");
    assert!(whole.len() <= 2, "old copies go as old checkpoints do: {whole:?}");
    assert!(names(store.as_ref()).await.contains(&format!("fleet/{LATEST_FILE}")));
}

/// Fails when training waits for an upload: the store takes no byte for an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_commit_while_an_upload_is_held_up() {
    let free = Run::new(STAGES);
    let quick = copy_to(Arc::new(InMemory::new()), &free, 20.0);
    let without = carry_out(&free, quick, Duration::from_secs(20)).await;

    let run = Run::new(STAGES);
    let hour = Duration::from_secs(3600);
    let held = ThrottleConfig { wait_put_per_call: hour, ..ThrottleConfig::default() };
    let store = Arc::new(ThrottledStore::new(InMemory::new(), held));
    let copies = copy_to(store, &run, 3600.0);
    let seconds = carry_out(&run, copies, Duration::from_secs(1)).await;

    let events = run.events();
    assert_eq!(of(&events, "step_committed").len(), 6);
    assert_eq!(of(&events, "checkpoint_published").len(), 6);
    assert!(of(&events, "checkpoint_copied").is_empty());
    let skipped = of(&events, "checkpoint_copy_skipped");
    assert_eq!(skipped.len(), 4, "one under way, one waiting, and the newest waits");
    let failed = of(&events, "checkpoint_copy_failed");
    let steps: Vec<_> = failed.iter().map(|event| event["step"].as_u64()).collect();
    assert_eq!(steps, [Some(1), Some(6)], "what was not copied is said");
    assert!(failed[0]["error"].as_str().expect("a sentence").contains("after the run's end"));
    println!("6 steps: {without:.2} s with a quick store, {seconds:.2} s with one that hangs");
    assert!(
        seconds < without + 5.0,
        "held-up uploads slowed the run: {seconds} s, not {without} s"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_gets_the_newest_checkpoint_and_the_run_says_which_it_did_not() {
    let run = Run::new(STAGES);
    let slow =
        ThrottleConfig { wait_put_per_call: Duration::from_millis(500), ..Default::default() };
    let store = Arc::new(ThrottledStore::new(InMemory::new(), slow));
    let copies = copy_to(store, &run, 30.0);
    let destination = copies.destination.clone();
    carry_out(&run, copies, Duration::from_secs(30)).await;
    let events = run.events();
    let skipped = of(&events, "checkpoint_copy_skipped");
    assert!(!skipped.is_empty(), "six checkpoints in no time cannot all be copied");
    assert!(skipped[0]["reason"].as_str().expect("a sentence").contains("takes the place of"));
    assert!(of(&events, "checkpoint_copy_failed").is_empty());
    let (latest, _) = destination.latest().await.expect("readable").expect("there");
    assert_eq!(latest.step, Step(6));
}

#[tokio::test]
async fn a_coordinator_of_an_earlier_term_does_not_move_latest() {
    let place = Destination::new(Arc::new(InMemory::new()), "memory://copies");
    let latest = |step: u64, term: u64| Latest {
        format: 1,
        run_id: "fleet".into(),
        checkpoint: format!("step-{step:06}"),
        step: Step(step),
        policy: PolicyVersion(step),
        term: Term(term),
        manifest: Digest("m".into()),
    };
    place.move_latest(&latest(4, 1)).await.expect("the first");
    place.move_latest(&latest(2, 2)).await.expect("a later term may go back");
    let refused = place.move_latest(&latest(6, 1)).await.expect_err("INV-8").to_string();
    assert!(refused.contains("a coordinator of term 2"), "{refused}");
    let (there, _) = place.latest().await.expect("readable").expect("there");
    assert_eq!(there, latest(2, 2));
    let other = Latest { run_id: "other".into(), ..latest(9, 9) };
    assert!(place.move_latest(&other).await.is_err(), "another run's");
    assert!(place.refuse_used().await.is_err(), "a new run must not mix its copies with these");
}

/// A checkpoint directory of one file; returns the file.
fn checkpoint(dir: &Path, bytes: &[u8]) -> std::path::PathBuf {
    fs::create_dir_all(dir).expect("a folder");
    let path = dir.join("model.safetensors");
    fs::write(&path, bytes).expect("a file");
    let digest = Digest(blake3::hash(bytes).to_hex().to_string());
    let entry = FileEntry { name: "model.safetensors".into(), bytes: bytes.len() as u64, digest };
    let manifest = Manifest {
        format: medevo_common::manifest::FORMAT,
        run_id: "fleet".into(),
        step: Step(3),
        policy: PolicyVersion(3),
        position: Default::default(),
        config: Digest("c".into()),
        seed: 0,
        holding: Digest("h".into()),
        reference: None,
        files: vec![entry],
        written_at: 0,
    };
    manifest.write(dir).expect("a manifest");
    path
}

/// Larger than two parts, so that it goes up in several and comes down in several.
#[tokio::test]
async fn a_large_file_goes_up_in_parts_and_comes_back_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes: Vec<u8> =
        (0..20_000_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let dir = folder.path().join("step-000003");
    checkpoint(&dir, &bytes);
    let copies = folder.path().join("copies");
    fs::create_dir(&copies).expect("a folder");
    let url = format!("file://{}", copies.display());
    let place = Destination::open(&url, None).expect("a folder");
    place.probe().await.expect("a folder that can be written");
    place.upload(&dir, &mut Default::default()).await.expect("copied");
    place.move_latest(&place.latest_of(&dir, Term(1)).expect("a manifest")).await.expect("moved");
    place.move_latest(&place.latest_of(&dir, Term(2)).expect("a manifest")).await.expect("again");

    let into = folder.path().join("fetched");
    let fetched = fetch_url(&url, None, &into).await.expect("the newest copy");
    assert_eq!(fetched.manifest.step, Step(3));
    assert!(fs::read(into.join("model.safetensors")).expect("a file") == bytes);
    let again = fetch_url(&url, None, &into).await.expect_err("in use").to_string();
    assert!(again.contains("is not empty"), "{again}");

    // One flipped bit in the copy.
    let copy = copies.join("step-000003/model.safetensors");
    let mut damaged = bytes.clone();
    damaged[12_345_678] ^= 1;
    fs::write(&copy, damaged).expect("written");
    let into = folder.path().join("again");
    let error = fetch_url(&format!("{url}/step-000003"), None, &into).await.expect_err("damaged");
    assert!(format!("{error:#}").contains("BLAKE3"), "{error:#}");
    let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().collect();
    assert_eq!(left.len(), 3, "nothing of it is left: {left:?}");
}

#[tokio::test]
async fn a_file_that_changed_after_it_was_published_is_not_copied() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("step-000003");
    let path = checkpoint(&dir, b"weights");
    fs::write(path, b"weighty").expect("written");
    let store = Arc::new(InMemory::new());
    let place = Destination::new(store.clone(), "memory://copies");
    let refused =
        place.upload(&dir, &mut Default::default()).await.expect_err("changed").to_string();
    assert!(refused.contains("model.safetensors is not what the manifest says"), "{refused}");
    assert_eq!(names(store.as_ref()).await, Vec::<String>::new(), "INV-5: no copy of it");
}

/// Fails when a damaged checkpoint is passed over although its copy is good, or another run's copy is taken for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_is_put_back_from_its_copy() {
    let run = Run::new(STAGES);
    let store = Arc::new(InMemory::new());
    let copies = copy_to(store.clone(), &run, 20.0);
    let destination = copies.destination.clone();
    carry_out(&run, copies, Duration::from_secs(20)).await;
    let dir = run.dir.checkpoints().join("step-000006");
    let weights = dir.join("model.safetensors");
    let good = fs::read(&weights).expect("weights");
    let recovered = || {
        let lead = run.lead();
        let long = Duration::from_secs(10);
        recover_with(&lead, &run.dir.checkpoints(), &|checkpoint| {
            Some(mend(&destination, checkpoint, long).map_err(|error| format!("{error:#}")))
        })
        .expect("a store that works")
    };

    fs::write(&weights, "wights").expect("written");
    let found = recovered();
    assert!(found.passed_over.is_empty(), "{:?}", found.passed_over);
    assert!(
        found.mended[0].contains("fetched memory://copies/fleet/step-000006"),
        "{:?}",
        found.mended
    );
    assert_eq!(fs::read(&weights).expect("weights"), good);

    fs::remove_dir_all(run.dir.checkpoints()).expect("removed");
    fs::create_dir(run.dir.checkpoints()).expect("a folder");
    let found = recovered();
    assert_eq!(found.recovered.checkpoint.expect("put back").step, Step(6));

    // The copy is another run's: it must not be taken.
    fs::remove_file(&weights).expect("removed");
    let path = "fleet/step-000006/manifest.json".into();
    let text = store.get(&path).await.expect("a manifest").bytes().await.expect("a manifest");
    let mut manifest: Value = serde_json::from_slice(&text).expect("JSON");
    manifest["run_id"] = "another".into();
    manifest["holding"] = "of other weights".into();
    store.put(&path, manifest.to_string().into()).await.expect("written");
    let found = recovered();
    let said = &found.passed_over[0];
    assert!(said.contains("is missing") && said.contains("a run \"another\""), "{said}");
}
