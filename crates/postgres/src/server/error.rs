//! What can go wrong with installed server programs and throwaway servers.

use std::io;
use std::path::{Path, PathBuf};

use lifeboat_base::failure::FailureKind;

/// Why a server could not be found, started, asked or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The machine has no server programs of that major version that run.
    #[error(
        "no PostgreSQL {major} server programs on this machine; looked in {looked}; install the package \
         postgresql-{major} (Debian, Ubuntu), postgresql{major}-server (Red Hat) or postgresql@{major} (Homebrew)"
    )]
    NotInstalled {
        /// The major version asked for.
        major: u32,
        /// The places looked at, each with what was found there.
        looked: String,
    },
    /// A server is there, and one of the programs that belong to it is not.
    #[error(
        "{} cannot be used ({why}); install the package postgresql-client-{major} (Debian, Ubuntu) or postgresql{major} \
         (Red Hat)",
        program.display()
    )]
    NoProgram {
        /// The program's path.
        program: PathBuf,
        /// The major version asked for.
        major: u32,
        /// What is wrong with it.
        why: String,
    },
    /// A caller asked for a setting that the isolation of a sandbox rests on.
    #[error("the setting `{0}` is not the caller's to give: the isolation of the sandbox rests on it")]
    Forbidden(String),
    /// Something in the data directory leads out of it; a server on it could write there.
    #[error("{} leads to {}, outside the sandbox: the server would write there", path.display(), target.display())]
    LeadsOutside {
        /// The link, or the line's file.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The account that the server must run as cannot enter a folder above its files.
    #[error("the server runs as {account}, who cannot enter {}: choose a place below folders open to all", folder.display())]
    Closed {
        /// The folder.
        folder: PathBuf,
        /// The account's name or number.
        account: String,
    },
    /// A path for the server's socket is longer than the system's limit of 107 bytes.
    #[error("the socket folder {} is too long a path: choose a shorter one", .0.display())]
    TooLong(PathBuf),
    /// A server already runs on the data directory, or its pid file says so and this cannot be ruled out.
    #[error("a server with process id {pid} runs on {}", data.display())]
    Running {
        /// The data directory.
        data: PathBuf,
        /// Its process id.
        pid: i32,
    },
    /// The server ended before it was asked to.
    #[error("the server ended ({status}); its log ends with: {log}")]
    Ended {
        /// Its exit status in words.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// The server did not get where it should within the time it was given.
    #[error("the server was not {goal} within {limit_s} s; its log ends with: {log}")]
    Late {
        /// What was waited for, such as `ready`.
        goal: &'static str,
        /// The time given, in seconds.
        limit_s: u64,
        /// The last lines of its log.
        log: String,
    },
    /// The monitor asked for an end while a server was waited for; the server is gone.
    #[error("cancelled while waiting for the server")]
    Cancelled,
    /// One of the server's programs failed.
    #[error("{program} failed ({status}): {message}")]
    Program {
        /// Its name, such as `pg_controldata`.
        program: String,
        /// Its exit status in words.
        status: String,
        /// What it said, printable and bounded.
        message: String,
    },
    /// The operating system refused something.
    #[error("could not {what}")]
    Io {
        /// What was tried, with its path.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl ServerError {
    /// What the caller can do about it. A server that does not start says nothing yet about whose fault it is: that
    /// is a failed check, not damage.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotInstalled { .. }
            | Self::NoProgram { .. }
            | Self::Forbidden(_)
            | Self::LeadsOutside { .. }
            | Self::Closed { .. }
            | Self::TooLong(_)
            | Self::Running { .. }
            | Self::Cancelled => FailureKind::Refused,
            Self::Ended { .. } | Self::Late { .. } | Self::Program { .. } => FailureKind::Findings,
            Self::Io { .. } => FailureKind::Internal,
        }
    }

    /// For `map_err`: the system refused to `verb` the thing at `path`.
    pub(super) fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        move |source| Self::Io { what, source }
    }
}
