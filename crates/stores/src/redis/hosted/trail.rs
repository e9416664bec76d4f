//! The trail of a walk: where it has come to and which keys it met, for the next run if this one is killed.
//!
//! In: a file of this store alone. Out: a place to go on from, and what is [`Known`] of the keys that were met. No value is in it, and
//! nothing that is in it becomes part of a point: the run that goes on walks over everything once from beginning to end and reads
//! every key itself. A trail that is old, damaged or another server's makes that longer or its numbers larger, and loses no key.
//! So it is written without syncing, and what cannot be read of it is left out.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::{Entropy, OsEntropy};
use lifeboat_base::failure::Failure;
use lifeboat_base::time::Timestamp;
use lifeboat_redis::scan::{Known, MAX_KEYS, NOTE_BYTES, Note};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "lifeboat.redis-trail/v1";
/// What is older says nothing about how much changes while one capture is made.
const MAX_AGE_HOURS: i64 = 24;
/// With more keys than this, those that are gone meanwhile could take the room of those that are there.
const MAX_EARLIER: usize = MAX_KEYS / 2;
/// A line is one page of names.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;
/// How much of a digest stands before a line.
const SUM_CHARS: usize = 16;

/// What a walk is of. Digests and names of another one mean nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    /// The server, as people call it.
    pub(super) target: String,
    pub(super) prefix: String,
    /// Whether ends are part of what is compared.
    pub(super) exact_ends: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    begun: Timestamp,
    of: Subject,
    /// What names are known by.
    named_by: String,
}

/// How far a walk has come: all databases below `db`, and in `db` up to a cursor, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) db: u64,
    pub(super) cursor: Option<u64>,
}

impl Place {
    /// Behind the last database.
    pub(super) const END: Self = Self { db: u64::MAX, cursor: None };
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    db: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<u64>,
    /// Notes of the keys that were met on the way there, one behind another.
    keys: String,
}

/// Keeps the trail of a walk.
#[derive(Debug)]
pub(super) struct Trail {
    path: PathBuf,
    /// Nothing once it could not be written.
    file: Option<File>,
}

/// What to begin with.
pub(super) struct Beginning {
    /// Nothing where none is kept.
    pub(super) trail: Option<Trail>,
    pub(super) known: Known,
    /// Where to go on; nothing for a walk from the beginning.
    pub(super) place: Option<Place>,
}

impl Trail {
    /// Goes on with the trail at `path`, in a folder that exists, if it is one of `subject` and young; else begins it.
    pub(super) fn open(path: &Path, subject: &Subject, now: Timestamp) -> Result<Beginning, Failure> {
        let fail = |error| {
            Failure::io(format!("the trail of the walk could not be kept in {}", path.display()), error)
        };
        if let Some((known, place, good)) = read(path, subject, now).map_err(fail)? {
            let file = OpenOptions::new().append(true).open(path).map_err(fail)?;
            // What is behind the last good line is of a run that was killed while it wrote.
            file.set_len(good).map_err(fail)?;
            return Ok(Beginning { trail: Some(Self::of(path, file)), known, place: Some(place) });
        }
        let mut secret = [0; 32];
        OsEntropy.fill(&mut secret);
        let header = Header {
            format: FORMAT.to_owned(),
            begun: now,
            of: subject.clone(),
            named_by: hex::encode(secret),
        };
        let line = line(&header).map_err(fail)?;
        crashsafe::replace(path, line.as_bytes()).map_err(fail)?;
        let file = OpenOptions::new().append(true).open(path).map_err(fail)?;
        let trail = Some(Self::of(path, file));
        Ok(Beginning { trail, known: Known::with_secret(secret), place: None })
    }

    fn of(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), file: Some(file) }
    }

    /// Keeps that a walk has come to `place`, and what it met on the way. Never fails: without a trail the next run begins anew.
    pub(super) fn note(&mut self, place: Place, keys: &[Note]) {
        let Some(file) = &mut self.file else { return };
        let keys = STANDARD.encode(keys.as_flattened());
        let page = Page { db: place.db, cursor: place.cursor, keys };
        if line(&page).and_then(|line| file.write_all(line.as_bytes())).is_err() {
            // A place that is full: what is there is whole up to its last line, and takes room from others.
            self.file = None;
            drop(crashsafe::remove(&self.path));
        }
    }

    /// The walk has come to its end.
    pub(super) fn remove(mut self) -> Result<(), Failure> {
        match self.file.take() {
            Some(_) => crashsafe::remove(&self.path)
                .map_err(|error| Failure::io(format!("failed to remove {}", self.path.display()), error)),
            None => Ok(()),
        }
    }
}

fn line(what: &impl Serialize) -> io::Result<String> {
    let text = serde_json::to_string(what)?;
    Ok(format!("{} {text}\n", sum(&text)))
}

fn sum(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string().chars().take(SUM_CHARS).collect()
}

