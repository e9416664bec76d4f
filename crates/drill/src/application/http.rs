//! What an application answers over HTTP, how fast, and how it fails where it does.
//!
//! In: questions and a unix socket. Out: [`Answers`] to each. A request that does not come to what is expected has a class: the stage at
//! which it went wrong and how, such as `headers/503` or `body/cut`. One request at a time, so that what is measured is the
//! application and not a queue; the first few are not measured.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::Failure;
use lifeboat_base::ids::ApplicationName;
use lifeboat_base::leased::{self, LeasedFolder};
use lifeboat_base::time::Clock;
use lifeboat_net::{Address, Deadline, Door, LineError, NoNames, Socket};
use serde::{Deserialize, Serialize};
use ureq::http::Uri;
use ureq::{Agent, Error, Timeout};

/// How often each question is asked: from fewer requests the slowest twentieth says little.
pub(super) const TIMES: u32 = 200;
/// Before that, so often without being measured.
const WARM_UP: u32 = 5;
/// How much slower than the baseline the slowest twentieth may be,
const SLOWER: f64 = 1.25;
/// beyond what a machine that has other work makes of any request.
const SLACK_MS: f64 = 20.0;
/// The largest answer that is looked at.
const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;
/// One request, however steadily its answer drips; whoever ends a drill waits no longer.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// One look whether it listens: a queue that is full makes a look wait.
const LOOK_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks whether it listens: there is no event to wait for.
const POLL: Duration = Duration::from_millis(5);
/// Where its socket is: a path of one may have 107 bytes.
const RUNTIME: &str = "/tmp";
const PREFIX: &str = "lifeboat-http-";

/// One thing that an application is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The path, with what follows it.
    pub path: String,
    /// The status that is expected.
    pub status: u16,
    /// What must stand in the answer, if anything must.
    pub text: Option<String>,
    /// How long the slowest twentieth of its answers began to take when the baseline was recorded, in milliseconds.
    pub baseline_p95_ms: Option<f64>,
}

/// How an application answered one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// The application.
    pub application: ApplicationName,
    /// What it was then: command, stores and questions. Times of another one are no baseline.
    pub subject: Digest,
    /// The path.
    pub path: String,
    /// How many requests were measured.
    pub requests: u32,
    /// What 95 of 100 answers did not exceed, in milliseconds; nothing if there was none.
    pub p95_ms: Option<f64>,
    /// The same when the baseline was recorded; nothing before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_p95_ms: Option<f64>,
    /// Classes of answers that were not as expected, with their number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unexpected: BTreeMap<String, u64>,
}

impl Answers {
    /// All came and were as expected.
    pub(super) fn are_well(&self, times: u32) -> bool {
        self.unexpected.is_empty() && self.requests == times
    }

    /// The application itself said something else than expected: an answer came, and was another.
    pub(super) fn are_otherwise(&self) -> bool {
        let is_status = |class: &str| {
            class
                .strip_prefix("headers/")
                .is_some_and(|status| status.bytes().all(|byte| byte.is_ascii_digit()))
        };
        self.unexpected.keys().any(|class| is_status(class) || class == TEXT)
    }

    /// Slower than it was, beyond what is allowed.
    pub(super) fn are_slow(&self) -> bool {
        let (Some(is), Some(was)) = (self.p95_ms, self.baseline_p95_ms) else { return false };
        is > was * SLOWER && is > was + SLACK_MS
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        let within = self.p95_ms.map(|p95| format!(", 95 % within {p95:.1} ms"));
        let baseline = match self.baseline_p95_ms {
            Some(was) => format!(" (baseline {was:.1} ms)"),
            None => String::new(),
        };
        let unexpected = self.unexpected.iter().map(|(class, count)| format!(", {count} × {class}"));
        let what = format!("{}: {} requests", self.path, self.requests);
        [what].into_iter().chain(within).chain([baseline]).chain(unexpected).collect()
    }
}

/// The class of what was not asked any more: the time was over, or the application.
const OVER: &str = "within/over";
/// The class of an answer without the text that is expected.
const TEXT: &str = "body/text";

