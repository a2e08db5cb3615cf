//! One kill: a victim, a phase, and what the run made of it.

use std::time::{Duration, SystemTime};

use crate::{
    cluster::{COORDINATOR, Cluster, STANDBY},
    etcd::Etcd,
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
    /// The coordinator; another stands by, on the run directory's store.
    Coordinator,
    /// The one that stands by.
    Standby,
    /// The leader of the etcd (three members) that holds the run's records and leases.
    EtcdLeader,
    /// The coordinator, with its standby, on etcd.
    CoordinatorOnEtcd,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Worker,
        Self::RankZero,
        Self::CoordinatorAlone,
        Self::Coordinator,
        Self::Standby,
        Self::EtcdLeader,
        Self::CoordinatorOnEtcd,
    ];

    /// Its name in the matrix.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::RankZero => "rank 0",
            Self::CoordinatorAlone => "coordinator, resumed by hand",
            Self::Coordinator => "coordinator",
            Self::Standby => "standby",
            Self::EtcdLeader => "etcd leader",
            Self::CoordinatorOnEtcd => "coordinator on etcd",
        }
    }

    /// The process to kill; None for a member of etcd.
    fn process(self) -> Option<&'static str> {
        match self {
            Self::Worker => Some("w1"),
            Self::RankZero => Some("w0"),
            Self::CoordinatorAlone | Self::Coordinator | Self::CoordinatorOnEtcd => {
                Some(COORDINATOR)
            }
            Self::Standby => Some(STANDBY),
            Self::EtcdLeader => None,
        }
    }

    fn is_a_worker(self) -> bool {
        matches!(self, Self::Worker | Self::RankZero)
    }

    fn is_the_coordinator(self) -> bool {
        self.process() == Some(COORDINATOR)
    }

    fn has_a_standby(self) -> bool {
        !self.is_a_worker() && self != Self::CoordinatorAlone
    }

    fn is_on_etcd(self) -> bool {
        matches!(self, Self::EtcdLeader | Self::CoordinatorOnEtcd)
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
        if !victim.is_a_worker() {
            return None;
        }
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
    let mut etcd = victim.is_on_etcd().then(|| Etcd::start(3));
    let mut cluster = Cluster::new(lab, name);
    let own = phase.point_of_worker(victim);
    let held = !victim.is_the_coordinator() && own.is_none();
    let fault = match (victim.is_the_coordinator(), held) {
        (true, _) => phase.point(),
        (_, true) => format!("stop:{}", phase.point()),
        _ => String::new(),
    };
    start(lab, &mut cluster, victim, &fault, own, etcd.as_ref());
    let killed = match (&mut etcd, victim.process()) {
        (Some(etcd), None) => {
            cluster.until_stopped(COORDINATOR);
            let killed = SystemTime::now();
            etcd.kill(etcd.leader());
            cluster.signal(COORDINATOR, "CONT");
            killed
        }
        (_, Some(process)) if held => {
            cluster.until_stopped(COORDINATOR);
            let killed = cluster.kill(process);
            cluster.signal(COORDINATOR, "CONT");
            killed
        }
        (_, Some(process)) => cluster.until_killed(process)?,
        (None, None) => unreachable!("etcd runs where it is the victim"),
    };
    match victim {
        Victim::CoordinatorAlone => cluster.resume(),
        Victim::Coordinator | Victim::CoordinatorOnEtcd => cluster.led_by(STANDBY),
        _ => {}
    }
    cluster.expect_done();
    Some(judge(&cluster, victim, killed, whole))
}

/// Starts every process; a standby only once somebody leads.
fn start(
    lab: &Lab,
    cluster: &mut Cluster,
    victim: Victim,
    fault: &str,
    of_worker: Option<&str>,
    etcd: Option<&Etcd>,
) {
    let endpoints = etcd.map(|etcd| format!("store.endpoints={:?}", etcd.endpoints()));
    let mut set = SETTINGS.to_vec();
    if let Some(endpoints) = &endpoints {
        set.extend(["store.kind=etcd", "store.leader_ttl_s=4", endpoints]);
    }
    if victim.has_a_standby() {
        cluster.serve(lab, WORKERS, &set, fault);
        cluster.until_event("a coordinator leads", |history| history.of("started").count() > 0);
        cluster.stand_by();
    } else {
        cluster.launch(lab, WORKERS, &set, fault);
    }
    for rank in 0..WORKERS {
        let name = format!("w{rank}");
        let command = match victim.has_a_standby() {
            true => cluster.worker_that_searches(&name),
            false => cluster.worker(&name),
        };
        let fault = of_worker.filter(|_| victim.process() == Some(&name));
        cluster.join_by(&name, fault.unwrap_or_default(), command);
    }
}

/// Checks how the run has ended.
fn judge(cluster: &Cluster, victim: Victim, killed: SystemTime, whole: &State) -> Cost {
    let history = History::read(cluster.dir());
    history.check(STEPS);
    history.check_digests();
    let workers = |event: &serde_json::Value| event["workers"].as_array().map_or(0, Vec::len);
    // The run that keeps its number of workers ends with the very numbers of one that was left alone.
    if !victim.is_a_worker() && history.of("generation_opened").all(|e| workers(e) == WORKERS) {
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
