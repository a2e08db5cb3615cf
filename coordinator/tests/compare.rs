//! The final table: which evaluations count, which runs are one row, and what the figures mean.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod fixture;

use medevo_coord::compare::{Selection, rows, table};
use medevo_coord::run_dir::RunDir;

#[test]
fn before_is_what_the_adaptation_starts_from() {
    let selection = Selection::of(&fixture::config("demo", 0));
    assert_eq!(selection.before.as_deref(), Some("before"));
    assert_eq!(selection.after.as_deref(), Some("after"));
    assert_eq!(selection.adapted, ["target"]);
    assert_eq!(selection.held_out, ["heldout"]);

    // With another evaluation ahead of the warm start, "before" is still the one next to the rl stage.
    let mut config = fixture::config("demo", 0);
    let mut first = config.stage[1].clone();
    if let medevo_common::config::StageSection::Evaluate(stage) = &mut first {
        stage.name = "fresh".into();
    }
    config.stage.insert(0, first);
    assert_eq!(Selection::of(&config).before.as_deref(), Some("before"));

    // Without an rl stage the only evaluation is before, and nothing is after.
    config.stage.retain(|stage| stage.name() == "before");
    let selection = Selection::of(&config);
    assert_eq!((selection.before.as_deref(), selection.after), (Some("before"), None));
}

#[test]
fn runs_that_differ_in_their_seed_are_one_row_and_share_their_base() {
    let parent = tempfile::tempdir().unwrap();
    let runs: Vec<RunDir> = [("ttrl-s0", 0, 72), ("medevo-s0", 0, 80), ("medevo-s1", 1, 84)]
        .map(|(name, seed, good)| fixture::finished(&parent.path().join(name), name, seed, good))
        .into();
    let rows = rows(&runs).unwrap();
    let labels: Vec<(&str, &[u64])> =
        rows.iter().map(|r| (r.label.as_str(), &r.seeds[..])).collect();
    assert_eq!(
        labels,
        [
            ("base", &[0, 1][..]),
            ("maj@16 of the base", &[0, 1]),
            ("ttrl", &[0]),
            ("medevo", &[0, 1])
        ]
    );
    let text = table(&runs).unwrap();
    let line = |label: &str| text.lines().find(|l| l.starts_with(label)).unwrap().to_owned();
    let mean = |v: &[medevo_text::Interval]| v.iter().map(|i| i.mean).sum::<f64>() / v.len() as f64;
    let medevo = 100.0 * mean(&rows[3].figures.adapted.accuracy);
    assert!(line("medevo").contains(&format!("{medevo:.1} [79.0, 83.0]")), "{text}");
    // One seed shows the interval of its questions, which is wider than nothing.
    let one = rows[2].figures.held_out.accuracy[0];
    assert!(line("ttrl").contains(&format!("[{:.1}, {:.1}]", 100.0 * one.low, 100.0 * one.high)));
    assert!(text.contains("recall shows what is left"), "{text}");
}

#[test]
fn runs_without_figures_make_a_table_that_says_so() {
    let parent = tempfile::tempdir().unwrap();
    let run = RunDir::create(&parent.path().join("demo"), &fixture::config("demo", 0)).unwrap();
    let text = table(&[run]).unwrap();
    assert!(text.lines().any(|l| l.starts_with("demo") && l.contains('–')), "{text}");
    assert_eq!(table::<RunDir>(&[]).unwrap(), "No run has been evaluated yet.\n");
}
