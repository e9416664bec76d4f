//! Storing and reading log objects: write-once, sealed, named after the span they hold.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::entropy::Entropy;
use lifeboat_base::ids::{StreamName, VaultId};
use lifeboat_base::time::Timestamp;
use lifeboat_keys::SigningKey;

use super::error::LogsError;
use super::object::{self, ArrivalMark, Draft, LogHeader, LogLink, MAX_CONTENT_BYTES, PackError};
use super::position::{LogName, Position};
use super::rollup::{self, RollupName};
use crate::crypto::MasterKey;
use crate::layout::LOGS;
use crate::storage::{ObjectName, Storage, StorageError};
use crate::vault::Vault;

/// A piece of log to be stored.
pub struct LogObject<'a> {
    /// The first position it holds.
    pub first: Position,
    /// The position after the last; on the same timeline and greater.
    pub last: Position,
    /// Where a timeline is entered: the position on an older timeline that `first` continues.
    pub follows: Option<Position>,
    /// The engine's own name of the timeline, if it has one.
    pub history: Option<String>,
    /// When its bytes arrived, where the stream itself does not say; at most [`MAX_MARKS_COUNT`](super::MAX_MARKS_COUNT).
    pub marks: Vec<ArrivalMark>,
    /// The object written before this one, if the writer knows it.
    pub previous: Option<LogLink>,
    /// When the first entry in it was made.
    pub started: Timestamp,
    /// When the last entry in it was made; decides the hour of its roll-up.
    pub ended: Timestamp,
    /// The content, read to its end; at most [`MAX_CONTENT_BYTES`].
    pub content: &'a mut dyn Read,
}

impl fmt::Debug for LogObject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogObject({} to {})", self.first, self.last)
    }
}

/// An object that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRef {
    /// The stream it belongs to.
    pub stream: StreamName,
    /// Its name there.
    pub name: LogName,
    /// The size of the stored object in bytes.
    pub stored_bytes: u64,
    /// The SHA-256 of the stored object.
    pub sha256: Digest,
    /// It was there already, with the same content.
    pub existed: bool,
}

/// What came of bringing an object to another copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It is there.
    Whole(LogRef),
    /// An object of its name is there and damaged, for this reason.
    InTheWay(String),
}

impl LogRef {
    /// As the link its successor carries.
    pub fn link(&self) -> LogLink {
        LogLink { name: self.name, sha256: self.sha256 }
    }
}

/// The object that holds the roll-up `name`.
pub(super) fn rollup_object(stream: &StreamName, name: &RollupName) -> ObjectName {
    ObjectName::trusted(format!("{LOGS}{stream}/rollup/{}", name.file_name()))
}

/// Why an object below `lifeboat/logs/` that is neither a log object nor a roll-up is damage.
pub(super) const FOREIGN: &str = "it is not part of the format";

/// What stands at a name.
pub(super) enum Place {
    /// A log object.
    Log(LogName),
    /// A roll-up.
    Rollup(RollupName),
}

/// The stream and the place in it that `object` names; nothing if no object of ours has that name.
pub(super) fn place_of(object: &ObjectName) -> Option<(StreamName, Place)> {
    let (stream, rest) = object.below(LOGS)?.split_once('/')?;
    let place = match rest.strip_prefix("rollup/") {
        Some(file_name) => Place::Rollup(RollupName::parse(file_name)?),
        None => Place::Log(rest.parse().ok()?),
    };
    Some((StreamName::new(stream).ok()?, place))
}

/// The stream and the span of the log object that `object` names.
pub(crate) fn piece_of(object: &ObjectName) -> Option<(StreamName, LogName)> {
    match place_of(object)? {
        (stream, Place::Log(name)) => Some((stream, name)),
        (_, Place::Rollup(_)) => None,
    }
}

