//! The report: complete, self-contained, and safe whatever the data says.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod fixture;

use std::fs;

use medevo_coord::{report, run_dir::RunDir};

/// No request may leave the page, and no text from a file may become markup.
fn sound(page: &str) {
    for outside in
        ["http://", "https://", "src=\"/", "src=\"file", "<script", "<link", "@import", "url("]
    {
        assert!(!page.contains(outside), "the page must need nothing else, but has {outside}");
    }
    for raw in ["<b>lesion", "<liver>", "<process>"] {
        assert!(!page.contains(raw), "{raw} came through unescaped");
    }
    assert!(!page.contains("NaN"));
    for tag in ["table", "svg", "section", "div", "ul", "figure", "details"] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "unbalanced <{tag}>");
    }
}

#[test]
fn a_finished_run_is_told_in_full() {
    // Kept under the target directory, so that the page can be looked at.
    let keep = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    let _ = fs::remove_dir_all(&keep);
    let run = fixture::finished(&keep, "demo-s1", 1, 81);
    fixture::history(&run, &keep.join("logs"));
    let path = report::write(run.path()).unwrap();
    let page = fs::read_to_string(&path).unwrap();
    sound(&page);
    for told in [
        "adapted on, without labels",
        "held out",
        "protocol: strict",
        "maj@16 of the base",
        "Paired by question (n 200)",
        "Strict accuracy also rises when",
        "Label share",
        "Learning rate",
        "worker w1 was lost",
        "rolled back from step 87 to step 80",
        "reports were turned away: stale step",
        "data:image/jpeg;base64,",
        "the picture cannot be read",
        "rollout",
        "Done after 190 steps",
    ] {
        assert!(page.contains(told), "the report does not say {told:?}");
    }
    // The data that was adapted on comes first, whatever the order in the run file.
    assert!(
        page.find("<code>target</code> <small>").unwrap()
            < page.find("<code>heldout</code> <small>").unwrap()
    );
}

#[test]
fn a_run_that_has_just_begun_has_a_report_too() {
    let parent = tempfile::tempdir().unwrap();
    let run = RunDir::create(&parent.path().join("demo"), &fixture::config("demo", 0)).unwrap();
    let page = fs::read_to_string(report::write(run.path()).unwrap()).unwrap();
    sound(&page);
    assert!(page.contains("Nothing has been run yet"));
    assert!(page.contains("No evaluation has been made yet."));
    assert!(page.contains("No step has been committed yet."));
}

#[test]
fn a_run_without_an_evaluation_after_shows_the_latest_on_the_way() {
    let parent = tempfile::tempdir().unwrap();
    let run = fixture::finished(&parent.path().join("demo"), "demo", 1, 81);
    for data in ["target", "heldout"] {
        fs::remove_file(run.evaluations().join(format!("after--{data}-greedy.json"))).unwrap();
    }
    let page = fs::read_to_string(report::write(run.path()).unwrap()).unwrap();
    sound(&page);
    assert!(page.contains("after step 190"));
}
