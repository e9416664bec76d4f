//! Kind `etcd`: one cluster.
//!
//! In: endpoints, or a command that writes a snapshot. Out: the snapshot with its digest, and a list of every key that was
//! alive in it, made from its bytes; restored as the snapshot and as a data directory that a server can be started on, and
//! checked on a throwaway member.

mod adapter;
mod canaries;
mod capture;
mod checks;
mod error;
mod manifest;
mod restore;
mod running;
mod select;
mod serve;
mod source;

pub use adapter::{EtcdAdapter, EtcdOptions};
pub use lifeboat_etcd::{ClientOptions, Login, OutsideCommand, TlsPem};
pub use source::{EtcdSource, Order, Reach};
