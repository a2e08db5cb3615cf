//! What a leading coordinator lets others see: events, effects, orders.

use medevo_core::*;

use super::{Asked, Checker};
use crate::weights::mark;

impl Checker {
    /// A coordinator that leads has acted on an output whose records are in the store.
    pub fn acted(&mut self, now: Millis, output: &Output) {
        for event in &output.events {
            self.event(event);
        }
        for effect in &output.effects {
            self.effect(now, effect);
        }
        if let Some(Reply::Order(Ok(order))) = &output.reply {
            self.order(order);
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::GenerationOpened { generation, workers, .. } => {
                let opened = self.opened.get(generation);
                assert_eq!(opened, Some(&self.term), "INV-3: opened before it is on record");
                assert!(workers.len() <= self.spec.max_workers, "the roster is too large");
                assert!(workers.len() >= self.spec.min_workers, "the roster is too small");
                let used = self.rosters.insert(*generation, workers.clone());
                assert!(used.is_none(), "INV-3: generation {generation} used twice");
            }
            Event::DigestsAgree { policy, digest, .. } => {
                assert_eq!(*policy, self.policy(), "ranks agree on the current version");
                assert_eq!(*digest, self.chain[policy], "an update was lost or doubled");
            }
            _ => {}
        }
    }

    fn effect(&mut self, now: Millis, effect: &Effect) {
        match effect {
            Effect::Score { stage, step, policy, holding, earlier, groups } => {
                assert_eq!(*holding, self.chain[policy], "not the weights that all ranks hold");
                assert_eq!(*step, self.committed().next(), "INV-4: of another step");
                assert_eq!(*policy, self.policy(), "INV-4: of another version");
                assert_eq!(self.cycle(*step).0, *step, "INV-4: a cycle scores once, at its start");
                let samples: Vec<SampleIndex> = groups.iter().map(|(sample, _)| *sample).collect();
                self.in_order(*stage, *step, &samples);
                let drawn_by = (policy.0 as u32, mark(&self.chain[policy]));
                for candidate in groups.iter().flat_map(|(_, g)| g.candidates.iter()) {
                    let by = (candidate.ids[0], candidate.ids[3]);
                    assert_eq!(by, drawn_by, "INV-4: drawn by other weights");
                }
                self.contents.retain(|(of, _), _| of < step);
                let before = self.scoring.as_ref().filter(|asked| asked.step == *step);
                if before.is_some_and(|asked| asked.inherited) {
                    // A new coordinator draws anew and has that scored.
                    assert_eq!(*earlier, 0, "INV-4: goes on with another's groups");
                    self.scored_by.retain(|(of, _), _| of != step);
                }
                let before = before.filter(|asked| !asked.inherited);
                assert!(*earlier == 0 || before.is_some(), "INV-4: groups out of nowhere");
                if let Some(asked) = before {
                    let known = asked.samples.len().min(samples.len());
                    assert_eq!(asked.samples[..known], samples[..known], "other earlier groups");
                }
                if let Some(asked) = before.filter(|asked| asked.earlier == *earlier) {
                    let late = now >= asked.since + self.spec.deadlines.score_ms;
                    assert!(asked.failed || late, "INV-4: scored twice without a failure");
                }
                let (step, earlier) = (*step, *earlier);
                let (failed, inherited) = (false, false);
                self.scoring =
                    Some(Asked { step, since: now, earlier, samples, failed, inherited });
            }
            Effect::Evaluated { policy, pass, groups, .. } => {
                assert_eq!(*policy, self.policy(), "measured with other weights");
                let samples: Vec<usize> = groups.iter().map(|(sample, _)| *sample).collect();
                assert_eq!(samples, (0..pass.samples).collect::<Vec<_>>(), "a whole pass");
            }
            Effect::WriteManifest { .. } | Effect::Finish(_) => {}
        }
    }

    fn order(&mut self, order: &Order) {
        match order {
            Order::Form(roster) => {
                assert_eq!(
                    roster.generation, self.generation,
                    "INV-3: an old roster is handed out"
                );
            }
            Order::Rollout { unit, policy, step, samples, .. } => {
                assert_eq!(*policy, self.policy(), "a rollout with other weights");
                assert_eq!(unit.0 >> 40, self.term.0, "unit {unit} is of another term");
                let work = (*step, *policy, samples.clone());
                let known = self.units.entry(*unit).or_insert_with(|| work.clone());
                assert_eq!(*known, work, "unit {unit} is two units");
            }
            Order::Update { generation, step, share, policy, .. } => {
                assert_eq!(*generation, self.generation);
                assert_eq!(*policy, self.policy());
                assert_eq!(*step, self.committed().next(), "INV-1: a committed step again");
                if let Share::Grpo { groups, rollout_policy, .. } = share {
                    let (start, iteration) = self.cycle(*step);
                    assert_eq!(rollout_policy.0 + iteration, policy.0, "whose candidates");
                    for (sample, answers) in groups {
                        let times = self.scoring.as_ref().map_or(0, |asked| {
                            asked.samples.iter().filter(|other| *other == sample).count()
                        });
                        let by = self.scored_by.entry((start, *sample)).or_default();
                        for answer in answers.iter() {
                            assert_eq!(u64::from(answer.ids[0]), rollout_policy.0, "INV-4: stale");
                            by.insert(answer.advantage as u64);
                        }
                        assert!(by.len() <= times, "INV-4: two scorings train one group");
                    }
                }
            }
            Order::Apply { generation, step, attempt, .. } => {
                let key = (*generation, *step, *attempt);
                assert!(
                    self.commits.contains_key(&key),
                    "INV-2: apply before the commit is on record"
                );
            }
            _ => {}
        }
    }
}
