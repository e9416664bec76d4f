//! Taking recovery points, log and the space only they need out of a vault, in all of its copies, for good.
//!
//! In: the open copies of one vault and what may go. Out: a plan a person can read, then its application: a signed record in
//! every copy first, then what it names. Invariants: nothing that is removed was not recorded before; what something kept
//! needs is never removed, whatever a record says; a kill between any two steps is completed by the next application.

mod absence;
mod apply;
mod plan;
mod record;
mod settle;
mod survey;

pub use absence::{Absence, Left};
pub(crate) use apply::remove;
pub use apply::{CopyOutcome, RetireReport};
pub use plan::{BadBlobs, Filed, RetireOptions, RetirePlan, Rewrite, SNAPSHOT_AGE, Wanted};
pub(crate) use record::tell_mended;
pub use record::{
    DroppedPoint, Fate, Gone, LogFloor, MarkedPack, RETIREMENT_FORMAT, RETIREMENT_PAYLOAD_TYPE,
    ReplacedIndex, Retired, Retirement,
};
pub(crate) use survey::Walk;
