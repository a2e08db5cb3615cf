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

    /// Sums `input` over the ranks and leaves each with its part: rank r finds in `output` the r-th of
    /// [`world`](Self::world) equal parts of the sum. Both are flat, contiguous and of one kind.
    ///
    /// # Errors
    /// As [`all_reduce_sum`](Self::all_reduce_sum), or `input` is not `world` times as long as `output`.
    fn reduce_scatter_sum(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError>;

    /// Lays every rank's `input` end to end, by rank, in `output`. Both are flat, contiguous and of one kind.
    ///
    /// # Errors
    /// As [`all_reduce_sum`](Self::all_reduce_sum), or `output` is not `world` times as long as `input`.
    fn all_gather_into(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError>;

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

/// Refuses a whole that does not fall into `world` parts like `part`, before anything is sent.
pub(crate) fn check_parts(
    operation: &str,
    whole: &Tensor,
    part: &Tensor,
    world: usize,
) -> Result<(), CollectiveError> {
    let flat = |t: &Tensor| t.dim() == 1 && t.is_contiguous();
    let fits = whole.numel() == part.numel() * world && whole.kind() == part.kind();
    if fits && flat(whole) && flat(part) {
        return Ok(());
    }
    Err(CollectiveError::new(
        operation,
        format!(
            "{:?} {:?} is not {world} flat, contiguous parts like {:?} {:?}",
            whole.kind(),
            whole.size(),
            part.kind(),
            part.size()
        ),
    ))
}
