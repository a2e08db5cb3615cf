//! Token scores: their range, their symmetry, and figures worked out by hand.

use medevo_text::{bleu1, exact, rouge_l, token_f1, token_recall};
use proptest::prelude::*;

#[test]
fn figures_by_hand() {
    assert!((token_recall("left lung", "the left upper lung") - 1.0).abs() < 1e-12);
    assert!((token_f1("left lung", "left upper lung") - 0.8).abs() < 1e-12);
    assert!(
        (token_recall("left lung", "lung lung") - 0.5).abs() < 1e-12,
        "a repeated word counts once"
    );
    // One token of two: precision 1, brevity exp(1 - 2/1).
    assert!((bleu1("left lung", "lung") - (-1f64).exp()).abs() < 1e-12);
    assert!((bleu1("left lung", "left upper lung") - 2.0 / 3.0).abs() < 1e-12);
    // Same words in the other order: the common subsequence has one token.
    assert!((rouge_l("left lung", "lung left") - 0.5).abs() < 1e-12);
}

#[test]
fn empty_answer_is_never_right() {
    assert!(!exact("", ""));
    assert!(!exact("yes", " "));
    assert_eq!(token_f1("yes", ""), 0.0);
    assert_eq!(token_recall("", "yes"), 0.0);
    assert_eq!(rouge_l("", ""), 0.0);
    assert_eq!(bleu1("yes", ""), 0.0);
}

fn answers() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "(left |right |lung |the |two |x-ray ){0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn scores_lie_between_0_and_1(reference in answers(), answer in answers()) {
        for score in [token_recall, token_f1, bleu1, rouge_l] {
            let value = score(&reference, &answer);
            prop_assert!((0.0..=1.0).contains(&value), "{value}");
        }
    }

    #[test]
    fn exact_match_scores_1_everywhere(answer in answers()) {
        if exact(&answer, &answer) {
            for score in [token_recall, token_f1, bleu1, rouge_l] {
                prop_assert_eq!(score(&answer, &answer), 1.0);
            }
        }
    }

    #[test]
    fn f1_and_rouge_are_symmetric(left in answers(), right in answers()) {
        prop_assert_eq!(token_f1(&left, &right), token_f1(&right, &left));
        prop_assert_eq!(rouge_l(&left, &right), rouge_l(&right, &left));
    }

    #[test]
    fn rouge_is_at_most_f1(left in answers(), right in answers()) {
        prop_assert!(rouge_l(&left, &right) <= token_f1(&left, &right));
    }
}
