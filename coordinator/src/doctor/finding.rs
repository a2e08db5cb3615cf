//! What a check found.

use std::fmt::Write;

use serde::Serialize;

/// How good or bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// The run can start; it may be slow, or end early.
    Warning,
    /// The run cannot start, or cannot end well.
    Failed,
}

/// One line of the doctor's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub advice: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), grade: Grade::Ok, found: found.into(), advice: String::new() }
    }

    /// Worth a look, and what to do.
    pub fn warning(
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (check, found, advice) = (check.into(), found.into(), advice.into());
        Self { check, grade: Grade::Warning, found, advice }
    }

    /// In the way of the run, and what to do.
    pub fn failed(
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (check, found, advice) = (check.into(), found.into(), advice.into());
        Self { check, grade: Grade::Failed, found, advice }
    }
}

/// All findings, a line each; advice on a line of its own.
#[must_use]
pub fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, grade, found, advice } in findings {
        let grade = match grade {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Failed => "failed",
        };
        let indent = " ".repeat(width + 11);
        let found = found.trim().replace('\n', &format!("\n{indent}"));
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{grade:<7}  {check:<width$}  {found}");
        if !advice.is_empty() {
            let _ = writeln!(text, "{indent}→ {advice}");
        }
    }
    text
}
