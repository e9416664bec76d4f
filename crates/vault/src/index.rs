//! The index in memory: which blob lies where, for every pack the repository has.
//!
//! Damaged index files do not hide what their packs hold: packs that no healthy index file names are found by
//! listing, and their own headers tell. About 100 bytes of memory per blob.

use std::collections::{BTreeMap, HashMap};

use lifeboat_base::digest::Digest;

use crate::crypto::MasterKey;
use crate::error::{StorageContext, VaultError};
use crate::format::document;
use crate::format::index::{BlobKind, IndexBlob, IndexFile, IndexPack};
use crate::format::pack;
use crate::layout;
use crate::retire::{Fate, Retired};
use crate::storage::{ObjectName, Storage};

/// Where a blob lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    /// Position in the index's list of packs.
    pub pack: u32,
    /// The blob inside it.
    pub blob: IndexBlob,
}

/// One pack the index knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackEntry {
    pub id: Digest,
    /// Whether its file exists with the size the index gives, and nothing says that it will go.
    pub sound: bool,
    /// Whether its file exists and will go.
    pub going: bool,
    /// Whether its file exists in the size the index gives, whatever becomes of it.
    pub there: bool,
}

/// Something wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub object: ObjectName,
    pub why: String,
}

impl Problem {
    pub(crate) fn new(object: ObjectName, why: impl Into<String>) -> Self {
        Self { object, why: why.into() }
    }
}

/// Everything the index files say, with what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct RawIndex {
    /// Packs by id, with the index file that names each.
    pub packs: BTreeMap<Digest, (IndexPack, Digest)>,
    /// Packs marked for removal, which may still be read.
    pub marked: BTreeMap<Digest, IndexPack>,
    /// Damaged index files.
    pub problems: Vec<Problem>,
}

/// Reads every index file; goes on past damaged ones.
pub(crate) fn read_raw(storage: &dyn Storage, key: &MasterKey) -> Result<RawIndex, VaultError> {
    let mut raw = RawIndex::default();
    for listed in storage.list(layout::INDEX).doing(|| "list index files".to_owned())? {
        match read_file(storage, key, &listed.name) {
            Ok((id, file)) => {
                raw.packs.extend(file.packs.into_iter().map(|pack| (pack.id, (pack, id))));
                raw.marked.extend(file.packs_to_delete.into_iter().map(|pack| (pack.id, pack)));
            }
            Err(VaultError::Damaged { object, why }) => raw.problems.push(Problem { object, why }),
            Err(other) => return Err(other),
        }
    }
    Ok(raw)
}

/// Reads one index file and gives it with its name.
pub(crate) fn read_file(
    storage: &dyn Storage,
    key: &MasterKey,
    name: &ObjectName,
) -> Result<(Digest, IndexFile), VaultError> {
    let id = layout::content_digest(name)
        .ok_or_else(|| VaultError::damaged(name, "its name is not the name of an index file"))?;
    let bytes = storage.get(name).promised(name)?;
    if Digest::of(&bytes) != id {
        return Err(VaultError::damaged(name, "its content differs from its name"));
    }
    Ok((id, document::open(key, name, &bytes)?))
}

/// Reads the header of a pack without reading its blobs.
pub(crate) fn read_header(
    storage: &dyn Storage,
    key: &MasterKey,
    id: &Digest,
    size_bytes: u64,
) -> Result<Vec<IndexBlob>, VaultError> {
    let name = layout::pack(id);
    let damaged = || VaultError::damaged(&name, "its header is not authentic or does not fit its size");
    let tail_at = size_bytes.checked_sub(pack::LENGTH_BYTES as u64).ok_or_else(damaged)?;
    let tail = storage.get_range(&name, tail_at, pack::LENGTH_BYTES).promised(&name)?;
    let tail = <[u8; pack::LENGTH_BYTES]>::try_from(tail).map_err(|_bytes| damaged())?;
    let length = pack::header_length(tail, size_bytes).ok_or_else(damaged)?;
    let sealed = storage.get_range(&name, tail_at - length as u64, length).promised(&name)?;
    let blobs = pack::open_header(key, &sealed).ok_or_else(damaged)?;
    if pack::file_bytes(&blobs) == size_bytes { Ok(blobs) } else { Err(damaged()) }
}

/// The index of a repository.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<PackEntry>,
    data: HashMap<Digest, Location>,
    trees: HashMap<Digest, Location>,
    /// Packs that exist but that no healthy index file names, with their sizes.
    pub unindexed: Vec<(Digest, u64)>,
    /// Index files that are damaged, packs that are missing or have the wrong size.
    pub problems: Vec<Problem>,
}

