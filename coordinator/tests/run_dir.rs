//! The run directory: what it refuses, what survives a crash, and that what is written reads back.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use medevo_common::config::RunConfig;
use medevo_coord::run_dir::{
    CandidateRecord, EvalKind, EvalRow, EvaluationRecord, EventLog, Part, RunDir, SampleOutcome,
    SampleRecord, Status, human_duration, parse_rfc3339_ms, read_lines, render_status,
};
use medevo_core::View;
use medevo_text::{Interval, Protocol};
use medevo_types::{
    Generation, PolicyVersion, Step, Term,
    messages::{Rejection, WorkerView},
};

fn config() -> RunConfig {
    let text = r#"
        run.name = "demo"
        model.path = "model"
        data.target = { path = "target", format = "slake" }
        [[stage]]
        kind = "evaluate"
        name = "before"
        data = ["target"]
    "#;
    RunConfig::parse(text, Path::new("/somewhere/run.toml")).unwrap()
}

fn status() -> Status {
    Status {
        run: "demo".into(),
        view: View {
            phase: "rollout".into(),
            explain: "rollout of step 4: 3 units are out".into(),
            ending: None,
            stage: "adapt".into(),
            step: Step(3),
            total_steps: 150,
            generation: Generation(2),
            policy: PolicyVersion(3),
            term: Term(1),
            workers: vec![WorkerView {
                worker: "w0".into(),
                rank: Some(0),
                device: "cpu".into(),
                silent_ms: 120,
            }],
            rejected: [(Rejection::Duplicate, 2)].into(),
        },
        pid: 12,
        host: String::new(),
        born: 7,
        started_at: 1_772_366_400_000,
        updated_at: 1_772_366_460_000,
        tokens_per_s: Some(812.0),
        eta_s: Some(200.0),
        figures: [("reward_mean".to_owned(), 0.5)].into(),
    }
}

fn evaluation(stage: &str, step: u64) -> EvaluationRecord {
    let interval = Interval { mean: 0.5, low: 0.25, high: 0.75, n: 4 };
    let part = Part { n: 4, accuracy: interval, recall: interval };
    EvaluationRecord {
        stage: stage.into(),
        pass: "target greedy".into(),
        data: "target".into(),
        step,
        policy: step,
        kind: EvalKind::Greedy,
        draws: 1,
        protocol: Protocol::Strict,
        n: 4,
        accuracy: interval,
        recall: interval,
        f1: interval,
        closed: part.clone(),
        open: part.clone(),
        by_tag: [("modality".to_owned(), [("CT".to_owned(), part)].into())].into(),
        answer_words: 1.5,
        rows: vec![EvalRow {
            sample: "test/1".into(),
            correct: true,
            recall: 1.0,
            answer: "ct".into(),
        }],
    }
}

#[test]
fn a_new_run_directory_is_private_and_holds_the_resolved_run_file() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("runs/demo");
    let dir = RunDir::create(&path, &config()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(dir.config().unwrap(), config());
    assert_eq!(RunDir::open(&path).unwrap(), dir);
    assert_eq!(dir.config_digest().unwrap(), RunDir::open(&path).unwrap().config_digest().unwrap());
    assert_eq!(dir.status().unwrap(), None);
    assert!(dir.read_evaluations().unwrap().is_empty());
}

#[test]
fn a_folder_that_holds_a_run_or_something_else_is_refused_and_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("demo");
    RunDir::create(&path, &config()).unwrap();
    let again = RunDir::create(&path, &config()).unwrap_err().to_string();
    assert!(
        again.contains("already holds a run") && again.contains("medevo-coord resume"),
        "{again}"
    );

    let other = parent.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "text").unwrap();
    let error = RunDir::create(&other, &config()).unwrap_err().to_string();
    assert!(error.contains("is not empty and holds no run"), "{error}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    assert!(RunDir::open(&other).unwrap_err().to_string().contains("no run.toml"));
    assert!(RunDir::open(&parent.path().join("none")).is_err());

    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    RunDir::create(&empty, &config()).unwrap();
}

