//! Speaks PostgreSQL's protocols and reads its files, blocking and without the server's own libraries.
//!
//! In: connection options, bytes of the replication protocol or of a data directory. Out: typed rows, streams, WAL
//! records and throwaway servers. Invariant: knows no vault, no policy and no adapter; a password never leaves
//! [`Secret`](lifeboat_base::secret::Secret).

pub mod backup;
pub mod lsn;
pub mod receive;
pub mod server;
pub mod wal;
pub mod wire;

pub use lsn::{Lsn, Timeline};
