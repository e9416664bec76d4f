//! Bringing back what a damaged object held. It is never overwritten or removed: its content is stored beside it, in objects
//! of other spans that together cover the same, and readers go by what the sound ones cover.

use lifeboat_base::entropy::Entropy;
use lifeboat_base::ids::StreamName;
use lifeboat_base::time::Timestamp;

use super::error::LogsError;
use super::object::ArrivalMark;
use super::position::{LogName, Position};
use super::store::{LogObject, LogRef, Logs};

/// How often a span is halved to find names that are free or sound.
pub const MAX_HALVINGS: u32 = 6;

/// A piece of log whose content is at hand.
#[derive(Clone, Debug)]
pub struct LogPiece<'a> {
    /// The span.
    pub name: LogName,
    /// Where a timeline is entered: the position on an older timeline that it continues.
    pub follows: Option<Position>,
    /// The engine's own name of the timeline, if it has one.
    pub history: Option<String>,
    /// When its bytes arrived, where the stream itself does not say.
    pub marks: Vec<ArrivalMark>,
    /// When the first entry in it was made.
    pub started: Timestamp,
    /// When the last entry in it was made.
    pub ended: Timestamp,
    /// Everything in it.
    pub content: &'a [u8],
}

impl<'a> LogPiece<'a> {
    /// Its first and its second half; nothing if it cannot be cut, or if a position is no byte of the content.
    fn halves(self) -> Option<[Self; 2]> {
        let (first, last) = (self.name.first(), self.name.last());
        let span = last.offset - first.offset;
        let middle = Position::new(first.timeline, first.offset + span / 2);
        let (head, tail) = self.content.split_at_checked(usize::try_from(span / 2).ok()?)?;
        let whole = self.content.len() as u64 == span;
        let half = |from, to, follows, marks, content: &'a [u8]| {
            let history = self.history.clone();
            let (started, ended) = (self.started, self.ended);
            let name = LogName::of(from, to).filter(|_| whole)?;
            Some(Self { name, follows, history, marks, started, ended, content })
        };
        let (early, late) = halve_marks(&self.marks, span / 2);
        Some([half(first, middle, self.follows, early, head)?, half(middle, last, None, late, tail)?])
    }
}

/// The marks of the first `middle` bytes and of those after them, both counted from their own start. What the first half
/// ends with had arrived when the next mark says so.
fn halve_marks(marks: &[ArrivalMark], middle: u64) -> (Vec<ArrivalMark>, Vec<ArrivalMark>) {
    let (mut early, mut late) = (Vec::new(), Vec::new());
    let (mut reached, mut at) = (0_u64, 0_i64);
    let mut last: Option<ArrivalMark> = None;
    for (more, later) in marks {
        (reached, at) = (reached.saturating_add(*more), at.saturating_add(*later));
        if reached <= middle {
            early.push((*more, *later));
            last = Some((reached, at));
        } else if late.is_empty() {
            let (begun, since) = last.unwrap_or_default();
            if begun < middle {
                early.push((middle - begun, at.saturating_sub(since)));
            }
            late.push((reached - middle, at));
        } else {
            late.push((*more, *later));
        }
    }
    (early, late)
}

impl Logs {
    /// As [`Logs::append`] where the object of that name is there and damaged: the content is stored in two halves, or in
    /// quarters where a half is damaged too, at most [`MAX_HALVINGS`] times. Needs a log whose positions count bytes.
    pub fn append_beside(
        &self,
        stream: &StreamName,
        piece: LogPiece<'_>,
        entropy: &dyn Entropy,
    ) -> Result<Vec<LogRef>, LogsError> {
        let mut stored = Vec::new();
        self.append_or_halve(stream, piece, entropy, MAX_HALVINGS, &mut stored)?;
        Ok(stored)
    }

    /// As [`Logs::carry`] where the object of that name is damaged in `to`.
    pub fn carry_beside(
        &self,
        stream: &StreamName,
        name: LogName,
        to: &Self,
        entropy: &dyn Entropy,
    ) -> Result<Vec<LogRef>, LogsError> {
        let (header, content) = self.read(stream, name)?;
        let (follows, started, ended) = (header.follows, header.started, header.ended);
        let (history, marks) = (header.history, header.marks);
        let piece = LogPiece { name, follows, history, marks, started, ended, content: &content };
        to.append_beside(stream, piece, entropy)
    }

    fn append_or_halve(
        &self,
        stream: &StreamName,
        piece: LogPiece<'_>,
        entropy: &dyn Entropy,
        halvings: u32,
        stored: &mut Vec<LogRef>,
    ) -> Result<(), LogsError> {
        let mut content = piece.content;
        let log = LogObject {
            first: piece.name.first(),
            last: piece.name.last(),
            follows: piece.follows,
            history: piece.history.clone(),
            marks: piece.marks.clone(),
            previous: None,
            started: piece.started,
            ended: piece.ended,
            content: &mut content,
        };
        let damaged = match self.append(stream, log, entropy) {
            Err(error @ LogsError::Damaged { .. }) => error,
            other => return other.map(|done| stored.push(done)),
        };
        let left = halvings.checked_sub(1);
        let Some((left, halves)) = left.zip(piece.halves()) else { return Err(damaged) };
        for half in halves {
            self.append_or_halve(stream, half, entropy, left, stored)?;
        }
        Ok(())
    }
}
