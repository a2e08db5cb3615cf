//! The distinct normalised answers of a group, with their counts: what labels are chosen among.

use std::collections::BTreeMap;

use medevo_types::messages::Group;

use crate::guard::Facts;

/// One distinct answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Normalised text, never empty.
    pub text: String,
    /// Its length, characters.
    pub chars: usize,
    /// Candidates that gave it, ascending.
    pub members: Vec<usize>,
    /// The member that stands for it: its most frequent raw wording, the shorter one, the lowest index.
    pub representative: usize,
    /// What it says on the axes of the opposites guard.
    pub facts: Facts,
}

impl Answer {
    /// How many candidates gave it.
    pub fn count(&self) -> usize {
        self.members.len()
    }
}

/// The answers of one group of N candidates.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Distinct answers in canonical order (more copies, shorter, alphabetical): sums over them do not
    /// depend on the order in which candidates were drawn.
    pub distinct: Vec<Answer>,
    /// Index into `distinct` of each candidate's answer, `[N]`; none for an answer that is empty once
    /// normalised.
    pub of: Vec<Option<usize>>,
}

impl Answers {
    /// Normalises and joins a group's answers.
    pub fn of(group: &Group) -> Self {
        let texts: Vec<String> =
            group.candidates.iter().map(|c| medevo_text::normalize(&c.text)).collect();
        let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, text) in texts.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            members.entry(text).or_default().push(i);
        }
        let mut distinct: Vec<Answer> = members
            .into_iter()
            .map(|(text, members)| Answer {
                text: text.to_owned(),
                chars: text.chars().count(),
                representative: representative(group, &members),
                members,
                facts: Facts::of(text),
            })
            .collect();
        distinct.sort_by(|a, b| {
            b.count().cmp(&a.count()).then(a.chars.cmp(&b.chars)).then_with(|| a.text.cmp(&b.text))
        });
        let mut of = vec![None; texts.len()];
        for (d, answer) in distinct.iter().enumerate() {
            for &i in &answer.members {
                of[i] = Some(d);
            }
        }
        Self { distinct, of }
    }

    /// How many candidates the group has, empty answers included.
    pub fn candidates(&self) -> usize {
        self.of.len()
    }
}

/// Which of an answer's raw wordings is shown as the label.
fn representative(group: &Group, members: &[usize]) -> usize {
    let text = |i: usize| group.candidates[i].text.as_str();
    let copies = |i: usize| members.iter().filter(|&&j| text(j) == text(i)).count();
    members
        .iter()
        .copied()
        .max_by(|&a, &b| {
            copies(a)
                .cmp(&copies(b))
                .then(text(b).chars().count().cmp(&text(a).chars().count()))
                .then(b.cmp(&a))
        })
        .expect("an answer has at least one member")
}
