//! What every backend promises.

use tch::Tensor;

/// An operation between ranks that did not come to its end.
///
/// The communicator is of no use afterwards: its peers may have left it at different points. Drop it
/// and form a new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("collective {operation} failed: {message}")]
pub struct CollectiveError {
    /// Which operation ("all_reduce", "form", ...).
    pub operation: String,
    /// What the backend said about it.
    pub message: String,
}

impl CollectiveError {
    /// An error of `operation`.
    #[must_use]
    pub fn new(operation: &str, message: impl Into<String>) -> Self {
        Self { operation: operation.to_owned(), message: message.into() }
    }
}

/// A communicator: every rank calls the same operations in the same order with tensors of the same
/// shape and kind. Each call returns when this rank's part is done, or with an error within the
/// communicator's timeout.
///
/// Tensors are dense and contiguous, except where a backend says that it copes with others; they are
/// changed in place and no gradient is recorded.
pub trait Collective: Send {
    /// This process's rank, below [`world`](Self::world).
    fn rank(&self) -> usize;

    /// Number of ranks, at least 1.
    fn world(&self) -> usize;

    /// Replaces `t` by the element-wise sum of all ranks' tensors, bit-equal on every rank.
    ///
    /// # Errors
    /// A peer is gone, the time is over, or the shapes differ.
    fn all_reduce_sum(&mut self, t: &mut Tensor) -> Result<(), CollectiveError>;

    /// Replaces `t` by the tensor of rank `root`.
    ///
    /// # Errors
    /// As [`all_reduce_sum`](Self::all_reduce_sum), or `root` is not a rank.
    fn broadcast(&mut self, t: &mut Tensor, root: usize) -> Result<(), CollectiveError>;

    /// Every rank's tensor, by rank; each has the shape of `t`.
    ///
    /// # Errors
    /// As [`all_reduce_sum`](Self::all_reduce_sum).
    fn all_gather(&mut self, t: &Tensor) -> Result<Vec<Tensor>, CollectiveError>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// As [`all_reduce_sum`](Self::all_reduce_sum).
    fn barrier(&mut self) -> Result<(), CollectiveError>;
}

/// Refuses a root that is no rank, before anything is sent.
pub(crate) fn check_root(root: usize, world: usize) -> Result<(), CollectiveError> {
    if root < world {
        return Ok(());
    }
    Err(CollectiveError::new(
        "broadcast",
        format!("root {root} is not a rank: the communicator has ranks 0 to {}", world - 1),
    ))
}
