//! Connections: to real servers, and to fakes that say what no real server says.

mod hostile;
mod login;
mod options;
mod query;
mod replication;
mod stream;
mod support;
mod tls;
