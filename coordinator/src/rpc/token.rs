//! The join token of a run.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use anyhow::Context;
use medevo_rpc::MAX_TOKEN_BYTES;

/// Longer than a file of one line takes to be written.
const WRITTEN: Duration = Duration::from_secs(1);

fn is_empty(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.len() == 0)
}

/// A secret that a worker shows once, when it joins. Never printed: handed to children by environment.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new token: 32 bytes of the system's randomness, in hex.
    ///
    /// # Errors
    /// When the system's randomness cannot be read.
    pub fn fresh() -> anyhow::Result<Self> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .context("reading the system's randomness for the join token (/dev/urandom)")?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The token in `file` if one is given, else that of the environment variable MEDEVO_TOKEN, else a new
    /// one, which only this machine's workers will know.
    ///
    /// # Errors
    /// The file cannot be read, or a token is too short or too long.
    pub fn find(file: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(file) = file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the token file {}", file.display()))?;
            return Self::given(text).with_context(|| format!("in {}", file.display()));
        }
        match std::env::var("MEDEVO_TOKEN") {
            Ok(text) => Self::given(text).context("in the environment variable MEDEVO_TOKEN"),
            Err(_) => Self::fresh(),
        }
    }

    /// As [`Token::find`], but where nothing is given, the token that lies in the run directory; a new one is put
    /// there (mode 600) for the run's workers and standbys.
    ///
    /// # Errors
    /// As [`Token::find`], or the file cannot be written.
    pub fn of_run(file: Option<&Path>, run_dir: &Path) -> anyhow::Result<Self> {
        let kept = run_dir.join("token");
        if file.is_some() || std::env::var_os("MEDEVO_TOKEN").is_some() {
            return Self::find(file);
        }
        let token = Self::fresh()?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&kept);
        match made.and_then(|mut made| made.write_all(token.0.as_bytes())) {
            Ok(()) => Ok(token),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if is_empty(&kept) {
                    // Somebody is about to write it, or was killed before that.
                    std::thread::sleep(WRITTEN);
                    if is_empty(&kept) {
                        Self::renew(run_dir)?;
                    }
                }
                Self::find(Some(&kept))
            }
            Err(error) => Err(error).with_context(|| format!("writing {}", kept.display())),
        }
    }

    /// Puts a new token into the run directory: whoever still has the one before is not let in any more.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn renew(run_dir: &Path) -> anyhow::Result<()> {
        let (kept, fresh) = (run_dir.join("token"), run_dir.join(".token.partial"));
        let context = || format!("writing {}", kept.display());
        // What a crash has left may be readable for others.
        let _ = std::fs::remove_file(&fresh);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh);
        let token = Self::fresh()?;
        made.and_then(|mut made| made.write_all(token.0.as_bytes())).with_context(context)?;
        std::fs::rename(&fresh, &kept).with_context(context)
    }

    /// A token that was agreed elsewhere; white space around it is no part of it.
    ///
    /// # Errors
    /// When it is shorter than 16 characters (too easy to guess), or longer than can be shown.
    pub fn given(text: String) -> anyhow::Result<Self> {
        let text = text.trim();
        anyhow::ensure!(
            text.len() >= 16,
            "the join token is shorter than 16 characters; use a longer one"
        );
        anyhow::ensure!(
            text.len() <= MAX_TOKEN_BYTES,
            "the join token is longer than {MAX_TOKEN_BYTES} bytes; use a shorter one"
        );
        Ok(Self(text.to_owned()))
    }

    /// The secret, for a child's environment.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is this token. Compares digests in constant time (`blake3::Hash`), so the answer's
    /// timing says nothing about how much of it was right.
    #[must_use]
    pub fn admits(&self, shown: &str) -> bool {
        blake3::hash(self.0.as_bytes()) == blake3::hash(shown.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_read_as_the_worker_reads_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("token");
        std::fs::write(&file, "sixteen characters\n").expect("written");
        assert!(Token::find(Some(&file)).expect("a token").admits("sixteen characters"));
        let missing =
            format!("{:#}", Token::find(Some(&dir.path().join("none"))).expect_err("none"));
        assert!(missing.contains("none"), "{missing}");
    }

    /// A coordinator that is killed while it makes the token would leave a run that nobody can resume.
    #[test]
    fn a_token_that_was_never_written_is_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("token"), "").expect("written");
        let token = Token::of_run(None, dir.path()).expect("a token");
        assert!(Token::of_run(None, dir.path()).expect("the same").admits(token.reveal()));
    }

    #[test]
    fn only_the_whole_token_is_admitted() {
        let token = Token::fresh().expect("randomness");
        assert!(token.admits(token.reveal()));
        assert!(!token.admits(""));
        assert!(!token.admits(&token.reveal()[..63]));
        assert_eq!(format!("{token:?}"), "Token(hidden)");
        assert!(Token::given("short".into()).is_err());
        assert!(Token::given("x".repeat(MAX_TOKEN_BYTES + 1)).is_err());
    }
}
