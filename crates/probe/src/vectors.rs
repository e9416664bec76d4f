//! The vectors of an index as a whole: their length, their norms, how many there are twice, and whether as many as texts.
//!
//! In: vectors one at a time. Out: a report that a contract is held against. Memory: 8 bytes per vector, to find those
//! that are there twice.

use lifeboat_base::digest::Hasher;

use crate::ProbeError;
use crate::manifest::{Metric, Normalisation};
use crate::number::{number, share};
use crate::profile::Profile;
use crate::stress::norm;

/// The most vectors of one index: 800 MB of memory for the check of duplicates would be beyond any use of it.
pub const MAX_VECTORS_COUNT: u64 = 100_000_000;

/// Looks at every vector of an index.
#[derive(Debug, Default)]
pub struct VectorCensus {
    dim: Option<usize>,
    other_dim_count: u64,
    not_finite_count: u64,
    zero_count: u64,
    count: u64,
    mean: f64,
    squares: f64,
    low: f64,
    high: f64,
    seen: Vec<u64>,
}

/// What a census found.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorReport {
    /// How many vectors there are.
    pub count: u64,
    /// The length of the first.
    pub dim: Option<usize>,
    /// How many have another length.
    pub other_dim_count: u64,
    /// How many hold a component that is no number.
    pub not_finite_count: u64,
    /// How many have no direction.
    pub zero_count: u64,
    /// The mean of the norms.
    pub norm_mean: f64,
    /// The deviation of the norms.
    pub norm_deviation: f64,
    /// The smallest norm.
    pub norm_min: f64,
    /// The largest norm.
    pub norm_max: f64,
    /// How many are there already under another id.
    pub duplicate_count: u64,
}

impl VectorCensus {
    /// Adds a vector. A broken one is counted, for a report is asked for; more than the limit is refused.
    pub fn add(&mut self, vector: &[f32]) -> Result<(), ProbeError> {
        if self.count >= MAX_VECTORS_COUNT {
            return Err(ProbeError::TooMany {
                what: "the number of vectors".to_owned(),
                limit: MAX_VECTORS_COUNT,
            });
        }
        self.count += 1;
        if *self.dim.get_or_insert(vector.len()) != vector.len() {
            self.other_dim_count += 1;
        }
        let Ok(length) = norm(vector) else {
            self.not_finite_count += 1;
            return Ok(());
        };
        if length == 0.0 {
            self.zero_count += 1;
        }
        self.seen.push(fingerprint(vector));
        let seen = number(self.seen.len() as u64);
        let before = length - self.mean;
        self.mean += before / seen;
        self.squares += before * (length - self.mean);
        (self.low, self.high) = if self.seen.len() == 1 {
            (length, length)
        } else {
            (self.low.min(length), self.high.max(length))
        };
        Ok(())
    }

    /// Adds everything that another census has seen.
    pub fn absorb(&mut self, other: Self) -> Result<(), ProbeError> {
        if self.count.saturating_add(other.count) > MAX_VECTORS_COUNT {
            return Err(ProbeError::TooMany {
                what: "the number of vectors".to_owned(),
                limit: MAX_VECTORS_COUNT,
            });
        }
        // Vectors of another length than the first of all; those of `other` were counted against its own first.
        if self.dim.is_some() && other.dim.is_some() && self.dim != other.dim {
            self.other_dim_count += other.count - other.other_dim_count;
        } else {
            self.other_dim_count += other.other_dim_count;
        }
        self.dim = self.dim.or(other.dim);
        if !other.seen.is_empty() {
            let (here, there) = (number(self.seen.len() as u64), number(other.seen.len() as u64));
            let apart = other.mean - self.mean;
            let all = here + there;
            self.squares += other.squares + apart * apart * here * there / all;
            self.mean += apart * there / all;
            (self.low, self.high) = if self.seen.is_empty() {
                (other.low, other.high)
            } else {
                (self.low.min(other.low), self.high.max(other.high))
            };
        }
        self.count += other.count;
        self.not_finite_count += other.not_finite_count;
        self.zero_count += other.zero_count;
        self.seen.extend(other.seen);
        Ok(())
    }

