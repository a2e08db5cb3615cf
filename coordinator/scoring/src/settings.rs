//! Refuses settings that contradict the method, before anything is scored with them.

use medevo_types::settings::{EmbedderKind, RewardKind};

use crate::{ScoreError, ScorerSettings};

/// Checks a stage's scoring settings.
///
/// # Errors
/// [`ScoreError::Settings`], naming the key.
pub fn check(settings: &ScorerSettings) -> Result<(), ScoreError> {
    let ScorerSettings { label, embedder, reward, .. } = settings;
    let refuse = |sentence: &str| Err(ScoreError::Settings(sentence.to_owned()));
    let weights = [reward.w_hard, reward.w_token, reward.w_sem];
    if !weights.iter().all(|w| w.is_finite() && *w >= 0.0) {
        return refuse("reward.w_hard, w_token and w_sem must be 0 or more");
    }
    if reward.kind == RewardKind::Hierarchical && reward.w_token + reward.w_sem >= 1.0 {
        return refuse(
            "reward.w_token + reward.w_sem must be below 1, or a soft score could reach an exact match",
        );
    }
    if reward.kind == RewardKind::Sum && weights.iter().sum::<f64>() <= 0.0 {
        return refuse("one of reward.w_hard, w_token and w_sem must be above 0");
    }
    if ![label.threshold, label.min_share, label.min_margin].iter().all(|x| x.is_finite()) {
        return refuse("label.threshold, min_share and min_margin must be numbers");
    }
    let grams = embedder.min_gram >= 1 && embedder.min_gram <= embedder.max_gram;
    if embedder.kind == EmbedderKind::Lexical && (embedder.dims == 0 || !grams) {
        return refuse(
            "embedder.dims must be 1 or more, and 1 <= embedder.min_gram <= embedder.max_gram",
        );
    }
    Ok(())
}
