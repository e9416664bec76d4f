//! A blocking connection to a server, for statements and for the replication protocol.
//!
//! In: [`ConnectOptions`]. Out: [`Connection`]: rows, copy streams and events, one at a time. Memory is bounded: a
//! message takes at most [`MESSAGE_LIMIT_BYTES`], and nothing is read ahead of the caller beyond one read buffer.
//! Built on `postgres-protocol`, which only encodes, so that the waiting is ours: `pg_basebackup` can neither stream
//! several tablespaces without staging them nor hand over chunks, and `pg_walstream` is asynchronous.

mod auth;
mod binding;
mod cancel;
mod connection;
mod error;
mod frames;
mod link;
mod options;
mod parse;
mod passfile;
mod quote;
mod row;
mod startup;
mod tls;

pub use cancel::Canceller;
pub use connection::{Connection, Event, RESULT_LIMIT_BYTES};
pub use error::{AuthFault, MESSAGE_TEXT_LIMIT_BYTES, PgError, ServerError, TlsFault};
pub use frames::MESSAGE_LIMIT_BYTES;
pub use lifeboat_net::TlsError;
pub use options::{
    CONNECT_TIMEOUT, ChannelBindingMode, ConnectOptions, DEFAULT_PORT, Host, OptionsError, Roots,
    SILENCE_LIMIT, SslMode,
};
pub use quote::{quote_identifier, quote_literal, quote_replication_literal};
pub use row::Row;
pub use startup::Mode;
