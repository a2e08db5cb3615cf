//! Answers and their log-probabilities do not depend on who else is in the batch, and mean what training means.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::{path::Path, sync::Arc};

use medevo_model::{Encoder, ModelConfig, Pixels, Qwen25Vl};
use medevo_types::{messages::Purpose, settings::Sampling};
use tch::{Device, Kind, Tensor};

use super::{Drawing, Drawn, Occupancy, draw_answers};
use crate::{
    features::FeatureCache,
    layout::Row,
    prompts::Prepared,
    sampling::{Stream, Vocabulary},
    score,
};

/// A model with random weights that has opinions, and the tokens that its answers may not hold.
struct Setting {
    model: Qwen25Vl,
    encoder: Encoder,
    vocabulary: Vocabulary,
    stop_ids: Vec<u32>,
    images: FeatureCache,
}

impl Setting {
    fn new(stop_ids: Vec<u32>, and_banned: &[u32]) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops/demo/tiny-qwen2.5-vl");
        let encoder = Encoder::load(&source).unwrap();
        let model = Qwen25Vl::random(ModelConfig::load(&source).unwrap(), 1, Device::Cpu);
        tch::no_grad(|| {
            for (_, tensor) in model.parameters().iter().filter(|(_, tensor)| tensor.dim() == 2) {
                let _ = tensor.shallow_clone().g_mul_scalar_(3.0);
            }
        });
        let banned: Vec<u32> = encoder.banned_ids().iter().chain(and_banned).copied().collect();
        let size = model.config.text.vocab_size;
        let vocabulary = Vocabulary::without(&banned, size, Device::Cpu);
        Self { model, encoder, vocabulary, stop_ids, images: FeatureCache::new() }
    }

    /// A question with `images` images of different content.
    fn prompt(&self, question: &str, images: u8) -> Prepared {
        let edge = 8;
        let width = self.model.config.vision.patch_dim();
        let images: Vec<Pixels> = (0..images)
            .map(|number| Pixels {
                patches: (Tensor::arange(edge * edge * width, (Kind::Float, Device::Cpu))
                    * (0.3 + f64::from(number)))
                .sin()
                .view([edge * edge, width]),
                grid: [1, edge, edge],
                digest: [number + 1; 32],
            })
            .collect();
        let grids: Vec<[i64; 3]> = images.iter().map(|image| image.grid).collect();
        Prepared { tokens: Arc::new(self.encoder.prompt(question, &grids).unwrap()), images }
    }

    fn draw(
        &mut self,
        prompts: &[Prepared],
        names: &[usize],
        sampling: &Sampling,
        budget: usize,
    ) -> (Vec<Vec<Drawn>>, Occupancy) {
        let stream =
            |name: usize, index| Stream::new(5, 0, Purpose::Train, &name.to_string(), index);
        let streams = names
            .iter()
            .map(|name| (0..sampling.n).map(|index| stream(*name, index)).collect())
            .collect();
        let (stop_ids, features) = (&self.stop_ids, true);
        let drawing =
            Drawing { vocabulary: &self.vocabulary, sampling, stop_ids, features, budget };
        draw_answers(&self.model, &mut self.images, prompts, streams, &drawing).unwrap()
    }
}

/// Questions of several lengths, some with images.
fn questions(setting: &Setting, count: usize) -> Vec<Prepared> {
    (0..count)
        .map(|number| {
            let question = "where is the lesion ? ".repeat(1 + number % 3);
            setting.prompt(&question, (number % 4 == 1) as u8 + (number % 8 == 5) as u8)
        })
        .collect()
}

/// Broken, a candidate would depend on its neighbours, and a re-issued unit would bring others. And without
/// refilling, a batch would wait for its longest answer with most of its rows idle.
#[test]
fn rooms_are_refilled_and_nobody_notices() {
    // About one token in sixteen ends an answer: lengths from 1 to 60.
    let mut setting = Setting::new((20..460).step_by(16).collect(), &[]);
    let prompts = questions(&setting, 24);
    let names: Vec<usize> = (0..prompts.len()).collect();
    let sampling = Sampling { n: 4, max_new_tokens: 60, ..Sampling::default() };
    let (together, all) = setting.draw(&prompts, &names, &sampling, 1 << 20);
    assert_eq!(all.cohorts, 1);

    let most = prompts.iter().map(Prepared::length).max().unwrap();
    let room = most + sampling.n * sampling.max_new_tokens;
    let (refilled, with) = setting.draw(&prompts, &names, &sampling, 4 * room);
    let mut without = Occupancy::default();
    for (number, (some, names)) in prompts.chunks(4).zip(names.chunks(4)).enumerate() {
        let (alone, run) = setting.draw(some, names, &sampling, 1 << 20);
        without.passes += run.passes;
        without.rows += run.rows;
        for (a, b) in alone.iter().zip(&refilled[4 * number..]) {
            same(a, b);
        }
    }
    for (a, b) in together.iter().zip(&refilled) {
        same(a, b);
    }
    let lengths: Vec<usize> = together.iter().flatten().map(|answer| answer.ids.len()).collect();
    assert!(lengths.iter().any(|l| *l < 5) && lengths.iter().any(|l| *l > 30), "{lengths:?}");
    assert_eq!(with.rows, without.rows, "the same answers cost the same rows");
    let fill = |o: &Occupancy| o.rows as f64 / o.passes as f64;
    println!("rows a pass: {:.1} refilled, {:.1} in runs", fill(&with), fill(&without));
    assert!(fill(&with) > 1.4 * fill(&without), "{with:?} against {without:?}");
}

