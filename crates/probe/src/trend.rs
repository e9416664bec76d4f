//! Trends over many boards, for a person to read: no verdict rests on them.
//!
//! In: the same number of one board after another. Out: variance, slope, runs of worsening, the residue over the last boards,
//! and the state that a sequence of ΔS is in.

use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::lambda::Lambda;
use crate::number::{Sample, finite, slope};
use crate::stress::residue;

/// The largest deviation over mean of a stable number.
pub const VARIANCE_RATIO_MAX: f64 = 0.15;
/// The largest change per board of a stable number.
pub const SLOPE_MAX: f64 = 0.02;
/// How many boards one after another may be worse than the one before.
pub const WORSENING_MAX_COUNT: usize = 3;
/// Fewer boards have no trend.
pub const BOARDS_MIN_COUNT: usize = 5;

/// How a number went over boards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Deviation over mean; none when the mean is zero.
    pub variance_ratio: Option<f64>,
    /// Change per board; none of fewer boards than a trend needs.
    pub slope: Option<f64>,
    /// The longest run of boards that each were worse.
    pub worsening_count: usize,
    /// Whether all of it is within bounds; none when there are too few boards to tell.
    pub is_stable: Option<bool>,
}

/// The trend of a number that is better when it is smaller.
pub fn trend(series: &[f64]) -> Result<Trend, ProbeError> {
    let variance_ratio = Sample::new("a trend", series.iter().copied())?.variance_ratio();
    let enough = series.len() >= BOARDS_MIN_COUNT;
    let slope = if enough { slope("a trend", series)? } else { None };
    let (mut run, mut worsening_count) = (0, 0);
    for pair in series.windows(2) {
        run = if matches!(pair, [before, after] if after > before) { run + 1 } else { 0 };
        worsening_count = worsening_count.max(run);
    }
    let is_stable = slope.map(|slope| {
        slope.abs() <= SLOPE_MAX
            && worsening_count <= WORSENING_MAX_COUNT
            && variance_ratio.is_some_and(|ratio| ratio <= VARIANCE_RATIO_MAX)
    });
    Ok(Trend { variance_ratio, slope, worsening_count, is_stable })
}

/// E_resonance: the mean residue of the last five boards, and its change per board.
pub fn resonance(series: &[f64]) -> Result<(f64, Option<f64>), ProbeError> {
    let last = series.get(series.len().saturating_sub(BOARDS_MIN_COUNT)..).unwrap_or_default();
    let residues = last.iter().map(|ds| residue(*ds)).collect::<Result<Vec<_>, _>>()?;
    let mean = Sample::new("E_resonance", residues.iter().copied())?.mean();
    Ok((mean, slope("E_resonance", &residues)?))
}

/// The states of a sequence of ΔS, from its second value on: telemetry only, for a steady system reads as split.
pub fn telemetry(series: &[f64]) -> Result<Vec<Lambda>, ProbeError> {
    const WINDOW: usize = 5;
    for value in series {
        finite("ΔS of a sequence", *value)?;
    }
    let mean = |upto: usize| {
        let window = series.get((upto + 1).saturating_sub(WINDOW)..=upto).unwrap_or_default();
        window.iter().sum::<f64>() / crate::number::length(window)
    };
    let states = series.windows(2).enumerate().map(|(at, pair)| {
        let change = pair.iter().rev().copied().reduce(|after, before| after - before).unwrap_or_default();
        if change > 0.04 {
            Lambda::Chaotic
        } else if change <= -0.02 && mean(at + 1) <= mean(at) {
            Lambda::Convergent
        } else if change.abs() < 0.02 {
            Lambda::Split
        } else {
            Lambda::Divergent
        }
    });
    Ok(states.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_number_is_stable_and_a_rising_one_is_not() {
        let steady = trend(&[0.38, 0.40, 0.39, 0.38, 0.39]).unwrap();
        assert_eq!(steady.is_stable, Some(true));
        let rising = trend(&[0.30, 0.34, 0.38, 0.42, 0.46]).unwrap();
        assert_eq!((rising.is_stable, rising.worsening_count), (Some(false), 4));
        assert_eq!(trend(&[0.3, 0.4]).unwrap().is_stable, None);
        assert!(trend(&[]).is_err());
        assert!(trend(&[0.3, f64::NAN]).is_err());
    }

    #[test]
    fn the_residue_is_of_the_last_five_boards() {
        let (mean, slope) = resonance(&[0.0, 0.45, 0.45, 0.45, 0.45, 0.45]).unwrap();
        assert!((mean - 0.9487).abs() < 1e-4);
        assert!(slope.unwrap().abs() < 1e-12);
        assert!(resonance(&[]).is_err());
    }

    #[test]
    fn a_sequence_falls_stands_jumps_or_creeps() {
        let states = telemetry(&[0.50, 0.45, 0.45, 0.52, 0.55]).unwrap();
        assert_eq!(states, [Lambda::Convergent, Lambda::Split, Lambda::Chaotic, Lambda::Divergent]);
        assert!(telemetry(&[0.5, f64::INFINITY]).is_err());
        assert_eq!(telemetry(&[0.5]).unwrap(), []);
    }
}
