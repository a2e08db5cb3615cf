//! `request.json`: what an operator asks of the run, from any machine that sees its directory.
//!
//! A request is of the run and not of one process: whoever leads heeds it, and standbys leave with it. It lies there
//! until the run is started again on purpose (`launch`, `resume`, `serve`), which takes it away.

use std::{fs, io, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{RunDir, process::host, time::now_ms, write_atomic};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Stop after the current step, with a checkpoint.
    Drain,
    /// Stop at once; steps behind the last checkpoint are done again.
    Stop,
}

/// A request. Two that differ in anything are two requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What is asked.
    pub wish: Wish,
    /// When, milliseconds since 1970 by the asker's clock.
    pub at: u64,
    /// Who: a process and its host.
    pub by: String,
}

impl Request {
    /// A request of this process, now.
    #[must_use]
    pub fn new(wish: Wish) -> Self {
        let by = format!("process {} on {}", std::process::id(), host());
        Self { wish, at: now_ms(), by }
    }
}

impl RunDir {
    /// Asks; takes the place of what was asked before.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn ask(&self, request: &Request) -> anyhow::Result<()> {
        let text = serde_json::to_vec(request).context("encoding a request")?;
        write_atomic(&self.request_file(), &text)
    }

    /// What is asked, if anything. A file that is no request asks nothing.
    #[must_use]
    pub fn asked(&self) -> Option<Request> {
        read(&self.request_file())
    }

    /// Takes away what was asked of the run before.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn forget_requests(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.request_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.request_file().display()))
            }
            _ => Ok(()),
        }
    }
}

fn read(file: &Path) -> Option<Request> {
    let text = fs::read(file).ok()?;
    serde_json::from_slice(&text)
        .inspect_err(|error| tracing::warn!("{} is no request: {error}", file.display()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a damaged file stops a run, or a request does not come out as it went in.
    #[test]
    fn what_is_asked_is_read_and_nonsense_asks_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("run.toml"), "").expect("a file");
        let run_dir = RunDir::open(folder.path()).expect("a run");
        assert_eq!(run_dir.asked(), None);
        let request = Request::new(Wish::Drain);
        run_dir.ask(&request).expect("written");
        assert_eq!(run_dir.asked(), Some(request));
        fs::write(run_dir.request_file(), "{").expect("written");
        assert_eq!(run_dir.asked(), None);
        run_dir.forget_requests().expect("removed");
        run_dir.forget_requests().expect("nothing to remove is no error");
    }
}
