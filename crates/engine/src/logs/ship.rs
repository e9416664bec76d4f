//! From the spool to the copies: each copy gets the pieces in order, and a piece leaves the spool when every copy has it.
//!
//! A copy that cannot take a piece gets none of the later ones in the same run, so that no copy has a hole; the others
//! go on.

use std::collections::BTreeSet;

use lifeboat_base::entropy::Entropy;
use lifeboat_base::failure::Failure;
use lifeboat_base::ids::StreamName;
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_vault::logs::{LogName, LogObject, Logs, Position};

use super::spool::{Piece, Spool};
use crate::copies::{CopyVault, VaultSet};

/// What bringing the spool to the copies came to.
#[derive(Debug, Default)]
pub(super) struct Shipped {
    /// Pieces that every copy has now.
    pub(super) count: u64,
    /// Where the last of them ends, and the newest moment it holds.
    pub(super) head: Option<(Position, Timestamp)>,
    /// Some wait for a copy.
    pub(super) waiting: bool,
    /// What is wrong with the copies.
    pub(super) findings: Vec<Finding>,
}

/// A copy on its way.
struct Taker<'a> {
    entry: &'a CopyVault,
    logs: Logs,
    /// What it held before, where that has to be known.
    held: BTreeSet<LogName>,
    failed: bool,
}

/// Brings every finished piece to every open copy of `set`; a row has `wanted_count` of them.
pub(super) fn ship(
    spool: &Spool,
    set: &VaultSet,
    wanted_count: usize,
    stream: &StreamName,
    entropy: &dyn Entropy,
) -> Result<Shipped, Failure> {
    let mut shipped = Shipped::default();
    let pieces = spool.pieces()?;
    for piece in bring_all(pieces, set, wanted_count, (stream, entropy), &mut shipped) {
        shipped.count += 1;
        shipped.head = Some((piece.head.last(), piece.head.ended));
        piece.remove()?;
    }
    Ok(shipped)
}

/// Brings some pieces to every open copy, while another process has the spool and will take them out of it.
pub(super) fn ship_beside(
    pieces: Vec<Piece>,
    set: &VaultSet,
    wanted_count: usize,
    stream: &StreamName,
    entropy: &dyn Entropy,
) -> Shipped {
    let mut shipped = Shipped::default();
    bring_all(pieces, set, wanted_count, (stream, entropy), &mut shipped);
    shipped
}

/// Gives the pieces that every copy has now.
fn bring_all(
    pieces: Vec<Piece>,
    set: &VaultSet,
    wanted_count: usize,
    (stream, entropy): (&StreamName, &dyn Entropy),
    shipped: &mut Shipped,
) -> Vec<Piece> {
    // While a copy is away pieces stay; reading back what the others have already would take longer each time.
    let all = set.open.len() >= wanted_count;
    let mut takers = Vec::new();
    for entry in &set.open {
        let logs = entry.vault.logs();
        let mut taker = Taker { entry, logs, held: BTreeSet::new(), failed: false };
        if !all && !pieces.is_empty() {
            match taker.logs.list(stream) {
                Ok(names) => taker.held.extend(names),
                Err(error) => fail(&mut taker, shipped, &Failure::from(error)),
            }
        }
        takers.push(taker);
    }
    let mut done = Vec::new();
    for piece in pieces {
        let mut source: Option<Logs> = None;
        let mut holders_count = 0;
        for taker in takers.iter_mut().filter(|taker| !taker.failed) {
            if taker.held.contains(&piece.name) {
                holders_count += 1;
                continue;
            }
            match bring(&piece, source.as_ref(), &taker.logs, stream, entropy) {
                Ok(()) => {
                    source.get_or_insert_with(|| taker.logs.clone());
                    holders_count += 1;
                }
                Err(failure) => fail(taker, shipped, &failure),
            }
        }
        if holders_count < wanted_count {
            shipped.waiting = true;
            continue;
        }
        done.push(piece);
    }
    done
}

fn fail(taker: &mut Taker<'_>, shipped: &mut Shipped, failure: &Failure) {
    taker.failed = true;
    let copy = &taker.entry.copy;
    let message = format!("copy `{copy}` does not get the log: {}", failure.chain());
    shipped.findings.push(Finding::new("log-behind", copy.as_str(), message).with_kind(failure.kind()));
}

/// Sealed once, then carried as it is.
fn bring(
    piece: &Piece,
    source: Option<&Logs>,
    to: &Logs,
    stream: &StreamName,
    entropy: &dyn Entropy,
) -> Result<(), Failure> {
    if let Some(source) = source {
        return Ok(source.carry(stream, piece.name, to)?);
    }
    let notes = piece.notes()?;
    let object = LogObject {
        first: piece.head.first,
        last: piece.head.last(),
        follows: piece.head.follows,
        marks: notes.marks(&piece.head),
        history: notes.history,
        previous: None,
        started: piece.head.started,
        ended: piece.head.ended,
        content: &mut piece.open()?,
    };
    to.append(stream, object, entropy)?;
    Ok(())
}
