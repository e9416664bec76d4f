//! Commands and servers that are kept to themselves: without a network but their own loopback, and gone with whoever started
//! them.
//!
//! In: program and arguments, never a line for a shell. Out: the same command behind the programs that keep it apart.
//! On Linux, with `setpriv` and `unshare` of util-linux, where the machine lets us; elsewhere there is none. What the machine
//! lets us do is found out once per process.

mod server;

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::outside::{OutsideError, Run, run};
use crate::time::SystemClock;

pub use server::{Servers, servers};

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long it may take to find out what the machine lets us do.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// A process that dies with the thread that started it. A thread that waits lives as long as its process.
const MORTAL: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];
/// Accounts that are not root need their own names for users to be let to the rest.
const OWN_USERS: [&str; 3] = ["--user", "--map-current-user", "--keep-caps"];
/// Every process that comes of the command ends when the first of them does, also one that left its group; it sees no others, and
/// what it mounts is mounted for it alone.
const FAMILY: [&str; 5] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// The first process. It brings the loopback up where that can be done, waits for the command, and tells how it ended: a command in its
/// place would not hear the signals it sends itself. The words are arguments, no part of the script.
const BEGIN: [&str; 3] = ["sh", "-c", r#"ip link set lo up 2>/dev/null; "$0" "$@"; exit $?"#];
/// Root would leave by these rights what it is kept in.
const POWERLESS: [&str; 5] = [
    "setpriv",
    "--ambient-caps=-all",
    "--inh-caps=-all",
    "--bounding-set=-sys_admin,-sys_ptrace,-sys_module,-sys_rawio,-sys_boot,-sys_time,-mknod,-linux_immutable,-net_admin,\
     -sys_chroot",
    "--",
];

/// Whether a command may reach the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Only a loopback of its own. Sockets that are files can be reached as ever.
    None,
    /// What this machine reaches.
    Host,
}

/// `words` as a command with an environment that holds `PATH` only; nothing if this machine cannot keep it apart as asked. Where
/// it may reach the network, what can be done is done.
pub fn command(words: &[String], network: Network) -> Option<Command> {
    static WITHOUT: OnceLock<Option<Vec<&str>>> = OnceLock::new();
    static WITH: OnceLock<Option<Vec<&str>>> = OnceLock::new();
    let found = match network {
        Network::None => WITHOUT.get_or_init(|| way(&["--net"])),
        Network::Host => WITH.get_or_init(|| way(&[])),
    };
    match (found, network) {
        (Some(before), _) => Some(build(before.iter().copied(), words)),
        (None, Network::None) => None,
        (None, Network::Host) => Some(build(std::iter::empty(), words)),
    }
}

/// What goes before a command so that it is kept apart.
fn way(own_network: &[&'static str]) -> Option<Vec<&'static str>> {
    let ways: [&[&str]; 2] = [&[], &OWN_USERS];
    let mut ways = ways.into_iter().map(|users| {
        let before = [&MORTAL[..], &["unshare"], users, own_network, &FAMILY, &["--"]].concat();
        [&before[..], &BEGIN, &POWERLESS].concat()
    });
    ways.find(|before| said(build(before.iter().copied(), &["true".to_owned()])).is_ok())
}

/// What a probe says; an error where its programs are not there or not allowed.
fn said(command: Command) -> Result<String, OutsideError> {
    run(command, &Run { limit: PROBE_LIMIT, clock: &SystemClock::new(), cancelled: &|| false })
}

fn build<'a>(before: impl Iterator<Item = &'a str>, words: &[String]) -> Command {
    let mut all = before.map(str::to_owned).chain(words.iter().cloned());
    let mut command = Command::new(all.next().unwrap_or_default());
    command.args(all).env_clear().env("PATH", PATH);
    command
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use super::*;

    fn said(script: &str, network: Network) -> Result<String, OutsideError> {
        let clock = SystemClock::new();
        let words = ["bash", "-c", script].map(str::to_owned);
        let command = command(&words, network).ok_or(OutsideError::Cancelled)?;
        run(command, &Run { limit: Duration::from_secs(60), clock: &clock, cancelled: &|| false })
    }

    #[test]
    fn who_is_alone_reaches_its_own_loopback_and_nobody_elses() {
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        ours.set_nonblocking(true).unwrap();
        let port = ours.local_addr().unwrap().port();
        let call = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
        let refused = said(&call, Network::None).unwrap_err().to_string();
        assert!(refused.contains("refused"), "{refused}");
        assert_eq!(ours.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        // The listener does hear who is let through.
        said(&call, Network::Host).unwrap();
        ours.accept().unwrap();
    }

    #[test]
    fn who_ends_by_a_signal_of_its_own_has_not_ended_well() {
        for script in ["kill -TERM $$", "kill -KILL $$", "kill -TERM 0; sleep 60"] {
            let failed = said(script, Network::None).unwrap_err();
            assert!(matches!(&failed, OutsideError::Program { code: Some(129..), .. }), "{script}: {failed}");
        }
    }

    #[test]
    fn who_is_kept_apart_sees_no_process_of_ours_and_mounts_nothing_here() {
        let scratch = tempfile::tempdir().unwrap();
        let ours = std::process::id();
        assert!(said(&format!("test -e /proc/{ours}/environ -a $$ -ne {ours}"), Network::Host).is_err());
        let folder = scratch.path().display();
        assert!(said(&format!("mount -t tmpfs none {folder}"), Network::None).is_err());
    }

    #[test]
    fn words_stay_words_and_the_end_is_told() {
        let clock = SystemClock::new();
        let words = ["printf", "%s|", "a b", "$(id)", "\"; exit 0"].map(str::to_owned);
        let command = command(&words, Network::None).unwrap();
        let run = run(command, &Run { limit: Duration::from_secs(60), clock: &clock, cancelled: &|| false });
        assert_eq!(run.unwrap(), "a b|$(id)|\"; exit 0|");
        let failed = said("echo why >&2; exit 7", Network::None).unwrap_err().to_string();
        assert!(failed.contains("exit status: 7") && failed.contains("why"), "{failed}");
    }

    #[test]
    fn nothing_that_it_started_outlives_it() {
        let scratch = tempfile::tempdir().unwrap();
        let note = scratch.path().join("alive");
        let script = format!("(setsid sleep 600 & echo $! > {}) ; exit 0", note.display());
        said(&script, Network::None).unwrap();
        assert!(note.exists());
        let sleeps = |pid: &i32| {
            let words = crate::process::arguments(*pid);
            words.first().is_some_and(|word| word == "sleep")
                && words.get(1).is_some_and(|word| word == "600")
        };
        assert_eq!(crate::process::everyone().iter().filter(|pid| sleeps(pid)).count(), 0);
    }
}
