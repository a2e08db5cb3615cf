//! `latest.json`: which copy is the newest.

use anyhow::{Context, bail};
use medevo_types::{Digest, PolicyVersion, Step, Term};
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use serde::{Deserialize, Serialize};

use super::destination::{Destination, words};

/// Name of the object beside the copies.
pub const LATEST_FILE: &str = "latest.json";
/// Version of its layout.
const FORMAT: u32 = 1;
/// Times that another's move may come in between.
const TRIES: u32 = 5;

/// The newest copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// Layout of this object.
    pub format: u32,
    /// Name of the run.
    pub run_id: String,
    /// The copy's folder, beside this object.
    pub checkpoint: String,
    /// Its last step.
    pub step: Step,
    /// Version of its weights.
    pub policy: PolicyVersion,
    /// Term of the coordinator that made it.
    pub term: Term,
    /// BLAKE3 of its `manifest.json`.
    pub manifest: Digest,
}

impl Latest {
    /// Of a copy whose manifest has these bytes.
    #[must_use]
    pub fn new(
        checkpoint: &str,
        manifest: &medevo_common::manifest::Manifest,
        text: &[u8],
        term: Term,
    ) -> Self {
        Self {
            format: FORMAT,
            run_id: manifest.run_id.clone(),
            checkpoint: checkpoint.to_owned(),
            step: manifest.step,
            policy: manifest.policy,
            term,
            manifest: Digest(blake3::hash(text).to_hex().to_string()),
        }
    }
}

impl Destination {
    /// What `latest.json` says, and its version; none when there is none.
    ///
    /// # Errors
    /// It cannot be read, or is of another layout.
    pub async fn latest(&self) -> anyhow::Result<Option<(Latest, UpdateVersion)>> {
        let url = self.url_of(LATEST_FILE);
        let unreadable = |error: Error| anyhow::anyhow!("{url} cannot be read: {}", words(&error));
        let got = match self.store.get(&self.path(LATEST_FILE)).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let version =
            UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
        let text = got.bytes().await.map_err(unreadable)?;
        let latest: Latest = serde_json::from_slice(&text)
            .with_context(|| format!("{url} is not of this layout"))?;
        Ok(Some((latest, version)))
    }

    /// Moves `latest.json`, where the store can by a put on the condition that nobody else has moved it.
    ///
    /// # Errors
    /// A coordinator of a later term, or another run, has moved it; the store refuses.
    pub async fn move_latest(&self, latest: &Latest) -> anyhow::Result<()> {
        let url = self.url_of(LATEST_FILE);
        let text = serde_json::to_vec_pretty(latest).context("latest.json cannot be encoded")?;
        for _ in 0..TRIES {
            let mode = match self.latest().await? {
                Some((there, _)) if there == *latest => return Ok(()),
                Some((there, _)) if there.run_id != latest.run_id => {
                    bail!("{url} is of the run {:?}; it is left as it is", there.run_id)
                }
                Some((there, _)) if there.term > latest.term => bail!(
                    "{url} was moved to step {} by a coordinator of term {}, this one is of term {}; it is left \
                     as it is",
                    there.step,
                    there.term,
                    latest.term
                ),
                Some((_, version)) => PutMode::Update(version),
                None => PutMode::Create,
            };
            let put = |mode: PutMode| {
                let options = PutOptions::from(mode);
                let path = self.path(LATEST_FILE);
                let text = text.clone();
                async move { self.store.put_opts(&path, text.into(), options).await }
            };
            let result = match put(mode).await {
                // Folders, and stores for which AWS_CONDITIONAL_PUT=disabled is set.
                Err(Error::NotImplemented { .. }) => put(PutMode::Overwrite).await,
                result => result,
            };
            match result {
                Ok(_) => return Ok(()),
                Err(
                    Error::Precondition { .. }
                    | Error::AlreadyExists { .. }
                    | Error::NotFound { .. },
                ) => {}
                Err(error) => bail!("{url} cannot be written: {}", words(&error)),
            }
        }
        bail!("{url} was moved by somebody else {TRIES} times while this coordinator tried to")
    }
}
