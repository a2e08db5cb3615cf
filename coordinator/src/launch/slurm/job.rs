//! What Slurm knows of a job.

use std::time::Duration;

use super::tools::ask;
use crate::launch::Exit;

/// How long the controller may take to tell.
const PATIENCE: Duration = Duration::from_secs(20);

/// A job, or one of an array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    /// "PENDING", "RUNNING", "COMPLETED", ...
    pub(super) state: String,
    /// Why it is in that state, "None" if there is nothing to tell.
    pub(super) reason: String,
    /// How often it was queued again.
    pub(super) restarts: u64,
    /// Nodes that it has now.
    pub(super) nodes: usize,
    /// Their names.
    pub(super) node_list: String,
    /// Exit code of its script, once that has ended.
    pub(super) exit_code: u8,
    /// Whether it was started by `sbatch`.
    pub(super) batch: bool,
}

impl Job {
    /// Asks for a job, or for every job of an array.
    ///
    /// # Errors
    /// The controller does not answer, or does not know it (any more).
    pub(super) async fn of(id: &str) -> anyhow::Result<Vec<Self>> {
        let text = ask("scontrol", &["show", "job", "-o", id], PATIENCE).await?;
        Ok(text.lines().filter(|line| !line.trim().is_empty()).map(Self::read).collect())
    }

    fn read(line: &str) -> Self {
        let field = |key: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(key));
            found.unwrap_or_default()
        };
        let number = |text: &str| text.split([':', '-']).next().and_then(|n| n.parse::<u64>().ok());
        Self {
            state: field("JobState=").to_owned(),
            reason: field("Reason=").to_owned(),
            restarts: number(field("Restarts=")).unwrap_or(0),
            nodes: number(field("NumNodes=")).unwrap_or(0) as usize,
            node_list: field("NodeList=").to_owned(),
            exit_code: number(field("ExitCode=")).unwrap_or(0).try_into().unwrap_or(1),
            batch: field("BatchFlag=") != "0",
        }
    }

    /// How it ended, if it has.
    pub(super) fn ended(&self) -> Option<Exit> {
        match self.state.as_str() {
            "COMPLETED" => Some(Exit::Done),
            "FAILED" => Some(Exit::from_code(self.exit_code).unwrap_or(Exit::Failed)),
            "CANCELLED" => Some(Exit::Drained),
            "TIMEOUT" | "NODE_FAIL" | "OUT_OF_MEMORY" | "BOOT_FAIL" | "DEADLINE" | "PREEMPTED"
            | "REVOKED" => Some(Exit::Failed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "JobId=7 JobName=small UserId=root(0) Priority=4294901759 Nice=0 JobState=RUNNING Reason=None \
                        Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:03 \
                        ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-3] BatchHost=n1 NumNodes=3 NumCPUs=6 \
                        Command=/tmp/a b NodeList=x";

    #[test]
    fn the_controllers_line_is_read() {
        let job = Job::read(LINE);
        assert_eq!((job.state.as_str(), job.restarts, job.nodes), ("RUNNING", 2, 3));
        assert_eq!((job.node_list.as_str(), job.batch, job.ended()), ("n[1-3]", true, None));
        // A job that waits for its nodes tells a range.
        assert_eq!(Job::read("JobState=PENDING NumNodes=2-3").nodes, 2);
    }

    /// Fails when the outcome of the run is lost on its way through Slurm.
    #[test]
    fn the_scripts_exit_code_is_the_runs() {
        let ended = |state: &str, code: u8| {
            Job::read(&format!("JobState={state} ExitCode={code}:0")).ended()
        };
        assert_eq!(ended("COMPLETED", 0), Some(Exit::Done));
        assert_eq!(ended("FAILED", 2), Some(Exit::BadInput));
        assert_eq!(ended("FAILED", 3), Some(Exit::Drained));
        assert_eq!(ended("FAILED", 137), Some(Exit::Failed));
        assert_eq!(ended("TIMEOUT", 0), Some(Exit::Failed));
        assert_eq!(ended("COMPLETING", 0), None);
    }
}
