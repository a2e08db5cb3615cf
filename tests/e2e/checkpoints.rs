//! Checkpoints on bad disks: a byte that changed, no room left.

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{coord, finish, must},
    small_disk::SmallDisk,
};

/// Fails when a damaged checkpoint is trusted, passed over in silence, or costs more than the steps behind
/// the one before it (INV-5, INV-7).
#[test]
fn a_changed_byte_in_the_newest_checkpoint() {
    let lab = Lab::new();
    let _ = lab.run("whole", 2);
    let whole = lab.run_dir("whole");
    let dir = lab.run_dir("run");
    let mut command = lab.launch("run", 2);
    command.env("MEDEVO_COORD_FAULT", "updating@8");
    let killed = finish(command);
    assert_eq!(killed.status.code(), None, "killed by a signal: {}", killed.said());
    let crashed = must(coord(["status", &dir.to_string_lossy()]));
    assert!(crashed.stdout.contains("medevo-coord resume"), "{}", crashed.said());
    let _ = must(coord(["report", &dir.to_string_lossy()]));

    let newest = History::read(&dir).last_checkpoint(&dir).join("model.safetensors");
    let mut bytes = std::fs::read(&newest).expect("the newest checkpoint's weights");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).expect("written");
    let said = lab.resume("run", 2).expect_code(0);
    assert!(said.stderr.contains("is not whole"), "said aloud: {}", said.said());
    assert!(said.stderr.contains("step-000006"), "by name: {}", said.said());
    let history = History::read(&dir);
    history.check(STEPS);
    assert_eq!(history.of("checkpoint_passed_over").count(), 1, "and on record");
    let back = history.of("rolled_back").last().expect("a rollback");
    assert_eq!(back["to"], 4, "the checkpoint before it is that of step 4");
    let same = history.last_weights(&dir) == History::read(&whole).last_weights(&whole);
    assert!(same, "other weights than those of an uninterrupted run: {}", said.said());
}

/// Fails when a checkpoint that did not fit is published, when what it left fills the disk for everything
/// else, or when the run cannot be taken up once there is room.
#[test]
fn no_room_for_a_checkpoint() {
    let lab = Lab::new();
    let at = lab.run_dir("disk");
    let Some(disk) = SmallDisk::mount(&at, 12) else { return };
    let dir = at.join("run");
    let said = finish(lab.launch("disk/run", 2)).expect_code(1);
    assert!(said.stderr.contains("No space left"), "{}", said.said());
    assert!(said.stderr.contains("free some space"), "what to do is named: {}", said.said());
    assert!(!said.stderr.contains("panicked"), "{}", said.said());
    let history = History::read(&dir);
    assert!(history.of("checkpoint_failed").next().is_some(), "{}", said.said());
    assert_eq!(history.of("checkpoint_published").count(), 0);
    let left = std::fs::read_dir(dir.join("checkpoints")).expect("the folder").count();
    assert_eq!(left, 0, "nothing half-written is left");
    disk.resize(200);
    let _ = lab.resume("disk/run", 2).expect_code(0);
    History::read(&dir).check(STEPS);
}
