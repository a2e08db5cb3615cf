//! The update's gradient against the plain computation, and over any number of ranks.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

mod common;

use common::{Fixture, Plain, distance, drawn_before, figure, groups, grpo, unit, update_work};
use medevo_collective::{InProcess, Solo};
use medevo_types::{
    messages::{Batch, Prompt, SftExample, TrainAnswer, TrainGroup},
    settings::{Dtype, ImportanceLevel, KlEstimator, LossType, Objective, Sampling},
};
use tch::Kind;

/// What f32 leaves of the gradient of this model, whose weights have opinions: one product computed in another
/// order moves it by 1e-4 of its largest entry, as far as it is from f64's.
const ROUNDING: f64 = 5e-4;

/// Broken, sharing a prompt would change what is learnt.
#[test]
fn shared_prompts_give_the_gradient_of_separate_rows() {
    let fixture = Fixture::new();
    let reference = fixture.dir.path().join("reference");
    let mut groups = groups(fixture.prompts());
    // Rollout probabilities on both sides of training's, so that a cap bites on some tokens and not on others.
    let plain = Plain::new(&fixture.model());
    for group in &mut groups {
        for answer in std::sync::Arc::make_mut(&mut group.answers) {
            let logp = tch::no_grad(|| plain.logp(&group.prompt, &answer.ids, 0.7));
            let logp = Vec::<f32>::try_from(logp).unwrap();
            let shift = [-0.5, 0.4, 0.1].iter().cycle();
            answer.logprobs = logp.iter().zip(shift).map(|(logp, shift)| logp + shift).collect();
        }
    }
    let answers: f64 =
        groups.iter().flat_map(|g| g.answers.iter()).map(|a| f64::from(a.count)).sum();
    let all = groups.iter().flat_map(|g| g.answers.iter());
    let tokens: f64 = all.map(|a| f64::from(a.count) * a.ids.len() as f64).sum();
    let plain_reference = Plain::new(&reference);
    for (objective, stale) in objectives() {
        let (loss_type, beta) = (objective.loss_type, objective.beta);
        let plain = Plain::new(&fixture.model());
        let mut loss = tch::Tensor::from(0f32);
        for group in &groups {
            for answer in group.answers.iter() {
                let all = plain.distributions(&group.prompt, &answer.ids, 0.7);
                let ids: Vec<i64> = answer.ids.iter().map(|id| i64::from(*id)).collect();
                let ids = tch::Tensor::from_slice(&ids).unsqueeze(1);
                let logp = all.gather(1, &ids, false).squeeze_dim(1);
                let other = tch::no_grad(|| plain_reference.logp(&group.prompt, &answer.ids, 0.7));
                let gap = other - &logp;
                let kl = match objective.kl_estimator {
                    KlEstimator::K1 => -gap,
                    KlEstimator::K2 => gap.square() / 2,
                    KlEstimator::K3 => gap.exp() - gap - 1.0,
                };
                let drawn = tch::Tensor::from_slice(&answer.logprobs);
                let mut ratio = &logp - if stale { drawn.copy() } else { logp.detach() };
                if objective.by_sequence() {
                    ratio = ratio.mean(Kind::Float).expand_as(&logp);
                }
                let ratio = ratio.exp();
                let mut gain = match loss_type {
                    LossType::Cispo => {
                        ratio.detach().clamp_max(objective.clip_high) * &logp * answer.advantage
                    }
                    _ => {
                        let bounds = (1.0 - objective.clip_low, 1.0 + objective.clip_high);
                        let bounded = ratio.clamp(bounds.0, bounds.1);
                        (ratio * answer.advantage).minimum(&(bounded * answer.advantage))
                    }
                };
                if objective.importance_cap > 0.0 && !stale {
                    gain *= (logp.detach() - drawn).exp().clamp_max(objective.importance_cap);
                }
                let per_token = kl * beta - gain;
                let length = answer.ids.len() as f64;
                let by = match loss_type {
                    LossType::Grpo | LossType::Gspo => length * answers,
                    LossType::Dapo | LossType::Bnpo | LossType::Cispo => tokens,
                    LossType::DrGrpo => answers * 6.0,
                };
                let entropy = -(all.exp() * all.clamp_min(-1e4)).sum(Kind::Float);
                // Each identical candidate by itself.
                for _ in 0..answer.count {
                    loss += per_token.sum(Kind::Float) / by;
                    loss -= &entropy * objective.entropy_weight / tokens;
                }
            }
        }
        loss.backward();

        for tokens_per_batch in [1000, 1] {
            let mut setup = fixture.setup();
            setup.tokens_per_batch = tokens_per_batch;
            let mut engine = fixture.engine_with(&setup);
            let batch = grpo(groups.clone(), objective.clone(), reference.clone());
            let work = update_work(0, if stale { drawn_before(batch) } else { batch });
            let ballot = engine.update(&work, &mut Solo).unwrap();
            assert!(ballot.finite);
            let apart = (figure(&ballot, "loss") - loss.double_value(&[])).abs();
            assert!(apart < 1e-4, "{objective:?}: loss differs by {apart}");
            let apart = distance(engine.gradient().unwrap(), &plain.gradient());
            assert!(apart < ROUNDING, "{objective:?}: gradient differs by {apart}");
            let clipped = figure(&ballot, "clip_fraction") > 0.0;
            assert_eq!(clipped, stale, "at the weights that drew them no ratio is clipped");
        }
    }
}

