//! Tests of this crate against real servers and hostile bytes.

#[cfg(test)]
mod main {
    mod commands;
    mod dumps;
    mod hostile;
    mod replication;
    mod samples;
    mod sandbox;
    mod scan;
    mod wire;
}
