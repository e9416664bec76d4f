//! Restoring over what is there: chunks that are equal stay, what the recovery point does not have is removed.
//!
//! Invariant: no link is followed and no other file system is entered, whatever lies in the target.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};

use lifeboat_base::digest::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, unlinkat};

/// The deepest folder that is removed with what is in it; each level holds one folder open.
const MAX_DEPTH: usize = 256;

/// Whether the bytes at `offset` are the chunk `id` of `length` bytes. What cannot be read is not.
pub(super) fn holds(file: &File, offset: u64, length: u64, id: &Digest, buffer: &mut Vec<u8>) -> bool {
    let Ok(length) = usize::try_from(length) else { return false };
    buffer.resize(length, 0);
    file.read_exact_at(buffer, offset).is_ok() && Digest::of(buffer) == *id
}

/// Removes every entry of `dir` whose name is not in `keep`; gives how many that were. Memory: the names in it.
pub(super) fn prune(dir: &File, keep: &HashSet<OsString>) -> io::Result<u64> {
    let device = dir.metadata()?.dev();
    let mut removed = 0;
    for name in names(dir)? {
        if !keep.contains(&name) {
            removed += remove_at(dir, &name, device, 0)?;
        }
    }
    Ok(removed)
}

pub(super) fn names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes `name` in `dir` with everything below it, on the file system `device` only.
pub(super) fn remove_at(dir: impl AsFd, name: &OsStr, device: u64, depth: usize) -> io::Result<u64> {
    let found = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        unlinkat(&dir, name, AtFlags::empty())?;
        return Ok(1);
    }
    if found.st_dev != device {
        let why = format!("`{}` is a mount of its own, which is not emptied", name.display());
        return Err(io::Error::new(io::ErrorKind::CrossesDevices, why));
    }
    if depth >= MAX_DEPTH {
        return Err(io::Error::other(format!("`{}` lies too deep to be removed", name.display())));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = openat(&dir, name, flags, Mode::empty())?;
    let mut removed = 1;
    for child in names(&inner)? {
        removed += remove_at(&inner, &child, device, depth + 1)?;
    }
    unlinkat(&dir, name, AtFlags::REMOVEDIR)?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use lifeboat_base::capture::{MaterializeStats, Meta, RestoreSource, StoredKind};
    use lifeboat_base::monitor::Findings;
    use lifeboat_base::path::RelPath;

    use super::*;
    use crate::format::index::BlobKind;
    use crate::format::node::build;
    use crate::restore::{Elsewhere, MaterializeOptions, PointReader};
    use crate::testing;
    use crate::write::store_blobs;

    const CHUNK_BYTES: usize = 4096;

    /// Bytes of three chunks; zeros in the middle one.
    fn content() -> Vec<u8> {
        let mut content = vec![7; 3 * CHUNK_BYTES - 100];
        content[CHUNK_BYTES..2 * CHUNK_BYTES].fill(0);
        content
    }

    /// A point with `big`, `empty` and the folder `inner` with `small` in it.
    fn reader() -> PointReader {
        let vault = testing::vault();
        let meta = Meta { mode: 0o640, uid: u32::MAX, gid: u32::MAX, ..Meta::default() };
        let content = content();
        let chunks: Vec<&[u8]> = content.chunks(CHUNK_BYTES).collect();
        let ids: Vec<Digest> = chunks.iter().map(|chunk| Digest::of(chunk)).collect();
        let file = |name: &str, bytes: usize, ids: &[Digest]| {
            build(OsStr::new(name), &meta, &StoredKind::File(bytes as u64), Some(ids), None)
        };
        let small = file("small", 5, &[Digest::of(b"small")]);
        let inner = testing::listing(&[small]);
        let dir = Meta { mode: 0o750, ..meta.clone() };
        let root = testing::listing(&[
            file("big", content.len(), &ids),
            file("empty", 0, &[]),
            build(OsStr::new("inner"), &dir, &StoredKind::Dir, None, Some(&Digest::of(&inner))),
        ]);
        let mut blobs: Vec<(BlobKind, &[u8])> =
            vec![(BlobKind::Data, b"small"), (BlobKind::Tree, &inner), (BlobKind::Tree, &root)];
        blobs.extend(chunks.iter().map(|chunk| (BlobKind::Data, *chunk)));
        blobs.sort_by_key(|(_, bytes)| Digest::of(bytes));
        blobs.dedup();
        store_blobs(&vault, &blobs);
        let manifest = testing::point(&vault, &Digest::of(&root));
        vault.open_point(&manifest).unwrap()
    }

    fn over(into: &Path, elsewhere: &[Elsewhere]) -> MaterializeStats {
        let options = MaterializeOptions { over: true, elsewhere: elsewhere.to_vec() };
        reader().materialize_with(&RelPath::root(), into, &options, &Findings::new()).unwrap()
    }

    /// Names, modes and content of everything, links as what they lead to.
    fn picture(root: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut pending = vec![root.to_owned()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let content = match meta.file_type() {
                    kind if kind.is_dir() => Vec::new(),
                    kind if kind.is_symlink() => {
                        fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                    }
                    _ => fs::read(&path).unwrap(),
                };
                found.push((name, meta.permissions().mode(), content));
                if meta.is_dir() {
                    pending.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// A fresh restore to compare with.
    fn fresh() -> (tempfile::TempDir, Vec<(String, u32, Vec<u8>)>) {
        let dir = tempfile::tempdir().unwrap();
        reader().materialize(&RelPath::root(), dir.path(), &Findings::new()).unwrap();
        let picture = picture(dir.path());
        (dir, picture)
    }

    #[test]
    fn only_chunks_that_differ_are_fetched_and_the_result_is_that_of_a_fresh_restore() {
        let (dir, expected) = fresh();
        let all = over(dir.path(), &[]);
        assert_eq!((all.kept_bytes, all.fetched_bytes, all.removed), (all.bytes, 0, 0));
        let mut wrong = content();
        wrong[CHUNK_BYTES + 5] = 1;
        wrong.extend_from_slice(b"longer than before");
        lifeboat_base::crashsafe::replace(&dir.path().join("big"), &wrong).unwrap();
        let stats = over(dir.path(), &[]);
        assert_eq!(stats.bytes - stats.kept_bytes, CHUNK_BYTES as u64, "one chunk differed");
        assert!(stats.fetched_bytes > 0 && stats.fetched_bytes < 1000, "{stats:?}");
        assert!(picture(dir.path()) == expected);
    }

    #[test]
    fn whatever_lies_in_the_way_goes_and_nothing_outside_is_touched() {
        let (dir, expected) = fresh();
        let outside = tempfile::tempdir().unwrap();
        let precious = outside.path().join("precious");
        lifeboat_base::crashsafe::write_new(&precious, b"precious").unwrap();
        let path = |name: &str| dir.path().join(name);
        let replace = |name: &str, make: &dyn Fn(&Path)| {
            let old = path(name);
            if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) }.unwrap();
            make(&old);
            over(dir.path(), &[]);
            assert!(picture(dir.path()) == expected, "{name}");
            assert_eq!(fs::read(&precious).unwrap(), b"precious", "{name}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{name}");
        };
        replace("big", &|at| symlink(&precious, at).unwrap());
        replace("big", &|at| fs::hard_link(&precious, at).unwrap());
        replace("big", &|at| fs::create_dir_all(at.join("deep/er")).unwrap());
        replace("empty", &|at| symlink("/nowhere", at).unwrap());
        replace("inner", &|at| symlink(outside.path(), at).unwrap());
        replace("inner", &|at| lifeboat_base::crashsafe::write_new(at, b"file").unwrap());
        symlink(outside.path(), path("extra-link")).unwrap();
        fs::create_dir_all(path("inner/extra/deep")).unwrap();
        symlink(&precious, path("inner/extra/link")).unwrap();
        assert_eq!(over(dir.path(), &[]).removed, 4);
        assert!(picture(dir.path()) == expected);
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }

    #[test]
    fn a_folder_that_lies_elsewhere_is_a_link_and_is_restored_over_in_its_place() {
        let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (folder, through) = (there.path().to_owned(), there.path().to_owned());
        let elsewhere = [Elsewhere { inside: RelPath::new("inner").unwrap(), folder, through }];
        for round in 0..2 {
            let stats = over(dir.path(), &elsewhere);
            assert_eq!(fs::read_link(dir.path().join("inner")).unwrap(), there.path());
            assert_eq!(fs::read(there.path().join("small")).unwrap(), b"small");
            assert_eq!(fs::metadata(there.path()).unwrap().permissions().mode() & 0o777, 0o750);
            assert_eq!(fs::read_dir(there.path()).unwrap().count(), 1);
            assert_eq!(stats.fetched_bytes == 0, round == 1, "{stats:?}");
            lifeboat_base::crashsafe::replace(&there.path().join("extra"), b"extra").unwrap();
        }
        // Where nothing may be there, nothing is touched.
        let options = MaterializeOptions { over: false, elsewhere: elsewhere.to_vec() };
        let empty = tempfile::tempdir().unwrap();
        let refused = reader().materialize_with(&RelPath::root(), empty.path(), &options, &Findings::new());
        assert!(refused.is_err() && fs::read_dir(empty.path()).unwrap().next().is_none());
    }
}
