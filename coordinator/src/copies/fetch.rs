//! Fetching a copy into a directory of this machine.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use medevo_common::manifest::{MANIFEST_FILE, Manifest, sync_dir};
use medevo_types::{Digest, messages::FileEntry};
use object_store::{Error, ObjectStoreExt};
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
};

use super::destination::{Destination, words};

/// Bytes of one read.
const PIECE: u64 = 8 << 20;
/// Reads under way at once.
const AT_ONCE: usize = 3;

/// A copy that was fetched, and verified by its manifest.
#[derive(Debug)]
pub struct Fetched {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where it came from.
    pub url: String,
}

/// Fetches the checkpoint at `url`, or the newest one of the run whose copies lie there, into `into`, a fresh directory.
///
/// # Errors
/// There is no checkpoint, `into` is in use, or what was fetched is not what its manifest says; then `into` is not there.
pub async fn fetch_url(url: &str, endpoint: Option<&str>, into: &Path) -> anyhow::Result<Fetched> {
    if fs::read_dir(into).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty; name a fresh directory", into.display());
    }
    let place = Destination::open(url, endpoint).with_context(|| url.to_owned())?;
    if place.manifest().await?.is_some() {
        return place.fetch(into, |_, _| Ok(())).await;
    }
    let Some((latest, _)) = place.latest().await? else {
        bail!(
            "{url} is no checkpoint, nor a run's copies: it holds neither manifest.json nor latest.json"
        );
    };
    let wanted = |_: &Manifest, text: &[u8]| match latest.manifest.0 == digest(text).0 {
        true => Ok(()),
        false => Err("its manifest is not the one that latest.json names".to_owned()),
    };
    place.child(&latest.checkpoint).fetch(into, wanted).await
}

fn digest(text: &[u8]) -> Digest {
    Digest(blake3::hash(text).to_hex().to_string())
}

/// A name beside a path.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.components().collect::<PathBuf>().into_os_string();
    name.push(ending);
    name.into()
}

impl Destination {
    /// The manifest's bytes, where this folder is a copy.
    pub(super) async fn manifest(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let unreadable = |error: Error| {
            anyhow::anyhow!("{} cannot be read: {}", self.url_of(MANIFEST_FILE), words(&error))
        };
        match self.store.get(&self.path(MANIFEST_FILE)).await {
            Ok(got) => Ok(Some(got.bytes().await.map_err(unreadable)?.into())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Fetches the copy in this folder into `into`, which is there wholly or not at all, if `wanted` has nothing against
    /// its manifest.
    ///
    /// # Errors
    /// What is missing, differs, or is against it.
    pub async fn fetch(
        &self,
        into: &Path,
        wanted: impl FnOnce(&Manifest, &[u8]) -> Result<(), String>,
    ) -> anyhow::Result<Fetched> {
        let url = self.url().to_owned();
        let text = self.manifest().await?.with_context(|| format!("there is no copy {url}"))?;
        let manifest = Manifest::parse(&text, Path::new(&self.url_of(MANIFEST_FILE)))?;
        manifest.check_names()?;
        wanted(&manifest, &text)
            .map_err(|reason| anyhow::anyhow!("{url} is another checkpoint: {reason}"))?;
        let part = beside(into, ".part");
        let filled = self.fill(&part, &manifest, &text).await;
        let placed = filled.and_then(|()| {
            fs::rename(&part, into)
                .with_context(|| format!("{} cannot be put in place", into.display()))?;
            sync_dir(into.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        });
        if let Err(error) = placed {
            // On a full disk it would be in everybody's way; a next try removes it otherwise.
            let _ = fs::remove_dir_all(&part);
            return Err(error.context(format!("fetching {url}")));
        }
        Ok(Fetched { manifest, url })
    }

    async fn fill(&self, part: &Path, manifest: &Manifest, text: &[u8]) -> anyhow::Result<()> {
        if part.exists() {
            fs::remove_dir_all(part)
                .with_context(|| format!("{} of an earlier try", part.display()))?;
        }
        fs::create_dir_all(part).with_context(|| format!("{} cannot be made", part.display()))?;
        for entry in &manifest.files {
            self.get_file(entry, &part.join(&entry.name)).await?;
        }
        let checked = part.to_owned();
        let all = manifest.clone();
        tokio::task::spawn_blocking(move || all.verify(&checked))
            .await
            .context("verifying broke off")??;
        let path = part.join(MANIFEST_FILE);
        let write = async {
            let mut file = File::create(&path).await?;
            file.write_all(text).await?;
            file.sync_all().await
        };
        write.await.with_context(|| format!("writing {}", path.display()))?;
        sync_dir(part)
    }

    /// In pieces, so that no request takes long; no more bytes than the manifest says.
    async fn get_file(&self, entry: &FileEntry, to: &Path) -> anyhow::Result<()> {
        let from = self.path(&entry.name);
        let pieces = (0..entry.bytes.div_ceil(PIECE)).map(|piece| {
            let start = piece * PIECE;
            let range = start..(start + PIECE).min(entry.bytes);
            let (store, from) = (self.store.clone(), from.clone());
            async move { store.get_range(&from, range).await }
        });
        let mut pieces = stream::iter(pieces).buffered(AT_ONCE);
        let at = || format!("writing {}", to.display());
        let mut file = BufWriter::new(File::create(to).await.with_context(at)?);
        while let Some(piece) = pieces.try_next().await.map_err(|error| {
            anyhow::anyhow!("{} cannot be read: {}", self.url_of(&entry.name), words(&error))
        })? {
            file.write_all(&piece).await.with_context(at)?;
        }
        file.flush().await.with_context(at)?;
        file.get_ref().sync_all().await.with_context(at)
    }
}
