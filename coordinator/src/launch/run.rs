//! What `launch` is asked for.

use std::path::PathBuf;

use clap::Args;

use super::On;

/// Start a run.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The run file (TOML); `docs config` explains every key. Slurm: or the directory of a run that exists.
    pub file: PathBuf,
    /// Where to run it (default: `slurm` inside a Slurm job or where `sinfo` finds a cluster, else `local`).
    #[arg(long, value_enum)]
    pub on: Option<On>,
    /// Override a key of the run file, as often as needed (`run.seed=3`, `stage.adapt.steps=10`).
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Workers on this machine; 0 waits for workers from elsewhere.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Run directory (default: `run.dir`, else `runs/<name>`).
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// File with the join token, instead of the environment variable MEDEVO_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Check everything, say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Start even if the workers need more memory than they have, as `plan` estimates it.
    #[arg(long)]
    pub ignore_memory: bool,
    /// Slurm and Kubernetes: stay until the run ends, with its exit code.
    #[arg(long)]
    pub wait: bool,
    /// Slurm: an array of runs, one for each of these seeds (`0-4`, `1,3,7`, `0-9%2` for two at a time), named
    /// `<name>-s<seed>`.
    #[arg(long, value_name = "SEEDS")]
    pub seeds: Option<String>,
}
