//! The strict normal form: what it merges, and what it must keep apart.

use medevo_text::{normalize, tokens};
use proptest::prelude::*;

#[test]
fn same_answer_in_another_form_is_merged() {
    for (left, right) in [
        ("The left lung.", "left  lung"),
        ("It is an X-Ray!", "it is x\u{2011}ray"),
        ("Crohn's disease", "crohn\u{2019}s disease"),
        ("ＣＴ", "ct"),
        ("two lesions", "2 lesions"),
        ("twenty-one", "21"),
        ("Twenty one", "21"),
        ("four-chamber view", "4-chamber view"),
        ("liver,spleen", "liver spleen"),
        ("caf\u{e9}", "cafe\u{301}"),
    ] {
        assert_eq!(normalize(left), normalize(right), "{left} / {right}");
    }
}

#[test]
fn different_answers_stay_apart() {
    for (left, right) in [
        ("left lung", "right lung"),
        ("x-ray", "ray"),
        ("1.5 cm", "15 cm"),
        ("hepatitis B", "hepatitis C"),
        ("A", ""),
        ("A", "B"),
        ("+", "-"),
        ("none", "0"),
    ] {
        assert_ne!(normalize(left), normalize(right), "{left} / {right}");
    }
}

#[test]
fn hyphenated_word_is_one_token() {
    assert_eq!(tokens("The X-ray - of a chest"), ["x-ray", "of", "chest"]);
}

#[test]
fn only_blank_answers_are_empty() {
    assert!(tokens(" \n\t").is_empty());
    assert_eq!(tokens("?!"), ["?!"]);
}

fn answers() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("twenty"),
        Just("one"),
        Just("ten"),
        Just("the"),
        Just("a"),
        Just("x-ray"),
        Just("'"),
        Just("-"),
        Just("."),
        Just("3"),
        Just("lung"),
        Just(" "),
        Just("\u{301}"),
        Just("İ"),
        Just("Σ"),
        Just("½"),
        Just("\u{2019}"),
        Just("e"),
        Just("ﬁ"),
        Just("\u{149}"),
    ];
    prop_oneof![
        any::<String>(),
        prop::collection::vec(word, 0..12).prop_map(|words| words.concat()),
        "[a-z .'-]{0,24}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn normal_form_is_its_own_normal_form(text in answers()) {
        let once = normalize(&text);
        prop_assert_eq!(normalize(&once), once);
    }

    #[test]
    fn spaces_and_case_do_not_matter(words in prop::collection::vec("[a-z]{1,6}", 1..6)) {
        let plain = words.join(" ");
        prop_assert_eq!(normalize(&format!("  {} ", plain.to_uppercase().replace(' ', " \t "))), normalize(&plain));
    }
}
