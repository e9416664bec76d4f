//! Whether a file is being written: the one thing that tells a log that is at work from one that was left behind.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Processes that are looked at, at most.
const MAX_PROCESSES: usize = 100_000;
/// Open files of a process that are looked at, at most.
const MAX_FILES: usize = 100_000;

/// Whether a process that we may look into has `file` open for writing. False means that nobody was seen: a process of
/// another account, machine or container is not.
pub(super) fn is_written(file: &File, name: &str) -> bool {
    let Ok(wanted) = file.metadata() else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.filter_map(Result::ok).take(MAX_PROCESSES).any(|process| {
        let number = process.file_name();
        let is_process = number.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process && writes(&process.path(), name, (wanted.dev(), wanted.ino()))
    })
}

fn writes(process: &Path, name: &str, wanted: (u64, u64)) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.filter_map(Result::ok).take(MAX_FILES).any(|entry| {
        // By name first: what lies on a file system that is gone must not be asked for anything.
        let named = fs::read_link(entry.path()).is_ok_and(|target| {
            target.file_name().is_some_and(|found| found.as_encoded_bytes() == name.as_bytes())
        });
        let same =
            named && fs::metadata(entry.path()).is_ok_and(|found| (found.dev(), found.ino()) == wanted);
        same && fs::read_to_string(process.join("fdinfo").join(entry.file_name()))
            .is_ok_and(|text| is_for_writing(&text))
    })
}

/// `flags:` in octal; its last two bits say for what a file is open.
fn is_for_writing(text: &str) -> bool {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| matches!(flags & 3, 1 | 2))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_file_counts_as_written_while_somebody_has_it_open_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let writer = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(is_written(&reader, "log"));
        drop(writer);
        assert!(!is_written(&reader, "log"));
    }
}
