//! A walk over the names of a database.
//!
//! `SCAN` promises to show what was there from beginning to end, as long as it is the same server that goes on: an empty page
//! is not the end, only the cursor `0` is; a name may come twice; and what answers under the same address after a restart
//! or a failover has an order of its own, where a cursor means nothing. Then the walk begins again.

use super::answers::{command, page, single, texts};
use super::link::Link;
use crate::wire::RedisError;

/// How often a walk begins again because another server answers.
pub const MAX_RESTARTS: u32 = 10;
/// How many names are asked for at a time.
const PAGE_KEYS: &[u8] = b"1000";

/// Which names belong to a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// What they begin with.
    pub prefix: Vec<u8>,
}

impl Scope {
    /// Whether a name belongs to it.
    pub fn holds(&self, name: &[u8]) -> bool {
        name.starts_with(&self.prefix)
    }

    /// The prefix as a server's pattern: what means something there is escaped.
    fn pattern(&self) -> Vec<u8> {
        let mut pattern = Vec::with_capacity(self.prefix.len() + 1);
        for byte in &self.prefix {
            if b"*?[]^\\-".contains(byte) {
                pattern.push(b'\\');
            }
            pattern.push(*byte);
        }
        pattern.push(b'*');
        pattern
    }
}

/// Nobody answers, whatever the cursor.
fn is_away(error: &RedisError) -> bool {
    matches!(error, RedisError::GaveUp { .. }) || error.is_passing()
}

/// A walk that has come so far.
#[derive(Debug)]
pub struct Walk<'a> {
    db: u64,
    scope: &'a Scope,
    cursor: Vec<u8>,
    epoch: Option<u64>,
    restarts: u32,
    is_over: bool,
    /// Whether the cursor is another walk's, and nobody has said yet that it means anything.
    is_foreign: bool,
}

impl<'a> Walk<'a> {
    /// Begins at the beginning.
    pub fn new(db: u64, scope: &'a Scope) -> Self {
        let cursor = b"0".to_vec();
        Self { db, scope, cursor, epoch: None, restarts: 0, is_over: false, is_foreign: false }
    }

    /// Begins where another walk has come to, if the server takes that for a place. It shows what it likes then: whoever needs
    /// every name has to walk from the beginning as well.
    pub fn from(db: u64, scope: &'a Scope, cursor: u64) -> Self {
        Self { cursor: cursor.to_string().into_bytes(), is_foreign: true, ..Self::new(db, scope) }
    }

    /// Where it goes on; nothing at the end, or if the server's word for it is no number.
    pub fn place(&self) -> Option<u64> {
        let cursor = std::str::from_utf8(&self.cursor).ok()?.parse().ok();
        cursor.filter(|_| !self.is_over)
    }

    /// Whether it has come to its end.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The database.
    pub fn db(&self) -> u64 {
        self.db
    }

    /// How often it began again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The next names, possibly none; nothing at the end.
    pub fn next_page(&mut self, link: &mut dyn Link) -> Result<Option<Vec<Vec<u8>>>, RedisError> {
        if self.is_over && self.epoch == Some(link.epoch()) {
            return Ok(None);
        }
        loop {
            let epoch = link.epoch();
            if self.epoch.is_some_and(|before| before != epoch) {
                self.begin_again()?;
            }
            self.epoch = Some(epoch);
            let mut question: Vec<&[u8]> = vec![b"SCAN", &self.cursor];
            let pattern = self.scope.pattern();
            if !self.scope.prefix.is_empty() {
                question.extend([b"MATCH".as_slice(), &pattern]);
            }
            question.extend([b"COUNT".as_slice(), PAGE_KEYS]);
            let asked = link.ask(self.db, &[command(&question)]);
            if asked.is_ok() && link.epoch() != epoch {
                // Asked again, and answered by another: its page is for a cursor that it did not give.
                continue;
            }
            let told = asked.and_then(|replies| single(replies, "SCAN")).and_then(page);
            let (cursor, names) = match told {
                // It is no place there, or one that leads nowhere.
                Err(error) if self.is_foreign && !is_away(&error) => {
                    self.begin();
                    continue;
                }
                Ok((cursor, _)) if self.is_foreign && cursor == self.cursor => {
                    self.begin();
                    continue;
                }
                other => other?,
            };
            self.is_over = cursor == b"0";
            self.is_foreign = false;
            self.cursor = cursor;
            let names = texts(names)?.into_iter().filter(|name| self.scope.holds(name)).collect();
            return Ok(Some(names));
        }
    }

