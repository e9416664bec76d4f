//! What a server lets us ask: services leave out commands, and each leaves out others.

use super::answers::{command, good, number, single};
use super::link::Link;
use crate::wire::{Info, RedisError, Reply};

/// The most databases that are looked for where the server does not name them.
const MAX_DATABASES: u64 = 1024;
/// A name that nobody uses, behind the prefix of a scope.
const NOBODY: &[u8] = b"lifeboat-looks-for-what-is-known-here";

/// What can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// `PEXPIRETIME`: ends are exact. Without it they are a time to live, counted from our clock.
    pub exact_ends: bool,
    /// `HPEXPIRETIME`: fields of hashes may have ends.
    pub field_ends: bool,
    /// The server's version, where it tells.
    pub version: Option<String>,
    /// What it calls itself: `standalone`, `cluster`; nothing where it does not tell.
    pub mode: Option<String>,
    /// Databases that hold keys.
    pub databases: Vec<u64>,
    /// Keys in all of them, of any name, where the server counts.
    pub keys: Option<u64>,
    /// Libraries of functions, where they may be listed.
    pub functions: Option<u64>,
}

impl Abilities {
    /// Asks. `prefix` begins the names that may be asked about.
    pub fn probe(link: &mut dyn Link, prefix: &[u8]) -> Result<Self, RedisError> {
        let nobody = [prefix, NOBODY].concat();
        let mut abilities = Self::default();
        let ask =
            |link: &mut dyn Link, words: &[&[u8]]| link.ask(0, &[command(words)]).map(|mut all| all.pop());
        // What must be there, or nothing goes.
        single(link.ask(0, &[command(&[b"TYPE", &nobody])])?, "TYPE")?;
        let end = ask(link, &[b"PEXPIRETIME", &nobody])?;
        abilities.exact_ends = matches!(end, Some(Reply::Integer(_)));
        if !abilities.exact_ends {
            single(link.ask(0, &[command(&[b"PTTL", &nobody])])?, "PTTL")?;
        }
        let ends = ask(link, &[b"HPEXPIRETIME", &nobody, b"FIELDS", b"1", b"f"])?;
        abilities.field_ends = match ends {
            Some(Reply::Error(source))
                if source.code == "NOPERM" && source.message.contains("hpexpiretime") =>
            {
                return Err(RedisError::Server { command: "HPEXPIRETIME".to_owned(), source });
            }
            Some(Reply::Error(_)) | None => false,
            Some(_) => true,
        };
        let info = match ask(link, &[b"INFO"])? {
            Some(Reply::Error(_)) | None => Info::default(),
            Some(reply) => Info::read(&reply.text().unwrap_or_default()),
        };
        abilities.version = info.get("redis_version").map(str::to_owned);
        abilities.mode = info.get("redis_mode").map(str::to_owned);
        if let Some(Reply::Array(libraries)) = ask(link, &[b"FUNCTION", b"LIST"])? {
            abilities.functions = Some(libraries.len() as u64);
        }
        let named = info.fields().filter_map(|(name, _)| name.strip_prefix("db")?.parse().ok());
        abilities.databases = named.collect();
        abilities.count(link)?;
        Ok(abilities)
    }

    /// Counts keys, and looks for databases where the server names none.
    fn count(&mut self, link: &mut dyn Link) -> Result<(), RedisError> {
        let known = !self.databases.is_empty();
        let candidates = match (known, link.has_databases()) {
            (true, _) => std::mem::take(&mut self.databases),
            (false, true) => (0..MAX_DATABASES).collect(),
            (false, false) => vec![0],
        };
        for db in candidates {
            let size = match link.ask(db, &[command(&[b"DBSIZE"])]) {
                Ok(replies) => good(replies.into_iter().next().unwrap_or(Reply::Null), "DBSIZE"),
                // There is no such database: the one before was the last.
                Err(error @ RedisError::Server { .. }) if db > 0 && !known => {
                    // One that must not be looked at may hold something.
                    if error.server().is_some_and(|source| source.code == "NOPERM") {
                        return Err(error);
                    }
                    break;
                }
                Err(error) => return Err(error),
            };
            match size.as_ref().ok().and_then(number) {
                Some(0) => {}
                Some(keys) => {
                    self.databases.push(db);
                    self.keys = Some(self.keys.unwrap_or_default() + keys);
                }
                // It does not count, so it may hold something.
                None => self.databases.push(db),
            }
        }
        Ok(())
    }
}
