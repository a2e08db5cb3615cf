//! Inside an allocation: this process keeps the coordinator and the workers' step, hears Slurm's signals, and queues
//! the job again when the run is not over.
//!
//! The coordinator is a child, so that it can be started again when it breaks: the workers wait for it and keep their
//! weights. What Slurm says comes on three ways: SIGUSR2 to this process before the time limit, SIGTERM to the tasks
//! when the job is preempted (they pass it on by their standard output), SIGTERM to this process when the job ends.

use std::{
    fs,
    future::pending,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use medevo_common::config::{CoordinatorNode, ValidConfig};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Allocation,
    decide::{Asked, Next, next},
    job::Job,
    prepare::{as_it_is, prepare, read},
    step,
    tools::{PATIENCE, addresses, ask},
};
use crate::{
    launch::{Exit, Run, Signals, signals::NOTICE},
    preflight::Refused,
    rpc::Token,
    run_dir::RunDir,
    say::{complain, say},
};

/// How often a coordinator that breaks is started again in one life of the job.
const BREAKS: u32 = 5;
/// Pause before that.
const PAUSE: Duration = Duration::from_secs(1);
/// How long workers have to leave a run that is over.
const LEAVE: Duration = Duration::from_secs(30);
/// Tries to hear from the controller what has become of the job.
const TRIES: u32 = 3;

/// Starts the run of `run`, or goes on with it, and stays until it ends or the job does.
pub(super) async fn run(run: Run, allocation: Allocation) -> anyhow::Result<Exit> {
    let Some(run_dir) = directory(&run, &allocation).await? else { return Ok(Exit::Done) };
    let config = run_dir.config().map_err(Refused::because)?;
    let config = config.validate().map_err(Refused::because)?;
    run_dir.make_folders()?;
    // A rank that Slurm has lost sight of still has the old one: it is not let in again.
    Token::renew(run_dir.path())?;
    let mut life = Life::start(config, run_dir, allocation).await?;
    let left = life.last().await;
    life.workers_leave().await;
    life.conclude(left?).await
}

/// The run's directory, made if this is the run's first life. None: it was only a rehearsal.
async fn directory(run: &Run, allocation: &Allocation) -> anyhow::Result<Option<RunDir>> {
    if run.seeds.is_some() {
        return Err(Refused::new(
            "--seeds makes an array of jobs, which is submitted from outside of a job; here, launch one run",
        )
        .into());
    }
    if run.file.is_dir() {
        as_it_is(run)?;
        let run_dir = RunDir::open(&run.file).map_err(Refused::because)?;
        if run.dry_run {
            say(format!("the run in {} would go on in this job", run_dir.path().display()));
            return Ok(None);
        }
        return Ok(Some(run_dir));
    }
    let (mut config, place) = read(run, None)?;
    // The same script runs in every life of the job.
    if allocation.restart > 0
        && let Ok(run_dir) = RunDir::open(&place)
    {
        return Ok(Some(run_dir));
    }
    let slurm = config.cluster.slurm.get_or_insert_default();
    let own = usize::from(slurm.coordinator == CoordinatorNode::Own);
    if allocation.nodes <= own {
        return Err(Refused::new(
            "the coordinator is to have a node of its own (cluster.slurm.coordinator), but the job has one node only; \
             ask for one more, or set it to \"first\"",
        )
        .into());
    }
    (slurm.nodes, slurm.min_nodes) = (allocation.nodes - own, None);
    if let Some(tasks) = allocation.tasks_per_node {
        slurm.tasks_per_node = tasks;
    }
    let prepared = prepare(run, config, place, allocation.node.is_none()).await?;
    if run.dry_run {
        say(&prepared.plan);
        return Ok(None);
    }
    prepared.make().map(Some)
}

/// One life of the job.
struct Life {
    config: ValidConfig,
    run_dir: RunDir,
    allocation: Allocation,
    signals: Signals,
    /// Where workers reach the coordinator; none: where it listens.
    advertise: Option<String>,
    coordinator: Child,
    workers: Child,
    /// What the workers say to this process.
    words: Lines<BufReader<ChildStdout>>,
    asked: Asked,
    /// The job is queued again then, drained or not.
    deadline: Option<Instant>,
}

