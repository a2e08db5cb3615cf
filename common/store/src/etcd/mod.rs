//! The store of a cluster: etcd. One thread with a runtime of its own talks to the members, so that a busy
//! or blocked runtime of the caller never starves it.

mod answer;
mod cluster;
mod connect;
mod courier;
mod transaction;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use etcd_client::{GetOptions, WatchOptions};

use crate::{
    Guard, LeaseId, Settings, Snapshot, Store, StoreError, Watch, Write, contract::each_key_once,
};
use courier::Courier;
use transaction::{Slots, Verdict};
use watch::EtcdWatch;

/// Keys that one page of a list asks for.
const PAGE: i64 = 128;
/// Largest answer, bytes: a page of the largest values that etcd takes, 1.5 MiB each.
const ANSWER: usize = 256 << 20;

/// A run's keys in an etcd cluster, under `<prefix>/<run>/`.
///
/// Every call tries the members in turn, with growing pauses and jitter, until one answers or its patience
/// has passed. A transaction whose answer is lost is tried again and still made at most once: with its
/// writes goes a counter of this process (`.writes/`), by which a second try sees that the first was made.
#[derive(Debug)]
pub struct Etcd {
    courier: Courier,
    base: String,
    patience: Duration,
    slots: Mutex<Slots>,
    /// Leases of this process, and their full time.
    leases: Mutex<BTreeMap<LeaseId, Duration>>,
}

impl Etcd {
    /// Connects, and makes sure that the run's keys can be read.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the cluster does not let this run in, [`StoreError::Unavailable`] when
    /// no member answers, [`StoreError::Backend`] when a file or an address cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let store = Self {
            courier: Courier::start(settings)?,
            base: settings.base(),
            patience: settings.patience(),
            slots: Mutex::new(Slots::new()),
            leases: Mutex::default(),
        };
        store.get("")?;
        Ok(store)
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.base)
    }
}

