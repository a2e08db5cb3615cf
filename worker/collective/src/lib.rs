//! Collectives between ranks.
