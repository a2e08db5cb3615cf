//! `certs`: what it makes is private, works, and is never overwritten.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use medevo_rpc::{COORDINATOR_NAME, Certificate, Security};

fn certs(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medevo-coord"));
    let output = command.arg("certs").args(args).output().expect("the binary starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn init_makes_private_keys_and_certificates_that_both_sides_can_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("deep/certs");
    let shown = dir.to_string_lossy();
    let (code, said) = certs(&[
        "init",
        &shown,
        "--name",
        "node-a.example.org",
        "--name",
        "10.0.0.5",
        "--days",
        "90",
    ]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("only needed to make further certificates"), "{said}");
    assert_eq!(mode(&dir), 0o700);
    for key in ["ca.key", "coordinator.key", "worker.key"] {
        assert_eq!(mode(&dir.join(key)), 0o600, "{key}");
    }
    Security::of_coordinator(Some(&dir)).expect("the coordinator can use them");
    Security::of_worker(Some(&dir)).expect("a worker can use them");
    let coordinator = Certificate::read(&dir.join("coordinator.pem")).expect("a certificate");
    assert_eq!(coordinator.holds_for, [COORDINATOR_NAME, "node-a.example.org", "10.0.0.5"]);
    assert!((89..=90).contains(&coordinator.days_left()), "{}", coordinator.days_left());

    let before = fs::read(dir.join("ca.key")).expect("a key");
    let (code, said) = certs(&["init", &shown]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("never overwritten"), "{said}");
    assert_eq!(fs::read(dir.join("ca.key")).expect("a key"), before);
}

#[test]
fn show_tells_names_and_days_and_what_runs_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("certs");
    let shown = dir.to_string_lossy();
    assert_eq!(certs(&["init", &shown, "--days", "5"]).0, Some(0));
    let (code, said) = certs(&["show", &shown]);
    assert_eq!(code, Some(0), "{said}");
    for word in ["medevo CA", "medevo worker", COORDINATOR_NAME, "make new ones"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (code, said) = certs(&["show", &folder.path().to_string_lossy()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("certs init"), "{said}");
}
