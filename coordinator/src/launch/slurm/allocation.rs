//! The job that this process is part of, as its environment tells.

use std::env;

use serde_json::{Value, json};

/// A Slurm job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// Its id.
    pub(super) job: String,
    /// How often it has been queued again.
    pub(super) restart: u64,
    /// How many nodes it has.
    pub(super) nodes: usize,
    /// Their names, as Slurm abbreviates them.
    pub(super) node_list: String,
    /// Workers a node, where the job says so.
    pub(super) tasks_per_node: Option<usize>,
    /// The node of this process; none outside of them, in the shell that `salloc` gives.
    pub(super) node: Option<String>,
}

impl Allocation {
    /// The job of this process, if it is in one.
    pub(crate) fn here() -> Option<Self> {
        Self::read(|name| env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name).and_then(|text| text.parse::<usize>().ok());
        Some(Self {
            job: job(&variable)?,
            restart: number("SLURM_RESTART_COUNT").unwrap_or(0) as u64,
            nodes: number("SLURM_JOB_NUM_NODES").unwrap_or(1),
            node_list: variable("SLURM_JOB_NODELIST").unwrap_or_default(),
            // "2", where it is the same on every node.
            tasks_per_node: number("SLURM_NTASKS_PER_NODE"),
            node: variable("SLURMD_NODENAME"),
        })
    }

    /// For the event stream: where a coordinator started.
    pub(crate) fn event(&self) -> Value {
        json!({
            "event": "started_on",
            "scheduler": "slurm",
            "job": self.job,
            "restart": self.restart,
            "nodes": self.node_list,
        })
    }
}

/// The job's id as Slurm's commands take it. One job of an array has the id of the whole array as its own, which would
/// mean all of them.
fn job(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let id = variable("SLURM_JOB_ID")?;
    let array = variable("SLURM_ARRAY_JOB_ID").zip(variable("SLURM_ARRAY_TASK_ID"));
    Some(array.map_or(id, |(array, index)| format!("{array}_{index}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a first life, where Slurm sets no restart count, is not told from no job at all.
    #[test]
    fn a_job_is_read_from_the_environment() {
        let job = |name: &str| {
            let value = match name {
                "SLURM_JOB_ID" => "17",
                "SLURM_JOB_NUM_NODES" => "3",
                "SLURM_JOB_NODELIST" => "n[1-3]",
                "SLURMD_NODENAME" => "n1",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let read = Allocation::read(job).expect("a job");
        assert_eq!((read.restart, read.nodes, read.tasks_per_node), (0, 3, None));
        assert_eq!(read.event()["job"], "17");
        assert_eq!(Allocation::read(|_| None), None);
        // Whoever queues "17" again queues the whole array again.
        let of_array = |name: &str| match name {
            "SLURM_ARRAY_JOB_ID" => Some("17".to_owned()),
            "SLURM_ARRAY_TASK_ID" => Some("4".to_owned()),
            other => job(other),
        };
        assert_eq!(Allocation::read(of_array).expect("a job").job, "17_4");
    }
}
