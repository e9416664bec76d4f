//! From the spool to the copies: each copy gets the pieces in order, and a piece leaves the spool when every copy has it.
//!
//! A copy that cannot take a piece gets none of the later ones in the same run, so that no copy has a hole; the others
//! go on. A damaged object stands in nobody's way: what it held is stored beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use lifeboat_base::entropy::Entropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StoreName, StreamName};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_vault::logs::{Carried, LogName, LogObject, LogPiece, Logs, LogsError, Position};

use super::marks::Marks;
use super::sources::holes;
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
    /// There was no time for all of them.
    pub(super) unfinished: bool,
    /// What each copy took in, or was found to hold.
    pub(super) brought: Vec<(CopyName, LogName)>,
    /// What is wrong with the copies.
    pub(super) findings: Vec<Finding>,
}

/// Where pieces go, and what is known there.
pub(super) struct Shipment<'a> {
    pub(super) store: &'a StoreName,
    pub(super) set: &'a VaultSet,
    /// How many copies the row has.
    pub(super) wanted_count: usize,
    pub(super) stream: &'a StreamName,
    pub(super) marks: Marks,
    pub(super) entropy: &'a dyn Entropy,
    /// Asked before each piece but the first: true ends the shipment there.
    pub(super) enough: &'a dyn Fn() -> bool,
}

/// A copy on its way.
struct Taker<'a> {
    entry: &'a CopyVault,
    logs: Logs,
    /// What it held before, where that has to be known.
    held: BTreeSet<LogName>,
    /// Objects of it that are known to be damaged.
    damaged: BTreeSet<LogName>,
    failed: bool,
}

impl Taker<'_> {
    fn holds(&self, name: LogName) -> bool {
        if self.held.contains(&name) {
            return true;
        }
        let (first, last) = (name.first(), name.last());
        let held = self.held.iter().copied();
        !self.held.is_empty() && holes(held, first.timeline, first.offset, last.offset).is_empty()
    }
}

/// How a copy came to hold a piece.
enum Brought {
    /// Under its name, in so many bytes.
    Whole(u64),
    /// Beside the object of its name, which is damaged.
    Beside(String),
}

