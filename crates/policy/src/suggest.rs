//! The nearest known word to one that is not known.

/// The known word a typing error away from `text`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = text.to_lowercase().replace('_', "-");
    known
        .iter()
        .map(|word| (strsim::osa_distance(&lower, &word.to_lowercase().replace('_', "-")), *word))
        .filter(|(distance, word)| *distance <= 1 + word.chars().count().min(lower.chars().count()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// A suggestion, or the whole list after `lead`.
pub(crate) fn help(text: &str, known: &[&str], lead: &str) -> String {
    match nearest(text, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.is_empty() => "there are none in this file".to_owned(),
        None => format!("{lead} {}", list(known)),
    }
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => format!("`{word}`"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|word| format!("`{word}`")).collect();
            format!("{} and `{last}`", head.join(", "))
        }
    }
}
