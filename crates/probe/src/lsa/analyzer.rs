//! The words of the built-in embedder: folded, cut, without stop words, without English endings.
//!
//! In: text. Out: terms. Its fingerprint is stored with every fitted model, so that a model is never used with other words
//! than it was fitted on.

use unicode_normalization::UnicodeNormalization;

use crate::analyzer::Analyzer;
use crate::span::words;

/// Words that say nothing about what a text is about.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because",
    "been", "before", "being", "between", "both", "but", "by", "can", "could", "did", "do", "does", "doing",
    "down", "during", "each", "few", "for", "from", "further", "had", "has", "have", "having", "he", "her",
    "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "me", "more",
    "most", "my", "no", "nor", "not", "now", "of", "off", "on", "once", "only", "or", "other", "our", "out",
    "over", "own", "same", "she", "should", "so", "some", "such", "than", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "through", "to", "too", "under", "until", "up",
    "very", "was", "we", "were", "what", "when", "where", "which", "while", "who", "whom", "why", "will",
    "with", "would", "you", "your",
];

/// The analyzer of the built-in embedder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms;

impl Analyzer for Terms {
    fn tokens(&self, text: &str) -> Vec<String> {
        let folded: String =
            text.nfkc().flat_map(char::to_lowercase).filter(|letter| *letter != '\u{ad}').collect();
        let cut = words(&folded, 0);
        let texts = cut.iter().filter_map(|span| {
            let (start, end) = (usize::try_from(span.start()).ok()?, usize::try_from(span.end()).ok()?);
            folded.get(start..end)
        });
        texts.filter(|word| STOP_WORDS.binary_search(word).is_err()).map(stem).collect()
    }
}

/// Takes English endings off, so that `restores`, `restored` and `restoring` are one term. Words that are short, or hold
/// anything but small Latin letters, are left alone.
fn stem(word: &str) -> String {
    if word.len() < 4 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return word.to_owned();
    }
    let singular = singular(word);
    let bare = ["ingly", "edly", "ing", "ed"].iter().find_map(|ending| without(&singular, ending));
    let mut term = bare.unwrap_or_else(|| singular.clone());
    if term.len() > 4
        && let Some(rest) = term.strip_suffix("ly")
    {
        term = rest.to_owned();
    }
    if term.len() > 3
        && let Some(rest) = term.strip_suffix('e')
    {
        term = rest.to_owned();
    }
    if term.len() > 3
        && let Some(rest) = term.strip_suffix('y')
    {
        term = format!("{rest}i");
    }
    term
}

fn singular(word: &str) -> String {
    if let Some(rest) = word.strip_suffix("ies").filter(|rest| rest.len() > 1) {
        return format!("{rest}y");
    }
    if let Some(rest) = word.strip_suffix("sses") {
        return format!("{rest}ss");
    }
    let is_plural =
        word.ends_with('s') && !word.ends_with("ss") && !word.ends_with("us") && !word.ends_with("is");
    word.strip_suffix('s').filter(|_| is_plural).unwrap_or(word).to_owned()
}

/// The word without the ending, when a syllable remains; a letter that the ending doubled is single again.
fn without(word: &str, ending: &str) -> Option<String> {
    let rest = word.strip_suffix(ending)?;
    if rest.len() < 3 || !rest.bytes().any(|byte| b"aeiouy".contains(&byte)) {
        return None;
    }
    let doubled = match rest.as_bytes() {
        [.., a, b] => a == b && !b"aeiouslz".contains(b),
        _ => false,
    };
    Some(rest.get(..rest.len() - usize::from(doubled))?.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stop_words_are_sorted() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn forms_of_a_word_are_one_term() {
        let one = |forms: &str| {
            let terms = Terms.tokens(forms);
            assert!(terms.windows(2).all(|pair| pair[0] == pair[1]), "{terms:?}");
        };
        one("restore restores restored restoring Restore");
        one("policy policies");
        one("class classes");
        one("plan plans planned planning");
        one("encrypt encrypts encrypted encrypting");
        one("\u{ff26}\u{ff55}\u{ff4c}\u{ff4c} full");
        one("co\u{ad}operate cooperate");
    }

    #[test]
    fn words_that_look_like_forms_are_left_alone() {
        assert_eq!(
            Terms.tokens("status thing basis red r2d2s"),
            ["status", "thing", "basis", "red", "r2d2s"]
        );
        assert_eq!(Terms.tokens("What is the and of it"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_text_has_terms_without_a_fault(text in "\\PC{0,60}") {
            for term in Terms.tokens(&text) {
                prop_assert!(!term.is_empty());
            }
        }
    }
}
