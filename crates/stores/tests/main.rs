//! The tests of both adapters through their public contract: the conformance suite, then what is special to each.

#[path = "main/files.rs"]
mod files;
#[path = "main/sqlite.rs"]
mod sqlite;
