//! What the scanner reports: the few records that point-in-time recovery is steered by.
//!
//! In: nothing. Out: plain values. Every event carries where its record starts (`lsn`, what `pg_waldump` prints and a
//! recovery target names) and where it ends (`end`, rounded up to 8 bytes: what a server reports as its position once
//! the record is written).

use lifeboat_base::time::Timestamp;

use crate::lsn::{Lsn, Timeline};

/// One record that recovery is steered by, reported only after its checksum was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transaction committed; also `COMMIT PREPARED`, with the id of the prepared transaction.
    Commit {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// The top-level transaction.
        xid: u32,
        /// The server's clock when it committed; not monotonic from one commit to the next.
        at: Timestamp,
    },
    /// A transaction was rolled back; also `ROLLBACK PREPARED`. Recovery to a time stops at these too.
    Abort {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// The top-level transaction.
        xid: u32,
        /// The server's clock when it was rolled back.
        at: Timestamp,
    },
    /// `PREPARE TRANSACTION`: it survives a crash, and counts as committed only when a [`Event::Commit`] follows.
    Prepare {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// The top-level transaction.
        xid: u32,
        /// The server's clock when it was prepared.
        at: Timestamp,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends; the position that `pg_create_restore_point` returned.
        end: Lsn,
        /// At most 63 bytes. Bytes that are not UTF-8 are replaced: such a name cannot be asked for.
        name: String,
        /// The server's clock.
        at: Timestamp,
    },
    /// A checkpoint completed.
    Checkpoint {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// Where recovery from this checkpoint begins to read.
        redo: Lsn,
        /// The timeline after it.
        timeline: Timeline,
        /// The timeline before it; differs only in the first record of a timeline.
        previous_timeline: Timeline,
        /// The server was shut down, or ended its recovery, with it.
        shutdown: bool,
    },
    /// A promotion that did not wait for a checkpoint; the first record of its timeline.
    EndOfRecovery {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// The timeline that begins here.
        timeline: Timeline,
        /// The timeline it left.
        previous_timeline: Timeline,
        /// The server's clock.
        at: Timestamp,
    },
    /// A base backup taken from a primary ended: a restore of it is consistent from here on.
    BackupEnd {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// Where that backup started, as its label says.
        start: Lsn,
    },
    /// Settings that a standby depends on changed. After a change to [`WalLevel::Minimal`] no recovery from an
    /// earlier base backup can pass this point.
    Settings {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// How much is logged from here on.
        level: WalLevel,
    },
    /// The server crashed in the middle of a record whose beginning had left it; what began there never was.
    Overwritten {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// Where the record started that was never finished.
        overwritten: Lsn,
    },
    /// The segment was closed early (`pg_switch_wal`, `archive_timeout`); from `end` to the end of the segment
    /// stands filler that no recovery reads.
    Switch {
        /// Where the record starts.
        lsn: Lsn,
        /// Where it ends, and filler begins.
        end: Lsn,
    },
}

/// The server's `wal_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalLevel {
    /// Enough for crash recovery only.
    Minimal,
    /// Enough for archiving and standbys.
    Replica,
    /// Enough for logical decoding too.
    Logical,
}

impl Event {
    /// Where the record starts.
    pub fn lsn(&self) -> Lsn {
        self.span().0
    }

    /// Where the record ends.
    pub fn end(&self) -> Lsn {
        self.span().1
    }

    fn span(&self) -> (Lsn, Lsn) {
        match *self {
            Self::Commit { lsn, end, .. }
            | Self::Abort { lsn, end, .. }
            | Self::Prepare { lsn, end, .. }
            | Self::RestorePoint { lsn, end, .. }
            | Self::Checkpoint { lsn, end, .. }
            | Self::EndOfRecovery { lsn, end, .. }
            | Self::BackupEnd { lsn, end, .. }
            | Self::Settings { lsn, end, .. }
            | Self::Overwritten { lsn, end, .. }
            | Self::Switch { lsn, end } => (lsn, end),
        }
    }
}
