//! A run file for the tests beside.

use medevo_common::config::RunConfig;

/// A run file that says this of its cluster.
pub(super) fn config(cluster: &str) -> RunConfig {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.toml");
    let text = format!(
        "[run]\nname = \"small\"\n[model]\npath = \"/m\"\n[data.d]\npath = \"/d\"\nformat = \"slake\"\n\
         [[stage]]\nkind = \"evaluate\"\nname = \"e\"\ndata = [\"d\"]\n{cluster}"
    );
    std::fs::write(&file, text).expect("written");
    RunConfig::load(&file, &[]).expect("a run file")
}
