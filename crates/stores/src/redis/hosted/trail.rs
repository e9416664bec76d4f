//! What was read of a server so far, in a folder that outlives the process: a capture that was killed goes on where it was.
//!
//! A piece is a file of whole lines and a mark, written once the lines are synced: where the walk was behind them. Lines without
//! a mark count for nothing. Mode 0600, and gone before the point exists, so nothing of it is ever taken twice. Disk: as much as
//! the keys as lines, at most 16 GiB; beyond that a killed capture goes on from there. Whatever fails here costs only that.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_base::crashsafe;
use lifeboat_base::digest::{Digest, Hasher, digest_of_reader};
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::{Clock, SignedDuration, Timestamp};
use lifeboat_redis::rdb::Survey;
use lifeboat_redis::scan::{Abilities, Closed, Head, Known, Part, Seen, Sink};
use serde::{Deserialize, Serialize};

use super::parse;
use super::passes::{Begun, Found, Place, seen};

const FORMAT: &str = "lifeboat.redis-trail/v1";
const BEGINNING: &str = "beginning.json";
/// A mark is set behind a page when there is so much since the last one, or when that is so long ago.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
const PIECE_TIME: Duration = Duration::from_secs(1);
/// What is kept at most.
const MAX_BYTES: u64 = 16 << 30;
/// What was begun longer ago is not gone on with.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// The same of the last mark, where a service does not say which server answers.
const MAX_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// The most marks; a second apart they last a day.
const MAX_PIECES: u64 = 100_000;

/// When a walk was begun and of what. What goes on must begin with the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beginning {
    format: String,
    begun: Timestamp,
    target: String,
    run_id: Option<String>,
    /// What it is to others, and the history that it has: one that became a replica meanwhile has lost writes.
    role: Option<String>,
    history: Option<String>,
    prefix: String,
    exact_ends: bool,
    field_ends: bool,
}

impl Beginning {
    pub(super) fn of(target: String, prefix: &str, abilities: &Abilities, begun: Timestamp) -> Self {
        Self {
            format: FORMAT.to_owned(),
            begun,
            target,
            run_id: abilities.info.get("run_id").map(str::to_owned),
            role: abilities.info.get("role").map(str::to_owned),
            history: abilities.info.get("master_replid").map(str::to_owned),
            prefix: prefix.to_owned(),
            exact_ends: abilities.exact_ends,
            field_ends: abilities.field_ends,
        }
    }
}

/// Where a walk was behind a piece, and what had been counted until then beside the keys in the lines.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mark {
    at: Timestamp,
    bytes: u64,
    sha256: Digest,
    db: u64,
    cursor: String,
    is_over: bool,
    gone: u64,
    torn: u64,
    repeated: u64,
    restarts: u32,
    unknown: BTreeMap<String, u64>,
    unread: u64,
    /// Of this piece: keys that could not be read, and why.
    unreadable: Vec<String>,
    /// Keys of this piece that were met and have no line: database and name in base64.
    others: Vec<(u64, String)>,
}

/// What a capture that did not end has left.
pub(super) struct Left {
    dir: PathBuf,
    pub(super) begun: Timestamp,
    marks: Vec<Mark>,
}

/// How a trail is found or begun.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) left: Option<Left>,
    /// Nothing where the folder cannot be written.
    pub(super) trail: Option<Trail>,
    /// What a person should know.
    pub(super) notice: Option<String>,
}

fn lines(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{number:06}.lines"))
}

fn mark(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{number:06}.mark"))
}

/// Looks for what a capture left that can be gone on with; else begins anew.
pub(super) fn open(dir: &Path, beginning: &Beginning, (has_name, clock): (bool, &dyn Clock)) -> Opened {
    let mut notice = None;
    match left(dir, beginning, (has_name, clock.now())) {
        Ok(Some(left)) => {
            let begun = left.begun;
            let notice = Some(format!("going on with the capture that was begun at {begun} and did not end"));
            let trail = Some(Trail::new(dir, &left.marks, clock));
            return Opened { left: Some(left), trail, notice };
        }
        Ok(None) => {}
        Err(why) => {
            let text = format!("a capture that did not end cannot be gone on with, and begins again: {why}");
            notice = Some(text);
        }
    }
    // One who cannot name the server that answers could never go on.
    let is_of_use = beginning.run_id.is_some() || !has_name;
    let begin = || {
        crashsafe::remove_tree(dir)?;
        if !is_of_use {
            return Ok(None);
        }
        crashsafe::create_dir_all(dir)?;
        crashsafe::write_new(&dir.join(BEGINNING), &serde_json::to_vec(beginning)?)?;
        Ok::<_, io::Error>(Some(Trail::new(dir, &[], clock)))
    };
    match begin() {
        Ok(trail) => Opened { left: None, trail, notice },
        Err(error) => {
            let why = format!("this capture could not go on if it were killed: {error}");
            Opened { left: None, trail: None, notice: notice.or(Some(why)) }
        }
    }
}

