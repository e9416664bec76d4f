//! What a seed changes: the order of candidates, and the typing of a question. Never its meaning.
//!
//! In: a seed. Out: permutations and texts that are the same on every machine and for ever, since they come from SHA-256.

use std::cmp::Ordering;

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::number::finite;
use crate::{ProbeError, Span};

fn draw(seed: u64, at: u64) -> u64 {
    let mut text = [0u8; 16];
    for (byte, value) in text.iter_mut().zip(seed.to_be_bytes().into_iter().chain(at.to_be_bytes())) {
        *byte = value;
    }
    let digest = Digest::of(&text);
    digest.as_bytes().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// Puts the items into an order that only the seed knows.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    for last in (1..items.len()).rev() {
        let other = draw(seed, last as u64) % (last as u64 + 1);
        items.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

/// How a question is typed differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Jitter {
    /// More space between words.
    Ws,
    /// Other punctuation at the end.
    Punct,
    /// A verb of questions for one that means the same.
    Syn,
    /// The clauses of a question in the other order.
    Order,
}

const VERBS: &[(&str, &str)] =
    &[("show", "display"), ("remove", "delete"), ("start", "begin"), ("choose", "select"), ("fix", "repair")];

impl Jitter {
    /// The question, typed differently.
    pub fn apply(self, text: &str) -> String {
        let words = || text.split_whitespace();
        match self {
            Self::Ws => words().collect::<Vec<_>>().join("  "),
            Self::Punct => format!("{} ?", text.trim_end_matches(['?', '.', '!', ' '])),
            Self::Syn => words().map(swapped).collect::<Vec<_>>().join(" "),
            Self::Order => match text.trim_end_matches('?').split_once(", ") {
                Some((first, rest)) => format!("{rest}, {first}"),
                None => text.to_owned(),
            },
        }
    }
}

fn swapped(word: &str) -> String {
    let other = VERBS.iter().find_map(|(one, other)| match word {
        word if word == *one => Some(*other),
        word if word == *other => Some(*one),
        _ => None,
    });
    other.unwrap_or(word).to_owned()
}

/// What a candidate is ranked by.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The score; more is nearer.
    pub score: f64,
    /// Its section.
    pub section_id: String,
    /// Its id.
    pub snippet_id: String,
    /// Its place.
    pub span: Span,
}

/// The total order of candidates: by score, then by section, id and place, so that no two orders are possible.
pub fn rank(candidates: &mut [Ranked]) -> Result<(), ProbeError> {
    for candidate in candidates.iter() {
        finite("the score of a snippet", candidate.score)?;
    }
    candidates.sort_by(compare);
    Ok(())
}

fn compare(a: &Ranked, b: &Ranked) -> Ordering {
    // `0.0` and `-0.0` are one score.
    let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
    by_score
        .then_with(|| a.section_id.cmp(&b.section_id))
        .then_with(|| a.snippet_id.cmp(&b.snippet_id))
        .then_with(|| a.span.start().cmp(&b.span.start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn jitter_changes_the_typing_and_nothing_else() {
        let text = "After a failover, how do I remove the old primary?";
        assert_eq!(Jitter::Ws.apply("a  b c"), "a  b  c");
        assert_eq!(Jitter::Punct.apply(text), "After a failover, how do I remove the old primary ?");
        assert_eq!(Jitter::Syn.apply(text), "After a failover, how do I delete the old primary?");
        assert_eq!(Jitter::Order.apply(text), "how do I remove the old primary, After a failover");
        assert_eq!(Jitter::Order.apply("one clause?"), "one clause?");
    }

    #[test]
    fn a_seed_means_the_same_order_for_ever() {
        let mut items: Vec<u32> = (0..8).collect();
        shuffle(&mut items, 7);
        let mut again: Vec<u32> = (0..8).collect();
        shuffle(&mut again, 7);
        assert_eq!(items, again);
        let mut other: Vec<u32> = (0..8).collect();
        shuffle(&mut other, 8);
        assert_ne!(items, other);
    }

    #[test]
    fn a_score_that_is_no_number_is_refused() {
        let candidate = |score| Ranked {
            score,
            section_id: "s".to_owned(),
            snippet_id: "a".to_owned(),
            span: Span::new("x", 0, 1).unwrap(),
        };
        assert!(rank(&mut [candidate(0.5), candidate(f64::NAN)]).is_err());
    }

    proptest! {
        #[test]
        fn shuffling_loses_nothing(count in 0usize..40, seed in any::<u64>()) {
            let mut items: Vec<usize> = (0..count).collect();
            shuffle(&mut items, seed);
            items.sort_unstable();
            prop_assert_eq!(items, (0..count).collect::<Vec<_>>());
        }

        #[test]
        fn whatever_the_order_of_candidates_their_rank_is_one(scores in prop::collection::vec(0u8..4, 1..12), seed in any::<u64>()) {
            let mut list: Vec<Ranked> = scores.iter().zip(0u64..).map(|(score, at)| Ranked {
                score: f64::from(*score) / 4.0,
                section_id: format!("s{}", at % 3),
                snippet_id: format!("c{at}"),
                span: Span::new("x", at, at + 1).unwrap(),
            }).collect();
            let mut other = list.clone();
            shuffle(&mut other, seed);
            rank(&mut list).unwrap();
            rank(&mut other).unwrap();
            prop_assert_eq!(list, other);
        }
    }
}
