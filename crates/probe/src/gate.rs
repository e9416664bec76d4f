//! The bare gate: two numbers in, pass, review or rebuild out.
//!
//! Numbers only; with a difference between manifests the table in `decision` speaks first. NaN passes nothing.

use serde::{Deserialize, Serialize};

use crate::profile::Profile;

/// What the numbers of a board ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Good enough to serve.
    Pass,
    /// Between the bounds: a person looks.
    Review,
    /// Treat the index as corrupt.
    Rebuild,
    /// The numbers say nothing.
    Invalid,
}

impl Gate {
    /// Judges a median of ΔS and a median of coverage.
    pub fn of(ds: f64, coverage: f64, profile: &Profile) -> Self {
        let shares = 0.0..=1.0;
        if !shares.contains(&ds) || !shares.contains(&coverage) {
            Self::Invalid
        } else if ds >= profile.ds_rebuild_min || coverage < profile.coverage_min {
            Self::Rebuild
        } else if ds <= profile.ds_median_max {
            Self::Pass
        } else {
            Self::Review
        }
    }

    /// The gate of a release: an index that does not converge is never released.
    #[must_use]
    pub fn with_lambda(self, converges: bool) -> Self {
        match self {
            Self::Invalid => Self::Invalid,
            _ if !converges => Self::Rebuild,
            gate => gate,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gate(ds: f64, coverage: f64) -> Gate {
        Gate::of(ds, coverage, &Profile::default())
    }

    #[test]
    fn the_numbers_of_the_pages() {
        assert_eq!(gate(0.66, 0.52), Gate::Rebuild);
        assert_eq!(gate(0.45, 0.70), Gate::Pass);
        assert_eq!(gate(0.4501, 0.70), Gate::Review);
        assert_eq!(gate(0.5999, 0.70), Gate::Review);
        assert_eq!(gate(0.60, 0.99), Gate::Rebuild);
        assert_eq!(gate(0.30, 0.6999), Gate::Rebuild);
        assert_eq!(gate(f64::NAN, 0.70), Gate::Invalid);
        assert_eq!(gate(0.30, f64::NAN), Gate::Invalid);
        assert_eq!(gate(0.38, 0.74), Gate::Pass);
    }

    #[test]
    fn what_does_not_converge_is_not_released() {
        assert_eq!(Gate::Pass.with_lambda(false), Gate::Rebuild);
        assert_eq!(Gate::Review.with_lambda(true), Gate::Review);
        assert_eq!(Gate::Invalid.with_lambda(false), Gate::Invalid);
    }

    proptest! {
        #[test]
        fn a_worse_number_never_passes_better(ds in 0.0f64..1.0, coverage in 0.0f64..1.0, worse in 0.0f64..0.5) {
            prop_assert!(gate(ds, coverage) <= gate((ds + worse).min(1.0), coverage));
            prop_assert!(gate(ds, coverage) <= gate(ds, (coverage - worse).max(0.0)));
        }
    }
}
