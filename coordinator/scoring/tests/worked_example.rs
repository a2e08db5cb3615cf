//! The worked example: sixteen candidates for "Where is the lesion?".
//! If it fails, medevo no longer does what its method description says.

mod common;

use common::{candidate, defaults, group, repeat, score};
use medevo_scoring::{GroupOutcome, ScorerSettings};
use medevo_types::settings::{LabelKind, LabelSettings};

const EXAMPLE: [(&str, usize); 5] = [
    ("left lung", 5),
    ("the left lung", 3),
    ("right lung", 4),
    ("left upper lung", 2),
    ("heart", 2),
];

fn with(kind: LabelKind) -> ScorerSettings {
    ScorerSettings { label: LabelSettings { kind, ..LabelSettings::default() }, ..defaults() }
}

#[test]
fn majority_and_cluster_both_answer_left_lung() {
    for kind in [LabelKind::Majority, LabelKind::Cluster] {
        let texts = repeat(&EXAMPLE);
        let scored = &score(with(kind), &[group("q", &texts)]).groups[0];
        assert_eq!(texts[scored.pseudo_label], "left lung", "{kind:?}");
        assert_eq!(scored.outcome, GroupOutcome::Train);
        // The two wordings are one answer after normalisation: eight of sixteen at least.
        assert!(scored.share >= 0.5, "{kind:?}: {}", scored.share);
    }
}

#[test]
fn rewards_are_hierarchical_and_the_opposite_earns_nothing() {
    let texts = repeat(&EXAMPLE);
    let scored = &score(with(LabelKind::Cluster), &[group("q", &texts)]).groups[0];
    let w_sem = defaults().reward.w_sem;
    let w_token = defaults().reward.w_token;
    for (text, &reward) in texts.iter().zip(&scored.rewards) {
        match *text {
            "left lung" | "the left lung" => assert_eq!(reward, 1.0),
            "right lung" => {
                assert_eq!(reward, 0.0, "guarded off although its neighbour in letters")
            }
            // Token F1 of two shared tokens among three and two is 0.8; the similarity comes on top.
            "left upper lung" => {
                let sem = (reward - w_token * 0.8) / w_sem;
                assert!(sem > 0.5 && sem < 1.0, "{sem}");
            }
            // No token shared: what the embedder gives times its weight.
            "heart" => assert!((0.0..w_sem * 0.5).contains(&reward), "{reward}"),
            other => unreachable!("{other}"),
        }
    }
}

#[test]
fn identical_token_ids_are_joined_and_wordings_are_not() {
    let texts = repeat(&EXAMPLE);
    let scored = &score(with(LabelKind::Cluster), &[group("q", &texts)]).groups[0];
    let counts: Vec<u32> = scored.answers.iter().map(|a| a.count).collect();
    assert_eq!(counts, [5, 3, 4, 2, 2]);
    assert_eq!(scored.answers[1].ids, candidate("the left lung").ids);
    assert_eq!(scored.answers[0].advantage, scored.answers[1].advantage);
    let sum: f64 = scored.answers.iter().map(|a| f64::from(a.count) * a.advantage).sum();
    assert!(sum.abs() < 1e-9, "{sum}");
}
