//! The checks of a page header that do not depend on records: version, place, sizes, system, timeline.
//!
//! In: headers in the order of their pages. Out: the first that cannot be the next page of this log.

use super::error::{PageFault, WalError};
use super::history::TimelineHistory;
use super::page::{
    FLAG_LONG, FLAGS_ALL, LONG_HEADER_BYTES, PageHeader, SHORT_HEADER_BYTES, SegmentHeader, WalShape,
    is_some_version, major_of,
};
use crate::lsn::{Lsn, Timeline};

/// What the pages so far have in common, and what the next one must say.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    shape: WalShape,
    timeline: Timeline,
    pub(super) system_identifier: Option<u64>,
    pub(super) history: Option<TimelineHistory>,
    start: Lsn,
    mark: Option<(u16, u32)>,
    newest_timeline: Timeline,
    header: [u8; LONG_HEADER_BYTES],
    have_bytes: usize,
}

impl Pages {
    pub(super) fn new(shape: WalShape, timeline: Timeline, system: Option<u64>, start: Lsn) -> Self {
        Self {
            shape,
            timeline,
            system_identifier: system,
            history: None,
            start,
            mark: None,
            newest_timeline: 1,
            header: [0; LONG_HEADER_BYTES],
            have_bytes: 0,
        }
    }

    /// The major version of the server that wrote the pages.
    pub(super) fn major(&self) -> Option<u32> {
        self.mark.map(|(_, major)| major)
    }

    /// Bytes of the header of the page that starts at `at`.
    pub(super) fn header_bytes(&self, at: Lsn) -> usize {
        if self.starts_segment(at) { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES }
    }

    pub(super) fn starts_segment(&self, at: Lsn) -> bool {
        at == at.segment_start(self.shape.segment_bytes)
    }

    /// Takes what it lacks of a header of `header_bytes`; gives the number of bytes taken, and the header once it is
    /// whole.
    pub(super) fn collect(&mut self, bytes: &[u8], header_bytes: usize) -> (usize, Option<PageHeader>) {
        let room = self.header.get_mut(self.have_bytes..header_bytes).unwrap_or_default();
        let count = room.len().min(bytes.len());
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.have_bytes += count;
        if self.have_bytes < header_bytes {
            return (count, None);
        }
        self.have_bytes = 0;
        (count, Some(PageHeader::read(&self.header)))
    }

    /// Whether the last header is all zeros: nothing was ever written here.
    pub(super) fn is_blank(&self, header_bytes: usize) -> bool {
        self.header.iter().take(header_bytes).all(|byte| *byte == 0)
    }

    /// Whether the header has the place and the mark of this log's page at `at`, whatever else it says.
    pub(super) fn belongs_at(&self, at: Lsn, header: &PageHeader) -> bool {
        header.address == at && self.mark.is_some_and(|(magic, _)| magic == header.magic)
    }

    /// Checks the header collected last, of the page at `at`.
    pub(super) fn check(&mut self, at: Lsn, header: &PageHeader) -> Result<(), WalError> {
        let starts_segment = self.starts_segment(at);
        self.check_version(at, header.magic)?;
        if header.address != at {
            return Err(WalError::Page { at, fault: PageFault::Address(header.address) });
        }
        if header.flags & !FLAGS_ALL != 0 || (header.flags & FLAG_LONG != 0) != starts_segment {
            return Err(WalError::Page { at, fault: PageFault::Flags(header.flags) });
        }
        if starts_segment {
            self.check_segment(at)?;
        }
        self.check_timeline(at, header.timeline)
    }

    fn check_version(&mut self, at: Lsn, magic: u16) -> Result<(), WalError> {
        match (self.mark, major_of(magic)) {
            (Some((expected, _)), _) if expected == magic => Ok(()),
            (None, Some(major)) => {
                self.mark = Some((magic, major));
                Ok(())
            }
            (None, None) if is_some_version(magic) => Err(WalError::Version { at, magic }),
            _ => Err(WalError::Page { at, fault: PageFault::Magic(magic) }),
        }
    }

    fn check_segment(&mut self, at: Lsn) -> Result<(), WalError> {
        let header = SegmentHeader::read(&self.header);
        let SegmentHeader { system_identifier: found, segment_bytes, page_bytes } = header;
        if (WalShape { segment_bytes, page_bytes }) != self.shape {
            return Err(WalError::Page { at, fault: PageFault::Sizes { segment_bytes, page_bytes } });
        }
        let expected = *self.system_identifier.get_or_insert(found);
        if found == expected { Ok(()) } else { Err(WalError::System { at, found, expected }) }
    }

    /// A timeline's first segment starts with a copy of its parent's part of it; the page of the switch itself keeps
    /// the parent's header. From the next segment on every page is the timeline's own.
    fn check_timeline(&mut self, at: Lsn, found: Timeline) -> Result<(), WalError> {
        let expected = if let Some(history) = &self.history {
            history.timeline_at(at)
        } else {
            let segment = |at: Lsn| at.segment_start(self.shape.segment_bytes);
            let may_be_copy = segment(at) == segment(self.start);
            let older = (self.newest_timeline..self.timeline).contains(&found);
            if may_be_copy && older { found } else { self.timeline }
        };
        self.newest_timeline = self.newest_timeline.max(found);
        if found == expected { Ok(()) } else { Err(WalError::Timeline { at, found, expected }) }
    }
}
