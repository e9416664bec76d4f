//! Finds what may be a secret in the text of a policy and blots it out, before anything of the text is shown.
//!
//! In: the text and the places the reader has recognised. Out: a text of the same length in bytes, so that every
//! place stays valid. It errs on the side of hiding: from a secret to the end of its line nothing is shown.

use std::ops::Range;

const MASK: &str = "[hidden]";
/// Parts of a key's name that make its value a secret.
const SECRET_WORDS: &[&str] =
    &["pass", "secret", "token", "credential", "private_key", "api_key", "apikey", "access_key", "pwd"];
const REFERENCES: &[&str] = &["env:", "file:", "vault:"];

/// True for `scheme://…`, and for the `git@host:path` form of git.
pub(crate) fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    }) || (text.starts_with("git@") && text.contains(':') && !text.contains(char::is_whitespace))
}

/// True when a URL carries a password, a token in place of a user, or a secret among its parameters.
pub(crate) fn url_holds_secret(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    if let Some((user, _)) = rest.rsplit_once('@') {
        // Over HTTP a lone user is a token.
        if user.contains(':') || scheme.to_ascii_lowercase().starts_with("http") {
            return true;
        }
    }
    let parameters = rest.split_once(['?', '#', ';']).map_or("", |(_, parameters)| parameters);
    let parameters = parameters.to_ascii_lowercase();
    parameters.split(['&', ';', '?', '#']).filter_map(|pair| pair.split_once('=')).any(|(name, _)| {
        names_a_secret(name) || name.ends_with("key") || name == "sig" || name == "signature"
    })
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Blots out `known` places and everything that looks like a secret. `broken` says that the text is not valid TOML,
/// so that the reader has not seen all of it.
pub(crate) fn mask(text: &str, known: &[Range<usize>], broken: bool) -> String {
    let mut hidden: Vec<Range<usize>> =
        known.iter().map(|range| inside_quotes(text, range)..end_of_line(text, range.end)).collect();
    let mut offset = 0;
    let mut block: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        if let Some(quotes) = block {
            hidden.push(offset..offset + line.len());
            if line.contains(quotes) {
                block = None;
            }
        } else if let Some(start) = secret_in_line(line, broken) {
            hidden.push(offset + start..offset + line.len());
            block = ["\"\"\"", "'''"].into_iter().find(|quotes| line.matches(quotes).count() % 2 == 1);
        }
        offset += line.len();
    }
    blot(text, &hidden)
}

/// The start of a place, after its opening quotes, so that a person sees that a text stood there.
fn inside_quotes(text: &str, range: &Range<usize>) -> usize {
    let place = text.get(range.clone()).unwrap_or_default();
    range.start + (place.len() - place.trim_start_matches(['"', '\'']).len())
}

fn end_of_line(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |newline| at + newline)
}

/// Where in a line something starts that may be a secret.
fn secret_in_line(line: &str, broken: bool) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    [passphrase(&lower), age_key(&lower), url(line), assignment(&lower), unread(&lower, broken)]
        .into_iter()
        .flatten()
        .min()
}

fn passphrase(lower: &str) -> Option<usize> {
    lower
        .match_indices("passphrase:")
        .map(|(start, word)| start + word.len())
        .find(|start| !is_reference(lower.get(*start..).unwrap_or_default()))
}

fn age_key(lower: &str) -> Option<usize> {
    lower.find("age-secret-key-")
}

fn url(line: &str) -> Option<usize> {
    line.match_indices("://").find_map(|(at, mark)| {
        let start =
            line.get(..at)?.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+').map_or(0, |end| end + 1);
        let candidate = line.get(start..)?;
        let end = candidate.find(['"', '\'']).unwrap_or(candidate.len());
        url_holds_secret(candidate.get(..end)?).then_some(at + mark.len())
    })
}

/// `NAME = …` where the name speaks of a secret and the value is not a reference to one.
fn assignment(lower: &str) -> Option<usize> {
    lower.match_indices('=').find_map(|(at, _)| {
        let before = lower.get(..at)?.trim_end().trim_end_matches(['"', '\'']);
        let name_at =
            before.rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-')).map_or(0, |end| end + 1);
        let value = lower.get(at + 1..)?;
        (names_a_secret(before.get(name_at..)?) && !is_reference(value)).then_some(at + 1)
    })
}

/// In a text the reader could not follow, the values that would have been checked: addresses and recipients.
fn unread(lower: &str, broken: bool) -> Option<usize> {
    if !broken {
        return None;
    }
    let (name, value) = lower.split_once('=')?;
    let harmless = match name.trim() {
        "url" => is_reference(value) || value.contains("://"),
        "recipients" => false,
        _ => true,
    };
    (!harmless).then_some(name.len() + 1)
}

fn is_reference(value: &str) -> bool {
    let value = value.trim_start().trim_start_matches(['"', '\'']);
    let value = value.split(['"', '\'']).next().unwrap_or_default();
    REFERENCES.iter().any(|scheme| value.strip_prefix(scheme).is_some_and(|rest| !rest.contains("://")))
}

/// Replaces each place by a mask and spaces, keeping line ends and the length in bytes.
fn blot(text: &str, hidden: &[Range<usize>]) -> String {
    let mut hidden = hidden.to_vec();
    hidden.sort_by_key(|range| range.start);
    let mut bytes = text.as_bytes().to_vec();
    let mut done = 0;
    for range in hidden {
        // Places overlap; each byte is blotted once, so that one mask shows.
        let range = range.start.max(done)..range.end.max(done);
        done = range.end;
        let mut mask = MASK.bytes();
        for byte in bytes.get_mut(range).unwrap_or_default() {
            if !matches!(*byte, b'\n' | b'\r') {
                *byte = mask.next().unwrap_or(b' ');
            }
        }
    }
    // A place starts and ends between characters, so the result is always valid.
    String::from_utf8(bytes).unwrap_or_default()
}
