//! Numbers of a board: samples and their order statistics, shares, slopes, rounding.
//!
//! In: finite numbers, else a typed refusal. Out: results that do not depend on the order in which the numbers came,
//! because every sum is taken over the sorted sample.

use crate::ProbeError;

/// A count as a number. Exact up to 2^53, far beyond what fits into memory here.
#[expect(clippy::cast_precision_loss, reason = "counts of probes, tokens and vectors stay below 2^53")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

/// The length of a list as a number.
pub(crate) fn length<T>(list: &[T]) -> f64 {
    number(list.len() as u64)
}

/// `part / whole` of two counts, correctly rounded: 70 of 100 is the number that `0.70` is. Nothing of nothing is 0.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

/// Refuses NaN and infinities.
pub fn finite(what: &str, value: f64) -> Result<f64, ProbeError> {
    if value.is_finite() { Ok(value) } else { Err(ProbeError::NotFinite { what: what.to_owned() }) }
}

/// Four decimals, for output only: gates compare unrounded numbers.
pub fn rounded(value: f64) -> f64 {
    let short = (value * 10_000.0).round() / 10_000.0;
    if short == 0.0 { 0.0 } else { short }
}

/// A sorted, finite, non-empty list of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Takes the numbers in; `what` names them in a refusal.
    pub fn new(what: &str, values: impl IntoIterator<Item = f64>) -> Result<Self, ProbeError> {
        let mut values =
            values.into_iter().map(|value| finite(what, value)).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() {
            return Err(ProbeError::Empty { what: what.to_owned() });
        }
        values.sort_by(f64::total_cmp);
        Ok(Self(values))
    }

    /// The value below which the share `p` lies, by linear interpolation between order statistics (type 7).
    pub fn percentile(&self, p: f64) -> f64 {
        let rank = p.clamp(0.0, 1.0) * (length(&self.0) - 1.0);
        let (mut at, mut low) = (0.0, 0usize);
        while at + 1.0 <= rank {
            (at, low) = (at + 1.0, low + 1);
        }
        let below = self.0.get(low).copied().unwrap_or_default();
        let above = self.0.get(low + 1).copied().unwrap_or(below);
        below + (above - below) * (rank - at)
    }

    /// The middle value, or the mean of the two middle ones.
    pub fn median(&self) -> f64 {
        let (middle, odd) = (self.0.len() / 2, self.0.len() % 2 == 1);
        let high = self.0.get(middle).copied().unwrap_or_default();
        let low = self.0.get(middle.saturating_sub(1)).copied().unwrap_or(high);
        if odd { high } else { low.midpoint(high) }
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / length(&self.0)
    }

    /// The largest value.
    pub fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// The smallest value.
    pub fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    /// The standard deviation of the population.
    pub fn deviation(&self) -> f64 {
        let mean = self.mean();
        (self.0.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / length(&self.0)).sqrt()
    }

    /// Deviation over mean; a sample whose mean is zero has none.
    pub fn variance_ratio(&self) -> Option<f64> {
        let mean = self.mean();
        (mean != 0.0).then(|| self.deviation() / mean)
    }

    /// Which share of the values `holds`.
    pub fn share_of(&self, holds: impl Fn(f64) -> bool) -> f64 {
        share(self.0.iter().filter(|value| holds(**value)).count() as u64, self.0.len() as u64)
    }

    /// How many values there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// The least-squares slope per step of a series in its own order; fewer than two values have none.
pub fn slope(what: &str, series: &[f64]) -> Result<Option<f64>, ProbeError> {
    for value in series {
        finite(what, *value)?;
    }
    if series.len() < 2 {
        return Ok(None);
    }
    let (steps, middle) = ((0u32..).map(f64::from), (length(series) - 1.0) / 2.0);
    let mean = series.iter().sum::<f64>() / length(series);
    let (mut above, mut below) = (0.0, 0.0);
    for (step, value) in steps.zip(series) {
        above += (step - middle) * (value - mean);
        below += (step - middle).powi(2);
    }
    Ok(Some(above / below))
}