impl Life {
    async fn start(
        config: ValidConfig,
        run_dir: RunDir,
        allocation: Allocation,
    ) -> anyhow::Result<Self> {
        let signals = Signals::catch()?;
        let addresses = addresses(&allocation.node_list).await.context("asking for the nodes")?;
        let here = match &allocation.node {
            Some(node) => addresses.iter().find(|(name, _)| name == node).map(|(_, a)| a.clone()),
            // Not on a node: in the shell that `salloc` gives.
            None => {
                fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|n| n.trim().to_owned())
            }
        };
        let advertise = (config.cluster.advertise.is_none()
            && config.cluster.listen.starts_with("0.0.0.0:"))
        .then_some(here)
        .flatten();
        let coordinator = lead(run_dir.path(), advertise.as_deref())?;
        let slurm = config.cluster.slurm.clone().unwrap_or_default();
        let mut workers =
            step::start(&config, &run_dir, allocation.nodes, slurm.tasks_per_node, &addresses)?;
        let words = workers.stdout.take().context("the workers' standard output is a pipe")?;
        say(format!(
            "job {} on {}, restart {}: run {} in {}",
            allocation.job,
            allocation.node_list,
            allocation.restart,
            config.run.name,
            run_dir.path().display()
        ));
        Ok(Self {
            config,
            run_dir,
            allocation,
            signals,
            advertise,
            coordinator,
            workers,
            words: BufReader::new(words).lines(),
            asked: Asked::Nobody,
            deadline: None,
        })
    }

    /// Waits for the coordinator's end, whatever happens until then.
    async fn last(&mut self) -> anyhow::Result<Exit> {
        let (mut breaks, mut alone, mut silent) = (0, false, false);
        loop {
            let deadline = self.deadline;
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                ended = self.coordinator.wait() => {
                    let ended = ended.context("waiting for the coordinator")?;
                    if let Some(exit) = ended.code().and_then(|c| Exit::from_code(u8::try_from(c).ok()?)) {
                        return Ok(exit);
                    }
                    breaks += 1;
                    complain(format!("the coordinator broke off ({ended})"));
                    match self.asked {
                        Asked::Nobody if breaks <= BREAKS => {}
                        // The nodes have to be left anyway: the next life goes on from the last checkpoint.
                        Asked::Scheduler => return Ok(Exit::Drained),
                        Asked::Nobody | Asked::Operator => return Ok(Exit::Failed),
                    }
                    sleep(PAUSE).await;
                    self.coordinator = lead(self.run_dir.path(), self.advertise.as_deref())?;
                }
                word = self.words.next_line(), if !silent => match word {
                    Ok(Some(word)) if word.contains(step::NOTICE) => {
                        self.ask(Asked::Scheduler, "the job's tasks were told to end");
                    }
                    Ok(Some(word)) => say(word),
                    Ok(None) | Err(_) => silent = true,
                },
                ended = self.workers.wait(), if !alone => {
                    alone = true;
                    self.alone(ended.ok());
                }
                signal = self.signals.any() => match signal {
                    NOTICE => {
                        // Slurm's own clock is coarse, and queueing the job again takes a moment.
                        let slurm = self.config.cluster.slurm.clone().unwrap_or_default();
                        let left = Duration::from_secs(slurm.signal_before_s).mul_f64(0.8);
                        self.deadline.get_or_insert(Instant::now() + left);
                        self.ask(Asked::Scheduler, "the time limit is near");
                    }
                    "Ctrl-C" if self.asked == Asked::Operator => self.signal(Signal::INT),
                    signal => self.ask(Asked::Operator, signal),
                },
                () = late => {
                    self.deadline = None;
                    complain("the step did not end in time; its last checkpoint is what the run goes on from");
                    // This ends the job's processes, this one too.
                    if self.asked == Asked::Scheduler {
                        self.conclude(Exit::Drained).await?;
                    }
                }
            }
        }
    }

    /// Has the coordinator drain. It does so once, however often it is told.
    fn ask(&mut self, who: Asked, why: &str) {
        if who > self.asked {
            say(format!("{why}: stopping after this step, with a checkpoint"));
            self.asked = who;
            self.signal(Signal::USR2);
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.coordinator.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::warn!("the coordinator could not be signalled: {error}");
        }
    }

    /// The step is over before the run is.
    fn alone(&self, ended: Option<ExitStatus>) {
        if self.asked == Asked::Nobody {
            let how = ended.map_or_else(|| "?".to_owned(), |ended| ended.to_string());
            complain(format!(
                "all workers have ended (srun: {how}); see {}",
                self.run_dir.logs().join("workers.log").display()
            ));
        }
    }

    /// The workers were told that the run is over; those that did not hear it are ended.
    async fn workers_leave(&mut self) {
        if timeout(LEAVE, self.workers.wait()).await.is_ok() {
            return;
        }
        complain(format!("workers still run after {} s; ending them", LEAVE.as_secs()));
        // Without `--batch` and `--full`: the steps only, not this process.
        if let Err(error) = ask("scancel", &["--signal=KILL", &self.allocation.job], PATIENCE).await
        {
            complain(format!("{error:#}"));
        }
        if timeout(LEAVE, self.workers.wait()).await.is_err() {
            complain("the workers' step could not be ended");
        }
    }

    /// Queues the job again if that is due.
    async fn conclude(&self, left: Exit) -> anyhow::Result<Exit> {
        let slurm = self.config.cluster.slurm.clone().unwrap_or_default();
        let mut job = None;
        for _ in 0..TRIES {
            match Job::of(&self.allocation.job).await {
                Ok(jobs) => job = jobs.into_iter().next(),
                Err(error) => complain(format!("{error:#}")),
            }
            if job.is_some() {
                break;
            }
            sleep(PAUSE).await;
        }
        match next(left, self.asked, &slurm, &self.allocation, job.as_ref()) {
            Next::Leave => {}
            Next::Stay(why) => say(format!(
                "{why}; go on with `medevo-coord launch {} --on slurm`",
                self.run_dir.path().display()
            )),
            Next::Requeue(why) => {
                say(format!("queueing the job again: {why}"));
                self.requeue().await?;
            }
        }
        Ok(left)
    }

    /// A controller that is busy, or just being started again, is asked again.
    async fn requeue(&self) -> anyhow::Result<()> {
        let mut tries = 0;
        loop {
            match ask("scontrol", &["requeue", &self.allocation.job], PATIENCE).await {
                Ok(_) => return Ok(()),
                Err(error) if tries == TRIES => return Err(error),
                Err(error) => complain(format!("{error:#}; trying again")),
            }
            tries += 1;
            sleep(PAUSE * 5).await;
        }
    }
}

/// Starts the coordinator. It waits while another one still has the run, and is in a process group of its own, so that
/// Ctrl-C reaches this process alone.
fn lead(run_dir: &Path, advertise: Option<&str>) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("asking where this program lies")?;
    let mut command = Command::new(program);
    command.arg("serve").arg(run_dir).arg("--standby");
    if let Some(host) = advertise {
        command.args(["--advertise", host]);
    }
    command
        // The run directory's, which this life has just made.
        .env_remove("MEDEVO_TOKEN")
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("starting the coordinator")
}
