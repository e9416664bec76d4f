//! Tests of the crate through its public face.

#![expect(clippy::float_cmp, reason = "tests compare with the very numbers of the specification")]

#[cfg(test)]
mod main {
    mod board;
    mod citations;
    mod decisions;
    mod embedder;
    mod restores;
    mod samples;
}
