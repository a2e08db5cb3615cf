//! The opposites guard: answers that embeddings and token overlap take for neighbours although a clinician
//! must not. Two opposed answers are never in one cluster and get no token and no semantic score for each
//! other.
//!
//! The axes are yes/no, side, height, depth, negation and numbers. An axis on which one of the two says
//! nothing does not separate them ("left lung", "left upper lung"). Negation is the exception by nature:
//! saying nothing of it is an affirmation ("lesion", "no lesion").

/// Words that negate, as normalised text spells them.
const NEGATIONS: &[&str] = &[
    "no", "not", "non", "none", "nor", "neither", "never", "without", "absent", "absence",
    "negative", "lack", "lacks", "lacking", "cannot", "cant", "isnt", "arent", "wasnt", "werent",
    "doesnt", "dont", "didnt", "hasnt", "havent",
];

/// What a normalised answer says on each axis.
///
/// An axis is a set of the values that it may mean, as bits; two answers are opposed on it when both say
/// something and no value fits both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    polarity: u8,
    negated: bool,
    side: u8,
    height: u8,
    depth: u8,
    numbers: Vec<String>,
}

impl Facts {
    /// Reads a normalised answer (lower case, number words as digits, no punctuation but hyphens inside
    /// words, which part them here: "left-sided", "non-enhancing").
    #[must_use]
    pub fn of(normalized: &str) -> Self {
        let words: Vec<&str> = normalized
            .split(|c: char| c.is_whitespace() || c == '-')
            .filter(|word| !word.is_empty())
            .collect();
        Self {
            polarity: polarity(&words),
            negated: words.iter().any(|word| NEGATIONS.contains(word)),
            side: side(&words),
            height: place(&words, &["upper", "superior"], &["lower", "inferior"]),
            depth: place(&words, &["anterior", "ventral"], &["posterior", "dorsal"]),
            numbers: numbers(normalized),
        }
    }

    /// Whether the two answers exclude each other. Symmetric; false for an answer and itself.
    #[must_use]
    pub fn opposed(&self, other: &Self) -> bool {
        let apart = |a: u8, b: u8| a != 0 && b != 0 && a & b == 0;
        self.negated != other.negated
            || apart(self.polarity, other.polarity)
            || apart(self.side, other.side)
            || apart(self.height, other.height)
            || apart(self.depth, other.depth)
            || (!self.numbers.is_empty()
                && !other.numbers.is_empty()
                && self.numbers != other.numbers)
    }
}

/// Whether two normalised answers exclude each other.
#[must_use]
pub fn opposed(a: &str, b: &str) -> bool {
    Facts::of(a).opposed(&Facts::of(b))
}

/// Yes is 1, no is 2. "No" counts as an answer only where it leads: in "there is no lesion" it negates.
fn polarity(words: &[&str]) -> u8 {
    match (words.contains(&"yes"), words.first() == Some(&"no")) {
        (true, false) => 1,
        (false, true) => 2,
        _ => 0,
    }
}

/// Left is 1, right is 2, both sides are 4; "unilateral" leaves open which, so it may be 1 or 2.
fn side(words: &[&str]) -> u8 {
    let any = |names: &[&str]| words.iter().any(|word| names.contains(word));
    let left = any(&["left", "leftsided"]);
    let right = any(&["right", "rightsided"]);
    if any(&["bilateral", "bilaterally", "both"]) || (left && right) {
        4
    } else if left {
        1
    } else if right {
        2
    } else if any(&["unilateral", "unilaterally"]) {
        1 | 2
    } else {
        0
    }
}

/// One end of an axis is 1, the other 2, both named are 4: "upper and lower" is not "upper".
fn place(words: &[&str], one: &[&str], other: &[&str]) -> u8 {
    let any = |names: &[&str]| words.iter().any(|word| names.contains(word));
    match (any(one), any(other)) {
        (true, true) => 4,
        (true, false) => 1,
        (false, true) => 2,
        (false, false) => 0,
    }
}

/// The numbers in a text, ascending as strings, inside words too ("t2", "5mm"); "3", "03" and "3.0" are
/// one number.
fn numbers(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|run| run.trim_matches('.'))
        .filter(|run| !run.is_empty())
        .map(canonical)
        .collect();
    found.sort();
    found
}

/// A number without zeros that mean nothing. Kept as text: long digit strings must not round together.
fn canonical(run: &str) -> String {
    let (whole, fraction) = run.split_once('.').unwrap_or((run, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}
