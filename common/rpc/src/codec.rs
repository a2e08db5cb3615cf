//! How messages become bytes, for both sides; nothing else in medevo knows.
//!
//! A frame is a length (4 bytes, big endian) and a message in bincode 1.3, which tarpc's transport
//! brings. bincode is complete and no longer maintained (RUSTSEC-2025-0141, informational: no defect
//! is known); it is named in this file only, so another codec is a change here.
//!
//! Whatever the bytes, decoding ends in a message or an error. Lengths are checked against what is left
//! of the frame before text or bytes are copied; for sequences serde sets aside 1 MiB at most on a
//! length's word. `tests/hostile_bytes.rs` and the fuzz target hold this.

use std::{io, marker::PhantomData, pin::Pin, time::Duration};

use bincode::Options;
use serde::{Deserialize, Serialize};
use tarpc::{
    ClientMessage, Response,
    serde_transport::Transport,
    tokio_serde::{Deserializer, Serializer},
    tokio_util::{
        bytes::{Bytes, BytesMut},
        codec::{Framed, LengthDelimitedCodec},
    },
};

use crate::{
    connection::Connection,
    service::{CoordinatorRequest, CoordinatorResponse},
};

/// Largest message, bytes. A rollout unit's report with policy features is a few MiB; what is larger
/// than this is a mistake, and is refused before memory is set aside for it.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// Latest deadline that a request may carry. Ours are seconds. tarpc adds what the wire says to the
/// present and sets a timer by it; both panic when it lies too far ahead.
const MAX_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// A request as it comes in.
pub(crate) type Request = ClientMessage<CoordinatorRequest>;
/// An answer as it comes back.
pub(crate) type Answer = Response<CoordinatorResponse>;
/// The server's end of a connection.
pub(crate) type ServerWire = Transport<Connection, Request, Answer, Codec<Request, Answer>>;
/// The client's end.
pub(crate) type ClientWire = Transport<Connection, Answer, Request, Codec<Answer, Request>>;

/// Puts the server's codec on a connection.
pub(crate) fn server(stream: Connection) -> ServerWire {
    tarpc::serde_transport::new(framed(stream), Codec::new(decode_request))
}

/// Puts the client's codec on a connection.
pub(crate) fn client(stream: Connection) -> ClientWire {
    tarpc::serde_transport::new(framed(stream), Codec::new(decode_answer))
}

fn framed(stream: Connection) -> Framed<Connection, LengthDelimitedCodec> {
    let frames = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME_BYTES).new_codec();
    Framed::new(stream, frames)
}

/// A request of these bytes, if they are one.
///
/// # Errors
/// They are none, or its deadline is absurd.
pub fn decode_request(bytes: &[u8]) -> io::Result<ClientMessage<CoordinatorRequest>> {
    let start = bincode::options().allow_trailing_bytes();
    // A request (variant 0; the other is a cancellation) begins with its deadline: seconds from now.
    if start.deserialize::<u32>(bytes).map_err(invalid)? == 0 {
        let (_, seconds): (u32, u64) = start.deserialize(bytes).map_err(invalid)?;
        if seconds > MAX_DEADLINE.as_secs() {
            return Err(invalid(format!("a request with a deadline {seconds} s from now")));
        }
    }
    decode(bytes)
}

/// An answer of these bytes, if they are one.
///
/// # Errors
/// They are none.
pub fn decode_answer(bytes: &[u8]) -> io::Result<Response<CoordinatorResponse>> {
    decode(bytes)
}

/// A message's bytes.
///
/// # Errors
/// The message holds what cannot be encoded; ours don't.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    bincode::options().serialize(message).map_err(invalid)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<T> {
    bincode::options().deserialize(bytes).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Messages in and out.
pub(crate) struct Codec<Item, Sent> {
    decode: fn(&[u8]) -> io::Result<Item>,
    sent: PhantomData<fn(Sent)>,
}

impl<Item, Sent> Codec<Item, Sent> {
    fn new(decode: fn(&[u8]) -> io::Result<Item>) -> Self {
        Self { decode, sent: PhantomData }
    }
}

impl<Item, Sent> Deserializer<Item> for Codec<Item, Sent> {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<Item> {
        (self.decode)(bytes)
    }
}

impl<Item, Sent: Serialize> Serializer<Sent> for Codec<Item, Sent> {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, message: &Sent) -> io::Result<Bytes> {
        encode(message).map(Bytes::from)
    }
}
