//! `cargo xtask tidy`: the repository's own rules, for what neither the compiler nor clippy can say.
//!
//! In: every file git knows or would take, and `cargo metadata`. Out: findings as `path:line: rule: what, how to fix`.
//! Each rule is a pure function over [`tree::Tree`], so its canaries are trees written out in its tests.

mod build;
mod names;
mod pages;
mod purity;
mod run;
mod rust;
mod secrets;
mod shape;
mod tree;
mod words;

pub(crate) use run::report;