/// Spearman's rank correlation of two lists over the same items, ties at their mean rank; `None` when a side is constant.
pub fn spearman(left: &[f64], right: &[f64]) -> Result<Option<f64>, ProbeError> {
    if left.len() != right.len() {
        let what = "the ranked list".to_owned();
        return Err(ProbeError::Dimension { what, found: right.len(), expected: left.len() });
    }
    let (left, right) = (ranks(left)?, ranks(right)?);
    let middle = length(&left).midpoint(1.0);
    let (mut both, mut first, mut second) = (0.0, 0.0, 0.0);
    for (a, b) in left.iter().zip(&right) {
        both += (a - middle) * (b - middle);
        first += (a - middle).powi(2);
        second += (b - middle).powi(2);
    }
    let scale = (first * second).sqrt();
    Ok((scale > 0.0).then(|| both / scale))
}

fn ranks(values: &[f64]) -> Result<Vec<f64>, ProbeError> {
    let sorted = Sample::new("a score", values.iter().copied())?;
    let rank = |value: f64| {
        let below = sorted.0.partition_point(|other| *other < value);
        let upto = sorted.0.partition_point(|other| *other <= value);
        (number(below as u64) + number(upto as u64) + 1.0) / 2.0
    };
    Ok(values.iter().map(|value| rank(*value)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_interpolate_between_order_statistics() {
        let sample = Sample::new("x", [4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(sample.median(), 2.5);
        assert_eq!(sample.percentile(0.0), 1.0);
        assert_eq!(sample.percentile(1.0), 4.0);
        assert!((sample.percentile(0.9) - 3.7).abs() < 1e-12);
    }

    #[test]
    fn the_variance_of_the_source_page_is_of_the_population() {
        let ratio = Sample::new("x", [0.38, 0.42, 0.44]).unwrap().variance_ratio().unwrap();
        assert_eq!((ratio * 1000.0).round(), 60.0);
    }

    #[test]
    fn nothing_is_made_of_nothing_or_of_what_is_no_number() {
        assert!(matches!(Sample::new("x", []), Err(ProbeError::Empty { .. })));
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(Sample::new("x", [0.1, bad]), Err(ProbeError::NotFinite { .. })));
            assert!(slope("x", &[0.0, bad]).is_err());
            assert!(spearman(&[0.0, bad], &[0.0, 1.0]).is_err());
        }
        assert!(spearman(&[0.0], &[0.0, 1.0]).is_err());
    }

    #[test]
    fn ranks_that_agree_turn_or_say_nothing() {
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 90.0]).unwrap(), Some(1.0));
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]).unwrap(), Some(-1.0));
        assert_eq!(spearman(&[1.0, 1.0], &[3.0, 2.0]).unwrap(), None);
    }

    #[test]
    fn rounding_leaves_no_negative_zero() {
        assert_eq!(rounded(-0.000_01).to_string(), "0");
        assert_eq!(rounded(0.123_45), 0.1235);
    }

    proptest! {
        #[test]
        fn statistics_lie_within_the_sample_and_ignore_its_order(mut values in prop::collection::vec(-2.0f64..2.0, 1..60), p in 0.0f64..1.0) {
            let sample = Sample::new("x", values.clone()).unwrap();
            values.reverse();
            let turned = Sample::new("x", values).unwrap();
            prop_assert_eq!(&sample, &turned);
            prop_assert_eq!(sample.mean().to_bits(), turned.mean().to_bits());
            for value in [sample.median(), sample.percentile(p)] {
                prop_assert!(sample.min() <= value && value <= sample.max());
            }
            prop_assert!(sample.deviation() >= 0.0);
            prop_assert!((sample.median() - sample.percentile(0.5)).abs() < 1e-12);
        }

        #[test]
        fn a_line_has_its_own_slope(start in -1.0f64..1.0, step in -0.5f64..0.5, len in 2u32..30) {
            let series: Vec<f64> = (0..len).map(|at| start + step * f64::from(at)).collect();
            prop_assert!((slope("x", &series).unwrap().unwrap() - step).abs() < 1e-9);
        }
    }
}
