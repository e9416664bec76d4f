//! What keeps a sandbox to itself: the settings that are forced, and the links that may not lead out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::ServerError;

/// The most bytes of a tablespace map read.
const MAX_MAP_BYTES: u64 = 1024 * 1024;

/// Settings of every version that would reach outside, with the value that does not. They beat the configuration
/// files and stand against callers; the last few would hide damage rather than reach outside. What the catalogs set for
/// a role or a database beats even these: see [`CLIENT_OPTIONS`](super::CLIENT_OPTIONS).
const SEALED: [(&str, &str); 27] = [
    ("listen_addresses", ""),
    ("unix_socket_group", ""),
    ("unix_socket_permissions", "0700"),
    ("external_pid_file", ""),
    ("bonjour", "off"),
    ("ssl", "off"),
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("synchronous_standby_names", ""),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("dynamic_library_path", "$libdir"),
    ("max_logical_replication_workers", "0"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("temp_tablespaces", ""),
    ("default_tablespace", ""),
    ("jit", "off"),
    ("ignore_system_indexes", "off"),
    ("ignore_checksum_failure", "off"),
    ("ssl_passphrase_command", ""),
    ("krb_server_keyfile", ""),
    ("zero_damaged_pages", "off"),
];

/// Further ones with the first and the last version that knows them; an unknown setting would stop the start.
const SEALED_IN: [(&str, &str, u32, u32); 9] = [
    ("promote_trigger_file", "", 12, 15),
    ("stats_temp_directory", "pg_stat_tmp", 8, 14),
    ("vacuum_defer_cleanup_age", "0", 9, 15),
    // A session that computes notices otherwise only at its end that whoever asked is gone.
    ("client_connection_check_interval", if cfg!(target_os = "linux") { "1000" } else { "0" }, 14, u32::MAX),
    ("archive_library", "", 15, u32::MAX),
    ("sync_replication_slots", "off", 17, u32::MAX),
    ("synchronized_standby_slots", "", 17, u32::MAX),
    ("event_triggers", "off", 17, u32::MAX),
    ("oauth_validator_libraries", "", 18, u32::MAX),
];

/// Settings that only the sandbox itself gives a value.
const OWN: [&str; 8] = [
    "config_file",
    "hba_file",
    "ident_file",
    "data_directory",
    "unix_socket_directories",
    "port",
    "shared_preload_libraries",
    "restore_command",
];

/// What the sandbox starts from; callers may choose otherwise.
const DEFAULTS: [(&str, &str); 6] = [
    ("hot_standby", "off"),
    ("shared_buffers", "128MB"),
    ("huge_pages", "off"),
    ("dynamic_shared_memory_type", "posix"),
    ("log_min_messages", "warning"),
    ("log_checkpoints", "off"),
];

/// Labels of the control file, the settings recovery wants at least as large, and the least a server starts with.
const FROM_CONTROL: [(&str, &str, u32); 5] = [
    ("max_connections setting", "max_connections", 20),
    ("max_worker_processes setting", "max_worker_processes", 8),
    ("max_wal_senders setting", "max_wal_senders", 0),
    ("max_prepared_xacts setting", "max_prepared_transactions", 0),
    ("max_locks_per_xact setting", "max_locks_per_transaction", 64),
];

/// The settings of a sandbox, in the order of increasing weight: defaults, what the cluster needs to recover, what the
/// caller asks for, what isolation asks for. A caller's value for one of the last is refused.
pub(super) fn settings(
    major: u32,
    control: &BTreeMap<String, String>,
    asked: &[(String, String)],
    own: &[(&str, String)],
) -> Result<Vec<(String, String)>, ServerError> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |name: &str, value: &str| all.insert(name.to_ascii_lowercase(), value.to_owned());
    for (name, value) in DEFAULTS {
        put(name, value);
    }
    let control = |label: &str| control.get(label).map(String::as_str);
    for (label, name, least) in FROM_CONTROL {
        let value = control(label).and_then(|value| value.parse().ok()).unwrap_or(least);
        put(name, &value.max(least).to_string());
    }
    if control("track_commit_timestamp setting") == Some("on") {
        put("track_commit_timestamp", "on");
    }
    let logical = control("wal_level setting") == Some("logical");
    put("wal_level", if logical { "logical" } else { "replica" });
    for (name, value) in asked {
        if is_sealed(name) || value.contains('\0') || name.contains(['=', '\0']) {
            return Err(ServerError::Forbidden(name.clone()));
        }
        put(name, value);
    }
    let versioned = SEALED_IN.iter().filter(|(_, _, from, to)| (*from..=*to).contains(&major));
    for (name, value) in SEALED.iter().copied().chain(versioned.map(|(name, value, ..)| (*name, *value))) {
        put(name, value);
    }
    for (name, value) in own {
        put(name, value);
    }
    Ok(all.into_iter().collect())
}

/// The server reads names without regard to case and `-` as `_` on its command line.
fn is_sealed(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SEALED.iter().any(|(sealed, _)| *sealed == name)
        || SEALED_IN.iter().any(|(sealed, ..)| *sealed == name)
        || OWN.contains(&name.as_str())
}

