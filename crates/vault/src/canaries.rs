//! Tries this crate's own reading on a small vault made for it in memory: as it was written, and damaged in each of the ways
//! that reading must notice.
//!
//! In: randomness and a folder for scratch. Out: one result per damage. The code that reads is the one that restores read by,
//! not a copy of it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, Entry, Layout, Meta, RestoreSource,
    StoredKind,
};
use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::Entropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{PointId, StoreName, StreamName, VaultId};
use lifeboat_base::monitor::{Findings, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;
use lifeboat_keys::{Envelope, KeyFileRecipient, VaultSecrets};

use crate::error::VaultError;
use crate::layout;
use crate::logs::{GapVerdict, LogName, LogObject, Logs, LogsError, LogsLevel, Position};
use crate::points::{POINT_FORMAT, PointManifest};
use crate::storage::{MemoryStorage, ObjectName, Storage, StorageError};
use crate::vault::{NewVault, Vault};
use crate::write::{SnapshotStamp, WriteOptions};

/// The check that what a vault gives is what was put into it.
pub const READ: &str = "vault.read";
/// The check that a stretch of log is whole.
pub const LOG: &str = "vault.log";

/// Each file of the sample; incompressible, so that a flipped bit is one of content.
const FILE_BYTES: usize = 96 * 1024;
const FILES: [&str; 2] = ["orders", "customers"];
/// Pieces of the sample's log, and how long each is.
const PIECES: u64 = 5;
const PIECE_BYTES: usize = 4096;

/// Whether reading noticed one kind of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// [`READ`] or [`LOG`].
    pub check: &'static str,
    /// What was done to the sample.
    pub damage: &'static str,
    /// Whether it was noticed, and the sample without it was not complained about.
    pub caught: bool,
}

/// Damages the sample in every way there is. An error means that no sample could be made.
pub fn try_reading(scratch: &Path, entropy: &dyn Entropy) -> Result<Vec<Tried>, VaultError> {
    let sample = Sample::make(scratch, entropy)?;
    let (good, whole) = (sample.reads(&sample.copy()?), sample.log_is_whole(&sample.copy()?)?);
    let mut tried = Vec::new();
    for (damage, apply) in READ_DAMAGES {
        let copy = sample.copy()?;
        apply(&sample, &copy).map_err(sample_failed)?;
        tried.push(Tried {
            check: READ,
            damage,
            caught: good == Some(true) && sample.reads(&copy).is_none(),
        });
    }
    let noticed = [
        ("another key", sample.refuses_another_key(entropy)),
        ("another recipient", sample.refuses_another_recipient(entropy)?),
    ];
    tried.extend(noticed.map(|(damage, refused)| Tried {
        check: READ,
        damage,
        caught: good == Some(true) && refused,
    }));
    for (damage, apply) in LOG_DAMAGES {
        let copy = sample.copy()?;
        apply(&sample, &copy).map_err(sample_failed)?;
        tried.push(Tried { check: LOG, damage, caught: whole && !sample.log_is_whole(&copy)? });
    }
    Ok(tried)
}

type Damage = (&'static str, fn(&Sample, &MemoryStorage) -> Result<(), StorageError>);

const READ_DAMAGES: [Damage; 6] = [
    ("one bit of a pack is flipped", |_, at| {
        each(at, layout::DATA, |at, name| at.tamper(name, |bytes| flip(bytes)))
    }),
    ("a pack is cut", |_, at| each(at, layout::DATA, |at, name| at.tamper(name, cut))),
    ("a pack is missing", |_, at| each(at, layout::DATA, Storage::remove)),
    ("the index is missing", |_, at| each(at, layout::INDEX, Storage::remove)),
    ("one bit of the snapshot is flipped", |_, at| {
        each(at, layout::SNAPSHOTS, |at, name| at.tamper(name, |bytes| flip(bytes)))
    }),
    ("one bit of the manifest is flipped", |_, at| {
        each(at, layout::POINTS, |at, name| at.tamper(name, |bytes| flip(bytes)))
    }),
];

const LOG_DAMAGES: [Damage; 3] = [
    ("a piece in the middle is missing", |sample, at| at.remove(&sample.middle())),
    ("one bit of a piece is flipped", |sample, at| at.tamper(&sample.middle(), |bytes| flip(bytes))),
    ("a piece is cut", |sample, at| at.tamper(&sample.middle(), cut)),
];

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

fn cut(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() / 2);
}

fn each(
    at: &MemoryStorage,
    folder: &str,
    change: fn(&MemoryStorage, &ObjectName) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    at.list(folder)?.iter().try_for_each(|listed| change(at, &listed.name))
}

