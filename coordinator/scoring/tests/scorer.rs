//! The scorer over several steps: memory, figures, errors; and TRL's numbers for the advantages.

mod common;

use common::{candidate_mut, defaults, featured, figure, group, policy, repeat, score};
use medevo_scoring::{
    GroupOutcome, Judgements, ScoreError, Scorer, ScorerSettings, ScorerState,
    advantage::{advantages, sd},
};
use medevo_types::settings::{RewardKind, RewardSettings, ScaleRewards};

/// TRL 1.16: (r - mean) / (torch.std(r) + 1e-4), with Bessel's correction. The numbers come from running
/// its `nanstd` on these rewards.
#[test]
fn advantages_match_trl() {
    let rewards = [1.0, 1.0, 0.25, 0.0];
    let group = advantages(&rewards, ScaleRewards::Group, 9.0);
    for (ours, trl) in group.iter().zip([0.848710001, 0.848710001, -0.606221429, -1.091198573]) {
        assert!((ours - trl).abs() < 1e-6, "{group:?}");
    }
    assert_eq!(advantages(&rewards, ScaleRewards::None, 9.0), [0.4375, 0.4375, -0.3125, -0.5625]);
    let batch =
        advantages(&rewards, ScaleRewards::Batch, sd(&[1.0, 1.0, 0.25, 0.0, 0.5, 0.5, 0.0, 1.0]));
    for (ours, trl) in batch.iter().zip([1.013148796, 1.013148796, -0.723677712, -1.302619881]) {
        assert!((ours - trl).abs() < 1e-6, "{batch:?}");
    }
}

#[test]
fn the_flip_rate_compares_with_the_last_visit() {
    let mut scorer = Scorer::new(defaults());
    let step = |scorer: &mut Scorer, a: &str, b: &str| {
        let groups = [group("a", &[a, a, "rib"]), group("b", &[b, b, "rib"])];
        figure(&scorer.score(&groups).expect("in order"), "flip_rate")
    };
    assert_eq!(step(&mut scorer, "liver", "heart"), None, "no sample was seen before");
    assert_eq!(step(&mut scorer, "the liver", "spleen"), Some(0.5));
    assert_eq!(step(&mut scorer, "liver", "spleen"), Some(0.0));
}

/// Would break if a resumed run scored otherwise than an uninterrupted one.
#[test]
fn state_survives_a_checkpoint() {
    let groups = |n: usize| {
        let texts = repeat(&[("liver", 3), ("liver region", 2 + n), ("kidney", 4)]);
        [group("a", &texts), group("b", &["no mass", "mass", "small mass"])]
    };
    let mut whole = Scorer::new(defaults());
    whole.score(&groups(0)).expect("in order");
    let json = serde_json::to_string(&whole.state()).expect("serialises");
    let state: ScorerState = serde_json::from_str(&json).expect("deserialises");
    let mut resumed = Scorer::new(defaults());
    resumed.restore(state);
    assert_eq!(resumed.state(), whole.state());
    assert_eq!(resumed.score(&groups(1)), whole.score(&groups(1)));
}

/// Would break if the retry of a step counted its answers twice.
#[test]
fn scoring_a_step_again_gives_the_same_verdicts() {
    let groups = [group("a", &repeat(&[("liver", 3), ("liver region", 2), ("kidney", 4)]))];
    let mut scorer = Scorer::new(defaults());
    let first = scorer.score(&groups).expect("in order");
    assert_eq!(scorer.score(&groups).expect("in order").groups, first.groups);
}

/// Would break if further questions of a rollout changed what earlier ones earned (INV-4), or if the groups that
/// they stand in for still had a say in the scale.
#[test]
fn a_further_round_leaves_rewards_alone_and_scales_over_what_trains() {
    let spread = |sample: &str| group(sample, &repeat(&[("liver", 3), ("kidney", 4)]));
    let groups = [
        spread("a"),
        group("b", &["rib", "rib", "rib"]),
        group("c", &repeat(&[("liver", 2), ("liver region", 2), ("spleen", 1)])),
    ];
    for scale in [ScaleRewards::Group, ScaleRewards::Batch] {
        let settings = ScorerSettings { scale, dynamic_sampling: true, ..defaults() };
        let mut scorer = Scorer::new(settings);
        let mut judged = Judgements::default();
        let first = scorer.score_round(&mut judged, &groups[..2]).expect("in order");
        assert_eq!(first.groups[1].outcome, GroupOutcome::NoVariance);
        let both = scorer.score_round(&mut judged, &groups).expect("in order");
        assert_eq!(judged.len(), 3);
        assert_eq!(figure(&both, "groups_trained"), Some(2.0));
        assert_eq!(both.groups[1], first.groups[1]);
        assert_eq!(both.groups[0].rewards, first.groups[0].rewards);
        let all: Vec<f64> = [0, 2].iter().flat_map(|&at| both.groups[at].rewards.clone()).collect();
        for at in [0, 2] {
            let rewards = &both.groups[at].rewards;
            assert_eq!(both.groups[at].advantages, advantages(rewards, scale, sd(&all)));
        }
    }
    // Without dynamic sampling a group without variance counts, as in TRL.
    let scale = ScaleRewards::Batch;
    let step = score(ScorerSettings { scale, ..defaults() }, &groups);
    let all: Vec<f64> = step.groups.iter().flat_map(|group| group.rewards.clone()).collect();
    let rewards = &step.groups[0].rewards;
    assert_eq!(step.groups[0].advantages, advantages(rewards, scale, sd(&all)));
}

