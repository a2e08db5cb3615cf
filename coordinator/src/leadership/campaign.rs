//! Becoming the leader.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use medevo_store::{Guard, Keeper, LEADER, Store, StoreError, Write};
use medevo_types::messages::Seat;

use super::Lead;
use crate::store::next_term;

/// Takes the lead if nobody has it: a new, larger term and the leader's key, in one transaction. `Err` inside: who
/// leads. Blocks as the store does.
///
/// # Errors
/// As the store's.
pub fn campaign(
    store: &Arc<dyn Store>,
    address: &str,
    ttl: Duration,
) -> Result<Result<Lead, Option<Seat>>, StoreError> {
    if let Some(seat) = leader(store.as_ref())? {
        return Ok(Err(Some(seat)));
    }
    let (term, unchanged, write) = next_term(store.as_ref())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let life = format!("{}-{}", std::process::id(), now.as_micros());
    let seat = Seat { term, address: address.to_owned(), life };
    let words = serde_json::to_vec(&seat)
        .map_err(|error| StoreError::Damaged { key: LEADER.into(), error: error.to_string() })?;
    let guards = [Guard { key: LEADER.into(), expected: None }, unchanged];
    let writes = |lease| vec![Write::leased(LEADER, words.clone(), lease), write];
    match Keeper::start(store.clone(), ttl, &guards, writes, |_| ()) {
        Ok(keeper) => Ok(Ok(Lead::new(store.clone(), keeper, words, term, ttl))),
        // Somebody was quicker.
        Err(StoreError::GuardFailed { .. }) => Ok(Err(leader(store.as_ref())?)),
        Err(error) => Err(error),
    }
}

/// Who leads, if anybody does.
///
/// # Errors
/// As the store's.
pub fn leader(store: &dyn Store) -> Result<Option<Seat>, StoreError> {
    let Some(words) = store.get(LEADER)? else { return Ok(None) };
    let seat = serde_json::from_slice(&words)
        .map_err(|error| StoreError::Damaged { key: LEADER.into(), error: error.to_string() })?;
    Ok(Some(seat))
}