/// A vault with one point and a short log, and what was put into it.
struct Sample {
    vault: Vault,
    envelope: Envelope,
    storage: MemoryStorage,
    content: BTreeMap<&'static str, Vec<u8>>,
    stream: StreamName,
}

impl Sample {
    fn make(scratch: &Path, entropy: &dyn Entropy) -> Result<Self, VaultError> {
        let secrets = VaultSecrets::generate(entropy);
        let store = StoreName::new("canary").map_err(sample_failed)?;
        let stream = StreamName::new("canary").map_err(sample_failed)?;
        let vault_id = VaultId::generate(entropy);
        let created = Timestamp::UNIX_EPOCH;
        let recipient = recipient(entropy)?;
        let envelope = Envelope::seal(vault_id.clone(), &store, created, &secrets, &[&recipient], entropy)
            .map_err(sample_failed)?;
        let new =
            NewVault { store: &store, vault_id: &vault_id, secrets: &secrets, envelope: &envelope, created };
        let storage = MemoryStorage::new();
        let vault = Vault::create(Arc::new(storage.clone()), new, entropy)?;
        let content: BTreeMap<_, _> = FILES.map(|name| (name, random(FILE_BYTES, entropy))).into();
        let sample = Self { vault, envelope, storage, content, stream };
        sample.write_point(scratch)?;
        sample.write_log(entropy).map_err(sample_failed)?;
        Ok(sample)
    }

    fn write_point(&self, scratch: &Path) -> Result<(), VaultError> {
        let id = PointId::new("pt-canary").map_err(sample_failed)?;
        let time = Timestamp::UNIX_EPOCH;
        let stamp = SnapshotStamp {
            point: id.clone(),
            store: self.vault.store().clone(),
            host: "canary".to_owned(),
            user: "canary".to_owned(),
            time,
            parent: None,
        };
        let entries = self.content.iter().map(entry).collect::<Result<_, _>>().map_err(sample_failed)?;
        let options = WriteOptions { workers: 1, spool: scratch.to_owned() };
        let written = self.vault.write(Box::new(Files { entries }), &stamp, &options, &Findings::new())?;
        let manifest = PointManifest {
            format: POINT_FORMAT.to_owned(),
            id,
            store: self.vault.store().clone(),
            kind: "files".to_owned(),
            vault: self.vault.vault_id().clone(),
            policy_hash: Digest::of(b""),
            snapshot: written.snapshot,
            parent: None,
            started: time,
            ended: time,
            facts: written.facts,
            new_bytes: written.new_bytes,
            stored_bytes: written.stored_bytes,
            copies: Vec::new(),
            key_id: self.vault.secrets().signing.public().key_id(),
            tool: "canary".to_owned(),
            evidence_head: None,
            evidence_key: None,
        };
        self.vault.seal_point(&manifest)
    }

    fn write_log(&self, entropy: &dyn Entropy) -> Result<(), LogsError> {
        for piece in 0..PIECES {
            let content = random(PIECE_BYTES, entropy);
            let log = LogObject {
                first: Position::new(1, piece),
                last: Position::new(1, piece + 1),
                follows: None,
                history: None,
                marks: Vec::new(),
                previous: None,
                started: Timestamp::UNIX_EPOCH,
                ended: Timestamp::UNIX_EPOCH,
                content: &mut content.as_slice(),
            };
            self.vault.logs().append(&self.stream, log, entropy)?;
        }
        Ok(())
    }

    /// The same objects, to be damaged.
    fn copy(&self) -> Result<MemoryStorage, VaultError> {
        let copy = MemoryStorage::new();
        let objects = self.storage.list("").map_err(sample_failed)?;
        for name in objects.into_iter().map(|listed| listed.name) {
            let bytes = self.storage.get(&name).map_err(sample_failed)?;
            copy.put_new(&name, &[&bytes]).map_err(sample_failed)?;
        }
        Ok(copy)
    }

    /// Whether a place gives back what was put in; nothing where it says itself that it is damaged.
    fn reads(&self, at: &MemoryStorage) -> Option<bool> {
        match self.read(at) {
            Ok(content) => Some(
                content
                    == self.content.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect(),
            ),
            Err(failure) if failure.kind() == FailureKind::Damaged => None,
            Err(_other) => Some(false),
        }
    }

