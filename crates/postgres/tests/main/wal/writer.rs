//! A writer of write-ahead log, after the server's description of its format and without the scanner's code.
//!
//! In: records. Out: the bytes, which of them nothing protects, and the events that a scan must find.

use lifeboat_base::time::Timestamp;
use lifeboat_postgres::wal::{Event, WalShape};
use lifeboat_postgres::{Lsn, Timeline};

pub(super) const SYSTEM: u64 = 7_300_000_000_000_000_001;
pub(super) const SHAPE: WalShape = WalShape { segment_bytes: 1 << 20, page_bytes: 1 << 10 };
/// The marks of versions 13 to 18.
pub(super) const VERSIONS: [(u32, u16); 6] =
    [(13, 0xD106), (14, 0xD10D), (15, 0xD110), (16, 0xD113), (17, 0xD116), (18, 0xD118)];

const CONTINUED: u16 = 1;
const LONG: u16 = 2;
/// Where a page header says how much is left of the record before.
const REMAINDER: std::ops::Range<usize> = 16..20;
const OVERWRITES: u16 = 8;

/// How far a byte is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Every bit counts.
    Full,
    /// All bits but this one, which only tells archivers something.
    AllBut(u8),
    /// Padding or filler; no server looks at it.
    None,
}

/// One record to be written.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) manager: u8,
    pub(super) info: u8,
    pub(super) xid: u32,
    pub(super) body: Vec<u8>,
}

/// The log so far.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) major: u32,
    pub(super) timeline: Timeline,
    pub(super) start: Lsn,
    pub(super) bytes: Vec<u8>,
    pub(super) care: Vec<Care>,
    pub(super) events: Vec<Event>,
    /// Start, end of the bytes, and end after padding of every record.
    pub(super) records: Vec<(Lsn, Lsn, Lsn)>,
    pub(super) previous: Lsn,
    magic: u16,
    overwrites: bool,
}

impl Writer {
    pub(super) fn new(major: u32, timeline: Timeline, start: Lsn) -> Self {
        let magic = VERSIONS.iter().find(|version| version.0 == major).unwrap().1;
        Self {
            major,
            timeline,
            start,
            bytes: Vec::new(),
            care: Vec::new(),
            events: Vec::new(),
            records: Vec::new(),
            previous: Lsn(start.0.saturating_sub(200)),
            magic,
            overwrites: false,
        }
    }

    pub(super) fn position(&self) -> Lsn {
        Lsn(self.start.0 + self.bytes.len() as u64)
    }

    pub(super) fn end(&self) -> Lsn {
        self.records.last().map_or(self.start, |record| record.2)
    }

    fn push(&mut self, bytes: &[u8], care: Care) {
        self.bytes.extend_from_slice(bytes);
        self.care.resize(self.bytes.len(), care);
    }

    /// Writes a page header if the position is the start of a page.
    fn open_page(&mut self, remainder_bytes: u32) {
        let at = self.position();
        if !at.0.is_multiple_of(u64::from(SHAPE.page_bytes)) {
            return;
        }
        let long = at.0.is_multiple_of(u64::from(SHAPE.segment_bytes));
        let mut flags = if remainder_bytes > 0 { CONTINUED } else { 0 };
        flags |= if long { LONG } else { 0 };
        flags |= if std::mem::take(&mut self.overwrites) { OVERWRITES } else { 0 };
        self.push(&self.magic.to_le_bytes(), Care::Full);
        let [low, high] = flags.to_le_bytes();
        self.push(&[low], Care::AllBut(4));
        self.push(&[high], Care::Full);
        self.push(&self.timeline.to_le_bytes(), Care::Full);
        self.push(&at.0.to_le_bytes(), Care::Full);
        self.push(&remainder_bytes.to_le_bytes(), Care::Full);
        self.push(&[0; 4], Care::None);
        if long {
            self.push(&SYSTEM.to_le_bytes(), Care::Full);
            self.push(&SHAPE.segment_bytes.to_le_bytes(), Care::Full);
            self.push(&SHAPE.page_bytes.to_le_bytes(), Care::Full);
        }
    }

