//! A new user's path: every command of README's sections, copied from there and run in order.

use medevo_tests::{
    commands::{Shown, blocks, commands, run},
    history::History,
    lab::{Lab, checkout},
    process::until,
    slurm::{Site, Slurm},
};

fn readme() -> String {
    std::fs::read_to_string(checkout().join("README.md")).expect("README.md")
}

/// A run with the names that the README uses: a run `my-run`, a stage `med-evo`.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.amend(|text| {
        text.replace("name = \"small\"", "name = \"my-run\"").replace("\"adapt\"", "\"med-evo\"")
    });
    std::fs::create_dir(lab.path("runs")).expect("a folder");
    lab
}

/// Fails when a command that the README shows cannot be run by who follows it.
#[test]
fn what_the_readme_says_about_your_own_run_works_as_it_stands() {
    let shown = commands(&readme(), Some("Your own run"));
    assert!(shown.len() >= 5, "the section shows commands: {shown:?}");
    let lab = lab();
    // Other runs to compare with.
    for name in ["runs/a", "runs/b"] {
        std::os::unix::fs::symlink("my-run", lab.path(name)).expect("a link");
    }
    let root = lab.run_dir("");
    for command in &shown {
        let _ = run(command, &root, &[("path/to/slake", "data/target")]);
    }
    assert!(root.join("runs/my-run/report.html").is_file(), "the run has come to its end");
}

/// Fails when a first run on Slurm, its drain, or going on with it does not work as the README shows it, settings
/// included.
#[test]
fn what_the_readme_says_about_slurm_works_as_it_stands() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let settings = blocks(&readme(), "On a Slurm cluster", "toml").concat();
    let lab = lab();
    lab.amend(|text| {
        // Pretended GPUs compute nothing, and the partition has another name here.
        let settings = settings.replace("\"cuda\"", "\"cpu\"").replace("\"gpu\"", "\"main\"");
        let (cluster, slurm) = settings.split_once("[cluster.slurm]").expect("Slurm's settings");
        text.replace("[cluster]\n", cluster) + "\n[cluster.slurm]" + slurm
    });
    let shown = commands(&readme(), Some("On a Slurm cluster"));
    let submits = |command: &&Shown| {
        let typed = &command.typed;
        typed.contains("launch") && !typed.contains("--dry-run") && !typed.contains("--wait")
    };
    assert_eq!(shown.iter().filter(submits).count(), 2, "a run, and one for each seed: {shown:?}");
    let root = lab.run_dir("");
    for command in &shown {
        let said = run(command, &root, &[("medevo-coord", &slurm.with_conf("medevo-coord"))]);
        if submits(&command) {
            assert!(said.stdout.contains("submitted job"), "{}", said.said());
            if command.typed.contains("--seeds") {
                until("both seeds' runs are over", || slurm.jobs().is_empty());
            } else {
                lab.until_committed("runs/my-run", 2);
            }
        }
    }
    for name in ["my-run", "my-run-s0", "my-run-s1"] {
        let history = History::read(&root.join("runs").join(name));
        let last = history.of("finished").last().expect("it has ended").to_string();
        assert!(last.contains("Done"), "{name}: {last}");
    }
}
