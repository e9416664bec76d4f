//! etcd: its protocol, its files, and members that run for a while.
//!
//! In: endpoints and bytes. Out: a [`Client`] that waits (asynchrony ends inside it), [`Snapshot`]s that were proven whole
//! and read without a server, data directories made of them, and [`Member`]s on such directories that nothing outside
//! their own folder reaches.

pub mod bolt;

mod command;
mod content;
mod edit;
mod error;
mod proto;
mod rpc;
mod server;
mod snapshot;

pub use command::{OutsideCommand, run_outside};
pub use content::{Auth, Content, Lease, read_content, revision_key, summarise};
pub use edit::{bump_revision, switch_off_auth};
pub use error::EtcdError;
pub use proto::KeyValue;
pub use rpc::{
    Alarm, Client, ClientOptions, Endpoint, HashAtRevision, Login, MemberInfo, Page, SnapshotPart, Status,
    TlsPem,
};
pub use server::{
    Installation, Member, RUNTIME, Version, Wait, installation, installations, make_data_directory, sweep,
};
pub use snapshot::{Snapshot, TRAILER_BYTES, seal};