/// Where an application is asked to listen.
pub(super) struct Place {
    _folder: LeasedFolder,
    pub(super) socket: PathBuf,
}

impl Place {
    /// In a folder of its own that nobody else may enter. Folders of processes that died go.
    pub(super) fn make(application: &ApplicationName) -> io::Result<Self> {
        let runtime = Path::new(RUNTIME);
        for entry in std::fs::read_dir(runtime)?.flatten() {
            let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
            // What cannot be removed is no reason not to ask.
            if is_ours && leased::orphaned(&entry.path()).is_ok_and(|lease| lease.is_some()) {
                drop(crashsafe::remove_tree(&entry.path()));
            }
        }
        let folder = LeasedFolder::make(runtime, PREFIX, application.as_str(), &OsEntropy)?;
        let socket = folder.path().join("http");
        Ok(Self { _folder: folder, socket })
    }
}

/// Someone who asks.
pub(super) struct Asking<'a> {
    pub(super) application: &'a ApplicationName,
    pub(super) subject: Digest,
    pub(super) questions: &'a [Question],
    pub(super) socket: &'a Path,
    pub(super) clock: &'a dyn Clock,
    pub(super) within: Duration,
    pub(super) cancelled: &'a dyn Fn() -> bool,
    /// How often each is asked.
    pub(super) times: u32,
}

impl Asking<'_> {
    /// Waits until it listens, and asks. Ends early when it ends, when the time is over, or when it is cancelled.
    pub(super) fn ask(&self, runs: &dyn Fn() -> bool) -> Vec<Answers> {
        let started = self.clock.monotonic();
        let left = || {
            let left = self.within.checked_sub(self.clock.monotonic().saturating_sub(started));
            left.filter(|left| !left.is_zero() && runs() && !(self.cancelled)())
        };
        let address = Address::Unix(self.socket.to_owned());
        while let Some(left) = left() {
            if Socket::connect(&address, Deadline::after(left.min(LOOK_LIMIT))).is_ok() {
                break;
            }
            std::thread::park_timeout(POLL);
        }
        let agent = agent(address);
        self.questions.iter().map(|question| self.one(&agent, question, &left)).collect()
    }

    fn one(&self, agent: &Agent, question: &Question, left: &dyn Fn() -> Option<Duration>) -> Answers {
        let mut answers = Answers {
            application: self.application.clone(),
            subject: self.subject,
            path: question.path.clone(),
            requests: 0,
            p95_ms: None,
            baseline_p95_ms: question.baseline_p95_ms,
            unexpected: BTreeMap::new(),
        };
        let mut took = Vec::new();
        let unmeasured = if self.times > 1 { WARM_UP } else { 0 };
        for number in 0..unmeasured + self.times {
            let Some(left) = left() else {
                *answers.unexpected.entry(OVER.to_owned()).or_default() += 1;
                break;
            };
            let started = self.clock.monotonic();
            let class = request(agent, question, left.min(REQUEST_LIMIT));
            let ms = self.clock.monotonic().saturating_sub(started).as_secs_f64() * 1000.0;
            if let Err(class) = class {
                *answers.unexpected.entry(class).or_default() += 1;
            } else if number >= unmeasured {
                took.push(ms);
            }
            answers.requests += u32::from(number >= unmeasured);
        }
        answers.p95_ms = p95(took);
        answers
    }
}

/// What 95 of 100 do not exceed; nothing of none.
fn p95(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    let rank = (all.len() * 95).div_ceil(100);
    all.get(rank.checked_sub(1)?).copied()
}

fn agent(address: Address) -> Agent {
    let config = Agent::config_builder()
        // A connection for each request: some servers close theirs without a word.
        .max_idle_connections(0)
        // The builder begins with what the environment says.
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent("lifeboat")
        .build();
    Agent::with_parts(config, Door::new(address, None), NoNames)
}

