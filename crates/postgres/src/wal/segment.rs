//! Whether a segment file is the segment it is named after, as an archive must know before it keeps it.
//!
//! In: a name and the file's bytes, in pieces of any length. Out: [`Event`]s and [`SegmentFacts`]. Memory: as a
//! [`Scanner`].

use super::error::{PageFault, WalError};
use super::event::Event;
use super::page::{LONG_HEADER_BYTES, PageHeader, SegmentHeader, WalShape};
use super::scanner::Scanner;
use crate::lsn::{Lsn, Timeline, parse_segment_name};

/// What a segment file is, as its own bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// The timeline of its name; its first pages may be copies of an older one.
    pub timeline: Timeline,
    /// Its first position.
    pub start: Lsn,
    /// The cluster it comes from.
    pub system_identifier: u64,
    /// The major version of the server that wrote it.
    pub major: u32,
    /// The sizes of the cluster's log.
    pub shape: WalShape,
    /// Where the first record starts that was checked. What stands before it is the rest of a record of the segment
    /// before, which only a scan of both can check.
    pub first_record: Option<Lsn>,
    /// Where the last whole record ends.
    pub record_end: Option<Lsn>,
    /// Where the record starts that goes on in the next segment. Its event, if it has one, is not among the events of
    /// either: a scan that starts at its page and goes on into the next segment finds it.
    pub unfinished: Option<Lsn>,
    /// Whether it is closed by a switch; what follows is filler.
    pub switched: bool,
    /// Where nothing more is written, if the segment is neither full nor closed. An archived segment is so only as
    /// the last of a timeline that was left.
    pub log_end: Option<Lsn>,
}

/// The check of one segment file as it is read.
#[derive(Debug)]
pub struct SegmentScan {
    name: String,
    system_identifier: Option<u64>,
    head: Vec<u8>,
    found_bytes: u64,
    scan: Option<(Scanner, Timeline, Lsn, WalShape)>,
}

impl SegmentScan {
    /// The check of a file of this name, of 24 hexadecimal digits; `.partial` and other endings are for the caller to
    /// take off. Without a system identifier the file says which system it is of.
    pub fn new(name: &str, system_identifier: Option<u64>) -> Self {
        let head = Vec::with_capacity(LONG_HEADER_BYTES);
        Self { name: name.to_owned(), system_identifier, head, found_bytes: 0, scan: None }
    }

    /// Takes the next bytes of the file.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), WalError> {
        self.found_bytes += bytes.len() as u64;
        if self.scan.is_none() {
            let count = (LONG_HEADER_BYTES - self.head.len()).min(bytes.len());
            let (now, later) = bytes.split_at(count);
            self.head.extend_from_slice(now);
            bytes = later;
            let Some(head) = self.head.first_chunk() else { return Ok(()) };
            self.scan = Some(begin(&self.name, self.system_identifier, head, events)?);
        }
        let Some((scanner, _, _, shape)) = &mut self.scan else { return Ok(()) };
        if self.found_bytes > u64::from(shape.segment_bytes) {
            return Err(wrong_length(&self.name, self.found_bytes, shape.segment_bytes));
        }
        scanner.feed(bytes, events)
    }

    /// The file is over.
    pub fn finish(self) -> Result<SegmentFacts, WalError> {
        let Some((scanner, timeline, start, shape)) = self.scan else {
            return Err(wrong_length(&self.name, self.found_bytes, 0));
        };
        let (Some(system_identifier), Some(major)) = (scanner.system_identifier(), scanner.major()) else {
            return Err(wrong_length(&self.name, self.found_bytes, 0));
        };
        if self.found_bytes != u64::from(shape.segment_bytes) {
            return Err(wrong_length(&self.name, self.found_bytes, shape.segment_bytes));
        }
        Ok(SegmentFacts {
            timeline,
            start,
            system_identifier,
            major,
            shape,
            first_record: scanner.first_record(),
            record_end: scanner.record_end(),
            unfinished: scanner.unfinished(),
            switched: scanner.is_switched(),
            log_end: scanner.log_end(),
        })
    }
}

/// Checks a segment that is in memory; see [`SegmentScan`] for one that is not.
pub fn check_segment(
    name: &str,
    bytes: &[u8],
    system_identifier: Option<u64>,
    events: &mut Vec<Event>,
) -> Result<SegmentFacts, WalError> {
    let mut scan = SegmentScan::new(name, system_identifier);
    scan.feed(bytes, events)?;
    scan.finish()
}

/// The segment's own header gives the sizes, which the name and the scan then must fit.
fn begin(
    name: &str,
    system_identifier: Option<u64>,
    head: &[u8; LONG_HEADER_BYTES],
    events: &mut Vec<Event>,
) -> Result<(Scanner, Timeline, Lsn, WalShape), WalError> {
    let address = PageHeader::read(head).address;
    let SegmentHeader { segment_bytes, page_bytes, .. } = SegmentHeader::read(head);
    let shape = WalShape { segment_bytes, page_bytes };
    if shape.check().is_err() {
        return Err(WalError::Page { at: address, fault: PageFault::Sizes { segment_bytes, page_bytes } });
    }
    let (timeline, start) = parse_segment_name(name, segment_bytes)
        .ok_or_else(|| WalError::Name { name: name.to_owned(), segment_bytes })?;
    let mut scanner = Scanner::new(shape, timeline, system_identifier, start)?;
    scanner.feed(head, events)?;
    Ok((scanner, timeline, start, shape))
}

fn wrong_length(name: &str, found_bytes: u64, segment_bytes: u32) -> WalError {
    WalError::FileLength { name: name.to_owned(), found_bytes, segment_bytes }
}
