//! Strict normalisation: the form in which two answers are compared.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Strict normal form of an answer: Unicode NFKC, lower case, no punctuation, no articles, number words as
/// digits, single spaces.
///
/// - A hyphen between two letters or digits stays, so "X-ray" is the one token "x-ray"; typographic hyphens
///   and the en dash count as hyphens.
/// - A decimal point between two digits stays ("1.5 cm" is not "15 cm").
/// - Apostrophes vanish ("Crohn's" is "crohns"); all other punctuation separates.
/// - Number words up to ninety-nine become digits, in compounds too ("twenty-one" is "21",
///   "four-chamber" is "4-chamber").
/// - Articles stay where nothing else is left (the choice "A" is not an empty answer), and so do symbols
///   ("+" and "-" are different answers). Only an answer of nothing but space is empty.
///
/// Idempotent: `normalize(&normalize(s)) == normalize(s)`.
#[must_use]
pub fn normalize(text: &str) -> String {
    let folded = fold(text);
    let spaced = strip_punctuation(&folded);
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    if words.is_empty() {
        return folded.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if !words.iter().all(|word| is_article(word)) {
        words.retain(|word| !is_article(word));
    }
    join_numbers(&words)
}

/// Tokens of the strict normal form, in order; empty only for an empty answer.
///
/// Scripts without spaces between words (Chinese) give one token a run.
#[must_use]
pub fn tokens(text: &str) -> Vec<String> {
    normalize(text).split_whitespace().map(str::to_owned).collect()
}

/// NFKC and lower case. Lower-casing can take a text out of NFKC, hence twice.
fn fold(text: &str) -> String {
    text.nfkc().collect::<String>().to_lowercase().nfkc().collect()
}

/// Punctuation and symbols become spaces, apostrophes vanish, hyphens inside words and decimal points stay.
fn strip_punctuation(folded: &str) -> String {
    // Once the apostrophe between a letter and a combining mark is gone, the two compose: hence NFKC.
    let chars: Vec<char> =
        folded.chars().filter(|c| !is_apostrophe(*c)).collect::<String>().nfkc().collect();
    let at = |i: Option<usize>| i.and_then(|i| chars.get(i)).copied().unwrap_or(' ');
    let mut out = String::with_capacity(folded.len());
    for (i, &c) in chars.iter().enumerate() {
        let (before, after) = (at(i.checked_sub(1)), at(Some(i + 1)));
        let kept = if is_word(c) {
            c
        } else if is_hyphen(c) && is_word(before) && is_word(after) {
            '-'
        } else if c == '.' && before.is_ascii_digit() && after.is_ascii_digit() {
            '.'
        } else {
            ' '
        };
        out.push(kept);
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || is_combining_mark(c)
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{02bc}')
}

fn is_hyphen(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2013}' | '\u{2212}')
}

fn is_article(word: &str) -> bool {
    matches!(word, "a" | "an" | "the")
}

/// Joins words by spaces and writes number words as digits, inside hyphenated words too.
fn join_numbers(words: &[&str]) -> String {
    let mut out = String::new();
    // Parts of all words, each with the separator in front of it.
    let mut parts = words.iter().enumerate().flat_map(|(w, word)| {
        word.split('-').enumerate().map(move |(p, part)| {
            let separator = match (w, p) {
                (0, 0) => "",
                (_, 0) => " ",
                _ => "-",
            };
            (separator, part)
        })
    });
    let mut pending = parts.next();
    while let Some((separator, part)) = pending {
        pending = parts.next();
        out.push_str(separator);
        let Some(value) = number(part) else {
            out.push_str(part);
            continue;
        };
        let unit = pending.and_then(|(_, next)| number(next)).filter(|unit| (1..=9).contains(unit));
        match unit {
            Some(unit) if value >= 20 => {
                out.push_str(&(value + unit).to_string());
                pending = parts.next();
            }
            _ => out.push_str(&value.to_string()),
        }
    }
    out
}

/// Value of a number word: 0 to 19 and the tens to 90.
fn number(word: &str) -> Option<u32> {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] =
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    let place = |list: &[&str], first: u32, step: u32| {
        (first..).step_by(step as usize).zip(list).find(|(_, name)| **name == word).map(|(v, _)| v)
    };
    place(&SMALL, 0, 1).or_else(|| place(&TENS, 20, 10))
}
