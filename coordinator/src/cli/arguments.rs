//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use medevo_common::config::DataFormat;

use super::operator;
use crate::launch::Run;

const EXAMPLES: &str = "\
Examples:
  medevo-coord launch run.toml --workers 2 --set run.seed=3
  medevo-coord launch run.toml --set stage.adapt.steps=10 --dry-run
  medevo-coord status runs/demo
  medevo-coord resume runs/demo
  medevo-coord compare runs/demo-s0 runs/demo-s1 runs/ttrl-s0

Exit codes:
  0  done
  1  failed; the reason is on standard error
  2  bad input; nothing was started
  3  drained on request (Ctrl-C, SIGTERM, a closed terminal, `drain`); `resume` goes on
  4  another coordinator has taken the run over and leads it now
  5  stopped at once on request (a second Ctrl-C, `stop --now`); `resume` goes on from the last checkpoint
  6  the run goes on without this command (Ctrl-C during `launch --wait`)

Environment:
  RUST_LOG      what to log to standard error (default: warn,tarpc=error)
  MEDEVO_TOKEN  join token, so that workers elsewhere can take part (default: a new one per run)
  MEDEVO_ALIVE  file that is touched while this coordinator leads and its loop turns, or stands by";

/// Label-free reinforcement learning of medical vision-language models at test time.
#[derive(Debug, Parser)]
#[command(name = "medevo-coord", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a run, here or on a cluster.
    ///
    /// On this machine it stays until the run ends: Ctrl-C, SIGTERM or closing the terminal stops after the current step, with a checkpoint; a second one stops at once.
    ///
    /// On Slurm it submits a job, writes the batch script into the run directory and says how to watch; inside of a job it
    /// starts the run right there. [cluster.slurm] of the run file says what the job asks for. A job that its time
    /// limit or another job ends is queued again, and the run goes on by itself. A run directory in the place of the run
    /// file goes on with its run in a new job.
    #[command(
        after_help = "Examples:\n  medevo-coord launch run.toml\n  medevo-coord launch run.toml \
                            --workers 2 --set stage.adapt.objective.beta=0.1\n\nExit codes: see `medevo-coord --help`."
    )]
    Launch(Run),
    /// Lead a run whose workers come by themselves, or stand by for the coordinator that does.
    ///
    /// Workers find whoever leads with `medevo-worker join --run-dir DIR`. With the embedded store all coordinators are
    /// on one machine; with `store.kind = "etcd"` they may be anywhere that sees the run directory. A standby goes on
    /// from the last committed step, and workers keep their weights.
    #[command(
        after_help = "Examples:\n  medevo-coord serve run.toml --run-dir /shared/runs/x\n  medevo-coord serve \
                            /shared/runs/x --standby\n\nExit codes: see `medevo-coord --help`."
    )]
    Serve {
        /// The run file (TOML), or the directory of a run that exists.
        target: PathBuf,
        /// Override a key of the run file, as often as needed.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Run directory (default: `run.dir`, else `runs/<name>`).
        #[arg(long, value_name = "DIR")]
        run_dir: Option<PathBuf>,
        /// File with the join token (default: MEDEVO_TOKEN, else the token in the run directory).
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Host name or address, without port, at which workers reach this coordinator (default: `cluster.advertise`).
        #[arg(long, value_name = "HOST")]
        advertise: Option<String>,
        /// Wait while another coordinator leads, and take over when it is gone.
        #[arg(long)]
        standby: bool,
    },
    /// Estimate the memory that each worker needs, and the tokens of a step; say whether it fits.
    ///
    /// Needs the run file, its data and the model's config.json; no weights. `launch` makes the same estimate and
    /// refuses a run that does not fit.
    #[command(
        after_help = "Examples:\n  medevo-coord plan run.toml --device-memory 80GiB\n  medevo-coord plan run.toml \
                            --set train.recompute=true --workers 8\n\nExit codes: 0 it fits, 2 it does not, or \
                            bad input."
    )]
    Plan(Plan),
    /// Go on with a run from its last good checkpoint.
    ///
    /// Steps behind that checkpoint are done again. A checkpoint whose files have changed is passed over for
    /// the one before it. A run that is done is left as it is.
    #[command(
        after_help = "Examples:\n  medevo-coord resume runs/demo\n  medevo-coord resume runs/demo --workers \
                            4\n\nExit codes: see `medevo-coord --help`."
    )]
    Resume {
        /// The run directory.
        run_dir: PathBuf,
        /// Workers on this machine (default: as before).
        #[arg(long)]
        workers: Option<usize>,
        /// File with the join token, instead of the environment variable MEDEVO_TOKEN.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// Fetch a checkpoint's copy into a fresh directory and verify it.
    ///
    /// The URL is that of a copy, or of a run's copies, where the newest is taken. The directory then opens in
    /// transformers, and can be evaluated or trained further as it lies there.
    #[command(
        after_help = "Examples:\n  medevo-coord fetch s3://bucket/runs/demo checkpoint\n  medevo-coord fetch \
                            file:///mnt/copies/demo/step-000040 runs/demo/checkpoints/step-000040\n\nEnvironment: \
                            AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.\n\nExit codes: \
                            0 fetched and whole, 1 not, and nothing is left."
    )]
    Fetch {
        /// `s3://BUCKET/PREFIX/RUN[/step-NNNNNN]` or `file:///...`.
        url: String,
        /// A directory that is not there yet.
        dir: PathBuf,
        /// Address of an S3-compatible store, instead of AWS_ENDPOINT_URL.
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
    },
    /// Say where a run stands and what it waits for.
    #[command(
        after_help = "Examples:\n  medevo-coord status runs/demo\n  medevo-coord status runs/demo \
                            --json\n  medevo-coord status runs/demo --watch\n  medevo-coord status k8s:medevo/demo\n\nExit codes: 0; with --watch those of \
                            `launch`, and 1 if the coordinator is gone without a word."
    )]
    Status(operator::Status),
    /// Stop a run after its current step, with a checkpoint, and wait until it has.
    ///
    /// Works from any machine that sees the run directory, and for standbys too. `resume` goes on.
    #[command(
        after_help = "Examples:\n  medevo-coord drain runs/demo\n  medevo-coord drain runs/demo --no-wait\n\nExit \
                            codes: 0 stopped, or there was nothing to stop; 1 it failed, or has not stopped in time; 2 no \
                            run."
    )]
    Drain(operator::Drain),
    /// Stop a run: drain it, and if that takes longer than the grace, at once.
    ///
    /// At once means without a checkpoint: `resume` does the steps behind the last one again. A coordinator on this
    /// machine that heeds nothing is killed after 40 s; its workers go with it.
    #[command(
        after_help = "Examples:\n  medevo-coord stop runs/demo\n  medevo-coord stop runs/demo --grace 30\n  \
                            medevo-coord stop runs/demo --now\n\nExit codes: 0 stopped, or there was nothing to stop; 1 \
                            it failed, or cannot be stopped from here; 2 no run."
    )]
    Stop(operator::Stop),
    /// Print what coordinator and workers have logged, in the order of time.
    #[command(
        after_help = "Examples:\n  medevo-coord logs runs/demo --since 10m\n  medevo-coord logs runs/demo --worker w1 \
                            -f\n\nLogs hold no questions and no answers. Workers that were started elsewhere log \
                            where they were started."
    )]
    Logs(operator::Logs),
    /// Check what a run needs where it stands, and say what to do about what is missing.
    ///
    /// Checks the worker's libtorch, CUDA, NCCL and GPUs, model, data, run directory, store, copies and network; with
    /// --nodes also what is between this machine and others.
    #[command(
        after_help = "Examples:\n  medevo-coord doctor\n  medevo-coord doctor run.toml\n  medevo-coord doctor runs/demo \
                            --nodes 2\n\nExit codes: 0 nothing failed (there may be warnings), 1 something did, 2 bad \
                            input."
    )]
    Doctor(operator::Doctor),
    /// Measure a model on a data set with answers.
    #[command(
        after_help = "Example:\n  medevo-coord evaluate --model checkpoints/step-000150 --data \
                            SLAKE --format slake --split test"
    )]
    Evaluate(Evaluate),
    /// Write the report of a run (report.html) again, also of one that is still going on.
    #[command(after_help = "Example:\n  medevo-coord report runs/demo")]
    Report {
        /// The run directory.
        run_dir: PathBuf,
    },
    /// Compare runs in one table; runs whose names differ only in a trailing `-s<seed>` share a row.
    #[command(
        after_help = "Example:\n  medevo-coord compare runs/demo-s0 runs/demo-s1 runs/ttrl-s0"
    )]
    Compare {
        /// The run directories.
        #[arg(required = true)]
        run_dirs: Vec<PathBuf>,
    },
    /// Check or generate data.
    #[command(subcommand)]
    Data(DataCommand),
    /// Make or show the certificates with which coordinator and workers secure their connections.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Print generated documentation.
    #[command(subcommand)]
    Docs(operator::Docs),
    /// Print a shell's completions.
    #[command(
        after_help = "Examples:\n  source <(medevo-coord completions bash)\n  medevo-coord completions zsh > \
                            ~/.zfunc/_medevo-coord\n  medevo-coord completions fish > \
                            ~/.config/fish/completions/medevo-coord.fish"
    )]
    Completions(operator::Completions),
}

