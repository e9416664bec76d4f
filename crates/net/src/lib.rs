//! Sockets with time limits, in the clear or through TLS, for the clients of servers of any kind.
//!
//! In: an address, and what TLS has to show. Out: a [`Transport`] whose every step ends in time and whose faults are
//! told apart; or a [`Door`], behind which `ureq` speaks HTTP. Blocking. Knows no protocol above TLS and sends nothing by itself.

mod line;
mod socket;
mod tls;
mod transport;

pub use line::{Door, Line, LineError, NoNames};
pub use rustls::Error as HandshakeError;
pub use socket::{Address, Deadline, Socket};
pub use tls::{TlsError, TlsOptions, Trust, client, is_exposed};
pub use transport::{Fault, Transport};
