//! Counts the keys of a running server that have no time to live. Reads names and times, never a value.
//!
//! In: a link to a server, and patterns of names that may live for ever. Out: exact numbers, and the first names found by walking
//! over at most so many keys. Needs a user with `+info +select +scan +pttl` and names to read.

use std::time::Duration;

use lifeboat_base::time::Clock;

use crate::pattern::fits;
use crate::scan::{Command, Link, Scope, Walk, command, good, single};
use crate::wire::{Connection, Info, RedisError};

/// How many names are asked for at a time.
const PAGE_KEYS: &str = "500";
/// How many examples are kept, and how many bytes of each.
const MAX_EXAMPLES: usize = 5;
const MAX_NAME_BYTES: usize = 64;

/// How far the walk goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Keys that are looked at, at most.
    pub keys: u64,
    /// How long it takes at most.
    pub time: Duration,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Keys in all databases, as the server counts them; as they were met where it does not, or where not all are in scope.
    pub keys: u64,
    /// Those of them without a time to live.
    pub endless: u64,
    /// Whether the two are the server's own numbers.
    pub counted: bool,
    /// Keys that were looked at; a key may be met twice while the server's table grows.
    pub looked_at: u64,
    /// Those of them without a time to live that no pattern allows.
    pub refused: u64,
    /// Whether every key was looked at that was there from beginning to end.
    pub complete: bool,
    /// Names of refused keys with their database, printable: `db0 session:4711`.
    pub examples: Vec<String>,
}

impl Census {
    /// Walks over the keys of all databases that are in scope.
    pub fn take(
        link: &mut dyn Link,
        (scope, allowed): (&Scope, &[String]),
        bounds: Bounds,
        clock: &dyn Clock,
    ) -> Result<Self, RedisError> {
        let started = clock.monotonic();
        let mut census = Self { complete: true, ..Self::default() };
        for database in census.count(link, scope)? {
            let mut walk = Walk::new(database, scope);
            while let Some(names) = walk.next_page(link)? {
                let late = clock.monotonic().saturating_sub(started) > bounds.time;
                if late || census.looked_at >= bounds.keys {
                    census.complete = false;
                    return Ok(census);
                }
                for names in names.chunks(link.at_once()) {
                    census.look(link, database, names, allowed)?;
                }
            }
        }
        Ok(census)
    }

    /// What the server counts itself, and which databases there are.
    fn count(&mut self, link: &mut dyn Link, scope: &Scope) -> Result<Vec<u64>, RedisError> {
        let text = single(link.ask(0, &[command(&[b"INFO", b"keyspace"])])?, "INFO");
        let info = match text {
            Ok(reply) => Info::read(&reply.text().unwrap_or_default()),
            // A service need not say it, and has one database.
            Err(RedisError::Server { .. }) if !link.has_databases() => Info::default(),
            Err(error) => return Err(error),
        };
        let mut databases = Vec::new();
        for (name, text) in info.fields() {
            let Some(number) = name.strip_prefix("db").and_then(|number| number.parse::<u64>().ok()) else {
                continue;
            };
            let of = |field: &str| {
                text.split(',')
                    .find_map(|part| part.strip_prefix(field)?.strip_prefix('=')?.parse::<u64>().ok())
            };
            let (Some(keys), Some(expires)) = (of("keys"), of("expires")) else {
                return Err(RedisError::Protocol { what: "a database without its number of keys" });
            };
            self.keys += keys;
            self.endless += keys.saturating_sub(expires);
            databases.push(number);
        }
        self.counted = scope.prefix.is_empty() && (link.has_databases() || !databases.is_empty());
        if !self.counted {
            // What is met on the way is all that is known.
            (self.keys, self.endless) = (0, 0);
            if !link.has_databases() {
                databases = vec![0];
            }
        }
        Ok(databases)
    }

    fn look(
        &mut self,
        link: &mut dyn Link,
        database: u64,
        names: &[Vec<u8>],
        allowed: &[String],
    ) -> Result<(), RedisError> {
        let asked: Vec<Command> = names.iter().map(|name| command(&[b"PTTL", name])).collect();
        let answers = link.ask(database, &asked)?;
        for (name, answer) in names.iter().zip(answers) {
            // -1: no end; -2: gone meanwhile.
            let endless = good(answer, "PTTL")?.integer() == Some(-1);
            self.looked_at += 1;
            if !self.counted {
                self.keys += 1;
                self.endless += u64::from(endless);
            }
            if !endless || allowed.iter().any(|pattern| fits(pattern.as_bytes(), name)) {
                continue;
            }
            self.refused += 1;
            if self.examples.len() < MAX_EXAMPLES {
                self.examples.push(format!("db{database} {}", shown(name)));
            }
        }
        Ok(())
    }
}

/// A name for people: what is not printable is written as in a string of C, and a long one is cut.
pub fn shown(name: &[u8]) -> String {
    let head = name.get(..MAX_NAME_BYTES).unwrap_or(name).escape_ascii();
    if name.len() > MAX_NAME_BYTES { format!("{head}…") } else { head.to_string() }
}

/// The next names of the selected database, about 500; the cursor is `0` behind the last, and to begin with.
pub fn page(connection: &mut Connection, cursor: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, RedisError> {
    const MALFORMED: RedisError = RedisError::Protocol { what: "an answer to SCAN that is none" };
    let reply = connection.command(&[b"SCAN", cursor.as_slice(), b"COUNT", PAGE_KEYS.as_bytes()])?;
    let [next, names] = reply.members() else { return Err(MALFORMED) };
    *cursor = next.bytes().ok_or(MALFORMED)?.to_vec();
    names.members().iter().map(|name| name.bytes().map(<[u8]>::to_vec).ok_or(MALFORMED)).collect()
}
