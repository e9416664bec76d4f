//! ΔS: how far a question is from what was found for it, between 0 (the same) and 1 (nothing in common).
//!
//! In: texts with their vectors by the pinned embedder. Out: `1 - cosine`, raw and clamped, and the reason when the number
//! says something else than distance. A vector without a direction counts as far away, a broken one is refused.

use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::number::{finite, length};
use crate::profile::Profile;

/// Below this, two different texts have no distance: nothing was loaded.
pub const FLAT_MAX: f64 = 1e-6;

/// Why a number of a run does not say what it should. All of them are failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// Nothing was found.
    EmptyRetrieval,
    /// A text has no direction, for no word of it is known.
    ZeroVector,
    /// Different texts are equal to the embedder.
    FlatZero,
    /// The query ended in an error, a timeout, or was given up.
    QueryFailed,
    /// A citation breaks a rule.
    InvalidCitation,
}

impl Flaw {
    /// The word in a board.
    pub fn word(self) -> &'static str {
        match self {
            Self::EmptyRetrieval => "empty_retrieval",
            Self::ZeroVector => "zero_vector",
            Self::FlatZero => "flat_zero",
            Self::QueryFailed => "query_failed",
            Self::InvalidCitation => "invalid_citation",
        }
    }
}

/// A text and its vector.
#[derive(Clone, Copy, Debug)]
pub struct Embedded<'a> {
    /// The text.
    pub text: &'a str,
    /// Its vector.
    pub vector: &'a [f32],
}

/// A distance in meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stress {
    /// `1 - cosine`, from 0 to 2.
    pub raw: f64,
    /// What gates compare: clamped to 1.
    pub gated: f64,
    /// Why the number is not to be trusted.
    pub flaw: Option<Flaw>,
}

impl Stress {
    /// What counts when there is nothing to compare: as far as can be.
    pub fn none(flaw: Flaw) -> Self {
        Self { raw: 1.0, gated: 1.0, flaw: Some(flaw) }
    }

    /// ΔS of two texts.
    pub fn between(a: Embedded<'_>, b: Embedded<'_>) -> Result<Self, ProbeError> {
        let Some(cosine) = cosine(a.vector, b.vector)? else { return Ok(Self::none(Flaw::ZeroVector)) };
        let raw = (1.0 - cosine).clamp(0.0, 2.0);
        let flaw = (raw <= FLAT_MAX && a.text != b.text).then_some(Flaw::FlatZero);
        Ok(Self { raw, gated: raw.min(1.0), flaw })
    }
}

/// The cosine of two vectors, `None` when one of them has no direction.
pub fn cosine(a: &[f32], b: &[f32]) -> Result<Option<f64>, ProbeError> {
    if a.len() != b.len() {
        let what = "the second text".to_owned();
        return Err(ProbeError::Dimension { what, found: b.len(), expected: a.len() });
    }
    let (first, second) = (norm(a)?, norm(b)?);
    if first == 0.0 || second == 0.0 {
        return Ok(None);
    }
    let dot: f64 = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    finite("a cosine", dot / (first * second)).map(|cosine| Some(cosine.clamp(-1.0, 1.0)))
}

/// The Euclidean length of a vector; a vector without dimensions, or with a number that is none, is refused.
pub fn norm(vector: &[f32]) -> Result<f64, ProbeError> {
    if vector.is_empty() {
        return Err(ProbeError::Empty { what: "a vector".to_owned() });
    }
    let squares: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    finite("a component of a vector", squares).map(f64::sqrt)
}

/// The vector of the same direction and length 1; a zero vector has no direction and is refused.
pub fn unit(what: &str, vector: &[f32]) -> Result<Vec<f32>, ProbeError> {
    let norm = norm(vector)?;
    if norm == 0.0 {
        return Err(ProbeError::ZeroVector { what: what.to_owned() });
    }
    Ok(vector.iter().map(|value| narrow(f64::from(*value) / norm)).collect())
}

/// The direction of the mean of several vectors, each taken at length 1; `None` when they cancel out or have none.
pub fn centre(vectors: &[&[f32]]) -> Result<Option<Vec<f32>>, ProbeError> {
    let Some(first) = vectors.first() else { return Ok(None) };
    let mut sum = vec![0.0f64; first.len()];
    for vector in vectors {
        if vector.len() != sum.len() {
            let what = "a retrieved snippet".to_owned();
            return Err(ProbeError::Dimension { what, found: vector.len(), expected: sum.len() });
        }
        let norm = norm(vector)?;
        if norm > 0.0 {
            for (total, value) in sum.iter_mut().zip(*vector) {
                *total += f64::from(*value) / norm;
            }
        }
    }
    let mean: Vec<f32> = sum.iter().map(|total| narrow(total / length(vectors))).collect();
    Ok((norm(&mean)? > FLAT_MAX).then_some(mean))
}

