//! Whether a model directory is complete, as far as that can be seen without a tensor library.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Refused, adapter};

/// Longest header of a safetensors file that is read, bytes (the format's own limit).
const MAX_HEADER: u64 = 100 << 20;
const INDEX: &str = "model.safetensors.index.json";

/// Checks a Hugging Face directory: config, tokenizer, image processor settings, and weights whose headers
/// can be read, whose files are as long as the headers say, and whose index names no absent tensor. Of an
/// adapter in PEFT's layout its own files are checked, and the model directory that it names.
///
/// # Errors
/// [`Refused`], naming every problem of the directory.
pub fn check_model(dir: &Path) -> Result<(), Refused> {
    if !dir.is_dir() {
        return Err(Refused::new(format!(
            "the model directory {} does not exist; set model.path to a Hugging Face directory",
            dir.display()
        )));
    }
    if let Some(base) = adapter::base_of(dir)? {
        return check_model(&base);
    }
    let mut problems = Vec::new();
    for name in ["config.json", "tokenizer.json"] {
        if let Err(problem) = json(&dir.join(name)) {
            problems.push(problem);
        }
    }
    let processors =
        ["preprocessor_config.json", "processor_config.json"].map(|name| dir.join(name));
    match processors.iter().find(|file| file.exists()) {
        Some(file) => problems.extend(json(file).err()),
        None => problems.push(
            "neither preprocessor_config.json nor processor_config.json is there (image settings)"
                .into(),
        ),
    }
    if let Err(found) = weights(dir) {
        problems.extend(found);
    }
    if problems.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
    Err(Refused::new(format!(
        "the model directory {} is not complete:\n{}",
        dir.display(),
        list.join("\n")
    )))
}

pub(super) fn json(file: &Path) -> Result<serde_json::Value, String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let text = fs::read(file).map_err(|error| format!("{name} cannot be read: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("{name} is not JSON: {error}"))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn weights(dir: &Path) -> Result<(), Vec<String>> {
    let index = dir.join(INDEX);
    if !index.exists() {
        let single = dir.join("model.safetensors");
        if !single.exists() {
            return Err(vec![format!(
                "no weights: neither model.safetensors nor {INDEX} is there"
            )]);
        }
        return tensors(&single).map(drop).map_err(|problem| vec![problem]);
    }
    let value = json(&index).map_err(|problem| vec![problem])?;
    let index: Index = serde_json::from_value(value)
        .map_err(|error| vec![format!("{INDEX} is no index of weights: {error}")])?;
    let mut problems = Vec::new();
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    for shard in shards {
        match tensors(&shard_path(dir, shard)) {
            Err(problem) => problems.push(problem),
            Ok(there) => {
                let named = index.weight_map.iter().filter(|(_, in_shard)| *in_shard == shard);
                let absent = named.filter(|(tensor, _)| !there.contains(*tensor));
                problems.extend(absent.map(|(tensor, _)| {
                    format!("{shard} lacks the tensor {tensor}, which {INDEX} names")
                }));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A shard lies in the directory itself, whatever the index says.
fn shard_path(dir: &Path, shard: &str) -> PathBuf {
    dir.join(Path::new(shard).file_name().unwrap_or_default())
}

/// Names of the tensors in a safetensors file: 8 bytes of header length (little endian), a JSON header,
/// then the data.
pub(super) fn tensors(file: &Path) -> Result<BTreeSet<String>, String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let broken = |what: String| format!("{name} cannot be read as safetensors: {what}");
    let mut open = File::open(file).map_err(|error| broken(error.to_string()))?;
    let length = open.metadata().map_err(|error| broken(error.to_string()))?.len();
    let mut prefix = [0; 8];
    open.read_exact(&mut prefix).map_err(|_| broken("it ends within its first 8 bytes".into()))?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER || header + 8 > length {
        return Err(broken("its header is longer than the file; it may be truncated".into()));
    }
    let mut text = Vec::new();
    open.take(header).read_to_end(&mut text).map_err(|error| broken(error.to_string()))?;
    let entries: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)
        .map_err(|error| broken(format!("its header is not JSON: {error}")))?;
    let mut names = BTreeSet::new();
    for (tensor, entry) in entries.into_iter().filter(|(tensor, _)| tensor != "__metadata__") {
        let end = entry.pointer("/data_offsets/1").and_then(serde_json::Value::as_u64);
        let end = end.ok_or_else(|| broken(format!("its tensor {tensor} has no data_offsets")))?;
        if end.saturating_add(8 + header) > length {
            return Err(broken(format!(
                "it ends before the tensor {tensor} does; it is truncated"
            )));
        }
        names.insert(tensor);
    }
    if names.is_empty() { Err(broken("it holds no tensors".into())) } else { Ok(names) }
}