    /// Bytes of a record, over as many pages as it takes.
    fn spread(&mut self, mut bytes: &[u8], care: Care) {
        while !bytes.is_empty() {
            self.open_page(u32::try_from(bytes.len()).unwrap());
            let in_page = self.position().0 % u64::from(SHAPE.page_bytes);
            let room = usize::try_from(u64::from(SHAPE.page_bytes) - in_page).unwrap();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.push(now, care);
            bytes = later;
        }
    }

    fn pad(&mut self) {
        while !self.position().0.is_multiple_of(8) {
            self.push(&[0], Care::None);
        }
    }

    /// The end of a record that started before the log does; nobody can check it, nor how long the first page says it is: a
    /// wrong length may lead to the start of a later record, whose predecessor is not known.
    pub(super) fn rest(&mut self, bytes: &[u8]) {
        let begins = self.bytes.is_empty();
        self.spread(bytes, Care::None);
        if begins && !bytes.is_empty() {
            self.care[REMAINDER].fill(Care::None);
        }
        self.pad();
    }

    /// The bytes of a record as it would be written here.
    fn encode(&self, draft: &Draft) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(u32::try_from(draft.body.len()).unwrap() + 24).to_le_bytes());
        bytes.extend_from_slice(&draft.xid.to_le_bytes());
        bytes.extend_from_slice(&self.previous.0.to_le_bytes());
        bytes.extend_from_slice(&[draft.info, draft.manager, 0, 0]);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&draft.body), &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&draft.body);
        bytes
    }

    /// Writes a record; `event` is told where it starts and ends.
    pub(super) fn record(&mut self, draft: &Draft, event: impl FnOnce(Lsn, Lsn) -> Option<Event>) -> Lsn {
        self.open_page(0);
        let lsn = self.position();
        self.spread(&self.encode(draft), Care::Full);
        let bytes_end = self.position();
        self.pad();
        self.previous = lsn;
        self.records.push((lsn, bytes_end, self.position()));
        self.events.extend(event(lsn, self.position()));
        lsn
    }

    /// As after a crash in the middle of a record: its first page is kept, and the next one starts anew and says so.
    pub(super) fn broken_off(&mut self, draft: &Draft, claimed: Option<Lsn>) {
        self.open_page(0);
        let lsn = self.position();
        let bytes = self.encode(draft);
        let room = u64::from(SHAPE.page_bytes) - lsn.0 % u64::from(SHAPE.page_bytes);
        let room = usize::try_from(room).unwrap();
        assert!(bytes.len() > room, "a record that fits its page cannot be broken off there");
        self.push(&bytes[..room], Care::None);
        self.overwrites = true;
        let mut main = claimed.unwrap_or(lsn).0.to_le_bytes().to_vec();
        main.extend_from_slice(&[0; 8]);
        let draft = Draft { manager: 0, info: 0xD0, xid: 0, body: main_data(&main) };
        self.record(&draft, |at, end| Some(Event::Overwritten { lsn: at, end, overwritten: lsn }));
    }

    /// Closes the segment; `filler` stands up to its end.
    pub(super) fn switch(&mut self, filler: u8) {
        let draft = Draft { manager: 0, info: 0x40, xid: 0, body: Vec::new() };
        self.record(&draft, |lsn, end| Some(Event::Switch { lsn, end }));
        while !self.position().0.is_multiple_of(u64::from(SHAPE.segment_bytes)) {
            self.push(&[filler], Care::None);
        }
    }

    /// Zeros up to the end of the segment.
    pub(super) fn blank(&mut self) {
        let filled = self.position().0.next_multiple_of(u64::from(SHAPE.segment_bytes)) - self.start.0;
        self.bytes.resize(usize::try_from(filled).unwrap(), 0);
    }
}

/// A record body of main data only.
pub(super) fn main_data(bytes: &[u8]) -> Vec<u8> {
    let mut body = main_header(bytes.len());
    body.extend_from_slice(bytes);
    body
}

/// The header of main data: short where it may be.
pub(super) fn main_header(length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(length) => vec![255, length],
        Err(_) => [&[254], &u32::try_from(length).unwrap().to_le_bytes()[..]].concat(),
    }
}

/// Microseconds as the server counts them.
pub(super) fn server_time(at: Timestamp) -> [u8; 8] {
    (at.as_microsecond() - 946_684_800_000_000).to_le_bytes()
}

pub(super) fn time(second: i64) -> Timestamp {
    Timestamp::from_microsecond(1_790_000_000_000_000 + second * 1_000_000 + 123_456).unwrap()
}
