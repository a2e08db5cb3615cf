//! A file that is touched while this coordinator does what it should: what probes look at.

use std::{env, fs, path::PathBuf, time::Duration};

use tokio::{task::JoinHandle, time::interval};

/// Environment variable that names the file.
const VARIABLE: &str = "MEDEVO_ALIVE";
/// Pause between two touches while there is nothing to hang on.
const PAUSE: Duration = Duration::from_secs(1);

/// The file, if one was asked for.
#[derive(Clone, Debug)]
pub(super) struct Alive(Option<PathBuf>);

impl Alive {
    /// The file that the environment names.
    pub(super) fn from_env() -> Self {
        Self(env::var_os(VARIABLE).map(PathBuf::from))
    }

    /// All is well now.
    pub(super) fn touch(&self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::write(path, b"")
        {
            tracing::warn!("{VARIABLE}: {} cannot be written: {error}", path.display());
        }
    }

    /// All is well for as long as the process turns at all, until this is dropped: it only waits for others.
    pub(super) fn keep(&self) -> Kept {
        let alive = self.clone();
        Kept(tokio::spawn(async move {
            let mut pause = interval(PAUSE);
            loop {
                pause.tick().await;
                alive.touch();
            }
        }))
    }
}

/// Touches until it is dropped.
pub(super) struct Kept(JoinHandle<()>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe would take a hanging coordinator for a healthy one if the file were touched for ever.
    #[tokio::test]
    async fn it_is_kept_until_dropped() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("alive");
        let kept = Alive(Some(path.clone())).keep();
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        while !path.exists() {
            assert!(tokio::time::Instant::now() < until, "never touched");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(kept);
        tokio::task::yield_now().await;
        fs::remove_file(&path).expect("removed");
        tokio::time::sleep(PAUSE + PAUSE / 2).await;
        assert!(!path.exists(), "touched after the end");
    }
}
