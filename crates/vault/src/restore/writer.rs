//! Fetching planned ranges in parallel and writing their chunks into files; holes stay holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use lifeboat_base::monitor::Monitor;

use super::dirs::Dirs;
use super::metadata::Restorer;
use super::plan::{Fetch, PlannedFile, Target};
use crate::blobs::BlobReader;
use crate::error::{StorageContext, VaultError};
use crate::layout;

/// Threads that fetch, decode and write; each holds one range and one chunk.
const MAX_WORKERS: usize = 4;
/// Zero runs of this many bytes, aligned, are left as holes.
const HOLE_BYTES: usize = 64 * 1024;

/// Writes one window of files.
pub(super) struct WindowWriter<'a> {
    pub blobs: &'a BlobReader,
    pub dirs: &'a Dirs,
    pub restorer: &'a Restorer<'a>,
    pub monitor: &'a dyn Monitor,
    pub files: &'a [PlannedFile],
    pub targets: &'a [Target],
    /// Counts what is read from the vault.
    pub fetched_bytes: &'a AtomicU64,
}

fn target_error(what: &str, file: &PlannedFile) -> impl FnOnce(io::Error) -> VaultError {
    let doing = format!("{what} `{}`", file.path);
    move |source| VaultError::Target { doing, source }
}

impl WindowWriter<'_> {
    /// Runs every fetch; the first error stops all workers and is returned.
    pub(super) fn run(&self, fetches: &[Fetch]) -> Result<(), VaultError> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let failed: Mutex<Option<VaultError>> = Mutex::default();
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..processors.min(MAX_WORKERS).min(fetches.len()) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(fetch) = fetches.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                        if let Err(error) = self.serve(fetch) {
                            stop.store(true, Ordering::Relaxed);
                            let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            failed.get_or_insert(error);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn serve(&self, fetch: &Fetch) -> Result<(), VaultError> {
        if self.monitor.cancelled() {
            return Err(VaultError::Cancelled);
        }
        let Some(pack) = self.blobs.index.pack(fetch.pack) else {
            return Err(VaultError::Internal("a fetch from no pack".to_owned()));
        };
        let name = layout::pack(&pack.id);
        let length = usize::try_from(fetch.end - fetch.start).unwrap_or(usize::MAX);
        let sealed = self.blobs.storage.get_range(&name, fetch.start, length).promised(&name)?;
        self.fetched_bytes.fetch_add(fetch.end - fetch.start, Ordering::Relaxed);
        let mut plain: Option<(u32, Vec<u8>)> = None;
        let mut open: Option<(u32, File)> = None;
        for target in self.targets.get(fetch.targets.clone()).unwrap_or_default() {
            let blob = target.location.blob;
            // Targets are sorted: the same chunk in several files is decoded once.
            if plain.as_ref().is_none_or(|(offset, _)| *offset != blob.offset) {
                let start = usize::try_from(u64::from(blob.offset) - fetch.start).unwrap_or(usize::MAX);
                let bytes = sealed.get(start..start + blob.length as usize).unwrap_or_default();
                plain = Some((blob.offset, self.blobs.open(&target.location, bytes)?));
            }
            let Some((_, content)) = &plain else { continue };
            self.put(target, content, &mut open)?;
        }
        Ok(())
    }

    fn put(&self, target: &Target, content: &[u8], open: &mut Option<(u32, File)>) -> Result<(), VaultError> {
        let Some(file) = self.files.get(target.file as usize) else {
            return Err(VaultError::Internal("a chunk of no file".to_owned()));
        };
        let handle = match open.take() {
            Some((number, handle)) if number == target.file => handle,
            _ => self.dirs.reopen_file(&file.path).map_err(target_error("open", file))?,
        };
        let written = if file.over {
            handle.write_all_at(content, target.offset)
        } else {
            write_with_holes(&handle, target.offset, content)
        };
        written.map_err(target_error("write", file))?;
        self.monitor.advance(content.len() as u64, 0);
        if file.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            finish(self.restorer, self.monitor, file, &handle)?;
        } else {
            *open = Some((target.file, handle));
        }
        Ok(())
    }
}

/// The file has all its content: restore what else is known about it.
pub(super) fn finish(
    restorer: &Restorer<'_>,
    monitor: &dyn Monitor,
    file: &PlannedFile,
    handle: &File,
) -> Result<(), VaultError> {
    restorer
        .open_entry(&file.path, handle, &file.meta)
        .map_err(target_error("restore the metadata of", file))?;
    monitor.advance(0, 1);
    Ok(())
}

/// Writes `content` at `offset`, leaving out aligned runs of zeros: the file was made in full size as one hole.
fn write_with_holes(file: &File, offset: u64, content: &[u8]) -> io::Result<()> {
    let mut pending = 0;
    let mut at = 0;
    while at < content.len() {
        // Blocks end at multiples of the hole size in the file, not in the chunk.
        let in_file = usize::try_from((offset + at as u64) % HOLE_BYTES as u64).unwrap_or_default();
        let end = content.len().min(at + HOLE_BYTES - in_file);
        let block = content.get(at..end).unwrap_or_default();
        if block.iter().all(|byte| *byte == 0) {
            file.write_all_at(content.get(pending..at).unwrap_or_default(), offset + pending as u64)?;
            pending = end;
        }
        at = end;
    }
    file.write_all_at(content.get(pending..).unwrap_or_default(), offset + pending as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_become_holes_and_the_content_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut content = vec![0u8; 1_000_000];
        content[300_000..300_010].fill(7);
        content[999_999] = 1;
        let file = File::create_new(&path).unwrap();
        file.set_len(1_000_100).unwrap();
        write_with_holes(&file, 100, &content).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert!(written[100..] == content);
        let used = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512;
        assert!(used < 400_000, "{used} bytes on disk");
    }
}
