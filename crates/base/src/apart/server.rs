//! Throwaway servers in a network of their own, which end at once with the process that started them, however it ends.
//!
//! In: a program and the account it runs as. Out: a command that becomes that program, under the number it was started with:
//! process ids, working directories and sockets that are files are the same inside and outside. Only the network differs.
//! Servers are started by one thread, which lives as long as the process: the kernel ends them with the thread that started them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rustix::process::geteuid;

use super::{MORTAL, OWN_USERS, POWERLESS, said};

/// Where a process sees which network it is in.
const OWN_NETWORK: &str = "/proc/self/ns/net";
/// Brings the loopback up where that can be done (old PostgreSQL counts over it), whatever `PATH` the server gets. The words are
/// arguments, no part of the script.
const LOOPBACK: [&str; 3] =
    ["sh", "-c", r#"PATH=/usr/sbin:/sbin:/usr/bin:/bin ip link set lo up 2>/dev/null; exec "$0" "$@""#];
/// Whoever is to end it may have ended before it was told to end with it: then it does not begin. What a shell adds to the
/// environment is taken out again.
const IF_OWNED: [&str; 3] =
    ["sh", "-c", r#"test "$PPID" = "$0" || exit 1; exec env -u _ -u PWD -u OLDPWD -u SHLVL "$@""#];
/// Servers that are being started at once, beyond which a caller waits.
const ORDERS: usize = 4;

/// A command, and who is told of the process.
type Order = (Command, SyncSender<io::Result<Child>>);

/// How far the machine lets us keep servers to themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A network of its own, which only root may make.
    Alone,
    /// The same for an account that is not root: it needs its own names for users.
    AloneByUsers,
    /// The network of the machine, and the end of its owner.
    Mortal,
    /// Nothing.
    AsBefore,
}

/// Starts the throwaway servers of this process.
#[derive(Debug)]
pub struct Servers {
    way: Way,
    orders: SyncSender<Order>,
}

/// The one of this process; the first call finds out what the machine lets us do, which takes a moment.
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(Servers::new)
}

impl Servers {
    fn new() -> Self {
        let (orders, taken) = sync_channel(ORDERS);
        let nursery = thread::Builder::new().name("servers".to_owned()).spawn(move || nurse(&taken));
        let ways: &[Way] =
            if geteuid().is_root() { &[Way::Alone, Way::Mortal] } else { &[Way::AloneByUsers, Way::Mortal] };
        // Without that thread, a server would end with whichever asked for it.
        let way = nursery.ok().and_then(|_thread| ways.iter().copied().find(|way| way.works()));
        Self { way: way.unwrap_or(Way::AsBefore), orders }
    }

    /// Whether a server gets a network of its own, in which there is nothing but its own loopback.
    pub fn are_alone(&self) -> bool {
        matches!(self.way, Way::Alone | Way::AloneByUsers)
    }

    /// Whether a server ends when this process does, also by SIGKILL. Its children are its own affair.
    pub fn are_mortal(&self) -> bool {
        self.way != Way::AsBefore
    }

    /// A command that becomes `program`, run as `account` (user and group; only where we are root) with no other groups. The
    /// caller adds arguments and environment, and has it started by [`Servers::start`].
    pub fn command(&self, program: &Path, account: Option<(u32, u32)>) -> Command {
        self.way.command(program, account)
    }

    /// Starts it; returns once the first of the programs before it runs. What becomes of it then stands in its output.
    pub fn start(&self, command: Command) -> io::Result<Child> {
        let mut command = command;
        if self.way == Way::AsBefore {
            return command.spawn();
        }
        let (answer, told) = sync_channel(1);
        let gone = || io::Error::other("the thread that starts servers is gone");
        self.orders.send((command, answer)).map_err(|_unsent| gone())?;
        told.recv().map_err(|_gone| gone())?
    }
}

impl Way {
    fn command(self, program: &Path, account: Option<(u32, u32)>) -> Command {
        let mut words: Vec<OsString> = self.before(account).into_iter().map(OsString::from).collect();
        words.push(program.into());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        if let (Self::AsBefore, Some((user, group))) = (self, account) {
            command.uid(user).gid(group);
        }
        command
    }

    fn before(self, account: Option<(u32, u32)>) -> Vec<String> {
        let switch = account.map(|(user, group)| {
            [
                "setpriv".to_owned(),
                format!("--reuid={user}"),
                format!("--regid={group}"),
                "--clear-groups".to_owned(),
            ]
        });
        let switch: Vec<String> = switch.into_iter().flatten().collect();
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let kept = match self {
            Self::Alone => {
                let network = owned(&[&["unshare", "--net", "--"], &LOOPBACK[..], &POWERLESS].concat());
                [network, switch].concat()
            }
            // Before it has its own names for users: afterwards there is no other account.
            Self::AloneByUsers => {
                let users = [&["unshare"], &OWN_USERS[..], &["--net", "--"], &LOOPBACK, &POWERLESS].concat();
                [switch, owned(&users)].concat()
            }
            Self::Mortal => switch,
            Self::AsBefore => return Vec::new(),
        };
        // At last: the kernel forgets it when a process gets other rights.
        let end = [owned(&MORTAL), owned(&IF_OWNED), vec![std::process::id().to_string()]].concat();
        [kept, end].concat()
    }

    /// Whether a command gets that far, and is where it should be.
    fn works(self) -> bool {
        let mut command = self.command(Path::new("readlink"), None);
        // Some servers get no `PATH`: what goes before them has to be found all the same.
        command.arg(OWN_NETWORK).env_clear();
        let Ok(answer) = said(command) else { return false };
        let ours = fs::read_link(OWN_NETWORK).unwrap_or_default();
        let theirs = Path::new(answer.trim());
        let known = !answer.trim().is_empty() && !ours.as_os_str().is_empty();
        known && (theirs != ours) == matches!(self, Self::Alone | Self::AloneByUsers)
    }
}

