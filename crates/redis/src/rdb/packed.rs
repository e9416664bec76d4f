//! Collections that servers keep in one string: listpacks, ziplists, sets of integers, zipmaps.
//!
//! In: the string. Out: its elements one by one, each a number or a text that is read piece by piece. Memory: constant.

use std::io::Read;

use super::error::RdbError;
use super::text::{Digits, Text};

/// An element: a number, or a text of this many bytes that must be read next.
pub(super) enum Element {
    Number(i64),
    Text(u64),
}

/// How the string is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Listpack,
    Ziplist,
    Integers,
    Zipmap,
}

/// The elements of a string. Those of a zipmap are its keys and values in turn.
pub(super) struct Packed<'a, R> {
    text: Text<'a, R>,
    packing: Packing,
    /// Elements announced, where the header can hold the number.
    announced: Option<u64>,
    seen: u64,
    /// Of a set of integers: bytes per number.
    width: u64,
    /// Bytes after the text of the element that was given last.
    after: u64,
    ended: bool,
}

impl<'a, R: Read> Packed<'a, R> {
    pub(super) fn open(mut text: Text<'a, R>, packing: Packing) -> Result<Self, RdbError> {
        let (mut announced, mut width) = (None, 0);
        let total = match packing {
            Packing::Listpack => {
                let total = u64::from(u32::from_le_bytes(text.array()?));
                announced = small(u16::from_le_bytes(text.array()?));
                total
            }
            Packing::Ziplist => {
                let total = u64::from(u32::from_le_bytes(text.array()?));
                let [_, _, _, _] = text.array()?;
                announced = small(u16::from_le_bytes(text.array()?));
                total
            }
            Packing::Integers => {
                width = u64::from(u32::from_le_bytes(text.array()?));
                let count = u64::from(u32::from_le_bytes(text.array()?));
                if !matches!(width, 2 | 4 | 8) {
                    return Err(text.damaged("a set of integers of an unknown width"));
                }
                announced = Some(count);
                8 + count * width
            }
            Packing::Zipmap => {
                text.byte()?;
                text.length()
            }
        };
        if total != text.length() {
            return Err(text.damaged("a packed collection that is not as long as it says"));
        }
        Ok(Self { text, packing, announced, seen: 0, width, after: 0, ended: false })
    }