/// Refuses a data directory with a link that leads outside `allowed`: its own top level (`pg_wal` may be a link), its
/// tablespaces, and the tablespaces that a tablespace map would make the server link on its first start.
pub(super) fn check_links(data: &Path, allowed: &[PathBuf]) -> Result<(), ServerError> {
    let roots: Vec<_> = allowed.iter().filter_map(|root| fs::canonicalize(root).ok()).collect();
    let inside = |target: &Path| {
        fs::canonicalize(target).is_ok_and(|real| roots.iter().any(|root| real.starts_with(root)))
    };
    for folder in [data.to_owned(), data.join("pg_tblspc")] {
        for entry in fs::read_dir(&folder).map_err(ServerError::io("list", &folder))? {
            let path = entry.map_err(ServerError::io("list", &folder))?.path();
            let meta = fs::symlink_metadata(&path).map_err(ServerError::io("look at", &path))?;
            if meta.is_symlink() && !inside(&path) {
                let target = fs::read_link(&path).map_err(ServerError::io("read the link", &path))?;
                return Err(ServerError::LeadsOutside { path, target });
            }
        }
    }
    let map = data.join("tablespace_map");
    for target in mapped(&map)? {
        if !inside(&target) {
            return Err(ServerError::LeadsOutside { path: map, target });
        }
    }
    Ok(())
}

/// The folders a tablespace map names: lines of an object id, a blank and a path in which a backslash quotes the
/// character after it.
fn mapped(map: &Path) -> Result<Vec<PathBuf>, ServerError> {
    use std::io::Read;
    let mut text = Vec::new();
    match fs::File::open(map) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ServerError::io("open", map)(error)),
        Ok(file) => {
            file.take(MAX_MAP_BYTES).read_to_end(&mut text).map_err(ServerError::io("read", map))?;
        }
    }
    Ok(parse_map(&text))
}

fn parse_map(text: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut lines = vec![Vec::new()];
    let mut quoted = false;
    for byte in text {
        match byte {
            b'\\' if !quoted => quoted = true,
            b'\n' | b'\r' if !quoted => lines.push(Vec::new()),
            _ => {
                quoted = false;
                if let Some(line) = lines.last_mut() {
                    line.push(*byte);
                }
            }
        }
    }
    let path = |line: Vec<u8>| {
        let blank = line.iter().position(|byte| *byte == b' ')?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(line.get(blank + 1..)?.to_vec())))
    };
    lines.into_iter().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn no_caller_loosens_what_isolation_rests_on() {
        let names = SEALED.iter().map(|(name, _)| *name);
        let names = names.chain(SEALED_IN.iter().map(|(name, ..)| *name)).chain(OWN);
        for name in names.flat_map(|name| [name.to_owned(), name.to_uppercase(), name.replace('_', "-")]) {
            let refused = settings(15, &BTreeMap::new(), &[pair(&name, "x")], &[]);
            assert!(matches!(refused, Err(ServerError::Forbidden(_))), "{name}");
        }
        assert!(settings(15, &BTreeMap::new(), &[pair("work_mem=1 -c ssl", "on")], &[]).is_err());
        let given = settings(15, &BTreeMap::new(), &[pair("hot_standby", "on")], &[]).unwrap();
        assert!(given.contains(&pair("hot_standby", "on")), "what is only a default gives way");
    }

    #[test]
    fn a_version_is_given_only_settings_it_knows() {
        let names = |major| -> Vec<String> {
            settings(major, &BTreeMap::new(), &[], &[]).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        let has = |major, name: &str| names(major).iter().any(|known| known == name);
        assert!(has(13, "stats_temp_directory") && !has(13, "archive_library"));
        assert!(
            !has(15, "stats_temp_directory") && has(15, "archive_library") && has(15, "promote_trigger_file")
        );
        assert!(has(18, "oauth_validator_libraries") && !has(18, "promote_trigger_file"));
    }

    #[test]
    fn what_recovery_needs_comes_from_the_control_file() {
        let control: BTreeMap<_, _> =
            [pair("max_connections setting", "700"), pair("wal_level setting", "logical")].into();
        let given = settings(16, &control, &[], &[]).unwrap();
        assert!(given.contains(&pair("max_connections", "700")));
        assert!(given.contains(&pair("wal_level", "logical")));
    }

    #[test]
    fn links_and_maps_that_lead_out_are_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let (data, inner) = (dir.path().join("data"), dir.path().join("space"));
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        fs::create_dir_all(&inner).unwrap();
        std::os::unix::fs::symlink(&inner, data.join("pg_tblspc/16400")).unwrap();
        let allowed = [data.clone(), inner.clone()];
        check_links(&data, &allowed).unwrap();
        assert!(matches!(check_links(&data, &allowed[..1]), Err(ServerError::LeadsOutside { .. })));
        lifeboat_base::crashsafe::write_new(
            &data.join("tablespace_map"),
            format!("16400 {}\n16401 /\n", inner.display()).as_bytes(),
        )
        .unwrap();
        let Err(ServerError::LeadsOutside { target, .. }) = check_links(&data, &allowed) else { panic!() };
        assert_eq!(target, Path::new("/"));
        fs::remove_file(data.join("tablespace_map")).unwrap();
        std::os::unix::fs::symlink("/nowhere-at-all", data.join("pg_wal")).unwrap();
        assert!(check_links(&data, &allowed).is_err(), "a link to nothing is a place to be made");
    }

    #[test]
    fn quoted_line_ends_belong_to_the_path() {
        assert_eq!(
            parse_map(b"1 /a\\\nb\n2 /c d\\\\e\n"),
            [PathBuf::from("/a\nb"), PathBuf::from("/c d\\e")]
        );
    }
}
