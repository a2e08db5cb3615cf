//! How the three kinds of label differ, how ties fall, and when a group abstains.

mod common;

use common::{defaults, featured, figure, group, policy, repeat, score};
use medevo_scoring::{GroupOutcome, ScorerSettings};
use medevo_types::settings::{LabelKind, LabelSettings};

fn label_of(kind: LabelKind, texts: &[&str]) -> String {
    let label = LabelSettings { kind, ..LabelSettings::default() };
    let step = score(ScorerSettings { label, ..defaults() }, &[group("q", texts)]);
    texts[step.groups[0].pseudo_label].to_owned()
}

/// The situation that the method is for: wordings split the votes of one meaning.
#[test]
fn cluster_sees_one_meaning_where_majority_sees_split_votes() {
    let texts = repeat(&[
        ("kidney", 4),
        ("liver region", 3),
        ("in liver region", 3),
        ("the liver region is", 2),
    ]);
    assert_eq!(label_of(LabelKind::Majority, &texts), "kidney");
    assert!(label_of(LabelKind::Cluster, &texts).contains("liver"));
}

#[test]
fn centroid_and_cluster_differ_on_a_mixed_group() {
    // The mean over all lies nearest to the answer in the middle; the heaviest cluster is elsewhere.
    let (left, middle, right): (&[f32], &[f32], &[f32]) = (&[1.0, 0.0], &[0.6, 0.8], &[0.0, 1.0]);
    let mut answers = vec![("alpha", left); 4];
    answers.push(("gamma", middle));
    answers.extend(vec![("beta", right); 3]);
    let g = featured("q", &answers);
    let with = |kind| ScorerSettings {
        label: LabelSettings { kind, threshold: 0.95, ..LabelSettings::default() },
        ..policy()
    };
    let pick = |kind| answers[score(with(kind), std::slice::from_ref(&g)).groups[0].pseudo_label].0;
    assert_eq!(pick(LabelKind::Cluster), "alpha");
    assert_eq!(pick(LabelKind::Majority), "alpha");
    assert_eq!(pick(LabelKind::Centroid), "gamma");
}

#[test]
fn opposites_never_share_a_cluster_however_close_their_embeddings() {
    let same: &[f32] = &[0.3, 0.7];
    let g = featured("q", &[("yes", same), ("yes", same), ("no", same), ("left", same)]);
    let step = score(policy(), &[g]);
    assert_eq!(step.groups[0].rewards[2], 0.0);
    // "left" is not opposed to "yes" and joins it: three of four.
    assert_eq!(step.groups[0].share, 0.75);
}

#[test]
fn ties_go_to_more_copies_then_shorter_then_lower_index() {
    for kind in [LabelKind::Majority, LabelKind::Cluster] {
        assert_eq!(label_of(kind, &["pancreas", "pancreas", "rib", "rib", "rib"]), "rib");
        assert_eq!(label_of(kind, &["pancreas", "rib"]), "rib");
        assert_eq!(label_of(kind, &["rib", "gut"]), "rib");
        assert_eq!(label_of(kind, &["gut", "rib"]), "gut");
    }
    // Among wordings of one answer, the most frequent stands for it.
    assert_eq!(label_of(LabelKind::Majority, &["The rib", "rib", "rib"]), "rib");
}

#[test]
fn groups_without_consensus_abstain() {
    let texts = repeat(&[("liver", 3), ("kidney", 3), ("", 2)]);
    let with = |min_share, min_margin| {
        let label = LabelSettings { min_share, min_margin, ..LabelSettings::default() };
        let step = score(ScorerSettings { label, ..defaults() }, &[group("q", &texts)]);
        assert_eq!(step.groups[0].share, 0.375, "empty answers count as candidates without a vote");
        assert_eq!(step.groups[0].margin, 0.0);
        (step.groups[0].outcome, figure(&step, "groups_abstained"))
    };
    assert_eq!(with(0.0, 0.0), (GroupOutcome::Train, Some(0.0)));
    assert_eq!(with(0.375, 0.0), (GroupOutcome::Train, Some(0.0)));
    assert_eq!(with(0.4, 0.0), (GroupOutcome::Abstained, Some(1.0)));
    assert_eq!(with(0.0, 0.1), (GroupOutcome::Abstained, Some(1.0)));
}

#[test]
fn an_empty_answer_becomes_no_label() {
    let step = score(defaults(), &[group("q", &["", "  ", "", "liver"])]);
    assert_eq!(step.groups[0].pseudo_label, 3);
    assert_eq!(step.groups[0].rewards, [0.0, 0.0, 0.0, 1.0]);
    let step = score(defaults(), &[group("q", &["", "", ""])]);
    assert_eq!(step.groups[0].outcome, GroupOutcome::Abstained);
    assert_eq!(step.groups[0].rewards, [0.0; 3]);
    let step = score(defaults(), &[group("q", &["liver", "the liver"])]);
    assert_eq!(step.groups[0].outcome, GroupOutcome::NoVariance);
}
