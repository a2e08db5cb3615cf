//! Which rows go through the model together: `engine.tokens_per_batch` sets the memory of an update.
//!
//! A micro-batch is a run of consecutive rows. A text token counts as one. Where the vision tower learns, its
//! activations are kept as well, and a patch counts as the share of a text token's activations that its own
//! make up, each token keeping about twelve vectors of the tower's width and four of its feed-forward layer's,
//! in every layer.

use std::ops::Range;

use medevo_model::ModelConfig;

use crate::{engine::Engine, error::EngineError, layout::Row, prompts::Prepared};

impl Engine {
    /// Splits `rows` into micro-batches. `prompts` has one prompt a row, with the row's images.
    pub(crate) fn micro_batches(
        &self,
        rows: &[Row],
        prompts: &[&Prepared],
    ) -> Result<Vec<Range<usize>>, EngineError> {
        let state = self.state()?;
        let (config, trains_vision) = (&state.model.config, state.trains_vision());
        let costs: Vec<usize> = rows
            .iter()
            .zip(prompts)
            .map(|(row, prompt)| {
                let grids = prompt.images.iter().map(|image| image.grid.iter().product::<i64>());
                let patches = if trains_vision { grids.sum() } else { 0 };
                row.len() + in_tokens(patches, config)
            })
            .collect();
        Ok(split(&costs, self.tokens_per_batch()))
    }
}

/// As many text tokens as need the memory of `patches` patches.
fn in_tokens(patches: i64, config: &ModelConfig) -> usize {
    let kept = |layers: i64, width: i64, inner: i64| layers * (12 * width + 4 * inner);
    let (text, vision) = (&config.text, &config.vision);
    let token = kept(text.num_hidden_layers, text.hidden_size, text.intermediate_size);
    let patch = kept(vision.depth, vision.hidden_size, vision.intermediate_size);
    usize::try_from((patches * patch + token - 1) / token.max(1)).unwrap_or(0)
}

/// Runs of consecutive rows whose costs add up to at most `budget`; a row above it gets a run of its own.
fn split(costs: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (at, cost) in costs.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if sum + cost <= budget => run.end = at + 1,
            _ => {
                runs.push(at..at + 1);
                sum = 0;
            }
        }
        sum += cost;
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::split;

    proptest! {
        /// A row in two micro-batches, or in none, would be learnt twice or never; a micro-batch above the
        /// budget would exhaust the memory that the user set.
        #[test]
        fn every_row_is_in_one_micro_batch_within_the_budget(
            costs in prop::collection::vec(1usize..60, 0..40),
            budget in 1usize..200,
        ) {
            let runs = split(&costs, budget);
            let covered: Vec<usize> = runs.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..costs.len()).collect::<Vec<_>>());
            for (number, run) in runs.iter().enumerate() {
                let sum: usize = costs[run.clone()].iter().sum();
                prop_assert!(run.len() == 1 || sum <= budget);
                if let Some(next) = runs.get(number + 1) {
                    prop_assert!(sum + costs[next.start] > budget, "a run ends only when it is full");
                }
            }
        }
    }
}
