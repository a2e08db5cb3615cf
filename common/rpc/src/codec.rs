//! How messages become bytes, for both sides; nothing else in medevo knows.
//!
//! A frame is a length (4 bytes, big endian) and a message in bincode 1.3, which tarpc's transport
//! brings. bincode is complete and no longer maintained (RUSTSEC-2025-0141, informational: no defect
//! is known); it is named in this file only, so another codec is a change here.

use serde::{Deserialize, Serialize};
use tarpc::{
    serde_transport::Transport,
    tokio_serde::formats::Bincode,
    tokio_util::codec::{Framed, LengthDelimitedCodec},
};
use tokio::net::TcpStream;

/// Largest message, bytes. A rollout unit's report with policy features is a few MiB; what is larger
/// than this is a mistake, and is refused before memory is set aside for it.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// A connection that receives `Item`s and sends `Sent`s.
pub(crate) type Wire<Item, Sent> = Transport<TcpStream, Item, Sent, Bincode<Item, Sent>>;

/// Puts the codec on a connection.
pub(crate) fn wire<Item, Sent>(stream: TcpStream) -> Wire<Item, Sent>
where
    Item: for<'de> Deserialize<'de>,
    Sent: Serialize,
{
    // Requests are small and wait for their answers: Nagle's delay would only slow them. A socket that
    // refuses works all the same.
    let _ = stream.set_nodelay(true);
    let frames = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME_BYTES).new_codec();
    tarpc::serde_transport::new(Framed::new(stream, frames), Bincode::default())
}
