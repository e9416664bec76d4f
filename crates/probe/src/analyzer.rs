//! What an analyzer does, told by what it makes of a fixed list of awkward texts. Its name tells nothing.
//!
//! In: an analyzer. Out: a fingerprint, the same for two analyzers that make the same tokens of the list.

use lifeboat_base::digest::{Digest, Hasher};

/// The pipeline that makes tokens of a text: case, folding, cutting, stemming, stop words.
pub trait Analyzer {
    /// The tokens of `text`, in order.
    fn tokens(&self, text: &str) -> Vec<String>;
}

/// The texts of the fingerprint. The list is part of the format: it is never changed, only replaced with a new version.
pub const CANARIES: &[&str] = &[
    "r\u{e9}sum\u{e9}",
    "resume",
    "\u{ff26}\u{ff55}\u{ff4c}\u{ff4c} \u{ff57}\u{ff49}\u{ff44}\u{ff54}\u{ff48}",
    "\u{130}stanbul I\u{131}i",
    "Stra\u{df}e STRASSE",
    "\u{6771}\u{4eac}\u{90fd}\u{5e81}",
    "state-of-the-art",
    "co\u{ad}operate",
    "parseHTTPResponse_v2",
    "1,234.50",
    "https://example.org/a?b=c#d",
    "the running runners ran",
];

/// The fingerprint of an analyzer.
pub fn fingerprint(analyzer: &dyn Analyzer) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(b"analyzer.v1\n");
    for canary in CANARIES {
        let tokens = analyzer.tokens(canary);
        hasher.update(&(tokens.len() as u64).to_be_bytes());
        for token in tokens {
            hasher.update(&(token.len() as u64).to_be_bytes());
            hasher.update(token.as_bytes());
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use unicode_normalization::UnicodeNormalization;

    use super::*;

    struct Made(fn(&str) -> Vec<String>);

    impl Analyzer for Made {
        fn tokens(&self, text: &str) -> Vec<String> {
            (self.0)(text)
        }
    }

    fn split(text: &str) -> Vec<String> {
        let words = text.split(|character: char| !character.is_alphanumeric());
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn every_way_to_analyse_has_its_own_fingerprint() {
        let ways: [fn(&str) -> Vec<String>; 9] = [
            split,
            |text| split(&text.to_lowercase()),
            |text| split(&text.nfkc().collect::<String>().to_lowercase()),
            |text| split(&text.nfd().filter(char::is_ascii).collect::<String>().to_lowercase()),
            |text| split(text).into_iter().filter(|word| word != "the").collect(),
            |text| split(text).into_iter().map(|word| word.trim_end_matches("ning").to_owned()).collect(),
            |text| text.split_whitespace().map(str::to_owned).collect(),
            |text| split(&text.replace('\u{ad}', "")),
            |_text| Vec::new(),
        ];
        let prints: BTreeSet<Digest> = ways.iter().map(|way| fingerprint(&Made(*way))).collect();
        assert_eq!(prints.len(), ways.len());
        assert_eq!(fingerprint(&Made(split)), fingerprint(&Made(|text| split(&text.replace("zzz", "")))));
    }

    #[test]
    fn tokens_that_run_together_are_not_the_same_tokens() {
        let one = Made(|text| vec!["ab".to_owned(), "c".to_owned(), text.to_owned()]);
        let other = Made(|text| vec!["a".to_owned(), "bc".to_owned(), text.to_owned()]);
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }
}
