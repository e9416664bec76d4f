//! The calls of etcd that Lifeboat needs, over gRPC.
//!
//! gRPC is a message behind five bytes in an HTTP/2 stream: `h2` brings the streams, `rustls` the encryption, and nothing
//! is generated. Everything asynchronous is in `channel`, which waits: a [`Client`] is used like a file.

mod channel;
mod client;
mod options;
mod tls;

pub use client::{Alarm, Client, HashAtRevision, MemberInfo, Page, SnapshotPart, Status};
pub use options::{ClientOptions, Endpoint, Login, TlsPem};
