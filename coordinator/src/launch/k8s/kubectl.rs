//! Calls of kubectl, each with a deadline.

use std::{ffi::OsString, io::ErrorKind, process::Stdio, time::Duration};

use anyhow::Context;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::preflight::Refused;

/// Deadline of a call that waits for nothing but an answer.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// kubectl, for one namespace.
#[derive(Clone, Debug)]
pub(super) struct Kubectl {
    program: OsString,
    namespace: Option<String>,
}

impl Kubectl {
    /// That of the search path, or the one that the environment variable KUBECTL names.
    pub(super) fn new(namespace: Option<String>) -> Self {
        let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
        Self { program, namespace }
    }

    /// What it printed.
    ///
    /// # Errors
    /// [`Refused`] when it is not installed; else what it said, or that it said nothing within `limit`.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        input: Option<&str>,
        limit: Duration,
    ) -> anyhow::Result<String> {
        let mut command = self.command(arguments);
        command
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| self.absent(&error))?;
        let what = arguments.first().copied().unwrap_or_default();
        let done = timeout(limit, async {
            if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
                // Whoever closes its input early says why on standard error.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            child.wait_with_output().await
        });
        let output = done
            .await
            .with_context(|| {
                format!(
                    "kubectl {what} said nothing for {} s; is the cluster reachable?",
                    limit.as_secs()
                )
            })?
            .with_context(|| format!("waiting for kubectl {what}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("kubectl {what}: {}", said.trim())
    }

    /// What it printed, as JSON.
    ///
    /// # Errors
    /// As [`Kubectl::run`], or that it is none.
    pub(super) async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(&[arguments, &["-o", "json"]].concat(), None, ANSWER).await?;
        serde_json::from_str(&text).context("kubectl's answer is no JSON")
    }

    /// Runs it with this process's own input and output, until it ends by itself; whether it ended well.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub(super) async fn show(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        let status = self.command(arguments).status().await.map_err(|error| self.absent(&error))?;
        Ok(status.success())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.kill_on_drop(true);
        // First, because what stands behind `exec ... --` is no option of kubectl's.
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command.args(arguments);
        command
    }

    fn absent(&self, error: &std::io::Error) -> anyhow::Error {
        let program = self.program.to_string_lossy();
        let advice = if error.kind() == ErrorKind::NotFound {
            "install kubectl 1.27 or newer, or name it in the environment variable KUBECTL"
        } else {
            "it is there, but cannot be run"
        };
        Refused::new(format!("{program} cannot be started ({error}); {advice}")).into()
    }
}
