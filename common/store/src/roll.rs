//! Who is there: the keys of a prefix, followed.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{Change, Store, StoreError, Watch};

/// Pause before looking again when there is no watch.
const PAUSE: Duration = Duration::from_millis(200);

/// What has changed since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that are new or have a new value, with it, in order.
    pub changed: Vec<(String, Vec<u8>)>,
    /// Keys that are no longer there, in order.
    pub gone: Vec<String>,
}

impl Changes {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.gone.is_empty()
    }
}

/// Follows a prefix. A watch only hints that it is time to look; what is there, and what is not, is read off
/// whole snapshots, so nothing is missed when a watch breaks.
pub struct Roll {
    store: Arc<dyn Store>,
    prefix: String,
    every: Duration,
    known: BTreeMap<String, Vec<u8>>,
    watch: Option<Box<dyn Watch>>,
    revision: u64,
    /// When to look again, whatever the watch says; `None`: at once.
    due: Option<Instant>,
}

impl Roll {
    /// Follows the keys under `prefix`; looks at them all at least this often.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, prefix: &str, every: Duration) -> Self {
        Self {
            store,
            prefix: prefix.to_owned(),
            every,
            known: BTreeMap::new(),
            watch: None,
            revision: 0,
            due: None,
        }
    }

    /// What is there, as far as is known.
    #[must_use]
    pub fn known(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.known
    }

    /// What has changed since the last call, waiting for it at most for `timeout`, and as long as the store
    /// takes to answer. The first call brings everything.
    ///
    /// # Errors
    /// As [`Store::list`]: nothing can be said now. What was known is neither confirmed nor gone; ask again.
    pub fn next(&mut self, timeout: Duration) -> Result<Changes, StoreError> {
        let until = Instant::now() + timeout;
        loop {
            if self.due.is_none_or(|due| due <= Instant::now()) {
                let changes = self.look()?;
                if !changes.is_empty() {
                    return Ok(changes);
                }
            }
            let now = Instant::now();
            if now >= until {
                return Ok(Changes::default());
            }
            let rest = self.due.map_or(until, |due| due.min(until)).saturating_duration_since(now);
            self.listen(rest);
        }
    }

    /// Takes a snapshot, and says how it differs from the last.
    fn look(&mut self) -> Result<Changes, StoreError> {
        let snapshot = self.store.list(&self.prefix)?;
        self.revision = snapshot.revision;
        self.due = Some(Instant::now() + self.every);
        let now: BTreeMap<_, _> = snapshot.entries.into_iter().collect();
        let changed = now.iter().filter(|(key, value)| self.known.get(*key) != Some(value));
        let changed = changed.map(|(key, value)| (key.clone(), value.clone())).collect();
        let gone = self.known.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
        self.known = now;
        Ok(Changes { changed, gone })
    }

    /// Waits for a hint, at most for `rest`.
    fn listen(&mut self, rest: Duration) {
        if self.watch.is_none() {
            match self.store.watch(&self.prefix, self.revision) {
                Ok(watch) => self.watch = Some(watch),
                // Look again: that says what is wrong.
                Err(_) => {
                    std::thread::sleep(rest.min(PAUSE));
                    return self.due = None;
                }
            }
        }
        let Some(watch) = &mut self.watch else { return };
        match watch.wait(rest) {
            Ok(seen) => {
                let news = |change: &Change| change.revision > self.revision;
                if seen.iter().any(news) {
                    self.due = None;
                }
            }
            Err(error) => {
                tracing::debug!(%error, prefix = %self.prefix, "following goes on from a snapshot");
                self.watch = None;
                self.due = None;
            }
        }
    }
}

impl fmt::Debug for Roll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roll").field("prefix", &self.prefix).field("known", &self.known).finish()
    }
}
