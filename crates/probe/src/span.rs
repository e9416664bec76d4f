//! Byte spans of a document, their union, and the words in them.
//!
//! In: offsets and canonical text. Out: merged spans, and the measuring tokenizer's spans, by which coverage is counted.

use serde::{Deserialize, Serialize};

use crate::ProbeError;

/// The bytes `start..end` of one document; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Offsets", into = "Offsets")]
pub struct Span {
    start: u64,
    end: u64,
}

/// How a span is written: as an object with its unit. A pair `[start, end]` is understood.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Offsets {
    /// What is written.
    Named {
        start: u64,
        end: u64,
        #[serde(default = "bytes")]
        unit: String,
    },
    /// What other tools write.
    Pair(u64, u64),
}

fn bytes() -> String {
    "byte".to_owned()
}

impl TryFrom<Offsets> for Span {
    type Error = ProbeError;

    fn try_from(offsets: Offsets) -> Result<Self, ProbeError> {
        match offsets {
            Offsets::Named { start, end, unit } if unit == "byte" => Self::new("a record", start, end),
            Offsets::Named { unit, .. } => {
                Err(ProbeError::invalid("a span", format!("its unit is `{unit}`, expected `byte`")))
            }
            Offsets::Pair(start, end) => Self::new("a record", start, end),
        }
    }
}

impl From<Span> for Offsets {
    fn from(span: Span) -> Self {
        Self::Named { start: span.start, end: span.end, unit: bytes() }
    }
}

impl Span {
    /// A span that holds at least one byte.
    pub fn new(what: &str, start: u64, end: u64) -> Result<Self, ProbeError> {
        if start < end {
            Ok(Self { start, end })
        } else {
            Err(ProbeError::Span { what: what.to_owned(), start, end })
        }
    }

    /// The first byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// The first byte after it.
    pub fn end(self) -> u64 {
        self.end
    }

    /// Whether all of `other` lies in it.
    pub fn holds(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The span with `margin_bytes` more at each end.
    #[must_use]
    pub fn widened(self, margin_bytes: u64) -> Self {
        Self { start: self.start.saturating_sub(margin_bytes), end: self.end.saturating_add(margin_bytes) }
    }
}

/// Spans merged where they touch or overlap, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Union(Vec<Span>);

impl Union {
    /// Merges `spans`, whatever their order.
    pub fn of(spans: impl IntoIterator<Item = Span>) -> Self {
        let mut spans: Vec<Span> = spans.into_iter().collect();
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::new();
        for span in spans {
            match merged.last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => merged.push(span),
            }
        }
        Self(merged)
    }

    /// Whether every byte of `span` is in it.
    pub fn holds(&self, span: Span) -> bool {
        let after = self.0.partition_point(|part| part.start <= span.start);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|part| part.holds(span))
    }

    /// The merged spans.
    pub fn parts(&self) -> &[Span] {
        &self.0
    }
}

/// The words of a text as byte spans, for counting: runs of letters and digits; a character of a script that is written
/// without spaces counts alone. `base` is the offset of the text in its document.
pub fn words(text: &str, base: u64) -> Vec<Span> {
    let mut found = Vec::new();
    let mut open: Option<u64> = None;
    let mut at = base;
    for character in text.chars() {
        let next = at.saturating_add(character.len_utf8() as u64);
        let joins = character.is_alphanumeric() && !alone(character);
        if !joins && let Some(start) = open.take() {
            found.push(Span { start, end: at });
        }
        if joins {
            open.get_or_insert(at);
        } else if alone(character) {
            found.push(Span { start: at, end: next });
        }
        at = next;
    }
    if let Some(start) = open {
        found.push(Span { start, end: at });
    }
    found
}

/// Han, kana and Thai are written without spaces between words.
fn alone(character: char) -> bool {
    matches!(character, '\u{e00}'..='\u{e7f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{323af}')
        && character.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span::new("x", start, end).unwrap()
    }

    #[test]
    fn a_span_holds_something() {
        assert!(Span::new("x", 4, 4).is_err());
        assert!(Span::new("x", 5, 4).is_err());
    }

    #[test]
    fn offsets_are_read_as_object_or_pair_and_written_as_object() {
        let written = serde_json::to_string(&span(3, 9)).unwrap();
        assert_eq!(written, "{\"start\":3,\"end\":9,\"unit\":\"byte\"}");
        for text in [written.as_str(), "[3,9]", "{\"start\":3,\"end\":9}"] {
            assert_eq!(serde_json::from_str::<Span>(text).unwrap(), span(3, 9), "{text}");
        }
        for text in ["[9,3]", "{\"start\":3,\"end\":9,\"unit\":\"line\"}", "[3]"] {
            assert!(serde_json::from_str::<Span>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_of_scripts_with_and_without_spaces() {
        let found: Vec<&str> = {
            let text = "It's a caf\u{e9}, r2d2; \u{6771}\u{4eac}!";
            let spans = words(text, 0);
            let cut = |span: &Span| {
                let (start, end) = (usize::try_from(span.start).unwrap(), usize::try_from(span.end).unwrap());
                text.get(start..end).unwrap()
            };
            spans.iter().map(cut).collect()
        };
        assert_eq!(found, ["It", "s", "a", "caf\u{e9}", "r2d2", "\u{6771}", "\u{4eac}"]);
        assert_eq!(words("one two", 100), [span(100, 103), span(104, 107)]);
    }

    proptest! {
        #[test]
        fn a_union_holds_exactly_the_bytes_of_its_spans(spans in prop::collection::vec((0u64..60, 1u64..20), 0..12)) {
            let spans: Vec<Span> = spans.into_iter().map(|(start, len)| span(start, start + len)).collect();
            let union = Union::of(spans.iter().copied());
            let mut turned = spans.clone();
            turned.reverse();
            prop_assert_eq!(&union, &Union::of(turned));
            for byte in 0..90 {
                let one = span(byte, byte + 1);
                prop_assert_eq!(union.holds(one), spans.iter().any(|span| span.holds(one)));
            }
            prop_assert!(union.parts().windows(2).all(|pair| pair[0].end() < pair[1].start()));
        }

        #[test]
        fn words_are_apart_in_order_and_on_boundaries(text in "\\PC{0,40}") {
            let spans = words(&text, 0);
            prop_assert!(spans.windows(2).all(|pair| pair[0].end() <= pair[1].start()));
            for span in spans {
                prop_assert!(text.get(usize::try_from(span.start()).unwrap()..usize::try_from(span.end()).unwrap()).is_some());
            }
        }
    }
}
