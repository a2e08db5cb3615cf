//! What an operator types at a run that exists.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

/// Say where a run stands.
#[derive(Debug, Args)]
pub struct Status {
    /// The run directory; `k8s:RUN` or `k8s:NAMESPACE/RUN` for a run on Kubernetes.
    pub run_dir: PathBuf,
    /// Print the status file as it is; with --watch one line each time.
    #[arg(long)]
    pub json: bool,
    /// Go on until the run is over, looking every so many seconds (default: 1): redrawn in place on a terminal, one
    /// line each time that something has changed elsewhere.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    pub watch: Option<f64>,
}

/// Ask a run to stop after its current step.
#[derive(Debug, Args)]
pub struct Drain {
    /// The run directory; `k8s:RUN` or `k8s:NAMESPACE/RUN` for a run on Kubernetes.
    pub run_dir: PathBuf,
    /// Only ask; do not wait until the run has stopped.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0, value_parser = seconds)]
    pub timeout: f64,
}

/// Stop a run.
#[derive(Debug, Args)]
pub struct Stop {
    /// The run directory; `k8s:RUN` or `k8s:NAMESPACE/RUN` for a run on Kubernetes.
    pub run_dir: PathBuf,
    /// Stop at once, without a checkpoint.
    #[arg(long, conflicts_with = "grace")]
    pub now: bool,
    /// How long the run has to drain before it is stopped at once, seconds (on Kubernetes the pods' own grace).
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = seconds)]
    pub grace: f64,
}

/// Print the logs of a run.
#[derive(Debug, Args)]
pub struct Logs {
    /// The run directory; `k8s:RUN` or `k8s:NAMESPACE/RUN` for a run on Kubernetes.
    pub run_dir: PathBuf,
    /// Only the log of this worker; `coordinator` is the coordinator's, and on Slurm `workers` that of all workers.
    #[arg(long, value_name = "ID")]
    pub worker: Option<String>,
    /// Go on until the run is over.
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines from then on: 30s, 10m, 2h, 1d ago, or a moment in UTC (2026-03-01T12:00:00).
    #[arg(long, value_name = "TIME", value_parser = crate::logs::parse_since)]
    pub since: Option<String>,
}

/// Check what a run needs.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The run file, or the directory of a run that exists. Without one only this machine is checked.
    pub target: Option<PathBuf>,
    /// Override a key of the run file, as often as needed.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The run directory that is meant (default: `run.dir`, else `runs/<name>`).
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Wait for so many machines that run `medevo-worker probe --meet DIR`, and check what is between them and this
    /// one: the shared file system, their clocks, the network's speed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub nodes: usize,
    /// Name or address of this machine that the others reach it by (default: the machine's name).
    #[arg(long, value_name = "HOST")]
    pub address: Option<String>,
    /// How long to wait for them, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub timeout: f64,
    /// Print everything as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Print generated documentation.
#[derive(Debug, Subcommand)]
pub enum Docs {
    /// Every key of the run file.
    Config,
    /// Write a man page of each subcommand into a directory.
    #[command(after_help = "Example:\n  medevo-coord docs man ~/.local/share/man/man1")]
    Man {
        /// The directory; it is made.
        dir: PathBuf,
    },
}

/// Print a shell's completions.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell.
    pub shell: Shell,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=31_536_000.0).contains(&seconds) => Ok(seconds),
        Ok(_) => Err("give seconds, from 0.1 to 31536000 (a year)".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
