//! Kind `sqlite`: one database file, captured page by page inside one read transaction.

mod adapter;
mod canaries;
mod capture;
mod checks;
mod error;
mod identifier;
mod open;
mod pages;
mod promises;
mod restore;
mod schema;
mod select;
mod tables;

pub use adapter::{SqliteAdapter, SqliteOptions};
