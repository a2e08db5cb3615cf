//! `fetch`: a checkpoint's copy into a directory.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use tokio::time::timeout;

use crate::{copies::fetch_url, launch::Exit, say::say};

/// Longest fetch: a day, for the largest checkpoint over the slowest line.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Fetches, verifies and says what it was.
pub(super) async fn fetch(
    url: String,
    dir: PathBuf,
    endpoint: Option<String>,
) -> anyhow::Result<Exit> {
    let fetch = fetch_url(&url, endpoint.as_deref(), &dir);
    let fetched = timeout(LONGEST, fetch).await.context("it took more than a day")??;
    let manifest = fetched.manifest;
    say(format!(
        "{}: step {} of run {}, {} files, {} bytes, all as the manifest says; in {}",
        fetched.url,
        manifest.step,
        manifest.run_id,
        manifest.files.len(),
        manifest.files.iter().map(|file| file.bytes).sum::<u64>(),
        dir.display()
    ));
    Ok(Exit::Done)
}
