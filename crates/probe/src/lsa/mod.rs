//! The built-in embedder: no neural model, no network, fitted on the corpus itself.
//!
//! In: texts. Out: a frozen model, its bytes, and vectors.

mod analyzer;
mod file;
mod matrix;
mod model;

pub use analyzer::Terms;
pub use model::{
    Lsa, MAX_CORPUS_BYTES, MAX_RANK_COUNT, MAX_TERMS_COUNT, MAX_TEXTS_COUNT, RANDOM_PAIR_P5_MIN,
    USUAL_RANK_COUNT,
};
