//! One safetensors file, read by position.
//!
//! A tensor comes in pieces that go straight to its final place, type and device. So loading needs the
//! model and one piece in memory, however large the largest tensor is, and no memory of the host for a
//! model on another device. (A memory map would need `unsafe`, and would save the piece.)

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Device, Kind, Tensor};

use crate::error::LoadError;

/// Longest header that is believed, bytes.
const MAX_HEADER: u64 = 100 << 20;
/// Longest piece of a tensor that is read at once, bytes. A multiple of every element's size. Larger ones
/// are hardly faster, and leave holes in the heap between the tensors.
const PIECE: usize = 256 << 10;

/// One open weight file.
pub(super) struct Shard {
    /// Where it is.
    pub(super) path: PathBuf,
    file: File,
    /// Where the first tensor begins, bytes.
    start: u64,
    /// Shape, type and place of each tensor, by the file's own names.
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

impl Shard {
    /// Reads the header and checks that the file is as long as it says.
    pub(super) fn open(path: PathBuf) -> Result<Self, LoadError> {
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

    /// The tensor `name` as a leaf of `kind` on `device`.
    pub(super) fn read(
        &mut self,
        name: &str,
        shape: &[i64],
        kind: Kind,
        device: Device,
    ) -> Result<Tensor, LoadError> {
        let info = &self.tensors[name];
        let from = kind_of(info.dtype).expect("check refuses other element types");
        let (begin, end) = info.data_offsets;
        let io = |source| LoadError::Io { path: self.path.clone(), source };
        let torch = |e: tch::TchError| LoadError::Weights {
            path: self.path.clone(),
            reason: format!("tensor {name} cannot be made: {e}"),
        };
        self.file.seek(SeekFrom::Start(self.start + begin as u64)).map_err(io)?;
        let tensor = Tensor::f_empty(shape, (kind, device)).map_err(torch)?;
        let flat = tensor.view([-1]);
        let mut piece = vec![0u8; PIECE.min(end - begin)];
        let mut at = 0;
        while at < end - begin {
            let bytes = &mut piece[..PIECE.min(end - begin - at)];
            self.file.read_exact(bytes).map_err(io)?;
            let size = from.elt_size_in_bytes();
            let (first, count) = ((at / size) as i64, (bytes.len() / size) as i64);
            let read = Tensor::f_from_data_size(bytes, &[count], from).map_err(torch)?;
            flat.narrow(0, first, count).f_copy_(&read).map_err(torch)?;
            at += bytes.len();
        }
        Ok(tensor)
    }
}

/// The element types that weights may have.
pub(super) fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F64 => Some(Kind::Double),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}
