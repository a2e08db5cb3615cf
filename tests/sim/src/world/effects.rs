//! The driver's effects: begun, and done some time later.

use medevo_core::{Effect, Input, Outcome, Output};

use super::{Mutation, World, coordinator::Knock, queue::Happening, weather::use_up};
use crate::replay;

impl World {
    pub(super) fn carry_out(&mut self, coordinator: usize, effect: Effect) {
        let process = self.coordinators[coordinator].process;
        let deadlines = self.spec.deadlines.clone();
        let double = self.mutation == Some(Mutation::DoubleScore);
        let mut knocks = Vec::new();
        match effect {
            Effect::Score { stage, step, policy, holding, earlier, groups } => {
                replay::keep(
                    &mut self.rollouts,
                    stage,
                    step,
                    policy,
                    holding.clone(),
                    earlier,
                    &groups,
                );
                let Some(driver) = self.driver(coordinator) else { return };
                let job = driver.scorer.job(step, policy, earlier, &groups);
                let wait = self.random.delay(15, 400);
                if use_up(&mut self.weather.slow_scorings) {
                    knocks.push((deadlines.score_ms, Knock::NotScored(step, job.epoch())));
                } else if use_up(&mut self.weather.bad_scorings) {
                    knocks.push((wait, Knock::NotScored(step, job.epoch())));
                } else {
                    knocks.push((wait, Knock::Scored(Box::new(job))));
                }
                if double && self.random.chance(200) {
                    let again = Effect::Score { stage, step, policy, holding, earlier, groups };
                    let again = Output { effects: vec![again], ..Output::default() };
                    self.checker.acted(self.clock(coordinator), &again);
                }
            }
            Effect::WriteManifest { checkpoint, .. } => {
                let bad = use_up(&mut self.weather.bad_manifests);
                let wait = self.random.delay(20, 500);
                knocks.push((wait, Knock::Checked(Box::new(checkpoint), !bad)));
            }
            Effect::Finish(Outcome::Done) | Effect::Evaluated { .. } => {}
            Effect::Finish(_) => self.queue.at(self.now + 500, Happening::Resumed),
        }
        for (wait, knock) in knocks {
            self.queue.at(self.now + wait, Happening::Coordinator { coordinator, process, knock });
        }
    }

    /// An effect is done.
    pub(super) fn effect_done(&mut self, coordinator: usize, knock: Knock) {
        let blind = self.mutation == Some(Mutation::BlindManifest);
        let Some(driver) = self.driver(coordinator) else { return };
        let input = match knock {
            Knock::Scored(job) => match driver.scorer.accept(*job) {
                Some(input) => input,
                None => return,
            },
            Knock::NotScored(step, epoch) if epoch == driver.scorer.epoch() => {
                Input::ScoringFailed { step, error: "no".to_owned() }
            }
            Knock::Checked(checkpoint, good) => {
                let written = self.disk.get(&checkpoint.dir);
                let whole = written.is_some_and(|directory| {
                    directory.parts.values().all(|part| part.digest == checkpoint.holding)
                });
                if (good && whole) || blind {
                    if good && whole {
                        let new = self.checker.manifests.insert(checkpoint.dir.clone());
                        assert!(new, "INV-5: two manifests in {}", checkpoint.dir.display());
                    }
                    Input::ManifestWritten(*checkpoint)
                } else {
                    let error = "bad".to_owned();
                    Input::CheckpointFailed { step: checkpoint.step, error }
                }
            }
            _ => return,
        };
        self.input(coordinator, input, None);
    }
}