    fn begin_again(&mut self) -> Result<(), RedisError> {
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS {
            return Err(RedisError::Protocol { what: "it was another server too often in one walk" });
        }
        self.begin();
        Ok(())
    }

    fn begin(&mut self) {
        (self.cursor, self.is_over, self.is_foreign) = (b"0".to_vec(), false, false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lifeboat_base::time::SystemClock;

    use super::super::link::Command;
    use super::super::pace::Pace;
    use super::*;
    use crate::wire::{Reply, ServerError};

    /// A service that takes no cursor which it has not given itself; no server that can be had here does that.
    struct Fussy {
        pace: Pace,
        given: Vec<Vec<u8>>,
        asked: Vec<Vec<u8>>,
        /// Whether it refuses the request, as over REST, or the command.
        refuses_requests: bool,
    }

    impl Link for Fussy {
        fn ask(&mut self, _db: u64, questions: &[Command]) -> Result<Vec<Reply>, RedisError> {
            let cursor = questions[0][1].clone();
            self.asked.push(cursor.clone());
            if !self.given.contains(&cursor) {
                let source = ServerError { code: "ERR".to_owned(), message: "invalid cursor".to_owned() };
                if self.refuses_requests {
                    return Err(RedisError::Server { command: "SCAN".to_owned(), source });
                }
                return Ok(vec![Reply::Error(source)]);
            }
            let next: &[u8] = if cursor == b"0" { b"8" } else { b"0" };
            self.given.push(next.to_vec());
            let name = Reply::Bulk([b"after ", &cursor[..]].concat());
            Ok(vec![Reply::Array(vec![Reply::Bulk(next.to_vec()), Reply::Array(vec![name])])])
        }

        fn tell(&mut self, _db: u64, _commands: &[Command]) -> Result<Vec<Reply>, RedisError> {
            Ok(Vec::new())
        }

        fn target(&self) -> String {
            "fussy".to_owned()
        }

        fn epoch(&self) -> u64 {
            1
        }

        fn has_databases(&self) -> bool {
            false
        }

        fn pace(&self) -> &Pace {
            &self.pace
        }

        fn most_commands(&self) -> usize {
            1
        }

        fn most_bytes(&self) -> usize {
            1024
        }
    }

    #[test]
    fn a_foreign_cursor_that_is_refused_is_given_up_and_an_own_one_is_an_error() {
        for refuses_requests in [false, true] {
            let pace = Pace::new(Arc::new(SystemClock::new()), None);
            let mut link = Fussy { pace, given: vec![b"0".to_vec()], asked: Vec::new(), refuses_requests };
            let scope = Scope::default();
            let mut walk = Walk::from(0, &scope, 17);
            assert_eq!(walk.next_page(&mut link).unwrap().unwrap(), [b"after 0"]);
            assert_eq!((walk.place(), walk.is_over(), walk.restarts()), (Some(8), false, 0));
            assert_eq!(walk.next_page(&mut link).unwrap().unwrap(), [b"after 8"]);
            assert!(walk.is_over() && walk.place().is_none());
            assert_eq!(walk.next_page(&mut link).unwrap(), None);
            assert_eq!(link.asked, [&b"17"[..], b"0", b"8"]);
            let mut walk = Walk::new(0, &scope);
            walk.next_page(&mut link).unwrap();
            link.given.clear();
            walk.next_page(&mut link).unwrap_err();
        }
    }
}
