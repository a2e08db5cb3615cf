//! Where the ranks of a forming communicator find each other.

use std::time::Instant;

/// A small key-value store that all ranks of a generation reach. Keys come with the generation's
/// prefix already on them.
pub trait Rendezvous: Send + Sync {
    /// Sets a key.
    ///
    /// # Errors
    /// The store cannot be reached or refuses.
    fn set(&self, key: &str, value: &[u8]) -> anyhow::Result<()>;

    /// The value of a key, waiting for somebody to set it until `deadline`.
    ///
    /// # Errors
    /// The store cannot be reached or refuses, or nobody has set the key by then.
    fn get(&self, key: &str, deadline: Instant) -> anyhow::Result<Vec<u8>>;

    /// Adds `delta` to a counter that starts at 0, and returns the new value.
    ///
    /// # Errors
    /// The store cannot be reached or refuses.
    fn add(&self, key: &str, delta: i64) -> anyhow::Result<i64>;

    /// Whether all `keys` are set now; does not wait for them.
    ///
    /// # Errors
    /// The store cannot be reached or refuses.
    fn check(&self, keys: &[&str]) -> anyhow::Result<bool>;
}
