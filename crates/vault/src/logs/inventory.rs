//! What a stream holds: roll-ups and objects brought together, checked as far as asked, turned into ranges and gaps.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;
use lifeboat_base::ids::{StreamName, VaultId};
use lifeboat_base::monitor::Monitor;
use lifeboat_keys::PublicKey;

use super::coverage::{GapVerdict, Piece, PieceState, Range, holes_in, ranges_of, verdict_of};
use super::error::LogsError;
use super::object::{LogHeader, LogLink, Opened};
use super::position::{LogName, Position};
use super::rollup::{self, RollupEntry, RollupName};
use super::store::{FOREIGN, Logs, Place, place_of, rollup_object};
use crate::layout::LOGS;
use crate::storage::{Listed, ObjectName, Storage};

/// How far objects are checked. Objects that no roll-up lists yet are always read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogsLevel {
    /// Objects of closed hours are there with the size their roll-up says.
    Listed,
    /// And have the SHA-256 their roll-up says.
    Checksummed,
    /// And open, decompress and hold what their header says.
    Readable,
}

/// An object that is missing, altered, or does not belong where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogDamage {
    /// The object.
    pub object: ObjectName,
    /// What is wrong.
    pub why: String,
}

/// Everything known about one stream.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Every object that exists or is known to have existed, in the order of names.
    pub pieces: Vec<Piece>,
    /// Everything that is wrong, in the order of names.
    pub damaged: Vec<LogDamage>,
    /// Objects read, roll-ups included.
    pub read_count: u64,
    /// Their bytes.
    pub read_bytes: u64,
}

impl Inventory {
    /// The contiguous ranges.
    pub fn ranges(&self) -> Vec<Range> {
        ranges_of(&self.pieces)
    }

    /// Whether history is whole between two positions.
    pub fn gap_verdict(&self, from: Position, to: Position) -> Result<GapVerdict, LogsError> {
        if to < from {
            return Err(LogsError::Backwards { from, to });
        }
        Ok(verdict_of(&self.pieces, from, to))
    }
}

/// What a check of every stream found.
#[derive(Clone, Debug, Default)]
pub struct LogsReport {
    /// The streams there are.
    pub streams: Vec<StreamName>,
    /// Objects known, roll-ups not counted.
    pub objects_count: u64,
    /// Objects read, roll-ups included.
    pub read_count: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Everything that is wrong, by name.
    pub damaged: Vec<LogDamage>,
}

/// Objects no roll-up lists, read and found whole, and the roll-ups there are.
pub(super) struct Unlisted {
    pub(super) entries: Vec<RollupEntry>,
    pub(super) rollups: Vec<RollupName>,
}

/// The listing of one stream, sorted out.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) objects: BTreeMap<LogName, u64>,
    pub(super) rollups: Vec<RollupName>,
    foreign: Vec<ObjectName>,
}

pub(super) fn sort_out(listed: Vec<Listed>) -> Listing {
    let mut listing = Listing::default();
    for Listed { name, size_bytes } in listed {
        match place_of(&name) {
            Some((_, Place::Rollup(rollup))) => listing.rollups.push(rollup),
            Some((_, Place::Log(object))) => {
                listing.objects.insert(object, size_bytes);
            }
            None => listing.foreign.push(name),
        }
    }
    listing
}

/// One pass over a stream.
struct Survey<'a> {
    logs: &'a Logs,
    stream: &'a StreamName,
    level: LogsLevel,
    inventory: Inventory,
    digests: BTreeMap<LogName, Digest>,
    links: Vec<LogLink>,
}

