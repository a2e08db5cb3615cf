//! INV-5: a manifest names only files that are wholly written and whose hashes match.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{fs, path::Path};

use medevo_common::manifest::{
    FORMAT, MANIFEST_FILE, Manifest, ManifestPosition, ManifestProblem, hash_file,
};
use medevo_types::{Digest, PolicyVersion, Step, messages::FileEntry};
use proptest::prelude::*;

fn checkpoint(dir: &Path, files: &[(&str, Vec<u8>)]) -> Manifest {
    let files = files
        .iter()
        .map(|(name, contents)| {
            fs::write(dir.join(name), contents).unwrap();
            let (bytes, digest) = hash_file(&dir.join(name)).unwrap();
            FileEntry { name: (*name).to_owned(), bytes, digest }
        })
        .collect();
    Manifest {
        format: FORMAT,
        run_id: "demo-s1".into(),
        step: Step(40),
        policy: PolicyVersion(38),
        position: ManifestPosition { stage: 2, done: 40, extra: 0 },
        config: Digest("c".repeat(64)),
        seed: 1,
        holding: Digest("d".repeat(64)),
        reference: Some("checkpoints/step-000000".into()),
        files,
        written_at: 1_700_000_000,
    }
}

fn two_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![("model.safetensors", vec![7; 1000]), ("optimizer.safetensors", vec![9; 500])]
}

/// The layout on disk is a contract with earlier and later builds: a change needs a new format number.
#[test]
fn the_json_is_as_it_always_was() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path(), &[("model.safetensors", b"abc".to_vec())]).write(dir.path()).unwrap();
    let text = fs::read_to_string(dir.path().join(MANIFEST_FILE)).unwrap();
    let expected = format!(
        r#"{{
  "format": 1,
  "run_id": "demo-s1",
  "step": 40,
  "policy": 38,
  "position": {{
    "stage": 2,
    "done": 40
  }},
  "config": "{}",
  "seed": 1,
  "holding": "{}",
  "reference": "checkpoints/step-000000",
  "files": [
    {{
      "name": "model.safetensors",
      "bytes": 3,
      "digest": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    }}
  ],
  "written_at": 1700000000
}}
"#,
        "c".repeat(64),
        "d".repeat(64)
    );
    assert_eq!(text, expected);
}

#[test]
fn what_is_written_reads_back_and_leaves_nothing_else_behind() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = checkpoint(dir.path(), &two_files());
    manifest.write(dir.path()).unwrap();
    assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
    manifest.verify(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn inv_5_a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = checkpoint(dir.path(), &two_files());
    fs::remove_file(dir.path().join("optimizer.safetensors")).unwrap();
    let problem = manifest.verify(dir.path()).unwrap_err();
    assert!(
        matches!(&problem, ManifestProblem::Missing(p) if p.ends_with("optimizer.safetensors"))
    );
}

#[test]
fn a_name_that_leads_out_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["../model.safetensors", "/etc/passwd", "a/b", "", ".."] {
        let mut manifest = checkpoint(dir.path(), &two_files());
        manifest.files[0].name = name.into();
        assert!(matches!(manifest.verify(dir.path()), Err(ManifestProblem::Name(_))), "{name:?}");
    }
}

#[test]
fn another_format_and_a_torn_manifest_say_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Manifest::read(dir.path()).unwrap_err();
    assert!(matches!(missing, ManifestProblem::Unreadable { .. }));
    fs::write(dir.path().join(MANIFEST_FILE), r#"{"format": 2, "shards": []}"#).unwrap();
    let format = Manifest::read(dir.path()).unwrap_err();
    assert!(matches!(format, ManifestProblem::Format { found: 2, .. }));
    fs::write(dir.path().join(MANIFEST_FILE), r#"{"format": 1, "run_"#).unwrap();
    let torn = Manifest::read(dir.path()).unwrap_err();
    assert!(matches!(torn, ManifestProblem::Unreadable { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any cut and any flipped bit of any file is found, and the damaged file is the one named.
    #[test]
    fn inv_5_damage_is_found(
        contents in proptest::collection::vec(any::<u8>(), 1..300),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        cut in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let manifest =
            checkpoint(dir.path(), &[("a.safetensors", vec![1; 10]), ("b.safetensors", contents.clone())]);
        let mut damaged = contents.clone();
        let at = at.index(contents.len());
        if cut {
            damaged.truncate(at);
        } else {
            damaged[at] ^= 1 << bit;
        }
        fs::write(dir.path().join("b.safetensors"), &damaged).unwrap();
        match manifest.verify(dir.path()) {
            Err(ManifestProblem::Size { path, expected, found }) => {
                prop_assert!(cut && path.ends_with("b.safetensors"));
                prop_assert_eq!((expected, found), (contents.len() as u64, at as u64));
            }
            Err(ManifestProblem::Contents(path)) => {
                prop_assert!(!cut && path.ends_with("b.safetensors"));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
