//! Which requirements a drill has something to show for. No claim that they are met: that is for an auditor to say.
//!
//! Sources: ISO/IEC 27001:2022 Annex A 8.13; AICPA Trust Services Criteria (2017, points of focus 2022) A1.2 and A1.3; NIST SP
//! 800-53 Rev. 5 CP-9 and CP-10; Regulation (EU) 2022/2554 (DORA) Article 12. Summaries are ours.

use lifeboat_drill::{CheckOutcome, DrillReport};
use lifeboat_stores::CheckState;

/// One requirement, what it asks for in a few words, and what this drill shows of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) id: &'static str,
    pub(crate) asks: &'static str,
    pub(crate) shows: String,
}

pub(crate) fn controls(report: &DrillReport) -> Vec<Control> {
    let shown = Shown::of(report);
    vec![
        Control {
            id: "ISO/IEC 27001:2022 A.8.13",
            asks: "backups are kept and regularly tested, as the policy on backup says",
            shows: format!("{}; {}", shown.restored, shown.checks),
        },
        Control {
            id: "SOC 2 A1.2",
            asks: "backup processes and recovery infrastructure are in place and watched",
            shows: format!("{}; read from {}", shown.restored, shown.copies),
        },
        Control {
            id: "SOC 2 A1.3",
            asks: "the recovery plan is tested",
            shows: format!("this drill, {}; {}", shown.verdict, shown.order),
        },
        Control {
            id: "NIST SP 800-53 CP-9",
            asks: "backups are made, their integrity is protected, and they are tested for reliability (CP-9(1))",
            shows: format!("{}; {}", shown.checks, shown.rpo),
        },
        Control {
            id: "NIST SP 800-53 CP-10",
            asks: "the system can be recovered to a known state within its recovery objectives",
            shows: format!("{}; {}", shown.rto, shown.rpo),
        },
        Control {
            id: "DORA Article 12(2)",
            asks: "backup, restoration and recovery procedures are tested periodically",
            shows: format!("this drill, {}, ended {}", shown.verdict, crate::view::moment(report.ended)),
        },
        Control {
            id: "DORA Article 12(6)",
            asks: "recovery time and recovery point objectives are set and met",
            shows: format!("{}; {}", shown.rto, shown.rpo),
        },
        Control {
            id: "DORA Article 12(7)",
            asks: "multiple checks and reconciliations after a recovery keep the integrity of data high",
            shows: format!("{}; {}", shown.checks, shown.rules),
        },
    ]
}

/// The results a requirement may ask about, in words with numbers.
struct Shown {
    verdict: &'static str,
    restored: String,
    copies: String,
    checks: String,
    rules: String,
    order: String,
    rto: String,
    rpo: String,
}

impl Shown {
    fn of(report: &DrillReport) -> Self {
        let stores = &report.stores;
        let count = stores.len();
        let back = stores.iter().filter(|store| store.rto_s.is_some()).count();
        let mut copies: Vec<&str> = stores.iter().map(|store| store.copy.as_str()).collect();
        copies.sort_unstable();
        copies.dedup();
        let checks: Vec<&CheckOutcome> = stores.iter().flat_map(|store| &store.checks).collect();
        let applied = checks.iter().filter(|check| check.state != CheckState::NotApplicable).count();
        let worth = checks.iter().filter(|check| check.has_shown()).count();
        let rules = report.agreement.iter().filter(|rule| rule.has_shown()).count();
        let within = |pair: &dyn Fn(usize) -> (Option<f64>, Option<f64>)| {
            let promised = (0..count).filter(|at| pair(*at).1.is_some()).count();
            let kept = (0..count)
                .filter(|at| matches!(pair(*at), (Some(took), Some(target)) if took <= target))
                .count();
            (kept, promised)
        };
        let (rto, rtos) = within(&|at| stores.get(at).map_or((None, None), |s| (s.rto_s, s.rto_target_s)));
        let (rpo, rpos) =
            within(&|at| stores.get(at).map_or((None, None), |s| (Some(s.rpo_s), s.rpo_target_s)));
        Self {
            verdict: report.verdict.word(),
            restored: format!("{back} of {count} stores restored and checked in isolation"),
            copies: if copies.is_empty() { "no copy".to_owned() } else { copies.join(", ") },
            checks: format!("{worth} of {applied} checks passed and were seen to fail on a damaged sample"),
            rules: format!("{rules} of {} rules between stores held", report.agreement.len()),
            order: format!("{} stores in {} waves", count, report.order.len()),
            rto: format!("{rto} of {rtos} promised recovery times kept"),
            rpo: format!("{rpo} of {rpos} promised recovery points kept"),
        }
    }
}
