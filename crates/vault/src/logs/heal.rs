//! Bringing back what a damaged object held. It is never overwritten or removed: its content is stored beside it, in objects
//! of other spans that together cover the same, and readers go by what the sound ones cover.

use lifeboat_base::entropy::Entropy;
use lifeboat_base::ids::StreamName;
use lifeboat_base::time::Timestamp;

use super::error::LogsError;
use super::position::{LogName, Position};
use super::store::{LogObject, LogRef, Logs};

/// How often a span is halved to find names that are free or sound.
pub const MAX_HALVINGS: u32 = 6;

/// A piece of log whose content is at hand.
#[derive(Clone, Copy, Debug)]
pub struct LogPiece<'a> {
    /// The span.
    pub name: LogName,
    /// Where a timeline is entered: the position on an older timeline that it continues.
    pub follows: Option<Position>,
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
        let half = |from, to, follows, content: &'a [u8]| {
            LogName::of(from, to).filter(|_| whole).map(|name| Self { name, follows, content, ..self })
        };
        Some([half(first, middle, self.follows, head)?, half(middle, last, None, tail)?])
    }
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
        to.append_beside(stream, LogPiece { name, follows, started, ended, content: &content }, entropy)
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