fn same(a: &[Drawn], b: &[Drawn]) {
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.ids, b.ids);
        assert_eq!(a.finished, b.finished);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(near(&a.logprobs, &b.logprobs));
        assert!(near(a.feature.as_ref().unwrap(), b.feature.as_ref().unwrap()));
    }
}

/// Broken, importance ratios would measure our own rounding, or the truncation, and not the change of policy.
#[test]
fn a_rollouts_log_probability_is_trainings() {
    let settings = [
        (1.0, 1.0, 0),
        (0.7, 1.0, 0),
        (1.3, 1.0, 0),
        (1.0, 0.9, 0),
        (1.3, 1.0, 20),
        (0.7, 0.9, 20),
    ];
    let mut setting = Setting::new(Vec::new(), &[0, 1, 2]);
    let several = [setting.prompt("where is the lesion ?", 2), setting.prompt("is this a ct ?", 0)];
    for (temperature, top_p, top_k) in settings {
        for (n, length) in [(6, 10), (3, 100), (1, 1000)] {
            let sampling = Sampling { n, temperature, top_p, top_k, max_new_tokens: length };
            let (drawn, _) = setting.draw(&several, &[0, 1], &sampling, 1 << 20);
            let rows: Vec<Row> = several
                .iter()
                .zip(&drawn)
                .map(|(prompt, answers)| {
                    let mut row = Row::new(&prompt.tokens, prompt.length());
                    for answer in answers {
                        assert_eq!(answer.ids.len(), length);
                        row.branch(&prompt.tokens, prompt.length(), &answer.ids);
                    }
                    row
                })
                .collect();
            let prompts: Vec<&Prepared> = several.iter().collect();
            let features = setting.images.of(&setting.model, &prompts).unwrap();
            let (model, words) = (&setting.model, &setting.vocabulary);
            let training =
                score::log_probabilities(model, words, temperature, &rows, &features).unwrap();
            let mut training = training.chunks_exact(length);
            let (mut first, mut token, mut whole) = (Vec::new(), Vec::new(), Vec::new());
            for answer in drawn.iter().flatten() {
                let theirs = training.next().unwrap();
                let off: Vec<f64> =
                    answer.logprobs.iter().zip(theirs).map(|(a, b)| f64::from(a - b)).collect();
                first.push(off[0].abs().exp());
                whole.push(off.iter().sum::<f64>().abs().exp());
                token.extend(off.iter().map(|off| off.abs().exp()));
            }
            for (what, ratios) in [("first token", first), ("token", token), ("answer", whole)] {
                let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
                assert!(
                    mean <= 1.01,
                    "{what} of {length} at T {temperature}, top-p {top_p}, top-k {top_k}: {mean}"
                );
            }
        }
    }
}

/// Candidates that part late share their first rows, and each goes on from what it has seen itself.
#[test]
fn candidates_that_part_late_keep_their_own_past() {
    let mut setting = Setting::new(Vec::new(), &[0, 1, 2]);
    let prompts = [setting.prompt("where is the lesion ?", 1), setting.prompt("is this a ct ?", 0)];
    let sampling =
        Sampling { n: 12, temperature: 0.5, top_k: 2, max_new_tokens: 24, ..Sampling::default() };
    let (drawn, occupancy) = setting.draw(&prompts, &[0, 1], &sampling, 1 << 20);
    let shared =
        |a: &Drawn, b: &Drawn| a.ids.iter().zip(&b.ids).take_while(|(a, b)| a == b).count();
    let latest = drawn
        .iter()
        .flat_map(|group| group.iter().enumerate().map(move |(at, answer)| (group, at, answer)))
        .flat_map(|(group, at, answer)| group[..at].iter().map(move |other| shared(answer, other)))
        .max()
        .unwrap();
    assert!((4..24).contains(&latest), "the last to part did so after {latest} tokens");
    assert!(occupancy.rows < 2 * 12 * 24, "shared rows are computed once");
    for (number, prompt) in prompts.iter().enumerate() {
        for (index, answer) in drawn[number].iter().enumerate() {
            let mut row = Row::new(&prompt.tokens, prompt.length());
            row.branch(&prompt.tokens, prompt.length(), &answer.ids);
            let features = setting.images.of(&setting.model, &[prompt]).unwrap();
            let (model, words) = (&setting.model, &setting.vocabulary);
            let alone = score::log_probabilities(model, words, 0.5, &[row], &features).unwrap();
            for (ours, theirs) in answer.logprobs.iter().zip(alone) {
                assert!((ours - theirs).abs() < 1e-3, "candidate {index}: {ours}, {theirs}");
            }
        }
    }
}