/// Everything that is whole; an error is a reason to begin anew. `has_name`: a server of this kind says who it is.
fn left(dir: &Path, now: &Beginning, (has_name, clock): (bool, Timestamp)) -> Result<Option<Left>, String> {
    let said = |error: io::Error| error.to_string();
    let text = match fs::read(dir.join(BEGINNING)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(said)?,
    };
    let was: Beginning =
        serde_json::from_slice(&text).map_err(|_unreadable| "its beginning cannot be read")?;
    crashsafe::sweep(dir).map_err(said)?;
    let mut marks = Vec::new();
    for number in 1.. {
        let text = match fs::read(mark(dir, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            other => other.map_err(said)?,
        };
        let found: Mark =
            serde_json::from_slice(&text).map_err(|_unreadable| "one of its marks cannot be read")?;
        marks.push(found);
    }
    let Some(last) = marks.last() else { return Ok(None) };
    let same = Beginning {
        begun: now.begun,
        run_id: now.run_id.clone(),
        role: now.role.clone(),
        history: now.history.clone(),
        ..was.clone()
    };
    if same != *now {
        return Err("it read another place, or in another way".to_owned());
    }
    if (&was.run_id, &was.role, &was.history) != (&now.run_id, &now.role, &now.history) {
        return Err("another server answers now, or one in another role or with another history".to_owned());
    }
    if was.run_id.is_none() && (has_name || clock.duration_since(last.at) > MAX_PAUSE) {
        return Err("nobody says whether the same server answers".to_owned());
    }
    // A clock that went back proves no age.
    if clock.duration_since(was.begun) > MAX_AGE || clock < last.at {
        return Err(format!("it was begun at {}", was.begun));
    }
    for (index, mark) in marks.iter().enumerate() {
        let found = File::open(lines(dir, index + 1)).and_then(digest_of_reader).map_err(said)?;
        if found != (mark.sha256, mark.bytes) {
            return Err("what it had read is damaged".to_owned());
        }
    }
    Ok(Some(Left { dir: dir.to_owned(), begun: was.begun, marks }))
}

impl Left {
    /// Hands out the lines again, and knows every key in them as if it had just been read. Each is compared with its digest.
    /// After a failure nothing is left to be gone on with.
    pub(super) fn replay(self, out: &mut impl Write, about: (&Abilities, i64)) -> Result<Begun, Failure> {
        let dir = self.dir.clone();
        self.learn(out, about).map_err(|failure| {
            let what = match crashsafe::remove_tree(&dir) {
                Ok(()) => {
                    "what a killed capture has left cannot be used; the next backup begins anew".to_owned()
                }
                Err(error) => format!(
                    "what a killed capture has left cannot be used; remove {} ({error})",
                    dir.display()
                ),
            };
            Failure::with_source(FailureKind::Internal, what, failure)
        })
    }

    fn learn(self, out: &mut impl Write, (abilities, now_ms): (&Abilities, i64)) -> Result<Begun, Failure> {
        let (mut known, mut survey, mut bytes) = (Known::new(&OsEntropy), Survey::default(), 0);
        let unreadable_keys = self.marks.iter().flat_map(|mark| mark.unreadable.iter().cloned()).collect();
        let unreadable = |error| Failure::io("what was read before cannot be read again", error);
        for (index, mark) in self.marks.iter().enumerate() {
            let file = File::open(lines(&self.dir, index + 1)).map_err(unreadable)?;
            let source = Copying { file, out };
            let mut keys = Keys { known: &mut known, abilities, head: None, bytes: &mut bytes };
            survey = parse::piece(source, now_ms, &mut keys, survey, unreadable)?;
            for (db, name) in &mark.others {
                let name = STANDARD.decode(name).map_err(|_odd| damaged())?;
                known.add(*db, &name, Seen::new(&[0; 32], None));
            }
        }
        let Some(last) = self.marks.into_iter().next_back() else { return Err(damaged()) };
        let place = Place { db: last.db, cursor: last.cursor.into_bytes(), is_over: last.is_over };
        let found = Found {
            survey,
            bytes,
            gone: last.gone,
            torn: last.torn,
            repeated: last.repeated,
            restarts: last.restarts,
            unknown: last.unknown,
            unreadable: unreadable_keys,
            unread: last.unread,
            ..Found::default()
        };
        Ok(Begun { known, found, place: Some(place) })
    }
}

fn damaged() -> Failure {
    Failure::new(FailureKind::Damaged, "what was read before is damaged")
}

/// Gives what it reads, and hands the same on.
struct Copying<'a, W> {
    file: File,
    out: &'a mut W,
}