/// Every loss, every KL estimator, and what the engine does differently for a setting; first as the first update
/// of a rollout, then as a later one.
fn objectives() -> Vec<(Objective, bool)> {
    let of = |loss_type, beta| Objective { loss_type, beta, ..Objective::default() };
    let by_answer = ImportanceLevel::Sequence;
    let first = [
        of(LossType::Dapo, 0.5),
        of(LossType::Grpo, 0.0),
        of(LossType::DrGrpo, 0.5),
        Objective { kl_estimator: KlEstimator::K1, ..of(LossType::Bnpo, 0.5) },
        Objective { clip_high: 5.0, ..of(LossType::Cispo, 0.0) },
        Objective { kl_estimator: KlEstimator::K2, ..of(LossType::Gspo, 0.5) },
        // The bonus is a mean over tokens, the loss one over answers.
        Objective { entropy_weight: 0.3, ..of(LossType::Grpo, 0.0) },
        Objective { entropy_weight: 0.3, ..of(LossType::Dapo, 0.5) },
        Objective { importance_cap: 1.2, ..of(LossType::Dapo, 0.5) },
        Objective { importance_cap: 1.2, ..of(LossType::Gspo, 0.0) },
        Objective {
            clip_high: 5.0,
            importance_cap: 1.2,
            importance_sampling_level: by_answer,
            ..of(LossType::Cispo, 0.0)
        },
    ];
    let later = [
        Objective { clip_high: 0.28, importance_cap: 1.2, ..of(LossType::Dapo, 0.5) },
        Objective {
            importance_sampling_level: by_answer,
            clip_low: 0.05,
            ..of(LossType::DrGrpo, 0.0)
        },
        Objective { clip_low: 0.05, ..of(LossType::Gspo, 0.5) },
        Objective { clip_high: 1.1, ..of(LossType::Cispo, 0.0) },
        Objective {
            clip_high: 1.01,
            importance_cap: 1.2,
            importance_sampling_level: by_answer,
            ..of(LossType::Cispo, 0.0)
        },
    ];
    let first = first.into_iter().map(|objective| (objective, false));
    first.chain(later.into_iter().map(|objective| (objective, true))).collect()
}