    /// The report of all vectors added.
    pub fn finish(mut self) -> VectorReport {
        self.seen.sort_unstable();
        let pairs = self.seen.iter().zip(self.seen.iter().skip(1));
        let duplicate_count = pairs.filter(|(one, next)| one == next).count() as u64;
        let numbers = number(self.seen.len().max(1) as u64);
        VectorReport {
            count: self.count,
            dim: self.dim,
            other_dim_count: self.other_dim_count,
            not_finite_count: self.not_finite_count,
            zero_count: self.zero_count,
            norm_mean: self.mean,
            norm_deviation: (self.squares.max(0.0) / numbers).sqrt(),
            norm_min: self.low,
            norm_max: self.high,
            duplicate_count,
        }
    }
}

/// Eight bytes of the SHA-256 of a vector.
fn fingerprint(vector: &[f32]) -> u64 {
    let mut hasher = Hasher::new();
    for value in vector {
        hasher.update(&value.to_le_bytes());
    }
    let digest = hasher.finish();
    digest.as_bytes().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// What is wrong with the vectors of an index.
#[derive(Clone, Debug, PartialEq)]
pub enum VectorFault {
    /// There are none.
    None,
    /// Vectors of another length than the contract says.
    Dimension {
        /// How many.
        count: u64,
        /// What the contract says.
        expected: u64,
    },
    /// Components that are no numbers.
    NotFinite {
        /// How many vectors.
        count: u64,
    },
    /// Vectors without a direction.
    Zero {
        /// How many.
        count: u64,
    },
    /// Norms that are not 1 although the contract says so.
    Norm {
        /// Their mean.
        mean: f64,
        /// Their deviation.
        deviation: f64,
    },
    /// Too many vectors are there twice.
    Duplicates {
        /// Their share.
        share: f64,
    },
    /// Not as many vectors as texts.
    Count {
        /// How many vectors.
        vectors: u64,
        /// How many texts.
        chunks: u64,
    },
}

impl VectorFault {
    /// The field of the manifest that it speaks of.
    pub fn field(&self) -> &'static str {
        match self {
            Self::None | Self::Count { .. } => "counts",
            Self::Dimension { .. } => "dim",
            Self::NotFinite { .. } => "vector_root",
            Self::Zero { .. } | Self::Norm { .. } => "norm",
            Self::Duplicates { .. } => "duplicates",
        }
    }
}

