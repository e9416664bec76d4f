//! Applications: what they must be able to do on stores that were restored together.
//!
//! A command of the user's is told where the restored stores are and passes by ending with status 0. It sees nothing else of
//! ours: a bare environment, an empty folder as its home, and no network unless the policy lets it. Afterwards it is run once
//! more for each store, with nothing in that store's place, and must fail by its own word each time; and at last on everything again,
//! which it must pass: a failure that would have come anyway shows nothing. An application that is asked over HTTP keeps running
//! instead, and passes by its answers.

mod http;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::apart::{self, Network};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::ids::{ApplicationName, StoreName};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::outside::{OutsideError, Run, beside, run};
use lifeboat_base::time::Clock;
use lifeboat_stores::{CheckResult, CheckState, Serve};

pub use self::http::{Answers, Question};
use self::http::{Asking, Place, TIMES, no_place, wrong};
use crate::report::CheckOutcome;
use crate::run::Restored;
use crate::target::Isolated;

/// The family of these checks.
const FAMILY: &str = "application";
/// What is where nothing is.
const NOWHERE: &str = "nowhere";
/// Shells give this and more for a command that a signal ended.
const SIGNALLED: i32 = 128;

/// One application that is tried.
#[derive(Clone, Debug)]
pub struct Application {
    /// Its name.
    pub name: ApplicationName,
    /// What it needs.
    pub stores: Vec<Need>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it stands.
    pub folder: PathBuf,
    /// How long it may take.
    pub within: Duration,
    /// What it may reach beside the stores.
    pub network: Network,
    /// What it is asked over HTTP; empty for a command that shows by its end that it works.
    pub http: Vec<Question>,
    /// Tells it from what it was: command, stores and questions.
    pub subject: Digest,
}

/// A store that an application needs, and the variables that tell it of it.
#[derive(Clone, Debug)]
pub struct Need {
    /// The store.
    pub store: StoreName,
    /// Names the variable with its address.
    pub address: String,
    /// Names the variable with the moment it shows.
    pub moment: String,
}

/// What all applications of a drill share.
pub(crate) struct Stage<'a> {
    pub(crate) sandbox: &'a dyn Isolated,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) monitor: &'a dyn Monitor,
}

/// Tries every application; what fails or proves nothing is a finding. `answers` gets what those said that were asked.
pub(crate) fn attempt(
    applications: &[Application],
    restored: &[Restored<'_>],
    stage: &Stage<'_>,
    (answers, findings): (&mut Vec<Answers>, &mut Vec<Finding>),
) -> Vec<CheckOutcome> {
    let mut outcomes = Vec::new();
    for application in applications {
        stage.monitor.phase(&format!("trying {}", application.name), None);
        let outcome = one(application, restored, stage, answers);
        findings.extend(finding(application, &outcome));
        outcomes.push(outcome);
    }
    outcomes
}

fn finding(application: &Application, outcome: &CheckOutcome) -> Option<Finding> {
    let (id, name) = (&outcome.id, application.name.as_str());
    let first = outcome.detail.first().map(|line| format!(": {line}")).unwrap_or_default();
    match (outcome.state, outcome.canary_caught) {
        (CheckState::Passed, Some(true)) => None,
        (CheckState::Passed, _) => {
            let message = format!("check has no power: {id}{first}");
            Some(Finding::new(id, name, message))
        }
        (CheckState::Failed, _) => {
            let message = format!("{name} does not work on what was restored: {}{first}", outcome.measured);
            Some(Finding::new(id, name, message))
        }
        (CheckState::NotApplicable, _) => {
            let message = format!("{id} could not be applied{first}");
            Some(Finding::new("drill.unproven", name, message))
        }
    }
}

/// What is used of one store.
struct Lent<'a> {
    need: &'a Need,
    there: &'a Restored<'a>,
    artefact: &'a Path,
    serve: &'a dyn Serve,
}

