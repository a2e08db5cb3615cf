//! Progress: a redrawn line on a terminal, few plain lines elsewhere.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::time::{Duration, Instant};

use medevo_coord::{
    progress::{Progress, line},
    run_dir::Status,
};
use medevo_core::View;
use medevo_types::{Generation, PolicyVersion, Step, Term};

fn status(stage: &str, step: u64) -> Status {
    Status {
        run: "demo".into(),
        view: View {
            phase: "rollout".into(),
            explain: "waiting on w1".into(),
            ending: None,
            stage: stage.into(),
            step: Step(step),
            total_steps: 150,
            generation: Generation(1),
            policy: PolicyVersion(step),
            term: Term(1),
            workers: Vec::new(),
            rejected: Default::default(),
        },
        pid: 1,
        host: String::new(),
        born: 7,
        started_at: 0,
        updated_at: 0,
        tokens_per_s: Some(812.4),
        eta_s: Some(130.0),
        figures: [("reward_mean".to_owned(), 0.5321), ("cluster_share".to_owned(), 0.61)].into(),
    }
}

#[test]
fn the_line_says_where_the_run_is() {
    let text = line(&status("adapt", 41));
    assert_eq!(
        text,
        "adapt  step 41/150  rollout  reward 0.532  label share 0.610  812 tokens/s  2 min 10 s left"
    );
    let mut waiting = status("adapt", 0);
    waiting.figures.clear();
    assert!(line(&waiting).contains("step 0/150  waiting on w1"));
}

#[test]
fn a_terminal_is_redrawn_at_most_five_times_a_second_and_never_wraps() {
    let mut out = Vec::new();
    let start = Instant::now();
    let mut progress = Progress::new(&mut out, Some(30));
    for ms in 0..1000 {
        progress.show_at(&status("adapt", ms), start + Duration::from_millis(ms));
    }
    progress.finish();
    let text = String::from_utf8(out).unwrap();
    let drawn: Vec<&str> = text.split('\r').skip(1).collect();
    assert_eq!(drawn.len(), 5 + 1, "five lines and the clearing");
    assert!(drawn.iter().all(|l| l.trim_end_matches("\x1b[K").chars().count() < 30));
    assert!(!text.contains('\n'));
}

#[test]
fn without_a_terminal_lines_are_plain_and_few() {
    let mut out = Vec::new();
    let start = Instant::now();
    let mut progress = Progress::new(&mut out, None);
    for second in 0..60 {
        let stage = if second < 31 { "warm" } else { "adapt" };
        progress.show_at(&status(stage, second), start + Duration::from_secs(second));
    }
    progress.finish();
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains(['\r', '\x1b']));
    assert_eq!(
        text.lines().count(),
        13,
        "one every five seconds, and one for the new stage\n{text}"
    );
}
