//! The sample order: what would make a resumed run see other data than an uninterrupted one.

use medevo_core::step_samples;
use proptest::prelude::*;

proptest! {
    // A sample left out of an epoch would never be learned from; one doubled would weigh twice.
    #[test]
    fn each_epoch_is_a_permutation(
        seed in any::<u64>(), stage in 0_usize..4, samples in 1_usize..60,
        per_step in 1_usize..20, epochs in 1_usize..4,
    ) {
        let steps = (samples * epochs).div_ceil(per_step) as u64;
        let walk: Vec<usize> = (1..=steps)
            .flat_map(|step| step_samples(seed, stage, step, per_step, samples, 1))
            .collect();
        for epoch in walk.chunks_exact(samples) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..samples).collect::<Vec<_>>());
        }
    }

    // Steps are asked for in any order after a restart; none may depend on those before it.
    #[test]
    fn a_step_depends_on_nothing_but_its_number(seed in any::<u64>(), step in 1_u64..500) {
        let cold = step_samples(seed, 1, step, 5, 17, 1);
        for earlier in 1..step.min(20) {
            let _ = step_samples(seed, 1, earlier, 5, 17, 1);
        }
        prop_assert_eq!(&cold, &step_samples(seed, 1, step, 5, 17, 1));
        prop_assert_eq!(cold.len(), 5);
    }
}

#[test]
fn seeds_stages_and_epochs_shuffle_differently() {
    let base = step_samples(1, 0, 1, 40, 40, 1);
    assert_ne!(base, step_samples(2, 0, 1, 40, 40, 1));
    assert_ne!(base, step_samples(1, 1, 1, 40, 40, 1));
    assert_ne!(base, step_samples(1, 0, 2, 40, 40, 1));
}

// Other numbers here mean that runs of an earlier release do not resume to what they would have been.
#[test]
fn the_order_is_fixed_over_releases() {
    assert_eq!(step_samples(7, 2, 1, 7, 7, 1), [4, 1, 2, 0, 3, 6, 5]);
}

#[test]
fn a_step_larger_than_the_data_goes_round() {
    let step = step_samples(3, 0, 1, 5, 2, 1);
    assert_eq!(step.len(), 5);
    assert!(step.iter().all(|&sample| sample < 2));
    assert!(step_samples(3, 0, 1, 5, 0, 1).is_empty());
}

/// What would break: questions about one image spread over the epoch, each paying for the image anew.
#[test]
fn neighbours_stay_together() {
    let epoch = step_samples(1, 0, 1, 10, 10, 4);
    let mut sorted = epoch.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10).collect::<Vec<_>>(), "a permutation: {epoch:?}");
    for block in [&[0, 1, 2, 3][..], &[4, 5, 6, 7], &[8, 9]] {
        assert!(epoch.windows(block.len()).any(|w| w == block), "{block:?} in {epoch:?}");
    }
}
