//! The checker is worth something only if it sees: each rule is broken on purpose, and within some seeds the
//! simulation must stop with the sentence of the invariant that is broken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use medevo_sim::world::{Mutation, World};

/// Seeds within which a broken rule must show.
const SEEDS: u64 = 1_000;

/// The first sentence about a broken rule, with the seed that shows it.
fn first_sight(mutation: Mutation) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let mut world = World::new(seed, false, Some(mutation));
        let panic = catch_unwind(AssertUnwindSafe(|| world.run())).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some((seed, text.unwrap_or_default()))
    })
}

#[test]
fn every_broken_rule_is_seen() {
    let cases = [
        (Mutation::ActBeforePersist, "on record"),
        (Mutation::NoGuard, "INV-8"),
        (Mutation::DoubleCommit, "INV-1"),
        (Mutation::StaleBallots, "a stale report was taken"),
        (Mutation::DoubleStep, "INV-2"),
        (Mutation::HalfBroadcast, "holds other weights"),
        (Mutation::AnyWeights, "INV-4: drawn by other weights"),
        (Mutation::ForgottenGenerations, "INV-3"),
        (Mutation::BlindManifest, "INV-5"),
        (Mutation::DoubleScore, "INV-4: scored twice"),
        (Mutation::SilentRejections, "a silent rejection"),
    ];
    std::panic::set_hook(Box::new(|_| {}));
    let seen: Vec<_> = cases.iter().map(|(mutation, _)| first_sight(*mutation)).collect();
    let _ = std::panic::take_hook();
    for ((mutation, sentence), seen) in cases.iter().zip(seen) {
        let (seed, said) = seen.unwrap_or_else(|| panic!("{mutation:?} is not seen"));
        println!("{mutation:?}: seed {seed}: {said}");
        assert!(said.contains(sentence), "{mutation:?} shows as: {said}");
    }
}
