//! Reading safetensors, one file or several with an index.
//!
//! Each tensor is read from its place in the file straight into one buffer, so loading needs the model
//! and its largest tensor in memory, not the model twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::{Scheme, TIED_HEAD, Tensors, expected};
use crate::config::ModelConfig;
use crate::error::LoadError;

/// Longest header that is believed, bytes.
const MAX_HEADER: u64 = 100 << 20;

/// Reads every tensor of the model and says which naming scheme the files follow.
pub(crate) fn load(
    dir: &Path,
    config: &ModelConfig,
    kind: Kind,
    device: Device,
) -> Result<(Tensors, Scheme), LoadError> {
    let mut shards =
        shard_paths(dir)?.into_iter().map(Shard::open).collect::<Result<Vec<_>, _>>()?;
    let mut found: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        for name in shard.tensors.keys() {
            found.insert(Scheme::canonical(name), (index, name.clone()));
        }
    }
    let scheme = Scheme::of(shards.iter().flat_map(|s| s.tensors.keys().map(String::as_str)));

    let expected = expected(config);
    check(dir, config, &expected, &found, &shards)?;
    let mut tensors = Vec::with_capacity(expected.len());
    for (name, shape) in expected {
        let (shard, raw_name) = &found[&name];
        tensors.push((name, shards[*shard].read(raw_name, &shape, kind, device)?));
    }
    Ok((Tensors(tensors), scheme))
}

/// The element type that all weights of `dir` have; f32, which holds any of them, where they differ.
pub(crate) fn stored_kind(dir: &Path) -> Result<Kind, LoadError> {
    let mut kinds = Vec::new();
    for path in shard_paths(dir)? {
        kinds.extend(Shard::open(path)?.tensors.values().filter_map(|info| kind_of(info.dtype)));
    }
    kinds.dedup();
    Ok(if let [one] = kinds[..] { one } else { Kind::Float })
}

/// Compares what there is with what there should be, and names every difference.
fn check(
    dir: &Path,
    config: &ModelConfig,
    expected: &[(String, Vec<i64>)],
    found: &BTreeMap<String, (usize, String)>,
    shards: &[Shard],
) -> Result<(), LoadError> {
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    for (name, shape) in expected {
        let Some((shard, raw_name)) = found.get(name) else {
            missing.push(name.clone());
            continue;
        };
        let info = &shards[*shard].tensors[raw_name];
        if info.shape.iter().map(|n| *n as i64).ne(shape.iter().copied()) {
            misshapen.push(format!("{raw_name} is {:?}, should be {shape:?}", info.shape));
        } else if kind_of(info.dtype).is_none() {
            misshapen.push(format!("{raw_name} has elements of type {:?}", info.dtype));
        }
    }
    let extra = found
        .iter()
        .filter(|(name, _)| expected.binary_search_by(|(n, _)| n.cmp(name)).is_err())
        // A tied head is often written all the same, and old files keep the rotary frequencies.
        .filter(|(name, _)| !(config.tie_word_embeddings && *name == TIED_HEAD))
        .filter(|(name, _)| {
            !name.ends_with("rotary_emb.inv_freq") && !name.ends_with("rotary_pos_emb.inv_freq")
        })
        .map(|(_, (_, raw_name))| raw_name.clone())
        .collect::<Vec<_>>();
    if missing.is_empty() && extra.is_empty() && misshapen.is_empty() {
        return Ok(());
    }
    Err(LoadError::Tensors { dir: dir.to_path_buf(), missing, extra, misshapen })
}

/// The weight files of a model directory.
fn shard_paths(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let index = dir.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![dir.join("model.safetensors")]);
    }
    let text = std::fs::read_to_string(&index)
        .map_err(|source| LoadError::Io { path: index.clone(), source })?;
    let bad = |reason: String| LoadError::Weights { path: index.clone(), reason };
    let value: Value = serde_json::from_str(&text).map_err(|e| bad(format!("not JSON: {e}")))?;
    let map = value
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| bad("it has no weight_map".to_owned()))?;
    let mut files: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    files.sort_unstable();
    files.dedup();
    if let Some(outside) = files.iter().find(|f| f.contains('/') || f.contains('\\')) {
        return Err(bad(format!("its weight_map leads out of the directory, to {outside:?}")));
    }
    Ok(files.into_iter().map(|f| dir.join(f)).collect())
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F64 => Some(Kind::Double),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}

/// One open weight file.
struct Shard {
    path: PathBuf,
    file: File,
    /// Where the first tensor begins, bytes.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Shard {
    /// Reads the header and checks that the file is as long as it says.
    fn open(path: PathBuf) -> Result<Self, LoadError> {
        let io = |source| LoadError::Io { path: path.clone(), source };
        let bad = |reason: String| LoadError::Weights { path: path.clone(), reason };
        let mut file = File::open(&path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0u8; 8];
        file.read_exact(&mut size).map_err(|_| bad("it is shorter than its header".to_owned()))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || 8 + size > length {
            return Err(bad(format!("its header claims {size} bytes, the file has {length}")));
        }
        let mut header = vec![0u8; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|e| bad(format!("its header is unreadable: {e}")))?;
        let tensors: BTreeMap<String, TensorInfo> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let start = 8 + size;
        for (name, info) in &tensors {
            let (begin, end) = info.data_offsets;
            let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |n, d| n.checked_mul(*d));
            if end < begin || bits != (end - begin).checked_mul(8) {
                return Err(bad(format!("the place of tensor {name} does not fit its shape")));
            }
            if (end as u64).checked_add(start).is_none_or(|end| end > length) {
                return Err(bad(format!("it ends before tensor {name} does")));
            }
        }
        Ok(Self { path, file, start, tensors })
    }

    /// The tensor as a leaf of `kind` on `device`.
    fn read(
        &mut self,
        name: &str,
        shape: &[i64],
        kind: Kind,
        device: Device,
    ) -> Result<Tensor, LoadError> {
        let info = &self.tensors[name];
        let from = kind_of(info.dtype).expect("check refuses other element types");
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0u8; end - begin];
        let io = |source| LoadError::Io { path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(self.start + begin as u64)).map_err(io)?;
        self.file.read_exact(&mut bytes).map_err(io)?;
        let tensor =
            Tensor::f_from_data_size(&bytes, shape, from).map_err(|e| LoadError::Weights {
                path: self.path.clone(),
                reason: format!("tensor {name} cannot be made: {e}"),
            })?;
        Ok(tensor.to_kind(kind).to_device(device))
    }
}
