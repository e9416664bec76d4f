//! Log that is durable here and not in every copy yet: finished pieces, and the one being written.
//!
//! A piece is a file of a 64-byte header and content. The header of the open piece says how much of it was synced, so
//! that after a crash exactly that much is taken over; the store still has the rest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::{SignedDuration, Timestamp};
use lifeboat_vault::logs::{ArrivalMark, LogName, MAX_MARKS_COUNT, Position};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"LBSPOOL1";
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const OPEN: &str = "open.part";
pub(super) const PIECE_SUFFIX: &str = ".piece";
/// Pieces end here at the latest, also where a store's own segments are larger.
pub(super) const MAX_PIECE_BYTES: u64 = 16 * 1024 * 1024;
/// Log that waits here for a copy that is away; beyond this the server keeps its log itself.
pub(super) const MAX_WAITING_BYTES: u64 = 16 << 30;

const NOTES: &str = "open.notes";
const NOTES_SUFFIX: &str = ".notes";
const NOTES_FORMAT: &str = "lifeboat.log-notes/v1";
/// Two marks lie at least so far apart.
const BETWEEN_MARKS: SignedDuration = SignedDuration::from_millis(100);

/// What belongs to a piece and has no room in its header: in a file beside it, written before what it speaks of counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notes {
    format: String,
    /// The engine's own name of the timeline.
    pub(super) history: Option<String>,
    /// Offsets before which everything had arrived at a moment, in milliseconds since 1970.
    marks: Vec<(u64, i64)>,
}

impl Notes {
    fn of(history: Option<&str>) -> Self {
        Self { format: NOTES_FORMAT.to_owned(), history: history.map(str::to_owned), marks: Vec::new() }
    }

    /// Everything before `offset` has arrived now.
    fn arrived(&mut self, offset: u64, now: Timestamp) {
        let now_ms = now.as_millisecond();
        // A clock that went back: what came before came by then as well.
        while self.marks.last().is_some_and(|(_, at)| *at >= now_ms) {
            self.marks.pop();
        }
        let near = |at: i64| SignedDuration::from_millis(now_ms.saturating_sub(at)) < BETWEEN_MARKS;
        if let [.., (_, before), _] = self.marks.as_slice()
            && near(*before)
        {
            self.marks.pop();
        }
        self.marks.push((offset, now_ms));
        if self.marks.len() > MAX_MARKS_COUNT {
            let mut keep = false;
            // Every other goes; the last stays.
            self.marks.reverse();
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
            self.marks.reverse();
        }
    }

    /// As a log object has them: what each adds to the one before.
    pub(super) fn marks(&self, head: &PieceHead) -> Vec<ArrivalMark> {
        let (mut offset, mut at) = (head.first.offset, 0);
        let end = head.last().offset;
        let known = self.marks.iter().filter(|(reached, _)| (head.first.offset..=end).contains(reached));
        known
            .map(|(reached, when)| {
                let mark = (reached - offset, when - at);
                (offset, at) = (*reached, *when);
                mark
            })
            .collect()
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => {
                other.map_err(|error| Failure::io(format!("failed to read {}", path.display()), error))?
            }
        };
        let damaged = || Failure::new(FailureKind::Damaged, format!("{} is damaged", path.display()));
        let notes: Self = serde_json::from_slice(&text).map_err(|_unreadable| damaged())?;
        if notes.format == NOTES_FORMAT { Ok(notes) } else { Err(damaged()) }
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        crashsafe::replace(path, &serde_json::to_vec(self)?)
    }
}

/// What is known about a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PieceHead {
    pub(super) first: Position,
    pub(super) length_bytes: u64,
    /// Where a timeline is entered.
    pub(super) follows: Option<Position>,
    pub(super) started: Timestamp,
    pub(super) ended: Timestamp,
}

impl PieceHead {
    /// The position after the last.
    pub(super) fn last(&self) -> Position {
        Position::new(self.first.timeline, self.first.offset + self.length_bytes)
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let follows = self.follows.unwrap_or(Position::new(0, 0));
        let fields: [&[u8]; 9] = [
            MAGIC,
            &self.length_bytes.to_le_bytes(),
            &self.first.timeline.to_le_bytes(),
            &follows.timeline.to_le_bytes(),
            &self.first.offset.to_le_bytes(),
            &follows.offset.to_le_bytes(),
            &self.started.as_microsecond().to_le_bytes(),
            &self.ended.as_microsecond().to_le_bytes(),
            &[0; 8],
        ];
        let mut bytes = [0; HEADER_BYTES];
        for (into, from) in bytes.iter_mut().zip(fields.concat()) {
            *into = from;
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC.as_slice())?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (timeline, rest) = rest.split_first_chunk::<4>()?;
        let (old, rest) = rest.split_first_chunk::<4>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (left, rest) = rest.split_first_chunk::<8>()?;
        let (started, rest) = rest.split_first_chunk::<8>()?;
        let (ended, _) = rest.split_first_chunk::<8>()?;
        let old = u32::from_le_bytes(*old);
        Some(Self {
            first: Position::new(u32::from_le_bytes(*timeline), u64::from_le_bytes(*first)),
            length_bytes: u64::from_le_bytes(*length),
            follows: (old > 0).then(|| Position::new(old, u64::from_le_bytes(*left))),
            started: Timestamp::from_microsecond(i64::from_le_bytes(*started)).ok()?,
            ended: Timestamp::from_microsecond(i64::from_le_bytes(*ended)).ok()?,
        })
    }
}

