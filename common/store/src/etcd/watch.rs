//! A watch of etcd, carried from the thread that owns the connection to whoever waits.

use std::{
    ops::ControlFlow,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::Duration,
};

use etcd_client::{EventType, WatchResponse, WatchStream};
use tokio::sync::oneshot;

use super::visible;
use crate::{Change, StoreError, Watch};

/// Messages of etcd that may wait. A watcher that lets more pile up has to take a snapshot.
const QUEUE: usize = 256;

/// The waiting end.
pub(super) struct EtcdWatch {
    news: Receiver<Result<Vec<Change>, StoreError>>,
    /// Dropped with the watch: then the task ends, and with it the stream.
    _open: oneshot::Sender<()>,
}

impl EtcdWatch {
    /// Follows a stream in a task of the thread that this is called on. Keys lose their first `base` bytes.
    pub fn follow(mut stream: WatchStream, base: usize) -> Self {
        let (tell, news) = sync_channel(QUEUE);
        let (open, mut closed) = oneshot::channel();
        tokio::task::spawn_local(async move {
            loop {
                let said = tokio::select! {
                    said = stream.message() => said,
                    _ = &mut closed => return,
                };
                let seen = match said {
                    Ok(Some(message)) => changes(&message, base),
                    Ok(None) => Err(broken("etcd closed it")),
                    Err(error) => Err(broken(&error.to_string())),
                };
                if carry(&tell, seen).is_break() {
                    return;
                }
            }
        });
        Self { news, _open: open }
    }
}

impl Watch for EtcdWatch {
    fn wait(&mut self, timeout: Duration) -> Result<Vec<Change>, StoreError> {
        match self.news.recv_timeout(timeout) {
            Ok(seen) => seen,
            Err(RecvTimeoutError::Timeout) => Ok(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => Err(broken("it had ended before")),
        }
    }
}

/// Hands on what was seen; breaks after an error, and when nobody keeps up.
fn carry(
    tell: &SyncSender<Result<Vec<Change>, StoreError>>,
    seen: Result<Vec<Change>, StoreError>,
) -> ControlFlow<()> {
    let last = seen.is_err();
    match seen {
        Ok(seen) if seen.is_empty() => return ControlFlow::Continue(()),
        seen => {
            if tell.try_send(seen).is_err() || last {
                return ControlFlow::Break(());
            }
        }
    }
    ControlFlow::Continue(())
}

fn changes(message: &WatchResponse, base: usize) -> Result<Vec<Change>, StoreError> {
    if message.compact_revision() > 0 {
        let revision = u64::try_from(message.compact_revision()).unwrap_or(0);
        return Err(StoreError::Compacted { revision });
    }
    if message.canceled() {
        return Err(broken(&format!("etcd ended it: {}", message.cancel_reason())));
    }
    let mut seen = Vec::with_capacity(message.events().len());
    for event in message.events() {
        let Some(held) = event.kv() else { continue };
        let Some(key) = visible(held.key(), base) else { continue };
        let value = match event.event_type() {
            EventType::Put => Some(held.value().to_vec()),
            EventType::Delete => None,
        };
        let revision = u64::try_from(held.mod_revision()).unwrap_or(0);
        seen.push(Change { revision, key, value });
    }
    Ok(seen)
}

fn broken(error: &str) -> StoreError {
    StoreError::WatchBroken { error: error.to_owned() }
}
