//! The thresholds of a board, in one versioned record whose hash every board carries.
//!
//! In: nothing, or a record from a file. Out: numbers that gates compare with; a gate holds none of its own.

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::canonical::canonical_json;

/// How many paraphrases a probe is asked in.
pub const PARAPHRASES_COUNT: usize = 3;
/// How many seeds each paraphrase is asked with.
pub const SEEDS_COUNT: usize = 2;
/// Runs per probe.
pub const RUNS_COUNT: usize = PARAPHRASES_COUNT * SEEDS_COUNT;

/// Every threshold by which a board is judged. Bounds are inclusive where the name says `max` or `min`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name of this set of numbers.
    pub name: String,
    /// The median of ΔS passes up to here.
    pub ds_median_max: f64,
    /// A median of ΔS from here on asks for a rebuild.
    pub ds_rebuild_min: f64,
    /// ΔS below this is stable.
    pub ds_stable_below: f64,
    /// ΔS above this is danger; between this and `ds_rebuild_min` it is risk.
    pub ds_danger_above: f64,
    /// A probe is covered from here on, and so must the median be.
    pub coverage_min: f64,
    /// A probe below this is critical.
    pub coverage_critical_below: f64,
    /// A probe below this makes a cut or a filter suspect.
    pub coverage_suspect_below: f64,
    /// The share of covered probes below which a person is warned.
    pub coverage_pass_rate_warn: f64,
    /// The share of covered probes below which the board fails.
    pub coverage_pass_rate_min: f64,
    /// The share of runs that must converge, of one probe and of the board.
    pub lambda_conv_rate_min: f64,
    /// The largest share of probes that may be split.
    pub lambda_split_max: f64,
    /// The largest share of probes that may be chaotic.
    pub lambda_chaos_max: f64,
    /// A run aligned with no other run by this much is chaotic.
    pub lambda_align_min: f64,
    /// The fewest probes a board speaks from.
    pub gold_min_count: u64,
    /// The most probes of one set.
    pub gold_max_count: u64,
    /// How many snippets are retrieved.
    pub probe_k_count: u64,
    /// The largest share of probes that may be degenerate for one reason.
    pub degenerate_max: f64,
    /// The largest share of probes that may be similar but wrong.
    pub similar_but_wrong_max: f64,
    /// The rank-1 snippet must be nearer to the anchor than to the decoy by this much.
    pub decoy_margin_min: f64,
    /// The smallest share of gold citations that must be met.
    pub citation_match_min: f64,
    /// The largest difference of means between regions or releases.
    pub region_drift_max: f64,
    /// Counts may differ by this share.
    pub count_tolerance: f64,
    /// The largest share of vectors that may be there twice.
    pub duplicates_max: f64,
    /// The mean norm of normalised vectors lies this near to 1.
    pub norm_tolerance: f64,
    /// The largest deviation of the norms of normalised vectors.
    pub norm_deviation_max: f64,
    /// The smallest rank correlation between two index types over the same vectors.
    pub spearman_min: f64,
    /// The smallest overlap of two answers to the same query.
    pub jaccard_min: f64,
}

impl Default for Profile {
    /// `dr-default`: the numbers of the disaster recovery pages.
    fn default() -> Self {
        Self {
            name: "dr-default".to_owned(),
            ds_median_max: 0.45,
            ds_rebuild_min: 0.60,
            ds_stable_below: 0.40,
            ds_danger_above: 0.85,
            coverage_min: 0.70,
            coverage_critical_below: 0.60,
            coverage_suspect_below: 0.50,
            coverage_pass_rate_warn: 0.90,
            coverage_pass_rate_min: 0.80,
            lambda_conv_rate_min: 0.80,
            lambda_split_max: 0.10,
            lambda_chaos_max: 0.0,
            lambda_align_min: 0.20,
            gold_min_count: 50,
            gold_max_count: 200,
            probe_k_count: 10,
            degenerate_max: 0.05,
            similar_but_wrong_max: 0.05,
            decoy_margin_min: 0.05,
            citation_match_min: 0.95,
            region_drift_max: 0.03,
            count_tolerance: 0.005,
            duplicates_max: 0.15,
            norm_tolerance: 0.01,
            norm_deviation_max: 0.05,
            spearman_min: 0.9,
            jaccard_min: 0.6,
        }
    }
}

impl Profile {
    /// Reads a profile; unknown keys, and numbers that are no share, are refused.
    pub fn from_json(text: &str) -> Result<Self, ProbeError> {
        let invalid = |why: String| ProbeError::invalid("the profile", why);
        let profile: Self = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), ProbeError> {
        let value = serde_json::to_value(self)
            .map_err(|error| ProbeError::invalid("the profile", error.to_string()))?;
        for (key, value) in
            value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_u64() && !value.is_string())
        {
            let found = value.as_f64().unwrap_or(f64::NAN);
            if !(0.0..=1.0).contains(&found) {
                return Err(ProbeError::OutOfRange { what: format!("`{key}`"), found, low: 0.0, high: 1.0 });
            }
        }
        if self.ds_median_max >= self.ds_rebuild_min {
            return Err(ProbeError::invalid("the profile", "`ds_median_max` must be below `ds_rebuild_min`"));
        }
        if self.gold_min_count == 0 || self.gold_min_count > self.gold_max_count || self.probe_k_count == 0 {
            return Err(ProbeError::invalid("the profile", "a board needs probes and snippets"));
        }
        Ok(())
    }

    /// What every board carries, so that a score is never read against other numbers.
    pub fn hash(&self) -> Result<Digest, ProbeError> {
        self.check()?;
        Ok(Digest::of(canonical_json(self)?.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_known_by_its_numbers() {
        let usual = Profile::default();
        let stricter = Profile { ds_median_max: 0.40, ..Profile::default() };
        assert_eq!(usual.hash().unwrap(), Profile::default().hash().unwrap());
        assert_ne!(usual.hash().unwrap(), stricter.hash().unwrap());
        let text = canonical_json(&stricter).unwrap();
        assert_eq!(Profile::from_json(&text).unwrap(), stricter);
    }

    #[test]
    fn a_threshold_that_is_no_number_judges_nothing() {
        for bad in [f64::NAN, f64::INFINITY, -0.1] {
            assert!(Profile { duplicates_max: bad, ..Profile::default() }.hash().is_err());
        }
    }

    #[test]
    fn a_profile_that_no_board_could_be_judged_by_is_refused() {
        let text = canonical_json(&Profile::default()).unwrap();
        for (from, to) in [
            ("\"coverage_min\":0.7", "\"coverage_min\":1.7"),
            ("\"ds_median_max\":0.45", "\"ds_median_max\":0.6"),
            ("\"gold_min_count\":50", "\"gold_min_count\":0"),
            ("\"coverage_min\"", "\"coverage_least\""),
        ] {
            let wrong = text.replace(from, to);
            assert_ne!(wrong, text, "{from}");
            assert!(Profile::from_json(&wrong).is_err(), "{to}");
        }
    }
}
