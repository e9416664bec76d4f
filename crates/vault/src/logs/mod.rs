//! Log objects: the continuous history of a store between its recovery points.
//!
//! In: pieces of log with their positions. Out: the same pieces, the contiguous ranges they make, and the gaps, each
//! named exactly. Objects live under `lifeboat/logs/<stream>/`, are sealed with the repository's key, and are listed
//! by signed hourly roll-ups, so that a lost object is known to have existed.
//! Invariant: nothing here knows an engine; positions are two numbers an adapter chose.

mod coverage;
mod error;
mod floor;
mod heal;
mod inventory;
mod locks;
mod object;
mod position;
mod rollup;
mod store;

pub use self::coverage::{Gap, GapVerdict, Piece, PieceState, Range, ranges_of, verdict_of};
pub use self::error::LogsError;
pub use self::floor::floors_of;
pub use self::heal::{LogPiece, MAX_HALVINGS};
pub use self::inventory::{Inventory, LogDamage, LogsLevel, LogsReport};
pub use self::object::{ArrivalMark, LogHeader, LogLink, MAX_CONTENT_BYTES, MAX_MARKS_COUNT};
pub use self::position::{InvalidPosition, LogName, Position};
pub use self::rollup::{MAX_ROLLUP_ENTRIES, ROLLUP_GRACE, ROLLUP_PAYLOAD_TYPE, RollupEntry, RollupRef};
pub(crate) use self::store::piece_of;
pub use self::store::{Carried, LogObject, LogRef, Logs};
