//! The update's gradient against the plain computation, and over any number of ranks.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

mod common;

use common::{Fixture, Plain, distance, figure, groups, grpo, update_work};
use medevo_collective::{InProcess, Solo};
use medevo_types::{
    messages::{Batch, SftExample},
    settings::{LossType, Objective},
};
use tch::Kind;

/// Broken, sharing a prompt would change what is learnt.
#[test]
fn shared_prompts_give_the_gradient_of_separate_rows() {
    let fixture = Fixture::new();
    let reference = fixture.dir.path().join("reference");
    let groups = groups(fixture.prompts());
    let answers: f64 = groups.iter().flat_map(|g| &g.answers).map(|a| f64::from(a.count)).sum();
    let all = groups.iter().flat_map(|g| &g.answers);
    let tokens: f64 = all.map(|a| f64::from(a.count) * a.ids.len() as f64).sum();
    let plain_reference = Plain::new(&reference);
    for (loss_type, beta) in [(LossType::Dapo, 0.5), (LossType::Grpo, 0.0), (LossType::DrGrpo, 0.5)]
    {
        let plain = Plain::new(&fixture.model());
        let mut loss = tch::Tensor::from(0f32);
        for group in &groups {
            for answer in &group.answers {
                let logp = plain.logp(&group.prompt, &answer.ids, 0.7);
                let other = tch::no_grad(|| plain_reference.logp(&group.prompt, &answer.ids, 0.7));
                let gap = other - &logp;
                let ratio = (&logp - logp.detach()).exp();
                let per_token = (gap.exp() - gap - 1.0) * beta - ratio * answer.advantage;
                let length = answer.ids.len() as f64;
                let by = match loss_type {
                    LossType::Grpo => length * answers,
                    LossType::Dapo => tokens,
                    LossType::DrGrpo => answers * 6.0,
                };
                // Each identical candidate by itself.
                for _ in 0..answer.count {
                    loss += per_token.sum(Kind::Float) / by;
                }
            }
        }
        loss.backward();

        for tokens_per_batch in [1000, 1] {
            let mut setup = fixture.setup();
            setup.tokens_per_batch = tokens_per_batch;
            let mut engine = fixture.engine_with(&setup);
            let objective = Objective { loss_type, beta, ..Objective::default() };
            let work = update_work(0, grpo(groups.clone(), objective, reference.clone()));
            let ballot = engine.update(&work, &mut Solo).unwrap();
            assert!(ballot.finite);
            let apart = (figure(&ballot, "loss") - loss.double_value(&[])).abs();
            assert!(apart < 1e-4, "{loss_type:?}: loss differs by {apart}");
            let apart = distance(engine.gradient().unwrap(), &plain.gradient());
            assert!(apart < 1e-4, "{loss_type:?}: gradient differs by {apart}");
        }
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
    assert!(distance(engine.gradient().unwrap(), &plain.gradient()) < 1e-4);
}

/// Broken, a run's result would depend on how many workers it happened to have.
#[test]
fn any_number_of_ranks_computes_the_same_step() {
    let fixture = Fixture::new();
    let reference = fixture.dir.path().join("reference");
    let groups = groups(fixture.prompts());
    let run = |ranks: usize| {
        let threads: Vec<_> = InProcess::group(ranks)
            .into_iter()
            .enumerate()
            .map(|(rank, mut collective)| {
                // The last of several ranks gets nothing: it takes part with zeros.
                let sharing = (ranks - 1).max(1);
                let mine = groups.iter().enumerate().filter(|(at, _)| at % sharing == rank);
                let share = mine.map(|(_, group)| group.clone()).collect();
                let work = update_work(0, grpo(share, Objective::default(), reference.clone()));
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
    let alone = run(1);
    for ranks in [2, 3] {
        let together = run(ranks);
        for (ballot, gradient) in &together {
            assert_eq!(ballot.gradient, together[0].0.gradient, "ranks vote alike");
            let (ours, theirs) = (figure(ballot, "loss"), figure(&alone[0].0, "loss"));
            assert!((ours - theirs).abs() < 1e-5, "{ranks} ranks: {ours} against {theirs}");
            assert!(distance(gradient, &alone[0].1) < 1e-5);
        }
    }
}
