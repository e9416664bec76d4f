//! What is owed for a server that is not retained: that nothing durable hides in it, and that it can be made again.
//!
//! In: the running server, and the row's command that fills an empty one. Out: findings about keys without a time to live;
//! checks of what the command makes of a throwaway server that nobody else can reach.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::human;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::outside::{OutsideError, Run, run};
use lifeboat_base::secret::Secret;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_redis::census::{Bounds, Census, shown};
use lifeboat_redis::pattern::fits;
use lifeboat_redis::rdb::{self, Item, Sum, Survey};
use lifeboat_redis::scan::{Link, Scope};
use lifeboat_redis::server::{Primary, Programs, Wait};
use lifeboat_redis::wire::{ConnectOptions, Connection, Info, RedisError, Reply};

use super::{commands, error};
use crate::adapter::{CanaryResult, CheckResult, CheckState, Inspection};
use crate::duties::{Look, Rebuilt};
use crate::tally::{Tally, equal, failed, not_applicable};

/// The command ends well.
const REPLAY: &str = "redis.replay";
/// It leaves keys.
const FILLED: &str = "redis.filled";
/// What it leaves has a time to live.
const ENDS: &str = "redis.ends";
/// Run again, it leaves the same.
const IDEMPOTENT: &str = "redis.idempotent";

/// A look at a running server goes no further.
const LOOK: Bounds = Bounds { keys: 200_000, time: Duration::from_secs(30) };
/// How long the command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(1800);
/// How long a throwaway server may take to start, to stop or to save.
const SERVER_LIMIT: Duration = Duration::from_secs(120);
/// What stands for the server's address in the words of the command.
const PLACEHOLDER: &str = "{url}";
/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many examples a check shows.
const MAX_EXAMPLES: usize = 5;

/// Gives the values of the variables that a command may see; asked for only when it is run.
pub type Variables = Arc<dyn Fn() -> Result<Vec<(String, Secret<String>)>, Failure> + Send + Sync>;

/// What a row says about a server that is not retained.
#[derive(Clone)]
pub struct Upkeep {
    /// Patterns of names that may have no time to live.
    pub durable: Vec<String>,
    /// Program and arguments that fill an empty server, with `{url}` for its address; nothing if the row has none.
    pub rebuild: Vec<String>,
    /// Where the program starts and relative paths lead from.
    pub folder: PathBuf,
    /// What it may see of our environment.
    pub variables: Variables,
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep")
            .field("durable", &self.durable)
            .field("rebuild", &self.rebuild)
            .finish_non_exhaustive()
    }
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            durable: Vec::new(),
            rebuild: Vec::new(),
            folder: PathBuf::from("/"),
            variables: Arc::new(|| Ok(Vec::new())),
        }
    }
}

/// For `lifeboat check` of a service: whether it lets us look.
pub(super) fn reach(link: &mut dyn Link) -> Result<Inspection, Failure> {
    let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
    let questions = [words(&[b"SCAN", b"0", b"COUNT", b"1"]), words(&[b"INFO"])];
    let fail = || error::connection("failed to look at the server");
    let replies = link.ask(0, &questions).map_err(fail())?;
    let (page, info) = (replies.first(), replies.last());
    if let Some(Reply::Error(source)) = page {
        let (command, source) = ("SCAN".to_owned(), source.clone());
        return Err(fail()(RedisError::Server { command, source }));
    }
    let info = Info::read(&info.and_then(Reply::text).unwrap_or_default());
    let version = info.get("redis_version").unwrap_or("of unknown version");
    let version = format!("Redis {version}, key by key");
    Ok(Inspection { version, logical_bytes: None, items: Vec::new(), findings: Vec::new(), share: None })
}

/// Counts what has no time to live.
pub(super) fn look(
    link: &mut dyn Link,
    (prefix, upkeep): (&str, &Upkeep),
    clock: &dyn Clock,
) -> Result<Look, Failure> {
    let scope = Scope { prefix: prefix.as_bytes().to_vec() };
    let census = Census::take(link, (&scope, &upkeep.durable), LOOK, clock)
        .map_err(error::connection("failed to look at the keys of the server"))?;
    let numbers = [
        ("keys", census.keys),
        ("endless", census.endless),
        ("looked_at", census.looked_at),
        ("refused", census.refused),
    ];
    let numbers: BTreeMap<_, _> = numbers.map(|(name, number)| (name.to_owned(), number)).into();
    // Nothing without an end needs no walk to be believed, if the server says it.
    let complete = census.complete || (census.counted && census.endless == 0);
    Ok(Look { numbers, complete, findings: verdict(&census, &upkeep.durable).into_iter().collect() })
}

