//! Places that fail: file systems of a few MiB, file systems that cannot be written, processes that stand still.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use super::world::finished;

/// A tmpfs of its own; unmounted when dropped.
pub(crate) struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `kib` KiB at `dir`, which is made.
    pub(crate) fn mount(dir: &Path, kib: u32) -> Self {
        fs::create_dir_all(dir).unwrap();
        let size = format!("size={kib}k,mode=0700");
        finished(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir)).expect(0);
        Self { dir: dir.to_owned() }
    }

    /// Makes it writable or not, or gives it another size.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        finished(Command::new("mount").args(["-o", &options]).arg(&self.dir)).expect(0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a failing test leaves no mount behind either.
        finished(Command::new("umount").arg("--lazy").arg(&self.dir));
    }
}

/// A process that stands still until dropped, and is killed then.
pub(crate) struct Paused(Child);

impl Paused {
    /// Stops `child` as soon as `ready` holds; gives nothing if it ended before.
    pub(crate) fn when(mut child: Child, ready: impl Fn() -> bool) -> Option<Self> {
        while !ready() {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
        let paused = Self(child);
        // It may have let go between the look and the signal.
        if ready() { Some(paused) } else { None }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
