//! Slurm's commands, each with a deadline.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, bail};
use tokio::{process::Command, time::timeout};

/// How long a command may take: a busy controller answers late, but it answers.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A command that said nothing in time: what it was to do may have been done all the same.
#[derive(Debug, thiserror::Error)]
#[error("`{program}` gave no answer within {} s", patience.as_secs())]
pub(super) struct Silent {
    program: String,
    patience: Duration,
}

/// What a command prints.
///
/// # Errors
/// It is not there or fails, with what it said; [`Silent`] when it takes too long.
pub(super) async fn ask(
    program: &str,
    arguments: &[&str],
    patience: Duration,
) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(patience, command.output()).await {
        Err(_) => bail!(Silent { program: program.to_owned(), patience }),
        Ok(output) => output.with_context(|| format!("`{program}` cannot be started"))?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}` failed: {}", arguments.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Name and address of every node of a list, as Slurm reaches them.
///
/// # Errors
/// As [`ask`].
pub(super) async fn addresses(node_list: &str) -> anyhow::Result<Vec<(String, String)>> {
    let text = ask("scontrol", &["show", "node", "-o", node_list], PATIENCE).await?;
    let field = |line: &str, key: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix(key).map(str::to_owned))
    };
    Ok(text
        .lines()
        .filter_map(|line| Some((field(line, "NodeName=")?, field(line, "NodeAddr=")?)))
        .collect())
}
