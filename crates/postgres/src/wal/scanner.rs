//! The scanner: ties pages and records together over a stream that is cut anywhere.
//!
//! In: the bytes of one timeline's log from the start of a page on. Out: [`Event`]s of whole, checked records. Memory:
//! less than 1 KiB (and the history, if given), whatever is fed.

use super::error::WalError;
use super::event::Event;
use super::history::TimelineHistory;
use super::page::{PageHeader, WalShape};
use super::pages::Pages;
use super::records::Records;
use crate::lsn::{Lsn, Timeline};

/// Reads one timeline's log as it comes. A log that ends in the middle of a record, or with zeros after one, is simply
/// not finished: [`Scanner::unfinished`] and [`Scanner::log_end`] tell.
#[derive(Clone, Debug)]
pub struct Scanner {
    shape: WalShape,
    position: Lsn,
    pages: Pages,
    records: Records,
    failure: Option<WalError>,
}

impl Scanner {
    /// A scan from `start`, the start of a page; a record that began before it is skipped. Without a system identifier
    /// the first segment header decides which system it is.
    pub fn new(
        shape: WalShape,
        timeline: Timeline,
        system_identifier: Option<u64>,
        start: Lsn,
    ) -> Result<Self, WalError> {
        let shape = shape.check()?;
        if !start.0.is_multiple_of(u64::from(shape.page_bytes)) {
            return Err(WalError::Start { at: start });
        }
        let pages = Pages::new(shape, timeline, system_identifier, start);
        Ok(Self { shape, position: start, pages, records: Records::new(start), failure: None })
    }

    /// Checks every page against the history of the timeline. Without it, pages of any older timeline are accepted in
    /// the segment the scan starts in, up to the first page of the timeline itself.
    #[must_use]
    pub fn with_history(mut self, history: TimelineHistory) -> Self {
        self.pages.history = Some(history);
        self
    }

    /// Takes the next bytes; events of whole records are added to `events`, also when an error follows them. After an
    /// error the scan is over: every further call gives the same error.
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), WalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let outcome = self.take(bytes, events);
        if let Err(failure) = &outcome {
            self.failure = Some(failure.clone());
        }
        outcome
    }

    /// After the last byte fed; after an error, somewhere before it.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Where the first record starts that was seen from its start; what stands before it is not checked.
    pub fn first_record(&self) -> Option<Lsn> {
        self.records.first
    }

    /// Where the last whole record starts.
    pub fn last_record(&self) -> Option<Lsn> {
        self.records.last.map(|(lsn, _)| lsn)
    }

    /// Where the last whole record ends, rounded up to 8 bytes: recovery of what was fed gets this far.
    pub fn record_end(&self) -> Option<Lsn> {
        self.records.last.map(|(_, end)| end)
    }

    /// Where a record starts of which some bytes were fed, but not all. A scan that starts at its page sees it whole.
    pub fn unfinished(&self) -> Option<Lsn> {
        self.records.unfinished()
    }

    /// Where zeros stand instead of a record or a page: the segment is not full yet. Once the page is over, what a
    /// recycled segment held before may follow too; more of this log may not.
    pub fn log_end(&self) -> Option<Lsn> {
        self.records.log_end()
    }

    /// Whether the rest of the segment is filler after a switch.
    pub fn is_switched(&self) -> bool {
        self.records.is_filler()
    }

    /// The cluster's identity, as given or as the first segment header said.
    pub fn system_identifier(&self) -> Option<u64> {
        self.pages.system_identifier
    }

    /// The major version of the server that wrote the log; none before the first page header.
    pub fn major(&self) -> Option<u32> {
        self.pages.major()
    }

    fn take(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), WalError> {
        let page_bytes = u64::from(self.shape.page_bytes);
        while !bytes.is_empty() {
            let page = Lsn(self.position.0 & !(page_bytes - 1));
            let header_bytes = self.pages.header_bytes(page);
            let count = if self.position.0 - page.0 < header_bytes as u64 {
                let (count, header) = self.pages.collect(bytes, header_bytes);
                if let Some(header) = header {
                    self.page(page, header_bytes, &header)?;
                }
                count
            } else {
                let page_end = Lsn(page.0 + page_bytes);
                let left = usize::try_from(page_end.0 - self.position.0).unwrap_or(usize::MAX);
                let now = bytes.get(..left).unwrap_or(bytes);
                let major = self.pages.major().unwrap_or(0);
                self.records.take(self.position, page_end, now, major, events)?;
                now.len()
            };
            self.position.0 += count as u64;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Looks at the header of the page at `at`, as far as something is expected of it.
    fn page(&mut self, at: Lsn, header_bytes: usize, header: &PageHeader) -> Result<(), WalError> {
        let starts_segment = self.pages.starts_segment(at);
        if let Some(end) = self.records.log_end() {
            if starts_segment || self.pages.belongs_at(at, header) {
                return Err(WalError::Hole { end, at });
            }
            return Ok(());
        }
        if self.records.is_filler() {
            if !starts_segment {
                return Ok(());
            }
            self.records.end_filler();
        }
        if self.records.has_begun() && self.pages.is_blank(header_bytes) {
            self.records.end_log(at, Lsn(at.0 + u64::from(self.shape.page_bytes)));
            return Ok(());
        }
        self.pages.check(at, header)?;
        self.records.cross(at, header)
    }
}
