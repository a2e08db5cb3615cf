//! Holding the lead: the lease by the clock, and what to do when it has lapsed (INV-8).

use std::{sync::Arc, time::Duration};

use medevo_store::{Guard, Keeper, LEADER, Store, StoreError, Write};
use medevo_types::Term;

use crate::store::term_guard;

/// The lead of one run. Dropped, it is given up at once, so that a standby need not wait for the lease.
pub struct Lead {
    store: Arc<dyn Store>,
    keeper: Option<Keeper>,
    /// What stands under [`LEADER`] while this coordinator leads.
    words: Vec<u8>,
    term: Term,
    ttl: Duration,
}

/// Why a lead that has lapsed is not taken up again.
#[derive(Debug, thiserror::Error)]
pub enum Lapse {
    /// Another coordinator leads.
    #[error("another coordinator has taken over this run, so this one leaves")]
    Deposed,
    /// The store does not say.
    #[error(transparent)]
    Unknown(StoreError),
}

impl Lead {
    pub(super) fn new(
        store: Arc<dyn Store>,
        keeper: Keeper,
        words: Vec<u8>,
        term: Term,
        ttl: Duration,
    ) -> Self {
        Self { store, keeper: Some(keeper), words, term, ttl }
    }

    /// The run's store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What stands under [`LEADER`] in the store: a [`Seat`](medevo_types::messages::Seat) as JSON.
    #[must_use]
    pub fn words(&self) -> &[u8] {
        &self.words
    }

    /// The term of this lead.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether nobody else can have taken over yet: by this process's own clock, which goes on while the process
    /// is stopped.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.lost().is_none())
    }

    /// Takes a lapsed lead up again, if nobody else has taken the run over in between. Blocks as the store does.
    ///
    /// # Errors
    /// [`Lapse::Deposed`] is final; after [`Lapse::Unknown`] it is worth trying again.
    pub fn regain(&mut self) -> Result<(), Lapse> {
        self.keeper = None;
        // The old lease may be over in the store, or not yet; in either case nobody else's words may stand there.
        let held = self.store.get(LEADER).map_err(Lapse::Unknown)?;
        if held.as_ref().is_some_and(|held| *held != self.words) {
            return Err(Lapse::Deposed);
        }
        let guards = [term_guard(self.term), Guard { key: LEADER.into(), expected: held }];
        let words = self.words.clone();
        let writes = |lease| vec![Write::leased(LEADER, words, lease)];
        match Keeper::start(self.store.clone(), self.ttl, &guards, writes, |_| ()) {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(StoreError::GuardFailed { .. }) => return Err(Lapse::Deposed),
            Err(error) => return Err(Lapse::Unknown(error)),
        }
        tracing::warn!(term = self.term.0, "the lead had lapsed and is taken up again");
        Ok(())
    }
}
