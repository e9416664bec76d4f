//! Writes listpacks, the form in which a dump holds the entries of a stream.

/// A listpack being made. All of it is in memory.
#[derive(Default)]
pub(super) struct Listpack {
    elements: Vec<u8>,
    count: usize,
}

impl Listpack {
    pub(super) fn number(&mut self, number: i64) {
        let mut element = Vec::with_capacity(9);
        match u8::try_from(number) {
            Ok(small) if small < 128 => element.push(small),
            _ => {
                element.push(0xf4);
                element.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.push(&element);
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        let mut element = Vec::with_capacity(text.len() + 5);
        match text.len() {
            length @ 0..64 => element.push(0x80 | u8::try_from(length).unwrap_or_default()),
            length @ 64..4096 => {
                let length = u16::try_from(length).unwrap_or_default() | 0xe000;
                element.extend_from_slice(&length.to_be_bytes());
            }
            length => {
                element.push(0xf0);
                element.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        element.extend_from_slice(text);
        self.push(&element);
    }

    /// An element and, behind it, its length for those who come from the end.
    fn push(&mut self, element: &[u8]) {
        self.elements.extend_from_slice(element);
        self.count += 1;
        let length = element.len();
        let groups: usize = match length {
            0..=127 => 1,
            128..16_383 => 2,
            16_383..2_097_151 => 3,
            2_097_151..268_435_455 => 4,
            _ => 5,
        };
        for group in (0..groups).rev() {
            let seven = u8::try_from(length >> (7 * group) & 0x7f).unwrap_or_default();
            self.elements.push(if group + 1 == groups { seven } else { seven | 0x80 });
        }
    }

    /// Puts the elements of another behind its own.
    pub(super) fn append(&mut self, other: &Self) {
        self.elements.extend_from_slice(&other.elements);
        self.count += other.count;
    }

    pub(super) fn finish(&self) -> Vec<u8> {
        let total = self.elements.len() + 7;
        let mut bytes = Vec::with_capacity(total);
        bytes.extend_from_slice(&u32::try_from(total).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(self.count).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.elements);
        bytes.push(0xff);
        bytes
    }
}