impl Survey<'_> {
    fn damage(&mut self, object: ObjectName, why: impl Into<String>) {
        self.inventory.damaged.push(LogDamage { object, why: why.into() });
    }

    /// The object's bytes, or nothing and a note of the damage.
    fn get(&mut self, object: &ObjectName) -> Result<Option<Vec<u8>>, LogsError> {
        match self.logs.get(object) {
            Ok(bytes) => {
                self.inventory.read_count += 1;
                self.inventory.read_bytes += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Err(LogsError::Damaged { object, why }) => {
                self.damage(object, why);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What the roll-ups list. Of two that list the same object, both have to agree.
    fn rollups(&mut self, names: &[RollupName]) -> Result<BTreeMap<LogName, RollupEntry>, LogsError> {
        let mut entries: BTreeMap<LogName, RollupEntry> = BTreeMap::new();
        for name in names {
            let object = rollup_object(self.stream, name);
            let Some(bytes) = self.get(&object)? else { continue };
            let public = self.logs.signing().public();
            match rollup::open(&bytes, self.logs.vault(), self.stream, name, &public) {
                Ok(listed) => {
                    for entry in listed {
                        let known = entries.entry(entry.name).or_insert_with(|| entry.clone());
                        if *known != entry {
                            self.inventory.damaged.push(LogDamage {
                                object: object.clone(),
                                why: format!("it contradicts another roll-up about {}", entry.name),
                            });
                        }
                    }
                }
                Err(why) => self.damage(object, why),
            }
        }
        Ok(entries)
    }

    /// Reads and opens an object; its header and digest if it is whole, else what is wrong.
    fn open(&mut self, name: LogName, stored: &[u8]) -> Result<LogHeader, String> {
        let header = self.logs.open(self.stream, name, stored).and_then(Opened::check)?;
        self.links.extend(header.previous.clone());
        Ok(header)
    }

    /// An object its roll-up lists.
    fn listed(&mut self, entry: &RollupEntry, size_bytes: Option<u64>) -> Result<PieceState, LogsError> {
        let object = self.logs.object_name(self.stream, entry.name);
        let lost = |survey: &mut Self, why: &str| {
            survey.damage(object.clone(), why);
            Ok(PieceState::Lost(why.to_owned()))
        };
        match size_bytes {
            None => return lost(self, "it is missing, its roll-up lists it"),
            Some(size) if size != entry.stored_bytes => {
                return lost(self, "its size is not the one its roll-up lists");
            }
            Some(_) if self.level == LogsLevel::Listed => return Ok(PieceState::Present),
            Some(_) => {}
        }
        let Some(stored) = self.get(&object)? else {
            return Ok(PieceState::Lost("it cannot be read".to_owned()));
        };
        let digest = Digest::of(&stored);
        self.digests.insert(entry.name, digest);
        if digest != entry.sha256 {
            return lost(self, "its bytes are not the ones its roll-up lists");
        }
        if self.level == LogsLevel::Readable {
            match self.open(entry.name, &stored) {
                Ok(header) if (header.follows, &header.history) == (entry.follows, &entry.history) => {}
                Ok(_) => return lost(self, "its header is not what its roll-up lists"),
                Err(why) => return lost(self, &why),
            }
        }
        Ok(PieceState::Present)
    }

    /// An object no roll-up lists: its roll-up entry if it is whole.
    fn unlisted(&mut self, name: LogName) -> Result<Option<RollupEntry>, LogsError> {
        let object = self.logs.object_name(self.stream, name);
        let Some(stored) = self.get(&object)? else { return Ok(None) };
        let (sha256, stored_bytes) = (Digest::of(&stored), stored.len() as u64);
        self.digests.insert(name, sha256);
        match self.open(name, &stored) {
            Ok(header) => Ok(Some(RollupEntry {
                name,
                first: header.first,
                last: header.last,
                follows: header.follows,
                history: header.history,
                started: header.started,
                ended: header.ended,
                stored_bytes,
                sha256,
            })),
            Err(why) => {
                self.damage(object, why);
                Ok(None)
            }
        }
    }

    /// A successor remembers the bytes of the object it was written after. One that is gone is no finding here:
    /// retention removes the oldest, and a hole shows as a gap.
    fn check_links(&mut self) {
        let mut wrong = BTreeSet::new();
        for link in &self.links {
            if self.digests.get(&link.name).is_some_and(|digest| *digest != link.sha256) {
                wrong.insert(link.name);
            }
        }
        for name in wrong {
            let object = self.logs.object_name(self.stream, name);
            let why = "it is not the object its successor was written after";
            for piece in self.inventory.pieces.iter_mut().filter(|piece| piece.name == name) {
                piece.state = PieceState::Lost(why.to_owned());
            }
            if !self.inventory.damaged.iter().any(|damage| damage.object == object) {
                self.damage(object, why);
            }
        }
    }

    /// An object that is gone, and whose whole span others hold, is no damage: so a damaged one that was stored again
    /// beside it can be removed.
    fn forgive_what_others_hold(&mut self, missing: &BTreeSet<LogName>) {
        for name in missing {
            let (first, last) = (name.first(), name.last());
            let follows = |piece: &Piece| piece.name.first() == first && piece.follows.is_some();
            let pieces = &self.inventory.pieces;
            let present = || pieces.iter().filter(|piece| piece.state == PieceState::Present);
            let entered = pieces.iter().find(|piece| piece.name == *name).is_some_and(follows);
            let held = holes_in(present(), first, last).is_empty();
            if held && (!entered || present().any(follows)) {
                let object = self.logs.object_name(self.stream, *name);
                self.inventory.damaged.retain(|damage| damage.object != object);
            }
        }
    }
}

fn piece(entry: &RollupEntry, state: PieceState) -> Piece {
    Piece {
        name: entry.name,
        follows: entry.follows,
        history: entry.history.clone(),
        started: Some(entry.started),
        ended: Some(entry.ended),
        state,
    }
}

impl Logs {
    fn survey<'a>(&'a self, stream: &'a StreamName, level: LogsLevel) -> Survey<'a> {
        Survey {
            logs: self,
            stream,
            level,
            inventory: Inventory::default(),
            digests: BTreeMap::new(),
            links: Vec::new(),
        }
    }

    fn listing(&self, stream: &StreamName) -> Result<Listing, LogsError> {
        Ok(sort_out(self.storage().list(&format!("{LOGS}{stream}/"))?))
    }

    /// The streams that have at least one object, in the order of names.
    pub fn streams(&self) -> Result<Vec<StreamName>, LogsError> {
        Ok(self.streams_and_strays()?.0)
    }

    fn streams_and_strays(&self) -> Result<(Vec<StreamName>, Vec<ObjectName>), LogsError> {
        let mut streams = BTreeSet::new();
        let mut strays = Vec::new();
        for listed in self.storage().list(LOGS)? {
            let folder = listed.name.as_str().strip_prefix(LOGS).and_then(|rest| rest.split_once('/'));
            match folder.and_then(|(folder, _)| StreamName::new(folder).ok()) {
                Some(stream) => {
                    streams.insert(stream);
                }
                None => strays.push(listed.name),
            }
        }
        Ok((streams.into_iter().collect(), strays))
    }

    /// The objects of a stream by name, as the storage lists them: nothing is read or checked.
    pub fn list(&self, stream: &StreamName) -> Result<Vec<LogName>, LogsError> {
        Ok(self.listing(stream)?.objects.into_keys().collect())
    }

    /// As [`Logs::list`], from a storage alone, each with its size and with the size its roll-up lists, if one does.
    /// `public` is the key of the vault `vault`; a roll-up that is damaged says nothing.
    pub fn list_sizes(
        storage: &dyn Storage,
        (vault, public): (&VaultId, &PublicKey),
        stream: &StreamName,
    ) -> Result<BTreeMap<LogName, (u64, Option<u64>)>, LogsError> {
        let listing = sort_out(storage.list(&format!("{LOGS}{stream}/"))?);
        let mut sizes: BTreeMap<LogName, (u64, Option<u64>)> =
            listing.objects.into_iter().map(|(name, size_bytes)| (name, (size_bytes, None))).collect();
        for name in &listing.rollups {
            let Ok(bytes) = storage.get(&rollup_object(stream, name)) else { continue };
            for entry in rollup::open(&bytes, vault, stream, name, public).unwrap_or_default() {
                if let Some((_, listed)) = sizes.get_mut(&entry.name) {
                    *listed = Some(entry.stored_bytes);
                }
            }
        }
        Ok(sizes)
    }

    /// Everything about a stream: one listing, every roll-up, every object no roll-up lists, and the listed objects
    /// as far as `level` says. Memory: about 400 bytes per object, and one object at a time.
    pub fn inventory(
        &self,
        stream: &StreamName,
        level: LogsLevel,
        monitor: &dyn Monitor,
    ) -> Result<Inventory, LogsError> {
        let listing = self.listing(stream)?;
        let mut survey = self.survey(stream, level);
        for object in listing.foreign {
            survey.damage(object, FOREIGN);
        }
        let entries = survey.rollups(&listing.rollups)?;
        let names: BTreeSet<LogName> = entries.keys().chain(listing.objects.keys()).copied().collect();
        for name in names {
            if monitor.cancelled() {
                return Err(LogsError::Cancelled);
            }
            let before = survey.inventory.read_bytes;
            let found = match entries.get(&name) {
                Some(entry) => {
                    let state = survey.listed(entry, listing.objects.get(&name).copied())?;
                    piece(entry, state)
                }
                None => match survey.unlisted(name)? {
                    Some(entry) => piece(&entry, PieceState::Present),
                    None => Piece {
                        name,
                        follows: None,
                        history: None,
                        started: None,
                        ended: None,
                        state: PieceState::Lost("it is damaged".to_owned()),
                    },
                },
            };
            survey.inventory.pieces.push(found);
            monitor.advance(survey.inventory.read_bytes - before, 1);
        }
        survey.check_links();
        let gone = entries.keys().filter(|name| !listing.objects.contains_key(name)).copied().collect();
        survey.forgive_what_others_hold(&gone);
        survey.inventory.damaged.sort();
        Ok(survey.inventory)
    }

    /// Whether a stream's history is whole from `from` up to `to`; objects are checked as far as `level` says, and a
    /// damaged one counts as missing.
    pub fn gap_verdict(
        &self,
        stream: &StreamName,
        from: Position,
        to: Position,
        level: LogsLevel,
        monitor: &dyn Monitor,
    ) -> Result<GapVerdict, LogsError> {
        self.inventory(stream, level, monitor)?.gap_verdict(from, to)
    }

    /// The contiguous ranges of a stream, from its roll-ups, its listing and the objects of the open hour.
    pub fn ranges(&self, stream: &StreamName, monitor: &dyn Monitor) -> Result<Vec<Range>, LogsError> {
        Ok(self.inventory(stream, LogsLevel::Listed, monitor)?.ranges())
    }

    /// Checks every stream; goes on after damage and names all of it.
    pub fn verify(&self, level: LogsLevel, monitor: &dyn Monitor) -> Result<LogsReport, LogsError> {
        let (streams, strays) = self.streams_and_strays()?;
        let mut report = LogsReport::default();
        report.damaged.extend(strays.into_iter().map(|object| LogDamage { object, why: FOREIGN.to_owned() }));
        for stream in &streams {
            let inventory = self.inventory(stream, level, monitor)?;
            report.objects_count += inventory.pieces.len() as u64;
            report.read_count += inventory.read_count;
            report.read_bytes += inventory.read_bytes;
            report.damaged.extend(inventory.damaged);
        }
        report.streams = streams;
        Ok(report)
    }

    /// What a roll-up run has to list.
    pub(super) fn unlisted(&self, stream: &StreamName) -> Result<Unlisted, LogsError> {
        let listing = self.listing(stream)?;
        let mut survey = self.survey(stream, LogsLevel::Listed);
        let listed = survey.rollups(&listing.rollups)?;
        let mut entries = Vec::new();
        for name in listing.objects.keys().filter(|name| !listed.contains_key(name)) {
            entries.extend(survey.unlisted(*name)?);
        }
        Ok(Unlisted { entries, rollups: listing.rollups })
    }
}
