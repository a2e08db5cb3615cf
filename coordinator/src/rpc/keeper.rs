//! Who is let in: whoever shows the run's token.

use std::{net::SocketAddr, sync::Arc};

use medevo_rpc::{Doorkeeper, Refusal};

use super::{Refusals, Token};

/// The run's doorkeeper.
pub struct Keeper {
    token: Token,
    refusals: Arc<Refusals>,
}

impl Keeper {
    /// Lets in who shows `token`, and tells `refusals` of the others.
    #[must_use]
    pub fn new(token: Token, refusals: Arc<Refusals>) -> Self {
        Self { token, refusals }
    }
}

impl Doorkeeper for Keeper {
    fn admits(&self, token: &str) -> bool {
        self.token.admits(token)
    }

    fn turned_away(&self, peer: SocketAddr, why: &Refusal) {
        self.refusals.tell(format!("a connection from {peer} was turned away: {why}"));
    }
}