#[expect(clippy::cast_possible_truncation, reason = "vectors are kept in single precision")]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// Where a distance lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    /// Below 0.40.
    Stable,
    /// From there to below 0.60.
    Transitional,
    /// From there up to 0.85.
    Risk,
    /// Above that.
    Danger,
}

impl Band {
    /// The band of a ΔS by the profile's edges.
    pub fn of(ds: f64, profile: &Profile) -> Self {
        if ds < profile.ds_stable_below {
            Self::Stable
        } else if ds < profile.ds_rebuild_min {
            Self::Transitional
        } else if ds <= profile.ds_danger_above {
            Self::Risk
        } else {
            Self::Danger
        }
    }
}

/// The length of the residue `I - G` of two unit vectors at distance `ds`: `sqrt(2 ds)`.
pub fn residue(ds: f64) -> Result<f64, ProbeError> {
    finite("ΔS", ds).map(|ds| (2.0 * ds.max(0.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn between(a: (&str, &[f32]), b: (&str, &[f32])) -> Stress {
        Stress::between(Embedded { text: a.0, vector: a.1 }, Embedded { text: b.0, vector: b.1 }).unwrap()
    }

    #[test]
    fn distances_of_vectors_that_are_equal_apart_opposite_and_zero() {
        let equal = between(("one", &[1.0, 2.0]), ("two", &[1.0, 2.0]));
        assert!(equal.gated <= FLAT_MAX);
        assert_eq!(equal.flaw, Some(Flaw::FlatZero));
        assert_eq!(between(("one", &[1.0, 2.0]), ("one", &[1.0, 2.0])).flaw, None);
        let apart = between(("one", &[1.0, 0.0]), ("two", &[0.0, 3.0]));
        assert_eq!(apart, Stress { raw: 1.0, gated: 1.0, flaw: None });
        let opposite = between(("one", &[1.0, 0.0]), ("two", &[-2.0, 0.0]));
        assert_eq!(opposite, Stress { raw: 2.0, gated: 1.0, flaw: None });
        let zero = between(("one", &[0.0, 0.0]), ("two", &[0.0, 3.0]));
        assert_eq!((zero.gated, zero.flaw), (1.0, Some(Flaw::ZeroVector)));
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        assert!(matches!(cosine(&[1.0], &[1.0, 0.0]), Err(ProbeError::Dimension { .. })));
        assert!(matches!(cosine(&[], &[]), Err(ProbeError::Empty { .. })));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(cosine(&[1.0, 0.0], &[bad, 0.0]), Err(ProbeError::NotFinite { .. })));
            assert!(matches!(unit("x", &[bad]), Err(ProbeError::NotFinite { .. })));
        }
        assert!(matches!(unit("x", &[0.0, 0.0]), Err(ProbeError::ZeroVector { .. })));
    }

    #[test]
    fn bands_have_the_edges_of_the_pages() {
        let band = |ds| Band::of(ds, &Profile::default());
        assert_eq!(band(0.3999), Band::Stable);
        assert_eq!(band(0.40), Band::Transitional);
        assert_eq!(band(0.60), Band::Risk);
        assert_eq!(band(0.85), Band::Risk);
        assert_eq!(band(0.8501), Band::Danger);
    }

    #[test]
    fn the_residue_says_nothing_that_the_distance_does_not() {
        assert_eq!((residue(0.45).unwrap() * 10_000.0).round(), 9487.0);
        assert!(residue(f64::NAN).is_err());
    }

    #[test]
    fn the_centre_of_vectors_that_cancel_out_is_none() {
        assert_eq!(centre(&[&[1.0, 0.0], &[-3.0, 0.0]]).unwrap(), None);
        assert_eq!(centre(&[]).unwrap(), None);
        let mean = centre(&[&[2.0, 0.0], &[0.0, 1.0]]).unwrap().unwrap();
        assert_eq!(mean, [0.5, 0.5]);
        assert!(centre(&[&[1.0], &[1.0, 0.0]]).is_err());
    }

    proptest! {
        #[test]
        fn distance_is_bounded_the_same_both_ways_and_blind_to_length(
            pair in (1usize..12).prop_flat_map(|dims| (prop::collection::vec(-9.0f32..9.0, dims), prop::collection::vec(-9.0f32..9.0, dims))),
            scale in 0.5f32..4.0,
        ) {
            let (a, b) = pair;
            let there = between(("a", &a), ("b", &b));
            let back = between(("b", &b), ("a", &a));
            prop_assert_eq!(there, back);
            prop_assert!((0.0..=2.0).contains(&there.raw) && (0.0..=1.0).contains(&there.gated));
            let longer: Vec<f32> = a.iter().map(|value| value * scale).collect();
            prop_assert!((between(("a", &longer), ("b", &b)).raw - there.raw).abs() < 1e-5);
        }
    }
}
