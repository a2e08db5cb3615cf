//! One checkpoint's copy: files first, the manifest last.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context;
use medevo_common::manifest::{MANIFEST_FILE, Manifest};
use medevo_types::{Digest, Term, messages::FileEntry};
use object_store::{ObjectStoreExt, WriteMultipart};
use tokio::{fs::File, io::AsyncReadExt};

use super::{
    Latest,
    destination::{Destination, words},
};

/// Bytes of a part, unless the file would have too many of them.
const PART: u64 = 8 << 20;
/// Most parts of one object; S3 takes 10,000.
const PARTS: u64 = 9_000;
/// Parts under way at once: with the one being read, what an upload holds in memory.
const AT_ONCE: usize = 3;

impl Destination {
    /// Copies the checkpoint in `dir` under its name; returns its bytes. `done` are its files that are there already, by
    /// an earlier try; it grows.
    ///
    /// # Errors
    /// A file that is not what the manifest says, or that the store does not take; then the copy has no manifest.
    pub async fn upload(&self, dir: &Path, done: &mut BTreeSet<String>) -> anyhow::Result<u64> {
        let (name, manifest, text) = manifest(dir)?;
        let copy = self.child(&name);
        let mut bytes = text.len() as u64;
        for entry in &manifest.files {
            if !done.contains(&entry.name) {
                copy.put_file(&dir.join(&entry.name), entry).await?;
                done.insert(entry.name.clone());
            }
            bytes += entry.bytes;
        }
        let put = self.store.put(&copy.path(MANIFEST_FILE), text.into()).await;
        put.map_err(|error| {
            anyhow::anyhow!("writing {}: {}", copy.url_of(MANIFEST_FILE), words(&error))
        })?;
        Ok(bytes)
    }

    /// What `latest.json` is to say of the checkpoint in `dir` once it is copied.
    ///
    /// # Errors
    /// Its manifest cannot be read.
    pub fn latest_of(&self, dir: &Path, term: Term) -> anyhow::Result<Latest> {
        let (name, manifest, text) = manifest(dir)?;
        Ok(Latest::new(&name, &manifest, &text, term))
    }

    /// Copies one file in parts, and looks at its digest before it stands there.
    async fn put_file(&self, from: &Path, entry: &FileEntry) -> anyhow::Result<()> {
        let part = PART.max(entry.bytes.div_ceil(PARTS));
        let to = self.path(&entry.name);
        let refused = |error: object_store::Error| {
            anyhow::anyhow!("writing {}: {}", self.url_of(&entry.name), words(&error))
        };
        let mut file = Parts::open(from, part).await?;
        let first = file.next().await?;
        if first.len() as u64 == entry.bytes {
            file.check(entry)?;
            self.store.put(&to, first.into()).await.map_err(refused)?;
            return Ok(());
        }
        let upload = self.store.put_multipart(&to).await.map_err(refused)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, part as usize);
        let mut next = first;
        let sent = async {
            while !next.is_empty() {
                upload.wait_for_capacity(AT_ONCE).await.map_err(refused)?;
                upload.put(next.into());
                next = file.next().await?;
            }
            file.check(entry)
        };
        if let Err(error) = sent.await {
            // What stays of it is the store's to clean up: buckets have a rule for unfinished uploads.
            if let Err(left) = upload.abort().await {
                tracing::warn!("an unfinished upload could not be taken back: {}", words(&left));
            }
            return Err(error);
        }
        upload.finish().await.map_err(refused)?;
        Ok(())
    }
}

/// A checkpoint's name, its manifest, and that as it lies there.
fn manifest(dir: &Path) -> anyhow::Result<(String, Manifest, Vec<u8>)> {
    let name = dir.file_name().context("a checkpoint's directory has a name")?;
    let path = dir.join(MANIFEST_FILE);
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok((name.to_string_lossy().into_owned(), Manifest::parse(&text, &path)?, text))
}

/// A file's parts, in turn.
struct Parts<'a> {
    path: &'a Path,
    file: File,
    part: u64,
    hasher: blake3::Hasher,
}

impl<'a> Parts<'a> {
    async fn open(path: &'a Path, part: u64) -> anyhow::Result<Self> {
        let mut file =
            File::open(path).await.with_context(|| format!("opening {}", path.display()))?;
        file.set_max_buf_size(1 << 20);
        Ok(Self { path, file, part, hasher: blake3::Hasher::new() })
    }

    /// The next part; empty at the end.
    async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut part = Vec::new();
        let mut rest = (&mut self.file).take(self.part);
        rest.read_to_end(&mut part)
            .await
            .with_context(|| format!("reading {}", self.path.display()))?;
        self.hasher.update(&part);
        Ok(part)
    }

    /// Whether all that was read is what the manifest says.
    fn check(&self, entry: &FileEntry) -> anyhow::Result<()> {
        let digest = Digest(self.hasher.finalize().to_hex().to_string());
        anyhow::ensure!(
            self.hasher.count() == entry.bytes && digest == entry.digest,
            "{} is not what the manifest says any more: its contents changed",
            self.path.display()
        );
        Ok(())
    }
}
