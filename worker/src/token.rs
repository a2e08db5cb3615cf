//! The run's join token, which is never printed.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Environment variable that holds the token; a command line would show it to every user of the host.
pub const TOKEN_VARIABLE: &str = "MEDEVO_TOKEN";

/// The join token in a run directory.
pub const TOKEN_FILE: &str = "token";

/// The join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token from its text; white space around it is no part of it.
    ///
    /// # Errors
    /// There is none.
    pub fn new(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        anyhow::ensure!(!text.is_empty(), "the join token is empty");
        Ok(Self(text.to_owned()))
    }

    /// The token in `file` if one is given, else the one in the environment.
    ///
    /// # Errors
    /// The file cannot be read, or neither place has a token.
    pub fn find(file: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(file) = file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the token file {}", file.display()))?;
            return Self::new(&text).with_context(|| format!("in {}", file.display()));
        }
        let text = std::env::var(TOKEN_VARIABLE).with_context(|| {
            format!("no join token: set {TOKEN_VARIABLE} or give --token-file FILE")
        })?;
        Self::new(&text).with_context(|| format!("in the environment variable {TOKEN_VARIABLE}"))
    }

    /// Whether the environment has one.
    #[must_use]
    pub fn is_set() -> bool {
        std::env::var_os(TOKEN_VARIABLE).is_some()
    }

    /// As [`Token::find`], waiting for a file that the coordinator has not written yet.
    ///
    /// # Errors
    /// As [`Token::find`].
    pub fn awaited(file: Option<&Path>, patience: Duration) -> anyhow::Result<Self> {
        let until = Instant::now() + patience;
        // It is made empty and then written.
        let missing = |file: &Path| file.metadata().map_or(true, |meta| meta.len() == 0);
        while file.is_some_and(missing) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(file) = file.filter(|file| !file.exists()) {
            let folder = file.parent().unwrap_or(Path::new("")).display();
            anyhow::bail!(
                "no coordinator has made its token {} within {} s; is {folder} the run directory, and has \
                 `medevo-coord serve` been started there?",
                file.display(),
                patience.as_secs()
            );
        }
        Self::find(file)
    }

    /// The secret, for the one message that carries it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_and_the_secret_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let token = Token::find(Some(&file)).unwrap();
        assert_eq!(token.reveal(), "s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));
        std::fs::write(&file, " \n").unwrap();
        assert!(format!("{:#}", Token::find(Some(&file)).unwrap_err()).contains("empty"));
        let missing = Token::find(Some(&dir.path().join("none"))).unwrap_err();
        assert!(missing.to_string().contains("none"));
    }
}