/// Starts what is ordered, for as long as the process lives.
fn nurse(orders: &Receiver<Order>) {
    for (mut command, answer) in orders {
        // Nobody gives up waiting for the answer.
        drop(answer.send(command.spawn()));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::print_stdout,
        reason = "a helper of a test that fails, fails the test; the other process of a test says its number"
    )]

    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;
    use std::time::Duration;

    use super::*;
    use crate::process::birth;
    use crate::time::{Clock, SystemClock};

    /// How long a process that was ended may take to be gone.
    const GONE: Duration = Duration::from_secs(20);

    /// What a script says that takes the place of a server.
    fn told(way: Way, script: &str, account: Option<(u32, u32)>) -> String {
        let mut command = way.command(Path::new("/bin/bash"), account);
        command.args(["-c", script]).env_clear().current_dir("/").stdout(Stdio::piped());
        let child = servers().start(command).unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().replace(&pid.to_string(), "PID")
    }

    /// Every way that can be gone here.
    fn ways() -> Vec<Way> {
        let all = [Way::Alone, Way::AloneByUsers, Way::Mortal, Way::AsBefore];
        all.into_iter().filter(|way| *way == Way::AsBefore || way.works()).collect()
    }

    #[test]
    fn a_server_has_the_number_it_was_started_with_and_the_account_it_is_told_and_no_environment() {
        assert!(ways().contains(&Way::Mortal) && servers().are_mortal());
        let accounts = if geteuid().is_root() { vec![None, Some((12_345, 12_346))] } else { vec![None] };
        for way in ways() {
            for account in &accounts {
                let groups = format!("{}\n", rustix::process::getegid().as_raw());
                let expected = match account {
                    Some((user, group)) => format!("PID {user} {group}\n"),
                    None => format!("PID {} {groups}", geteuid().as_raw()),
                };
                let said = told(way, "echo $$ $(id -u) $(id -G)", *account);
                assert!(
                    said == expected || account.is_none() && said.starts_with("PID 0 "),
                    "{way:?}: {said}"
                );
                // What this shell has by itself.
                let said = told(way, "export -p | grep -v -e OLDPWD -e PWD -e SHLVL", *account);
                assert_eq!(said, "", "{way:?}");
            }
        }
    }

    #[test]
    fn who_is_alone_has_a_loopback_that_is_up_and_reaches_no_other() {
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        ours.set_nonblocking(true).unwrap();
        let port = ours.local_addr().unwrap().port();
        let call = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached");
        for way in ways() {
            let alone = matches!(way, Way::Alone | Way::AloneByUsers);
            let said = told(way, &call, None);
            assert_eq!(said, if alone { "" } else { "reached\n" }, "{way:?}");
            let heard = ours.accept().map(drop).map_err(|error| error.kind());
            assert_eq!(heard, if alone { Err(ErrorKind::WouldBlock) } else { Ok(()) }, "{way:?}");
            if alone {
                let links = told(way, "cat /proc/self/net/dev | tail -n +3 | cut -d: -f1", None);
                assert_eq!(links.trim(), "lo", "{way:?}");
                let up =
                    told(way, "grep -c ^lo /proc/self/net/route; ip -o link show up dev lo | wc -l", None);
                assert!(up.ends_with("1\n"), "{way:?}: {up}");
            }
        }
    }

    /// Starts what sleeps for a day and says its number; then waits to be killed.
    fn own() {
        let mut command = servers().command(Path::new("/bin/sleep"), None);
        command.arg("86399").env_clear().current_dir("/");
        // By a thread that is gone at once, as those that restore are.
        let mut child =
            thread::scope(|scope| scope.spawn(|| servers().start(command).unwrap()).join().unwrap());
        println!("started {}", child.id());
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "the other process of this test learns its role from it")]
    fn is_owner() -> bool {
        std::env::var_os("LIFEBOAT_TEST_OWNER").is_some()
    }

    #[test]
    fn a_server_lives_on_after_the_thread_that_asked_for_it_and_ends_with_the_process() {
        use std::io::{BufRead, BufReader};
        if is_owner() {
            return own();
        }
        let name = "apart::server::tests::\
                    a_server_lives_on_after_the_thread_that_asked_for_it_and_ends_with_the_process";
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env("LIFEBOAT_TEST_OWNER", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let number = |line: io::Result<String>| line.unwrap().rsplit_once("started ")?.1.parse().ok();
        let pid: i32 = lines.find_map(number).unwrap();
        let born = birth(pid);
        assert!(born.is_some(), "it ended with the thread that asked for it");
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        owner.kill().unwrap();
        owner.wait().unwrap();
        let clock = SystemClock::new();
        let limit = clock.monotonic() + GONE;
        while birth(pid) == born {
            assert!(clock.monotonic() < limit, "{command} outlived its owner");
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_server_whose_owner_is_gone_already_does_not_begin() {
        let scratch = tempfile::tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let note = scratch.path().join("begun");
        for way in ways().into_iter().filter(|way| *way != Way::AsBefore) {
            let mut words = way.before(None);
            assert_eq!(words.pop(), Some(std::process::id().to_string()));
            // The owner is a process that is not this one.
            words.push(i32::MAX.to_string());
            let mut command = Command::new(words.remove(0));
            command.args(words).arg("/usr/bin/touch").arg(&note);
            assert_eq!(command.status().unwrap().code(), Some(1), "{way:?}");
            assert!(!note.exists(), "{way:?}");
        }
    }
}
