//! The core's records in the store: appended under increasing keys, every append guarded by the term.

use std::sync::Arc;

use medevo_core::api::Record;
use medevo_store::{Guard, Store, StoreError, Write};
use medevo_types::Term;

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
    /// [`StoreError::GuardFailed`] when another coordinator has taken over: then nothing was recorded. As
    /// [`Store::transact`] otherwise.
    pub fn append(&mut self, records: &[Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut writes = Vec::with_capacity(records.len());
        for (offset, record) in (0u64..).zip(records) {
            let key = format!("{RECORDS}{:012}-{:012}", self.term.0, self.next + offset);
            let value = serde_json::to_vec(record).map_err(|error| StoreError::Damaged {
                key: key.clone(),
                error: error.to_string(),
            })?;
            writes.push(Write::put(key, value));
        }
        self.store.transact(&[term_guard(self.term)], &writes)?;
        self.next += writes.len() as u64;
        Ok(())
    }
}

/// All records in the order in which they were appended.
pub(super) fn read_all(store: &dyn Store) -> Result<Vec<Record>, StoreError> {
    let decode = |(key, value): (String, Vec<u8>)| {
        serde_json::from_slice(&value)
            .map_err(|error| StoreError::Damaged { key, error: error.to_string() })
    };
    store.list(RECORDS)?.entries.into_iter().map(decode).collect()
}

fn encode_term(term: Term) -> Vec<u8> {
    term.0.to_string().into_bytes()
}

fn decode_term(value: &[u8]) -> Result<Term, StoreError> {
    let text = String::from_utf8_lossy(value);
    let number = text.parse().map_err(|_| StoreError::Damaged {
        key: TERM.into(),
        error: format!("`{text}` is no term"),
    })?;
    Ok(Term(number))
}

/// What a transaction of `term` is guarded by: nobody has taken the run over since (INV-8).
pub(crate) fn term_guard(term: Term) -> Guard {
    Guard { key: TERM.into(), expected: Some(encode_term(term)) }
}

/// The term after the last one, the guard that nobody else has taken it, and the write that takes it.
pub(crate) fn next_term(store: &dyn Store) -> Result<(Term, Guard, Write), StoreError> {
    let held = store.get(TERM)?;
    let term = held.as_deref().map_or(Ok(Term::default()), decode_term)?.next();
    Ok((term, Guard { key: TERM.into(), expected: held }, Write::put(TERM, encode_term(term))))
}
