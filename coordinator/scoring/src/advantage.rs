//! Rewards to advantages, with the numbers of TRL 1.16 (`GRPOTrainer`, `scale_rewards`): standard
//! deviations with Bessel's correction, 1e-4 added to them.

use medevo_types::settings::ScaleRewards;

/// Added to the standard deviation.
pub const EPSILON: f64 = 1e-4;

/// A group whose standard deviation is no larger trains nothing (TRL: `isclose(std, 0)`).
pub const NO_SPREAD: f64 = 1e-8;

/// Mean; 0 of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Standard deviation with Bessel's correction; 0 of fewer than two values.
#[must_use]
pub fn sd(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// Advantages of one group's rewards, `[N]`, summing to 0. `step_sd` is the standard deviation over all
/// rewards of the step's groups with a consensus (with dynamic sampling: that train); only [`ScaleRewards::Batch`] divides by it.
#[must_use]
pub fn advantages(rewards: &[f64], scale: ScaleRewards, step_sd: f64) -> Vec<f64> {
    let centre = mean(rewards);
    let divisor = match scale {
        ScaleRewards::Group => sd(rewards) + EPSILON,
        ScaleRewards::Batch => step_sd + EPSILON,
        ScaleRewards::None => 1.0,
    };
    rewards.iter().map(|reward| (reward - centre) / divisor).collect()
}