/// Broken, the second update of a rollout would see a ratio where the weights have not moved at all.
#[test]
fn a_later_update_at_unmoved_weights_is_the_first_one() {
    let fixture = Fixture::new();
    let reference = fixture.dir.path().join("reference");
    let mut engine = fixture.engine();
    let sampling = Sampling { n: 6, temperature: 0.7, max_new_tokens: 6, ..Sampling::default() };
    let drawn = engine.rollout(&unit(fixture.prompts(), sampling)).unwrap();
    let groups: Vec<TrainGroup> = drawn
        .into_iter()
        .zip(fixture.prompts())
        .map(|(group, prompt)| {
            let answer =
                |(number, candidate): (usize, &medevo_types::messages::Candidate)| TrainAnswer {
                    ids: candidate.ids.clone(),
                    count: 1,
                    advantage: number as f64 - 2.5,
                    logprobs: candidate.logprobs.clone(),
                };
            TrainGroup {
                prompt,
                answers: group.candidates.iter().enumerate().map(answer).collect(),
            }
        })
        .collect();
    for loss_type in [LossType::Dapo, LossType::Gspo, LossType::Cispo] {
        // The cap corrects nothing, for rollout and training agree; cispo's ratio must not meet its bound.
        let objective =
            Objective { loss_type, clip_high: 5.0, importance_cap: 5.0, ..Objective::default() };
        let batch = grpo(groups.clone(), objective, reference.clone());
        let first = engine.update(&update_work(0, batch.clone()), &mut Solo).unwrap();
        let gradient = engine.gradient().unwrap().copy();
        let later = engine.update(&update_work(0, drawn_before(batch)), &mut Solo).unwrap();
        let apart = distance(engine.gradient().unwrap(), &gradient);
        assert!(apart < ROUNDING, "{loss_type:?}: gradient differs by {apart}");
        assert!((figure(&first, "loss") - figure(&later, "loss")).abs() < 1e-4);
        assert_eq!(figure(&later, "clip_fraction"), 0.0);
    }
}

/// Groups by the lengths of their answers: one answer, one-token answers, a single one-token answer, answers that
/// fill a block of attention and more, and one answer many times.
fn shapes(fixture: &Fixture) -> Vec<TrainGroup> {
    let lengths: [&[usize]; 5] = [&[7], &[1, 3, 1, 40], &[1], &[30, 30, 30, 2, 70], &[4]];
    let group = |(prompt, lengths): (Prompt, &&[usize])| TrainGroup {
        answers: lengths
            .iter()
            .enumerate()
            .map(|(number, tokens)| TrainAnswer {
                ids: (0..*tokens).map(|at| 40 + ((number * 13 + at * 7) % 90) as u32).collect(),
                count: if lengths == &[4] { 16 } else { 1 },
                advantage: 1.0 - 0.7 * number as f64,
                logprobs: vec![-1.0; *tokens],
            })
            .collect(),
        prompt,
    };
    // The longest branches follow two images.
    fixture.prompts().into_iter().zip(&lengths).map(group).collect()
}

/// Broken, some shape of group, alone or beside others, would be learnt wrongly.
#[test]
fn every_shape_of_group_gives_the_plain_gradient() {
    let fixture = Fixture::new();
    let all = shapes(&fixture);
    let objective = Objective { beta: 0.0, ..Objective::default() };
    let mut cases: Vec<Vec<TrainGroup>> = all.iter().map(|group| vec![group.clone()]).collect();
    cases.push(all);
    for groups in cases {
        for freeze_vision in [false, true] {
            let plain = Plain::new(&fixture.model());
            plain.model.set_requires_grad(!freeze_vision, true);
            let (mut loss, mut tokens) = (tch::Tensor::from(0f32), 0.0);
            for group in &groups {
                for answer in group.answers.iter() {
                    let times = f64::from(answer.count);
                    let logp = plain.logp(&group.prompt, &answer.ids, 0.7);
                    loss -= logp.sum(Kind::Float) * answer.advantage * times;
                    tokens += times * answer.ids.len() as f64;
                }
            }
            (loss / tokens).backward();
            let trained = plain
                .model
                .parameters()
                .iter()
                .filter(|(name, _)| !freeze_vision || !medevo_model::Qwen25Vl::is_vision(name));
            let parts: Vec<_> = trained
                .map(|(_, tensor)| match tensor.grad() {
                    grad if grad.defined() => grad.reshape([-1]),
                    _ => tensor.zeros_like().reshape([-1]),
                })
                .collect();
            let wanted = tch::Tensor::cat(&parts, 0);
            for recompute in [false, true] {
                let mut setup = fixture.setup();
                setup.freeze_vision = freeze_vision;
                setup.train.recompute = recompute;
                let mut engine = fixture.engine_with(&setup);
                let batch = grpo(groups.clone(), objective.clone(), fixture.model());
                engine.update(&update_work(0, batch), &mut Solo).unwrap();
                let apart = distance(engine.gradient().unwrap(), &wanted);
                let which = groups.len();
                assert!(apart < ROUNDING, "{which} groups, recompute {recompute}: {apart}");
            }
        }
    }
}

