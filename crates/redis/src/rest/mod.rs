//! Commands over HTTP, as services offer them that take no connection of Redis' own: the REST form that Upstash publishes.
//!
//! In: an address `https://HOST` and a token. Out: a [`Link`](crate::scan::Link). Commands go as JSON arrays to `/pipeline`,
//! answers come as JSON with texts in base64 (`Upstash-Encoding: base64`). What is no text goes by itself, in the address
//! and as the body, and only after the service has shown that it understands that. HTTP is spoken by `ureq`, over the
//! sockets, limits and TLS that every other connection here has.

mod http;
mod json;
mod link;
mod options;

pub use link::RestLink;
pub use options::RestOptions;
