//! Candidates for learning, answers for measuring, and the two calls that let anyone hold the engine against
//! other software.

use std::path::{Path, PathBuf};

use medevo_types::{
    SampleId,
    messages::{Candidate, Group, Prompt, Purpose, RolloutUnit},
    settings::Sampling,
};

use crate::{
    decode::{Drawing, Drawn, draw_answers},
    engine::Engine,
    error::EngineError,
    layout::Row,
    prompts::Prepared,
    sampling::{Stream, Vocabulary},
    score,
};

/// A given answer scored: prompt ids, answer ids (end-of-turn included), log-probability of each answer token.
pub type Scored = (Vec<u32>, Vec<u32>, Vec<f32>);

impl Engine {
    /// Draws the candidates of each prompt of a unit; one group a prompt, in order.
    ///
    /// # Errors
    /// [`EngineError::Stale`] when other weights are held, [`EngineError::Refused`] for a prompt that cannot
    /// be used (its sample is named) or sampling settings out of range.
    pub fn rollout(&mut self, unit: &RolloutUnit) -> Result<Vec<Group>, EngineError> {
        self.expect_policy(&format!("rollout unit {}", unit.unit), unit.policy)?;
        check_sampling(&unit.sampling)?;
        let mut prepared = Vec::with_capacity(unit.prompts.len());
        for prompt in &unit.prompts {
            prepared.push(self.prompts.prepare(prompt)?);
        }
        let seed = self.setup.seed;
        let streams = unit
            .prompts
            .iter()
            .map(|prompt| {
                let sample = &prompt.sample.0;
                let stream = |index| Stream::new(seed, unit.policy.0, unit.purpose, sample, index);
                (0..unit.sampling.n).map(stream).collect()
            })
            .collect();
        let vocabulary = self.vocabulary.again();
        let drawn = self.draw(&prepared, streams, &unit.sampling, unit.features, &vocabulary)?;
        let groups = unit
            .prompts
            .iter()
            .zip(&prepared)
            .zip(drawn)
            .map(|((prompt, ready), drawn)| self.group(&prompt.sample, ready.length(), drawn))
            .collect();
        Ok(groups)
    }

    /// Answers one question with the loaded weights: prompt ids and candidates. The vocabulary is the model's
    /// full one, as other software draws from it; candidate i of a seed is always the same.
    ///
    /// # Errors
    /// As [`Engine::rollout`].
    pub fn generate(
        &mut self,
        images: &[PathBuf],
        question: &str,
        sampling: &Sampling,
        seed: u64,
    ) -> Result<(Vec<u32>, Vec<Candidate>), EngineError> {
        check_sampling(sampling)?;
        let prompt = lone_prompt(images.to_vec(), question);
        let ready = self.prompts.prepare(&prompt)?;
        let stream = |index| Stream::new(seed, 0, Purpose::Evaluate, &prompt.sample.0, index);
        let streams = vec![(0..sampling.n).map(stream).collect()];
        let ids = ready.tokens.ids.clone();
        let drawn = self.draw(&[ready], streams, sampling, false, &Vocabulary::full())?;
        let drawn = drawn.into_iter().next().unwrap_or_default();
        Ok((ids, drawn.into_iter().map(|answer| self.candidate(answer)).collect()))
    }

    /// Log-probabilities of a given answer: prompt ids, answer ids (end-of-turn included), and one number a
    /// token at temperature 1 over the model's full vocabulary.
    ///
    /// # Errors
    /// As [`Engine::rollout`].
    pub fn logprobs(
        &mut self,
        image: Option<&Path>,
        question: &str,
        answer: &str,
    ) -> Result<Scored, EngineError> {
        let images = image.map(Path::to_path_buf).into_iter().collect();
        let ready = self.prompts.prepare(&lone_prompt(images, question))?;
        let answer = self.prompts.encoder.answer(answer)?;
        if answer.is_empty() {
            return Err(EngineError::refused("scoring an answer", "it has no tokens"));
        }
        let mut row = Row::new(&ready.tokens, ready.length());
        row.branch(&ready.tokens, ready.length(), &answer);
        let (state, cache) = self.state_and_features()?;
        let features = cache.of(&state.model, &[&ready])?;
        let full = Vocabulary::full();
        let logprobs = score::log_probabilities(&state.model, &full, 1.0, &[row], &features)?;
        Ok((ready.tokens.ids.clone(), answer, logprobs))
    }

    fn draw(
        &mut self,
        prompts: &[Prepared],
        streams: Vec<Vec<Stream>>,
        sampling: &Sampling,
        features: bool,
        vocabulary: &Vocabulary,
    ) -> Result<Vec<Vec<Drawn>>, EngineError> {
        let stop_ids = self.stop_ids.clone();
        let budget = self.tokens_per_batch();
        let drawing = Drawing { vocabulary, sampling, stop_ids: &stop_ids, features, budget };
        let (state, images) = self.state_and_features()?;
        let (drawn, occupancy) = draw_answers(&state.model, images, prompts, streams, &drawing)?;
        tracing::debug!(
            prompts = prompts.len(),
            cohorts = occupancy.cohorts,
            passes = occupancy.passes,
            rows = occupancy.rows,
            "drew answers"
        );
        Ok(drawn)
    }

    fn group(&self, sample: &SampleId, prompt_tokens: usize, drawn: Vec<Drawn>) -> Group {
        let tokens: usize = drawn.iter().map(|answer| answer.ids.len()).sum();
        let entropy: f64 = drawn.iter().map(|answer| answer.entropy).sum();
        Group {
            sample: sample.clone(),
            prompt_tokens: prompt_tokens as u32,
            candidates: drawn.into_iter().map(|answer| self.candidate(answer)).collect(),
            entropy: (entropy / tokens.max(1) as f64) as f32,
        }
    }

    fn candidate(&self, drawn: Drawn) -> Candidate {
        let text = self.prompts.encoder.decode(&drawn.ids);
        Candidate {
            ids: drawn.ids,
            text,
            logprobs: drawn.logprobs,
            finished: drawn.finished,
            feature: drawn.feature,
        }
    }
}

fn lone_prompt(images: Vec<PathBuf>, question: &str) -> Prompt {
    Prompt { sample: SampleId("given".into()), images, question: question.to_owned() }
}

fn check_sampling(sampling: &Sampling) -> Result<(), EngineError> {
    let why = if sampling.n == 0 {
        "n is 0; draw at least one candidate"
    } else if sampling.max_new_tokens == 0 {
        "max_new_tokens is 0; allow at least one token"
    } else if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
        "temperature must be a number of at least 0 (0 is greedy)"
    } else if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
        "top_p must lie above 0 and at most at 1"
    } else {
        return Ok(());
    };
    Err(EngineError::refused("drawing answers", why))
}
