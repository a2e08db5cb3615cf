//! The first words on every connection, before any message is decoded: the client shows the run's join
//! token, the server answers with one byte.
//!
//! A connection that has not shown the token can say nothing else, so a stranger never reaches the
//! decoder or the service, nor can it speak in the name of a worker whose tag it has guessed (tags are
//! no secret: name and start time). Whoever has the token may join under any name anyway, so tags need no
//! secret of their own. The token is shown again on every new connection; on a network that is not
//! trusted TLS hides it.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::refusal::Refusal;

/// What a client starts with; the last byte numbers the protocol.
const MAGIC: [u8; 8] = *b"medevo\0\x01";
/// Longest token, bytes: all that a stranger can make the server set aside.
pub const MAX_TOKEN_BYTES: usize = 1024;
/// The token was right.
const ADMITTED: u8 = b'+';
/// It was not, or something else was said. Five times, because a TLS client reads a record's header of five
/// bytes before it sees that this is none.
const TURNED_AWAY: [u8; 5] = *b"-----";
/// First byte of every TLS connection (RFC 8446, a record of type handshake).
const TLS_HANDSHAKE: u8 = 22;
/// First byte of a TLS server that cannot make sense of its caller (a record of type alert).
const TLS_ALERT: u8 = 21;

/// The server's answer to a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Admitted,
    TurnedAway,
    /// The server speaks TLS and took the greeting for garbage.
    WantsTls,
}

/// The client's part: shows the token and hears the answer.
pub(crate) async fn show<S>(stream: &mut S, token: &str) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length = u16::try_from(token.len()).ok().filter(|_| token.len() <= MAX_TOKEN_BYTES);
    let length = length.ok_or_else(|| {
        let sentence = format!("the join token is longer than {MAX_TOKEN_BYTES} bytes");
        Error::new(ErrorKind::InvalidInput, sentence)
    })?;
    let words = [&MAGIC[..], &length.to_be_bytes(), token.as_bytes()].concat();
    stream.write_all(&words).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        ADMITTED => Ok(Answer::Admitted),
        first if first == TURNED_AWAY[0] => Ok(Answer::TurnedAway),
        TLS_ALERT => Ok(Answer::WantsTls),
        _ => Err(Error::new(ErrorKind::InvalidData, "what answers there is no medevo coordinator")),
    }
}

/// The server's part: reads a greeting and answers it.
pub(crate) async fn hear<S>(
    stream: &mut S,
    admits: impl FnOnce(&str) -> bool,
) -> std::result::Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let outcome = match token(stream).await? {
        Ok(token) if admits(&token) => Ok(()),
        Ok(_) => Err(Refusal::WrongToken),
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(()) => stream.write_u8(ADMITTED).await?,
        Err(_) => stream.write_all(&TURNED_AWAY).await?,
    }
    stream.flush().await?;
    outcome
}

/// The token, or what was said instead.
async fn token<S>(stream: &mut S) -> Result<std::result::Result<String, Refusal>>
where
    S: AsyncRead + Unpin,
{
    let first = stream.read_u8().await?;
    if first != MAGIC[0] {
        let refusal = if first == TLS_HANDSHAKE { Refusal::SpeaksTls } else { Refusal::NotAWorker };
        return Ok(Err(refusal));
    }
    let mut rest = [0; MAGIC.len() - 1];
    stream.read_exact(&mut rest).await?;
    let length = usize::from(stream.read_u16().await?);
    if rest != MAGIC[1..] || length > MAX_TOKEN_BYTES {
        return Ok(Err(Refusal::NotAWorker));
    }
    let mut token = vec![0; length];
    stream.read_exact(&mut token).await?;
    // A token that is no text is a wrong one.
    Ok(String::from_utf8(token).map_err(|_| Refusal::WrongToken))
}