/// A finished piece.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) name: LogName,
    pub(super) head: PieceHead,
    path: PathBuf,
}

impl Piece {
    /// Reads its content.
    pub(super) fn open(&self) -> Result<impl Read + use<>, Failure> {
        let fail = |error| Failure::io(format!("failed to read {}", self.path.display()), error);
        let mut file = File::open(&self.path).map_err(fail)?;
        file.seek(SeekFrom::Start(HEADER_BYTES as u64)).map_err(fail)?;
        Ok(file.take(self.head.length_bytes))
    }

    /// What is noted beside it.
    pub(super) fn notes(&self) -> Result<Notes, Failure> {
        Notes::read(&self.notes_path())
    }

    fn notes_path(&self) -> PathBuf {
        self.path.with_file_name(format!("{}{NOTES_SUFFIX}", self.name))
    }

    /// It is in every copy.
    pub(super) fn remove(self) -> Result<(), Failure> {
        let fail = |error| Failure::io(format!("failed to remove {}", self.path.display()), error);
        crashsafe::remove(&self.path).map_err(fail)?;
        match crashsafe::remove(&self.notes_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            _ => Ok(()),
        }
    }
}

struct Open {
    file: File,
    head: PieceHead,
    written_bytes: u64,
    notes: Option<Notes>,
}

/// The spool of one store's log.
pub(super) struct Spool {
    folder: PathBuf,
    open: Option<Open>,
    /// The name of the history that is being written, where the store names them; then arrivals are noted, too.
    history: Option<String>,
}

impl Spool {
    /// The spool in `folder`, which is made if need be; what a killed process left of its open piece becomes a piece.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let fail = |error| Failure::io(format!("failed to use the spool {}", folder.display()), error);
        crashsafe::create_dir_all(folder).map_err(fail)?;
        crashsafe::sweep(folder).map_err(fail)?;
        let path = folder.join(OPEN);
        match File::open(&path) {
            Ok(mut file) => {
                let mut header = [0; HEADER_BYTES];
                let head = file.read_exact(&mut header).ok().and_then(|()| PieceHead::from_bytes(&header));
                match head
                    .filter(|head| head.length_bytes > 0)
                    .and_then(|head| Some((piece_name(&head)?, head)))
                {
                    Some((name, _)) => {
                        settle_notes(folder, name).map_err(fail)?;
                        crashsafe::publish(&path, &folder.join(format!("{name}{PIECE_SUFFIX}")))
                            .map_err(fail)?;
                    }
                    None => crashsafe::remove(&path).map_err(fail)?,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        Ok(Self { folder: folder.to_owned(), open: None, history: None })
    }

    /// What is pushed from now on belongs to the history of this name.
    pub(super) fn enter(&mut self, history: Option<String>) {
        self.history = history;
    }

    /// Everything that was pushed has arrived now; noted where histories are named.
    pub(super) fn arrived(&mut self, now: Timestamp) {
        if let Some(open) = &mut self.open
            && let Some(notes) = &mut open.notes
        {
            notes.arrived(open.head.first.offset + open.written_bytes, now);
        }
    }

    /// Appends to the open piece, or begins one at `at`.
    pub(super) fn push(
        &mut self,
        at: Position,
        bytes: &[u8],
        follows: Option<Position>,
        (as_of, newest): (Timestamp, Option<Timestamp>),
    ) -> Result<(), Failure> {
        let fail = |error| Failure::io("failed to write to the spool", error);
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let path = self.folder.join(OPEN);
                let head = PieceHead { first: at, length_bytes: 0, follows, started: as_of, ended: as_of };
                // Its name is durable before anything in it is called so.
                crashsafe::write_new(&path, &head.to_bytes()).map_err(fail)?;
                let file = OpenOptions::new().read(true).write(true).open(path).map_err(fail)?;
                let notes = self.history.as_deref().map(|name| Notes::of(Some(name)));
                none.insert(Open { file, head, written_bytes: 0, notes })
            }
        };
        let expected = Position::new(open.head.first.timeline, open.head.first.offset + open.written_bytes);
        if at != expected {
            let what = format!("the log goes on at {at}, expected was {expected}");
            return Err(Failure::new(FailureKind::Internal, what));
        }
        open.file.write_all_at(bytes, HEADER_BYTES as u64 + open.written_bytes).map_err(fail)?;
        open.written_bytes += bytes.len() as u64;
        open.head.ended = newest.map_or(open.head.ended, |newest| newest.max(open.head.ended));
        Ok(())
    }

