//! Where the parts of a cluster lie: tablespaces that a restore places, clusters that are restored over, their links.
//!
//! In: what was captured, what the user asks for, a data directory. Out: places and judgements; nothing is changed here but
//! by [`gather`], which moves tablespaces inside one data directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::folder::Folder;
use lifeboat_base::path::RelPath;
use lifeboat_postgres::server::system_identifier;
use serde_json::Value;

use super::adapter::TABLESPACES;
use crate::inplace::{Place, Standing};

/// A server refuses a directory without it before it reads anything else.
pub(crate) const KEYSTONE: &str = "PG_VERSION";
/// Where tablespaces stand in a cluster.
pub(crate) const LINKS: &str = "pg_tblspc";
/// Entries at the top that may be links to elsewhere.
const LOG: &str = "pg_wal";

/// The tablespaces of a point by object id, with their names as far as they were readable.
fn spaces(facts: &CaptureFacts) -> BTreeMap<String, Option<String>> {
    let names = facts.environment.get("tablespace_names");
    let name = |oid: &str| Some(names?.get(oid)?.get("name")?.as_str()?.to_owned());
    oids(facts).into_iter().map(|oid| (oid.clone(), name(&oid))).collect()
}

/// The places asked for, each by the name or the object id of a tablespace.
pub(crate) fn places(facts: &CaptureFacts, asked: &[(String, PathBuf)]) -> Result<Vec<Place>, Failure> {
    let spaces = spaces(facts);
    let refuse = |what: String| Err(Failure::new(FailureKind::Refused, what));
    let mut places: BTreeMap<&String, Place> = BTreeMap::new();
    for (wanted, folder) in asked {
        // A name counts before a number: a tablespace may be called 16400.
        let named = spaces.iter().find(|(_, name)| name.as_ref() == Some(wanted));
        let Some((oid, _)) = named.or_else(|| spaces.get_key_value(wanted)) else {
            let known: Vec<String> = spaces
                .iter()
                .map(|(oid, name)| name.as_ref().map_or(oid.clone(), |name| format!("{name} ({oid})")))
                .collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return refuse(format!("the recovery point has no tablespace `{wanted}`; it has: {known}"));
        };
        let inside = RelPath::new(format!("{LINKS}/{oid}")).map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to name a tablespace", error)
        })?;
        if places.insert(oid, Place { inside, folder: folder.clone() }).is_some() {
            return refuse(format!("the tablespace `{wanted}` is given two places"));
        }
    }
    Ok(places.into_values().collect())
}

/// What `folder` is, compared with the cluster of this identifier.
pub(crate) fn standing(identity: Option<&str>, folder: &Path) -> Standing {
    let other = |what: String| Standing::Other(what);
    let is_file = |name: &str| fs::symlink_metadata(folder.join(name)).is_ok_and(|meta| meta.is_file());
    if !is_file(KEYSTONE) || !is_file("global/pg_control") {
        return other("holds something that is no data directory of PostgreSQL".to_owned());
    }
    match (system_identifier(folder), identity) {
        (Err(error), _) => other(format!("holds a cluster whose control file cannot be read ({error})")),
        (Ok(_), None) => {
            other("holds a cluster, and the recovery point does not say which one it is of".to_owned())
        }
        (Ok(found), Some(wanted)) if found.to_string() == wanted => Standing::Same,
        (Ok(found), Some(wanted)) => other(format!(
            "holds another cluster: its system identifier is {found}, the recovery point's is {wanted}"
        )),
    }
}

/// The links of a data directory that lead out of it: its log and its tablespaces.
pub(crate) fn outside(folder: &Path) -> io::Result<Vec<Place>> {
    // Links say where they lead by name, and the folder may have been given by another one.
    let folder = &fs::canonicalize(folder)?;
    let mut found = Vec::new();
    let mut look = |inside: &str| -> io::Result<()> {
        let path = folder.join(inside);
        let Ok(aim) = fs::read_link(&path) else { return Ok(()) };
        let aim = path.parent().unwrap_or(folder).join(aim);
        let inside_it = fs::canonicalize(&aim).is_ok_and(|real| real.starts_with(folder));
        if !aim.starts_with(folder)
            && !inside_it
            && let Ok(inside) = RelPath::new(inside)
        {
            found.push(Place { inside, folder: aim });
        }
        Ok(())
    };
    look(LOG)?;
    let links = folder.join(LINKS);
    if fs::symlink_metadata(&links).is_ok_and(|meta| meta.is_dir()) {
        for entry in fs::read_dir(&links)? {
            if let Some(name) = entry?.file_name().to_str() {
                look(&format!("{LINKS}/{name}"))?;
            }
        }
    }
    Ok(found)
}

/// Whether nothing lies in `folder` but what servers keep in a tablespace: one folder for each version.
pub(crate) fn is_tablespace(folder: &Path) -> bool {
    let names = Folder::open(folder).and_then(|folder| folder.names());
    names.is_ok_and(|names| names.iter().all(|name| name.as_bytes().starts_with(b"PG_")))
}

/// Brings the tablespaces that an earlier restore placed in the cluster back to where a recovery point has them, so that they
/// can be compared. No link is followed. Nothing to do for a directory that is empty or was never restored.
pub(crate) fn gather(cluster: &Path) -> io::Result<()> {
    let top = Folder::open(cluster)?;
    let real = |name: &str| match top.look(name)? {
        Some(entry) if entry.is_dir => top.inner(name).map(Some),
        _ => Ok(None),
    };
    let (Some(inner), Some(links)) = (real(TABLESPACES)?, real(LINKS)?) else { return Ok(()) };
    for name in inner.names()? {
        if !inner.look(&name)?.is_some_and(|entry| entry.is_dir) {
            continue;
        }
        match links.look(&name)? {
            Some(entry) if entry.is_link => links.remove_file(&name)?,
            None => {}
            // What lies there already is compared as it is.
            Some(_) => continue,
        }
        inner.move_to(&name, &links)?;
    }
    Ok(())
}

/// The object ids of the tablespaces of a point, as the names of their links.
pub(crate) fn oids(facts: &CaptureFacts) -> Vec<String> {
    let listed = facts.environment.get("tablespaces").and_then(Value::as_array);
    let oids = listed.into_iter().flatten().filter_map(|space| space.get("oid").and_then(Value::as_str));
    // A manifest is signed, but what becomes a path is looked at all the same.
    oids.filter(|oid| !oid.is_empty() && oid.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}
