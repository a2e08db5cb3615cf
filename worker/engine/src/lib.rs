//! Rollout, update and optimizer.