    /// How much the open piece holds.
    pub(super) fn open_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.written_bytes)
    }

    /// Makes everything durable; gives the position after it.
    pub(super) fn sync(&mut self) -> Result<Option<Position>, Failure> {
        let fail = |error| Failure::io("failed to make the spool durable", error);
        let Some(open) = &mut self.open else { return Ok(None) };
        if open.head.length_bytes < open.written_bytes {
            open.file.sync_data().map_err(fail)?;
            if let Some(notes) = &open.notes {
                notes.write(&self.folder.join(NOTES)).map_err(fail)?;
            }
            // Written only after what it vouches for is durable.
            open.head.length_bytes = open.written_bytes;
            open.file.write_all_at(&open.head.to_bytes(), 0).map_err(fail)?;
            open.file.sync_data().map_err(fail)?;
        }
        Ok(Some(open.head.last()))
    }

    /// Ends the open piece; everything committed before `as_of` is in it or before it.
    pub(super) fn cut(&mut self, as_of: Timestamp) -> Result<(), Failure> {
        let fail = |error| Failure::io("failed to finish a piece of the spool", error);
        self.sync()?;
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.head.ended = open.head.ended.max(as_of);
        let Some(name) = piece_name(&open.head) else { return Ok(()) };
        open.file.write_all_at(&open.head.to_bytes(), 0).map_err(fail)?;
        open.file.sync_all().map_err(fail)?;
        settle_notes(&self.folder, name).map_err(fail)?;
        let path = self.folder.join(format!("{name}{PIECE_SUFFIX}"));
        crashsafe::publish(&self.folder.join(OPEN), &path).map_err(fail)
    }

    /// How much the finished pieces hold.
    pub(super) fn waiting_bytes(&self) -> Result<u64, Failure> {
        Ok(self.pieces()?.iter().map(|piece| piece.head.length_bytes).sum())
    }

    /// The finished pieces, oldest first.
    pub(super) fn pieces(&self) -> Result<Vec<Piece>, Failure> {
        pieces(&self.folder)
    }
}

/// The open piece is about to be called `name`, and so are its notes. After a kill in between this is done again.
fn settle_notes(folder: &Path, name: LogName) -> io::Result<()> {
    let path = folder.join(format!("{name}{NOTES_SUFFIX}"));
    match crashsafe::publish_over(&folder.join(NOTES), &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The finished pieces in `folder`, oldest first; none if there is no such folder.
pub(super) fn pieces(folder: &Path) -> Result<Vec<Piece>, Failure> {
    let fail = |error| Failure::io(format!("failed to list {}", folder.display()), error);
    let mut pieces = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(PIECE_SUFFIX));
        let Some(name) = name.and_then(|name| name.parse::<LogName>().ok()) else { continue };
        let mut header = [0; HEADER_BYTES];
        let read = File::open(&path).and_then(|mut file| file.read_exact(&mut header));
        if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Another process has just brought it to every copy.
            continue;
        }
        let head = read.ok().and_then(|()| PieceHead::from_bytes(&header));
        let Some(head) = head.filter(|head| piece_name(head) == Some(name)) else {
            return Err(Failure::new(FailureKind::Damaged, format!("{} is damaged", path.display())));
        };
        pieces.push(Piece { name, head, path });
    }
    pieces.sort_by_key(|piece| piece.name);
    Ok(pieces)
}

/// Puts a finished piece into the spool in `folder`, beside whoever writes the open one: it appears whole or not at all
/// and is durable when this returns. One of that name that is there already stays.
pub(super) fn put(folder: &Path, head: &PieceHead, bytes: &[u8]) -> Result<Option<LogName>, Failure> {
    let fail = |error| Failure::io("failed to put a piece into the spool", error);
    let Some(name) = piece_name(head) else { return Ok(None) };
    crashsafe::create_dir_all(folder).map_err(fail)?;
    let path = folder.join(format!("{name}{PIECE_SUFFIX}"));
    match crashsafe::write_new_pieces(&path, &[&head.to_bytes(), bytes]) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(fail(error)),
        _ => Ok(Some(name)),
    }
}

/// What is durable in the spool in `folder` and not known to be in every copy, in bytes. Changes nothing.
pub(super) fn left_bytes(folder: &Path) -> Result<u64, Failure> {
    if !folder.exists() {
        return Ok(0);
    }
    let mut header = [0; HEADER_BYTES];
    let open = File::open(folder.join(OPEN)).and_then(|mut file| file.read_exact(&mut header));
    let open = open.ok().and_then(|()| PieceHead::from_bytes(&header)).map_or(0, |head| head.length_bytes);
    Ok(open + pieces(folder)?.iter().map(|piece| piece.head.length_bytes).sum::<u64>())
}

