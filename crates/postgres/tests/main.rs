//! The crate against real servers.

#[cfg(test)]
mod main {
    mod backup;
    mod receive;
    mod server;
    mod wal;
    mod wire;
}
