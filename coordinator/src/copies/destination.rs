//! Where the copies go.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use futures::TryStreamExt;
use medevo_common::{config::CheckpointSection, manifest::MANIFEST_FILE};
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path as StorePath,
};
use tokio::time::timeout;

/// Longest probe before a run starts.
const PROBE: Duration = Duration::from_secs(30);
/// Object of the probe.
const PROBE_FILE: &str = ".probe";
/// Most characters of what a store answers that are repeated: some answer with pages.
const WORDS: usize = 400;

/// A folder of an object store.
#[derive(Clone, Debug)]
pub struct Destination {
    pub(super) store: Arc<dyn ObjectStore>,
    root: StorePath,
    url: String,
}

impl Destination {
    /// Where a run's copies go by its run file: a folder named as the run. None when it copies nothing. Opens no
    /// connection yet.
    ///
    /// # Errors
    /// As [`Destination::open`].
    pub fn of_run(section: &CheckpointSection, run: &str) -> anyhow::Result<Option<Self>> {
        let Some(url) = &section.copy_to else { return Ok(None) };
        let opened = Self::open(url, section.endpoint.as_deref()).context("checkpoint.copy_to")?;
        Ok(Some(opened.child(run)))
    }

    /// The folder of a URL: `s3://bucket/prefix`, or `file:///folder`, which must exist. Credentials, region and, without
    /// `endpoint`, the endpoint of S3 come from the environment.
    ///
    /// # Errors
    /// Another kind of URL, a folder that is not there, settings in the environment that cannot be used.
    pub fn open(url: &str, endpoint: Option<&str>) -> anyhow::Result<Self> {
        if let Some(place) = url.strip_prefix("s3://") {
            let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
            let store = s3(bucket, endpoint)?;
            let prefix = StorePath::parse(prefix).context("its prefix names no objects")?;
            return Ok(Self::new(Arc::new(store), url).below(prefix));
        }
        let Some(folder) = url.strip_prefix("file://").filter(|path| path.starts_with('/')) else {
            bail!("it must be s3://BUCKET/PREFIX or file:///FOLDER");
        };
        if !Path::new(folder).is_dir() {
            bail!("there is no folder {folder}; make it (or mount it) first");
        }
        let store = LocalFileSystem::new_with_prefix(folder)
            .with_context(|| format!("the folder {folder} cannot be used"))?;
        Ok(Self::new(Arc::new(store.with_fsync(true)), url))
    }

    /// A store's root; `url` is what people read.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, url: &str) -> Self {
        Self { store, root: StorePath::default(), url: url.trim_end_matches('/').to_owned() }
    }

    fn below(self, root: StorePath) -> Self {
        Self { root, ..self }
    }

    /// A folder in it.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self {
            store: self.store.clone(),
            root: self.root.clone().join(name),
            url: self.url_of(name),
        }
    }

    /// What people read.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// URL of an object or a folder in it.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    pub(super) fn path(&self, name: &str) -> StorePath {
        self.root.clone().join(name)
    }

    /// Writes, reads and deletes a small object.
    ///
    /// # Errors
    /// What the store refuses, and what to do about it.
    pub async fn probe(&self) -> anyhow::Result<()> {
        let path = self.path(PROBE_FILE);
        let probe = async {
            self.store.put(&path, "medevo".into()).await?;
            let read = self.store.get(&path).await?.bytes().await?;
            self.store.delete(&path).await?;
            Ok::<_, Error>(read)
        };
        let out = "or leave checkpoint.copy_to out";
        match timeout(PROBE, probe).await {
            Ok(Ok(read)) if read.as_ref() == b"medevo" => Ok(()),
            Ok(Ok(_)) => bail!("{} gives back other bytes than were written to it", self.url),
            Ok(Err(error)) => {
                let way = match &error {
                    Error::NotFound { .. } => "make the bucket first, or name another one",
                    Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) and what they may \
                         do: read, write and delete are needed"
                    }
                    _ => {
                        "check that the store is up and the endpoint (checkpoint.endpoint or AWS_ENDPOINT_URL) right"
                    }
                };
                bail!(
                    "checkpoints cannot be copied to {}: {}; {way}, {out}",
                    self.url,
                    words(&error)
                )
            }
            Err(_) => bail!(
                "{} did not answer within {} s; check the network, the endpoint (checkpoint.endpoint or \
                 AWS_ENDPOINT_URL) and that credentials are in the environment, {out}",
                self.url,
                PROBE.as_secs()
            ),
        }
    }

    /// Refuses a folder that holds the copies of a run already: two runs would mix there.
    ///
    /// # Errors
    /// It does, or it cannot be looked into.
    pub async fn refuse_used(&self) -> anyhow::Result<()> {
        let Some((latest, _)) = self.latest().await? else { return Ok(()) };
        bail!(
            "{} already holds the checkpoints of a run {:?} up to step {}; choose another checkpoint.copy_to or \
             another run.name, or remove them",
            self.url,
            latest.run_id,
            latest.step
        )
    }

    /// Names of the whole copies in it: folders with a manifest.
    ///
    /// # Errors
    /// It cannot be listed.
    pub async fn copies(&self) -> anyhow::Result<BTreeSet<String>> {
        let objects: Vec<_> = self
            .store
            .list(Some(&self.root))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(|error| anyhow::anyhow!("{} cannot be listed: {}", self.url, words(&error)))?;
        let depth = self.root.parts().count();
        let names = objects.iter().filter_map(|object| {
            let parts: Vec<_> = object.parts().skip(depth).collect();
            match parts.as_slice() {
                [folder, file] if file.as_ref() == MANIFEST_FILE => {
                    Some(folder.as_ref().to_owned())
                }
                _ => None,
            }
        });
        Ok(names.collect())
    }

    /// Deletes a copy, its manifest first: what is half-deleted is no copy.
    ///
    /// # Errors
    /// Names the object that could not be deleted.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let folder = self.child(name);
        let mut paths: Vec<_> = self
            .store
            .list(Some(&folder.root))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(|error| {
                anyhow::anyhow!("{} cannot be listed: {}", folder.url, words(&error))
            })?;
        paths.sort_by_key(|path| path.filename() != Some(MANIFEST_FILE));
        for path in paths {
            self.store.delete(&path).await.map_err(|error| {
                anyhow::anyhow!("an object of {} cannot be deleted: {}", folder.url, words(&error))
            })?;
        }
        Ok(())
    }
}

fn s3(bucket: &str, endpoint: Option<&str>) -> anyhow::Result<object_store::aws::AmazonS3> {
    // The client's TLS has no crypto of its own. An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
        max_retries: 4,
        retry_timeout: Duration::from_secs(30),
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), "5 seconds")
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), "120 seconds");
    if let Some(endpoint) = endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    let named = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    if named.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    builder.build().map_err(|error| anyhow::anyhow!("S3 cannot be used: {}", words(&error)))
}

/// What a store says, on one line, not endless, and without any secret of the environment: some stores repeat
/// the credentials that they refuse.
pub(super) fn words(error: &Error) -> String {
    let mut text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for key in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"] {
        if let Some(secret) = std::env::var(key).ok().filter(|secret| !secret.is_empty()) {
            text = text.replace(&secret, "…");
        }
    }
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
