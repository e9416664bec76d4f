//! A queryable index of what the vaults and the evidence chain say; never a source of truth.
