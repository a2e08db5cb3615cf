//! One line of a log.

/// A line, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its time stamp, as it stands there: they sort as they were written. A line without one (a library's words, a
    /// panic's second line) has that of the line before it.
    pub at: String,
    /// Who wrote it: "coordinator", or a worker's name.
    pub source: String,
    /// The line, without its end and without codes for a terminal.
    pub text: String,
}

/// The time stamp at a line's beginning: RFC 3339 in UTC, as far as its seconds and what follows.
pub(super) fn stamp(text: &str) -> Option<&str> {
    let end = text.find(char::is_whitespace)?;
    let stamp = &text[..end];
    let bytes = stamp.as_bytes();
    let fits = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[10] == b'T'
        && bytes[19..].starts_with(b".")
        && stamp.ends_with('Z');
    fits.then_some(stamp)
}

/// A line fit for a terminal: control characters are spelled out.
pub(super) fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for c in text.trim_end_matches(['\n', '\r']).chars() {
        match c {
            '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_and_nothing_else_taken_for_one() {
        let at = "2026-11-27T19:30:46.123456Z";
        assert_eq!(stamp(&format!("{at}  INFO joined")), Some(at));
        for text in ["", "note: run with RUST_BACKTRACE=1", "2026-11-27 is no stamp", at] {
            assert_eq!(stamp(text), None, "{text}");
        }
        assert_eq!(plain(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb");
    }
}
