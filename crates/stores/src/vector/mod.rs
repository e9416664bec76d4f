//! Kind `vector`: an index of texts and vectors, captured as its files with a manifest of what is in them.

mod adapter;
mod canaries;
mod capture;
mod checks;
mod place;
mod records;
mod stock;

pub use lifeboat_probe::Metric;

pub use adapter::{VectorAdapter, VectorOptions};
