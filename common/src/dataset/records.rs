//! The elements of a JSON list with the line of each: serde_json knows lines only of what it cannot read.

/// What a file that should be a JSON list holds.
pub(super) struct Records<'a> {
    /// Each element with the line, from 1, where it starts. Elements are found by their brackets and
    /// strings alone and may themselves be broken JSON: one broken element leaves the others readable.
    pub found: Vec<(usize, &'a str)>,
    /// Where and why the list breaks off after these, if it does.
    pub end: Result<(), Break>,
}

/// Where and why a list breaks off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Break {
    pub line: usize,
    pub why: &'static str,
}

/// Finds the elements of the list that `text` is.
pub(super) fn records(text: &str) -> Records<'_> {
    let mut scan = Scan { text, at: 0, line: 1 };
    let mut found = Vec::new();
    let end = scan.list(&mut found);
    Records { found, end }
}

struct Scan<'a> {
    text: &'a str,
    /// Byte offset.
    at: usize,
    line: usize,
}

impl<'a> Scan<'a> {
    fn list(&mut self, found: &mut Vec<(usize, &'a str)>) -> Result<(), Break> {
        self.space();
        if self.peek() != Some(b'[') {
            return self.stop("it is not a list of records");
        }
        self.step();
        self.space();
        if self.peek() == Some(b']') {
            self.step();
            return self.nothing_more();
        }
        loop {
            self.space();
            let (line, start) = (self.line, self.at);
            let why =
                "the file ends within this record: it is truncated, or a bracket or quote is open";
            self.element().map_err(|()| Break { line, why })?;
            let element = self.text[start..self.at].trim_end();
            if element.is_empty() {
                return self.stop("a record is missing here, or there is one comma too many");
            }
            found.push((line, element));
            self.space();
            match self.peek() {
                Some(b',') => self.step(),
                Some(b']') => {
                    self.step();
                    return self.nothing_more();
                }
                Some(_) => return self.stop("a comma is missing between records"),
                None => return self.stop("the list is not closed: the file is truncated"),
            }
        }
    }

    fn nothing_more(&mut self) -> Result<(), Break> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => self.stop("something follows the list of records"),
        }
    }

    fn stop(&self, why: &'static str) -> Result<(), Break> {
        Err(Break { line: self.line, why })
    }

    /// Moves behind one element; the error is the end of the file.
    fn element(&mut self) -> Result<(), ()> {
        let mut depth = 0usize;
        loop {
            match self.peek().ok_or(())? {
                b'"' => self.string()?,
                b'[' | b'{' => {
                    depth += 1;
                    self.step();
                }
                b']' | b'}' | b',' if depth == 0 => return Ok(()),
                b']' | b'}' => {
                    depth -= 1;
                    self.step();
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => self.step(),
            }
        }
    }

    fn string(&mut self) -> Result<(), ()> {
        self.step();
        loop {
            match self.peek().ok_or(())? {
                b'"' => {
                    self.step();
                    return Ok(());
                }
                b'\\' => {
                    self.step();
                    self.peek().ok_or(())?;
                    self.step();
                }
                _ => self.step(),
            }
        }
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.step();
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn step(&mut self) {
        self.line += usize::from(self.peek() == Some(b'\n'));
        self.at += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use proptest::prelude::*;

    use super::{Records, records};

    #[test]
    fn lines_are_those_where_records_start() {
        let text = "\n[\n  {\"a\": \"] }, \\\" {\"},\n\n  {\n \"b\": [1,\n 2]}, 7 ]\n";
        let Records { found, end } = records(text);
        assert_eq!(end, Ok(()));
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 5, 7]);
        assert_eq!(found[2].1, "7");
    }

    #[test]
    fn records_before_a_break_are_found() {
        for (text, before, line) in [
            ("[\n{},\n{\"a\": 1", 1, 3),
            ("[{}\n{}]", 1, 2),
            ("[{},\n]", 1, 2),
            ("[{}", 1, 1),
            ("[{}]\n x", 1, 2),
            ("{}", 0, 1),
            ("", 0, 1),
        ] {
            let Records { found, end } = records(text);
            assert_eq!((found.len(), end.unwrap_err().line), (before, line), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[\\[\\]{},\"\\\\a\n é]{0,40}") {
            for (line, element) in records(&text).found {
                prop_assert!(line >= 1 && !element.is_empty());
            }
        }

        #[test]
        fn a_list_gives_its_elements(texts in prop::collection::vec(".{0,12}", 0..8)) {
            let list = serde_json::to_string_pretty(&texts).unwrap();
            let Records { found, end } = records(&list);
            prop_assert_eq!(end, Ok(()));
            let back: Vec<String> =
                found.iter().map(|(_, element)| serde_json::from_str(element).unwrap()).collect();
            prop_assert_eq!(back, texts);
        }
    }
}
