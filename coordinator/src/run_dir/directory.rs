//! Where things lie in a run directory, and when a directory may become one.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use medevo_common::config::RunConfig;
use medevo_types::Digest;

use super::{
    atomic::write_atomic, evaluation::EvaluationRecord, events::EventLog, samples::SampleLog,
    status::Status,
};

/// The folder of scored candidates that no checkpoint stands behind yet.
pub const ROLLOUTS: &str = "rollouts";

/// A run directory. Only its owner may look inside (mode 700): questions and answers lie in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl AsRef<Path> for RunDir {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl RunDir {
    /// Makes a new run directory at `path` (its parents too) and writes the resolved run file into it.
    ///
    /// # Errors
    /// The folder already holds a run, or something else; nothing in it is changed then.
    pub fn create(path: &Path, config: &RunConfig) -> anyhow::Result<Self> {
        let shown = path.display();
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if path.join("run.toml").is_file() {
                    bail!(
                        "{shown} already holds a run; continue it with `medevo-coord resume {shown}`, or \
                         name another directory (run.dir)"
                    );
                }
                if entries.next().is_some() {
                    bail!(
                        "{shown} is not empty and holds no run; name an empty or a new directory (run.dir)"
                    );
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                    fs::create_dir_all(parent)
                        .with_context(|| format!("{} cannot be made", parent.display()))?;
                }
                DirBuilder::new()
                    .mode(0o700)
                    .create(path)
                    .with_context(|| format!("the run directory {shown} cannot be made"))?;
            }
            Err(e) => {
                return Err(e).with_context(|| format!("the run directory {shown} cannot be used"));
            }
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("{shown} cannot be made private"))?;
        let path = path.canonicalize().with_context(|| format!("{shown} cannot be used"))?;
        let dir = Self { path };
        let text = toml::to_string_pretty(config).context("the run file cannot be written out")?;
        let head = "# The run as it was started: defaults and overrides resolved.\n\n";
        // The run file first: from then on the folder is a run, and opening makes what is missing.
        write_atomic(&dir.config_file(), format!("{head}{text}").as_bytes())?;
        dir.make_folders()?;
        Ok(dir)
    }

    /// Opens the directory of a run that was started before.
    ///
    /// # Errors
    /// There is no run in it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let path =
            path.canonicalize().with_context(|| format!("there is no run directory at {shown}"))?;
        if !path.join("run.toml").is_file() {
            bail!("{shown} is no run directory: it has no run.toml");
        }
        Ok(Self { path })
    }

    /// Makes the folders inside that are not there yet: a crash while a run was being set up may have left
    /// some out. Whoever writes into an opened directory calls this first.
    ///
    /// # Errors
    /// Names the folder that cannot be made.
    pub fn make_folders(&self) -> anyhow::Result<()> {
        let rollouts = self.path.join(ROLLOUTS);
        for folder in [self.checkpoints(), self.evaluations(), self.logs(), rollouts] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        Ok(())
    }

    /// The directory itself; absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved run file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path.join("run.toml")
    }

    /// Reads the resolved run file.
    ///
    /// # Errors
    /// It was damaged or written by another version; all problems are named.
    pub fn config(&self) -> anyhow::Result<RunConfig> {
        Ok(RunConfig::load(&self.config_file(), &[])?)
    }

    /// BLAKE3 of the resolved run file, as checkpoint manifests carry it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn config_digest(&self) -> anyhow::Result<Digest> {
        let path = self.config_file();
        let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(Digest(blake3::hash(&text).to_hex().to_string()))
    }

    /// The event stream's file.
    #[must_use]
    pub fn events_file(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// Opens the event stream for appending.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn event_log(&self) -> anyhow::Result<EventLog> {
        EventLog::open(&self.events_file())
    }

    /// The file of scored groups.
    #[must_use]
    pub fn samples_file(&self) -> PathBuf {
        self.path.join("samples.jsonl")
    }

    /// Opens the file of scored groups for appending.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn sample_log(&self) -> anyhow::Result<SampleLog> {
        SampleLog::open(&self.samples_file())
    }

    /// The folder of evaluations.
    #[must_use]
    pub fn evaluations(&self) -> PathBuf {
        self.path.join("evaluations")
    }

    /// All evaluations so far.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn read_evaluations(&self) -> anyhow::Result<Vec<EvaluationRecord>> {
        EvaluationRecord::read_all(&self.evaluations())
    }

    /// The folder of checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The folder of the workers' logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The log of one worker.
    #[must_use]
    pub fn worker_log(&self, worker: &str) -> PathBuf {
        self.logs().join(format!("worker-{worker}.log"))
    }

    /// The embedded store.
    #[must_use]
    pub fn store_file(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// The coordinator's log.
    #[must_use]
    pub fn coordinator_log(&self) -> PathBuf {
        self.logs().join("coordinator.log")
    }

    /// What an operator asks of the run.
    #[must_use]
    pub fn request_file(&self) -> PathBuf {
        self.path.join("request.json")
    }

    /// The report.
    #[must_use]
    pub fn report_file(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// The status file.
    #[must_use]
    pub fn status_file(&self) -> PathBuf {
        self.path.join("status.json")
    }

    /// Reads the status; none before the run has written one.
    ///
    /// # Errors
    /// The file cannot be read or was written by another version.
    pub fn status(&self) -> anyhow::Result<Option<Status>> {
        Status::read(&self.status_file())
    }
}
