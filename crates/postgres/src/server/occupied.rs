//! Whether a server works in a folder, seen from outside: as its data directory or as one of its tablespaces.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lifeboat_base::process::{everyone, has_ended};
use rustix::fs::OFlags;
use rustix::process::{Pid, test_kill_process};

use super::postmaster::{PidFile, read_pid_file};
use super::processes::servers_in;

/// The first field of a control file: its cluster's system identifier.
const IDENTIFIER_BYTES: usize = 8;

/// Why a server may be at work in `folder`: one stands in it, its pid file names a living process, or a running server
/// has a tablespace there. What runs where `/proc` does not show it (another container, another machine) is not seen,
/// unless its number happens to be alive here.
pub fn in_use(folder: &Path) -> Option<String> {
    if let Some(pid) = servers_in(folder).first() {
        return Some(format!("a server runs in it (process {pid})"));
    }
    let pid_file = folder.join("postmaster.pid");
    if pid_file.symlink_metadata().is_ok() {
        match read_pid_file(folder) {
            Some(PidFile { pid, .. }) if is_alive(pid) => {
                return Some(format!("its postmaster.pid names the living process {pid}"));
            }
            Some(_) => {}
            // A server that is just starting has not written it yet.
            None => return Some("its postmaster.pid cannot be read".to_owned()),
        }
    }
    let folder = fs::canonicalize(folder).ok()?;
    let data = data_directories().into_iter().find(|data| {
        let links = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten();
        links.into_iter().any(|link| {
            fs::canonicalize(link.path())
                .is_ok_and(|space| space.starts_with(&folder) || folder.starts_with(&space))
        })
    })?;
    Some(format!("the server in {} has a tablespace there", data.display()))
}

fn is_alive(pid: i32) -> bool {
    let ours = i32::try_from(std::process::id()).ok();
    match Pid::from_raw(pid) {
        Some(process) if Some(pid) != ours => {
            // One that was killed keeps its number until somebody asks how it ended.
            !matches!(test_kill_process(process), Err(rustix::io::Errno::SRCH)) && !has_ended(pid)
        }
        _ => false,
    }
}

/// The data directories of every server that can be seen.
fn data_directories() -> BTreeSet<PathBuf> {
    let server = |pid: &i32| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe.file_name().is_some_and(|name| name.as_bytes().starts_with(b"postgres"))
    };
    let servers = everyone().into_iter().filter(server);
    servers.filter_map(|pid| fs::read_link(format!("/proc/{pid}/cwd")).ok()).collect()
}

/// The system identifier in the control file of `data`; an error of kind `NotFound` where there is no control file. Only
/// this field is read, which has been the first since there are control files; its checksum is not looked at, so it
/// tells clusters apart and proves nothing.
pub fn system_identifier(data: &Path) -> io::Result<u64> {
    let mut bytes = [0; IDENTIFIER_BYTES];
    open_plain(&data.join("global/pg_control"))?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Opens a file of a folder that another account may write to: neither a link is followed, nor does a pipe that somebody
/// put in its place make us wait.
pub(super) fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::from_ne_bytes(flags.bits().to_ne_bytes());
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_server_that_was_killed_and_not_asked_for_yet_uses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = std::process::Command::new("sleep").arg("86396").spawn().unwrap();
        let lines = format!("{}\n{}\n0\n5432\n\n\n", server.id(), dir.path().display());
        lifeboat_base::crashsafe::write_new(&dir.path().join("postmaster.pid"), lines.as_bytes()).unwrap();
        assert!(in_use(dir.path()).unwrap().contains("names the living process"));
        server.kill().unwrap();
        let pid = i32::try_from(server.id()).unwrap();
        while !has_ended(pid) {
            std::thread::yield_now();
        }
        assert_eq!(in_use(dir.path()), None);
        server.wait().unwrap();
    }

    #[test]
    fn what_is_no_plain_file_is_neither_waited_for_nor_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link) = (dir.path().join("postmaster.pid"), dir.path().join("link"));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(open_plain(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(in_use(dir.path()), Some("its postmaster.pid cannot be read".to_owned()));
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        assert!(open_plain(&link).is_err());
        assert!(open_plain(Path::new("/etc/passwd")).is_ok());
    }
}
