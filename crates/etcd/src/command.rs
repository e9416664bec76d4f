//! A command of the user's that writes a snapshot, such as `talosctl etcd snapshot {file}`.
//!
//! In: words, never a line for a shell, and the few variables it may see. Out: the file it was told to write. Nothing it
//! says is believed: the caller proves the file as any other snapshot.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::secret::Secret;
use lifeboat_base::time::Clock;

use crate::error::EtcdError;
use crate::server::{Run, run};

/// What stands for the file in the words of a command.
const PLACEHOLDER: &str = "{file}";
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// Where programs are looked for, unless the command's own environment says so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command and what it may see of our environment.
#[derive(Clone, Debug)]
pub struct OutsideCommand {
    /// Program and arguments; `{file}` stands in at least one of the arguments.
    pub words: Vec<String>,
    /// Variables, with their values.
    pub environment: Vec<(String, Secret<String>)>,
}

/// Runs the command with a file in a new folder (mode 0700) below `scratch`, and gives the open file, which has no name any
/// more. The command has half an hour, no input, and a process group that ends with it.
pub fn run_outside(
    command: &OutsideCommand,
    scratch: &Path,
    clock: &dyn Clock,
    cancelled: &dyn Fn() -> bool,
) -> Result<Arc<File>, EtcdError> {
    let [program, arguments @ ..] = command.words.as_slice() else {
        return Err(EtcdError::Options("the command is empty".to_owned()));
    };
    if !arguments.iter().any(|argument| argument.contains(PLACEHOLDER)) {
        return Err(EtcdError::Options(format!("the command has no {PLACEHOLDER} among its arguments")));
    }
    let folder = tempfile::Builder::new().prefix("command-").tempdir_in(scratch);
    let folder = folder.map_err(EtcdError::io("make a folder in", scratch))?;
    let inner = folder.path().join("out");
    DirBuilder::new().mode(0o700).create(&inner).map_err(EtcdError::io("make", &inner))?;
    let file = inner.join("snapshot.db");
    let shown = file
        .to_str()
        .ok_or_else(|| EtcdError::Options("the path of the scratch folder is not UTF-8".to_owned()))?;
    let mut run_it = Command::new(program);
    run_it.args(arguments.iter().map(|argument| argument.replace(PLACEHOLDER, shown)));
    run_it.env_clear().env("PATH", PATH).current_dir(&inner);
    for (name, value) in &command.environment {
        run_it.env(name, value.expose());
    }
    run(run_it, &Run { limit: LIMIT, clock, cancelled })?;
    let found = std::fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file());
    if !found {
        return Err(EtcdError::Program {
            program: program.clone(),
            status: "ended well".to_owned(),
            message: "it wrote no snapshot to the file it was given".to_owned(),
        });
    }
    Ok(Arc::new(File::open(&file).map_err(EtcdError::io("open", &file))?))
}
