//! A checkpoint's optimizer state: moments (and f32 masters) by parameter name, the step count as metadata.
//!
//! One file, `optimizer.safetensors`, or one for each part, `optimizer-00001-of-0000N.safetensors`, when N ranks
//! hold it. A part's file says where it lies in the vector of all trained numbers; a parameter that is cut
//! stands in two files, as a flat piece in each. Whatever was written can be read back in other parts.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use safetensors::{Dtype, View, tensor::Metadata};
use tch::{Device, Kind, Tensor};

use crate::{
    adamw::Moments,
    shard::{Shard, overlap},
    state::State,
};

/// Name of the file in a checkpoint that one rank has written.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";

const FIRST: &str = "exp_avg";
const SECOND: &str = "exp_avg_sq";
const MASTER: &str = "master";
const STEPS: &str = "steps";
/// Metadata of a part: its first number, and the numbers of all parts.
const FROM: &str = "from";
const TOTAL: &str = "total";
/// Longest header that is believed, bytes.
const MAX_HEADER: u64 = 100 << 20;
/// Numbers read at a time.
const CHUNK: i64 = 1 << 22;

/// Name of a part's file.
pub(crate) fn file_name(shard: Shard) -> String {
    if shard.is_whole() {
        return OPTIMIZER_FILE.to_owned();
    }
    format!("optimizer-{:05}-of-{:05}.safetensors", shard.index + 1, shard.count)
}

/// Whether a file of a checkpoint holds optimizer state.
pub(crate) fn is_optimizer_file(name: &str) -> bool {
    name == OPTIMIZER_FILE || (name.starts_with("optimizer-") && name.ends_with(".safetensors"))
}

/// A piece of a flat f32 tensor, made bytes when its turn to be written comes.
struct Piece {
    shape: Vec<usize>,
    numbers: Tensor,
}

impl View for Piece {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0u8; self.data_len()];
        let numbers = self.numbers.to_device(Device::Cpu).contiguous();
        numbers.copy_data_u8(&mut bytes, self.numbers.numel());
        Cow::Owned(bytes)
    }
    fn data_len(&self) -> usize {
        self.numbers.numel() * 4
    }
}