impl Store for Etcd {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.key(key);
        self.courier.run(self.patience, move |cluster, until| async move {
            let mut answer = cluster
                .call(until, "read", |mut client| {
                    let key = key.clone();
                    async move { client.get(key, None).await }
                })
                .await?;
            Ok(answer.take_kvs().pop().map(|held| held.into_key_value().1))
        })
    }

    fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let (base, prefix) = (self.base.len(), self.key(prefix));
        self.courier.run(self.patience, move |cluster, until| async move {
            loop {
                match read_pages(&cluster, until, &prefix, base).await {
                    // Compacted between two pages: from the start.
                    Err(StoreError::Compacted { .. }) if Instant::now() < until => {}
                    other => return other,
                }
            }
        })
    }

    fn transact(&self, guards: &[Guard], writes: &[Write]) -> Result<(), StoreError> {
        each_key_once(writes)?;
        let mut slot = self.slots().take();
        let txn = transaction::build(&self.base, &slot, guards, writes);
        let lease = writes.iter().find_map(Write::lease);
        let answer = self.courier.run(self.patience, move |cluster, until| async move {
            let send = |mut client: etcd_client::Client| {
                let txn = txn.clone();
                async move { client.txn(txn).await }
            };
            cluster.call_for(until, "write", lease, send).await
        });
        // A slot whose transaction has no answer may still move: it is not used again.
        let verdict = transaction::judge(&answer?, &self.base, &slot, guards)?;
        if matches!(verdict, Verdict::Made) {
            slot.made += 1;
        }
        self.slots().put_back(slot);
        match verdict {
            Verdict::Made => Ok(()),
            Verdict::Refused(key) => Err(StoreError::GuardFailed { key }),
        }
    }

    fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        // etcd counts whole seconds: rather longer than shorter.
        let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(whole.max(1)).unwrap_or(i64::MAX);
        let granted = self.courier.run(self.patience, move |cluster, until| async move {
            let send = |mut client: etcd_client::Client| async move {
                client.lease_grant(seconds, None).await
            };
            cluster.call(until, "grant a lease", send).await
        })?;
        let lease = LeaseId(granted.id());
        // It may be longer than asked for: etcd has a shortest time of its own.
        let full = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0));
        self.leases().insert(lease, full);
        Ok(lease)
    }

    fn renew(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        let full = self.leases().get(&lease).copied().ok_or(StoreError::LeaseLost { lease })?;
        // Whoever keeps a lease has other things to decide before it runs out.
        let patience = self.patience.min(full / 2);
        let base = self.base.clone();
        self.courier.run(patience, move |cluster, until| async move {
            let send = |mut client: etcd_client::Client| {
                let base = base.clone();
                async move {
                    client.lease_keep_alive(lease.0).await?;
                    // A leader that was cut off still renews until it notices. It cannot answer this: a
                    // read needs the majority.
                    client.get(base, None).await
                }
            };
            cluster.call_for(until, "renew a lease", Some(lease), send).await
        })?;
        Ok(full)
    }

    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let answer = self.courier.run(self.patience, move |cluster, until| async move {
            let send =
                |mut client: etcd_client::Client| async move { client.lease_revoke(lease.0).await };
            cluster.call_for(until, "revoke a lease", Some(lease), send).await
        });
        self.leases().remove(&lease);
        match answer {
            Ok(_) | Err(StoreError::LeaseLost { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Watch>, StoreError> {
        let (base, key) = (self.base.len(), self.key(prefix));
        let from = i64::try_from(after).unwrap_or(i64::MAX).saturating_add(1);
        let watch = self.courier.run(self.patience, move |cluster, until| async move {
            let open = |client: etcd_client::Client| {
                let options = WatchOptions::new().with_prefix().with_start_revision(from);
                let key = key.clone();
                let mut client = client.watch_client().max_decoding_message_size(ANSWER);
                async move { client.watch(key, Some(options)).await }
            };
            let stream = cluster.call(until, "watch", open).await?;
            Ok(EtcdWatch::follow(stream, base))
        })?;
        Ok(Box::new(watch))
    }
}

impl Etcd {
    fn leases(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Duration>> {
        self.leases.lock().expect("no holder of the leases panics")
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("no holder of the slots panics")
    }
}

/// All of a prefix as it was at the first page's revision.
async fn read_pages(
    cluster: &cluster::Cluster,
    until: Instant,
    prefix: &str,
    base: usize,
) -> Result<Snapshot, StoreError> {
    let mut found = Snapshot::default();
    let end = after_prefix(prefix);
    let mut from = prefix.as_bytes().to_vec();
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
        // The first page sets the moment; it is linearizable, as every read here.
        let options = match found.revision {
            0 => options,
            at => options.with_revision(i64::try_from(at).unwrap_or(i64::MAX)),
        };
        let send = |client: etcd_client::Client| {
            let (from, options) = (from.clone(), options.clone());
            let mut client = client.kv_client().max_decoding_message_size(ANSWER);
            async move { client.get(from, Some(options)).await }
        };
        let mut page = cluster.call(until, "list", send).await?;
        if found.revision == 0 {
            let revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
            found.revision = u64::try_from(revision).unwrap_or(0);
        }
        let more = page.more();
        for held in page.take_kvs() {
            let (key, value) = held.into_key_value();
            from.clone_from(&key);
            if let Some(key) = visible(&key, base) {
                found.entries.push((key, value));
            }
        }
        if !more {
            return Ok(found);
        }
        from.push(0);
    }
}

/// A key of the run without its base; none of this store's own.
fn visible(key: &[u8], base: usize) -> Option<String> {
    let key = String::from_utf8_lossy(key.get(base..)?);
    (!key.starts_with(transaction::OWN)).then(|| key.into_owned())
}

/// The first key after all that start with `prefix`.
fn after_prefix(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // A base ends with a slash, so there is always a byte that can be raised: UTF-8 holds no 0xff.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
