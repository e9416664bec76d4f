//! What a drill showed to be wrong, and what is proposed: the first draft of a retrospective.

use lifeboat_drill::DrillReport;

/// One gap; who does it by when is for people to fill in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) code: String,
    pub(crate) subject: String,
    pub(crate) what: String,
    pub(crate) action: String,
}

/// A promised time that was used up to this share is about to be missed.
const NEAR: f64 = 0.8;

pub(crate) fn gaps(report: &DrillReport) -> Vec<Gap> {
    let found = report.findings.iter().map(|finding| Gap {
        code: finding.code.clone(),
        subject: finding.subject.clone(),
        what: finding.message.clone(),
        action: action(&finding.code, &finding.subject),
    });
    let near = report.stores.iter().filter_map(|store| {
        let share = store.rto_s? / store.rto_target_s.filter(|target| *target > 0.0)?;
        (NEAR..=1.0).contains(&share).then(|| Gap {
            code: "drill.rto-near".to_owned(),
            subject: store.name.to_string(),
            what: format!("it took {:.0} % of the promised time to come back", share * 100.0),
            action: action("drill.rto", store.name.as_str()),
        })
    });
    found.chain(near).collect()
}

/// What is to be done about a kind of finding.
fn action(code: &str, subject: &str) -> String {
    let again = "then drill again";
    match code {
        "drill.rto" => format!(
            "restore {subject} from a nearer copy or on a stronger machine, capture it more often so that less log is \
             replayed, or agree on another RTO; {again}"
        ),
        "drill.rpo" => format!("capture {subject} more often or stream its log, or agree on another RPO; {again}"),
        "drill.no-power" | "drill.canaries" => {
            format!("report the check: it passed without being able to fail; until then nothing it says of {subject} counts")
        }
        "drill.teardown" | "drill.leftover" => {
            "remove the sandbox named above (what is mounted in it first), and find out what held it".to_owned()
        }
        "drill.must-differ" => format!(
            "drill where throwaway servers get a network of their own, without `network = \"host\"`, or keep the secret out of what is captured; {again}"
        ),
        "inventory.uncovered" => {
            format!("give {subject} a row, `retention = \"none\"` if nothing of it is kept, or say in `[inventory.known]` why it needs none")
        }
        "inventory.unseen" => "let the drill read what `[inventory]` and the rows name, or correct it".to_owned(),
        "drill.clock" => "compare the clocks of the machines (NTP)".to_owned(),
        "drill.incomplete" => format!("find out why items of {subject} could not be read; `lifeboat backup {subject}`, {again}"),
        "drill.unproven" => format!("correct what could not be asked of {subject}; {again}"),
        "drill.log" => format!("`lifeboat verify {subject}`, `lifeboat backup {subject}`; {again}"),
        code if code.starts_with("agreement/") => {
            "make the records named above again or take them out of the other store; find out which of the two lost them".to_owned()
        }
        code if code.starts_with("application/") => {
            format!("run the command of {subject} on the stores restored by hand (`lifeboat restore`) and find out what it misses; one that passes without a store must ask it for more; {again}")
        }
        code if code.starts_with("copy-") => {
            "bring the copy back, `lifeboat backup --heal` if it is lost; `lifeboat verify`".to_owned()
        }
        _ => format!(
            "`lifeboat verify {subject}`; if the point is damaged in every copy, `lifeboat backup {subject}` makes a new one; {again}"
        ),
    }
}
