//! A disk that fills up in the middle of a run.

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::wait,
    small_disk::SmallDisk,
};

/// Fails when a run on a full disk hangs, hides why it stopped, or cannot be taken up where it was.
#[test]
fn a_disk_that_fills_up_stops_the_run_by_name_and_costs_nothing_but_time() {
    let lab = Lab::new();
    let _ = lab.run("whole", 2);
    let whole = lab.run_dir("whole");
    let at = lab.run_dir("disk");
    let Some(disk) = SmallDisk::mount(&at, 200) else { return };
    let dir = at.join("run");
    let child = lab.launch("disk/run", 2).spawn().expect("the coordinator starts");
    lab.until_committed("disk/run", 6);
    let ballast = at.join("ballast");
    // Writes until there is no room left.
    let full = std::fs::write(&ballast, vec![1; 300 << 20]).expect_err("the disk is full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let said = wait(child).expect_code(1);
    assert!(said.stderr.contains("No space left"), "{}", said.said());
    assert!(!said.stderr.contains("panicked"), "{}", said.said());
    std::fs::remove_file(&ballast).expect("removed");
    let _ = lab.resume("disk/run", 2).expect_code(0);
    let history = History::read(&dir);
    history.check(STEPS);
    let same = history.last_state(&dir) == History::read(&whole).last_state(&whole);
    assert!(same, "INV-7: other weights than those of a run with room");
    drop(disk);
}
