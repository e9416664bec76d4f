//! Checks that a policy promises: commands that only read, with what they must answer.
//!
//! In: `[dbN:]COMMAND ARGUMENT… [= VALUE | != VALUE | < NUMBER | <= NUMBER | > NUMBER | >= NUMBER]`. Out: check results
//! that never contain a value from the server.

use lifeboat_redis::wire::{Connection, RedisError, Reply};

use crate::adapter::CheckResult;
use crate::tally::Tally;

/// The family of these checks.
pub(super) const COMMAND: &str = "redis.command";
const EXPECTED: &str = "the answer that is promised";

/// A command and what it must answer.
#[derive(Debug, PartialEq, Eq)]
struct Promise<'a> {
    database: u64,
    words: Vec<&'a str>,
    /// Without one the answer must be neither nothing, nor 0, nor empty.
    expected: Option<(&'a str, String)>,
}

/// A database's number and what follows `dbN:`; without it, 0 and the whole.
pub(super) fn database_and_rest(text: &str) -> (u64, &str) {
    match text.split_once(':') {
        Some((db, rest)) if db.starts_with("db") && db.len() > 2 => match db.get(2..).map(str::parse) {
            Some(Ok(number)) => (number, rest),
            _ => (0, text),
        },
        _ => (0, text),
    }
}

fn parse(text: &str) -> Result<Promise<'_>, &'static str> {
    const FORM: &str = "it must have the form `[dbN:]COMMAND ARGUMENT… [= VALUE]`";
    let (database, rest) = database_and_rest(text);
    let mut words: Vec<&str> = rest.split_whitespace().collect();
    let mark = words.iter().position(|word| matches!(*word, "=" | "!=" | "<" | "<=" | ">" | ">="));
    let expected = match mark {
        Some(at) => {
            let value = words.split_off(at);
            match value.split_first() {
                Some((mark, value)) if !value.is_empty() => Some((*mark, value.join(" "))),
                _ => return Err(FORM),
            }
        }
        None => None,
    };
    if words.is_empty() { Err(FORM) } else { Ok(Promise { database, words, expected }) }
}

/// Whether the policy's command `number`, counted from 1, answers as it must.
pub(super) fn check(connection: &mut Connection, number: usize, text: &str) -> CheckResult {
    let mut tally = Tally::default();
    match parse(text) {
        Err(why) => tally.add(|| why.to_owned()),
        Ok(promise) => match run(connection, &promise) {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => tally.add(|| format!("`{}` answers something else", promise.words.join(" "))),
            Ok(Err(why)) => tally.add(|| why),
            Err(error) => tally.add(|| lifeboat_base::failure::chain(&error)),
        },
    }
    let measured = if tally.count() == 0 { EXPECTED } else { "another" };
    tally.result(&format!("{COMMAND}/{number}"), measured, EXPECTED)
}

fn run(connection: &mut Connection, promise: &Promise<'_>) -> Result<Result<bool, String>, RedisError> {
    let name = promise.words.first().copied().unwrap_or_default();
    if let Some(why) = forbidden(connection, name)? {
        return Ok(Err(why));
    }
    connection.ask(&format!("SELECT {}", promise.database))?;
    let parts: Vec<&[u8]> = promise.words.iter().map(|word| word.as_bytes()).collect();
    let reply = connection.command(&parts)?;
    Ok(match &promise.expected {
        None => Ok(is_something(&reply)),
        Some((mark, value)) => compare(&reply, mark, value),
    })
}

/// Only commands that the server itself calls read-only run, and none that runs a program or waits.
fn forbidden(connection: &mut Connection, name: &str) -> Result<Option<String>, RedisError> {
    let reply = connection.command(&[b"COMMAND", b"INFO", name.as_bytes()])?;
    let Some(flags) = reply.members().first().and_then(|command| command.members().get(2)) else {
        return Ok(Some(format!("the server has no command `{name}`")));
    };
    let has = |flag: &str| flags.members().iter().any(|have| have.bytes() == Some(flag.as_bytes()));
    let fine = has("readonly") && !has("noscript") && !has("blocking") && !has("admin");
    Ok((!fine).then(|| format!("`{name}` does more than read, or runs a program")))
}

fn is_something(reply: &Reply) -> bool {
    match reply {
        Reply::Null | Reply::Error(_) | Reply::Integer(0) => false,
        Reply::Integer(_) => true,
        Reply::Simple(bytes) | Reply::Bulk(bytes) => !bytes.is_empty() && bytes != b"0",
        Reply::Array(members) => !members.is_empty(),
    }
}

fn compare(reply: &Reply, mark: &str, value: &str) -> Result<bool, String> {
    let text = match reply {
        Reply::Integer(number) => number.to_string(),
        Reply::Simple(_) | Reply::Bulk(_) => reply.text().unwrap_or_default(),
        Reply::Null => "nil".to_owned(),
        Reply::Array(members) => members.len().to_string(),
        Reply::Error(_) => return Ok(false),
    };
    match mark {
        "=" => return Ok(text == value),
        "!=" => return Ok(text != value),
        _ => {}
    }
    let (Ok(found), Ok(wanted)) = (text.parse::<f64>(), value.parse::<f64>()) else {
        return Err("what is compared by size must be a number".to_owned());
    };
    Ok(match mark {
        "<" => found < wanted,
        "<=" => found <= wanted,
        ">" => found > wanted,
        _ => found >= wanted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_read() {
        let promise = parse("db3:HGET user:1 name = Ada Lovelace").unwrap();
        assert_eq!((promise.database, promise.words), (3, vec!["HGET", "user:1", "name"]));
        assert_eq!(promise.expected, Some(("=", "Ada Lovelace".to_owned())));
        let promise = parse("EXISTS db:1").unwrap();
        assert_eq!((promise.database, promise.words), (0, vec!["EXISTS", "db:1"]));
        assert!(parse("").is_err());
        assert!(parse("GET a =").is_err());
        assert!(parse("= 3").is_err());
    }

    #[test]
    fn answers_are_compared() {
        let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        assert_eq!(compare(&bulk("10"), ">", "9"), Ok(true));
        assert_eq!(compare(&bulk("10"), "<", "9"), Ok(false));
        assert_eq!(compare(&Reply::Integer(3), "=", "3"), Ok(true));
        assert_eq!(compare(&Reply::Null, "=", "nil"), Ok(true));
        assert_eq!(compare(&Reply::Array(vec![Reply::Null]), ">=", "1"), Ok(true));
        assert!(compare(&bulk("x"), ">", "9").is_err());
        assert!(is_something(&bulk("x")) && !is_something(&bulk("0")) && !is_something(&Reply::Null));
    }
}
