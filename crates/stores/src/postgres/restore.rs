//! From a recovery point to a data directory that a server can be started on.
//!
//! Tablespaces come to lie inside the directory, so that it can be moved as one; `settle` points their links to where
//! it ends up.

use std::fs;
use std::io;
use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, DATA, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::folder::Folder;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;

use super::adapter::TABLESPACES;
use super::placing::{KEYSTONE, LINKS, gather, oids};
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
/// What `ALTER SYSTEM` has set.
pub(crate) const AUTO_CONF: &str = "postgresql.auto.conf";
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

/// Makes the folder ours alone, and tells whose the cluster is. What its account may write while we work in it, it could
/// exchange for links to elsewhere.
pub(crate) fn take_over(cluster: &Folder) -> io::Result<(u32, u32)> {
    cluster.keep(PRIVATE)?;
    owner_of(cluster)
}

/// Gives the folder to the cluster's account: the last thing we do in it.
pub(crate) fn hand_over(cluster: &Folder, owner: (u32, u32)) -> io::Result<()> {
    cluster.set_mode(PRIVATE)?;
    cluster.give(owner)
}

fn finish(facts: &CaptureFacts, into: &Path) -> io::Result<()> {
    let cluster = &Folder::open(into)?;
    // Links say where they lead by name.
    let lies_at = &fs::canonicalize(into)?;
    let owner = take_over(cluster)?;
    let oids = oids(facts);
    if !oids.is_empty() {
        place_inside(cluster, &cluster.inner(LINKS)?, &oids, owner)?;
    }
    point_links(cluster, lies_at, owner)?;
    keep_apart(cluster, owner)?;
    for (name, text) in CONFIGURATION {
        if cluster.look(name)?.is_some_and(|found| found.is_plain) {
            continue;
        }
        let settings = if name == "postgresql.conf" { at_least(facts) } else { String::new() };
        // A link of this name is nothing that was captured: it is replaced, whatever it leads to.
        cluster.write(name, &[text.as_bytes(), settings.as_bytes()], Some(owner))?;
    }
    hand_over(cluster, owner)
}

