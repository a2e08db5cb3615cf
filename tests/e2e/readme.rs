//! A new user's path: every command of README's section, copied from there and run in order.

use medevo_tests::{
    commands::{commands, run},
    lab::{Lab, checkout},
};

/// Fails when a command that the README shows cannot be run by who follows it.
#[test]
fn what_the_readme_says_about_your_own_run_works_as_it_stands() {
    let readme = std::fs::read_to_string(checkout().join("README.md")).expect("README.md");
    let shown = commands(&readme, Some("Your own run"));
    assert!(shown.len() >= 5, "the section shows commands: {shown:?}");
    let lab = Lab::new();
    // The names that the README uses: a run `my-run`, a stage `med-evo`, other runs to compare with.
    lab.amend(|text| {
        text.replace("name = \"small\"", "name = \"my-run\"").replace("\"adapt\"", "\"med-evo\"")
    });
    std::fs::create_dir(lab.path("runs")).expect("a folder");
    for name in ["runs/a", "runs/b"] {
        std::os::unix::fs::symlink("my-run", lab.path(name)).expect("a link");
    }
    let root = lab.run_dir("");
    for command in &shown {
        let _ = run(command, &root, &[("path/to/slake", "data/target")]);
    }
    assert!(root.join("runs/my-run/report.html").is_file(), "the run has come to its end");
}
