//! The doctor's side of a meeting: `medevo-worker probe --meet` connects, asks for the time, and sends bytes.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use medevo_types::probe::BANDWIDTH_BYTES;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use crate::run_dir::now_ms;

/// How long one machine may take from end to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest line that is read, bytes.
const LINE: u64 = 256;
/// Machines that are served at a time. One: beside others its bytes would be slower than the network.
const AT_A_TIME: usize = 1;

/// Serves everyone who shows the nonce, until it is dropped.
pub(super) async fn serve(listener: TcpListener, nonce: String) {
    let (nonce, turns) = (Arc::new(nonce), Arc::new(Semaphore::new(AT_A_TIME)));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (nonce, turns) = (nonce.clone(), turns.clone());
        tokio::spawn(async move {
            let Ok(_turn) = turns.acquire_owned().await else { return };
            match timeout(PATIENCE, attend(stream, &nonce)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("a probe broke off: {error:#}"),
                Err(_) => tracing::warn!("a probe took more than {} s", PATIENCE.as_secs()),
            }
        });
    }
}

async fn attend(stream: TcpStream, nonce: &str) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    ensure!(line(&mut stream).await? == nonce, "it does not know this meeting");
    stream.write_all(b"welcome\n").await?;
    loop {
        match line(&mut stream).await?.as_str() {
            "clock" => stream.write_all(format!("{}\n", now_ms()).as_bytes()).await?,
            "bytes" => break,
            other => anyhow::bail!("it asks for {other:?}"),
        }
    }
    let mut all = (&mut stream).take(BANDWIDTH_BYTES as u64);
    let got = tokio::io::copy(&mut all, &mut tokio::io::sink()).await?;
    ensure!(got == BANDWIDTH_BYTES as u64, "it sent {got} bytes and left");
    stream.write_all(b"all\n").await.context("it left before the answer")
}

async fn line(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = (&mut *stream).take(LINE).read_line(&mut text).await?;
    ensure!(read > 0, "it left");
    Ok(text.trim_end().to_owned())
}
