//! Each protocol's quirks: a number of ours compares with a paper's only if these stay.

use medevo_text::{Protocol, judge};
use proptest::prelude::*;

fn correct(protocol: Protocol, closed: bool, reference: &str, answer: &str) -> Option<bool> {
    judge(protocol, closed, reference, answer).correct
}

#[test]
fn strict_keeps_every_question() {
    use Protocol::Strict;
    assert_eq!(correct(Strict, true, "Yes", "yes."), Some(true));
    assert_eq!(correct(Strict, true, "Yes", "yes, it is"), Some(false));
    assert_eq!(correct(Strict, true, "yes", "no"), Some(false));
    assert_eq!(correct(Strict, true, "yes", ""), Some(false));
    assert_eq!(correct(Strict, false, "left lung", "The left lung"), Some(true));
}

#[test]
fn llava_med_drops_wrong_yes_no_answers() {
    use Protocol::LlavaMedCompat as P;
    assert_eq!(correct(P, true, "yes", "yes, it is"), Some(true));
    assert_eq!(correct(P, true, "yes", "no"), None, "wrong, and out of the denominator");
    assert_eq!(correct(P, true, "yes", "perhaps"), Some(false));
    assert_eq!(correct(P, true, "no", "a nodule"), Some(true), "'no' is in 'nodule'");
    assert_eq!(correct(P, true, "mri", "mri"), Some(false), "neither yes nor no in it");
    assert_eq!(correct(P, true, "left", "left, not right"), Some(true), "'no' is in 'not'");
}

#[test]
fn llava_med_recall_rises_with_repetition() {
    let once = judge(Protocol::LlavaMedCompat, false, "left lung", "lung");
    let thrice = judge(Protocol::LlavaMedCompat, false, "left lung", "lung lung lung");
    assert!((once.recall - 0.5).abs() < 1e-12);
    assert!((thrice.recall - 0.75).abs() < 1e-12);
    assert_eq!(once.correct, Some(false));
}

#[test]
fn medevalkit_wants_exactly_one_of_yes_and_no() {
    use Protocol::MedevalkitCompat as P;
    assert_eq!(correct(P, true, "Yes", "Yes, there is."), Some(true));
    assert_eq!(correct(P, true, "yes", "yes, not normal"), Some(false), "'no' is in it too");
    assert_eq!(correct(P, true, "no", "nodule"), Some(true));
    assert_eq!(correct(P, true, "yes", "The answer is: yes."), Some(true));
    assert_eq!(correct(P, true, "MRI", "mri."), Some(true));
    assert_eq!(correct(P, true, "MRI", "the mri"), Some(false));
    assert_eq!(
        correct(P, false, "left lung", "left  lung"),
        Some(false),
        "no collapsing of spaces"
    );
}

proptest! {
    #[test]
    fn verdicts_lie_between_0_and_1(closed: bool, reference in "[a-z ]{0,12}", answer in "[a-z ]{0,12}") {
        for protocol in [Protocol::Strict, Protocol::LlavaMedCompat, Protocol::MedevalkitCompat] {
            let verdict = judge(protocol, closed, &reference, &answer);
            prop_assert!((0.0..=1.0).contains(&verdict.recall));
            prop_assert!((0.0..=1.0).contains(&verdict.f1));
            prop_assert!(protocol == Protocol::LlavaMedCompat || verdict.correct.is_some());
        }
    }
}
