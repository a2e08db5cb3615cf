//! The commands in our documents, run as they stand there.
//!
//! A command is a line `$ …` in a block of the kind `console`. It must end with exit code 0, or with the one that its
//! comment names (`# exit code 3`). A block that cannot be run says why in a comment on the line before it:
//! `<!-- not run: it needs a cluster -->`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::process::{Finished, binary, finish};

/// A command of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its line in the document, from 1.
    pub line: usize,
    /// What is typed.
    pub typed: String,
    /// The exit code that it ends with.
    pub code: i32,
}

/// What stands in the blocks of a kind (`toml`) in a document's section.
#[must_use]
pub fn blocks(text: &str, section: &str, kind: &str) -> Vec<String> {
    let (mut inside, mut found, mut block) = (false, Vec::new(), None::<String>);
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            inside = title.trim() == section;
        }
        match &mut block {
            None if inside && line.trim().strip_prefix("```") == Some(kind) => {
                block = Some(String::new())
            }
            None => {}
            Some(_) if line.trim() == "```" => found.extend(block.take()),
            Some(text) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    found
}

/// The commands of a document, or of its section with this heading, that can be run.
///
/// # Panics
/// When there is no such section, a block is not closed, or a reason is missing.
#[must_use]
pub fn commands(text: &str, section: Option<&str>) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let (mut inside, mut seen) = (section.is_none(), section.is_none());
    // Within a block: whether it is one of commands to run.
    let mut block: Option<bool> = None;
    let (mut before, mut goes_on) = (String::new(), false);
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        match block {
            None if trimmed.starts_with("```") => {
                let run = trimmed == "```console" && inside && !skipped(&before, number);
                block = Some(run);
            }
            None => {
                if let (Some(title), Some(section)) = (line.strip_prefix("## "), section) {
                    inside = title.trim() == section;
                    seen |= inside;
                }
                if !trimmed.is_empty() {
                    trimmed.clone_into(&mut before);
                }
            }
            Some(_) if trimmed == "```" => {
                block = None;
                before.clear();
            }
            Some(true) if goes_on => {
                let last = found.last_mut().expect("a line goes on that was begun");
                goes_on = push(last, trimmed);
            }
            Some(true) => {
                if let Some(typed) = trimmed.strip_prefix("$ ") {
                    let mut shown = Shown { line: number + 1, typed: String::new(), code: 0 };
                    goes_on = push(&mut shown, typed);
                    found.push(shown);
                }
            }
            Some(false) => {}
        }
    }
    assert!(block.is_none(), "a block is not closed");
    assert!(seen, "there is no section {section:?}");
    found
}

/// Whether the line before a block says that it is not run, and why.
fn skipped(before: &str, number: usize) -> bool {
    let Some(reason) = before.strip_prefix("<!-- not run:") else { return false };
    assert!(
        reason.trim_end_matches("-->").trim().len() > 5,
        "line {number}: say why it is not run"
    );
    true
}

/// Adds what is typed on a line, without its comment. Returns whether the command goes on in the next.
fn push(shown: &mut Shown, line: &str) -> bool {
    let (typed, comment) = line.split_once(" #").unwrap_or((line, ""));
    if let Some(code) = comment.split_once("exit code ") {
        let digits: String = code.1.chars().take_while(char::is_ascii_digit).collect();
        shown.code = digits.parse().expect("an exit code is a number");
    }
    let typed = typed.trim();
    let (typed, goes_on) = typed.strip_suffix('\\').map_or((typed, false), |begun| (begun, true));
    shown.typed.push_str(typed);
    goes_on
}

/// Runs a command in `dir` as a user would, with our binaries first on the path and `names` replaced.
///
/// # Panics
/// When it ends with another exit code.
pub fn run(shown: &Shown, dir: &Path, names: &[(&str, &str)]) -> Finished {
    let mut typed = shown.typed.clone();
    for (name, value) in names {
        typed = typed.replace(name, value);
    }
    let coord = binary("medevo-coord");
    let ours = coord.parent().expect("a binary lies in a folder").display().to_string();
    let path = format!("{ours}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.args(["-c", &typed]).current_dir(dir).env("PATH", path);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = finish(shell);
    println!("line {}: {typed}: {}", shown.line, said.status);
    assert_eq!(
        said.status.code(),
        Some(shown.code),
        "line {}: {typed}\n{}",
        shown.line,
        said.said()
    );
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_with_what_they_end_with() {
        let text = "\
## Before

```console
$ not wanted
```

## Own run

1. Do it:

   ```console
   $ medevo-coord launch run.toml   # Ctrl-C, exit code 3
   output
   $ medevo-coord status RUN \\
       --json
   ```

<!-- not run: it needs a cluster -->

```console
$ srun it
```

```toml
$ no command
```
";
        let found = commands(text, Some("Own run"));
        let typed: Vec<_> = found.iter().map(|shown| (shown.typed.as_str(), shown.code)).collect();
        assert_eq!(
            typed,
            [("medevo-coord launch run.toml", 3), ("medevo-coord status RUN --json", 0)]
        );
        assert_eq!(commands(text, None).len(), 3);
    }
}
