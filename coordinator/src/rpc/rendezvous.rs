//! The meeting place of a generation's ranks: a bounded key-value map in memory, emptied when the
//! generation changes. Nothing in it outlives the communicator that it helped to form.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use medevo_types::{Generation, messages::Rejection};
use tokio::{sync::watch, time::Instant, time::timeout_at};

/// How long a get waits for somebody to set the key.
const LONG_POLL: Duration = Duration::from_secs(2);
/// Most keys of one generation: a few per rank.
const MAX_KEYS: usize = 4096;
/// Most bytes of one generation, keys included.
const MAX_BYTES: usize = 16 << 20;

/// Keys of the current generation. A key starts with the generation's number and a slash ("7/rank-0").
#[derive(Debug)]
pub struct Rendezvous {
    board: Mutex<Board>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Board {
    generation: Generation,
    values: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Default for Rendezvous {
    fn default() -> Self {
        Self { board: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Rendezvous {
    /// Sets a key.
    ///
    /// # Errors
    /// [`Rejection::StaleGeneration`] for a key of another generation than `current`,
    /// [`Rejection::Unexpected`] when the board is full.
    pub fn set(&self, current: Generation, key: &str, value: Vec<u8>) -> Result<(), Rejection> {
        let mut board = self.board(current, key)?;
        board.put(key, value)?;
        drop(board);
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Adds to a counter (0 when absent) and returns its new value. Counters are decimal text.
    ///
    /// # Errors
    /// As [`Self::set`]; [`Rejection::Unexpected`] also when the key holds no counter.
    pub fn add(&self, current: Generation, key: &str, delta: i64) -> Result<i64, Rejection> {
        let mut board = self.board(current, key)?;
        let held = match board.values.get(key) {
            None => 0,
            Some(value) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .ok_or(Rejection::Unexpected)?,
        };
        let sum = held.checked_add(delta).ok_or(Rejection::Unexpected)?;
        board.put(key, sum.to_string().into_bytes())?;
        drop(board);
        self.changed.send_modify(|count| *count += 1);
        Ok(sum)
    }

    /// The value of a key, once somebody has set it; `None` when nobody does within two seconds.
    ///
    /// # Errors
    /// [`Rejection::StaleGeneration`], also when the generation changes during the wait.
    pub async fn get(
        &self,
        generation: &mut watch::Receiver<Generation>,
        key: &str,
    ) -> Result<Option<Vec<u8>>, Rejection> {
        let until = Instant::now() + LONG_POLL;
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let current = *generation.borrow_and_update();
            if let Some(value) = self.board(current, key)?.values.get(key) {
                return Ok(Some(value.clone()));
            }
            let either = async {
                tokio::select! {
                    changed = changed.changed() => changed.is_ok(),
                    changed = generation.changed() => changed.is_ok(),
                }
            };
            if !timeout_at(until, either).await.unwrap_or(false) {
                return Ok(None);
            }
        }
    }

    /// The board of `current`, empty if another generation's keys were on it.
    fn board(&self, current: Generation, key: &str) -> Result<MutexGuard<'_, Board>, Rejection> {
        let prefix =
            key.split_once('/').and_then(|(number, _)| number.parse().ok().map(Generation));
        if prefix != Some(current) {
            return Err(Rejection::StaleGeneration);
        }
        // Every change of the board is a single assignment: a panicking holder leaves it usable.
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if current < board.generation {
            return Err(Rejection::StaleGeneration);
        }
        if current > board.generation {
            *board = Board { generation: current, ..Board::default() };
        }
        Ok(board)
    }
}

impl Board {
    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Rejection> {
        let freed = self.values.get(key).map_or(0, |old| key.len() + old.len());
        let bytes = self.bytes - freed + key.len() + value.len();
        let keys = self.values.len() + usize::from(freed == 0);
        if keys > MAX_KEYS || bytes > MAX_BYTES {
            return Err(Rejection::Unexpected);
        }
        self.bytes = bytes;
        self.values.insert(key.to_owned(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SEVEN: Generation = Generation(7);

    #[test]
    fn keys_of_another_generation_are_refused_and_forgotten() {
        let rendezvous = Rendezvous::default();
        assert_eq!(rendezvous.set(SEVEN, "7/a", vec![1]), Ok(()));
        assert_eq!(rendezvous.set(SEVEN, "6/a", vec![1]), Err(Rejection::StaleGeneration));
        assert_eq!(rendezvous.set(SEVEN, "a", vec![1]), Err(Rejection::StaleGeneration));
        assert_eq!(rendezvous.add(Generation(8), "8/n", 2), Ok(2));
        assert_eq!(rendezvous.add(Generation(8), "8/n", 3), Ok(5));
        let board = rendezvous.board(Generation(8), "8/n").expect("the current board");
        assert_eq!(board.values.len(), 1, "keys of generation 7 must be gone");
    }

    #[test]
    fn the_board_is_bounded() {
        let rendezvous = Rendezvous::default();
        assert_eq!(rendezvous.set(SEVEN, "7/big", vec![0; MAX_BYTES]), Err(Rejection::Unexpected));
        for key in 0..MAX_KEYS {
            assert_eq!(rendezvous.set(SEVEN, &format!("7/{key}"), vec![0]), Ok(()));
        }
        assert_eq!(rendezvous.set(SEVEN, "7/one-more", vec![0]), Err(Rejection::Unexpected));
        assert_eq!(
            rendezvous.set(SEVEN, "7/0", vec![1, 2]),
            Ok(()),
            "a known key can still change"
        );
    }

    #[tokio::test]
    async fn a_get_waits_for_the_set() {
        let rendezvous = Arc::new(Rendezvous::default());
        let generation = watch::Sender::new(SEVEN);
        let waiting = {
            let (rendezvous, mut generation) = (rendezvous.clone(), generation.subscribe());
            tokio::spawn(async move { rendezvous.get(&mut generation, "7/a").await })
        };
        rendezvous.set(SEVEN, "7/a", vec![9]).expect("a key of the current generation");
        assert_eq!(waiting.await.expect("the task ends"), Ok(Some(vec![9])));
    }

    #[tokio::test]
    async fn a_get_ends_when_its_generation_does() {
        let rendezvous = Rendezvous::default();
        let generation = watch::Sender::new(SEVEN);
        let mut seen = generation.subscribe();
        let get = rendezvous.get(&mut seen, "7/a");
        let change = async { generation.send_replace(Generation(8)) };
        let (got, _) = tokio::join!(get, change);
        assert_eq!(got, Err(Rejection::StaleGeneration));
    }
}
