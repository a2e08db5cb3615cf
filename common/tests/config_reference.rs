//! docs/config.md is generated; this fails when it has not kept up with the code.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{fs, path::Path};

use medevo_common::config::reference_markdown;

#[test]
fn docs_config_md_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let generated = reference_markdown();
    if std::env::var_os("MEDEVO_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &generated).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == generated,
        "docs/config.md is not what the code says; run \
         `MEDEVO_BLESS=1 cargo test -p medevo-common --test config_reference` and look at the change"
    );
}

#[test]
fn every_key_has_a_meaning() {
    for line in reference_markdown().lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.split(" | ").collect();
        assert!(cells.len() >= 4 && cells[3].trim_end_matches(" |").len() > 3, "{line}");
    }
}
