//! A blocking connection to a server, for commands and as the ground of the replication protocol.
//!
//! In: [`ConnectOptions`]. Out: [`Connection`] and its [`Reply`]s, in the protocol's second version, which every server
//! speaks without being asked. Own work, because a replica's side of a connection is none of a client library's.

mod connection;
mod error;
mod info;
mod options;
mod reply;

pub use connection::{Connection, REPLY_LIMIT_BYTES, encode};
pub use error::{MESSAGE_TEXT_LIMIT_BYTES, RedisError, ServerError};
pub use info::Info;
pub use options::{CONNECT_TIMEOUT, ConnectOptions, DEFAULT_PORT, OptionsError, SILENCE_LIMIT};
pub use reply::Reply;
