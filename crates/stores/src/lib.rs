//! Adapters: one datastore in, a capture out; a recovery point in, a restored and checked datastore out.
//!
//! In: the place of a store, and a [`RestoreSource`](lifeboat_base::capture::RestoreSource) when something is
//! restored or checked. Out: an [`Adapter`] per kind of store, all of which pass the suite in `conformance`
//! (feature `conformance`). `docs/stores.md` says per kind what is captured and what is not.
//!
//! Invariant: sees neither keys nor chunks nor storage, never writes to a source, and does not decide when to run.

pub mod adapter;
pub mod archive;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod continuous;
pub mod duties;
pub mod etcd;
pub mod files;
pub mod inplace;
pub mod load;
pub mod meaning;
pub mod parts;
pub mod postgres;
pub mod recording;
pub mod redis;
pub mod select;
pub mod serve;
pub mod sqlite;
pub mod vector;

mod canary;
mod names;
mod spool;
mod sum;
mod tally;

pub use adapter::{
    Adapter, Address, CanaryResult, CaptureContext, CheckResult, CheckState, Inspection, RestoreReport, Share,
};
pub use archive::{LogFile, LogFiles, LogPart, WantedLog};
pub use continuous::{Continuous, Goal, LogFeed, LogPosition, LogSource, Resume, Step, Stop};
pub use duties::{Duties, Look, Rebuilt};
pub use etcd::{EtcdAdapter, EtcdOptions, EtcdSource};
pub use files::{FilesAdapter, FilesOptions};
pub use inplace::{InPlace, Place, Standing, in_use};
pub use load::{Conflict, LoadOptions, Loaded, Loader, MergeOptions};
pub use meaning::{Band, Lambda, Meaning, Probes, WorstProbe, share};
pub use parts::{Part, PartMissing, PartReport, PartTable, Parts};
pub use postgres::{PostgresAdapter, PostgresOptions};
pub use recording::Recording;
pub use redis::{RedisAdapter, RedisFilesAdapter, RedisFilesOptions, RedisOptions, ScanOptions, Upkeep};
pub use select::{Select, Selected, Selection, Take};
pub use serve::Serve;
pub use sqlite::{SqliteAdapter, SqliteOptions};
pub use vector::{
    BoardRow, Boarded, Curated, Drafted, Dropped, Metric, ProbeError, VectorAdapter, VectorOptions, to_csv,
    to_jsonl,
};
