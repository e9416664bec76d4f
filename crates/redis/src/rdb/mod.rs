//! Dumps in the format RDB, read as a stream.
//!
//! In: the bytes of a dump, versions 1 to 12. Out: its keys with digests that do not depend on how a value is kept, and
//! what they amount to; and the way back, keys in parts to a dump. A dump is read to its end and its checksum compared, or it is an error. Memory: about 200 KiB,
//! however large a value is; 32 MiB more if a node of a stream names a million fields.

mod crc64;
mod dump;
mod error;
mod input;
mod listpack;
mod module;
mod packed;
mod stream;
mod sum;
mod survey;
mod text;
mod value;
mod write;

pub use dump::{About, Item, KEY_HEAD_BYTES, Key, empty, opening, read, read_first};
pub use error::RdbError;
pub use sum::Sum;
pub(crate) use sum::{Hash, Hasher};
pub use survey::{Database, Survey, TTL_RANGES};
pub use value::Kind;
pub use write::DumpWriter;
