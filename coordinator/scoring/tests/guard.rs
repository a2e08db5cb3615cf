//! Pairs that must never earn each other's reward, and pairs that may.

use medevo_scoring::guard::opposed;

fn opposites(a: &str, b: &str) -> bool {
    opposed(&medevo_text::normalize(a), &medevo_text::normalize(b))
}

#[test]
fn opposed_answers_are_kept_apart() {
    for (a, b) in [
        ("yes", "no"),
        ("Yes, there is.", "No, there is not."),
        ("left lung", "right lung"),
        ("left-sided effusion", "right-sided effusion"),
        ("left", "bilateral"),
        ("right kidney", "both kidneys"),
        ("unilateral", "bilateral"),
        ("left", "left and right"),
        ("upper lobe", "lower lobe"),
        ("superior", "inferior"),
        ("upper lobe", "upper and lower lobes"),
        ("anterior", "posterior"),
        ("ventral", "dorsal"),
        ("lesion", "no lesion"),
        ("a mass", "there isn't a mass"),
        ("enhancing", "non-enhancing"),
        ("yes", "absent"),
        ("two lesions", "3 lesions"),
        ("1.5 cm", "15 cm"),
        ("T1", "T2"),
        ("L4", "L5"),
        ("left upper lobe", "right upper lobe"),
    ] {
        assert!(opposites(a, b), "{a:?} and {b:?} exclude each other");
    }
}

#[test]
fn an_axis_that_one_side_lacks_does_not_separate() {
    for (a, b) in [
        ("left lung", "left upper lung"),
        ("lung", "left lung"),
        ("lung", "upper lung"),
        ("unilateral", "left"),
        ("unilateral effusion", "right effusion"),
        ("lesions", "two lesions"),
        ("two lesions", "2 lesions"),
        ("3 mm", "3.0 mm"),
        ("yes", "yes, a mass"),
        ("no", "no lesion"),
        ("no lesion", "there is not a lesion"),
        ("yes", "liver"),
        ("both lungs", "left and right lungs"),
        ("superior lobe", "upper lobe"),
        ("", "liver"),
    ] {
        assert!(!opposites(a, b), "{a:?} and {b:?} may mean the same");
    }
}