#[test]
fn figures_say_what_the_step_was_like() {
    let mut g = group("a", &repeat(&[("liver", 2), ("kidney", 1), ("", 1)]));
    candidate_mut(&mut g, 3).finished = false;
    let step = score(defaults(), &[g, group("b", &["rib", "rib"])]);
    let all = |name: &str| figure(&step, name).expect(name);
    assert_eq!(all("majority_share"), (0.5 + 1.0) / 2.0);
    assert_eq!(all("cluster_share"), (0.5 + 1.0) / 2.0);
    assert_eq!(all("cluster_margin"), (0.25 + 1.0) / 2.0);
    assert_eq!(all("distinct_answers"), 1.5);
    assert_eq!(all("truncated_share"), 1.0 / 6.0);
    assert_eq!(all("hard_mean"), 4.0 / 6.0);
    assert_eq!(all("rollout_entropy"), 0.5);
    assert_eq!(all("answer_tokens"), (6.0 + 6.0 + 7.0 + 1.0 + 4.0 + 4.0) / 6.0);
    assert_eq!(
        [all("groups_trained"), all("groups_abstained"), all("groups_no_variance")],
        [1.0, 0.0, 1.0]
    );
    assert!(score(defaults(), &[]).figures.iter().all(|(_, value)| value.is_finite()));
}

/// A failure of the machinery is an error that names the candidate, never a reward of 0.
#[test]
fn broken_groups_are_errors_and_leave_no_memory() {
    let mut scorer = Scorer::new(policy());
    let good = || featured("a", &[("liver", &[1.0, 0.0]), ("kidney", &[0.0, 1.0])]);
    let mut missing = good();
    candidate_mut(&mut missing, 1).feature = None;
    let mut infinite = good();
    candidate_mut(&mut infinite, 1).feature = Some(vec![f32::INFINITY, 0.0]);
    let mut zero = good();
    candidate_mut(&mut zero, 0).feature = Some(vec![0.0, 0.0]);
    let mut longer = good();
    candidate_mut(&mut longer, 1).feature = Some(vec![1.0; 3]);
    let mut torn = good();
    candidate_mut(&mut torn, 0).logprobs.pop();
    let mut nan = good();
    candidate_mut(&mut nan, 0).logprobs[0] = f32::NAN;
    let mut entropy = good();
    entropy.entropy = f32::NAN;
    let mut none = good();
    none.candidates = [].into();

    let mut fails = |broken| scorer.score(&[good(), broken]).expect_err("broken");
    assert!(matches!(fails(missing), ScoreError::NoFeature { candidate: 1, .. }));
    assert!(matches!(fails(infinite), ScoreError::NotFinite { candidate: 1, .. }));
    assert!(matches!(fails(zero), ScoreError::NotFinite { candidate: 0, .. }));
    let length = fails(longer);
    assert!(matches!(length, ScoreError::FeatureLength { expected: 2, found: 3, .. }));
    assert!(matches!(fails(torn), ScoreError::Logprobs { ids: 6, logprobs: 5, .. }));
    assert!(matches!(fails(nan), ScoreError::NotFinite { candidate: 0, .. }));
    assert!(matches!(fails(entropy), ScoreError::Entropy { .. }));
    assert!(matches!(fails(none), ScoreError::NoCandidates { .. }));
    assert_eq!(scorer.state(), ScorerState::default());
}

#[test]
fn an_empty_answer_needs_no_feature() {
    let mut g = featured("a", &[("liver", &[1.0, 0.0]), ("", &[0.0, 1.0])]);
    candidate_mut(&mut g, 1).feature = None;
    assert_eq!(score(policy(), &[g]).groups[0].rewards, [1.0, 0.0]);
}

#[test]
fn settings_that_let_soft_reach_hard_are_refused() {
    let reward = |kind, w_hard, w_token, w_sem| RewardSettings { kind, w_hard, w_token, w_sem };
    for bad in [
        reward(RewardKind::Hierarchical, 1.0, 0.5, 0.5),
        reward(RewardKind::Sum, 0.0, 0.0, 0.0),
        reward(RewardKind::Sum, -1.0, 1.0, 1.0),
        reward(RewardKind::Sum, f64::NAN, 1.0, 1.0),
    ] {
        let mut scorer = Scorer::new(ScorerSettings { reward: bad.clone(), ..defaults() });
        let error = scorer.score(&[]).expect_err("contradicts the method");
        assert!(matches!(error, ScoreError::Settings(_)), "{bad:?}");
    }
}