fn verdict(census: &Census, allowed: &[String]) -> Option<Finding> {
    let subject = "keys without a time to live";
    let (endless, looked_at) = (human::count(census.endless), human::count(census.looked_at));
    if census.refused > 0 || (allowed.is_empty() && census.endless > 0) {
        let all = human::count(census.keys);
        let such = match census.examples.as_slice() {
            [] => String::new(),
            names => format!("; such as {}", names.join(", ")),
        };
        let message = format!(
            "{endless} of {all} keys have no time to live, so they are lost for good with the server{such} (looked at {looked_at} keys)"
        );
        return Some(Finding::new("durable-keys", subject, message));
    }
    if !census.complete && (census.endless > 0 || !census.counted) {
        let message = format!(
            "{endless} keys have no time to live; of {looked_at} that were looked at, all without one are allowed to: \
             the rest is not known"
        );
        return Some(Finding::new("durable-keys-unknown", subject, message));
    }
    None
}

/// Something that fills a server at an address.
type Fill<'a> = &'a dyn Fn(&str, &Path) -> Result<(), OutsideError>;

/// Fills an empty server of our own with the row's command, and once more.
pub(super) fn rebuild(
    (upkeep, promises): (&Upkeep, &[String]),
    programs: &[PathBuf],
    scratch: &Path,
    (clock, monitor): (&dyn Clock, &dyn Monitor),
) -> Result<Rebuilt, Failure> {
    let found = Programs::find(programs).map_err(error::server("a throwaway server cannot be started"))?;
    let variables = (upkeep.variables)()?;
    let fill = |address: &str, _work: &Path| {
        let Some((program, arguments)) = upkeep.rebuild.split_first() else { return Ok(()) };
        let mut command = Command::new(place(program, &upkeep.folder));
        command.args(arguments.iter().map(|argument| argument.replace(PLACEHOLDER, address)));
        command.env_clear().env("PATH", PATH).current_dir(&upkeep.folder);
        for (name, value) in &variables {
            command.env(name, value.expose());
        }
        let cancelled = || monitor.cancelled();
        run(command, &Run { limit: COMMAND_LIMIT, clock, cancelled: &cancelled }).map(drop)
    };
    monitor.phase("making it again in a throwaway server", None);
    rehearse(&found, (&upkeep.durable, promises), scratch, clock, &fill)
}

/// A program named with a folder is looked for from where the command starts.
fn place(program: &str, folder: &Path) -> PathBuf {
    if program.contains('/') { folder.join(program) } else { PathBuf::from(program) }
}

fn rehearse(
    programs: &Programs,
    (allowed, promises): (&[String], &[String]),
    scratch: &Path,
    clock: &dyn Clock,
    fill: Fill<'_>,
) -> Result<Rebuilt, Failure> {
    let io = |error| Failure::io("failed to make room for a throwaway server", error);
    let work = tempfile::tempdir_in(scratch).map_err(io)?;
    let work = &fs::canonicalize(work.path()).map_err(io)?;
    let wait = Wait::for_at_most(SERVER_LIMIT, clock);
    let server = Primary::start(programs, (work, false), &OsEntropy, wait)
        .map_err(error::server("failed to start a throwaway server"))?;
    let started = clock.monotonic();
    let first = fill(&server.address(), work);
    let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
    let mut checks = Vec::new();
    if let Err(error) = first {
        let error = cancelled(error)?;
        checks.push(failed(REPLAY, "a pass", chain(&error)));
        checks.extend([FILLED, ENDS, IDEMPOTENT].map(|id| not_applicable(id, "a pass", "it was not filled")));
        checks.extend((1..=promises.len()).map(|number| {
            not_applicable(&format!("{}/{number}", commands::COMMAND), "a pass", "it was not filled")
        }));
        return Ok(Rebuilt { checks, seconds: None });
    }
    checks.push(Tally::default().result(REPLAY, "a pass", "a pass"));
    let once = taken(&server, work, allowed)?;
    checks.extend(once.judge());
    let mut connection =
        server.connect().map_err(error::connection("the throwaway server takes no connection"))?;
    for (index, text) in promises.iter().enumerate() {
        checks.push(commands::check(&mut connection, index + 1, text));
    }
    match fill(&server.address(), work) {
        Ok(()) => checks.push(equal(IDEMPOTENT, taken(&server, work, allowed)?.digest(), once.digest())),
        Err(error) => checks.push(failed(IDEMPOTENT, once.digest(), chain(&cancelled(error)?))),
    }
    server.stop(wait).map_err(error::server("failed to stop the throwaway server"))?;
    Ok(Rebuilt { checks, seconds: Some(seconds) })
}

/// A cancelled run is a failure of the whole, anything else one of the check.
fn cancelled(error: OutsideError) -> Result<OutsideError, Failure> {
    if matches!(error, OutsideError::Cancelled) {
        return Err(Failure::with_source(FailureKind::Refused, "the checks were cancelled", error));
    }
    Ok(error)
}

/// What a server holds.
struct Taken {
    survey: Survey,
    /// Keys without an end that may not be so.
    endless: u64,
    examples: Vec<String>,
}

