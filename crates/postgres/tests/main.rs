//! The crate against real servers.

#[cfg(test)]
mod main {
    mod backup;
    mod server;
    mod wal;
    mod wire;
}