pub(super) fn piece_name(head: &PieceHead) -> Option<LogName> {
    LogName::of(head.first, head.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position::new(1, offset)
    }

    fn moment(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn content(piece: &Piece) -> Vec<u8> {
        let mut bytes = Vec::new();
        piece.open().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_pushed_comes_back_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.push(at(100), b"abc", None, (moment(1), None)).unwrap();
        spool.push(at(103), b"de", None, (moment(1), Some(moment(5)))).unwrap();
        spool.cut(moment(4)).unwrap();
        spool.push(Position::new(2, 105), b"f", Some(at(105)), (moment(5), None)).unwrap();
        spool.cut(moment(9)).unwrap();
        let pieces = Spool::open(dir.path()).unwrap().pieces().unwrap();
        assert_eq!(pieces.iter().map(content).collect::<Vec<_>>(), [b"abcde".to_vec(), b"f".to_vec()]);
        assert_eq!((pieces[0].head.started, pieces[0].head.ended), (moment(1), moment(5)));
        assert_eq!((pieces[1].head.follows, pieces[1].head.ended), (Some(at(105)), moment(9)));
    }

    #[test]
    fn after_a_crash_exactly_what_was_synced_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.push(at(0), b"synced", None, (moment(1), None)).unwrap();
        assert_eq!(spool.sync().unwrap(), Some(at(6)));
        spool.push(at(6), b"not synced", None, (moment(1), None)).unwrap();
        drop(spool);
        let pieces = Spool::open(dir.path()).unwrap().pieces().unwrap();
        assert_eq!(pieces.len(), 1);
        assert_eq!(content(&pieces[0]), b"synced");
    }

    #[test]
    fn a_piece_that_was_put_beside_the_open_one_is_a_piece_like_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.push(at(100), b"open", None, (moment(1), None)).unwrap();
        let (first, follows) = (at(5), None);
        let head = PieceHead { first, length_bytes: 3, follows, started: moment(1), ended: moment(2) };
        assert!(put(dir.path(), &head, b"put").unwrap().is_some());
        assert!(put(dir.path(), &head, b"PUT").unwrap().is_some());
        let pieces = spool.pieces().unwrap();
        assert_eq!(pieces.iter().map(content).collect::<Vec<_>>(), [b"put".to_vec()]);
        assert_eq!(pieces[0].head, head);
    }

    #[test]
    fn log_that_does_not_go_on_where_it_ended_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.push(at(0), b"abc", None, (moment(1), None)).unwrap();
        assert!(spool.push(at(4), b"e", None, (moment(1), None)).is_err());
    }

    #[test]
    fn a_named_history_and_the_times_of_arrival_come_along_and_survive_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.enter(Some("first".to_owned()));
        spool.push(at(100), b"abc", None, (moment(1), None)).unwrap();
        spool.arrived(moment(10));
        spool.push(at(103), b"de", None, (moment(1), None)).unwrap();
        spool.arrived(moment(12));
        spool.sync().unwrap();
        spool.push(at(105), b"not synced", None, (moment(1), None)).unwrap();
        spool.arrived(moment(13));
        drop(spool);
        let pieces = Spool::open(dir.path()).unwrap().pieces().unwrap();
        let notes = pieces[0].notes().unwrap();
        assert_eq!(notes.history.as_deref(), Some("first"));
        assert_eq!(notes.marks(&pieces[0].head), [(3, 10_000), (2, 2_000)]);
        for piece in pieces {
            piece.remove().unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn marks_never_say_that_bytes_came_earlier_than_they_did_and_are_not_too_many() {
        let mut notes = Notes::of(Some("h"));
        let tick = |ms: i64| Timestamp::from_millisecond(1_000_000 + ms).unwrap();
        let mut arrivals = Vec::new();
        for step in 1..20_000_i64 {
            let (offset, ms) = (step.unsigned_abs() * 10, step * 37);
            notes.arrived(offset, tick(ms));
            arrivals.push((offset, 1_000_000 + ms));
        }
        assert!(notes.marks.len() <= MAX_MARKS_COUNT && notes.marks.len() > 500);
        assert!(notes.marks.iter().all(|mark| arrivals.contains(mark)));
        assert_eq!(notes.marks.last(), arrivals.last());
        // A clock that goes back: everything so far had arrived by then, too.
        notes.arrived(200_000, tick(5));
        assert!(notes.marks.iter().all(|(_, at)| *at <= 1_000_005));
        assert_eq!(notes.marks.last(), Some(&(200_000, 1_000_005)));
    }
}
