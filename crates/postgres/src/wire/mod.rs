//! A blocking connection to a server, for statements and for the replication protocol.
//!
//! In: [`ConnectOptions`]. Out: [`Connection`]: rows, copy streams and events, one at a time. Memory is bounded: a
//! message takes at most [`MESSAGE_LIMIT_BYTES`], and nothing is read ahead of the caller beyond one read buffer.

mod error;
mod options;
mod parse;
mod quote;
mod row;

pub use error::{AuthFault, MESSAGE_TEXT_LIMIT_BYTES, PgError, ServerError, TlsFault};
pub use options::{
    CONNECT_TIMEOUT, ChannelBindingMode, ConnectOptions, DEFAULT_PORT, Host, OptionsError, Roots,
    SILENCE_LIMIT, SslMode,
};
pub use quote::{quote_identifier, quote_literal, quote_replication_literal};
pub use row::Row;
