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

/// A walk that has come so far.
#[derive(Debug)]
pub struct Walk<'a> {
    db: u64,
    scope: &'a Scope,
    cursor: Vec<u8>,
    epoch: Option<u64>,
    restarts: u32,
    is_over: bool,
}

impl<'a> Walk<'a> {
    /// Begins at the beginning.
    pub fn new(db: u64, scope: &'a Scope) -> Self {
        Self { db, scope, cursor: b"0".to_vec(), epoch: None, restarts: 0, is_over: false }
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
            let reply = single(link.ask(self.db, &[command(&question)])?, "SCAN")?;
            if link.epoch() != epoch {
                // Asked again, and answered by another: its page is for a cursor that it did not give.
                continue;
            }
            let (cursor, names) = page(reply)?;
            self.is_over = cursor == b"0";
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
        (self.cursor, self.is_over) = (b"0".to_vec(), false);
        Ok(())
    }
}