impl Index {
    /// Loads every index file and compares it with the packs that exist. If index files are damaged, the headers of
    /// the packs they would have named take their place. A pack that is `retired` can be read and is relied on by nobody.
    pub(crate) fn load(
        storage: &dyn Storage,
        key: &MasterKey,
        retired: &Retired,
    ) -> Result<Self, VaultError> {
        Self::from_raw(storage, key, read_raw(storage, key)?, retired)
    }

    /// As [`Index::load`], from index files that were read before.
    pub(crate) fn from_raw(
        storage: &dyn Storage,
        key: &MasterKey,
        raw: RawIndex,
        retired: &Retired,
    ) -> Result<Self, VaultError> {
        let mut existing: BTreeMap<Digest, u64> = storage
            .list(layout::DATA)
            .doing(|| "list packs".to_owned())?
            .into_iter()
            .filter_map(|listed| Some((layout::content_digest(&listed.name)?, listed.size_bytes)))
            .collect();
        let index_damaged = !raw.problems.is_empty();
        let mut index = Self { problems: raw.problems, ..Self::default() };
        let (mut going, mut suspect, mut absent) = (Vec::new(), Vec::new(), Vec::new());
        for (id, (pack, _)) in raw.packs {
            match existing.remove(&id) {
                Some(size) if size == pack.size_bytes() && retired.is_going(&id) => going.push(pack),
                Some(size) if size == pack.size_bytes() => index.add(&pack, true),
                // An index file that came back from another copy may name what is gone for good.
                None if retired.fate(&id) == Some(Fate::Removed) => {}
                found => {
                    let why =
                        if found.is_some() { "its size differs from the index" } else { "it is missing" };
                    index.problems.push(Problem::new(layout::pack(&id), why));
                    absent.push(pack);
                }
            }
        }
        for (id, pack) in raw.marked {
            if existing.remove(&id).is_some_and(|size| size == pack.size_bytes()) {
                suspect.push(pack);
            }
        }
        for pack in going {
            index.add(&pack, false);
            index.packs.last_mut().into_iter().for_each(|entry| entry.going = true);
        }
        index.unindexed = existing.into_iter().filter(|(id, _)| !retired.is_going(id)).collect();
        if index_damaged {
            for (id, size_bytes) in index.unindexed.clone() {
                // A pack that cannot tell what it holds is a problem only if something needs it.
                if let Ok(blobs) = read_header(storage, key, &id, size_bytes) {
                    suspect.push(IndexPack { id, blobs, time: None, stored_size_bytes: None });
                }
            }
        }
        for pack in suspect {
            index.add(&pack, false);
        }
        for pack in absent {
            index.add(&pack, false);
            index.packs.last_mut().into_iter().for_each(|entry| entry.there = false);
        }
        Ok(index)
    }

    /// Adds a pack that exists whole; its blobs replace locations in packs that do not.
    pub(crate) fn add_sound(&mut self, pack: &IndexPack) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(PackEntry { id: pack.id, sound: true, going: false, there: true });
        for blob in &pack.blobs {
            if !self.holds(blob.kind, &blob.id) {
                self.map_mut(blob.kind).insert(blob.id, Location { pack: number, blob: *blob });
            }
        }
    }

    /// Adds a pack. Blobs that are known from a sound pack stay where they are.
    pub(crate) fn add(&mut self, pack: &IndexPack, sound: bool) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(PackEntry { id: pack.id, sound, going: false, there: true });
        for blob in &pack.blobs {
            let location = Location { pack: number, blob: *blob };
            self.map_mut(blob.kind).entry(blob.id).or_insert(location);
        }
    }

    fn map(&self, kind: BlobKind) -> &HashMap<Digest, Location> {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    fn map_mut(&mut self, kind: BlobKind) -> &mut HashMap<Digest, Location> {
        match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        }
    }

    /// Where a blob lies, if any pack has it.
    pub(crate) fn find(&self, kind: BlobKind, id: &Digest) -> Option<&Location> {
        self.map(kind).get(id)
    }

    /// Whether a blob need not be stored again: a pack that exists in full size has it, and is not marked for removal.
    pub(crate) fn holds(&self, kind: BlobKind, id: &Digest) -> bool {
        self.find(kind, id).is_some_and(|location| self.pack(location.pack).is_some_and(|pack| pack.sound))
    }

    /// Whether a pack that exists has a blob, also one that is marked for removal.
    pub(crate) fn has(&self, kind: BlobKind, id: &Digest) -> bool {
        self.find(kind, id).is_some_and(|location| self.pack(location.pack).is_some_and(|pack| pack.there))
    }

    /// The pack with this number.
    pub(crate) fn pack(&self, number: u32) -> Option<&PackEntry> {
        self.packs.get(number as usize)
    }
}
