//! Append-only files of one JSON object a line. A crash can tear the last line only, and opening for
//! append cuts the torn part off, so that the file is whole again.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

/// A file that is open for appending.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    cut: u64,
}

impl JsonLines {
    /// Opens or creates the file. A last line without its end is cut off: see [`JsonLines::cut`].
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("{} cannot be opened for appending", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(context)?;
        let length = file.metadata().with_context(context)?.len();
        let whole = whole_length(&mut file, length).with_context(context)?;
        if whole < length {
            file.set_len(whole).and_then(|()| file.sync_all()).with_context(context)?;
        }
        Ok(Self { path: path.to_owned(), file, cut: length - whole })
    }

    /// Bytes of a torn last line that opening cut off; worth a warning when it is not 0.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Appends one line in one write; with `sync` it is on disk when this returns.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn append(&mut self, value: &impl Serialize, sync: bool) -> anyhow::Result<()> {
        let context = || format!("{} cannot be appended to", self.path.display());
        let mut line = serde_json::to_vec(value).with_context(context)?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(context)?;
        if sync {
            self.file.sync_data().with_context(context)?;
        }
        Ok(())
    }
}

/// Length of the file up to its last line end; reads backwards, so a long file costs nothing.
fn whole_length(file: &mut File, length: u64) -> std::io::Result<u64> {
    let mut end = length;
    let mut piece = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        let bytes = &mut piece[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(bytes)?;
        if let Some(at) = bytes.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The lines of a file, oldest first, also while another process appends. A torn last line is left out;
/// a file that is not there has no lines.
///
/// # Errors
/// The file cannot be read; then, for each line, that it is not JSON, with its number.
pub fn read_lines(path: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Value>>> {
    let reader: Box<dyn BufRead> = match File::open(path) {
        Ok(file) => Box::new(BufReader::new(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Box::new(std::io::empty()),
        Err(e) => {
            return Err(e).with_context(|| format!("{} cannot be read", path.display()));
        }
    };
    Ok(Lines { path: path.to_owned(), reader, number: 0 })
}

struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    number: usize,
}

impl Iterator for Lines {
    type Item = anyhow::Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        self.number += 1;
        match self.reader.read_until(b'\n', &mut line) {
            Err(e) => Some(Err(e).with_context(|| {
                format!("{}:{} cannot be read", self.path.display(), self.number)
            })),
            Ok(0) => None,
            Ok(_) if !line.ends_with(b"\n") => None,
            Ok(_) => {
                Some(serde_json::from_slice(&line).with_context(|| {
                    format!("{}:{} is not JSON", self.path.display(), self.number)
                }))
            }
        }
    }
}