/// Broken, `train.recompute` would change what a run learns.
#[test]
fn recomputing_changes_no_bit() {
    let fixture = Fixture::new();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let gradient = |recompute| {
            let mut setup = fixture.setup();
            setup.dtype = dtype;
            setup.train.recompute = recompute;
            let mut engine = fixture.engine_with(&setup);
            let batch = grpo(shapes(&fixture), Objective::default(), fixture.model());
            engine.update(&update_work(0, batch), &mut Solo).unwrap();
            engine.gradient().unwrap().copy()
        };
        assert!(gradient(false).equal(&gradient(true)), "{dtype:?}");
    }
}

fn examples(fixture: &Fixture) -> Vec<SftExample> {
    let answers = ["liver", "yes", "it is the heart", "left lung", "cyst"];
    let pairs = fixture.prompts().into_iter().zip(answers);
    pairs.map(|(prompt, answer)| SftExample { prompt, answer: answer.into() }).collect()
}

/// Broken, questions that share an image's tokens would see each other.
#[test]
fn shared_images_give_the_supervised_gradient_of_separate_rows() {
    let fixture = Fixture::new();
    let examples = examples(&fixture);
    let plain = Plain::new(&fixture.model());
    let mut loss = tch::Tensor::from(0f32);
    let mut tokens = 0.0;
    for example in &examples {
        let ids = plain.encoder.answer(&example.answer).unwrap();
        tokens += ids.len() as f64;
        loss -= plain.logp(&example.prompt, &ids, 1.0).sum(Kind::Float);
    }
    let loss = loss / tokens;
    loss.backward();
    let mut engine = fixture.engine();
    let ballot = engine.update(&update_work(0, Batch::Sft { examples }), &mut Solo).unwrap();
    assert!((figure(&ballot, "loss") - loss.double_value(&[])).abs() < 1e-4);
    assert_eq!(figure(&ballot, "tokens"), tokens);
    assert!(distance(engine.gradient().unwrap(), &plain.gradient()) < ROUNDING);
}

/// Broken, a run's result would depend on how many workers it happened to have.
#[test]
fn any_number_of_ranks_computes_the_same_step() {
    let fixture = Fixture::new();
    let reference = fixture.dir.path().join("reference");
    let groups = groups(fixture.prompts());
    let run = |ranks: usize, objective: &Objective| {
        let threads: Vec<_> = InProcess::group(ranks)
            .into_iter()
            .enumerate()
            .map(|(rank, mut collective)| {
                // The last of several ranks gets nothing: it takes part with zeros.
                let sharing = (ranks - 1).max(1);
                let mine = groups.iter().enumerate().filter(|(at, _)| at % sharing == rank);
                let share = mine.map(|(_, group)| group.clone()).collect();
                let work = update_work(0, grpo(share, objective.clone(), reference.clone()));
                let setup = fixture.setup();
                let model = fixture.model();
                std::thread::spawn(move || {
                    let mut engine = medevo_engine::Engine::new(&setup, tch::Device::Cpu).unwrap();
                    let source = medevo_types::messages::RestoreSource::Model { dir: model };
                    let policy = medevo_types::PolicyVersion(0);
                    engine.restore(&source, policy, &mut Solo).unwrap();
                    let ballot = engine.update(&work, &mut collective).unwrap();
                    (ballot, engine.gradient().unwrap().copy())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    };
    // With a bonus beside a mean over answers, ranks have to know the whole step's counts beforehand.
    let bonus =
        Objective { loss_type: LossType::Grpo, entropy_weight: 0.3, ..Objective::default() };
    for objective in [Objective::default(), bonus] {
        let alone = run(1, &objective);
        for ranks in [2, 3] {
            let together = run(ranks, &objective);
            for (ballot, gradient) in &together {
                assert_eq!(ballot.gradient, together[0].0.gradient, "ranks vote alike");
                let (ours, theirs) = (figure(ballot, "loss"), figure(&alone[0].0, "loss"));
                assert!((ours - theirs).abs() < 1e-5, "{ranks} ranks: {ours} against {theirs}");
                let apart = distance(gradient, &alone[0].1);
                assert!(apart < ROUNDING, "{ranks} ranks: {apart:e} of the largest entry");
            }
        }
    }
}