/// The next line that is whole, with its length in the file.
fn next<T: for<'de> Deserialize<'de>>(reader: &mut impl BufRead) -> io::Result<Option<(T, u64)>> {
    let mut line = Vec::new();
    let read = reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    let text = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix('\n'));
    let whole = text.and_then(|text| text.split_once(' ')).filter(|(said, text)| *said == sum(text));
    Ok(whole.and_then(|(_, text)| Some((serde_json::from_str(text).ok()?, read as u64))))
}

/// What an earlier run left that can be used: what it knew, how far it had come, and how many bytes of the file are whole.
fn read(path: &Path, subject: &Subject, now: Timestamp) -> io::Result<Option<(Known, Place, u64)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut reader = BufReader::new(file);
    let Some((header, mut good)) = next::<Header>(&mut reader)? else { return Ok(None) };
    let age_hours = now.duration_since(header.begun).as_hours();
    let is_young = header.begun <= now && age_hours < MAX_AGE_HOURS;
    let secret = hex::decode(&header.named_by).ok().and_then(|secret| <[u8; 32]>::try_from(secret).ok());
    let Some(secret) = secret.filter(|_| is_young && header.format == FORMAT && header.of == *subject) else {
        return Ok(None);
    };
    let mut known = Known::with_secret(secret);
    let mut place = None;
    while let Some((page, bytes)) = next::<Page>(&mut reader)? {
        let Ok(keys) = STANDARD.decode(&page.keys) else { break };
        let (notes, []) = keys.as_chunks::<NOTE_BYTES>() else { break };
        if known.count() + notes.len() > MAX_EARLIER {
            return Ok(None);
        }
        for note in notes {
            known.remember(note);
        }
        place = Some(Place { db: page.db, cursor: page.cursor });
        good += bytes;
    }
    Ok(place.map(|place| (known, place, good)))
}

#[cfg(test)]
mod tests {
    use lifeboat_redis::scan::Seen;
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-05-04T03:02:01Z".parse().unwrap()
    }

    fn subject() -> Subject {
        Subject { target: "cache.example:6379".to_owned(), prefix: "app:".to_owned(), exact_ends: true }
    }

    fn seen(number: u64) -> Seen {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        Seen::new(&digest, None)
    }

    /// Three pages of ten keys, and a run that is killed.
    fn leave(path: &Path) {
        let Beginning { trail, mut known, place } = Trail::open(path, &subject(), now()).unwrap();
        let mut trail = trail.unwrap();
        assert_eq!((place, known.count()), (None, 0));
        for page in 0..3_u64 {
            let keys: Vec<Note> = (page * 10..page * 10 + 10)
                .map(|number| {
                    known.add(0, &number.to_be_bytes(), seen(number));
                    known.note(0, &number.to_be_bytes(), &seen(number))
                })
                .collect();
            trail.note(Place { db: 0, cursor: Some(page + 100) }, &keys);
        }
    }

    #[test]
    fn a_trail_says_where_the_walk_was_and_what_it_met() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        leave(&path);
        let Beginning { trail, mut known, place } = Trail::open(&path, &subject(), now()).unwrap();
        assert_eq!((place, known.count()), (Some(Place { db: 0, cursor: Some(102) }), 30));
        for number in 0..30_u64 {
            let (was, _) = known.again(0, &number.to_be_bytes()).unwrap();
            assert!(was.is_earlier() && was.has_content_of(&seen(number)), "{number}");
        }
        // One that came to its end leaves nothing.
        trail.unwrap().remove().unwrap();
        assert!(!path.exists());
        assert_eq!(Trail::open(&path, &subject(), now()).unwrap().place, None);
    }

    #[test]
    fn what_is_of_something_else_or_old_or_of_the_future_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let others = [
            Subject { target: "other.example:6379".to_owned(), ..subject() },
            Subject { prefix: String::new(), ..subject() },
            Subject { exact_ends: false, ..subject() },
        ];
        for other in &others {
            leave(&path);
            assert_eq!(Trail::open(&path, other, now()).unwrap().place, None, "{other:?}");
            crashsafe::remove(&path).unwrap();
        }
        for (when, is_taken) in
            [("2026-05-05T03:02:00Z", true), ("2026-05-05T03:02:01Z", false), ("2026-05-04T03:02:00Z", false)]
        {
            leave(&path);
            let begun = Trail::open(&path, &subject(), when.parse().unwrap()).unwrap();
            assert_eq!(begun.place.is_some(), is_taken, "{when}");
            crashsafe::remove(&path).unwrap();
        }
    }

    proptest! {
        #[test]
        fn a_damaged_trail_is_taken_up_to_its_damage(at in 0_usize..2000, flip in 1_u8..=255, cut: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cache");
            leave(&path);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            crashsafe::replace(&path, &bytes).unwrap();
            let whole = bytes[..at].split(|byte| *byte == b'\n').count() - 1;
            let Beginning { known, place, .. } = Trail::open(&path, &subject(), now()).unwrap();
            let pages = whole.saturating_sub(1);
            prop_assert_eq!(known.count(), pages * 10);
            let cursor = pages.checked_sub(1).map(|page| page as u64 + 100);
            prop_assert_eq!(place, cursor.map(|cursor| Place { db: 0, cursor: Some(cursor) }));
        }
    }
}
