//! What can go wrong with an etcd server, its snapshots and its programs, by what a caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use lifeboat_base::failure::FailureKind;
use lifeboat_base::outside::OutsideError;

/// Why something about etcd failed.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// The address, a certificate or a name in the options cannot be used as it is.
    #[error("{0}")]
    Options(String),
    /// The server could not be reached or does not speak the protocol.
    #[error("{endpoint} cannot be reached")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// What the network or the protocol said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered with an error of its own.
    #[error("{endpoint} refused {call} (code {code}): {message}")]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// The method that was called, such as `Snapshot`.
        call: &'static str,
        /// The status code of gRPC. Servers are not strict about it: a missing permission has been seen as 7 and as 2.
        code: u32,
        /// What the server said, printable.
        message: String,
    },
    /// The server did not answer within the time it was given.
    #[error("{endpoint} did not answer {call} within {limit_s} s")]
    Late {
        /// The endpoint.
        endpoint: String,
        /// The method that was called.
        call: &'static str,
        /// The time given, in seconds.
        limit_s: u64,
    },
    /// An answer is larger than what is put together in memory.
    #[error("{endpoint} gave a message of more than {limit_bytes} bytes")]
    TooLarge {
        /// The endpoint.
        endpoint: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The member learns and has no vote: what it holds may be behind, and its snapshot has been seen without a digest.
    #[error("{endpoint} is a learner: what it holds may be behind; name a voting member")]
    Learner {
        /// The endpoint.
        endpoint: String,
    },
    /// The snapshot does not end with a SHA-256 of itself.
    #[error(
        "the snapshot of {length_bytes} bytes has no digest at its end: it was cut short, or copied from a data directory"
    )]
    NoDigest {
        /// Its length.
        length_bytes: u64,
    },
    /// The digest at the end is not that of the content.
    #[error("the snapshot is not what its digest says: it was cut short or changed on the way")]
    WrongDigest,
    /// The file is not a database of etcd, or one whose structure is broken.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// The database has more keys than are compared here.
    #[error("the database has more than {limit} keys")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The machine has no programs of etcd that can run this data.
    #[error(
        "no etcd {wanted} on this machine; looked at {looked}; install the packages etcd-server and etcd-client"
    )]
    NotInstalled {
        /// The version asked for.
        wanted: String,
        /// What was found, with its version.
        looked: String,
    },
    /// The server ended before it was asked to.
    #[error("the server ended ({status}); its log ends with: {log}")]
    Ended {
        /// Its exit status in words.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// A program failed, or did not end in time.
    #[error("{program} failed ({status}): {message}")]
    Program {
        /// Its name.
        program: String,
        /// Its exit status in words.
        status: String,
        /// What it said, printable and bounded.
        message: String,
    },
    /// Whoever watches asked for an end.
    #[error("cancelled")]
    Cancelled,
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

impl From<OutsideError> for EtcdError {
    fn from(error: OutsideError) -> Self {
        match error {
            OutsideError::Program { program, status, message, .. } => {
                Self::Program { program, status, message }
            }
            OutsideError::Cancelled => Self::Cancelled,
            OutsideError::Io { what, source } => Self::Io { what, source },
        }
    }
}

impl EtcdError {
    /// What the caller can do about it. A snapshot that is not whole is refused: it is the source's answer that is bad,
    /// and nothing was stored. A reader of stored data makes damage of it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Options(_) => FailureKind::Usage,
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Late { .. } | Self::TooLarge { .. } => {
                FailureKind::Unreachable
            }
            Self::Learner { .. }
            | Self::NoDigest { .. }
            | Self::WrongDigest
            | Self::Corrupt(_)
            | Self::TooMany { .. }
            | Self::NotInstalled { .. }
            | Self::Cancelled => FailureKind::Refused,
            Self::Ended { .. } | Self::Program { .. } => FailureKind::Findings,
            Self::Io { .. } => FailureKind::Internal,
        }
    }

    /// For `map_err`: the system refused to `verb` the thing at `path`.
    pub(crate) fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", PathBuf::from(path).display());
        move |source| Self::Io { what, source }
    }

    /// For `map_err` where there is no path.
    pub(crate) fn doing(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
}
