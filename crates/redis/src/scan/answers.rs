//! Takes answers apart; what is not of the expected form is an error, never nothing.

use super::link::Command;
use super::value::Pair;
use crate::wire::{RedisError, Reply};

/// A command of these words.
pub(super) fn command(words: &[&[u8]]) -> Command {
    words.iter().map(|word| word.to_vec()).collect()
}

pub(super) fn malformed(what: &'static str) -> RedisError {
    RedisError::Protocol { what }
}

/// The answer, unless it is the server's error.
pub(super) fn good(reply: Reply, command: &str) -> Result<Reply, RedisError> {
    match reply {
        Reply::Error(source) => Err(RedisError::Server { command: command.to_owned(), source }),
        reply => Ok(reply),
    }
}

/// The only answer to one question.
pub(super) fn single(replies: Vec<Reply>, command: &str) -> Result<Reply, RedisError> {
    match replies.into_iter().next() {
        Some(reply) => good(reply, command),
        None => Err(malformed("a question without an answer")),
    }
}

/// A number from 0 on, also where it comes as text.
pub(super) fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Integer(number) => u64::try_from(*number).ok(),
        other => std::str::from_utf8(other.bytes()?).ok()?.parse().ok(),
    }
}

/// A text, taken without a copy.
pub(super) fn bytes(reply: Reply) -> Result<Vec<u8>, RedisError> {
    match reply {
        Reply::Bulk(bytes) | Reply::Simple(bytes) => Ok(bytes),
        Reply::Integer(number) => Ok(number.to_string().into_bytes()),
        _ => Err(malformed("an answer without a text")),
    }
}

/// The members of a list.
pub(super) fn list(reply: Reply) -> Result<Vec<Reply>, RedisError> {
    match reply {
        Reply::Array(members) => Ok(members),
        _ => Err(malformed("an answer that is no list")),
    }
}

/// A list of texts.
pub(super) fn texts(reply: Reply) -> Result<Vec<Vec<u8>>, RedisError> {
    list(reply)?.into_iter().map(bytes).collect()
}

/// A list of texts, two by two.
pub(super) fn pairs(reply: Reply) -> Result<Vec<Pair>, RedisError> {
    let mut rest = texts(reply)?.into_iter();
    let mut pairs = Vec::with_capacity(rest.len() / 2);
    while let Some(first) = rest.next() {
        let second = rest.next().ok_or_else(|| malformed("a list with half a pair"))?;
        pairs.push((first, second));
    }
    Ok(pairs)
}

/// A cursor, and what came with it. Cursors are texts: they reach up to 2^64.
pub(super) fn page(reply: Reply) -> Result<(Vec<u8>, Reply), RedisError> {
    const MALFORMED: &str = "a page that is none";
    let mut parts = list(reply)?.into_iter();
    let (Some(cursor), Some(content), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed(MALFORMED));
    };
    let cursor = bytes(cursor)?;
    if cursor.is_empty() || !cursor.iter().all(u8::is_ascii_digit) {
        return Err(malformed(MALFORMED));
    }
    Ok((cursor, content))
}

/// Members and scores.
pub(super) fn scored(reply: Reply) -> Result<Vec<(Vec<u8>, f64)>, RedisError> {
    pairs(reply)?
        .into_iter()
        .map(|(member, score)| {
            let score = std::str::from_utf8(&score).ok().and_then(|text| text.parse().ok());
            score.map(|score| (member, score)).ok_or_else(|| malformed("a score that is no number"))
        })
        .collect()
}
