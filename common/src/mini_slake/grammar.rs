//! Questions and answers about a scan.

use std::collections::BTreeSet;

use super::{
    anatomy::{Finding, LESIONS, MODALITIES, REGIONS},
    random::Random,
};

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Modality,
    Region,
    Organ,
    Lesion,
    YesNo,
}

/// How often the annotators of a training set use each answer style; the first is the canonical one.
pub(super) type StyleShares = [f64; 4];

/// Every annotator writes as he likes: what a warm start spreads its mass over.
pub(super) const HETEROGENEOUS: StyleShares = [0.34, 0.24, 0.21, 0.21];
/// Mostly canonical answers: what a warm start begins with.
pub(super) const MOSTLY_CANONICAL: StyleShares = [0.85, 0.05, 0.05, 0.05];
/// The canonical answer alone: references to measure against.
pub(super) const CANONICAL: StyleShares = [1.0, 0.0, 0.0, 0.0];

/// A question with its answer.
pub(super) struct Exchange {
    pub question: String,
    pub answer: String,
    pub closed: bool,
    /// SLAKE's `content_type`.
    pub content: &'static str,
}

impl Family {
    pub const ALL: [Self; 5] =
        [Self::Modality, Self::Region, Self::Organ, Self::Lesion, Self::YesNo];

    /// Weight of each of [`Family::ALL`] in a training set: the hard ones are asked more often.
    pub const TRAINING_WEIGHTS: [f64; 5] = [0.5, 0.5, 1.3, 1.3, 1.8];

    /// Wordings of the labelled source hospital.
    fn source_wordings(self) -> &'static [&'static str] {
        match self {
            Self::Modality => &[
                "what modality is this image ?",
                "which imaging modality was used ?",
                "what type of scan is this ?",
                "how was this image taken ?",
            ],
            Self::Region => &[
                "which part of the body is shown ?",
                "what body region does the image show ?",
                "what region of the body is this ?",
                "which body part was imaged ?",
            ],
            Self::Organ => &[
                "which organ is abnormal ?",
                "where is the lesion ?",
                "in which organ is the lesion ?",
                "what organ has the abnormality ?",
            ],
            Self::Lesion => &[
                "what kind of lesion is present ?",
                "what is the abnormality ?",
                "which kind of abnormality is this ?",
                "what lesion does the image show ?",
            ],
            Self::YesNo => &[],
        }
    }

    /// Wordings that only the target hospital uses.
    fn new_wordings(self) -> &'static [&'static str] {
        match self {
            Self::Modality => &[
                "which modality is shown ?",
                "what imaging type is this ?",
                "what modality was used ?",
            ],
            Self::Region => &[
                "what body part is this ?",
                "which body region was imaged ?",
                "what part of the body does the image show ?",
            ],
            Self::Organ => &[
                "where is the abnormality ?",
                "which organ has a lesion ?",
                "where is the abnormal organ ?",
            ],
            Self::Lesion => &[
                "what kind of abnormality is present ?",
                "what is the lesion ?",
                "which lesion is shown ?",
            ],
            Self::YesNo => &[],
        }
    }

    /// What stands around the canonical answer, style by style.
    fn styles(self) -> [(&'static str, &'static str); 4] {
        match self {
            Self::Modality => [("", ""), ("", " scan"), ("this is a ", ""), ("a ", " image")],
            Self::Region => [("", ""), ("", " region"), ("this is the ", ""), ("in the ", "")],
            Self::Organ => [("", ""), ("", " region"), ("it is the ", ""), ("in the ", "")],
            Self::Lesion => [("", ""), ("", " lesion"), ("it is a ", ""), ("there is a ", "")],
            Self::YesNo => [("", ""); 4],
        }
    }

    fn content(self) -> &'static str {
        match self {
            Self::Modality => "Modality",
            Self::Region => "Position",
            Self::Organ => "Organ",
            Self::Lesion | Self::YesNo => "Abnormality",
        }
    }
}

/// What a yes/no question is about: the family of the thing that it names, and the things to name.
const NAMED: [Family; 3] = [Family::Modality, Family::Lesion, Family::Region];

fn names(family: Family) -> Vec<&'static str> {
    match family {
        Family::Modality => MODALITIES.iter().map(|modality| modality.name).collect(),
        Family::Region => REGIONS.iter().map(|region| region.name).collect(),
        Family::Organ => {
            REGIONS.iter().flat_map(|region| region.organs).map(|organ| organ.name).collect()
        }
        Family::Lesion => LESIONS.iter().map(|lesion| lesion.name).collect(),
        Family::YesNo => vec!["yes", "no"],
    }
}

fn truth(family: Family, finding: &Finding) -> &'static str {
    match family {
        Family::Modality => finding.modality.name,
        Family::Region => finding.region.name,
        Family::Organ => finding.organ.name,
        Family::Lesion => finding.lesion.name,
        Family::YesNo => "yes",
    }
}

fn yes_no_question(about: Family, name: &str) -> String {
    match about {
        Family::Modality => format!("is this a {name} image ?"),
        Family::Region => format!("is the {name} shown ?"),
        _ => format!("is there a {name} ?"),
    }
}

/// A question of `family` about `finding`. With probability `new_wording` an open question is put in words
/// that only the target uses; half of the yes/no questions are to be answered with yes.
pub(super) fn ask(
    random: &mut Random,
    finding: &Finding,
    family: Family,
    new_wording: f64,
    styles: &StyleShares,
) -> Exchange {
    if family == Family::YesNo {
        let about = *random.choice(&NAMED);
        let truth = truth(about, finding);
        let yes = random.chance(0.5);
        let named = if yes {
            truth
        } else {
            let others: Vec<_> = names(about).into_iter().filter(|name| *name != truth).collect();
            *random.choice(&others)
        };
        return Exchange {
            question: yes_no_question(about, named),
            answer: if yes { "yes" } else { "no" }.into(),
            closed: true,
            content: about.content(),
        };
    }
    let new = random.chance(new_wording);
    let wordings = if new { family.new_wordings() } else { family.source_wordings() };
    let question = (*random.choice(wordings)).to_owned();
    let (before, after) = family.styles()[random.weighted(styles)];
    let answer = format!("{before}{}{after}", truth(family, finding));
    Exchange { question, answer, closed: false, content: family.content() }
}

/// Every distinct question and answer that the generator can write, sorted: what the demo's tokenizer is
/// trained on.
#[must_use]
pub fn corpus() -> Vec<String> {
    let mut texts = BTreeSet::new();
    for family in Family::ALL {
        texts.extend(family.source_wordings().iter().map(|wording| (*wording).to_owned()));
        texts.extend(family.new_wordings().iter().map(|wording| (*wording).to_owned()));
        for name in names(family) {
            let style = |(before, after)| format!("{before}{name}{after}");
            texts.extend(family.styles().map(style));
            if NAMED.contains(&family) {
                texts.insert(yes_no_question(family, name));
            }
        }
    }
    texts.into_iter().collect()
}
