//! What must hold for every group that a policy may draw.

mod common;

use common::{defaults, group, score};
use medevo_scoring::{GroupOutcome, ScorerSettings, guard};
use medevo_types::{
    messages::Group,
    settings::{LabelKind, LabelSettings, RewardKind, RewardSettings, ScaleRewards},
};
use proptest::prelude::*;

/// Texts of different normalised lengths: between answers of equal count, the shorter one wins, so no tie
/// is left for the candidate's index, which a permutation would change.
const VOCABULARY: &[&str] = &[
    "",
    "yes",
    "no",
    "liver",
    "the liver",
    "in liver",
    "left lung",
    "right lung",
    "left upper lung",
    "no lesion seen",
    "2 lesions in the liver",
    "3 small lesions in the liver",
    "it is in the liver region",
];

fn texts() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(VOCABULARY), 1..24)
}

fn settings() -> impl Strategy<Value = ScorerSettings> {
    let kind =
        prop::sample::select(vec![LabelKind::Centroid, LabelKind::Cluster, LabelKind::Majority]);
    let reward = prop::sample::select(vec![RewardKind::Hierarchical, RewardKind::Sum]);
    let scale =
        prop::sample::select(vec![ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None]);
    (kind, reward, scale, 0.0..1.0f64, 0.0..0.5f64, 0.0..0.49f64).prop_map(
        |(kind, reward, scale, threshold, w_token, w_sem)| ScorerSettings {
            label: LabelSettings { kind, threshold, ..LabelSettings::default() },
            reward: RewardSettings { kind: reward, w_hard: 1.0, w_token, w_sem },
            scale,
            ..defaults()
        },
    )
}

fn label(group: &Group, index: usize) -> String {
    medevo_text::normalize(&group.candidates[index].text)
}

proptest! {
    /// Would break if a reward depended on when a candidate was drawn.
    #[test]
    fn permuting_candidates_permutes_rewards(
        settings in settings(),
        (texts, order) in texts().prop_flat_map(|t| {
            let order: Vec<usize> = (0..t.len()).collect();
            (Just(t), Just(order).prop_shuffle())
        }),
    ) {
        let permuted: Vec<&str> = order.iter().map(|&i| texts[i]).collect();
        let (a, b) = (group("q", &texts), group("q", &permuted));
        let (x, y) = (score(settings.clone(), std::slice::from_ref(&a)),
            score(settings, std::slice::from_ref(&b)));
        let (x, y) = (&x.groups[0], &y.groups[0]);
        prop_assert_eq!(x.outcome, y.outcome);
        prop_assert_eq!(label(&a, x.pseudo_label), label(&b, y.pseudo_label));
        prop_assert_eq!((x.share, x.margin), (y.share, y.margin));
        for (to, &from) in order.iter().enumerate() {
            prop_assert_eq!(x.rewards[from], y.rewards[to]);
            prop_assert!((x.advantages[from] - y.advantages[to]).abs() < 1e-9);
        }
    }

    /// Would break if drawing more of the same changed which meaning wins.
    #[test]
    fn copies_of_all_candidates_keep_the_winner(
        settings in settings(), texts in texts(), k in 2usize..5,
    ) {
        let copied: Vec<&str> = std::iter::repeat_n(texts.clone(), k).flatten().collect();
        let (a, b) = (group("q", &texts), group("q", &copied));
        let x = score(settings.clone(), std::slice::from_ref(&a));
        let y = score(settings, std::slice::from_ref(&b));
        let (x, y) = (&x.groups[0], &y.groups[0]);
        prop_assert_eq!(label(&a, x.pseudo_label), label(&b, y.pseudo_label));
        prop_assert!((x.share - y.share).abs() < 1e-12);
        for (i, reward) in y.rewards.iter().enumerate() {
            prop_assert!((reward - x.rewards[i % texts.len()]).abs() < 1e-9);
        }
    }

    /// Would break if a reward left its range, if a soft score reached an exact match, or if an opposed
    /// answer earned anything.
    #[test]
    fn rewards_lie_in_range_and_hard_beats_soft(settings in settings(), texts in texts()) {
        let g = group("q", &texts);
        let kind = settings.reward.kind;
        let step = score(settings, std::slice::from_ref(&g));
        let scored = &step.groups[0];
        let chosen = label(&g, scored.pseudo_label);
        for (i, &reward) in scored.rewards.iter().enumerate() {
            prop_assert!((0.0..=1.0).contains(&reward));
            let own = label(&g, i);
            if chosen.is_empty() || own.is_empty() {
                prop_assert_eq!(reward, 0.0, "an empty answer is neither label nor match");
            } else if own == chosen {
                prop_assert!((reward - 1.0).abs() < 1e-12);
            } else if kind == RewardKind::Hierarchical {
                prop_assert!(reward < 1.0);
            }
            if !own.is_empty() && guard::opposed(&own, &chosen) {
                prop_assert_eq!(reward, 0.0);
            }
        }
        prop_assert!(step.figures.iter().all(|(_, value)| value.is_finite()));
    }

    /// Would break if a group pushed probability up or down as a whole, or if a group that trains nothing
    /// had a gradient.
    #[test]
    fn advantages_sum_to_zero_and_answers_account_for_all(
        settings in settings(), groups in prop::collection::vec(texts(), 1..4),
    ) {
        let groups: Vec<Group> =
            groups.iter().enumerate().map(|(i, t)| group(&format!("q{i}"), t)).collect();
        for (group, scored) in groups.iter().zip(score(settings, &groups).groups) {
            prop_assert!(scored.advantages.iter().sum::<f64>().abs() < 1e-7);
            if scored.outcome == GroupOutcome::Train {
                let count: u32 = scored.answers.iter().map(|a| a.count).sum();
                prop_assert_eq!(count as usize, group.candidates.len());
                prop_assert!(scored.advantages.iter().any(|a| *a > 0.0));
            } else {
                prop_assert!(scored.answers.is_empty());
                prop_assert!(scored.advantages.iter().all(|a| *a == 0.0));
            }
        }
    }

    /// Would break if the worker that reports first had a say in the verdict.
    #[test]
    fn order_of_groups_does_not_matter(
        settings in settings(), groups in prop::collection::vec(texts(), 1..5),
    ) {
        let mut groups: Vec<Group> =
            groups.iter().enumerate().map(|(i, t)| group(&format!("q{i}"), t)).collect();
        let forward = score(settings.clone(), &groups).groups;
        groups.reverse();
        let mut backward = score(settings, &groups).groups;
        backward.reverse();
        for (a, b) in forward.iter().zip(&backward) {
            prop_assert_eq!(a.pseudo_label, b.pseudo_label);
            prop_assert_eq!(&a.rewards, &b.rewards);
        }
    }

    /// Would break if the guard stood between two answers in one direction only, or within one answer.
    #[test]
    fn the_guard_is_symmetric(a in "[a-z0-9 .-]{0,20}", b in "[a-z0-9 .-]{0,20}",
        x in prop::sample::select(VOCABULARY), y in prop::sample::select(VOCABULARY)) {
        prop_assert_eq!(guard::opposed(&a, &b), guard::opposed(&b, &a));
        prop_assert_eq!(guard::opposed(x, y), guard::opposed(y, x));
        prop_assert!(!guard::opposed(&a, &a) && !guard::opposed(x, x));
    }
}
