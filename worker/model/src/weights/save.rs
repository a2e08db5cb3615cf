//! Writing a model directory that the reference opens as it lies there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::Dtype;
use safetensors::tensor::View;
use tch::{Kind, Tensor};

use super::{Scheme, Tensors};

/// What goes with the weights: everything that describes the model, its tokenizer and its processor.
const COMPANIONS: [&str; 13] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
];

/// Writes `model.safetensors` and copies the other files of `source`; the paths written.
pub(crate) fn save(
    tensors: &Tensors,
    scheme: Scheme,
    source: &Path,
    dir: &Path,
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    // The reference, and load, would follow the index to the old weights.
    ensure!(
        !dir.join("model.safetensors.index.json").exists(),
        "{} holds a model in several files; save into another directory",
        dir.display()
    );
    ensure!(
        source.join("config.json").exists(),
        "{} holds no config.json any more, which belongs to the weights",
        source.display()
    );
    let same = std::fs::canonicalize(dir).ok() == std::fs::canonicalize(source).ok();
    let mut written = Vec::new();
    for name in COMPANIONS {
        let (from, to) = (source.join(name), dir.join(name));
        if from.exists() {
            if !same {
                std::fs::copy(&from, &to).with_context(|| {
                    format!("cannot copy {} to {}", from.display(), to.display())
                })?;
            }
            written.push(to);
        }
    }
    let path = dir.join("model.safetensors");
    let named = tensors.0.iter().map(|(name, tensor)| (scheme.name_of(name), tensor));
    write_tensors(named, &path)?;
    written.push(path);
    Ok(written)
}

/// Writes named tensors as one safetensors file.
pub(crate) fn write_tensors<'a>(
    named: impl Iterator<Item = (String, &'a Tensor)>,
    path: &Path,
) -> Result<()> {
    let mut views = Vec::new();
    for (name, tensor) in named {
        let bytes = Bytes::new(&name, tensor)?;
        views.push((name, bytes));
    }
    // transformers refuses a file that does not say which framework's layout it has.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A tensor as the safetensors writer wants to see it; its bytes are fetched when they are written.
struct Bytes {
    tensor: Tensor,
    shape: Vec<usize>,
    dtype: Dtype,
}

impl Bytes {
    fn new(name: &str, tensor: &Tensor) -> Result<Self> {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Half => Dtype::F16,
            Kind::Double => Dtype::F64,
            other => bail!("tensor {name} has elements of type {other:?}, which cannot be saved"),
        };
        let shape = tensor.size().into_iter().map(|n| n as usize).collect();
        Ok(Self { tensor: tensor.detach(), shape, dtype })
    }
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0u8; self.data_len()];
        self.tensor.contiguous().copy_data_u8(&mut bytes, self.tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}
