//! One string of a dump, read piece by piece whatever its size: plain, as a number, or compressed.
//!
//! Memory: nothing for plain strings, 24 KiB for compressed ones.

use std::io::Read;

use super::error::RdbError;
use super::input::{Input, Length};

/// How far back a compressed string may point.
const WINDOW_BYTES: usize = 8 * 1024;
/// How much is expanded at a time.
const STEP_BYTES: usize = 16 * 1024;
/// The longest run that one step of the compressed form gives.
const LONGEST_RUN_BYTES: usize = 7 + 255 + 2;

/// A number as text, in place.
pub(super) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    pub(super) fn of(number: i64) -> Self {
        let (mut bytes, mut start) = ([0; 20], 20);
        let mut rest = number.unsigned_abs();
        for (index, byte) in bytes.iter_mut().enumerate().rev() {
            *byte = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
            start = index;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            start = start.saturating_sub(1);
            if let Some(byte) = bytes.get_mut(start) {
                *byte = b'-';
            }
        }
        Self { bytes, start }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

enum Form {
    Plain,
    Number(Digits),
    Compressed {
        /// Compressed bytes still to come.
        packed: u64,
        /// The last of what was handed out, then what was not yet.
        room: Vec<u8>,
        next: usize,
    },
}

/// A string being read. It must be read to its end.
pub(super) struct Text<'a, R> {
    input: &'a mut Input<R>,
    form: Form,
    length: u64,
    left: u64,
}

impl<'a, R: Read> Text<'a, R> {
    pub(super) fn open(input: &'a mut Input<R>) -> Result<Self, RdbError> {
        let length = input.length()?;
        let (form, length) = match length {
            Length::Plain(length) => (Form::Plain, length),
            Length::Encoded(0) => number(i64::from(i8::from_le_bytes(input.array()?))),
            Length::Encoded(1) => number(i64::from(i16::from_le_bytes(input.array()?))),
            Length::Encoded(2) => number(i64::from(i32::from_le_bytes(input.array()?))),
            Length::Encoded(3) => {
                let packed = input.number()?;
                let length = input.number()?;
                let mut room = std::mem::take(&mut input.room);
                room.clear();
                (Form::Compressed { packed, room, next: 0 }, length)
            }
            Length::Encoded(_) => return Err(input.damaged("a string of an unknown form")),
        };
        Ok(Self { input, form, length, left: length })
    }

    /// The string's length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How much of it was not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn damaged(&self, what: &'static str) -> RdbError {
        self.input.damaged(what)
    }

    /// The next bytes, at least one and at most `limit` (which is not 0).
    fn chunk(&mut self, limit: u64) -> Result<&[u8], RdbError> {
        if limit > self.left {
            return Err(self.damaged("a string that is shorter than what it should hold"));
        }
        let (input, limit) = (&mut *self.input, limit.min(self.left));
        let chunk = match &mut self.form {
            Form::Plain => input.chunk(limit)?,
            Form::Number(digits) => {
                let from = digits.start;
                digits.start = (from + usize::try_from(limit).unwrap_or(usize::MAX)).min(digits.bytes.len());
                digits.bytes.get(from..digits.start).unwrap_or_default()
            }
            Form::Compressed { packed, room, next } => {
                if *next == room.len() {
                    *next = room.len().min(WINDOW_BYTES);
                    expand(input, packed, room)?;
                }
                let from = (*next).min(room.len());
                let until = from.saturating_add(usize::try_from(limit).unwrap_or(usize::MAX)).min(room.len());
                *next = until;
                room.get(from..until).unwrap_or_default()
            }
        };
        self.left -= chunk.len() as u64;
        Ok(chunk)
    }

    /// Hands the next `count` bytes to `sink`.
    pub(super) fn pipe(&mut self, count: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), RdbError> {
        let mut rest = count;
        if rest > self.left {
            return Err(self.damaged("a string that is shorter than what it should hold"));
        }
        while rest > 0 {
            let chunk = self.chunk(rest)?;
            rest -= chunk.len() as u64;
            sink(chunk);
        }
        Ok(())
    }

    pub(super) fn exact(&mut self, into: &mut [u8]) -> Result<(), RdbError> {
        let mut at = 0;
        let count = into.len() as u64;
        self.pipe(count, &mut |chunk| {
            if let Some(place) = into.get_mut(at..at + chunk.len()) {
                place.copy_from_slice(chunk);
            }
            at += chunk.len();
        })
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let mut bytes = [0; N];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, RdbError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Reads everything, keeping the first `limit` bytes.
    pub(super) fn head(mut self, limit: usize) -> Result<Vec<u8>, RdbError> {
        let mut kept = Vec::new();
        self.pipe(self.left, &mut |chunk| {
            let room = limit - kept.len();
            kept.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
        })?;
        self.finish()?;
        Ok(kept)
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), RdbError> {
        if self.left > 0 {
            return Err(self.damaged("a string that is longer than what it holds"));
        }
        if let Form::Compressed { packed, room, next } = self.form {
            if packed > 0 || next < room.len() {
                return Err(self.input.damaged("a compressed string that is longer than it says"));
            }
            self.input.room = room;
        }
        Ok(())
    }
}

fn number(number: i64) -> (Form, u64) {
    let digits = Digits::of(number);
    let length = digits.bytes().len() as u64;
    (Form::Number(digits), length)
}

/// Expands a step more into `room`, whose content up to now was handed out; keeps a window of it in front.
fn expand<R: Read>(input: &mut Input<R>, packed: &mut u64, room: &mut Vec<u8>) -> Result<(), RdbError> {
    const SHORT: &str = "a compressed string that is shorter than it says";
    if *packed == 0 {
        return Err(input.damaged(SHORT));
    }
    let gone = room.len().saturating_sub(WINDOW_BYTES);
    room.drain(..gone);
    let full = room.len() + STEP_BYTES;
    while *packed > 0 && room.len() + LONGEST_RUN_BYTES <= full {
        let mut take = |input: &mut Input<R>, count: u64| {
            *packed = packed.checked_sub(count).ok_or_else(|| input.damaged(SHORT))?;
            Ok::<_, RdbError>(())
        };
        take(input, 1)?;
        let control = input.byte()?;
        if control < 32 {
            let count = usize::from(control) + 1;
            take(input, count as u64)?;
            let from = room.len();
            room.resize(from + count, 0);
            input.exact(room.get_mut(from..).unwrap_or_default())?;
            continue;
        }
        let mut count = usize::from(control >> 5);
        if count == 7 {
            take(input, 1)?;
            count += usize::from(input.byte()?);
        }
        take(input, 1)?;
        let back = (usize::from(control & 0x1f) << 8 | usize::from(input.byte()?)) + 1;
        let Some(from) = room.len().checked_sub(back) else {
            return Err(input.damaged("a compressed string that points before its start"));
        };
        // The run may overlap what it makes.
        for index in from..from + count + 2 {
            let byte = room.get(index).copied().unwrap_or_default();
            room.push(byte);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_text() {
        for number in [0, 7, -7, 10, 1234, -98_765, i64::MAX, i64::MIN] {
            assert_eq!(Digits::of(number).bytes(), number.to_string().as_bytes());
        }
    }
}
