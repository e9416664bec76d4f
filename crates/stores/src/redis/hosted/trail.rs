//! The trail of a walk: where it has come to, for the next run if this one is killed.
//!
//! In: a file of this store alone. Out: a place to go on from. Neither names nor values are in it, and nothing rests on it: the run that goes
//! on walks over everything once from beginning to end and reads every key of its point itself. A trail that is old, damaged or another
//! server's makes that longer and loses no key. So it is written without syncing, what cannot be read of it is left out, and where it
//! cannot be kept there is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lifeboat_base::digest::Digest;
use lifeboat_base::time::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

const FORMAT: &str = "lifeboat.redis-trail/v1";
/// Nobody's cursor means anything after that.
const MAX_AGE_HOURS: i64 = 24;
/// A line is a place, or what comes before all places.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// How much of a digest stands before a line.
const SUM_CHARS: usize = 16;
const MODE: u32 = 0o600;

/// What a walk is of: places of another one mean nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    /// The server, as people call it.
    pub(super) target: String,
    pub(super) prefix: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    begun: Timestamp,
    of: Subject,
}

/// How far a walk has come: all databases below `db`, and in `db` up to a cursor, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) db: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<u64>,
}

impl Place {
    /// Behind the last database.
    pub(super) const END: Self = Self { db: u64::MAX, cursor: None };
}

/// Keeps the trail of a walk.
#[derive(Debug)]
pub(super) struct Trail {
    file: File,
}

impl Trail {
    /// The place that an earlier walk of `subject` at `path` came to, and the trail of this one. An old place is told once: a run that
    /// fails for its sake is followed by one that begins anew.
    pub(super) fn open(path: &Path, subject: &Subject, now: Timestamp) -> io::Result<(Self, Option<Place>)> {
        // A link is not followed, and nobody is waited for at the other end of a pipe.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut open = OpenOptions::new();
        open.read(true).append(true).create(true).mode(MODE).custom_flags(flags);
        let mut file = open.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let earlier = last(&file, subject, now)?;
        // The day counts from the first of the runs that go on from each other.
        let begun = earlier.map_or(now, |(begun, _)| begun);
        file.rewind()?;
        file.set_len(0)?;
        let header = Header { format: FORMAT.to_owned(), begun, of: subject.clone() };
        file.write_all(line(&header)?.as_bytes())?;
        Ok((Self { file }, earlier.map(|(_, place)| place)))
    }

    /// Keeps that a walk has come to `place`. Where that fails the next run goes on from an earlier one, or begins anew.
    pub(super) fn note(&mut self, place: Place) {
        drop(line(&place).and_then(|line| self.file.write_all(line.as_bytes())));
    }

    /// The walk at `path` has come to its end. What cannot be removed makes the next one go on without need.
    pub(super) fn remove(self, path: &Path) {
        drop(self);
        drop(fs::remove_file(path));
    }
}

fn line(what: &impl Serialize) -> io::Result<String> {
    let text = serde_json::to_string(what)?;
    Ok(format!("{} {text}\n", sum(&text)))
}

fn sum(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string().chars().take(SUM_CHARS).collect()
}

/// The next line, if it is whole.
fn next<T: for<'de> Deserialize<'de>>(reader: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    let text = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix('\n'));
    let whole = text.and_then(|text| text.split_once(' ')).filter(|(said, text)| *said == sum(text));
    Ok(whole.and_then(|(_, text)| serde_json::from_str(text).ok()))
}

/// The last place before what is damaged, and when the walk there was begun.
fn last(file: &File, subject: &Subject, now: Timestamp) -> io::Result<Option<(Timestamp, Place)>> {
    let mut reader = BufReader::new(file);
    let Some(header) = next::<Header>(&mut reader)? else { return Ok(None) };
    let is_young = header.begun <= now && now.duration_since(header.begun).as_hours() < MAX_AGE_HOURS;
    if !is_young || header.format != FORMAT || header.of != *subject {
        return Ok(None);
    }
    let mut place = None;
    while let Some(further) = next(&mut reader)? {
        place = Some(further);
    }
    Ok(place.map(|place| (header.begun, place)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use lifeboat_base::crashsafe;
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-05-04T03:02:01Z".parse().unwrap()
    }

    fn subject() -> Subject {
        Subject { target: "cache.example:6379".to_owned(), prefix: "app:".to_owned() }
    }

    fn at(cursor: u64) -> Place {
        Place { db: 0, cursor: Some(cursor) }
    }

    /// Three pages, and a run that is killed.
    fn leave(path: &Path) {
        let (mut trail, _) = Trail::open(path, &subject(), now()).unwrap();
        (100..103).for_each(|cursor| trail.note(at(cursor)));
    }

    #[test]
    fn a_trail_says_once_where_the_walk_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        assert_eq!(Trail::open(&path, &subject(), now()).unwrap().1, None);
        leave(&path);
        let (mut trail, place) = Trail::open(&path, &subject(), now()).unwrap();
        assert_eq!(place, Some(at(102)));
        assert_eq!(Trail::open(&path, &subject(), now()).unwrap().1, None);
        trail.note(Place::END);
        let (trail, place) = Trail::open(&path, &subject(), now()).unwrap();
        assert_eq!(place, Some(Place::END));
        trail.remove(&path);
        assert!(!path.exists());
        // Runs that go on from each other have one day in all.
        leave(&path);
        let (mut trail, place) =
            Trail::open(&path, &subject(), "2026-05-05T01:00:00Z".parse().unwrap()).unwrap();
        assert!(place.is_some());
        trail.note(at(200));
        let (_, place) = Trail::open(&path, &subject(), "2026-05-05T05:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(place, None);
    }

    #[test]
    fn what_is_of_something_else_or_old_or_of_the_future_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let others = [
            Subject { target: "other.example:6379".to_owned(), ..subject() },
            Subject { prefix: String::new(), ..subject() },
        ];
        for other in &others {
            leave(&path);
            assert_eq!(Trail::open(&path, other, now()).unwrap().1, None, "{other:?}");
        }
        for (when, is_taken) in
            [("2026-05-05T03:02:00Z", true), ("2026-05-05T03:02:01Z", false), ("2026-05-04T03:02:00Z", false)]
        {
            leave(&path);
            let (_, place) = Trail::open(&path, &subject(), when.parse().unwrap()).unwrap();
            assert_eq!(place.is_some(), is_taken, "{when}");
        }
    }

    #[test]
    fn what_is_no_file_is_neither_followed_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        crashsafe::write_new(&other, b"of somebody else").unwrap();
        let (link, pipe) = (folder.path().join("link"), folder.path().join("pipe"));
        symlink(&other, &link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        for path in [link.as_path(), &pipe, folder.path()] {
            Trail::open(path, &subject(), now()).unwrap_err();
        }
        assert_eq!(fs::read(&other).unwrap(), b"of somebody else");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_damaged_trail_is_taken_up_to_its_damage(at_byte in 0_usize..2000, flip in 1_u8..=255, cut: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cache");
            leave(&path);
            let mut bytes = fs::read(&path).unwrap();
            let damaged = at_byte % bytes.len();
            if cut { bytes.truncate(damaged) } else { bytes[damaged] ^= flip }
            crashsafe::replace(&path, &bytes).unwrap();
            let whole = bytes[..damaged].split(|byte| *byte == b'\n').count() - 1;
            let (_, place) = Trail::open(&path, &subject(), now()).unwrap();
            prop_assert_eq!(place, whole.checked_sub(2).map(|page| at(page as u64 + 100)));
        }
    }
}
