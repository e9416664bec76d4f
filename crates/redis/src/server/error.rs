//! What can go wrong with installed server programs and throwaway servers.

use std::io;
use std::path::{Path, PathBuf};

use lifeboat_base::failure::FailureKind;

use crate::wire::RedisError;

/// Why a server could not be found, started, asked or ended.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The machine has no server programs that run.
    #[error(
        "no Redis server programs on this machine; looked in {looked}; install the package redis-server (Debian, Ubuntu) \
         or redis (Red Hat, Homebrew)"
    )]
    NotInstalled {
        /// The folders looked in, each with what was found there.
        looked: String,
    },
    /// A path for the server's socket is longer than the system's limit of 107 bytes.
    #[error("the folder {} is too long a path for a socket: choose a shorter one", .0.display())]
    TooLong(PathBuf),
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
    /// The waiting was cancelled; the server is gone.
    #[error("cancelled while waiting for the server")]
    Cancelled,
    /// One of the server's programs failed.
    #[error("{program} failed ({status}): {message}")]
    Program {
        /// Its name, such as `redis-check-aof`.
        program: String,
        /// Its exit status in words.
        status: String,
        /// What it said last, printable and bounded.
        message: String,
    },
    /// The server answered, and not as it should.
    #[error("the throwaway server could not be asked")]
    Asked(#[from] RedisError),
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

impl SandboxError {
    /// What the caller can do about it. A server that does not start says nothing yet about whose fault it is: that
    /// is a failed check, not damage.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotInstalled { .. } | Self::TooLong(_) | Self::Cancelled => FailureKind::Refused,
            Self::Ended { .. } | Self::Late { .. } | Self::Program { .. } | Self::Asked(_) => {
                FailureKind::Findings
            }
            Self::Io { .. } => FailureKind::Internal,
        }
    }

    /// For `map_err`: the system refused to `verb` the thing at `path`.
    pub(super) fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        move |source| Self::Io { what, source }
    }
}
