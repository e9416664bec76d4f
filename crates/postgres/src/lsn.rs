//! Positions in the write-ahead log and the names of its segments.

use std::fmt;
use std::str::FromStr;

/// A timeline; it grows by one with each promotion or point-in-time recovery.
pub type Timeline = u32;

/// A byte position in the write-ahead log, printed as PostgreSQL does: `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// The text is not `X/X` in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position of the write-ahead log, such as 16/B374D848")]
pub struct InvalidLsn;

impl Lsn {
    /// The start of the segment this position lies in; `segment_bytes` is a power of two.
    #[must_use]
    pub fn segment_start(self, segment_bytes: u32) -> Self {
        Self(self.0 & !(u64::from(segment_bytes) - 1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        let half = |text: &str| {
            let hexadecimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            hexadecimal.then(|| u32::from_str_radix(text, 16).ok()).flatten().ok_or(InvalidLsn)
        };
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// The name of the segment file that holds the byte at `at`, such as `000000010000001600000013`.
pub fn segment_name(timeline: Timeline, at: Lsn, segment_bytes: u32) -> String {
    let per_high = (1u64 << 32) / u64::from(segment_bytes);
    let number = at.0 / u64::from(segment_bytes);
    format!("{timeline:08X}{:08X}{:08X}", number / per_high, number % per_high)
}

/// The timeline and the first position of a segment file; nothing if it is not the name of one.
pub fn parse_segment_name(name: &str, segment_bytes: u32) -> Option<(Timeline, Lsn)> {
    if name.len() != 24 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')) {
        return None;
    }
    let part = |at: usize| name.get(at..at + 8).and_then(|text| u32::from_str_radix(text, 16).ok());
    let per_high = (1u64 << 32) / u64::from(segment_bytes);
    let (timeline, high, low) = (part(0)?, u64::from(part(8)?), u64::from(part(16)?));
    let start = high.checked_mul(per_high)?.checked_add(low)?.checked_mul(u64::from(segment_bytes))?;
    (low < per_high && timeline > 0).then_some((timeline, Lsn(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u32 = 16 * 1024 * 1024;

    #[test]
    fn positions_print_and_read_as_the_server_does() {
        for (text, value) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!(Lsn(value).to_string(), text);
            assert_eq!(text.parse(), Ok(Lsn(value)));
        }
        for text in ["", "/", "1", "1/", "/1", "1/G", "1/123456789", "+1/1", "1/1/1"] {
            assert_eq!(text.parse::<Lsn>(), Err(InvalidLsn), "{text}");
        }
    }

    #[test]
    fn segments_are_named_as_the_server_names_them() {
        let at = Lsn(0x16_B374_D848);
        assert_eq!(segment_name(1, at, SEGMENT), "0000000100000016000000B3");
        assert_eq!(
            parse_segment_name("0000000100000016000000B3", SEGMENT),
            Some((1, at.segment_start(SEGMENT)))
        );
        for name in [
            "0000000100000016000000b3",
            "000000010000001600000100",
            "00000001.history",
            "000000000000001600000001",
        ] {
            assert_eq!(parse_segment_name(name, SEGMENT), None, "{name}");
        }
    }
}
