//! Supervised learning: mean cross-entropy over the answers' tokens, end-of-turn included, over the same
//! vocabulary that rollout draws from (see [`crate::sampling`]), so that no mass is spent on tokens that can
//! never be drawn.
//!
//! Examples about the same images share one row: the images, and whatever precedes them, are processed once
//! and each question with its answer is a branch.

use std::collections::HashMap;

use medevo_types::messages::SftExample;
use tch::Kind;

use crate::{
    engine::Engine,
    error::EngineError,
    gradient::{Figure, Sums},
    layout::{Batch, Row},
    prompts::Prepared,
    score,
};

/// Branches that one row may hold: a row is never split over micro-batches.
const BRANCHES: usize = 8;

/// Adds the unnormalised gradient and figures of this rank's examples to `sums`, rows in the order of their
/// first example.
pub(crate) fn accumulate(
    engine: &mut Engine,
    examples: &[SftExample],
    sums: &Sums,
) -> Result<(), EngineError> {
    let mut prepared = Vec::with_capacity(examples.len());
    let mut answers = Vec::with_capacity(examples.len());
    for example in examples {
        prepared.push(engine.prompts.prepare(&example.prompt)?);
        let answer = engine.prompts.encoder.answer(&example.answer)?;
        if answer.is_empty() || answer.iter().any(|id| !engine.can_draw(*id)) {
            return Err(EngineError::refused(
                format!("training on sample {}", example.prompt.sample),
                "its answer holds a special token (or nothing at all); correct the data",
            ));
        }
        answers.push(answer);
    }
    let shared = share_images(&prepared);
    let rows: Vec<Row> = shared.iter().map(|members| row(members, &prepared, &answers)).collect();
    // One prompt stands for each row: its branches have the same images.
    let prompts: Vec<&Prepared> = shared.iter().map(|members| &prepared[members[0]]).collect();
    for run in engine.micro_batches(&rows, &prompts)? {
        let vision = engine.training_vision(&prompts[run.clone()])?;
        let recompute = engine.setup.train.recompute;
        let state = engine.state()?;
        let batch = Batch::new(&rows[run.clone()], state.device());
        let (model, words) = (&state.model, &engine.vocabulary);
        score::backward(model, words, 1.0, &batch, &vision, recompute, |chunk| {
            let loss = -chunk.logp.sum(Kind::Float);
            sums.add(Figure::Loss, &loss);
            loss
        })?;
        state.take_gradients(&sums.gradient());
        sums.add_number(Figure::Tokens, batch.target.len() as f64);
        let answers: usize = shared[run].iter().map(Vec::len).sum();
        sums.add_number(Figure::Answers, answers as f64);
    }
    Ok(())
}

/// Numbers of the examples of each row: those with the same images, in order of appearance.
fn share_images(prepared: &[Prepared]) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut open: HashMap<Vec<[u8; 32]>, usize> = HashMap::new();
    for (number, prompt) in prepared.iter().enumerate() {
        let key = prompt.image_key();
        let place = open.get(&key).copied().filter(|row| rows[*row].len() < BRANCHES);
        match place {
            Some(row) if !key.is_empty() => rows[row].push(number),
            _ => {
                open.insert(key, rows.len());
                rows.push(vec![number]);
            }
        }
    }
    rows
}

fn row(members: &[usize], prepared: &[Prepared], answers: &[Vec<u32>]) -> Row {
    let first = &prepared[members[0]].tokens;
    let prefix = members
        .iter()
        .map(|member| {
            let other = &prepared[*member].tokens;
            (0..first.ids.len().min(other.ids.len()))
                .take_while(|place| {
                    first.ids[*place] == other.ids[*place]
                        && (0..3).all(|axis| {
                            first.positions[axis][*place] == other.positions[axis][*place]
                        })
                })
                .count()
        })
        .min()
        .unwrap_or(0);
    let mut row = Row::new(first, prefix);
    for member in members {
        row.branch(&prepared[*member].tokens, prefix, &answers[*member]);
    }
    row
}