/// The stream and the roll-up that `object` names.
pub(super) fn rollup_of(object: &ObjectName) -> Option<(StreamName, RollupName)> {
    match place_of(object)? {
        (stream, Place::Rollup(name)) => Some((stream, name)),
        (_, Place::Log(_)) => None,
    }
}

impl Vault {
    /// The vault's log streams.
    pub fn logs(&self) -> Logs {
        Logs::new(
            Arc::clone(self.storage()),
            self.master_key().clone(),
            self.secrets().signing.clone(),
            self.vault_id().clone(),
        )
    }
}

/// The log streams of one vault. Cheap to clone; holds the vault's keys, never shown.
#[derive(Clone)]
pub struct Logs {
    storage: Arc<dyn Storage>,
    key: MasterKey,
    signing: SigningKey,
    vault: VaultId,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logs(vault {})", self.vault)
    }
}

impl Logs {
    /// The logs of the vault `vault` in `storage`.
    pub fn new(storage: Arc<dyn Storage>, key: MasterKey, signing: SigningKey, vault: VaultId) -> Self {
        Self { storage, key, signing, vault }
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    pub(super) fn signing(&self) -> &SigningKey {
        &self.signing
    }

    pub(super) fn vault(&self) -> &VaultId {
        &self.vault
    }

    /// The object that holds `name`.
    pub fn object_name(&self, stream: &StreamName, name: LogName) -> ObjectName {
        ObjectName::trusted(format!("{LOGS}{stream}/{name}"))
    }

    /// Stores a piece of log: visible whole or not at all, durable when this returns.
    ///
    /// The same span with the same content again is success; with other content it is a `Conflict` and the stored one
    /// stays. After a storage failure the object may or may not be there: append it again. Memory: about twice the
    /// compressed content.
    pub fn append(
        &self,
        stream: &StreamName,
        log: LogObject<'_>,
        entropy: &dyn Entropy,
    ) -> Result<LogRef, LogsError> {
        let (first, last) = (log.first, log.last);
        let name = LogName::of(first, last).ok_or(LogsError::InvalidSpan { first, last })?;
        if let Some(follows) = log.follows.filter(|follows| follows.timeline >= first.timeline) {
            return Err(LogsError::InvalidSwitch { first, follows });
        }
        let object = self.object_name(stream, name);
        let packed = object::pack(log.content).map_err(|error| match error {
            PackError::TooLarge => LogsError::TooLarge { limit_bytes: MAX_CONTENT_BYTES },
            PackError::Reader(source) => LogsError::Content { object: object.clone(), source },
            PackError::Encoder(source) => LogsError::Encode { object: object.clone(), source },
        })?;
        let draft = Draft {
            vault: &self.vault,
            stream,
            name,
            follows: log.follows,
            history: log.history,
            marks: log.marks,
            previous: log.previous,
            started: log.started,
            ended: log.ended,
        };
        let (header, sealed) = object::seal(draft, packed, &self.key, entropy)
            .map_err(|source| LogsError::Encode { object: object.clone(), source })?;
        let prefix = object::prefix();
        match self.storage.put_new(&object, &[&prefix, &sealed]) {
            Ok(()) => {
                let mut hasher = Hasher::new();
                hasher.update(&prefix);
                hasher.update(&sealed);
                let stored_bytes = (prefix.len() + sealed.len()) as u64;
                let stream = stream.clone();
                Ok(LogRef { stream, name, stored_bytes, sha256: hasher.finish(), existed: false })
            }
            Err(StorageError::AlreadyExists { .. }) => {
                drop(sealed);
                self.existing(stream, &header)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Brings one object to the same stream of another copy of this vault, sealed as it is. Success if it is there with
    /// the same content already; `Damaged` if the one here is.
    pub fn carry(&self, stream: &StreamName, name: LogName, to: &Self) -> Result<Carried, LogsError> {
        let object = self.object_name(stream, name);
        let stored = self.get(&object)?;
        let header = self
            .open(stream, name, &stored)
            .and_then(object::Opened::check)
            .map_err(|why| LogsError::Damaged { object: object.clone(), why })?;
        match to.storage.put_new(&object, &[&stored]) {
            Ok(()) => {
                let (stream, sha256) = (stream.clone(), Digest::of(&stored));
                let stored_bytes = stored.len() as u64;
                Ok(Carried::Whole(LogRef { stream, name, stored_bytes, sha256, existed: false }))
            }
            Err(StorageError::AlreadyExists { .. }) => {
                drop(stored);
                match to.existing(stream, &header) {
                    Err(LogsError::Damaged { why, .. }) => Ok(Carried::InTheWay(why)),
                    other => other.map(Carried::Whole),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object of that name is there, in whatever state. Reads nothing.
    pub fn has(&self, stream: &StreamName, name: LogName) -> Result<bool, LogsError> {
        Ok(self.storage.stat(&self.object_name(stream, name))?.is_some())
    }

    /// Where the object is, for people.
    pub fn place_of(&self, stream: &StreamName, name: LogName) -> String {
        format!("{}/{}", self.storage.location(), self.object_name(stream, name))
    }

    /// What is stored under the name of `wanted`, if it holds the same.
    pub(super) fn existing(&self, stream: &StreamName, wanted: &LogHeader) -> Result<LogRef, LogsError> {
        let name = wanted.name;
        let object = self.object_name(stream, name);
        let stored = self.get(&object)?;
        let found = self
            .open(stream, name, &stored)
            .and_then(object::Opened::check)
            .map_err(|why| LogsError::Damaged { object: object.clone(), why })?;
        if found.plain_sha256 != wanted.plain_sha256
            || found.follows != wanted.follows
            || found.history != wanted.history
        {
            return Err(LogsError::Conflict { object });
        }
        let (stream, sha256) = (stream.clone(), Digest::of(&stored));
        Ok(LogRef { stream, name, stored_bytes: stored.len() as u64, sha256, existed: true })
    }

    /// The header and the content of an object, every byte checked. Memory: about three times the content at most.
    pub fn read(&self, stream: &StreamName, name: LogName) -> Result<(LogHeader, Vec<u8>), LogsError> {
        let object = self.object_name(stream, name);
        let opened = self.open(stream, name, &self.get(&object)?);
        opened.and_then(object::Opened::content).map_err(|why| LogsError::Damaged { object, why })
    }

    /// Checks the bytes of any object below `lifeboat/logs/`, roll-ups included, such as one about to be copied:
    /// seal or signature, content, and that it belongs under this name.
    pub fn check_object(&self, object: &ObjectName, stored: &[u8]) -> Result<(), LogsError> {
        let checked = match place_of(object) {
            Some((stream, Place::Log(name))) => {
                self.open(&stream, name, stored).and_then(object::Opened::check).map(drop)
            }
            Some((stream, Place::Rollup(name))) => {
                rollup::open(stored, &self.vault, &stream, &name, &self.signing.public()).map(drop)
            }
            None => Err(FOREIGN.to_owned()),
        };
        checked.map_err(|why| LogsError::Damaged { object: object.clone(), why })
    }

    pub(super) fn open(
        &self,
        stream: &StreamName,
        name: LogName,
        stored: &[u8],
    ) -> Result<object::Opened, String> {
        object::open(stored, &self.vault, stream, name, &self.key)
    }

    /// An object's bytes; whatever makes an existing object unreadable is damage.
    pub(super) fn get(&self, object: &ObjectName) -> Result<Vec<u8>, LogsError> {
        self.storage.get(object).map_err(|error| match error {
            StorageError::NotFound { .. } => {
                LogsError::Damaged { object: object.clone(), why: "it is missing".to_owned() }
            }
            StorageError::TooShort { .. } | StorageError::TooLarge { .. } | StorageError::Device { .. } => {
                LogsError::Damaged { object: object.clone(), why: error.to_string() }
            }
            other => LogsError::Storage(other),
        })
    }
}