impl<W: Write> Read for Copying<'_, W> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.out.write_all(into.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}

/// Learns keys from their lines.
struct Keys<'a> {
    known: &'a mut Known,
    abilities: &'a Abilities,
    head: Option<Head>,
    bytes: &'a mut u64,
}

impl Sink for Keys<'_> {
    type Error = io::Error;

    fn open(&mut self, head: &Head) -> io::Result<()> {
        *self.bytes += head.name.len() as u64;
        self.head = Some(head.clone());
        Ok(())
    }

    fn part(&mut self, part: &Part) -> io::Result<()> {
        *self.bytes += part.bytes();
        Ok(())
    }

    fn close(&mut self, closed: &Closed) -> io::Result<()> {
        let Some(head) = self.head.take().filter(|head| !self.known.has(head.db, &head.name)) else {
            return Err(io::Error::other("a key stands in it twice"));
        };
        self.known.add(head.db, &head.name, seen(self.abilities, &head, closed));
        Ok(())
    }

    fn void(&mut self) -> io::Result<()> {
        self.head = None;
        Ok(())
    }
}

/// Keeps what is read.
pub(super) struct Trail {
    dir: PathBuf,
    /// Pieces with a mark.
    number: usize,
    piece: Option<(File, Hasher, u64)>,
    /// In all pieces with a mark.
    bytes: u64,
    /// How many of the keys that could not be read stand in one.
    named: usize,
    marked: Duration,
    /// Why nothing is kept any more.
    pub(super) over: Option<String>,
}

impl Trail {
    fn new(dir: &Path, left: &[Mark], clock: &dyn Clock) -> Self {
        Self {
            dir: dir.to_owned(),
            number: left.len(),
            piece: None,
            bytes: left.iter().map(|mark| mark.bytes).sum(),
            named: left.iter().map(|mark| mark.unreadable.len()).sum(),
            marked: clock.monotonic(),
            over: None,
        }
    }

    /// No mark is set from here on.
    fn end(&mut self, why: impl Into<String>) {
        self.over.get_or_insert(why.into());
        self.piece = None;
    }

