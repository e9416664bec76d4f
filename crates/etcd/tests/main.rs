//! What this crate says about real servers, on both versions.

#[cfg(test)]
#[path = "main/client.rs"]
mod client;
#[cfg(test)]
#[path = "main/members.rs"]
mod members;
