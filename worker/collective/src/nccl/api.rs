//! The calls to NCCL and CUDA that a communicator makes, so that its logic runs without either.

use tch::Tensor;

/// What ranks do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Each `to` becomes the sum of all `from`s.
    AllReduceSum,
    /// Each `to` becomes the `from` of this rank.
    Broadcast(usize),
    /// Rank r's `to` becomes the r-th part of the sum of all `from`s.
    ReduceScatterSum,
    /// Each `to` becomes all `from`s, by rank.
    AllGather,
}

/// NCCL and CUDA on one device. Errors are sentences without the rank and the operation.
///
/// A handle is good from [`begin`](Self::begin) until its one [`abort`](Self::abort) or
/// [`destroy`](Self::destroy); only the [undertaker](super::undertaker) calls those two. No call waits for
/// another rank, except where NCCL breaks its word: [`enqueue`](Self::enqueue), `abort` and `destroy` are
/// called where that can be borne.
pub trait Api: Send + Sync + 'static {
    /// A communicator's handle.
    type Handle: Copy + Send + 'static;
    /// A point in the stream.
    type Event;

    /// The device's name, for errors.
    fn device(&self) -> String;

    /// A number on the device, for a barrier.
    fn token(&self) -> Tensor;

    /// Refuses a tensor that is not dense, not on the device, or of a kind that is not exchanged.
    ///
    /// # Errors
    /// Says which of them.
    fn check(&self, tensor: &Tensor) -> Result<(), String>;

    /// What the ranks of a new communicator have to know of each other; one of them makes it.
    ///
    /// # Errors
    /// NCCL finds no network.
    fn unique_id(&self) -> Result<Vec<u8>, String>;

    /// Begins to form a communicator.
    ///
    /// # Errors
    /// The id is damaged, or NCCL refuses.
    fn begin(&self, id: &[u8], rank: usize, world: usize) -> Result<Self::Handle, String>;

    /// Whether all that was asked of the communicator so far has been done, or is in the stream; false while NCCL
    /// still works on it.
    ///
    /// # Errors
    /// What has gone wrong since.
    fn ready(&self, handle: Self::Handle) -> Result<bool, String>;

    /// Asks for an operation, behind all that torch has put into its stream. [`check`](Self::check) has passed both.
    ///
    /// # Errors
    /// NCCL refuses it.
    fn enqueue(
        &self,
        handle: Self::Handle,
        operation: Operation,
        from: &Tensor,
        to: &Tensor,
    ) -> Result<(), String>;

    /// Marks the end of the stream as it is now.
    ///
    /// # Errors
    /// The device is broken.
    fn record(&self) -> Result<Self::Event, String>;

    /// Whether the device has come to the event.
    ///
    /// # Errors
    /// Something in the stream has failed.
    fn passed(&self, event: &Self::Event) -> Result<bool, String>;

    /// Begins to end a communicator in peace: what is under way is sent; [`ready`](Self::ready) says when.
    ///
    /// # Errors
    /// NCCL refuses.
    fn finalize(&self, handle: Self::Handle) -> Result<(), String>;

    /// Lets a finalized communicator go.
    fn destroy(&self, handle: Self::Handle);

    /// Stops whatever the communicator does, on the device too, and lets it go.
    fn abort(&self, handle: Self::Handle);
}
