//! The files of a restored directory: a base, the commands after it, the list of both, and what a server must be told.

use std::path::{Path, PathBuf};

/// The folder of base and commands.
pub(super) const FOLDER: &str = "appendonlydir";
pub(super) const BASE: &str = "appendonly.aof.1.base.rdb";
pub(super) const COMMANDS: &str = "appendonly.aof.1.incr.aof";
pub(super) const LIST: &str = "appendonly.aof.manifest";
/// What the list says.
pub(super) const LIST_TEXT: &str = "file appendonly.aof.1.base.rdb seq 1 type b\n\
                                    file appendonly.aof.1.incr.aof seq 1 type i\n";
/// The configuration that makes a server load them.
pub(super) const CONFIGURATION: &str = "redis.conf";
/// Begins the line of the configuration that says how far commands were put behind the base.
pub(super) const REPLAYED: &str = "# lifeboat: commands up to ";
/// A server has at least so many databases.
pub(super) const USUAL_DATABASES: u64 = 16;

pub(super) fn folder(restored: &Path) -> PathBuf {
    restored.join(FOLDER)
}

pub(super) fn base(restored: &Path) -> PathBuf {
    folder(restored).join(BASE)
}

pub(super) fn commands(restored: &Path) -> PathBuf {
    folder(restored).join(COMMANDS)
}

pub(super) fn list(restored: &Path) -> PathBuf {
    folder(restored).join(LIST)
}

/// The configuration's text. `replayed` says up to where commands follow the base, if any do.
pub(super) fn configuration(databases: u64, replayed: Option<&str>) -> String {
    let replayed = replayed.map(|to| format!("{REPLAYED}{to}\n")).unwrap_or_default();
    format!(
        "# written by a restore of lifeboat: start a server of version 7 or later in this directory with this file\n\
         {replayed}appendonly yes\n\
         appenddirname {FOLDER}\n\
         appendfilename appendonly.aof\n\
         databases {databases}\n"
    )
}
