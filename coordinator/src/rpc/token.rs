//! The join token of a run.

use std::{fmt, fs::File, io::Read};

use anyhow::Context;

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

    /// A token that was agreed elsewhere.
    ///
    /// # Errors
    /// When it is shorter than 16 characters: too easy to guess.
    pub fn given(text: String) -> anyhow::Result<Self> {
        anyhow::ensure!(
            text.len() >= 16,
            "the join token is shorter than 16 characters; use a longer one"
        );
        Ok(Self(text))
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
    fn only_the_whole_token_is_admitted() {
        let token = Token::fresh().expect("randomness");
        assert!(token.admits(token.reveal()));
        assert!(!token.admits(""));
        assert!(!token.admits(&token.reveal()[..63]));
        assert_eq!(format!("{token:?}"), "Token(hidden)");
        assert!(Token::given("short".into()).is_err());
    }
}