/// Estimate what a run needs.
#[derive(Debug, Args)]
pub struct Plan {
    /// The run file (TOML).
    pub file: PathBuf,
    /// Override a key of the run file, as often as needed.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Workers (default: as the run file says).
    #[arg(long)]
    pub workers: Option<usize>,
    /// Memory of each worker's GPU (default: `cluster.device_memory_gib`, else this machine's memory, shared evenly
    /// among its workers).
    #[arg(long, value_name = "SIZE", value_parser = crate::budget::parse)]
    pub device_memory: Option<u64>,
    /// Print everything as JSON, sizes in bytes.
    #[arg(long)]
    pub json: bool,
}

/// Measure a model on a data set with answers.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// Hugging Face directory, or that of an adapter; a checkpoint for example.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// SLAKE directory or JSONL file.
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Layout of the data.
    #[arg(long)]
    pub format: Format,
    /// SLAKE: which split.
    #[arg(long, default_value = "test")]
    pub split: String,
    /// SLAKE: language of the questions; empty takes all.
    #[arg(long, default_value = "en")]
    pub language: String,
    /// Only the first so many questions; 0 takes all.
    #[arg(long, default_value_t = 0)]
    pub limit: usize,
    /// Also measure the majority of so many answers drawn at temperature 1; 0 does not.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub majority: usize,
    /// Longest answer, tokens.
    #[arg(long, default_value_t = 32)]
    pub max_new_tokens: usize,
    /// Workers on this machine.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: u16,
    /// Seed of drawn answers and of the intervals.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Where to keep the answers (default: a folder in the system's temporary directory).
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

