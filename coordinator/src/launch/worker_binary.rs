//! Where the worker's binary is.

use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const NAME: &str = "medevo-worker";

/// The `medevo-worker` next to this executable, or else the first on `PATH`.
///
/// # Errors
/// Says where it was looked for.
pub fn find() -> anyhow::Result<PathBuf> {
    let beside = env::current_exe().ok().and_then(|this| Some(this.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = beside.iter().cloned().chain(env::split_paths(&path));
    found.map(|dir| dir.join(NAME)).find(|file| executable(file)).ok_or_else(|| {
        let beside = beside.map_or_else(|| "its folder".into(), |dir| dir.display().to_string());
        anyhow::anyhow!(
            "the worker's binary `{NAME}` is neither beside this executable ({beside}) nor on PATH; build \
             it with `cargo build --release -p medevo-worker`"
        )
    })
}

fn executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