    /// The next element; nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Element>, RdbError> {
        if self.ended {
            return Ok(None);
        }
        let element = match self.packing {
            Packing::Listpack => self.listpack()?,
            Packing::Ziplist => self.ziplist()?,
            Packing::Integers => self.integer()?,
            Packing::Zipmap => self.zipmap()?,
        };
        match element {
            Some(_) => self.seen += 1,
            None => self.ended = true,
        }
        Ok(element)
    }

    /// The next element, which must be there.
    pub(super) fn required(&mut self) -> Result<Element, RdbError> {
        match self.next()? {
            Some(element) => Ok(element),
            None => Err(self.text.damaged("a packed collection that ends too soon")),
        }
    }

    /// A number, which must be there.
    pub(super) fn number(&mut self) -> Result<i64, RdbError> {
        let bytes = self.short()?;
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| self.text.damaged("a text where a number belongs"))
    }

    /// An element of at most 64 bytes as text.
    pub(super) fn short(&mut self) -> Result<Vec<u8>, RdbError> {
        let mut bytes = Vec::new();
        match self.required()? {
            Element::Number(number) => bytes.extend_from_slice(Digits::of(number).bytes()),
            Element::Text(length) if length <= 64 => {
                self.pipe(length, &mut |chunk| bytes.extend_from_slice(chunk))?;
            }
            Element::Text(_) => return Err(self.text.damaged("a number that is too long")),
        }
        Ok(bytes)
    }

    /// Hands the text of the element given last to `sink`, and passes over what follows it.
    pub(super) fn pipe(&mut self, length: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), RdbError> {
        self.text.pipe(length, sink)?;
        self.text.pipe(self.after, &mut |_| {})
    }

    pub(super) fn damaged(&self, what: &'static str) -> RdbError {
        self.text.damaged(what)
    }

    /// Everything was read, and it was as much as announced.
    pub(super) fn finish(mut self) -> Result<(), RdbError> {
        if self.next()?.is_some() {
            return Err(self.text.damaged("a packed collection that holds more than it should"));
        }
        if self.announced.is_some_and(|announced| announced != self.seen) {
            return Err(self.text.damaged("a packed collection without the number of elements it announces"));
        }
        self.text.finish()
    }

    fn listpack(&mut self) -> Result<Option<Element>, RdbError> {
        let first = self.text.byte()?;
        // The bytes of the element without the length that follows it.
        let (element, bytes) = match first {
            0xff => return Ok(None),
            0x00..=0x7f => (Element::Number(i64::from(first)), 1),
            0x80..=0xbf => text_of(u64::from(first & 0x3f), 1),
            0xc0..=0xdf => {
                let raw = i64::from(first & 0x1f) << 8 | i64::from(self.text.byte()?);
                (Element::Number(if raw >= 1 << 12 { raw - (1 << 13) } else { raw }), 2)
            }
            0xe0..=0xef => text_of(u64::from(first & 0x0f) << 8 | u64::from(self.text.byte()?), 2),
            0xf0 => text_of(u64::from(u32::from_le_bytes(self.text.array()?)), 5),
            0xf1 => (Element::Number(self.signed::<2>()?), 3),
            0xf2 => (Element::Number(self.signed::<3>()?), 4),
            0xf3 => (Element::Number(self.signed::<4>()?), 5),
            0xf4 => (Element::Number(self.signed::<8>()?), 9),
            _ => return Err(self.text.damaged("an element of an unknown form")),
        };
        self.after = match bytes {
            0..=127 => 1,
            128..=16_382 => 2,
            16_383..=2_097_150 => 3,
            2_097_151..=268_435_454 => 4,
            _ => 5,
        };
        if matches!(element, Element::Number(_)) {
            self.text.pipe(self.after, &mut |_| {})?;
        }
        Ok(Some(element))
    }

    fn ziplist(&mut self) -> Result<Option<Element>, RdbError> {
        match self.text.byte()? {
            0xff => return Ok(None),
            0xfe => drop(self.text.array::<4>()?),
            _ => {}
        }
        self.after = 0;
        let first = self.text.byte()?;
        Ok(Some(match first {
            0x00..=0x3f => Element::Text(u64::from(first)),
            0x40..=0x7f => Element::Text(u64::from(first & 0x3f) << 8 | u64::from(self.text.byte()?)),
            0x80..=0xbf => Element::Text(u64::from(u32::from_be_bytes(self.text.array()?))),
            0xc0 => Element::Number(self.signed::<2>()?),
            0xd0 => Element::Number(self.signed::<4>()?),
            0xe0 => Element::Number(self.signed::<8>()?),
            0xf0 => Element::Number(self.signed::<3>()?),
            0xfe => Element::Number(self.signed::<1>()?),
            0xf1..=0xfd => Element::Number(i64::from(first & 0x0f) - 1),
            _ => return Err(self.text.damaged("an element of an unknown form")),
        }))
    }

    fn integer(&mut self) -> Result<Option<Element>, RdbError> {
        if self.text.left() == 0 {
            return Ok(None);
        }
        Ok(Some(Element::Number(match self.width {
            2 => self.signed::<2>()?,
            4 => self.signed::<4>()?,
            _ => self.signed::<8>()?,
        })))
    }

    fn zipmap(&mut self) -> Result<Option<Element>, RdbError> {
        let length = match self.text.byte()? {
            0xff => return Ok(None),
            0xfe => u64::from(u32::from_le_bytes(self.text.array()?)),
            length => u64::from(length),
        };
        // A value is followed by room to grow.
        self.after = if self.seen % 2 == 1 { u64::from(self.text.byte()?) } else { 0 };
        Ok(Some(Element::Text(length)))
    }

    /// A little-endian number of `N` bytes.
    fn signed<const N: usize>(&mut self) -> Result<i64, RdbError> {
        let bytes: [u8; N] = self.text.array()?;
        let mut wide = [0; 8];
        // In the upper bytes, so that shifting back brings the sign along.
        if let Some(place) = wide.get_mut(8 - N..) {
            place.copy_from_slice(&bytes);
        }
        Ok(i64::from_le_bytes(wide) >> (64 - 8 * N))
    }
}

/// The header's number of elements; its largest value means that nobody counted.
fn small(count: u16) -> Option<u64> {
    (count < u16::MAX).then_some(u64::from(count))
}

fn text_of(length: u64, head: u64) -> (Element, u64) {
    (Element::Text(length), length + head)
}