/// Moves the tablespaces that were restored where links belong to a folder inside.
fn place_inside(cluster: &Folder, links: &Folder, oids: &[String], owner: (u32, u32)) -> io::Result<()> {
    let mut inner = None;
    for oid in oids {
        if links.look(oid)?.is_some_and(|found| found.is_link) {
            // It lies elsewhere already.
            links.give_entry(oid, owner)?;
            continue;
        }
        let inner = match &mut inner {
            Some(inner) => inner,
            None => inner.insert(cluster.inner_or_make(TABLESPACES)?),
        };
        links.move_to(oid, inner)?;
    }
    if let Some(inner) = inner {
        inner.set_mode(PRIVATE)?;
        inner.give(owner)?;
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

fn keep_apart(cluster: &Folder, owner: (u32, u32)) -> io::Result<()> {
    let before = read_settings(cluster)?;
    cluster.write(AUTO_CONF, &[&before, APART.as_bytes()], Some(owner))
}

/// What `ALTER SYSTEM` has set; empty if there is none. Only a plain file of ordinary size is read: the folder may be its
/// account's, who must not make us read something else for it.
pub(crate) fn read_settings(cluster: &Folder) -> io::Result<Vec<u8>> {
    Ok(cluster.read(AUTO_CONF, MAX_SETTINGS_BYTES)?.map(|(_, bytes)| bytes).unwrap_or_default())
}

/// Makes the links of the tablespaces inside the cluster lead to where it will lie: `target`. PostgreSQL wants them absolute.
fn point_links(cluster: &Folder, target: &Path, owner: (u32, u32)) -> io::Result<()> {
    if cluster.look(TABLESPACES)?.is_none() {
        return Ok(());
    }
    let links = cluster.inner(LINKS)?;
    for oid in cluster.inner(TABLESPACES)?.names()? {
        // Whatever is no link in its place is not ours to remove.
        if links.look(&oid)?.is_some_and(|found| found.is_link) {
            links.remove_file(&oid)?;
        }
        links.link(&oid, &target.join(TABLESPACES).join(&oid))?;
        links.give_entry(&oid, owner)?;
    }
    Ok(())
}

/// The cluster in `restored` is about to be moved to `target`.
pub(crate) fn settle(restored: &Path, target: &Path) -> Result<(), Failure> {
    let settled = || {
        let (cluster, target) = (Folder::open(restored)?, std::path::absolute(target)?);
        let owner = take_over(&cluster)?;
        point_links(&cluster, &target, owner)?;
        hand_over(&cluster, owner)
    };
    settled()
        .map_err(|error| Failure::io("failed to point the tablespaces to where the cluster will lie", error))
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
fn owner_of(cluster: &Folder) -> io::Result<(u32, u32)> {
    let sample = cluster.look(KEYSTONE)?;
    sample.map(|sample| sample.owner).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("the restored cluster has no {KEYSTONE}"))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use lifeboat_base::capture::{MaterializeStats, StoredEntry};
    use lifeboat_base::crashsafe;
    use lifeboat_base::monitor::Findings;

    use super::*;
    use crate::postgres::canaries::sample::nothing;

    /// A cluster as a vault gives it, in which its account plants something at the worst moment.
    struct Planted<'a> {
        plant: &'a (dyn Fn(&Path) + Send + Sync),
    }

    impl RestoreSource for Planted<'_> {
        fn walk(
            &self,
            _under: &RelPath,
            _visit: &mut dyn FnMut(StoredEntry) -> Result<(), Failure>,
        ) -> Result<(), Failure> {
            Ok(())
        }

        fn open(&self, _path: &RelPath) -> Result<Box<dyn Read + Send + '_>, Failure> {
            Err(Failure::new(FailureKind::Refused, "there is no such file"))
        }

        fn materialize(
            &self,
            _under: &RelPath,
            into: &Path,
            _monitor: &dyn Monitor,
        ) -> Result<MaterializeStats, Failure> {
            let folder = Folder::open(into).unwrap();
            folder.write(KEYSTONE, &[b"15\n"], Some((12_345, 12_345))).unwrap();
            fs::create_dir(into.join(LINKS)).unwrap();
            (self.plant)(into);
            folder.give((12_345, 12_345)).unwrap();
            Ok(MaterializeStats::default())
        }
    }

    /// A secret of somebody else, and a cluster restored while `plant` puts a link to it where it is told.
    fn restored(
        plant: &(dyn Fn(&Path, &Path) + Send + Sync),
    ) -> (tempfile::TempDir, PathBuf, Result<RestoreReport, Failure>) {
        let dir = tempfile::tempdir().unwrap();
        let (into, secret) = (dir.path().join("cluster"), dir.path().join("secret"));
        fs::create_dir(&into).unwrap();
        crashsafe::write_new(&secret, b"secret").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&secret).unwrap();
        let source = Planted { plant: &|cluster| plant(cluster, &secret) };
        let mut facts = nothing();
        facts.environment.insert("tablespaces".to_owned(), serde_json::json!([{ "oid": "16400" }]));
        let done = restore_cluster(&source, &facts, &into, &Findings::new());
        let after = fs::metadata(&secret).unwrap();
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        (dir, into, done)
    }

    fn tablespace(cluster: &Path) {
        fs::create_dir_all(cluster.join(LINKS).join("16400/PG_15")).unwrap();
    }

    #[test]
    fn settings_that_are_a_link_to_what_only_root_may_read_are_not_read_for_the_cluster() {
        for second_name in [false, true] {
            let (_dir, cluster, done) = restored(&move |cluster, secret| {
                tablespace(cluster);
                let settings = cluster.join(AUTO_CONF);
                if second_name {
                    fs::hard_link(secret, settings).unwrap();
                } else {
                    symlink(secret, settings).unwrap();
                }
            });
            let chain = done.unwrap_err().chain();
            assert!(chain.contains("postgresql.auto.conf is no plain file"), "{chain}");
            // Nothing is handed over that is not finished.
            assert!(!rustix::process::geteuid().is_root() || fs::metadata(&cluster).unwrap().uid() == 0);
        }
    }

    #[test]
    fn a_configuration_that_is_a_link_is_replaced_and_what_it_leads_to_stays_as_it_is() {
        let (dir, cluster, done) = restored(&|cluster, secret| {
            tablespace(cluster);
            symlink(secret, cluster.join("postgresql.conf")).unwrap();
            symlink(secret.with_file_name("made-by-root"), cluster.join("pg_hba.conf")).unwrap();
            crashsafe::write_new(&cluster.join("pg_ident.conf"), b"captured").unwrap();
        });
        done.unwrap();
        for (name, text) in CONFIGURATION.iter().take(2) {
            let path = cluster.join(name);
            assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
            assert!(fs::read_to_string(&path).unwrap().starts_with(text), "{name}");
        }
        assert_eq!(fs::read(cluster.join("pg_ident.conf")).unwrap(), b"captured");
        assert!(!dir.path().join("made-by-root").exists());
        let inside = cluster.join(TABLESPACES).join("16400");
        assert_eq!(fs::read_link(cluster.join(LINKS).join("16400")).unwrap(), inside);
        assert!(inside.join("PG_15").is_dir());
    }

    #[test]
    fn a_folder_of_tablespaces_that_is_a_link_is_not_worked_through() {
        for planted in [LINKS, TABLESPACES] {
            let (dir, _cluster, done) = restored(&move |cluster, secret| {
                let outside = secret.with_file_name("outside");
                fs::create_dir_all(outside.join("16400")).unwrap();
                if planted == LINKS {
                    fs::remove_dir(cluster.join(LINKS)).unwrap();
                } else {
                    tablespace(cluster);
                }
                symlink(&outside, cluster.join(planted)).unwrap();
            });
            assert!(done.is_err(), "{planted}");
            let outside = dir.path().join("outside");
            assert!(fs::symlink_metadata(outside.join("16400")).unwrap().is_dir(), "{planted}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{planted}");
        }
    }
}