/// One request; an answer that is not as expected is an error with its class.
fn request(agent: &Agent, question: &Question, limit: Duration) -> Result<(), String> {
    let uri: Uri = format!("http://application{}", question.path).parse().map_err(|_bad| "connect/path")?;
    let request = agent.get(uri).config().timeout_global(Some(limit)).build();
    let mut answer = request.call().map_err(|error| class("headers", &error))?;
    let body = answer.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec();
    let status = answer.status().as_u16();
    if status != question.status {
        return Err(format!("headers/{status}"));
    }
    let body = body.map_err(|error| class("body", &error))?;
    match &question.text {
        Some(text) if !body.windows(text.len()).any(|part| part == text.as_bytes()) => Err(TEXT.to_owned()),
        _ => Ok(()),
    }
}

fn class(stage: &str, error: &Error) -> String {
    let own = match error {
        Error::Other(own) => own.downcast_ref(),
        _ => None,
    };
    match (own, error) {
        (Some(LineError::Unreachable(_)), _) => "connect/refused".to_owned(),
        (_, Error::Timeout(Timeout::Connect)) => "connect/timeout".to_owned(),
        (_, Error::Timeout(_)) => format!("{stage}/timeout"),
        (_, Error::BodyExceedsLimit(_)) => format!("{stage}/too-large"),
        (_, Error::Http(_) | Error::Protocol(_)) => format!("{stage}/malformed"),
        _ => format!("{stage}/cut"),
    }
}

/// What went wrong in one attempt, for people; nothing if all is well. Only what was measured can be slow: a first answer often is.
pub(super) fn wrong(answers: &[Answers], times: u32) -> Option<(String, Vec<String>)> {
    let bad: Vec<&Answers> = answers.iter().filter(|all| !all.are_well(times)).collect();
    let slow: Vec<&Answers> = answers.iter().filter(|all| times > 1 && all.are_slow()).collect();
    let status = match (bad.len(), slow.len()) {
        (0, 0) => return None,
        (0, slow) => format!("{slow} of {} questions slower than the baseline allows", answers.len()),
        (bad, _) => format!("{bad} of {} questions not answered as expected", answers.len()),
    };
    let lines = bad.iter().chain(&slow).map(|all| all.line()).collect();
    Some((status, lines))
}

/// A folder for the socket could not be made.
pub(super) fn no_place(application: &ApplicationName, error: io::Error) -> Failure {
    Failure::io(format!("failed to make a place for the socket of {application}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(p95_ms: f64, baseline: Option<f64>) -> Answers {
        Answers {
            application: ApplicationName::new("web").unwrap(),
            subject: Digest::of(b"web"),
            path: "/".to_owned(),
            requests: TIMES,
            p95_ms: Some(p95_ms),
            baseline_p95_ms: baseline,
            unexpected: BTreeMap::new(),
        }
    }

    #[test]
    fn only_an_answer_that_came_is_the_applications_own_word() {
        for (class, own) in [
            ("headers/503", true),
            (TEXT, true),
            ("headers/cut", false),
            ("headers/timeout", false),
            ("headers/malformed", false),
            ("body/cut", false),
            (OVER, false),
        ] {
            let all = Answers { unexpected: BTreeMap::from([(class.to_owned(), 1)]), ..answers(1.0, None) };
            assert_eq!(all.are_otherwise(), own, "{class}");
        }
    }

    #[test]
    fn a_twentieth_may_be_slower_than_the_95th_percentile() {
        assert_eq!(p95(Vec::new()), None);
        assert_eq!(p95(vec![3.0]), Some(3.0));
        let all: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(p95(all), Some(190.0));
    }

    #[test]
    fn slow_is_what_is_a_quarter_and_more_than_noise_above_the_baseline() {
        for (is, was, slow) in [
            (500.0, None, false),
            (500.0, Some(400.0), false),
            (501.0, Some(400.0), true),
            (20.0, Some(1.0), false),
            (22.0, Some(1.0), true),
        ] {
            assert_eq!(answers(is, was).are_slow(), slow, "{is} {was:?}");
            assert_eq!(wrong(&[answers(is, was)], TIMES).is_some(), slow);
            let first = Answers { requests: 1, ..answers(is, was) };
            assert!(wrong(&[first], 1).is_none(), "a first answer is not measured");
        }
        let few = Answers { requests: TIMES - 1, ..answers(1.0, None) };
        assert!(wrong(&[few], TIMES).is_some());
    }
}
