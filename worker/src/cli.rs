//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tch::Device;

use crate::device;

const EXAMPLES: &str = "\
Examples:
  MEDEVO_TOKEN=... medevo-worker join --coordinator 10.0.0.5:7000 --worker-id w0 --address 10.0.0.6
  medevo-worker join --run-dir /shared/runs/x --worker-id w1 --address 10.0.0.7
  medevo-worker join --coordinator 10.0.0.5:7000 --worker-id w0 --token-file token --certificates certs
  medevo-worker generate --model DIR --image scan.jpg --question 'Is there a mass?' --greedy --json
  medevo-worker generate --model DIR --question 'What is MRI?' --n 8 --temperature 0.7 --seed 1
  medevo-worker logprobs --model DIR --input pairs.jsonl --json
  medevo-worker init --config ops/demo/tiny-qwen2.5-vl --seed 0 --out /tmp/tiny
  medevo-worker merge --adapter runs/x/checkpoints/step-000100 --out /tmp/merged

Exit codes: 0 done, 1 could not go on (the last line says why), 2 wrong arguments, 3 the run was drained
(`medevo-coord resume` goes on, with workers), 143 SIGTERM.
MEDEVO_ALIVE names a file that is touched each time that a worker asks for work.
RUST_LOG sets the log level (error, warn, info, debug); logs go to stderr and hold no questions or answers.";

/// Label-free test-time reinforcement learning: a worker, and its engine by hand.
#[derive(Debug, Parser)]
#[command(name = "medevo-worker", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a run and work for it until it is over.
    Join(JoinArgs),
    /// Answer one question with a model directory.
    Generate(GenerateArgs),
    /// Log-probabilities of given answers, token by token.
    Logprobs(LogprobsArgs),
    /// Write a model directory with random weights from a directory without weights.
    Init(InitArgs),
    /// Make a whole model directory of a base model and an adapter.
    Merge(MergeArgs),
    /// Say as JSON what this machine has; `medevo-coord doctor` asks.
    #[command(hide = true)]
    Probe(ProbeArgs),
    /// Print a shell's completions.
    Completions(CompletionsArgs),
    /// Write a man page of each subcommand into a directory.
    Man(ManArgs),
}

impl Command {
    /// Where it computes.
    #[must_use]
    pub fn device(&self) -> Device {
        match self {
            Self::Join(args) => args.device,
            Self::Generate(args) => args.device,
            Self::Logprobs(args) => args.device,
            // A probe looks for GPUs itself.
            Self::Init(_)
            | Self::Merge(_)
            | Self::Probe(_)
            | Self::Completions(_)
            | Self::Man(_) => Device::Cpu,
        }
    }
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The coordinator, HOST:PORT; it has to stay there.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, required_unless_present = "run_dir")]
    pub coordinator: Option<String>,
    /// The run's directory, instead of --coordinator: the coordinator that leads is found in it, or in the run's
    /// etcd, and found again when another takes over. The join token is read from it, too.
    #[arg(long, value_name = "DIR", conflicts_with = "coordinator")]
    pub run_dir: Option<PathBuf>,
    /// This worker's name, its own within the run.
    #[arg(long, value_name = "NAME", required_unless_present = "slurm")]
    pub worker_id: Option<String>,
    /// This is a task of a Slurm job step: name, GPU (with --device cuda) and address come from Slurm, and SIGTERM,
    /// which Slurm sends to tasks some time before it ends them, is passed on to the launcher on standard output.
    #[arg(long, requires = "run_dir", conflicts_with_all = ["worker_id", "address"])]
    pub slurm: bool,
    /// Device to compute on: cpu, cuda, or cuda:N for GPU N from 0.
    #[arg(long, default_value = "cpu", value_parser = device::parse)]
    pub device: Device,
    /// Name or IP address of this host at which the other workers reach it.
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    pub address: String,
    /// File with the run's join token, instead of the environment variable MEDEVO_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Directory with ca.pem, worker.pem and worker.key, for a coordinator with `cluster.certificates`.
    #[arg(long, value_name = "DIR")]
    pub certificates: Option<PathBuf>,
    /// How long to wait for a coordinator that is not up yet, seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub join_deadline: u64,
    /// How long to wait for a coordinator that has gone before leaving, seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub leader_grace: u64,
    /// How long to go on after SIGTERM or SIGINT with what other workers wait for, seconds; then the worker leaves
    /// whatever it does. Exit code 143 in both cases.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub leave_grace: u64,
    /// Have the system kill this process when the one that started it ends (Linux).
    #[arg(long)]
    pub die_with_parent: bool,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Hugging Face directory, or that of an adapter in PEFT's layout.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The model under the adapter [default: the one that the adapter names].
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Image file; give it several times for several images.
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// The question.
    #[arg(long, value_name = "TEXT")]
    pub question: String,
    /// One greedy answer; this is the default without --n and --temperature.
    #[arg(long, conflicts_with_all = ["n", "temperature", "seed", "top_p", "top_k"])]
    pub greedy: bool,
    /// Answers to draw [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub n: Option<u32>,
    /// Softmax temperature [default: 1].
    #[arg(long, value_parser = temperature)]
    pub temperature: Option<f64>,
    /// Nucleus: the smallest set of tokens whose probability reaches this [default: 1].
    #[arg(long, value_parser = share)]
    pub top_p: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all [default: 0].
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Seed of the random draws [default: 0].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Longest answer, tokens, the end-of-turn token included.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub max_new_tokens: u32,
    /// Device to compute on: cpu, cuda, or cuda:N for GPU N from 0.
    #[arg(long, default_value = "cpu", value_parser = device::parse)]
    pub device: Device,
    /// Print {"prompt_ids": [...], "answers": [{"ids": [...], "text": str, "logprobs": [...]}]}.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `logprobs`.
