//! The core's records in the store: appended under increasing keys, every append guarded by the term.

use std::sync::Arc;

use medevo_core::api::Record;
use medevo_types::Term;

use super::{Guard, Put, Store, StoreError};

/// Key of the term.
pub(super) const TERM: &str = "term";
/// Prefix of the records.
pub(super) const RECORDS: &str = "records/";

/// Appends records under one term.
#[derive(Clone)]
pub struct Journal {
    store: Arc<dyn Store>,
    term: Term,
    next: u64,
}

impl Journal {
    /// A journal that appends under `term` and nothing else: once the store holds another term, every
    /// append fails (INV-8). A term never repeats, so keys of two journals never collide.
    pub(super) fn new(store: Arc<dyn Store>, term: Term) -> Self {
        Self { store, term, next: 0 }
    }

    /// Makes `records` durable in one transaction, after all earlier ones. Blocks.
    ///
    /// # Errors
    /// [`StoreError::GuardFailed`] when another coordinator has taken over, [`StoreError::Backend`] when the
    /// store cannot be written; then nothing was recorded.
    pub fn append(&mut self, records: &[Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut puts = Vec::with_capacity(records.len());
        for (offset, record) in (0u64..).zip(records) {
            let key = format!("{RECORDS}{:012}-{:012}", self.term.0, self.next + offset);
            let value = serde_json::to_vec(record).map_err(|error| StoreError::Damaged {
                key: key.clone(),
                error: error.to_string(),
            })?;
            puts.push(Put { key, value });
        }
        let guard = Guard { key: TERM.into(), expected: Some(encode_term(self.term)) };
        self.store.transact(&guard, &puts)?;
        self.next += puts.len() as u64;
        Ok(())
    }
}

/// All records in the order in which they were appended.
pub(super) fn read_all(store: &dyn Store) -> Result<Vec<Record>, StoreError> {
    let decode = |(key, value): (String, Vec<u8>)| {
        serde_json::from_slice(&value)
            .map_err(|error| StoreError::Damaged { key, error: error.to_string() })
    };
    store.list(RECORDS)?.into_iter().map(decode).collect()
}

pub(super) fn encode_term(term: Term) -> Vec<u8> {
    term.0.to_string().into_bytes()
}

pub(super) fn decode_term(value: &[u8]) -> Result<Term, StoreError> {
    let text = String::from_utf8_lossy(value);
    let number = text.parse().map_err(|_| StoreError::Damaged {
        key: TERM.into(),
        error: format!("`{text}` is no term"),
    })?;
    Ok(Term(number))
}
