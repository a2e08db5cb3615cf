//! A guarded transaction that is made at most once, however often it is sent.
//!
//! When the answer to a transaction is lost it may have been made, and may even be made later, by a member
//! that was stopped. So each carries a counter of this process as one more guard and one more write: every
//! further copy finds the counter moved and writes nothing, and the values that come back with a refusal
//! show whether an earlier copy had moved it.

use std::hash::{BuildHasher, RandomState};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use crate::{Guard, StoreError, Write};

/// Where this store keeps its counters, below the run's base. No list and no watch shows them.
pub(super) const OWN: &str = ".writes/";

/// The counters of this process that no transaction is using. There are as many as there were transactions
/// at one time; each stays in the cluster as one small key.
#[derive(Debug)]
pub(super) struct Slots {
    process: u64,
    made: u64,
    idle: Vec<Slot>,
}

/// One counter.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its key, below the run's base.
    key: String,
    /// Transactions made under it.
    pub made: u64,
}

impl Slots {
    pub fn new() -> Self {
        // RandomState is keyed by the system's randomness: no two processes get the same number.
        Self { process: RandomState::new().hash_one(std::process::id()), made: 0, idle: Vec::new() }
    }

    pub fn take(&mut self) -> Slot {
        self.idle.pop().unwrap_or_else(|| {
            self.made += 1;
            Slot { key: format!("{OWN}{:016x}/{}", self.process, self.made), made: 0 }
        })
    }

    pub fn put_back(&mut self, slot: Slot) {
        self.idle.push(slot);
    }
}

/// What became of a transaction.
pub(super) enum Verdict {
    /// It was made, by this copy or an earlier one.
    Made,
    /// The guard of this key did not hold.
    Refused(String),
}

/// The transaction as it is sent. Refused, it brings the counter and every guarded key.
pub(super) fn build(base: &str, slot: &Slot, guards: &[Guard], writes: &[Write]) -> Txn {
    let at = |key: &str| format!("{base}{key}");
    let held = |key: &str, expected: Option<&[u8]>| match expected {
        Some(value) => Compare::value(at(key), CompareOp::Equal, value),
        None => Compare::create_revision(at(key), CompareOp::Equal, 0),
    };
    let before = (slot.made > 0).then(|| slot.made.to_string());
    let mut when = vec![held(&slot.key, before.as_deref().map(str::as_bytes))];
    let mut then = vec![TxnOp::put(at(&slot.key), (slot.made + 1).to_string(), None)];
    let mut otherwise = vec![TxnOp::get(at(&slot.key), None)];
    for guard in guards {
        when.push(held(&guard.key, guard.expected.as_deref()));
        otherwise.push(TxnOp::get(at(&guard.key), None));
    }
    for write in writes {
        then.push(match write {
            Write::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(at(key), value.clone(), options)
            }
            Write::Delete { key } => TxnOp::delete(at(key), None),
        });
    }
    Txn::new().when(when).and_then(then).or_else(otherwise)
}

/// Reads the answer to what [`build`] made.
pub(super) fn judge(
    answer: &TxnResponse,
    base: &str,
    slot: &Slot,
    guards: &[Guard],
) -> Result<Verdict, StoreError> {
    if answer.succeeded() {
        return Ok(Verdict::Made);
    }
    let value = |response: TxnOpResponse| match response {
        TxnOpResponse::Get(get) => get.kvs().first().map(|held| held.value().to_vec()),
        _ => None,
    };
    let mut found = answer.op_responses().into_iter().map(value);
    let counter = found.next().flatten();
    if counter.as_deref() == Some((slot.made + 1).to_string().as_bytes()) {
        return Ok(Verdict::Made);
    }
    let failed = guards.iter().zip(found).find(|(guard, held)| guard.expected != *held);
    match failed {
        Some((guard, _)) => Ok(Verdict::Refused(guard.key.clone())),
        None => Err(StoreError::Backend {
            action: "write",
            error: format!("the counter at {base}{} was changed by somebody else", slot.key),
        }),
    }
}