fn one(
    application: &Application,
    restored: &[Restored<'_>],
    stage: &Stage<'_>,
    answers: &mut Vec<Answers>,
) -> CheckOutcome {
    let program = application.command.first().map(String::as_str).unwrap_or_default();
    let alone = if application.network == Network::None { "without a network" } else { "on our network" };
    let within = human::duration(application.within);
    let expected = match application.http.len() {
        0 => format!("`{program}` ends with status 0 within {within}, {alone}"),
        count => format!("`{program}` answers {count} questions {TIMES} times within {within}, {alone}"),
    };
    let outcome = |state, measured: String, detail: Vec<String>| CheckResult {
        id: format!("{FAMILY}/{}", application.name),
        state,
        measured,
        expected: expected.clone(),
        differences: u64::from(state == CheckState::Failed),
        detail,
    };
    let unproven = |why: String| {
        CheckOutcome::from_result(outcome(CheckState::NotApplicable, "not measured".to_owned(), vec![why]))
    };
    let mut lent = Vec::new();
    for need in &application.stores {
        let store = &need.store;
        let Some(there) = restored.iter().find(|there| there.store == *store) else {
            return unproven(format!("{store}: it is no part of the drill"));
        };
        let Some(artefact) = &there.artefact else {
            return unproven(format!("{store}: it was not restored, or a check failed"));
        };
        let Some(serve) = there.adapter.serves() else {
            return unproven(format!("{store}: its kind cannot be used by an application"));
        };
        lent.push(Lent { need, there, artefact, serve });
    }
    let mut told = None;
    let served = serve(&lent, &mut Vec::new(), stage, &mut |places| {
        told = Some(attempts(application, &lent, places, stage, answers)?);
        Ok(())
    });
    match (served, told) {
        (Err(failure), _) => unproven(failure.chain()),
        (Ok(()), None) => unproven("the command was not run".to_owned()),
        (Ok(()), Some(Told::Failed(Ended { status, said, .. }))) => CheckOutcome {
            // What failed on what is there needs no proof that it can.
            canary_caught: Some(true),
            ..CheckOutcome::from_result(outcome(CheckState::Failed, status, said))
        },
        (Ok(()), Some(Told::Passed { took, doubts })) => {
            let what = if application.http.is_empty() { "status 0" } else { "answered as expected" };
            let measured = format!("{what} after {}", human::duration(took));
            let canary_caught = Some(doubts.is_empty());
            let own = answers.iter().filter(|all| all.application == application.name);
            let lines = doubts.into_iter().chain(own.map(Answers::line)).collect();
            CheckOutcome {
                canary_caught,
                ..CheckOutcome::from_result(outcome(CheckState::Passed, measured, lines))
            }
        }
    }
}

/// Makes all of them usable, one inside the other, and then works.
fn serve(
    lent: &[Lent<'_>],
    places: &mut Vec<PathBuf>,
    stage: &Stage<'_>,
    work: &mut dyn FnMut(&[PathBuf]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some((first, rest)) = lent.split_first() else { return work(places) };
    first.serve.serve(first.there.facts, first.artefact, stage.monitor, &mut |place| {
        places.push(place.to_owned());
        serve(rest, places, stage, work)
    })
}

/// How it went.
enum Told {
    /// With the reasons why it may have looked at nothing.
    Passed {
        took: Duration,
        doubts: Vec<String>,
    },
    Failed(Ended),
}

/// How a command ended that did not pass.
struct Ended {
    status: String,
    /// It ended by itself and said so by its status.
    by_itself: bool,
    said: Vec<String>,
}

/// Runs the command on everything, and if it passes once more without each of the stores.
fn attempts(
    application: &Application,
    lent: &[Lent<'_>],
    places: &[PathBuf],
    stage: &Stage<'_>,
    answers: &mut Vec<Answers>,
) -> Result<Told, Failure> {
    let variables = |missing: Option<usize>, nowhere: &Path| -> BTreeMap<&str, String> {
        let all = lent.iter().zip(places).enumerate().map(|(number, (lent, place))| {
            let at = if missing == Some(number) { nowhere } else { place };
            let shows = lent.there.facts.consistency.moment.to_string();
            let address = lent.serve.address(lent.there.facts, at);
            [(lent.need.address.as_str(), address), (lent.need.moment.as_str(), shows)]
        });
        all.flatten().collect()
    };
    let started = stage.clock.monotonic();
    let attempt = |number: usize, missing, heard: Option<&mut Vec<Answers>>| {
        // A folder and an empty place of its own for each: what one run leaves there is not the next one's.
        let scratch = stage.sandbox.folder(&format!(".{FAMILY}.{}.{number}", application.name))?;
        attempt_one(application, &variables(missing, &scratch.join(NOWHERE)), &scratch, stage, heard)
    };
    if let Err(ended) = attempt(0, None, Some(answers))? {
        return Ok(Told::Failed(ended));
    }
    let took = stage.clock.monotonic().saturating_sub(started);
    let mut doubts = Vec::new();
    for (number, lent) in lent.iter().enumerate() {
        stage.monitor.phase(&format!("trying {} without {}", application.name, lent.need.store), None);
        let store = &lent.need.store;
        match attempt(number + 1, Some(number), None)? {
            Ok(()) => doubts.push(format!("it passes without `{store}`")),
            Err(Ended { by_itself: true, .. }) => {}
            Err(Ended { status, .. }) => {
                doubts.push(format!("without `{store}` it does not end by its own word ({status})"));
            }
        }
    }
    if let Err(Ended { status, .. }) = attempt(lent.len() + 1, None, None)? {
        doubts.push(format!(
            "it does not pass a second time ({status}), so what it misses is not told from that"
        ));
    }
    Ok(Told::Passed { took, doubts })
}

/// The outer error means that nothing is known; the inner one is the command's, with what it said.
fn attempt_one(
    application: &Application,
    variables: &BTreeMap<&str, String>,
    scratch: &Path,
    stage: &Stage<'_>,
    heard: Option<&mut Vec<Answers>>,
) -> Result<Result<(), Ended>, Failure> {
    let mut command = command(application)?;
    command.env("HOME", scratch).env("TMPDIR", scratch).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.envs(variables).current_dir(&application.folder);
    let cancelled = || stage.monitor.cancelled();
    let came = if application.http.is_empty() {
        let how = Run { limit: application.within, clock: stage.clock, cancelled: &cancelled };
        run(command, &how).map(|_said| Ok(()))
    } else {
        questioned(application, command, (stage.clock, &cancelled), heard)?
    };
    match came {
        Ok(came) => Ok(came),
        Err(OutsideError::Program { status, code, message, .. }) => Ok(Err(Ended {
            status,
            by_itself: code.is_some_and(|code| (1..=SIGNALLED).contains(&code)),
            said: message.lines().map(str::to_owned).collect(),
        })),
        Err(OutsideError::Cancelled) => {
            Err(Failure::new(FailureKind::Refused, format!("trying {} was stopped", application.name)))
        }
        Err(error @ OutsideError::Io { .. }) => Err(not_run(application, error)),
    }
}

/// Lets it run and asks it: for `heard` often enough to be measured, else once.
fn questioned(
    application: &Application,
    mut command: Command,
    (clock, cancelled): (&dyn Clock, &dyn Fn() -> bool),
    heard: Option<&mut Vec<Answers>>,
) -> Result<Result<Result<(), Ended>, OutsideError>, Failure> {
    let name = &application.name;
    let place = Place::make(name).map_err(|error| no_place(name, error))?;
    command.env("HTTP_SOCKET", &place.socket);
    let times = if heard.is_some() { TIMES } else { 1 };
    let asking = Asking {
        application: name,
        subject: application.subject,
        questions: &application.http,
        socket: &place.socket,
        clock,
        within: application.within,
        cancelled,
        times,
    };
    let came = beside(command, clock, |runs| asking.ask(runs));
    if cancelled() {
        return Ok(Err(OutsideError::Cancelled));
    }
    Ok(came.map(|answers| {
        let ended = wrong(&answers, times).map(|(status, said)| {
            let by_itself = answers.iter().any(Answers::are_otherwise);
            Ended { status, by_itself, said }
        });
        if let Some(heard) = heard {
            heard.extend(answers);
        }
        ended.map_or(Ok(()), Err)
    }))
}

fn command(application: &Application) -> Result<Command, Failure> {
    apart::command(&application.command, application.network).ok_or_else(|| {
        let why = "this machine gives no network of its own to a command (unshare of util-linux, allowed by the \
                   kernel); `network = \"host\"` runs it on the machine's, where it can reach production";
        Failure::new(FailureKind::Refused, why)
    })
}

fn not_run(application: &Application, error: OutsideError) -> Failure {
    let what = format!("the command of {} could not be run", application.name);
    Failure::with_source(FailureKind::Internal, what, error)
}
