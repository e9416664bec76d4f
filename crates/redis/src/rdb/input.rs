//! A dump's bytes in order: counted, summed, in one buffer of 64 KiB.

use std::io::{ErrorKind, Read};

use super::crc64::crc64;
use super::error::RdbError;

const BUFFER_BYTES: usize = 64 * 1024;

/// The first two bits of a length say what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// A number.
    Plain(u64),
    /// A string in a form of its own.
    Encoded(u8),
}

pub(super) struct Input<R> {
    inner: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    /// Everything before is in `crc`.
    summed: usize,
    crc: u64,
    /// What was read before the buffer.
    before: u64,
    /// Room for expanding compressed strings, lent to one at a time.
    pub(super) room: Vec<u8>,
}

impl<R: Read> Input<R> {
    pub(super) fn new(inner: R) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { inner, buffer, at: 0, end: 0, summed: 0, crc: 0, before: 0, room: Vec::new() }
    }

    /// How many bytes were taken.
    pub(super) fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    /// The checksum of everything that was taken.
    pub(super) fn checksum(&mut self) -> u64 {
        self.crc = crc64(self.crc, self.buffer.get(self.summed..self.at).unwrap_or_default());
        self.summed = self.at;
        self.crc
    }

    pub(super) fn damaged(&self, what: &'static str) -> RdbError {
        RdbError::Damaged { at: self.position(), what }
    }

    /// Bytes that are there, at least one and at most `limit` (which is not 0); they are taken.
    pub(super) fn chunk(&mut self, limit: u64) -> Result<&[u8], RdbError> {
        if self.at == self.end && !self.fill()? {
            return Err(RdbError::Short { at: self.position() });
        }
        let there = self.end - self.at;
        let count = usize::try_from(limit).unwrap_or(usize::MAX).min(there);
        let from = self.at;
        self.at += count;
        Ok(self.buffer.get(from..self.at).unwrap_or_default())
    }

    /// False at the end.
    fn fill(&mut self) -> Result<bool, RdbError> {
        self.checksum();
        self.before += self.at as u64;
        (self.at, self.end, self.summed) = (0, 0, 0);
        loop {
            match self.inner.read(&mut self.buffer) {
                Ok(count) => {
                    self.end = count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(RdbError::Read { at: self.before, source }),
            }
        }
    }

    /// Whether nothing follows.
    pub(super) fn is_at_end(&mut self) -> Result<bool, RdbError> {
        Ok(self.at == self.end && !self.fill()?)
    }

    pub(super) fn byte(&mut self) -> Result<u8, RdbError> {
        Ok(self.chunk(1)?.first().copied().unwrap_or_default())
    }

    pub(super) fn exact(&mut self, into: &mut [u8]) -> Result<(), RdbError> {
        let mut rest = into;
        while !rest.is_empty() {
            let chunk = self.chunk(rest.len() as u64)?;
            let (now, later) = rest.split_at_mut(chunk.len());
            now.copy_from_slice(chunk);
            rest = later;
        }
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let mut bytes = [0; N];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn length(&mut self) -> Result<Length, RdbError> {
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Plain(u64::from(first)),
            (1, _) => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            (2, 0x80) => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            (2, 0x81) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (2, _) => return Err(self.damaged("a length of an unknown form")),
            _ => Length::Encoded(first & 0x3f),
        })
    }

    /// A length that must be a number.
    pub(super) fn number(&mut self) -> Result<u64, RdbError> {
        match self.length()? {
            Length::Plain(number) => Ok(number),
            Length::Encoded(_) => Err(self.damaged("a string where a number belongs")),
        }
    }
}
