//! A schedule of harm drawn from a seed: processes are killed and started again as a scheduler would, stopped,
//! cut off and slowed down, one on top of the other, for a fixed time. The same seed draws the same schedule.

use std::time::{Duration, Instant};

use super::link::Link;
use crate::{
    cluster::{COORDINATOR, Cluster},
    history::History,
    lab::Lab,
};

const WORKERS: u64 = 3;
/// As in [`Lab`]'s run file.
const LEASE_TTL: Duration = Duration::from_secs(4);

/// Random numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn time(&mut self, up_to: Duration) -> Duration {
        up_to.mul_f64(self.below(1000) as f64 / 1000.0)
    }
}

/// Something done to the run.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// SIGKILL; started again after so long.
    KillWorker { rank: u64, back: Duration },
    /// SIGSTOP for so long, at times longer than its lease.
    StopWorker { rank: u64, pause: Duration },
    /// Nothing passes between worker and coordinator for so long.
    CutWorker { rank: u64, pause: Duration },
    /// Each message takes so long, for so long.
    SlowWorker { rank: u64, delay: Duration, pause: Duration },
    /// SIGKILL; another goes on at once.
    KillCoordinator,
    /// SIGSTOP for so long, less than a lease.
    StopCoordinator { pause: Duration },
}

impl Harm {
    fn draw(dice: &mut Dice) -> Self {
        let rank = dice.below(WORKERS);
        match dice.below(10) {
            0..=2 => Self::KillWorker { rank, back: dice.time(Duration::from_secs(4)) },
            3 | 4 => Self::StopWorker { rank, pause: dice.time(LEASE_TTL * 2) },
            5 => Self::CutWorker { rank, pause: dice.time(LEASE_TTL * 2) },
            6 => Self::SlowWorker {
                rank,
                delay: dice.time(Duration::from_millis(200)),
                pause: dice.time(Duration::from_secs(5)),
            },
            7 | 8 => Self::KillCoordinator,
            _ => Self::StopCoordinator { pause: dice.time(LEASE_TTL / 2) },
        }
    }
}

/// What a schedule did.
#[derive(Debug, Default)]
pub struct Played {
    /// Harms done.
    pub harms: usize,
    /// Committed steps at the end.
    pub steps: usize,
    /// Rolled back on the way.
    pub steps_redone: u64,
    /// Processes that ended by themselves and were started again.
    pub restarts: usize,
}

/// Plays the schedule of `seed` for `time`, then heals everything and drains the run.
///
/// # Panics
/// When the run fails, stands still, or its history breaks an invariant.
#[must_use]
pub fn play(seed: u64, time: Duration) -> Played {
    let lab = Lab::new();
    let mut stage = Stage::set(&lab);
    let (mut dice, mut played) = (Dice(seed), Played::default());
    let start = Instant::now();
    stage.cluster.until_committed(1);
    while start.elapsed() < time {
        let harms: Vec<Harm> = (0..=dice.below(2)).map(|_| Harm::draw(&mut dice)).collect();
        println!("{:6.1} s: {harms:?}", start.elapsed().as_secs_f64());
        played.harms += harms.len();
        stage.play(&harms);
        played.restarts += stage.restart_ended();
        stage.until_progress();
        std::thread::sleep(dice.time(Duration::from_secs(2)));
    }
    played.restarts += stage.restart_ended();
    stage.until_progress();
    stage.cluster.drain();
    let history = History::read(stage.cluster.dir());
    played.steps = history.check_invariants();
    played.steps_redone = history.steps_redone();
    history.check_digests();
    played
}

/// The run and its links.
struct Stage {
    cluster: Cluster,
    links: Vec<Link>,
}

impl Stage {
    fn set(lab: &Lab) -> Self {
        let mut cluster = Cluster::new(lab, "run");
        let set = [
            "stage.adapt.steps=1000000",
            "cluster.grace_s=3",
            "checkpoint.every_steps=10",
            "cluster.collective_timeout_s=4",
            "cluster.prompts_per_unit=1",
        ];
        cluster.launch(lab, 3, &set, "");
        cluster.until_listening();
        let links: Vec<Link> = (0..WORKERS).map(|_| Link::to(cluster.address())).collect();
        let mut stage = Self { cluster, links };
        for rank in 0..WORKERS {
            stage.join(rank);
        }
        stage
    }

    fn join(&mut self, rank: u64) {
        let name = format!("w{rank}");
        let command = self.cluster.worker_through(&name, &self.links[rank as usize].address());
        self.cluster.join_by(&name, "", command);
    }

    /// Does all of it at once, and undoes it, each in its time.
    fn play(&mut self, harms: &[Harm]) {
        let start = Instant::now();
        let mut undo: Vec<(Duration, Harm)> = Vec::new();
        for harm in harms {
            if let Some(after) = self.inflict(*harm) {
                undo.push((after, *harm));
            }
        }
        undo.sort_by_key(|(after, _)| *after);
        for (after, harm) in undo {
            std::thread::sleep(after.saturating_sub(start.elapsed()));
            self.heal(harm);
        }
    }

    /// Returns after how long to heal it, if it has to be.
    fn inflict(&mut self, harm: Harm) -> Option<Duration> {
        match harm {
            Harm::KillWorker { rank, back } => {
                let name = format!("w{rank}");
                if self.cluster.ended(&name).is_none() {
                    self.cluster.kill(&name);
                }
                Some(back)
            }
            Harm::StopWorker { rank, pause } => {
                self.cluster.signal_if_alive(&format!("w{rank}"), "STOP");
                Some(pause)
            }
            Harm::CutWorker { rank, pause } => {
                self.links[rank as usize].dead(true);
                Some(pause)
            }
            Harm::SlowWorker { rank, delay, pause } => {
                self.links[rank as usize].slow(delay, 200_000);
                Some(pause)
            }
            Harm::KillCoordinator => {
                self.cluster.kill(COORDINATOR);
                self.cluster.resume();
                None
            }
            Harm::StopCoordinator { pause } => {
                self.cluster.signal_if_alive(COORDINATOR, "STOP");
                Some(pause)
            }
        }
    }

    fn heal(&mut self, harm: Harm) {
        match harm {
            Harm::KillWorker { rank, .. } => {
                if self.cluster.ended(&format!("w{rank}")).is_some() {
                    self.join(rank);
                }
            }
            Harm::StopWorker { rank, .. } => {
                self.cluster.signal_if_alive(&format!("w{rank}"), "CONT");
            }
            Harm::CutWorker { rank, .. } => self.links[rank as usize].dead(false),
            Harm::SlowWorker { rank, .. } => {
                self.links[rank as usize].slow(Duration::ZERO, u64::MAX);
            }
            Harm::StopCoordinator { .. } => self.cluster.signal_if_alive(COORDINATOR, "CONT"),
            Harm::KillCoordinator => {}
        }
    }

    /// A scheduler starts a worker again that has left.
    fn restart_ended(&mut self) -> usize {
        let ended: Vec<u64> =
            (0..WORKERS).filter(|rank| self.cluster.ended(&format!("w{rank}")).is_some()).collect();
        for rank in &ended {
            self.join(*rank);
        }
        ended.len()
    }

    /// Waits for a step that is committed from now on.
    fn until_progress(&mut self) {
        let before = History::read_so_far(self.cluster.dir()).of("step_committed").count();
        self.cluster.until_committed(before + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a seed does not draw the same schedule again.
    #[test]
    fn a_seed_draws_one_schedule() {
        let draw = |seed| {
            let mut dice = Dice(seed);
            (0..50).map(|_| format!("{:?}", Harm::draw(&mut dice))).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
