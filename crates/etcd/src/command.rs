//! A command of the user's that writes a snapshot, such as `talosctl etcd snapshot {file}`.
//!
//! In: words, never a line for a shell, and the few variables it may see. Out: the file it was told to write. Nothing it
//! says is believed: the caller proves the file as any other snapshot.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::lease::Lease;
use lifeboat_base::outside::{Run, run};
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Clock;

use crate::error::EtcdError;

/// What stands for the file in the words of a command.
const PLACEHOLDER: &str = "{file}";
/// How the folder of a command is called, and the lock in it that says that we live.
const FOLDER_PREFIX: &str = "command-";
const LEASE: &str = "lease";
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
    sweep(scratch).map_err(EtcdError::io("sweep", scratch))?;
    let folder = tempfile::Builder::new()
        .prefix(FOLDER_PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(scratch)
        .map_err(EtcdError::io("make a folder in", scratch))?;
    let _lease = Lease::try_acquire(&folder.path().join(LEASE), "a command")
        .and_then(|taken| taken.map_err(|held| io::Error::new(io::ErrorKind::ResourceBusy, held.0)))
        .map_err(EtcdError::io("lock", folder.path()))?;
    let file = folder.path().join("snapshot.db");
    let shown = file
        .to_str()
        .ok_or_else(|| EtcdError::Options("the path of the scratch folder is not UTF-8".to_owned()))?;
    let mut run_it = Command::new(program);
    run_it.args(arguments.iter().map(|argument| argument.replace(PLACEHOLDER, shown)));
    run_it.env_clear().env("PATH", PATH).current_dir(folder.path());
    for (name, value) in &command.environment {
        run_it.env(name, value.expose());
    }
    run(run_it, &Run { limit: LIMIT, clock, cancelled })?;
    let found = fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file());
    if !found {
        return Err(EtcdError::Program {
            program: program.clone(),
            status: "ended well".to_owned(),
            message: "it wrote no snapshot to the file it was given".to_owned(),
        });
    }
    Ok(Arc::new(File::open(&file).map_err(EtcdError::io("open", &file))?))
}

/// Removes what commands of killed processes left: a snapshot must not lie around in the open.
fn sweep(scratch: &Path) -> io::Result<()> {
    for entry in fs::read_dir(scratch)? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(FOLDER_PREFIX)
            && !folder.is_symlink()
            && let Ok(Some(Ok(_dead))) = Lease::try_take_existing(&folder.join(LEASE))
        {
            crashsafe::remove_tree(&folder)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lifeboat_base::time::SystemClock;

    use super::*;

    fn ran(words: &[&str], scratch: &Path) -> Result<Arc<File>, EtcdError> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let command = OutsideCommand { words, environment: Vec::new() };
        run_outside(&command, scratch, &SystemClock::new(), &|| false)
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_a_living_one_is_let_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = scratch.path().join(name);
            crashsafe::create_dir_all(&folder).unwrap();
            crashsafe::write_new(&folder.join("snapshot.db"), b"secret").unwrap();
            let lease = Lease::try_acquire(&folder.join(LEASE), "a test").unwrap().unwrap();
            (folder, lease)
        };
        let (dead, lease) = folder("command-dead");
        drop(lease);
        let (living, _lease) = folder("command-living");
        ran(&["cp", "/etc/passwd", "{file}"], scratch.path()).unwrap();
        assert!(!dead.exists() && living.exists());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_command_that_fails_or_writes_nothing_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        for words in
            [&["false", "{file}"][..], &["true", "{file}"], &["/no/such/program", "{file}"], &["true"], &[]]
        {
            assert!(ran(words, scratch.path()).is_err(), "{words:?}");
        }
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_command_is_ended_when_it_is_cancelled_with_everything_it_started() {
        let scratch = tempfile::tempdir().unwrap();
        let words = ["sh", "-c", "sleep 1000 & wait", "{file}"].map(str::to_owned).to_vec();
        let command = OutsideCommand { words, environment: Vec::new() };
        // The pipes that its child holds too would keep us waiting if it lived.
        let outcome = run_outside(&command, scratch.path(), &SystemClock::new(), &|| true);
        assert!(matches!(outcome, Err(EtcdError::Cancelled)));
    }
}
