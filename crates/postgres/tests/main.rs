//! The crate against real servers.

#[cfg(test)]
mod main {
    mod backup;
}
