//! Drawn answers: independent of the batch, and reported as the policy means them.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

mod common;

use common::{Fixture, Plain, all_ids, figure, grpo, unit, update_work};
use medevo_collective::Solo;
use medevo_engine::EngineError;
use medevo_types::{
    messages::{TrainAnswer, TrainGroup},
    settings::{Objective, Sampling},
};

fn sampling(n: usize, temperature: f64) -> Sampling {
    Sampling { n, temperature, max_new_tokens: 6, ..Sampling::default() }
}

/// Broken, a re-issued unit would bring other candidates, and runs could not be repeated.
#[test]
fn candidates_do_not_depend_on_their_unit() {
    let fixture = Fixture::new();
    let mut engine = fixture.engine();
    let prompts = fixture.prompts();
    let together = engine.rollout(&unit(prompts.clone(), sampling(6, 1.0))).unwrap();
    let mut reversed = prompts.clone();
    reversed.reverse();
    let mut backwards = fixture.engine().rollout(&unit(reversed, sampling(6, 1.0))).unwrap();
    backwards.reverse();
    assert_eq!(all_ids(&together), all_ids(&backwards));
    for (number, prompt) in prompts.into_iter().enumerate() {
        let alone = engine.rollout(&unit(vec![prompt.clone()], sampling(6, 1.0))).unwrap();
        assert_eq!(all_ids(&alone)[0], all_ids(&together)[number]);
        // Fewer candidates are the first of many.
        let fewer = engine.rollout(&unit(vec![prompt], sampling(2, 1.0))).unwrap();
        assert_eq!(all_ids(&fewer)[0], all_ids(&together)[number][..2]);
    }
}

/// Broken, importance ratios would measure our own rounding, and features would not be the policy's.
#[test]
fn what_is_reported_is_what_training_computes() {
    let fixture = Fixture::new();
    let plain = Plain::new(&fixture.model());
    for temperature in [1.0, 0.6] {
        let mut engine = fixture.engine();
        let prompts = fixture.prompts();
        let drawn = engine.rollout(&unit(prompts.clone(), sampling(5, temperature))).unwrap();
        let mut groups = Vec::new();
        for (prompt, group) in prompts.iter().zip(&drawn) {
            let mut answers = Vec::new();
            for candidate in group.candidates.iter() {
                let logp = tch::no_grad(|| plain.logp(prompt, &candidate.ids, temperature));
                for (ours, theirs) in
                    candidate.logprobs.iter().zip(Vec::<f32>::try_from(logp).unwrap())
                {
                    assert!((ours - theirs).abs() < 5e-4, "{ours} against {theirs}");
                }
                let text = candidate.ids.len() as i64 - i64::from(candidate.finished);
                let hidden = tch::no_grad(|| plain.hidden(prompt, &candidate.ids));
                let mean = match text {
                    0 => hidden.narrow(0, 0, 1),
                    _ => hidden.narrow(0, 1, text),
                }
                .mean_dim(0, false, tch::Kind::Float);
                let unit = &mean / mean.norm();
                let feature = tch::Tensor::from_slice(candidate.feature.as_ref().unwrap());
                assert!((unit - feature).abs().max().double_value(&[]) < 5e-4);
                answers.push(TrainAnswer {
                    ids: candidate.ids.clone(),
                    count: 1,
                    advantage: 0.5,
                    logprobs: candidate.logprobs.clone(),
                });
            }
            groups.push(TrainGroup { prompt: prompt.clone(), answers: answers.into() });
        }
        let objective = Objective { beta: 0.0, ..Objective::default() };
        let mut batch = grpo(groups, objective, fixture.model());
        if let medevo_types::messages::Batch::Grpo { temperature: t, .. } = &mut batch {
            *t = temperature;
        }
        let ballot = engine.update(&update_work(0, batch), &mut Solo).unwrap();
        assert!((figure(&ballot, "ratio_mean") - 1.0).abs() < 1e-4);
    }
}

/// Broken, measured accuracy would be that of other answers than the model's best guess.
#[test]
fn greedy_answers_are_the_plain_argmax() {
    let fixture = Fixture::new();
    let plain = Plain::new(&fixture.model());
    let prompts = fixture.prompts();
    let groups = fixture.engine().rollout(&unit(prompts.clone(), sampling(1, 0.0))).unwrap();
    for (prompt, group) in prompts.iter().zip(groups) {
        let mut ids: Vec<u32> = Vec::new();
        for _ in 0..6 {
            let asked: Vec<u32> = ids.iter().copied().chain([0]).collect();
            let all = tch::no_grad(|| plain.distributions(prompt, &asked, 1.0));
            let best = all.narrow(0, -1, 1).argmax(-1, false).int64_value(&[0]) as u32;
            ids.push(best);
            if plain.encoder.stop_ids().contains(&best) {
                break;
            }
        }
        assert_eq!(group.candidates[0].ids, ids);
    }
}

/// Broken, a long prompt would be cut or exhaust the memory, and nobody would know which.
#[test]
fn a_prompt_over_the_limit_is_refused_by_name() {
    let fixture = Fixture::new();
    let mut setup = fixture.setup();
    setup.max_prompt_tokens = 20;
    let mut engine = fixture.engine_with(&setup);
    let error = engine.rollout(&unit(fixture.prompts(), sampling(1, 1.0))).unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }) && !error.retryable());
    let text = error.to_string();
    assert!(text.contains("sample a") && text.contains("limit is 20"), "{text}");
}

/// Broken, nobody could hold the engine against other software, which knows no banned tokens.
#[test]
fn a_given_answer_is_scored_over_the_full_vocabulary() {
    let fixture = Fixture::new();
    let plain = Plain::new(&fixture.model());
    let mut engine = fixture.engine();
    engine.load_model(&fixture.model()).unwrap();
    let prompt = fixture.prompts().remove(0);
    let (asked, ids, logprobs) =
        engine.logprobs(Some(&prompt.images[0]), &prompt.question, "the left lung").unwrap();
    assert_eq!(ids, plain.encoder.answer("the left lung").unwrap());
    let theirs = tch::no_grad(|| {
        let hidden = plain.hidden(&prompt, &ids).narrow(0, 0, ids.len() as i64);
        plain.model.logits(&hidden).log_softmax(-1, tch::Kind::Float)
    });
    for (place, (id, ours)) in ids.iter().zip(&logprobs).enumerate() {
        let theirs = theirs.double_value(&[place as i64, i64::from(*id)]);
        assert!((f64::from(*ours) - theirs).abs() < 1e-4);
    }
    let draw = |engine: &mut medevo_engine::Engine, seed| {
        engine.generate(&prompt.images, &prompt.question, &sampling(4, 1.0), seed).unwrap()
    };
    let first = draw(&mut engine, 1);
    assert_eq!(first.0, asked);
    assert_eq!(first, draw(&mut engine, 1));
    assert_ne!(first.1, draw(&mut engine, 2).1);
}
