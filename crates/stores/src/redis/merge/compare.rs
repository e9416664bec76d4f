//! What keys amount to on either side, whatever they are called there.

use std::collections::HashMap;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_redis::rdb::Kind;
use lifeboat_redis::scan::{Abilities, Closed, Command, Head, Link, Nowhere, Outcome, ReadError, read_page};

use crate::redis::error;

/// How far an end may be off that is counted from our clock.
const END_SLACK_MS: u64 = 2_000;

/// A key without its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    kind: Kind,
    pub(super) end_ms: Option<i64>,
    value: [u8; 32],
}

impl Brief {
    fn new(head: &Head, closed: &Closed) -> Self {
        Self { kind: head.kind, end_ms: head.end_ms, value: closed.value }
    }

    /// Whether both are the same key; `exact` says whether ends are.
    pub(super) fn is(&self, other: &Self, exact: bool) -> bool {
        let ends = match (self.end_ms, other.end_ms) {
            (Some(one), Some(other)) => one == other || (!exact && one.abs_diff(other) <= END_SLACK_MS),
            (one, other) => one == other,
        };
        (self.kind, self.value) == (other.kind, other.value) && ends
    }
}

/// What of these is there and can be read.
pub(super) fn briefs(
    link: &mut dyn Link,
    (db, abilities): (u64, &Abilities),
    names: &[Vec<u8>],
) -> Result<HashMap<Vec<u8>, Brief>, Failure> {
    let mut found = HashMap::new();
    let mut done = |name: &[u8], outcome: Outcome| {
        if let Outcome::Read(read) = outcome {
            found.insert(name.to_vec(), Brief::new(&read.head, &read.closed));
        }
        Ok(())
    };
    match read_page(link, (db, abilities), names, &mut Nowhere, &mut done) {
        Ok(()) => Ok(found),
        Err(ReadError::Server(failed)) => {
            Err(error::connection("keys could not be read for comparison")(failed))
        }
        Err(ReadError::Sink(never)) => match never {},
    }
}

/// Which of these are there, whatever they are.
pub(super) fn existing(link: &mut dyn Link, db: u64, names: &[Vec<u8>]) -> Result<Vec<bool>, Failure> {
    let mut there = Vec::with_capacity(names.len());
    let at_once = link.at_once();
    for names in names.chunks(at_once) {
        let questions: Vec<Command> =
            names.iter().map(|name| vec![b"EXISTS".to_vec(), name.clone()]).collect();
        let replies =
            link.ask(db, &questions).map_err(error::connection("the server cannot be looked at"))?;
        for reply in replies {
            let Some(count) = reply.integer() else {
                let what = "the server does not say whether a key is there";
                return Err(Failure::new(FailureKind::Unreachable, what));
            };
            there.push(count > 0);
        }
    }
    Ok(there)
}