impl VectorReport {
    /// Holds the report against a contract; an empty list is sound.
    pub fn faults(
        &self,
        dim: u64,
        metric: Metric,
        normalisation: Normalisation,
        chunks: u64,
        profile: &Profile,
    ) -> Vec<VectorFault> {
        let mut faults = Vec::new();
        if self.count == 0 {
            faults.push(VectorFault::None);
        }
        if self.count != chunks {
            faults.push(VectorFault::Count { vectors: self.count, chunks });
        }
        let first_is_other = self.dim.is_some_and(|found| found as u64 != dim);
        if first_is_other || self.other_dim_count > 0 {
            let count = if first_is_other { self.count } else { self.other_dim_count };
            faults.push(VectorFault::Dimension { count, expected: dim });
        }
        if self.not_finite_count > 0 {
            faults.push(VectorFault::NotFinite { count: self.not_finite_count });
        }
        if self.zero_count > 0 {
            faults.push(VectorFault::Zero { count: self.zero_count });
        }
        let must_be_one = normalisation == Normalisation::L2 || metric == Metric::Cosine;
        let (mean, deviation) = (self.norm_mean, self.norm_deviation);
        let is_one = (mean - 1.0).abs() <= profile.norm_tolerance && deviation <= profile.norm_deviation_max;
        if must_be_one && self.count > 0 && !is_one {
            faults.push(VectorFault::Norm { mean, deviation });
        }
        let twice = share(self.duplicate_count, self.count);
        if twice > profile.duplicates_max {
            faults.push(VectorFault::Duplicates { share: twice });
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(vectors: &[&[f32]]) -> VectorReport {
        let mut census = VectorCensus::default();
        for vector in vectors {
            census.add(vector).unwrap();
        }
        census.finish()
    }

    fn fields(vectors: &[&[f32]], chunks: u64) -> Vec<&'static str> {
        let faults =
            report(vectors).faults(2, Metric::Cosine, Normalisation::L2, chunks, &Profile::default());
        faults.iter().map(VectorFault::field).collect()
    }

    const GOOD: [&[f32]; 4] = [&[1.0, 0.0], &[0.0, 1.0], &[0.6, 0.8], &[0.8, -0.6]];

    #[test]
    fn sound_vectors_have_no_fault() {
        assert_eq!(fields(&GOOD, 4), Vec::<&str>::new());
    }

    #[test]
    fn each_fault_is_found_and_its_field_named() {
        assert_eq!(fields(&[], 0), ["counts"]);
        assert_eq!(fields(&GOOD, 5), ["counts"]);
        let raw: [&[f32]; 4] = [&[2.0, 0.0], &[0.0, 0.5], &[1.2, 1.6], &[0.8, -0.6]];
        assert_eq!(fields(&raw, 4), ["norm"]);
        let short: [&[f32]; 4] = [&[1.0, 0.0], &[1.0], &[0.6, 0.8], &[0.8, -0.6]];
        assert_eq!(fields(&short, 4), ["dim"]);
        let all_short: [&[f32]; 2] = [&[1.0], &[-1.0]];
        assert_eq!(fields(&all_short, 2), ["dim"]);
        let broken: [&[f32]; 4] = [&[1.0, 0.0], &[f32::NAN, 1.0], &[0.6, 0.8], &[0.8, -0.6]];
        assert_eq!(fields(&broken, 4), ["vector_root"]);
        let twice: [&[f32]; 4] = [&[1.0, 0.0], &[0.0, 1.0], &[0.6, 0.8], &[0.6, 0.8]];
        assert_eq!(fields(&twice, 4), ["duplicates"]);
        let zero: [&[f32]; 4] = [&[1.0, 0.0], &[0.0, 0.0], &[0.6, 0.8], &[0.8, -0.6]];
        assert_eq!(fields(&zero, 4), ["norm", "norm"]);
    }

    #[test]
    fn an_index_of_raw_vectors_may_have_any_norm_by_inner_product_only() {
        let raw = report(&[&[2.0, 0.0], &[0.0, 0.5]]);
        let faults =
            |metric, normalisation| raw.faults(2, metric, normalisation, 2, &Profile::default()).len();
        assert_eq!(faults(Metric::InnerProduct, Normalisation::None), 0);
        assert_eq!(faults(Metric::L2, Normalisation::None), 0);
        assert_eq!(faults(Metric::Cosine, Normalisation::None), 1);
        assert_eq!(faults(Metric::InnerProduct, Normalisation::L2), 1);
    }

    proptest! {
        #[test]
        fn mean_and_deviation_are_those_of_the_whole(lengths in prop::collection::vec(0.1f32..4.0, 1..40)) {
            let vectors: Vec<Vec<f32>> = lengths.iter().map(|length| vec![0.0, *length]).collect();
            let found = report(&vectors.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let sample = crate::Sample::new("x", lengths.iter().map(|length| f64::from(*length))).unwrap();
            prop_assert!((found.norm_mean - sample.mean()).abs() < 1e-9);
            prop_assert!((found.norm_deviation - sample.deviation()).abs() < 1e-9);
            prop_assert!((found.norm_min - sample.min()).abs() < 1e-9 && (found.norm_max - sample.max()).abs() < 1e-9);
        }
    }
}
