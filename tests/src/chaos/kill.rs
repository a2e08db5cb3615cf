//! One kill: a victim, a phase, and what the run made of it.

use std::time::{Duration, SystemTime};

use crate::{
    cluster::{COORDINATOR, Cluster},
    history::{History, State, candidates_lost},
    lab::{Lab, STEPS},
};

/// Workers of a run that is killed at.
pub const WORKERS: usize = 3;
/// Lease of a worker in [`Lab`]'s run file, seconds.
pub const LEASE_TTL_S: f64 = 4.0;
/// Settings of all these runs: a collective gives a dead peer up as soon as its lease runs out, and
/// everybody gets a unit of each rollout.
const SETTINGS: [&str; 2] = ["cluster.collective_timeout_s=4", "cluster.prompts_per_unit=1"];

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A worker that is not rank 0; nobody replaces it.
    Worker,
    /// The worker of rank 0, which writes the checkpoints; nobody replaces it.
    RankZero,
    /// The coordinator; nobody stands by, and `resume` is called at once.
    CoordinatorAlone,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Worker, Self::RankZero, Self::CoordinatorAlone];

    /// Its name in the matrix.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::RankZero => "rank 0",
            Self::CoordinatorAlone => "coordinator, resumed by hand",
        }
    }

    fn process(self) -> &'static str {
        match self {
            Self::Worker => "w1",
            Self::RankZero => "w0",
            Self::CoordinatorAlone => COORDINATOR,
        }
    }

    /// Whether the run keeps its number of workers, and so has to end with the very weights of one that
    /// was left alone.
    fn leaves_the_workers(self) -> bool {
        match self {
            Self::Worker | Self::RankZero => false,
            Self::CoordinatorAlone => true,
        }
    }
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first roster is being formed.
    Forming,
    /// Its weights are being put in place.
    Restoring,
    /// Candidates of step 8 are being drawn; the last checkpoint is of step 6.
    Rollout,
    /// They are being scored.
    Scoring,
    /// Ranks reduce a gradient and vote.
    Updating,
    /// The commit is on record, the optimizers have not stepped.
    Committing,
    /// Between the stages.
    Evaluating,
    /// Step 6 is committed and its checkpoint not yet published; the one before is of step 4.
    Checkpointing,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Forming,
        Self::Restoring,
        Self::Rollout,
        Self::Scoring,
        Self::Updating,
        Self::Committing,
        Self::Evaluating,
        Self::Checkpointing,
    ];

    /// Its name in the event stream.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forming => "forming",
            Self::Restoring => "restoring",
            Self::Rollout => "rollout",
            Self::Scoring => "scoring",
            Self::Updating => "updating",
            Self::Committing => "committing",
            Self::Evaluating => "evaluating",
            Self::Checkpointing => "checkpointing",
        }
    }

    /// The coordinator's fault point.
    fn point(self) -> String {
        let step = match self {
            Self::Forming | Self::Restoring => 0,
            Self::Rollout | Self::Scoring | Self::Updating | Self::Committing => 8,
            Self::Evaluating => 4,
            Self::Checkpointing => 6,
        };
        format!("{}@{step}", self.name())
    }

    /// The fault point of a worker in the middle of its work in this phase; None where it has none to do.
    fn point_of_worker(self, victim: Victim) -> Option<&'static str> {
        Some(match self {
            Self::Forming => "form@1",
            Self::Restoring => "restore@1",
            Self::Rollout => "rollout@8",
            Self::Updating => "update@8",
            Self::Committing => "apply@8",
            Self::Evaluating => "rollout@4",
            Self::Checkpointing if victim == Victim::RankZero => "checkpoint@6",
            Self::Scoring | Self::Checkpointing => return None,
        })
    }
}

/// What a survived kill cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From the kill to the next committed step.
    pub recovery: Duration,
    /// Candidates that had been scored and were drawn and scored again.
    pub candidates_lost: u64,
    /// Committed steps that were rolled back and done again.
    pub steps_redone: u64,
}

/// Runs without a kill. Returns what it ends with.
///
/// # Panics
/// When it does not end well.
#[must_use]
pub fn undisturbed(lab: &Lab) -> State {
    let mut cluster = Cluster::new(lab, "undisturbed");
    cluster.launch(lab, WORKERS, &SETTINGS, "");
    for rank in 0..WORKERS {
        cluster.join(&format!("w{rank}"), "");
    }
    cluster.expect_done();
    let history = History::read(cluster.dir());
    history.check(STEPS);
    history.last_state(cluster.dir())
}

/// Runs, kills `victim` in `phase`, and sees the run to its end. None when the victim had no part in the
/// phase, for the others were faster: nothing was killed.
///
/// # Panics
/// When the run does not survive, or ends otherwise than it must.
pub fn kill(lab: &Lab, name: &str, victim: Victim, phase: Phase, whole: &State) -> Option<Cost> {
    let mut cluster = Cluster::new(lab, name);
    let own = match victim {
        Victim::CoordinatorAlone => None,
        Victim::Worker | Victim::RankZero => phase.point_of_worker(victim),
    };
    let at_coordinator = match (victim, own) {
        (Victim::CoordinatorAlone, _) => phase.point(),
        (_, None) => format!("stop:{}", phase.point()),
        (_, Some(_)) => String::new(),
    };
    cluster.launch(lab, WORKERS, &SETTINGS, &at_coordinator);
    for rank in 0..WORKERS {
        let worker = format!("w{rank}");
        let fault = own.filter(|_| worker == victim.process());
        cluster.join(&worker, fault.unwrap_or_default());
    }
    let killed = if at_coordinator.starts_with("stop:") {
        cluster.until_stopped(COORDINATOR);
        let killed = cluster.kill(victim.process());
        cluster.signal(COORDINATOR, "CONT");
        killed
    } else {
        cluster.until_killed(victim.process())?
    };
    if victim == Victim::CoordinatorAlone {
        cluster.resume();
    }
    cluster.expect_done();
    Some(judge(&cluster, victim, killed, whole))
}

/// Checks how the run has ended.
fn judge(cluster: &Cluster, victim: Victim, killed: SystemTime, whole: &State) -> Cost {
    let history = History::read(cluster.dir());
    history.check(STEPS);
    history.check_digests();
    let workers = |event: &serde_json::Value| event["workers"].as_array().map_or(0, Vec::len);
    if victim.leaves_the_workers() && history.of("generation_opened").all(|e| workers(e) == WORKERS)
    {
        let same = history.last_state(cluster.dir()) == *whole;
        assert!(same, "INV-7: other weights or moments than those of an undisturbed run");
    }
    let next = history.next_commit(killed).expect("a step is committed after the kill");
    Cost {
        recovery: next.duration_since(killed).unwrap_or_default(),
        candidates_lost: candidates_lost(cluster.dir()),
        steps_redone: history.steps_redone(),
    }
}
