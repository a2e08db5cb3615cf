//! A failing seed is worth something only if it fails again.

use medevo_sim::world::World;

#[test]
fn the_same_seed_is_the_same_trace_byte_for_byte() {
    for seed in [1, 2, 3, 20, 77, 1234] {
        let run = || {
            let mut world = World::new(seed, true, None);
            let figures = world.run();
            (figures, world.trace().join("\n"))
        };
        let (first, second) = (run(), run());
        assert_eq!(first, second, "seed {seed}");
        assert!(first.1.lines().count() > 20, "a trace that tells something");
    }
    let trace = |seed| {
        let mut world = World::new(seed, true, None);
        world.run();
        world.trace().join("\n")
    };
    assert_ne!(trace(1), trace(2), "the seed decides");
}
