//! Roll-ups: the signed list of the objects of one closed hour, so that a lost object is known to have existed.
//!
//! In: objects that were read and found whole. Out: `lifeboat/logs/<stream>/rollup/<YYYYMMDDTHH>[-n].json`.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_base::digest::Digest;
use lifeboat_base::ids::{StreamName, VaultId};
use lifeboat_base::time::Timestamp;
use lifeboat_keys::{DsseEnvelope, PublicKey, SigningKey};
use serde::{Deserialize, Serialize};

use super::error::LogsError;
use super::position::{LogName, Position};
use super::store::{Logs, rollup_object};
use crate::storage::{ObjectName, StorageError};

/// The DSSE payload type of a roll-up.
pub const ROLLUP_PAYLOAD_TYPE: &str = "application/vnd.lifeboat.log-rollup+json";
/// How long after its end an hour counts as closed; later objects go into another part of that hour.
pub const ROLLUP_GRACE: Duration = Duration::from_secs(5 * 60);
/// The most objects one roll-up lists; an hour with more has several.
pub const MAX_ROLLUP_ENTRIES: usize = 10_000;

const FORMAT: &str = "lifeboat.log-rollup/v1";
const HOUR: Duration = Duration::from_secs(60 * 60);

/// One object as its roll-up lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollupEntry {
    /// Its name.
    pub name: LogName,
    /// The first position it holds.
    pub first: Position,
    /// The position after the last.
    pub last: Position,
    /// As in its header.
    pub follows: Option<Position>,
    /// As in its header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// As in its header.
    pub started: Timestamp,
    /// As in its header; decides the hour.
    pub ended: Timestamp,
    /// The size of the stored object in bytes.
    pub stored_bytes: u64,
    /// The SHA-256 of the stored object.
    pub sha256: Digest,
}

/// A roll-up that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupRef {
    /// Its object.
    pub object: ObjectName,
    /// How many objects it lists.
    pub entries_count: usize,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    format: String,
    vault: VaultId,
    stream: StreamName,
    hour: String,
    part: u32,
    objects: Vec<RollupEntry>,
}

/// Which hour, and which of its parts, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RollupName {
    pub(super) hour: String,
    pub(super) part: u32,
}

impl RollupName {
    /// Reads `20261121T13.json` or `20261121T13-2.json`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let stem = text.strip_suffix(".json")?;
        let (hour, part) = match stem.split_once('-') {
            None => (stem, 1),
            Some((hour, part)) => (hour, part.parse().ok().filter(|part| *part >= 2)?),
        };
        let name = Self { hour: hour.to_owned(), part };
        // One spelling each: "-02" is not "-2".
        (valid_hour(hour) && name.file_name() == text).then_some(name)
    }

    pub(super) fn file_name(&self) -> String {
        match self.part {
            1 => format!("{}.json", self.hour),
            part => format!("{}-{part}.json", self.hour),
        }
    }
}

fn valid_hour(hour: &str) -> bool {
    hour.len() == 11
        && hour
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 8 { byte == b'T' } else { byte.is_ascii_digit() })
}

/// The hour an object belongs to.
fn hour_of(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H").to_string()
}

/// Whether the hour of `ended` is over, the grace included.
fn closed(ended: Timestamp, now: Timestamp) -> bool {
    let wait = HOUR + ROLLUP_GRACE;
    let into_hour = u64::try_from(ended.as_second().rem_euclid(3600)).unwrap_or(0);
    ended.checked_add(wait.saturating_sub(Duration::from_secs(into_hour))).is_ok_and(|end| end <= now)
}

/// Reads a roll-up and checks its signature, its place and its entries; the error says what is wrong.
pub(super) fn open(
    stored: &[u8],
    vault: &VaultId,
    stream: &StreamName,
    name: &RollupName,
    public: &PublicKey,
) -> Result<Vec<RollupEntry>, String> {
    let payload =
        DsseEnvelope::open_exact(stored, public, ROLLUP_PAYLOAD_TYPE).map_err(|error| error.to_string())?;
    let payload: Payload =
        serde_json::from_slice(&payload).map_err(|_error| "its content cannot be read".to_owned())?;
    let expected = payload.format == FORMAT
        && &payload.vault == vault
        && &payload.stream == stream
        && payload.hour == name.hour
        && payload.part == name.part
        && payload.objects.iter().all(|entry| LogName::of(entry.first, entry.last) == Some(entry.name));
    if expected { Ok(payload.objects) } else { Err("it is another roll-up than its name says".to_owned()) }
}

/// The signed bytes of a roll-up.
fn seal(
    vault: &VaultId,
    stream: &StreamName,
    name: &RollupName,
    objects: Vec<RollupEntry>,
    signing: &SigningKey,
) -> Result<Vec<u8>, serde_json::Error> {
    let payload = Payload {
        format: FORMAT.to_owned(),
        vault: vault.clone(),
        stream: stream.clone(),
        hour: name.hour.clone(),
        part: name.part,
        objects,
    };
    Ok(signing.sign(ROLLUP_PAYLOAD_TYPE, &serde_json::to_vec(&payload)?).to_bytes())
}

impl Logs {
    /// Lists the objects of every hour closed at `now` that no roll-up lists yet; each of them is read and checked
    /// first. Writes at most one new part per hour and [`MAX_ROLLUP_ENTRIES`] objects, each durable when this
    /// returns; run again after a failure.
    ///
    /// A damaged object is listed nowhere and stays visible as damage.
    pub fn roll_up(&self, stream: &StreamName, now: Timestamp) -> Result<Vec<RollupRef>, LogsError> {
        let unlisted = self.unlisted(stream)?;
        let mut hours: BTreeMap<String, Vec<RollupEntry>> = BTreeMap::new();
        for entry in unlisted.entries.into_iter().filter(|entry| closed(entry.ended, now)) {
            hours.entry(hour_of(entry.ended)).or_default().push(entry);
        }
        let mut written = Vec::new();
        for (hour, mut entries) in hours {
            entries.sort_by_key(|entry| entry.name);
            let taken = unlisted.rollups.iter().filter(|name| name.hour == hour).map(|name| name.part).max();
            let free = taken.unwrap_or(0) + 1;
            for (part, entries) in (free..).zip(entries.chunks(MAX_ROLLUP_ENTRIES)) {
                let name = RollupName { hour: hour.clone(), part };
                let object = rollup_object(stream, &name);
                let bytes = seal(self.vault(), stream, &name, entries.to_vec(), self.signing())
                    .map_err(|source| LogsError::Encode { object: object.clone(), source: source.into() })?;
                match self.storage().put_new(&object, &[&bytes]) {
                    Ok(()) => written.push(RollupRef { object, entries_count: entries.len() }),
                    // Another writer was faster; what it left out is taken up by the next run.
                    Err(StorageError::AlreadyExists { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roll_up_names_have_one_spelling() {
        for text in ["20261121T13.json", "20261121T13-2.json", "20261121T13-10.json"] {
            assert_eq!(RollupName::parse(text).unwrap().file_name(), text);
        }
        for text in ["20261121T13", "20261121T13-1.json", "20261121T13-02.json", "20261121t13.json", "x.json"]
        {
            assert_eq!(RollupName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_hour_is_closed_only_after_its_grace() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let ended = at("2026-11-21T13:20:00.5Z");
        assert!(!closed(ended, at("2026-11-21T14:00:00Z")));
        assert!(!closed(ended, at("2026-11-21T14:04:59Z")));
        assert!(closed(ended, at("2026-11-21T14:05:01Z")));
        assert_eq!(hour_of(ended), "20261121T13");
    }
}
