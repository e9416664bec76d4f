//! Numbers of a rehearsal that do not come from an index: keys of effects, arms of a release, accounts of writes, rates.
//!
//! In: fields and counts. Out: keys, arms and verdicts that are the same on every machine and after every restore.

use lifeboat_base::digest::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::number::{finite, number, share};

/// The key by which an effect is known, whoever replays it. Fields are length-prefixed, so that none runs into the next.
/// The hash of an index belongs in it only when the effect depends on the index: never for payments, webhooks and rows.
pub fn dedupe_key(
    source_type: &str,
    source_id: &str,
    revision: &str,
    action: &str,
    index: Option<Digest>,
) -> Digest {
    let index = index.map(|digest| digest.to_string()).unwrap_or_default();
    let mut hasher = Hasher::new();
    hasher.update(b"effect.v1\n");
    for field in [source_type, source_id, revision, action, &index] {
        hasher.update(&(field.len() as u64).to_be_bytes());
        hasher.update(field.as_bytes());
    }
    hasher.finish()
}

/// Which arm of a release a user gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The one that was there.
    Blue,
    /// The new one.
    Green,
}

/// The arm of a user at a weight: the same while the weight stands, and only from blue to green when it rises. `bucket` of
/// 10,000 is what a log shows.
pub fn arm(salt: &str, user_id: &str, weight: f64) -> Result<(Arm, u64), ProbeError> {
    if !(0.0..=1.0).contains(&weight) {
        finite("the weight", weight)?;
        return Err(ProbeError::OutOfRange {
            what: "the weight".to_owned(),
            found: weight,
            low: 0.0,
            high: 1.0,
        });
    }
    let mut text = salt.as_bytes().to_vec();
    text.push(0x1f);
    text.extend_from_slice(user_id.as_bytes());
    let digest = Digest::of(&text);
    let first = digest.as_bytes().iter().take(8).fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let bucket = first % 10_000;
    let is_green = number(bucket) < weight * 10_000.0;
    Ok((if is_green { Arm::Green } else { Arm::Blue }, bucket))
}

/// What became of the writes that were acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteAccount {
    /// Acknowledged to a client.
    pub acked: u64,
    /// There after the restore.
    pub recovered: u64,
    /// Played again.
    pub replayed: u64,
    /// Lost and listed.
    pub lost_documented: u64,
    /// How old the oldest documented loss is, against the point of failure.
    pub lost_age_s: u64,
    /// The store's RPO.
    pub rpo_target_s: u64,
}

impl WriteAccount {
    /// Acknowledged writes of which nothing is known. More writes than were acknowledged do not balance it: `None`.
    pub fn lost_unaccounted(&self) -> Option<u64> {
        let known = self.recovered.checked_add(self.replayed)?.checked_add(self.lost_documented)?;
        self.acked.checked_sub(known)
    }

    /// Whether every write is accounted for, and what was lost is within the RPO.
    pub fn passes(&self) -> bool {
        self.lost_unaccounted() == Some(0)
            && (self.lost_documented == 0 || self.lost_age_s <= self.rpo_target_s)
    }
}

/// The upper bound, with 95 percent confidence, of a rate at which nothing was seen in `trials`: 3 over the trials. Nothing
/// tried bounds nothing.
pub fn rule_of_three(trials: u64) -> f64 {
    if trials == 0 { 1.0 } else { (-(0.05f64.ln()) / number(trials)).min(1.0) }
}

/// The share of scheduled runs that were proven. Runs that never came count as failed; more than were scheduled do not
/// make up for them.
pub fn success_rate(scheduled: u64, proven: u64) -> f64 {
    share(proven.min(scheduled), scheduled)
}

/// The share of errors at which a budget burns at `rate` times what it can bear.
pub fn burn_threshold(rate: f64, objective: f64) -> Result<f64, ProbeError> {
    finite("the burn rate", rate)?;
    finite("the objective", objective)?;
    Ok(rate * (1.0 - objective))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |source_id, revision| dedupe_key("row", source_id, revision, "write", None);
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }

    #[test]
    fn a_rebuilt_index_is_no_reason_to_pay_twice() {
        let business = || dedupe_key("payment", "p-1", "3", "charge", None);
        assert_eq!(business(), business());
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let answer = |index| dedupe_key("answer", "q-1", "3", "cache", Some(index));
        assert_ne!(answer(old), answer(new));
        assert_ne!(answer(old), dedupe_key("answer", "q-1", "3", "cache", None));
    }

    #[test]
    fn eighty_percent_of_users_are_eighty_percent() {
        let greens =
            (0..10_000).filter(|user| arm("drill", &format!("user-{user}"), 0.80).unwrap().0 == Arm::Green);
        let greens = greens.count();
        assert!((7_880..=8_120).contains(&greens), "{greens}");
    }

    #[test]
    fn a_weight_that_is_none_is_refused() {
        for weight in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            assert!(arm("drill", "user", weight).is_err());
        }
    }

    fn account(recovered: u64) -> WriteAccount {
        WriteAccount {
            acked: 1_000,
            recovered,
            replayed: 28,
            lost_documented: 2,
            lost_age_s: 120,
            rpo_target_s: 300,
        }
    }

    #[test]
    fn every_acknowledged_write_is_accounted_for() {
        assert!(account(970).passes());
        assert_eq!(account(969).lost_unaccounted(), Some(1));
        assert!(!account(969).passes());
        assert_eq!(account(971).lost_unaccounted(), None);
        assert!(!account(971).passes());
        assert!(!WriteAccount { lost_age_s: 301, ..account(970) }.passes());
    }

    #[test]
    fn nothing_seen_in_2995_trials_is_at_most_one_in_a_thousand() {
        assert_eq!((rule_of_three(2_995) * 10_000.0).round(), 10.0);
        assert!((rule_of_three(0) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_missed_schedule_is_a_failure() {
        let rate = |proven| (success_rate(720, proven) * 10_000.0).round();
        assert_eq!((rate(714), rate(712)), (9_917.0, 9_889.0));
        assert!(success_rate(720, 714) >= 0.99 && success_rate(720, 712) < 0.99);
        assert!(success_rate(720, 719) < 1.0 && success_rate(0, 0) < 0.99);
    }

    #[test]
    fn a_fast_burn_of_99_5_percent_is_seven_percent_of_errors() {
        assert!((burn_threshold(14.4, 0.995).unwrap() - 0.072).abs() < 1e-12);
        assert!(burn_threshold(f64::NAN, 0.995).is_err());
    }

    proptest! {
        #[test]
        fn a_rising_weight_moves_nobody_back(user in "[a-z0-9]{1,12}", low in 0.0f64..1.0, more in 0.0f64..1.0) {
            let high = (low + more).min(1.0);
            let (before, bucket) = arm("drill", &user, low).unwrap();
            let (after, same) = arm("drill", &user, high).unwrap();
            prop_assert_eq!(bucket, same);
            prop_assert!(before <= after);
        }
    }

    #[test]
    fn from_a_tenth_to_eight_tenths_nobody_goes_from_green_to_blue() {
        for user in 0..10_000 {
            let user = format!("user-{user}");
            assert!(arm("drill", &user, 0.10).unwrap().0 <= arm("drill", &user, 0.80).unwrap().0);
        }
    }
}
