//! What a seed stands for: the run, the cluster, and the troubles that come.

use medevo_core::{Millis, RunSpec};

use super::faults::{self, Fault};
use crate::{random::Random, spec};

/// Everything that is decided before a simulation begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The run.
    pub spec: RunSpec,
    /// Worker processes.
    pub workers: usize,
    /// Coordinators: one, or one and a standby.
    pub coordinators: usize,
    /// Whether a coordinator looks at its lease before it acts, and not only when it writes.
    pub fenced: bool,
    /// Messages lost all the time, in a thousand.
    pub loss: u64,
    /// Calls doubled all the time, in a thousand.
    pub duplicate: u64,
    /// Typical and longest time of a message.
    pub latency: (Millis, Millis),
    /// Writes to a store out of reach that are applied all the same, in a thousand.
    pub ambiguous: u64,
    /// Every so many scorings find nothing to train on.
    pub quiet_every: u64,
    /// Every so many samples never train.
    pub dull_every: usize,
    /// What goes wrong: when, what, for how long.
    pub faults: Vec<(Millis, Fault, Millis)>,
    /// When the last trouble is over.
    pub faults_end: Millis,
    /// When somebody drains the run, if anybody does.
    pub drain: Option<Millis>,
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(random: &mut Random) -> Plan {
        let base = match random.below(3) {
            0 => spec::only_rl(random.between(2, 6)),
            _ => spec::whole(),
        };
        let reused = spec::reusing(base, random.between(1, 3), random.below(3));
        let max_workers = random.between(1, 4) as usize;
        let spec = RunSpec {
            min_workers: random.between(1, 2.min(max_workers as u64)) as usize,
            max_workers,
            sharded: random.chance(300),
            checkpoint_every: random.between(0, 3),
            ..reused
        };
        let workers = max_workers + usize::from(random.chance(200));
        let coordinators = random.between(1, 2) as usize;
        let window = random.between(2_000, 20_000);
        let calm = random.chance(50);
        let count = if calm { 0 } else { random.between(1, 14) };
        let mut faults: Vec<_> = (0..count)
            .map(|_| {
                let fault = faults::draw(random, workers, coordinators);
                let long = match random.chance(400) {
                    true => random.between(800, 5_000),
                    false => random.delay(300, 8_000),
                };
                (random.below(window), fault, long)
            })
            .collect();
        faults.sort_by_key(|(at, ..)| *at);
        let faults_end = faults.iter().map(|(at, _, long)| at + long).max().unwrap_or(0);
        Plan {
            spec,
            workers,
            coordinators,
            fenced: random.chance(500),
            loss: if calm { 0 } else { random.below(30) },
            duplicate: random.below(120),
            latency: (random.between(1, 6), random.between(20, 700)),
            ambiguous: random.below(600),
            quiet_every: if random.chance(300) { 3 } else { 0 },
            dull_every: if random.chance(300) { 2 } else { 0 },
            faults,
            faults_end,
            drain: random.chance(60).then(|| random.below(window)),
        }
    }
}
