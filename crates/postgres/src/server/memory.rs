//! What a killed server leaves in the kernel.
//!
//! Every server takes one System V shared memory segment as the lock of its data directory, and gives it back when it
//! ends by itself. After SIGKILL it stays until the machine is started again, and a machine has few of them (4096 where
//! nobody set more): once they are used up, no PostgreSQL server starts on it any more, the production one included.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::postmaster::{PidFile, read_pid_file};

/// A segment as the pid file names it: key and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    key: u32,
    id: u32,
}

impl Segment {
    /// From the pid file's line, such as `  11480658     32768`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self { key: words.next()?.parse().ok()?, id: words.next()?.parse().ok()? })
    }
}

/// Gives back the segment of the server that was killed on `data`. One that anybody is attached to, that another process
/// made or that belongs to another account than `data` does is left alone: the pid file is what that account wrote. Does nothing where the kernel shows no table of segments; what cannot be removed stays.
/// Gives whether nobody is attached: a process that is on its way out is a moment longer than it can be found.
pub fn release_shared_memory(data: &Path) -> bool {
    let Some(file) = read_pid_file(data) else { return true };
    let Some(segment) = file.segment else { return true };
    let attached = attached(data, &file);
    if attached == Some(0) {
        let mut command = Command::new("ipcrm");
        command.arg("-m").arg(segment.id.to_string());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // One segment that stays harms nobody, and the server's end is what the caller asked for.
        drop(command.status());
    }
    attached.is_none_or(|count| count == 0)
}

/// How many are attached to the segment that `file` in `data` names, if it is still there. A process that is on its way out is
/// not found by what it runs any more, and attached a moment longer.
pub(super) fn attached(data: &Path, file: &PidFile) -> Option<i64> {
    let segment = file.segment?;
    let owner = fs::metadata(data).ok()?.uid();
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    table.lines().find_map(|line| attached_to(line, segment, (file.pid, owner)))
}

/// How many are attached, where a line of the kernel's table is `segment`, made by this process of this account.
fn attached_to(line: &str, segment: Segment, (creator, account): (i32, u32)) -> Option<i64> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let number = |field: usize| fields.get(field).and_then(|text| text.parse::<i64>().ok());
    // key, shmid, perms, size, cpid, lpid, nattch, uid, gid, cuid. The kernel writes the key as a signed number.
    let key = number(0).map(|key| key & i64::from(u32::MAX));
    let is_it = key == Some(i64::from(segment.key))
        && number(1) == Some(i64::from(segment.id))
        && number(4) == Some(i64::from(creator))
        && number(7) == Some(i64::from(account))
        && number(9) == Some(i64::from(account));
    if is_it { number(6) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_abandoned_segment_of_that_very_server_counts() {
        let line =
            "  11480658      32768   600                    56  8037  8044      0   101   104   101   104";
        let segment = Segment::parse("  11480658     32768").unwrap();
        let is_abandoned = |line: &str, segment, maker| attached_to(line, segment, maker) == Some(0);
        assert!(is_abandoned(line, segment, (8037, 101)));
        assert!(!is_abandoned(line, segment, (8038, 101)), "made by another process");
        assert!(!is_abandoned(line, segment, (8037, 102)), "of another account");
        let used = line.replace("      0 ", "      1 ");
        assert_eq!(attached_to(&used, segment, (8037, 101)), Some(1), "in use");
        assert!(!is_abandoned(line, Segment { key: 1, ..segment }, (8037, 101)));
        assert!(!is_abandoned(line, Segment { id: 1, ..segment }, (8037, 101)));
        assert!(!is_abandoned("key shmid perms size cpid lpid nattch", segment, (8037, 101)));
        let negative = line.replace("11480658", "-2");
        assert!(is_abandoned(&negative, Segment { key: u32::MAX - 1, ..segment }, (8037, 101)));
    }
}
