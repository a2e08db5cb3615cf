//! An S3 server for a test, with a user whose credentials are asked for.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::lab::checkout;

/// A server of its own, gone with this value.
pub struct S3 {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its address.
    pub endpoint: String,
    /// The bucket that is there.
    pub bucket: String,
    /// The user's access key id.
    pub key: String,
    /// The user's secret.
    pub secret: String,
}

impl S3 {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start; `make test` installs it.
    #[must_use]
    pub fn start() -> Self {
        let python = checkout().join(".s3/bin/python");
        assert!(python.exists(), "{} is missing: run ops/setup-s3", python.display());
        let mut child = Command::new(python)
            .arg(checkout().join("tests/s3/server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let asks = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let ready = answer(&mut answers);
        let text = |name: &str| ready[name].as_str().expect("a string").to_owned();
        let (endpoint, bucket) = (text("endpoint"), text("bucket"));
        let (key, secret) = (text("key"), text("secret"));
        Self { child, asks, answers, endpoint, bucket, key, secret }
    }

    /// Gives a command the endpoint and the user's credentials, as a user does.
    pub fn credentials(&self, command: &mut Command) {
        command
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", &self.key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret);
    }

    /// Names of all objects.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn list(&mut self) -> Vec<String> {
        let names = self.ask("list");
        let names = names.as_array().expect("a list").iter();
        names.map(|name| name.as_str().expect("a string").to_owned()).collect()
    }

    /// An object that is text.
    ///
    /// # Panics
    /// When there is none.
    pub fn get(&mut self, name: &str) -> String {
        self.ask(&format!("get {name}")).as_str().expect("text").to_owned()
    }

    fn ask(&mut self, what: &str) -> Value {
        writeln!(self.asks, "{what}").and_then(|()| self.asks.flush()).expect("it listens");
        answer(&mut self.answers)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(answers: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    answers.read_line(&mut line).expect("it answers");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}
