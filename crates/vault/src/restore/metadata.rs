//! Giving entries back what the file system knew about them: owner, mode, attributes, times, in that order.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use lifeboat_base::capture::Meta;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Timestamp;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat, fchmod,
    fchown, fsetxattr, futimens, lsetxattr, openat, utimensat,
};

/// Restores metadata; what the target cannot hold is reported and left out.
pub(super) struct Restorer<'a> {
    pub monitor: &'a dyn Monitor,
    /// Only root can give files to others.
    pub owners: bool,
}

fn timespec(time: Option<Timestamp>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(time) => {
            // Before 1970 the parts of a timestamp are both negative; the system wants nanoseconds to be positive.
            let total = time.as_nanosecond();
            let nanos = total.rem_euclid(1_000_000_000);
            Timespec {
                tv_sec: i64::try_from(total.div_euclid(1_000_000_000)).unwrap_or_default(),
                tv_nsec: i64::try_from(nanos).unwrap_or_default(),
            }
        }
    }
}

fn times(meta: &Meta) -> Timestamps {
    // A time that is not known becomes that of the content, so that a restore never invents one.
    Timestamps { last_access: timespec(meta.atime.or(meta.mtime)), last_modification: timespec(meta.mtime) }
}

fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    // The all-ones id means "leave alone" to the system and is no owner.
    let real = |id: u32| (id != u32::MAX).then_some(id);
    (real(meta.uid).map(Uid::from_raw), real(meta.gid).map(Gid::from_raw))
}

impl Restorer<'_> {
    /// Restores a file or directory that is open.
    pub(super) fn open_entry(&self, path: &RelPath, entry: &File, meta: &Meta) -> io::Result<()> {
        let fd = entry.as_fd();
        if self.owners {
            let (uid, gid) = owner(meta);
            fchown(fd, uid, gid)?;
        }
        for xattr in &meta.xattrs {
            let set = fsetxattr(fd, xattr.name.as_os_str(), &xattr.value, XattrFlags::empty());
            self.attribute_result(path, &xattr.name, set);
        }
        // After the owner, which clears set-id bits; after the attributes, which need write permission.
        fchmod(fd, Mode::from_raw_mode(meta.mode & 0o7777))?;
        futimens(fd, &times(meta))?;
        Ok(())
    }

    /// Restores a link, pipe, socket or device by name, without following it.
    pub(super) fn named_entry(
        &self,
        path: &RelPath,
        parent: &File,
        name: &OsStr,
        meta: &Meta,
        is_link: bool,
    ) -> io::Result<()> {
        if self.owners {
            let (uid, gid) = owner(meta);
            chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        for xattr in &meta.xattrs {
            let through: PathBuf =
                ["/proc/self/fd", &parent.as_raw_fd().to_string()].iter().collect::<PathBuf>().join(name);
            let set = lsetxattr(through, xattr.name.as_os_str(), &xattr.value, XattrFlags::empty());
            self.attribute_result(path, &xattr.name, set);
        }
        if !is_link {
            // Pointed at first: a link that took its place meanwhile must not lead us to something else.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = openat(parent, name, flags, Mode::empty())?;
            chmod(format!("/proc/self/fd/{}", node.as_raw_fd()), Mode::from_raw_mode(meta.mode & 0o7777))?;
        }
        Ok(utimensat(parent, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn attribute_result(&self, path: &RelPath, name: &OsStr, set: rustix::io::Result<()>) {
        if let Err(error) = set {
            self.monitor.finding(Finding::new(
                "attribute-not-restored",
                path.to_string(),
                format!("the attribute {:?} could not be set: {error}", name.to_string_lossy()),
            ));
        }
    }
}
