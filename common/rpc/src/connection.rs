//! A connection before the codec: bytes in and out, secured or not.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Bytes in and out.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection on which the greeting is done.
pub(crate) type Connection = Box<dyn Bytes>;

/// Sets a fresh socket up. One that refuses an option works all the same.
pub(crate) fn prepare(stream: &TcpStream) {
    // Requests are small and wait for their answers: Nagle's delay would only slow them.
    let _ = stream.set_nodelay(true);
    // A peer that was cut off says no goodbye. Without probes its connection would hold a place for ever.
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(30));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepcnt(stream, 3);
}
