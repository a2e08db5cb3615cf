//! Bootstrap intervals: deterministic, around the mean, and as wide as theory says.

use medevo_text::{bootstrap, paired_bootstrap, win_tie_loss};
use proptest::prelude::*;

#[test]
fn width_matches_the_binomial() {
    let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
    let interval = bootstrap(&values, 2000, 7);
    // 1.96 sqrt(.25 / 400) = .049
    assert_eq!((interval.mean, interval.n), (0.5, 400));
    assert!((interval.high - interval.low - 0.098).abs() < 0.01, "{interval:?}");
}

#[test]
fn same_seed_same_interval() {
    let values: Vec<f64> = (0..50).map(|i| f64::from(i) / 50.0).collect();
    assert_eq!(bootstrap(&values, 500, 1), bootstrap(&values, 500, 1));
    assert_ne!(bootstrap(&values, 500, 1), bootstrap(&values, 500, 2));
}

#[test]
fn pairs_stay_together() {
    // Every question gains exactly 0.25: whatever is resampled, the gain is that.
    let base = [0.0, 0.5, 0.25, 0.75];
    let adapted = base.map(|score| score + 0.25);
    let gain = paired_bootstrap(&base, &adapted, 200, 3);
    assert_eq!((gain.mean, gain.low, gain.high), (0.25, 0.25, 0.25));
}

#[test]
fn wins_ties_and_losses_are_counted() {
    let count = win_tie_loss(&[0.0, 1.0, 1.0, 0.0], &[1.0, 1.0, 0.0, 0.0]);
    assert_eq!((count.win, count.tie, count.loss), (1, 2, 1));
}

#[test]
fn nothing_to_average_is_no_panic() {
    let interval = bootstrap(&[], 100, 0);
    assert_eq!((interval.mean, interval.low, interval.high, interval.n), (0.0, 0.0, 0.0, 0));
    let alone = bootstrap(&[0.5, 1.0], 0, 0);
    assert_eq!((alone.low, alone.high), (0.75, 0.75));
}

proptest! {
    #[test]
    fn interval_lies_within_the_values(values in prop::collection::vec(0.0f64..1.0, 1..40), seed: u64) {
        let interval = bootstrap(&values, 100, seed);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        prop_assert!(least - 1e-12 <= interval.low && interval.low <= interval.high);
        prop_assert!(interval.high <= most + 1e-12);
    }
}
