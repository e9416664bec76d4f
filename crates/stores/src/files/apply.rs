//! Puts what a file system knew about an entry back onto a path.

use std::io;
use std::path::Path;

use lifeboat_base::capture::{Meta, StoredKind};
use lifeboat_base::time::Timestamp;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, lsetxattr,
    utimensat,
};
use rustix::io::Errno;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Sets owner, extended attributes, mode and times of `path`, which is never followed if it is a symbolic link.
///
/// Without the right to change owners the owner stays as it is; every other refusal is an error.
pub(crate) fn apply_meta(path: &Path, meta: &Meta, kind: &StoredKind) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    match chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {}
        other => other?,
    }
    // After the owner: changing it drops capabilities.
    for xattr in &meta.xattrs {
        lsetxattr(path, xattr.name.as_os_str(), &xattr.value, XattrFlags::empty())?;
    }
    if !matches!(kind, StoredKind::Symlink(_)) {
        chmodat(CWD, path, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
    }
    let times = Timestamps { last_access: timespec(meta.atime), last_modification: timespec(meta.mtime) };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn timespec(time: Option<Timestamp>) -> Timespec {
    let Some(time) = time else { return Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT } };
    let nanos = time.as_nanosecond();
    // Both fit: a timestamp's seconds are within ten thousand years.
    let seconds = i64::try_from(nanos.div_euclid(NANOS_PER_SECOND)).unwrap_or_default();
    let rest = i64::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default();
    Timespec { tv_sec: seconds, tv_nsec: rest }
}
