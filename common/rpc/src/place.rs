//! Where the coordinator is.

use std::sync::Mutex;

/// Where the coordinator is, asked anew for every connection: a standby that takes over is somewhere else.
pub trait Locate: Send + Sync {
    /// The coordinator's address, HOST:PORT. May block for some seconds; it is called off the runtime.
    ///
    /// # Errors
    /// A sentence: nobody leads now, or it cannot be told. It is worth asking again.
    fn locate(&self) -> Result<String, String>;
}

/// An address that does not change.
impl Locate for String {
    fn locate(&self) -> Result<String, String> {
        Ok(self.clone())
    }
}

/// The address that was found last, for messages.
#[derive(Debug, Default)]
pub(crate) struct LastKnown(Mutex<Option<String>>);

impl LastKnown {
    pub(crate) fn set(&self, address: &str) {
        *self.lock() = Some(address.to_owned());
    }

    pub(crate) fn get(&self) -> String {
        self.lock().clone().unwrap_or_else(|| "an address that is not known yet".to_owned())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
