//! Kind `vector`: an index of texts and vectors, captured as its files with a manifest of what is in them.

mod adapter;
mod author;
mod canaries;
mod capture;
mod checks;
pub mod gold;
mod place;
mod probing;
mod questions;
mod records;
mod stock;

pub use lifeboat_probe::{Dropped, Metric};

pub use adapter::{VectorAdapter, VectorOptions};
pub use author::{Boarded, Curated, Drafted};