    /// Keeps bytes of lines.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.over.is_none()
            && let Err(error) = self.write(bytes)
        {
            self.end(error.to_string());
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (file, hasher, length) = match &mut self.piece {
            Some(piece) => piece,
            none => none.insert((create(&lines(&self.dir, self.number + 1))?, Hasher::new(), 0)),
        };
        if self.bytes + *length + bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::other("the keys take more than is kept of them"));
        }
        file.write_all(bytes)?;
        hasher.update(bytes);
        *length += bytes.len() as u64;
        Ok(())
    }

    /// Behind a page: everything until here is in the lines, which were handed over. Sets a mark if it is time.
    pub(super) fn page(&mut self, place: &Place, found: &mut Found, (is_same, clock): (bool, &dyn Clock)) {
        if !is_same {
            // A cursor of another server means nothing to the one that is named in the beginning.
            self.end("another server answers");
        }
        if self.over.is_some() {
            found.others.clear();
            return;
        }
        let length = self.piece.as_ref().map_or(0, |(_, _, length)| *length);
        let is_long_ago = clock.monotonic().saturating_sub(self.marked) >= PIECE_TIME;
        if !(length >= PIECE_BYTES || is_long_ago || place.is_over) {
            return;
        }
        if let Err(error) = self.mark(place, found, clock.now()) {
            self.end(error.to_string());
        }
        self.marked = clock.monotonic();
    }

    fn mark(&mut self, place: &Place, found: &mut Found, at: Timestamp) -> io::Result<()> {
        if self.number as u64 >= MAX_PIECES {
            return Err(io::Error::other("there are more pieces than are kept"));
        }
        self.write(&[])?;
        let Some((file, hasher, bytes)) = self.piece.take() else { return Ok(()) };
        file.sync_all()?;
        let others = std::mem::take(&mut found.others);
        let text = Mark {
            at,
            bytes,
            sha256: hasher.finish(),
            db: place.db,
            cursor: String::from_utf8_lossy(&place.cursor).into_owned(),
            is_over: place.is_over,
            gone: found.gone,
            torn: found.torn,
            repeated: found.repeated,
            restarts: found.restarts,
            unknown: found.unknown.clone(),
            unread: found.unread,
            unreadable: found.unreadable.get(self.named..).unwrap_or_default().to_vec(),
            others: others.iter().map(|(db, name)| (*db, STANDARD.encode(name))).collect(),
        };
        crashsafe::write_new(&mark(&self.dir, self.number + 1), &serde_json::to_vec(&text)?)?;
        self.number += 1;
        self.bytes += bytes;
        self.named = found.unreadable.len();
        Ok(())
    }
}

/// A file in place of one that a killed run did not mark.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use lifeboat_base::time::SystemClock;
    use lifeboat_redis::wire::Info;

    use super::*;

    fn beginning(info: &str, begun: Timestamp) -> Beginning {
        let abilities = Abilities { info: Info::read(info), ..Abilities::default() };
        Beginning::of("server".to_owned(), "app:", &abilities, begun)
    }

    /// A trail with one mark behind this text, begun and marked now.
    fn trail(dir: &Path, beginning: &Beginning) {
        let clock = SystemClock::new();
        let mut trail = open(dir, beginning, (false, &clock)).trail.unwrap();
        trail.push(b"a line\n");
        let place = Place { db: 3, cursor: b"17".to_vec(), is_over: true };
        trail.page(&place, &mut Found::default(), (true, &clock));
        assert_eq!((trail.number, trail.over), (1, None));
    }

    #[test]
    fn a_walk_is_gone_on_with_on_the_very_same_server_only_and_not_for_ever() {
        const INFO: &str = "run_id:a\nrole:master\nmaster_replid:h";
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("kept");
        let now = SystemClock::new().now();
        trail(&dir, &beginning(INFO, now));
        let later = |hours: i64| now + SignedDuration::from_hours(hours) + SignedDuration::from_mins(1);
        let goes_on = |info: &str, hours: i64, has_name| {
            let again = beginning(info, later(hours));
            left(&dir, &again, (has_name, later(hours)))
                .is_ok_and(|left| left.is_some_and(|left| left.begun == now))
        };
        assert!(goes_on(INFO, 0, true) && goes_on(INFO, 23, true) && goes_on(INFO, 2, false));
        assert!(!goes_on(INFO, 24, true));
        for (from, to) in [("run_id:a", "run_id:b"), ("master\n", "slave\n"), ("replid:h", "replid:i")] {
            assert!(!goes_on(&INFO.replace(from, to), 0, true), "{to}");
        }
        let prefix = Beginning { prefix: "other:".to_owned(), ..beginning(INFO, now) };
        assert!(left(&dir, &prefix, (true, later(0))).is_err());
        // A mark without its lines, and lines without a mark.
        fs::remove_file(lines(&dir, 1)).unwrap();
        assert!(!goes_on(INFO, 0, true));
        fs::remove_file(mark(&dir, 1)).unwrap();
        assert!(left(&dir, &beginning(INFO, later(0)), (true, later(0))).unwrap().is_none());
    }

    #[test]
    fn a_service_that_names_no_server_is_gone_on_with_for_an_hour() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("kept");
        let now = SystemClock::new().now();
        trail(&dir, &beginning("", now));
        let again = |minutes: i64, has_name| {
            let at = now + SignedDuration::from_mins(minutes);
            left(&dir, &beginning("", at), (has_name, at)).is_ok_and(|left| left.is_some())
        };
        assert!(again(50, false) && !again(70, false) && !again(50, true));
    }
}
