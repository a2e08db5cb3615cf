//! `join --slurm`: a task of a Slurm job step.

use std::{
    env,
    io::{Write, stdout},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::Context;
use tch::Device;

use crate::cli::JoinArgs;

/// Addresses of the job's nodes, "n1=10.0.0.1,n2=10.0.0.2", as the launcher knows them from Slurm.
const ADDRESSES: &str = "MEDEVO_NODE_ADDRESSES";
/// What the launcher looks for in what its step prints.
const NOTICE: &str = "medevo-worker: SIGTERM";
/// How long one of Slurm's commands may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the job is looked at when the coordinator is gone.
const LOOK: Duration = Duration::from_secs(5);
/// How long Slurm may take to give a node up (`SlurmdTimeout` is 300 s by default).
const VERDICT: Duration = Duration::from_secs(1200);

/// Fills in what Slurm knows: a name, the GPU with the task's number on its node, the node's address.
///
/// # Errors
/// This is no task of a job step.
pub fn take_place(args: &mut JoinArgs) -> anyhow::Result<()> {
    fill(args, |name| env::var(name).ok())
}

fn fill(args: &mut JoinArgs, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let set = |name: &str| {
        variable(name).with_context(|| {
            format!("--slurm is for tasks that `srun` starts, but {name} is not set; leave it out")
        })
    };
    let node = set("SLURMD_NODENAME")?;
    let number: usize = set("SLURM_LOCALID")?.parse().context("SLURM_LOCALID is no number")?;
    args.worker_id = Some(format!("{node}-{number}"));
    if let Device::Cuda(_) = args.device {
        args.device = Device::Cuda(number);
    }
    let addresses = variable(ADDRESSES).unwrap_or_default();
    let known = addresses.split(',').filter_map(|one| one.split_once('='));
    let address = known.into_iter().find(|(name, _)| *name == node).map(|(_, at)| at.to_owned());
    args.address = address.unwrap_or(node);
    Ok(())
}

/// Tells the launcher that Slurm wants the nodes back.
pub fn pass_on_notice() {
    // A launcher that is gone needs no notice.
    let mut out = stdout();
    let _ = writeln!(out, "{NOTICE}");
    let _ = out.flush();
}

/// The coordinator is gone. When the node that it ran on turns out to be lost to the job, nothing is left there that
/// could queue the job again, so a worker does; the run then goes on from its last checkpoint. One worker a node is
/// enough.
pub fn mind_the_job() {
    if env::var("SLURM_LOCALID").as_deref() != Ok("0") {
        return;
    }
    let until = Instant::now() + VERDICT;
    while Instant::now() < until {
        match fate() {
            Ok(Fate::Open) => {}
            Ok(Fate::Settled) => return,
            Ok(Fate::Headless(job)) => {
                match ask("scontrol", &["requeue", &job]) {
                    Ok(_) => {
                        tracing::warn!(job, "the coordinator's node is lost: queued the job again")
                    }
                    // Another worker may have been first.
                    Err(error) => {
                        tracing::warn!(job, "the job could not be queued again: {error:#}")
                    }
                }
                return;
            }
            Err(error) => tracing::warn!("what has become of the job is not known: {error:#}"),
        }
        std::thread::sleep(LOOK);
    }
}

/// What has become of the job.
enum Fate {
    /// It is as it was: its batch script may still end it, or Slurm has not missed the node yet.
    Open,
    /// It is over, or in its next life, or must not be queued again.
    Settled,
    /// It runs on without the node that its batch script is on.
    Headless(String),
}

fn fate() -> anyhow::Result<Fate> {
    // Of an array: only this job of it.
    let job = match (env::var("SLURM_ARRAY_JOB_ID"), env::var("SLURM_ARRAY_TASK_ID")) {
        (Ok(array), Ok(index)) => format!("{array}_{index}"),
        _ => env::var("SLURM_JOB_ID").context("SLURM_JOB_ID is not set")?,
    };
    let restart = env::var("SLURM_RESTART_COUNT").unwrap_or_else(|_| "0".into());
    let told = ask("scontrol", &["show", "job", "-o", &job])?;
    let field = |key: &str| {
        told.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or_default()
    };
    let expected =
        [("JobState=", "RUNNING"), ("Restarts=", &restart), ("Requeue=", "1"), ("BatchFlag=", "1")];
    if expected.iter().any(|(key, value)| field(key) != *value) {
        return Ok(Fate::Settled);
    }
    let nodes = ask("scontrol", &["show", "hostnames", field("NodeList=")])?;
    let there = nodes.lines().any(|node| node == field("BatchHost="));
    Ok(if there { Fate::Open } else { Fate::Headless(job) })
}

/// What a command of Slurm prints.
fn ask(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let (sender, answer) = std::sync::mpsc::channel();
    let mut command = Command::new(program);
    command.args(arguments);
    let start = Instant::now();
    std::thread::spawn(move || sender.send(command.output()));
    let left = PATIENCE.saturating_sub(start.elapsed());
    let output =
        answer.recv_timeout(left).with_context(|| format!("`{program}` does not answer"))?;
    let Output { status, stdout, stderr } =
        output.with_context(|| format!("`{program}` cannot be started"))?;
    anyhow::ensure!(
        status.success(),
        "`{program} {}`: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&stderr).trim()
    );
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command as Verb};

    fn join(device: &str) -> JoinArgs {
        let line = format!("medevo-worker join --slurm --run-dir /runs/x --device {device}");
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Verb::Join(args) => args,
            _ => unreachable!("it says join"),
        }
    }

    fn task(name: &str) -> Option<String> {
        let value = match name {
            "SLURMD_NODENAME" => "n2",
            "SLURM_LOCALID" => "3",
            ADDRESSES => "n1=10.0.0.1,n2=10.0.0.2",
            _ => return None,
        };
        Some(value.to_owned())
    }

    /// Fails when two tasks of a node would share a GPU or a name.
    #[test]
    fn a_task_takes_its_own_name_gpu_and_address() {
        let mut args = join("cuda");
        fill(&mut args, task).unwrap();
        assert_eq!(args.worker_id.as_deref(), Some("n2-3"));
        assert_eq!(args.device, Device::Cuda(3));
        assert_eq!(args.address, "10.0.0.2");
        let mut args = join("cpu");
        fill(&mut args, |name| task(name).filter(|_| name != ADDRESSES)).unwrap();
        assert_eq!((args.device, args.address.as_str()), (Device::Cpu, "n2"));
    }

    #[test]
    fn what_is_no_task_is_refused() {
        let error = fill(&mut join("cpu"), |_| None).unwrap_err().to_string();
        assert!(error.contains("srun") && error.contains("SLURMD_NODENAME"), "{error}");
    }
}
