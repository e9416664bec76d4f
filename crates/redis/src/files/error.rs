//! Why the files of a server cannot be taken. Names are relative to the server's folder.

use std::io;

use lifeboat_base::failure::FailureKind;

use crate::commands::CommandError;
use crate::rdb::RdbError;

/// Files that were not taken; nothing of them is.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The folder, or a file in it, could not be opened or read.
    #[error("failed to {what} {name}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it was tried with.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Something that is no regular file stands where one belongs; it was not followed and not read.
    #[error("{name} is {found}, and only plain files of the folder are read")]
    NotPlain {
        /// Where it stands.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// Neither a log nor a dump.
    #[error("{dir} holds neither {log} nor {dump}: is it the folder of a server?")]
    Nothing {
        /// The folder.
        dir: String,
        /// The list of the log that was looked for.
        log: String,
        /// The dump that was looked for.
        dump: String,
    },
    /// A log whose list is gone.
    #[error(
        "{why}, and there is no {list}: what a dump beside it shows is not what the server has; copies of single files are no backup"
    )]
    NoList {
        /// Why there should be one.
        why: String,
        /// The list.
        list: String,
    },
    /// The list names a file that is not there.
    #[error("{list} names {name}, which is missing")]
    Missing {
        /// The list.
        list: String,
        /// The file.
        name: String,
    },
    /// The list is none.
    #[error("{list} is damaged in line {line}: {what}")]
    List {
        /// The list.
        list: String,
        /// The line, from 1; 0 for the whole.
        line: usize,
        /// What was wrong.
        what: &'static str,
    },
    /// Log and dump contradict each other, and nothing says which of them the server goes on with.
    #[error(
        "{dump} and {log} contradict what is known of them: the older of the two may be what is switched off, and nothing here says which of them the server has"
    )]
    Undecided {
        /// The dump.
        dump: String,
        /// The log.
        log: String,
    },
    /// The list changed each time it was looked at.
    #[error("the server rewrote its log {tries} times while its files were opened")]
    Restless {
        /// How often it was tried.
        tries: u32,
    },
    /// A dump that cannot be read or believed.
    #[error("{name} is no sound dump")]
    Dump {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: RdbError,
    },
    /// A dump that does not say when it was made.
    #[error("{name} does not say when it was made")]
    Undated {
        /// The file.
        name: String,
    },
    /// A file of commands that holds something else.
    #[error("{name} is no sound file of commands")]
    Commands {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: CommandError,
    },
    /// Only the last file of commands may end in the middle of one.
    #[error("{name} ends in the middle of a command after byte {end}, and other files follow it")]
    Torn {
        /// The file.
        name: String,
        /// Where the last whole command ends.
        end: u64,
    },
    /// The configuration cannot be used.
    #[error("{name} {what}")]
    Configuration {
        /// The file.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl FilesError {
    pub(super) fn io(what: &'static str, name: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let name = name.into();
        move |source| Self::Io { what, name, source }
    }

    /// What the caller can do about it. Damage of the source is something that cannot be read, not damage of what is stored.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotPlain { .. } | Self::Undecided { .. } | Self::Configuration { .. } => {
                FailureKind::Refused
            }
            Self::Dump { source: RdbError::Unknown { .. }, .. } => FailureKind::Refused,
            Self::Io { .. }
            | Self::Nothing { .. }
            | Self::NoList { .. }
            | Self::Missing { .. }
            | Self::List { .. }
            | Self::Restless { .. }
            | Self::Dump { .. }
            | Self::Undated { .. }
            | Self::Commands { .. }
            | Self::Torn { .. } => FailureKind::Unreachable,
        }
    }
}
