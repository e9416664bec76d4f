//! A queryable index of what the vaults and the evidence chain say.
//!
//! In: sealed recovery-point manifests and the facts of finished runs. Out: points, where they are held, how far
//! each is proven, and the last run of each kind.
//!
//! Invariant: never a source of truth. Everything here can be read again from the vaults and the evidence chain;
//! losing the file costs a rebuild, not a recovery point.

mod error;
mod rows;
mod schema;
mod store;

pub use error::CatalogError;
pub use rows::{Holding, PointRow, Proof, ProofLevel, RunRow, UnknownLevel};
pub use store::Catalog;
