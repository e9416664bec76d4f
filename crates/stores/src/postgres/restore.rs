//! From a recovery point to a data directory that a server can be started on.
//!
//! Tablespaces come to lie inside the directory, so that it can be moved as one; `settle` points their links to where
//! it ends up.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, DATA, RestoreSource};
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use rustix::fs::{Mode, OFlags};

use super::adapter::{TABLESPACES, tablespace_folder};
use super::placing::{LINKS, gather, oids};
use crate::adapter::RestoreReport;

/// Files a server needs and some systems keep elsewhere, with what a restored cluster gets in their place.
const CONFIGURATION: [(&str, &str); 3] = [
    (
        "postgresql.conf",
        "# The captured cluster kept its configuration elsewhere; these settings let it recover.\n",
    ),
    (
        "pg_hba.conf",
        "# The captured cluster kept this file elsewhere: only its owner may connect, locally.\nlocal all all peer\n",
    ),
    ("pg_ident.conf", ""),
];
/// Settings of which a recovering server may not have less than the one it was captured from.
pub(crate) const AT_LEAST: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];
/// `ALTER SYSTEM` writes a line for each setting; no server has this many.
const MAX_SETTINGS_BYTES: u64 = 16 * 1024 * 1024;
/// A server refuses a directory that others can look into.
const PRIVATE: u32 = 0o700;

/// Writes the cluster into `into`, over what is there if `from` can.
pub(crate) fn restore_cluster(
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
    into: &Path,
    monitor: &dyn Monitor,
) -> Result<RestoreReport, Failure> {
    let data = RelPath::new(DATA)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name the data", error))?;
    gather(into).map_err(|error| Failure::io("failed to gather the tablespaces that are there", error))?;
    let stats = from.materialize(&data, into, monitor)?;
    finish(facts, into).map_err(|error| Failure::io("failed to finish the restored cluster", error))?;
    Ok(RestoreReport { stats, artefact: into.to_owned() })
}

fn finish(facts: &CaptureFacts, into: &Path) -> io::Result<()> {
    let owner = owner_of(into)?;
    fs::set_permissions(into, fs::Permissions::from_mode(PRIVATE))?;
    give(into, owner)?;
    let (linked, spaces): (Vec<String>, Vec<String>) =
        oids(facts).into_iter().partition(|oid| into.join(LINKS).join(oid).is_symlink());
    for oid in linked {
        // It lies elsewhere already.
        give(&into.join(LINKS).join(oid), owner)?;
    }
    if !spaces.is_empty() {
        let folder = into.join(TABLESPACES);
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(PRIVATE))?;
        give(&folder, owner)?;
    }
    for oid in &spaces {
        let link = into.join(LINKS).join(oid);
        crashsafe::publish(&link, &tablespace_folder(into, oid))?;
    }
    point_links(into, &std::path::absolute(into)?)?;
    keep_apart(into, owner)?;
    for (name, text) in CONFIGURATION {
        let path = into.join(name);
        if path.exists() {
            continue;
        }
        let settings = if name == "postgresql.conf" { at_least(facts) } else { String::new() };
        crashsafe::write_new(&path, format!("{text}{settings}").as_bytes())?;
        give(&path, owner)?;
    }
    Ok(())
}

/// A restored cluster that is started must not archive into, replicate from or subscribe to what production uses.
const APART: &str = "# set by a restore of lifeboat: begin\n\
                     # Without these lines this copy would act as the captured cluster did. Remove them when it takes its place.\n\
                     archive_mode = 'off'\n\
                     archive_command = ''\n\
                     primary_conninfo = ''\n\
                     primary_slot_name = ''\n\
                     max_logical_replication_workers = '0'\n\
                     # set by a restore of lifeboat: end\n";

fn keep_apart(into: &Path, owner: (u32, u32)) -> io::Result<()> {
    let path = into.join("postgresql.auto.conf");
    let before = read_own(&path)?;
    crashsafe::replace(&path, &[&before, APART.as_bytes()].concat())?;
    give(&path, owner)
}

/// The content of a settings file; empty if there is none. The folder may be its account's already, who must not make us
/// read something else for it: no link is followed, and only a plain file of ordinary size is read.
fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        other => fs::File::from(other?),
    };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 || meta.len() > MAX_SETTINGS_BYTES {
        let why = format!("{} is no plain file of ordinary size", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SETTINGS_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes the links of the cluster in `restored` lead to where it will lie: `target`. PostgreSQL wants them absolute.
fn point_links(restored: &Path, target: &Path) -> io::Result<()> {
    let folder = restored.join(TABLESPACES);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let owner = owner_of(restored)?;
    for entry in entries {
        let oid = entry?.file_name();
        let link = restored.join(LINKS).join(&oid);
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(target.join(TABLESPACES).join(&oid), &link)?;
        give(&link, owner)?;
    }
    Ok(())
}

/// The cluster in `restored` is about to be moved to `target`.
pub(crate) fn settle(restored: &Path, target: &Path) -> Result<(), Failure> {
    let fail = |error| Failure::io("failed to point the tablespaces to where the cluster will lie", error);
    let target = std::path::absolute(target).map_err(fail)?;
    point_links(restored, &target).map_err(fail)
}

/// The settings a recovering server needs, as lines of its configuration.
fn at_least(facts: &CaptureFacts) -> String {
    let lines = recovery_settings(facts).into_iter().map(|(name, value)| [name, value].join(" = "));
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

/// Settings without which the captured log cannot be replayed, and their captured values.
pub(crate) fn recovery_settings(facts: &CaptureFacts) -> Vec<(String, String)> {
    let settings = facts.environment.get("settings");
    let value = |name: &str| {
        let found = settings.and_then(|settings| settings.get(name))?;
        let text = found.get("setting").unwrap_or(found).as_str()?;
        text.parse::<u32>().ok()
    };
    AT_LEAST
        .iter()
        .filter_map(|name| value(name).map(|number| ((*name).to_owned(), number.to_string())))
        .collect()
}

/// Who the files of the directory belong to: the account the captured server ran as, where we may give files away.
pub(crate) fn owner_of(cluster: &Path) -> io::Result<(u32, u32)> {
    let sample = fs::symlink_metadata(cluster.join("PG_VERSION"))?;
    Ok((sample.uid(), sample.gid()))
}

pub(crate) fn give(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        // A link itself, never what it leads to: also where somebody puts one there meanwhile.
        return lchown(path, Some(uid), Some(gid));
    }
    Ok(())
}
