//! What becomes of the job when its coordinator has ended.

use medevo_common::config::SlurmSection;

use super::{Allocation, job::Job};
use crate::launch::Exit;

/// Who asked the run to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Nobody.
    Nobody,
    /// Slurm: the time limit is near, or the nodes are wanted for another job.
    Scheduler,
    /// Somebody, for good.
    Operator,
}

/// What to do with the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: let it end.
    Leave,
    /// Nothing, though the run is not over: why.
    Stay(String),
    /// Queue it again: why.
    Requeue(&'static str),
}

/// Decides. `job` is what the controller knows, `left` how the run ended.
pub(super) fn next(
    left: Exit,
    asked: Asked,
    slurm: &SlurmSection,
    allocation: &Allocation,
    job: Option<&Job>,
) -> Next {
    let lost_nodes = job.is_some_and(|job| job.nodes < allocation.nodes);
    let why = match (left, asked) {
        (Exit::Drained, Asked::Scheduler) => "Slurm wants the nodes back",
        (Exit::Failed, Asked::Nobody | Asked::Scheduler) if lost_nodes => "too many nodes are lost",
        _ => return Next::Leave,
    };
    let stay = |why: String| Next::Stay(format!("the job is not queued again: {why}"));
    let Some(job) = job else { return stay("the controller does not answer".into()) };
    if !slurm.requeue {
        stay("cluster.slurm.requeue is false".into())
    } else if allocation.restart >= slurm.max_restarts {
        stay(format!("it was {} times (cluster.slurm.max_restarts)", allocation.restart))
    } else if job.restarts != allocation.restart {
        // This life was cut off, and a later one is under way: it must not be touched.
        stay("it has been already".into())
    } else if job.state != "RUNNING" {
        stay(format!("it is {}", job.state))
    } else if !job.batch {
        stay("it is interactive".into())
    } else {
        Next::Requeue(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(left: Exit, asked: Asked, change: impl FnOnce(&mut Job, &mut SlurmSection)) -> Next {
        let mut job =
            Job { state: "RUNNING".into(), nodes: 3, restarts: 1, batch: true, ..Job::default() };
        let mut slurm = SlurmSection::default();
        change(&mut job, &mut slurm);
        let allocation = Allocation {
            job: "7".into(),
            restart: 1,
            nodes: 3,
            node_list: "n[1-3]".into(),
            tasks_per_node: None,
            node: None,
        };
        next(left, asked, &slurm, &allocation, Some(&job))
    }

    /// Fails when a run that Slurm interrupts stays where it is.
    #[test]
    fn what_slurm_interrupts_is_queued_again() {
        let drained = |change: fn(&mut Job, &mut SlurmSection)| {
            decide(Exit::Drained, Asked::Scheduler, change)
        };
        assert!(matches!(drained(|_, _| {}), Next::Requeue(_)));
        assert!(matches!(drained(|_, slurm| slurm.requeue = false), Next::Stay(_)));
        assert!(matches!(drained(|_, slurm| slurm.max_restarts = 1), Next::Stay(_)));
        assert!(matches!(drained(|job, _| job.batch = false), Next::Stay(_)));
    }

    /// Fails when a job that somebody has cancelled comes back.
    #[test]
    fn what_people_end_stays_ended() {
        assert_eq!(decide(Exit::Drained, Asked::Operator, |_, _| {}), Next::Leave);
        let cancelled =
            decide(Exit::Drained, Asked::Scheduler, |job, _| job.state = "CANCELLED".into());
        assert!(matches!(cancelled, Next::Stay(_)));
    }

    /// Fails when a launcher that was cut off queues the job again over the head of its next life.
    #[test]
    fn a_life_that_is_over_does_not_touch_the_next() {
        let over = decide(Exit::Failed, Asked::Nobody, |job, _| (job.nodes, job.restarts) = (2, 2));
        assert!(matches!(over, Next::Stay(_)));
        assert_eq!(decide(Exit::Deposed, Asked::Scheduler, |_, _| {}), Next::Leave);
    }

    /// Fails when a run that cannot work is tried for ever, or one that lost its nodes is not tried again.
    #[test]
    fn a_failure_is_tried_again_only_where_nodes_are_lost() {
        assert_eq!(decide(Exit::Failed, Asked::Nobody, |_, _| {}), Next::Leave);
        assert_eq!(decide(Exit::Done, Asked::Scheduler, |_, _| {}), Next::Leave);
        assert_eq!(decide(Exit::BadInput, Asked::Nobody, |job, _| job.nodes = 1), Next::Leave);
        let lost = decide(Exit::Failed, Asked::Nobody, |job, _| job.nodes = 2);
        assert!(matches!(lost, Next::Requeue(_)));
    }
}
