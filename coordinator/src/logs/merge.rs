//! All log files of a run, followed side by side.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::line::{Line, plain, stamp};

/// Longest line that is kept whole, bytes.
const LONGEST: usize = 64 * 1024;

/// The logs of a run: each file is read on from where it was left, and files that appear are taken in.
#[derive(Debug)]
pub struct Logs {
    folder: PathBuf,
    only: Option<String>,
    files: BTreeMap<PathBuf, Source>,
}

#[derive(Debug)]
struct Source {
    name: String,
    reader: BufReader<File>,
    /// What has been read of a line that is not at its end yet.
    begun: Vec<u8>,
    at: String,
    next: Option<Line>,
}

impl Logs {
    /// The logs in `folder`: all, or those of one worker ("coordinator" is the coordinator's).
    #[must_use]
    pub fn new(folder: &Path, only: Option<String>) -> Self {
        Self { folder: folder.to_owned(), only, files: BTreeMap::new() }
    }

    /// Looks for files that were not there before. Returns the names of all sources.
    ///
    /// # Errors
    /// Names the folder or file that cannot be read.
    pub fn look(&mut self) -> anyhow::Result<Vec<String>> {
        let context = || format!("reading {}", self.folder.display());
        for entry in fs::read_dir(&self.folder).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let Some(name) = source(&path) else { continue };
            let wanted = self.only.as_ref().is_none_or(|only| *only == name);
            if wanted && !self.files.contains_key(&path) {
                let file =
                    File::open(&path).with_context(|| format!("opening {}", path.display()))?;
                let reader = BufReader::new(file);
                let (begun, at) = (Vec::new(), String::new());
                self.files.insert(path, Source { name, reader, begun, at, next: None });
            }
        }
        Ok(self.files.values().map(|source| source.name.clone()).collect())
    }

    /// The next line of all files, the oldest first; none: all that is there has been read.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn next_line(&mut self) -> anyhow::Result<Option<Line>> {
        for (path, source) in &mut self.files {
            source.fill().with_context(|| format!("reading {}", path.display()))?;
        }
        let waiting = self.files.values_mut().filter(|source| source.next.is_some());
        let oldest = waiting.min_by(|a, b| {
            let at = |source: &Source| source.next.as_ref().map(|line| line.at.clone());
            at(a).cmp(&at(b))
        });
        Ok(oldest.and_then(|source| source.next.take()))
    }
}

impl Source {
    fn fill(&mut self) -> std::io::Result<()> {
        if self.next.is_some() || self.reader.read_until(b'\n', &mut self.begun)? == 0 {
            return Ok(());
        }
        if !self.begun.ends_with(b"\n") && self.begun.len() < LONGEST {
            return Ok(());
        }
        let text = plain(&std::mem::take(&mut self.begun));
        if let Some(stamp) = stamp(&text) {
            stamp.clone_into(&mut self.at);
        }
        self.next = Some(Line { at: self.at.clone(), source: self.name.clone(), text });
        Ok(())
    }
}

/// Whose log a file is; none: it is no log.
fn source(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    Some(name.strip_prefix("worker-").unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn at(second: u32) -> String {
        format!("2026-03-01T12:00:{second:02}.000000Z")
    }

    fn texts(logs: &mut Logs) -> Vec<String> {
        logs.look().expect("a folder");
        let mut found = Vec::new();
        while let Some(line) = logs.next_line().expect("readable") {
            found.push(format!("{}: {}", line.source, line.text.rsplit("Z ").next().unwrap_or("")));
        }
        found
    }

    /// Fails when lines come out of order, a line without a stamp is torn from the one before, or half a line is
    /// printed.
    #[test]
    fn files_are_read_as_one_in_the_order_of_time_and_read_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            let mut file = File::options().create(true).append(true).open(file).expect("a file");
            file.write_all(text.as_bytes()).expect("written");
        };
        write("coordinator.log", &format!("{} begun\n{} lost w1\n", at(1), at(4)));
        write("worker-w1.log", &format!("{} joined\nno stamp\n{} bye\n{} ha", at(2), at(3), at(5)));
        write("notes.txt", "no log\n");
        let mut logs = Logs::new(folder.path(), None);
        let first = texts(&mut logs);
        assert_eq!(
            first,
            ["coordinator: begun", "w1: joined", "w1: no stamp", "w1: bye", "coordinator: lost w1"]
        );
        write("worker-w1.log", "lf\n");
        write("worker-w2.log", &format!("{} late\n", at(6)));
        assert_eq!(texts(&mut logs), ["w1: half", "w2: late"]);
        let mut one = Logs::new(folder.path(), Some("w2".into()));
        assert_eq!(texts(&mut one), ["w2: late"]);
    }
}