#[derive(Debug, Args)]
pub struct LogprobsArgs {
    /// Hugging Face directory, or that of an adapter in PEFT's layout.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The model under the adapter [default: the one that the adapter names].
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// JSON lines {"image": path or null, "question": str, "answer": str}; "-" reads standard input.
    #[arg(long, value_name = "FILE.jsonl")]
    pub input: PathBuf,
    /// Device to compute on: cpu, cuda, or cuda:N for GPU N from 0.
    #[arg(long, default_value = "cpu", value_parser = device::parse)]
    pub device: Device,
    /// Print a line {"prompt_ids": [...], "answer_ids": [...], "logprobs": [...]} for each.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Directory with config.json, tokenizer and processor files.
    #[arg(long, value_name = "DIR")]
    pub config: PathBuf,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Directory to write; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Arguments of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Directory of an adapter in PEFT's layout, for example a checkpoint of a run with [lora].
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Hugging Face directory of the base model [default: the one that the adapter names].
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Directory to write; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// A directory that `medevo-coord doctor --nodes` names: meet it, measure what is between, leave the findings there.
    #[arg(long, value_name = "DIR")]
    pub meet: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell.
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory; it is made.
    pub dir: PathBuf,
}

fn host_and_port(text: &str) -> Result<String, String> {
    let ok = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0));
    if ok {
        Ok(text.to_owned())
    } else {
        Err("give it as HOST:PORT, like 127.0.0.1:7000".to_owned())
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(t) if t.is_finite() && t > 0.0 => Ok(t),
        Ok(_) => {
            Err("a temperature is above 0; use --greedy for the most probable answer".to_owned())
        }
        Err(e) => Err(e.to_string()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        Ok(_) => Err("a share is above 0 and at most 1".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_values_are_refused_with_the_way_out() {
        let parse = |args: &str| {
            Cli::try_parse_from(format!("medevo-worker {args}").split(' '))
                .map_err(|e| e.to_string())
        };
        let join = "join --coordinator 127.0.0.1:7000 --worker-id w0";
        assert!(parse(join).is_ok());
        assert_eq!(
            parse(&format!("{join} --device cuda:1")).unwrap().command.device(),
            Device::Cuda(1)
        );
        assert!(parse(&format!("{join} --device gpu")).unwrap_err().contains("--device cpu"));
        assert!(parse("join --coordinator 7000 --worker-id w0").unwrap_err().contains("HOST:PORT"));
        let generate = "generate --model d --question q";
        assert!(parse(&format!("{generate} --greedy --n 3")).is_err());
        assert!(parse(&format!("{generate} --temperature 0")).unwrap_err().contains("--greedy"));
        assert!(parse(&format!("{generate} --n 0")).is_err());
    }
}