/// Layout of a data set.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// SLAKE: json files and `imgs/`.
    Slake,
    /// One JSON object a line.
    Jsonl,
}

impl From<Format> for DataFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Slake => Self::Slake,
            Format::Jsonl => Self::Jsonl,
        }
    }
}

/// Check or generate data.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read a data set, decode every image, and name all problems at once.
    #[command(
        after_help = "Examples:\n  medevo-coord data check SLAKE\n  medevo-coord data check \
                            questions.jsonl\n\nExit codes: 0 clean, 2 problems."
    )]
    Check {
        /// SLAKE directory or JSONL file.
        path: PathBuf,
    },
    /// Generate mini-SLAKE: schematic scans in SLAKE's layout, deterministic by seed.
    #[command(after_help = "Example:\n  medevo-coord data mini-slake runs/mini-slake --seed 7")]
    MiniSlake(MiniSlakeArguments),
}

/// What to generate.
#[derive(Debug, Args)]
pub struct MiniSlakeArguments {
    /// Folder to make.
    pub out: PathBuf,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Labelled images of the source domain (default: 4000).
    #[arg(long)]
    pub source_images: Option<usize>,
    /// Unlabelled images of the target domain (default: 150).
    #[arg(long)]
    pub target_images: Option<usize>,
    /// Held-out images of the target domain (default: 150).
    #[arg(long)]
    pub heldout_images: Option<usize>,
    /// Questions on each target image, 1 to 5 (default: 4).
    #[arg(long)]
    pub questions_per_image: Option<usize>,
}

/// Make or show certificates.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make a run's own CA, and certificates for its coordinator and its workers.
    #[command(
        after_help = "Examples:\n  medevo-coord certs init certs\n  medevo-coord certs init certs --name \
                            gpu1.example.org --name 10.0.0.5 --days 90\n  medevo-coord launch run.toml --set \
                            cluster.certificates=certs --set cluster.listen=0.0.0.0:7000\n\nExit codes: 0 made, 2 \
                            the directory is not empty."
    )]
    Init {
        /// Directory to make; nothing is overwritten.
        dir: PathBuf,
        /// A host name or address that the coordinator's certificate also holds for, as often as needed. Workers
        /// do not ask for one; other programs may.
        #[arg(long, value_name = "HOST_OR_IP")]
        name: Vec<String>,
        /// How long the certificates hold.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Print names and days left.
    #[command(
        after_help = "Example:\n  medevo-coord certs show certs\n\nExit codes: 0 all in force, 2 one has expired."
    )]
    Show {
        /// Directory of certificates.
        dir: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
