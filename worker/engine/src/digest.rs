//! BLAKE3 over tensors and files.

use std::{fs::File, path::Path};

use anyhow::Context;
use medevo_types::{Digest, messages::FileEntry};
use tch::{Device, Tensor};

/// Numbers hashed at a time, so that hashing needs little memory of its own.
const CHUNK: i64 = 1 << 20;

/// Adds a tensor's bytes, in element order, to a digest.
pub(crate) fn add_tensor(hasher: &mut blake3::Hasher, tensor: &Tensor) {
    let flat = tensor.detach().contiguous().view([-1]);
    let length = flat.size()[0];
    let width = flat.kind().elt_size_in_bytes();
    let mut bytes = vec![0u8; CHUNK.min(length) as usize * width];
    let mut from = 0;
    while from < length {
        let count = CHUNK.min(length - from);
        let part = flat.narrow(0, from, count).to_device(Device::Cpu);
        let filled = &mut bytes[..count as usize * width];
        part.copy_data_u8(filled, count as usize);
        hasher.update(filled);
        from += count;
    }
}

/// Digest of one tensor.
pub(crate) fn of_tensor(tensor: &Tensor) -> Digest {
    let mut hasher = blake3::Hasher::new();
    add_tensor(&mut hasher, tensor);
    finish(&hasher)
}

pub(crate) fn finish(hasher: &blake3::Hasher) -> Digest {
    Digest(hasher.finalize().to_hex().to_string())
}

/// Flushes every file of `dir`, and the directory itself, to the disk, and lists the files by name.
pub(crate) fn sync_and_list(dir: &Path) -> anyhow::Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let at = || format!("cannot flush and read back {}", path.display());
        let file = File::open(&path).with_context(at)?;
        file.sync_all().with_context(at)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).with_context(at)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        entries.push(FileEntry {
            name: name.expect("a directory entry has a name"),
            bytes: file.metadata().with_context(at)?.len(),
            digest: finish(&hasher),
        });
    }
    let folder = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    folder.sync_all().with_context(|| format!("cannot flush {}", dir.display()))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
