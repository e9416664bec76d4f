//! Reading a recovery point: walking it, reading files in sequence or at random, and writing all of it to disk.
//!
//! Invariant: no byte is given out that was not authenticated and compared with its id.

mod dirs;
#[cfg(test)]
mod hostile;
mod materialize;
mod metadata;
mod over;
mod plan;
mod reader;
mod writer;

pub use self::materialize::{Elsewhere, MaterializeOptions};
pub(crate) use self::reader::MAX_DEPTH;
pub use self::reader::{FileReader, PointReader, RandomFile};
