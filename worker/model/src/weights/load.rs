//! Reading the weights of a model directory, one safetensors file or several with an index.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind};

use super::index::Index;
use super::shard::{Shard, kind_of};
use super::{Scheme, TIED_HEAD, Tensors, expected};
use crate::config::ModelConfig;
use crate::error::LoadError;

/// Where a tensor lies: which shard, and its name there.
type Place = (usize, String);

/// Reads every tensor of the model and says which naming scheme the files follow.
pub(crate) fn load(
    dir: &Path,
    config: &ModelConfig,
    kind: Kind,
    device: Device,
) -> Result<(Tensors, Scheme), LoadError> {
    let index = Index::read(dir)?;
    let mut shards = open(dir, index.as_ref())?;
    let scheme = Scheme::of(shards.iter().flat_map(|s| s.tensors.keys().map(String::as_str)));

    let mut misplaced = index.as_ref().map_or(Vec::new(), |index| absent(index, &shards));
    let found = find(&shards, &mut misplaced);
    let expected = expected(config);
    check(dir, config, &expected, &found, &shards, misplaced)?;
    let mut tensors = Vec::with_capacity(expected.len());
    for (name, shape) in expected {
        let (shard, raw_name) = &found[&name];
        tensors.push((name, shards[*shard].read(raw_name, &shape, kind, device)?));
    }
    Ok((Tensors(tensors), scheme))
}

fn open(dir: &Path, index: Option<&Index>) -> Result<Vec<Shard>, LoadError> {
    let files = index.map_or(vec!["model.safetensors"], Index::files);
    files.into_iter().map(|file| Shard::open(dir.join(file))).collect()
}

/// The tensors that the index promises and the named file does not hold.
fn absent(index: &Index, shards: &[Shard]) -> Vec<String> {
    let by_file: BTreeMap<&str, &Shard> = shards.iter().map(|s| (file_name(s), s)).collect();
    let lacks = |name: &str, file: &str| !by_file[file].tensors.contains_key(name);
    index
        .file_of
        .iter()
        .filter(|(name, file)| lacks(name, file))
        .map(|(name, file)| format!("{name} is not in {file}, where the index looks for it"))
        .collect()
}

/// The place of each tensor by its canonical name. A second place is reported: one of the two would be
/// left out without a word.
fn find(shards: &[Shard], misplaced: &mut Vec<String>) -> BTreeMap<String, Place> {
    let mut found: BTreeMap<String, Place> = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        for name in shard.tensors.keys() {
            let before = found.insert(Scheme::canonical(name), (index, name.clone()));
            if let Some((first, first_name)) = before {
                let (one, other) = (file_name(&shards[first]), file_name(shard));
                misplaced.push(format!("{first_name} in {one} is also {name} in {other}"));
            }
        }
    }
    found
}

fn file_name(shard: &Shard) -> &str {
    shard.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The element type that all weights of `dir` have; f32, which holds any of them, where they differ.
pub(crate) fn stored_kind(dir: &Path) -> Result<Kind, LoadError> {
    let mut kinds = Vec::new();
    for shard in open(dir, Index::read(dir)?.as_ref())? {
        kinds.extend(shard.tensors.values().filter_map(|info| kind_of(info.dtype)));
    }
    kinds.dedup();
    Ok(if let [one] = kinds[..] { one } else { Kind::Float })
}

/// Compares what there is with what there should be, and names every difference.
fn check(
    dir: &Path,
    config: &ModelConfig,
    expected: &[(String, Vec<i64>)],
    found: &BTreeMap<String, Place>,
    shards: &[Shard],
    misplaced: Vec<String>,
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
    if [&missing, &extra, &misshapen, &misplaced].iter().all(|names| names.is_empty()) {
        return Ok(());
    }
    Err(LoadError::Tensors { dir: dir.to_path_buf(), missing, extra, misshapen, misplaced })
}
