//! What a worker can ask of the coordinator. Workers pull; the coordinator never calls them.

use medevo_types::{
    WorkerTag,
    messages::{Directive, Envelope, Hello, JoinRefused, Rejection, Welcome},
};
use serde_bytes::ByteBuf;

/// The coordinator's side of the control plane. Every call carries a deadline in its context.
#[tarpc::service]
pub trait Coordinator {
    /// Ask to be let in.
    async fn join(hello: Hello) -> Result<Welcome, JoinRefused>;
    /// Say that one is alive; called from the lease thread.
    async fn heartbeat(from: WorkerTag) -> Result<(), Rejection>;
    /// What to do next. Long poll: answers at once when there is work, else within two seconds with
    /// [`Directive::Wait`].
    async fn next(from: WorkerTag) -> Result<Directive, Rejection>;
    /// Say what happened.
    async fn report(envelope: Envelope) -> Result<(), Rejection>;
    /// Rendezvous of a generation's communicator: set a key (keys start with the generation's prefix).
    async fn rendezvous_set(from: WorkerTag, key: String, value: ByteBuf) -> Result<(), Rejection>;
    /// Rendezvous: the value, once somebody has set it; None when it is not there within two seconds.
    async fn rendezvous_get(from: WorkerTag, key: String) -> Result<Option<ByteBuf>, Rejection>;
    /// Rendezvous: add to a counter and return the new value.
    async fn rendezvous_add(from: WorkerTag, key: String, delta: i64) -> Result<i64, Rejection>;
}