/// Writes the state's moments, and masters where it has them, into `dir`.
pub(crate) fn write(state: &State, dir: &Path) -> anyhow::Result<()> {
    let mut pieces = Vec::new();
    let range = state.shard.range();
    let mut add = |prefix: &str, whole: &Tensor| {
        for slot in &state.slots {
            let Some(common) = overlap(&range, slot) else { continue };
            let (name, weight) = state.parameter(slot);
            let uncut = common.length == slot.length;
            let shape = if uncut { weight.size() } else { vec![common.length] };
            let shape = shape.iter().map(|n| *n as usize).collect();
            let numbers = whole.narrow(0, common.in_range, common.length);
            pieces.push((format!("{prefix}.{name}"), Piece { shape, numbers }));
        }
    };
    if let Some(moments) = &state.moments {
        add(FIRST, &moments.first);
        add(SECOND, &moments.second);
    }
    if let Some(master) = &state.master {
        add(MASTER, master);
    }
    let steps = state.moments.as_ref().map_or(0, |moments| moments.steps);
    let metadata = HashMap::from([
        ("format".to_owned(), "pt".to_owned()),
        (STEPS.to_owned(), steps.to_string()),
        (FROM.to_owned(), range.start.to_string()),
        (TOTAL.to_owned(), state.length.to_string()),
    ]);
    let path = dir.join(file_name(state.shard));
    safetensors::serialize_to_file(pieces, Some(metadata), &path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Moments and masters as read from a checkpoint.
pub(crate) struct Restored {
    pub moments: Option<Moments>,
    pub master: Option<Tensor>,
}

/// Reads the part of what [`write`] wrote that is the state's own, for a state with the same trained parameters.
/// Changes nothing.
pub(crate) fn read(state: &State, dir: &Path) -> anyhow::Result<Restored> {
    let at = || format!("cannot restore the optimizer from {}", dir.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(at)? {
        let path = entry.with_context(at)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| is_optimizer_file(&name)) {
            let within = || format!("{} cannot be used", path.display());
            files.push(Written::open(&path).with_context(within).with_context(at)?);
        }
    }
    files.sort_by_key(|file| file.from);
    let Some(first) = files.first() else {
        bail!("{}: it holds no {OPTIMIZER_FILE} and no part of one", at());
    };
    let steps = first.steps;
    ensure!(
        files.iter().all(|file| file.steps == steps),
        "{}: its files count different numbers of steps",
        at()
    );
    if let Some(total) = files.iter().find_map(|file| file.total)
        && total != state.length
    {
        bail!(
            "{}: it is for {total} trained numbers and the model has {}: was model.freeze_vision changed \
             since it was written?",
            at(),
            state.length
        );
    }
    let has = |prefix: &str| files.iter().any(|file| file.has(prefix));
    let (moments, master) = (has(FIRST), has(MASTER));
    ensure!(moments || steps == 0, "{}: it counts {steps} steps but holds no moments", at());
    let mut collect = |prefix: &str| collect(state, prefix, &mut files).with_context(at);
    let moments = match moments {
        true => Some(Moments { first: collect(FIRST)?, second: collect(SECOND)?, steps }),
        false => None,
    };
    let master = if master { Some(collect(MASTER)?) } else { None };
    Ok(Restored { moments, master })
}

/// The state's part of one kind of numbers, from the files that hold it.
fn collect(state: &State, prefix: &str, files: &mut [Written]) -> anyhow::Result<Tensor> {
    let own = state.shard.range();
    let whole = Tensor::zeros([own.end - own.start], (Kind::Float, state.device()));
    for slot in &state.slots {
        let Some(wanted) = overlap(&own, slot) else { continue };
        let (name, weight) = state.parameter(slot);
        let name = format!("{prefix}.{name}");
        let wanted = slot.offset + wanted.in_slot..slot.offset + wanted.in_slot + wanted.length;
        let mut at = wanted.start;
        for file in files.iter_mut().filter(|file| file.tensors.contains_key(&name)) {
            let piece = file.piece(&name, slot.offset, slot.length, &weight.size())?;
            while piece.contains(&at) && at < wanted.end {
                let count = CHUNK.min(piece.end.min(wanted.end) - at);
                let numbers = file.read(&name, at - piece.start, count)?;
                whole.narrow(0, at - own.start, count).copy_(&numbers);
                at += count;
            }
        }
        ensure!(
            at == wanted.end,
            "tensor {name} is not there, or not whole: was model.freeze_vision changed, or a file lost, since it \
             was written?"
        );
    }
    Ok(whole)
}

/// A file whose header has been read.
struct Written {
    file: File,
    /// Where its first tensor begins, bytes.
    start: u64,
    /// Its first number's place in the vector of all trained numbers.
    from: i64,
    /// Trained numbers of all files; files of earlier versions do not say.
    total: Option<i64>,
    steps: u64,
    /// Shape and place, bytes from `start`.
    tensors: HashMap<String, (Vec<i64>, usize)>,
}

impl Written {
    fn open(path: &PathBuf) -> anyhow::Result<Self> {
        let mut file = File::open(path)?;
        let mut size = [0u8; 8];
        file.read_exact(&mut size).context("it is shorter than its header")?;
        let size = u64::from_le_bytes(size);
        ensure!(size <= MAX_HEADER, "its header claims {size} bytes");
        let mut header = vec![0u8; size as usize];
        file.read_exact(&mut header).context("it is shorter than its header")?;
        let header: Metadata =
            serde_json::from_slice(&header).context("its header is unreadable")?;
        let says = |key: &str| header.metadata().as_ref().and_then(|all| all.get(key));
        let steps = says(STEPS).and_then(|steps| steps.parse().ok());
        let mut tensors = HashMap::new();
        for (name, info) in header.tensors() {
            ensure!(info.dtype == Dtype::F32, "tensor {name} is not f32");
            let shape = info.shape.iter().map(|n| *n as i64).collect();
            tensors.insert(name, (shape, info.data_offsets.0));
        }
        Ok(Self {
            file,
            start: 8 + size,
            from: says(FROM).map_or(Ok(0), |from| from.parse()).context("`from` is no number")?,
            total: says(TOTAL).and_then(|total| total.parse().ok()),
            steps: steps.context("its metadata has no step count")?,
            tensors,
        })
    }

    fn has(&self, prefix: &str) -> bool {
        self.tensors
            .keys()
            .any(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Which of all trained numbers this file's piece of a parameter holds.
    fn piece(
        &self,
        name: &str,
        offset: i64,
        length: i64,
        shape: &[i64],
    ) -> anyhow::Result<Range<i64>> {
        let (here, _) = &self.tensors[name];
        if here == shape && self.from <= offset {
            return Ok(offset..offset + length);
        }
        // A cut parameter: the file begins within it, or ends within it.
        let from = offset.max(self.from);
        let count: i64 = here.iter().product();
        ensure!(
            here.len() == 1 && from + count <= offset + length && self.total.is_some(),
            "tensor {name} has shape {here:?}, the weight {shape:?}"
        );
        Ok(from..from + count)
    }

    /// Numbers of a tensor, from the `skip`th.
    fn read(&mut self, name: &str, skip: i64, count: i64) -> anyhow::Result<Tensor> {
        let (_, begin) = self.tensors[name];
        let mut bytes = vec![0u8; count as usize * 4];
        self.file.seek(SeekFrom::Start(self.start + begin as u64 + skip as u64 * 4))?;
        self.file
            .read_exact(&mut bytes)
            .with_context(|| format!("it ends before tensor {name}"))?;
        Ok(Tensor::f_from_data_size(&bytes, &[count], Kind::Float)?)
    }
}
