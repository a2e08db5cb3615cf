//! A disk that is too small.

use std::{path::Path, process::Command};

use crate::process::must;

/// A file system in memory, gone with this value.
pub struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// None, with the reason printed, where this process may not mount.
    ///
    /// # Panics
    /// When the folder to mount at cannot be made.
    #[must_use]
    pub fn mount(at: &'a Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(at);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(at)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                println!("skipped: a full disk needs root, to mount a small one: {}", why.trim());
                None
            }
            Err(error) => {
                println!("skipped: a full disk needs the command mount: {error}");
                None
            }
        }
    }

    /// Changes its size.
    pub fn resize(&self, megabytes: u32) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={megabytes}m")]).arg(self.0);
        let _ = must(mount);
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // What stays mounted makes the temporary folder's own removal fail.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