#[test]
fn a_torn_last_event_is_cut_off_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut log = EventLog::open(&path).unwrap();
    log.append(&serde_json::json!({"event": "phase", "phase": "forming"})).unwrap();
    log.append(&serde_json::json!({"event": "step_committed", "step": 1})).unwrap();
    drop(log);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"time\":\"2026").unwrap();
    // A reader beside the crash sees the whole lines only.
    assert_eq!(read_lines(&path).unwrap().map(Result::unwrap).count(), 2);

    let mut log = EventLog::open(&path).unwrap();
    log.append(&medevo_core::Event::Finished(medevo_core::Outcome::Done)).unwrap();
    let events: Vec<serde_json::Value> = read_lines(&path).unwrap().map(Result::unwrap).collect();
    let names: Vec<&str> = events.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["phase", "step_committed", "torn_line_cut", "finished"]);
    assert_eq!(events[2]["bytes"], 13);
    assert!(parse_rfc3339_ms(events[0]["time"].as_str().unwrap()).is_some());
}

#[test]
fn a_long_torn_line_is_cut_off_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut text = b"{\"event\":\"a\"}\n".to_vec();
    text.extend(vec![b'x'; 200_000]);
    fs::write(&path, text).unwrap();
    EventLog::open(&path).unwrap();
    assert_eq!(read_lines(&path).unwrap().map(Result::unwrap).count(), 2);
}

#[test]
fn what_is_no_event_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = EventLog::open(&dir.path().join("events.jsonl")).unwrap();
    assert!(log.append(&serde_json::json!({"step": 1})).is_err());
    assert!(log.append(&[1, 2]).is_err());
}

#[test]
fn the_status_reads_back_and_says_what_to_do_when_the_coordinator_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status.json");
    status().write(&path).unwrap();
    assert_eq!(Status::read(&path).unwrap(), Some(status()));
    let alive = render_status(&status(), true);
    assert!(alive.contains("rollout of step 4: 3 units are out"), "{alive}");
    assert!(alive.contains("time left   3 min 20 s"), "{alive}");
    assert!(alive.contains("2 × this was reported already"), "{alive}");
    let gone = render_status(&status(), false);
    assert!(gone.contains("medevo-coord resume") && !gone.contains("time left"), "{gone}");
}

#[test]
fn durations_read_well() {
    for (seconds, text) in
        [(0.4, "0 s"), (59.6, "1 min 00 s"), (7500.0, "2 h 05 min"), (f64::NAN, "?"), (-1.0, "?")]
    {
        assert_eq!(human_duration(seconds), text);
    }
}

#[test]
fn evaluations_read_back_in_the_order_of_their_steps() {
    let parent = tempfile::tempdir().unwrap();
    let dir = RunDir::create(&parent.path().join("demo"), &config()).unwrap();
    let (before, during, after) =
        (evaluation("before", 0), evaluation("adapt", 25), evaluation("after", 150));
    after.write(&dir.evaluations(), false).unwrap();
    let path = during.write(&dir.evaluations(), true).unwrap();
    assert_eq!(path.file_name().unwrap(), "adapt--target-greedy--step-000025.json");
    let path = before.write(&dir.evaluations(), false).unwrap();
    assert_eq!(path.file_name().unwrap(), "before--target-greedy.json");
    assert_eq!(dir.read_evaluations().unwrap(), [before, during, after]);
    assert!(evaluation("before", 0).event().get("rows").is_none(), "events carry no answers");
}

#[test]
fn samples_read_back() {
    let parent = tempfile::tempdir().unwrap();
    let dir = RunDir::create(&parent.path().join("demo"), &config()).unwrap();
    let record = SampleRecord {
        step: 1,
        stage: "adapt".into(),
        sample: "test/1".into(),
        image: Some("/images/1.jpg".into()),
        question: "Which organ?".into(),
        candidates: vec![CandidateRecord {
            text: "liver".into(),
            count: 16,
            reward: 1.0,
            advantage: 0.0,
        }],
        pseudo_label: Some("liver".into()),
        share: 1.0,
        margin: 1.0,
        outcome: SampleOutcome::NoVariance,
    };
    dir.sample_log().unwrap().append(&[record.clone(), record.clone()]).unwrap();
    assert_eq!(SampleRecord::read_all(&dir.samples_file()).unwrap(), [record.clone(), record]);
}
