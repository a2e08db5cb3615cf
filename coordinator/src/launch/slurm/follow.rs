//! `--wait`: following a job until it is over.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    signal::ctrl_c,
    time::{Instant, sleep},
};

use super::job::Job;
use crate::{
    launch::Exit,
    run_dir::RunDir,
    say::{complain, say},
};

/// How often the controller is asked at first.
const SOON: Duration = Duration::from_secs(1);
/// How often later: it serves the whole cluster.
const LATER: Duration = Duration::from_secs(10);
/// When "later" begins.
const A_WHILE: Duration = Duration::from_secs(60);
/// How often in a row it may not answer before that is said.
const SILENT: u32 = 3;

/// Stays until a job, or every job of an array, is over. The exit code is the run's; of several, the worst.
pub(super) async fn follow(job: &str, run_dirs: &[RunDir]) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let mut told = Told::default();
    let stop = ctrl_c();
    tokio::pin!(stop);
    let (mut silent, mut ended_before) = (0, None);
    loop {
        let pause = if start.elapsed() < A_WHILE { SOON } else { LATER };
        let look = async {
            sleep(pause).await;
            Job::of(job).await
        };
        let jobs = tokio::select! {
            jobs = look => jobs,
            _ = &mut stop => {
                say(format!("job {job} goes on; `medevo-coord status` tells where its run stands"));
                return Ok(Exit::LeftAlone);
            }
        };
        let jobs = match jobs {
            Ok(jobs) => jobs,
            Err(error) if format!("{error:#}").contains("Invalid job id") => {
                return Ok(forgotten(job, run_dirs));
            }
            Err(error) => {
                silent += 1;
                if silent == SILENT {
                    complain(format!("{error:#}; asking again"));
                }
                continue;
            }
        };
        silent = 0;
        told.tell(job, &jobs, run_dirs);
        let ended: Option<Vec<Exit>> = jobs.iter().map(Job::ended).collect();
        let worst = ended.and_then(|all| all.into_iter().max_by_key(|exit| severity(*exit)));
        // Between two lives a job may look as if it had ended.
        if let (Some(exit), true) = (worst, worst == ended_before) {
            return Ok(exit);
        }
        ended_before = worst;
    }
}

/// A job that the controller does not know any more: the run itself must tell.
fn forgotten(job: &str, run_dirs: &[RunDir]) -> Exit {
    let outcome = |run_dir: &RunDir| match run_dir.status() {
        Ok(Some(status)) => status.view.ending.map_or(Exit::Failed, Exit::from),
        _ => Exit::Failed,
    };
    let exit = run_dirs.iter().map(outcome).max_by_key(|exit| severity(*exit));
    say(format!("Slurm does not know job {job} any more; see `medevo-coord status`"));
    exit.unwrap_or(Exit::Failed)
}

fn severity(exit: Exit) -> u8 {
    match exit {
        Exit::Done => 0,
        Exit::LeftAlone => 1,
        Exit::Drained | Exit::Stopped => 2,
        Exit::Deposed => 3,
        Exit::BadInput => 4,
        Exit::Failed => 5,
    }
}

/// What was said already.
#[derive(Default)]
struct Told {
    states: BTreeMap<usize, String>,
    phase: String,
}

impl Told {
    /// Says what has changed: a job's state, and of a single run its step.
    fn tell(&mut self, id: &str, jobs: &[Job], run_dirs: &[RunDir]) {
        for (index, job) in jobs.iter().enumerate() {
            let mut now = job.state.clone();
            if !["None", ""].contains(&job.reason.as_str()) {
                now = format!("{now} ({})", job.reason);
            }
            if job.state == "RUNNING" {
                now = format!("{now} on {}", job.node_list);
            }
            if job.restarts > 0 {
                now = format!("{now}, restart {}", job.restarts);
            }
            if self.states.get(&index) != Some(&now) {
                let which = if jobs.len() > 1 { format!("{id}[{index}]") } else { id.to_owned() };
                say(format!("job {which}: {now}"));
                self.states.insert(index, now);
            }
        }
        if let [run_dir] = run_dirs
            && let Ok(Some(status)) = run_dir.status()
        {
            let view = &status.view;
            let now = format!("step {} of {}, stage {}", view.step, view.total_steps, view.stage);
            if self.phase != now {
                say(format!("run {}: {now}", status.run));
                self.phase = now;
            }
        }
    }
}