fn taken(server: &Primary, work: &Path, allowed: &[String]) -> Result<Taken, Failure> {
    server.save(SERVER_LIMIT).map_err(error::server("the throwaway server could not save what it holds"))?;
    let file = File::open(work.join("dump.rdb"))
        .map_err(|error| Failure::io("failed to read what was saved", error))?;
    let mut taken = Taken { survey: Survey::default(), endless: 0, examples: Vec::new() };
    rdb::read(std::io::BufReader::new(file), &mut |item| {
        if let Item::Key(key) = &item {
            let refused = !allowed.iter().any(|pattern| fits(pattern.as_bytes(), &key.head));
            if key.expires_ms.is_none() && refused {
                taken.endless += 1;
                if taken.examples.len() < MAX_EXAMPLES {
                    taken.examples.push(format!("db{} {}", key.db, shown(&key.head)));
                }
            }
        }
        taken.survey.add(&item, 0);
    })
    .map_err(error::dump("what the throwaway server saved cannot be read"))?;
    Ok(taken)
}

impl Taken {
    fn judge(&self) -> [CheckResult; 2] {
        let keys = self.survey.keys();
        let filled = if keys > 0 {
            Tally::default().result(FILLED, human::count(keys), "keys")
        } else {
            failed(FILLED, "keys", "the command left no key: it made nothing")
        };
        let mut tally = Tally::default();
        let mut examples = self.examples.iter();
        for _key in 0..self.endless {
            tally.add(|| format!("no time to live: {}", examples.next().map_or("", String::as_str)));
        }
        [filled, tally.result(ENDS, self.endless.to_string(), "0")]
    }

    /// Everything but when keys end.
    fn digest(&self) -> String {
        let mut text: Vec<String> = self
            .survey
            .databases
            .iter()
            .map(|(number, database)| format!("db{number} {} {}", database.keys, database.timeless_sum))
            .collect();
        if self.survey.functions > 0 {
            text.push(format!("functions {}", self.survey.function_sum));
        }
        if text.is_empty() {
            text.push(format!("nothing {}", Sum::default()));
        }
        text.join(", ")
    }
}

const LIMIT: Duration = Duration::from_secs(30);
const PROMISE: &str = "GET string = value";
const GOOD: [&str; 3] = ["SET string value EX 1000", "SADD set a b", "EXPIRE set 1000"];

/// What a command that is run twice may do wrong, and the check that must notice.
const BAD: [(&str, &str, &[&str]); 6] = [
    (REPLAY, "the command fails", &["NO-SUCH-COMMAND"]),
    (FILLED, "the command makes nothing", &["PING"]),
    (ENDS, "a key without a time to live", &["SET string value EX 1000", "SET more 1"]),
    (IDEMPOTENT, "a list that grows", &["SET string value EX 1000", "RPUSH list a", "EXPIRE list 1000"]),
    (IDEMPOTENT, "a number that counts", &["SET string value EX 1000", "INCR number", "EXPIRE number 1000"]),
    (commands::COMMAND, "another value", &["SET string other EX 1000"]),
];

/// The checks on a server that is filled well and on servers that are filled badly.
pub(super) fn canaries(scratch: &Path, programs: &[PathBuf]) -> Result<Vec<CanaryResult>, Failure> {
    let found = Programs::find(programs)
        .map_err(error::server("the checks could not be tried on damaged servers"))?;
    let clock = SystemClock::new();
    let states = |commands: &[&str]| -> Result<Vec<(String, CheckState)>, Failure> {
        let fill = |address: &str, _work: &Path| {
            let wrong = |message: String| OutsideError::Program {
                program: "a sample".to_owned(),
                status: "refused".to_owned(),
                code: None,
                message,
            };
            let options = ConnectOptions::parse(&Secret::new(address.to_owned()))
                .map_err(|error| wrong(chain(&error)))?;
            let mut connection =
                Connection::open(&options.with_silence_limit(LIMIT)).map_err(|error| wrong(chain(&error)))?;
            commands
                .iter()
                .try_for_each(|words| connection.ask(words).map(drop).map_err(|error| wrong(chain(&error))))
        };
        let promises = [PROMISE.to_owned()];
        let rebuilt = rehearse(&found, (&[], &promises), scratch, &clock, &fill)?;
        Ok(rebuilt.checks.into_iter().map(|check| (check.family().to_owned(), check.state)).collect())
    };
    let good = states(&GOOD)?;
    let has = |all: &[(String, CheckState)], id: &str, state| {
        all.iter().any(|found| found.0 == id && found.1 == state)
    };
    BAD.iter()
        .map(|(check, damage, commands)| {
            let bad = states(commands)?;
            Ok(CanaryResult {
                check: (*check).to_owned(),
                damage: (*damage).to_owned(),
                caught: has(&good, check, CheckState::Passed) && has(&bad, check, CheckState::Failed),
            })
        })
        .collect()
}
