//! The programs that are measured, each behind the same four calls.

use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};

use crate::command::Task;

const PASSPHRASE: &[u8] = b"not a secret: the bench makes and removes its own data\n";

/// A backup program under measurement; `dir` is its own folder for one lap.
pub(super) trait Rival {
    /// Writes configuration and makes the repository; not timed.
    fn prepare(&self, data: &Path, dir: &Path) -> Result<(), Failure>;
    /// Backs up the folder `data`.
    fn back_up(&self, data: &Path, dir: &Path) -> Result<(), Failure>;
    /// Restores the newest backup so that `into` looks like `data`.
    fn restore(&self, dir: &Path, into: &Path) -> Result<(), Failure>;
    /// Where the repository is.
    fn repository(&self, dir: &Path) -> PathBuf;
}

fn passphrase_file(dir: &Path) -> PathBuf {
    dir.join("passphrase")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    crashsafe::write_new(path, bytes)
        .map_err(|error| Failure::io(format!("failed to write {}", path.display()), error))
}

/// This repository's release build.
pub(super) struct Lifeboat {
    binary: PathBuf,
}

impl Lifeboat {
    /// Builds it; the path comes from cargo, which knows where its target folder is.
    pub(super) fn build(root: &Path) -> Result<Self, Failure> {
        let build =
            "cargo build --release --locked --package lifeboat-cli --message-format json-render-diagnostics";
        let messages = Task::new(build).output(root)?;
        let binary = messages.split(|byte| *byte == b'\n').find_map(|line| {
            let message: serde_json::Value = serde_json::from_slice(line).ok()?;
            let is_ours = message.get("target")?.get("name")? == "lifeboat";
            message.get("executable")?.as_str().filter(|_| is_ours).map(PathBuf::from)
        });
        binary
            .map(|binary| Self { binary })
            .ok_or_else(|| Failure::new(FailureKind::Internal, "cargo did not say where the binary is"))
    }

    fn task(&self, dir: &Path, words: &str) -> Task {
        let task = Task::new("").word(&self.binary).word("--policy").word(dir.join("lifeboat.toml"));
        words.split_whitespace().fold(task, Task::word)
    }
}

impl Rival for Lifeboat {
    fn prepare(&self, data: &Path, dir: &Path) -> Result<(), Failure> {
        write(&passphrase_file(dir), PASSPHRASE)?;
        let policy = format!(
            "version = 1\ntimezone = \"UTC\"\nstate = \"./state\"\n\n\
             [keys]\nrecipients = [\"passphrase:file:{}\"]\n\n\
             [copy.local]\nurl = \"file:./vaults\"\n\n\
             [store.data]\nkind = \"files\"\npath = \"{}\"\nrpo = \"24h\"\nrto = \"60m\"\n\
             retention = \"7d\"\ncopies = [\"local\"]\n",
            passphrase_file(dir).display(),
            data.display()
        );
        write(&dir.join("lifeboat.toml"), policy.as_bytes())
    }

    fn back_up(&self, _data: &Path, dir: &Path) -> Result<(), Failure> {
        self.task(dir, "--no-progress backup data").output(dir).map(drop)
    }

    fn restore(&self, dir: &Path, into: &Path) -> Result<(), Failure> {
        self.task(dir, "--no-progress restore data --to").word(into).output(dir).map(drop)
    }

    fn repository(&self, dir: &Path) -> PathBuf {
        dir.join("vaults")
    }
}

/// The restic on the path.
pub(super) struct Restic {
    version: String,
}

impl Restic {
    /// Asks it for its version, which also shows that it is there.
    pub(super) fn find(root: &Path) -> Result<Self, Failure> {
        let version = Task::new("restic version").output(root)?;
        Ok(Self { version: String::from_utf8_lossy(&version).trim().to_owned() })
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    fn task(&self, dir: &Path, words: &str) -> Task {
        let task = Task::new("restic --quiet --repo")
            .word(self.repository(dir))
            .word("--password-file")
            .word(passphrase_file(dir))
            .word("--cache-dir")
            .word(dir.join("cache"));
        words.split_whitespace().fold(task, Task::word)
    }
}

impl Rival for Restic {
    fn prepare(&self, _data: &Path, dir: &Path) -> Result<(), Failure> {
        write(&passphrase_file(dir), PASSPHRASE)?;
        self.task(dir, "init --repository-version 2").output(dir).map(drop)
    }

    fn back_up(&self, data: &Path, dir: &Path) -> Result<(), Failure> {
        // From inside, so that the restored tree starts at the target itself.
        self.task(dir, "backup .").output(data).map(drop)
    }

    fn restore(&self, dir: &Path, into: &Path) -> Result<(), Failure> {
        self.task(dir, "restore latest --target").word(into).output(dir).map(drop)
    }

    fn repository(&self, dir: &Path) -> PathBuf {
        dir.join("repository")
    }
}