impl Shipment<'_> {
    /// Brings every finished piece to every open copy.
    pub(super) fn all(&self, spool: &Spool) -> Result<Shipped, Failure> {
        let mut shipped = Shipped::default();
        let pieces = spool.pieces()?;
        for piece in self.bring_all(pieces, &mut shipped)? {
            shipped.count += 1;
            shipped.head = Some((piece.head.last(), piece.head.ended));
            piece.remove()?;
        }
        Ok(shipped)
    }

    /// Brings some pieces to every open copy, while another process has the spool and will take them out of it.
    pub(super) fn beside(&self, pieces: Vec<Piece>) -> Result<Shipped, Failure> {
        let mut shipped = Shipped::default();
        self.bring_all(pieces, &mut shipped)?;
        Ok(shipped)
    }

    fn takers(&self, any: bool, shipped: &mut Shipped) -> Result<Vec<Taker<'_>>, Failure> {
        // While a copy is away pieces stay; reading back what the others have already would take longer each time.
        let away = self.set.open.len() < self.wanted_count;
        let mut takers = Vec::new();
        for entry in &self.set.open {
            let damaged = self.marks.of(&entry.copy)?.into_keys().collect();
            let mut taker =
                Taker { entry, logs: entry.vault.logs(), held: BTreeSet::new(), damaged, failed: false };
            if away && any {
                match taker.logs.list(self.stream) {
                    Ok(names) => {
                        taker.held.extend(names.into_iter().filter(|name| !taker.damaged.contains(name)));
                    }
                    Err(error) => fail(&mut taker, shipped, &Failure::from(error)),
                }
            }
            takers.push(taker);
        }
        Ok(takers)
    }

    /// Gives the pieces that every copy has now.
    fn bring_all(&self, pieces: Vec<Piece>, shipped: &mut Shipped) -> Result<Vec<Piece>, Failure> {
        let mut takers = self.takers(!pieces.is_empty(), shipped)?;
        let mut done = Vec::new();
        let (mut sizes, mut forks) = (BTreeMap::new(), BTreeMap::new());
        for (index, piece) in pieces.into_iter().enumerate() {
            forks.extend(piece.head.follows.map(|left| (piece.name.first().timeline, left)));
            if index > 0 && (self.enough)() {
                shipped.waiting = true;
                shipped.unfinished = true;
                break;
            }
            if self.bring_to_all(&piece, &mut takers, shipped, &mut sizes)? < self.wanted_count {
                shipped.waiting = true;
            } else {
                done.push(piece);
            }
        }
        // Only makes `status` see more. On a full disk the pieces that are everywhere must go all the same.
        drop(self.marks.stored(&sizes));
        drop(self.marks.forked(&forks));
        Ok(done)
    }

    /// Gives how many copies have the piece.
    fn bring_to_all(
        &self,
        piece: &Piece,
        takers: &mut [Taker<'_>],
        shipped: &mut Shipped,
        sizes: &mut BTreeMap<LogName, u64>,
    ) -> Result<usize, Failure> {
        let name = piece.name;
        // A copy that has it comes first, so that the others get the very same bytes.
        let mut order = Vec::new();
        for (index, taker) in takers.iter_mut().enumerate().filter(|(_, taker)| !taker.failed) {
            match taker.logs.has(self.stream, name) {
                Ok(there) => order.push((!there, index)),
                Err(error) => fail(taker, shipped, &Failure::from(error)),
            }
        }
        order.sort_unstable();
        let mut source: Option<Logs> = None;
        let mut holders_count = 0;
        for (_, index) in order {
            let Some(taker) = takers.get_mut(index) else { continue };
            if taker.holds(name) {
                holders_count += 1;
                continue;
            }
            match self.bring(piece, source.as_ref(), &taker.logs) {
                Ok(brought) => {
                    holders_count += 1;
                    shipped.brought.push((taker.entry.copy.clone(), name));
                    match brought {
                        Brought::Whole(stored_bytes) => {
                            source.get_or_insert_with(|| taker.logs.clone());
                            sizes.insert(name, stored_bytes);
                            if taker.damaged.contains(&name) {
                                self.marks.clear(&taker.entry.copy, name)?;
                            }
                        }
                        Brought::Beside(why) => {
                            self.marks.note(&taker.entry.copy, name, &why)?;
                            shipped.findings.push(self.damaged(taker.entry, name, &why, true));
                        }
                    }
                }
                // Nothing helps this piece here, and no later one gets better by waiting for it.
                Err(failure) if failure.kind() == FailureKind::Damaged => {
                    self.marks.note(&taker.entry.copy, name, &failure.chain())?;
                    shipped.findings.push(self.damaged(taker.entry, name, &failure.chain(), false));
                }
                Err(failure) => fail(taker, shipped, &failure),
            }
        }
        Ok(holders_count)
    }

    /// Sealed once, then carried as it is.
    fn bring(&self, piece: &Piece, source: Option<&Logs>, to: &Logs) -> Result<Brought, Failure> {
        let stream = self.stream;
        let name = piece.name;
        let carried = match source.map(|source| source.carry(stream, name, to)) {
            // What was whole a moment ago is not any more: here it is.
            None | Some(Err(LogsError::Damaged { .. })) => self.append(piece, to)?,
            Some(carried) => carried?,
        };
        let why = match carried {
            Carried::Whole(stored) => return Ok(Brought::Whole(stored.stored_bytes)),
            Carried::InTheWay(why) => why,
        };
        let mut content = Vec::new();
        let read = piece.open()?.read_to_end(&mut content);
        read.map_err(|error| Failure::io("failed to read the spool", error))?;
        let (follows, started, ended) = (piece.head.follows, piece.head.started, piece.head.ended);
        let notes = piece.notes()?;
        let marks = notes.marks(&piece.head);
        let again =
            LogPiece { name, follows, history: notes.history, marks, started, ended, content: &content };
        to.append_beside(stream, again, self.entropy)?;
        Ok(Brought::Beside(why))
    }

    fn append(&self, piece: &Piece, to: &Logs) -> Result<Carried, Failure> {
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
        match to.append(self.stream, object, self.entropy) {
            Err(LogsError::Damaged { why, .. }) => Ok(Carried::InTheWay(why)),
            other => Ok(Carried::Whole(other?)),
        }
    }

    /// A damaged object, by its place, and how to be rid of it.
    pub(super) fn damaged(&self, entry: &CopyVault, name: LogName, why: &str, healed: bool) -> Finding {
        let place = entry.vault.logs().place_of(self.stream, name);
        let held =
            if healed { "what it held is stored again beside it" } else { "what it held is missing there" };
        let (copy, store) = (&entry.copy, self.store);
        let message = format!(
            "copy `{copy}` holds a damaged piece of the log ({why}); {held}: delete {place}, then run `lifeboat verify {store}`"
        );
        Finding::new("log-damaged", place, message).with_kind(FailureKind::Damaged)
    }
}

fn fail(taker: &mut Taker<'_>, shipped: &mut Shipped, failure: &Failure) {
    taker.failed = true;
    let copy = &taker.entry.copy;
    let message = format!("copy `{copy}` does not get the log: {}", failure.chain());
    shipped.findings.push(Finding::new("log-behind", copy.as_str(), message).with_kind(failure.kind()));
}