    fn read(&self, at: &MemoryStorage) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let vault = Vault::open_beside(Arc::new(at.clone()), &self.vault, &self.envelope)?;
        let mut content = BTreeMap::new();
        for point in vault.points()? {
            let Some(manifest) = point.manifest() else {
                return Err(Failure::new(FailureKind::Damaged, "the manifest is not what was signed"));
            };
            let reader = vault.open_point(manifest)?;
            let mut paths = Vec::new();
            reader.walk(&RelPath::root(), &mut |entry| {
                if matches!(entry.kind, StoredKind::File(_)) {
                    paths.push(entry.path);
                }
                Ok(())
            })?;
            for path in paths {
                let mut bytes = Vec::new();
                let mut file = reader.open(&path)?;
                file.read_to_end(&mut bytes)
                    .map_err(|error| Failure::io("failed to read the sample", error))?;
                content.insert(path.to_string(), bytes);
            }
        }
        Ok(content)
    }

    fn refuses_another_key(&self, entropy: &dyn Entropy) -> bool {
        let place = Arc::new(self.storage.clone());
        matches!(
            Vault::open(place, VaultSecrets::generate(entropy), &self.envelope),
            Err(VaultError::WrongKey { .. })
        )
    }

    fn refuses_another_recipient(&self, entropy: &dyn Entropy) -> Result<bool, VaultError> {
        Ok(self.envelope.open(&[&recipient(entropy)?]).is_err())
    }

    /// The object in the middle of the log.
    fn middle(&self) -> ObjectName {
        let (first, last) = (Position::new(1, PIECES / 2), Position::new(1, PIECES / 2 + 1));
        match LogName::of(first, last) {
            Some(name) => self.vault.logs().object_name(&self.stream, name),
            // Never: the second is the greater one.
            None => layout::config(),
        }
    }

    fn log_is_whole(&self, at: &MemoryStorage) -> Result<bool, VaultError> {
        let (key, signing) = (self.vault.master_key().clone(), self.vault.secrets().signing.clone());
        let logs = Logs::new(Arc::new(at.clone()), key, signing, self.vault.vault_id().clone());
        let (from, to) = (Position::new(1, 0), Position::new(1, PIECES));
        logs.gap_verdict(&self.stream, from, to, LogsLevel::Readable, &Findings::new())
            .map(|verdict| verdict == GapVerdict::Contiguous)
            .map_err(sample_failed)
    }
}

fn recipient(entropy: &dyn Entropy) -> Result<KeyFileRecipient, VaultError> {
    let mut key = [0; 32];
    entropy.fill(&mut key);
    KeyFileRecipient::new(Secret::new(key), "canary").map_err(sample_failed)
}

fn random(length: usize, entropy: &dyn Entropy) -> Vec<u8> {
    let mut bytes = vec![0; length];
    entropy.fill(&mut bytes);
    bytes
}

fn sample_failed(error: impl std::error::Error) -> VaultError {
    VaultError::Internal(format!("no sample could be made: {error}"))
}

/// The capture of the sample.
struct Files {
    entries: VecDeque<Entry>,
}

fn entry((name, content): (&&str, &Vec<u8>)) -> Result<Entry, lifeboat_base::path::UnsafePath> {
    let reader = Box::new(Cursor::new(content.clone()));
    Ok(Entry {
        path: RelPath::new(name)?,
        meta: Meta { mode: 0o600, links: 1, ..Meta::default() },
        body: Body::File { reader, size_hint: content.len() as u64, layout: Layout::Stream },
    })
}

impl Capture for Files {
    fn total_bytes(&self) -> Option<u64> {
        None
    }

    fn next_entry(&mut self, _monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        Ok(self.entries.pop_front())
    }

    fn lost(&mut self, _path: &RelPath, _why: &str) {
        // What is in memory can be read.
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        let consistency = Consistency {
            level: ConsistencyLevel::PointInTime,
            moment: Timestamp::UNIX_EPOCH,
            position: None,
            changes: 0,
        };
        Ok(CaptureFacts {
            consistency,
            logical_bytes: (FILES.len() * FILE_BYTES) as u64,
            counts: BTreeMap::new(),
            checksums: BTreeMap::new(),
            environment: BTreeMap::new(),
            unreadable: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::entropy::OsEntropy;

    use super::*;

    #[test]
    fn every_damage_of_the_sample_is_noticed() {
        let scratch = tempfile::tempdir().unwrap();
        let tried = try_reading(scratch.path(), &OsEntropy).unwrap();
        assert_eq!(tried.iter().filter(|tried| tried.check == READ).count(), 8);
        assert_eq!(tried.iter().filter(|tried| tried.check == LOG).count(), 3);
        let missed: Vec<_> = tried.iter().filter(|tried| !tried.caught).collect();
        assert!(missed.is_empty(), "{missed:?}");
    }

    #[test]
    fn a_damage_that_changes_nothing_counts_as_not_noticed() {
        let scratch = tempfile::tempdir().unwrap();
        let sample = Sample::make(scratch.path(), &OsEntropy).unwrap();
        let copy = sample.copy().unwrap();
        assert_eq!(sample.reads(&copy), Some(true));
        assert!(sample.log_is_whole(&copy).unwrap());
        let empty = MemoryStorage::new();
        assert_ne!(sample.reads(&empty), Some(true));
    }
}
