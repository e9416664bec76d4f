//! `lifeboat serve`: does what is due when it is due, follows logs, and tells when a promise breaks or holds again.
//!
//! Every task is the command that a person would type, so it files, refuses and is killed as that one is. Captures and retention
//! have one lane, proofs another: a drill of hours delays no capture. The policy is read anew for each look at what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Scope;
use std::time::Duration;

use clap::Parser;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::StoreName;
use lifeboat_base::time::{Clock, SystemClock, Timestamp};
use lifeboat_engine::{Agenda, Due, EngineError, PromiseState, Task};
use serde::Serialize;

use crate::args::Args;
use crate::commands::{self, Outcome};
use crate::output::{Output, note};
use crate::{fault, stop};

/// How soon a signal is noticed.
const POLL: Duration = Duration::from_millis(250);
/// What is due and what holds is looked at this often, whenever a task ended, and on SIGHUP.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// No task begins again sooner, whatever became of it.
const NOT_BEFORE: Duration = Duration::from_secs(60);
/// Ends of tasks that wait to be read, at most.
const MAX_ENDS: usize = 64;

/// How it serves.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Only what is due now.
    pub(crate) once: bool,
    /// Gets each change as JSON on its standard input.
    pub(crate) alert: Option<PathBuf>,
}

/// A promise that changed, in the shape `lifeboat.alert/v1`.
#[derive(Clone, Debug, Serialize)]
struct Change {
    store: String,
    promise: String,
    from: Option<PromiseState>,
    to: PromiseState,
    reason: String,
}

#[derive(Serialize)]
struct Alert<'a> {
    schema: &'static str,
    at: Timestamp,
    changes: &'a [Change],
}

/// A store and a promise of its row.
type Cell = (String, String);
type States = BTreeMap<Cell, PromiseState>;

struct Server<'a> {
    args: &'a Args,
    options: &'a Options,
    output: &'a Output,
    stop: Arc<AtomicBool>,
    /// Somebody asks to look at once.
    look: Arc<AtomicBool>,
    clock: SystemClock,
}

/// Serves until it is told to stop, or once.
pub(crate) fn run(args: &Args, options: &Options, output: &Output) -> Outcome {
    let (stop, look) = (stop::on_signals()?, stop::on_hangup()?);
    let server = Server { args, options, output, stop, look, clock: SystemClock::new() };
    // What is wrong with the policy is told at once.
    let agenda = server.agenda()?;
    if options.once { server.once(agenda) } else { server.forever() }
}

/// Proofs have a lane of their own.
fn lane(task: &Task) -> usize {
    usize::from(!matches!(task, Task::Backup { .. } | Task::Retain { .. }))
}

impl Server<'_> {
    fn agenda(&self) -> Result<Agenda, EngineError> {
        commands::load(self.args, Arc::clone(&self.stop))?.agenda()
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Does everything that is due, and what comes to be due by it, each once.
    fn once(&self, mut agenda: Agenda) -> Outcome {
        let (mut done, mut worst) = (BTreeSet::new(), None);
        let mut states = self.states()?;
        while let Some(Due { task, .. }) = agenda.due.iter().find(|due| !done.contains(&due.task)).cloned() {
            if self.stopping() {
                break;
            }
            let ended = self.command(&task.arguments());
            worst = worst.into_iter().chain(ended).max_by_key(|kind| kind.exit_code());
            self.compare(&mut states);
            done.insert(task);
            agenda = self.agenda()?;
        }
        Ok(worst)
    }

    /// Runs a command as if it had been typed; gives what its exit code says.
    fn command(&self, arguments: &[String]) -> Option<FailureKind> {
        note(&format!("{}: lifeboat {}", self.clock.now().strftime("%F %T"), arguments.join(" ")));
        let outcome =
            Args::try_parse_from(["lifeboat"].into_iter().chain(arguments.iter().map(String::as_str)))
                .map_err(|error| EngineError::from(Failure::new(FailureKind::Internal, error.to_string())))
                .and_then(|parsed| {
                    let own = Args { command: parsed.command, no_progress: true, ..self.args.clone() };
                    commands::run_with(own, self.output, Arc::clone(&self.stop))
                });
        match outcome {
            Ok(worst) => worst,
            Err(error) => {
                fault::print(&error, self.output);
                Some(error.kind())
            }
        }
    }

    fn forever(&self) -> Outcome {
        let (ends, ended) = sync_channel(MAX_ENDS);
        let mut states = self.states()?;
        std::thread::scope(|scope| {
            let mut work =
                Work { tried: BTreeMap::new(), running: BTreeSet::new(), followed: BTreeSet::new() };
            let mut looked: Option<Duration> = None;
            while !self.stopping() {
                let now = self.clock.monotonic();
                let asked = self.look.swap(false, Ordering::AcqRel);
                if asked || looked.is_none_or(|looked| now >= looked + LOOK_EVERY) {
                    looked = Some(now);
                    self.compare(&mut states);
                    self.begin(scope, &mut work, &ends);
                }
                if let Ok(task) = ended.recv_timeout(POLL) {
                    work.running.remove(&task);
                    work.tried.insert(task, self.clock.monotonic());
                    looked = None;
                }
            }
        });
        Ok(None)
    }

    /// Begins what is due and has a free lane, and follows logs that are not followed yet.
    fn begin<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        work: &mut Work,
        ends: &SyncSender<Task>,
    ) {
        let agenda = match self.agenda() {
            Ok(agenda) => agenda,
            Err(error) => return fault::print(&error, self.output),
        };
        let now = self.clock.monotonic();
        for Due { task, .. } in agenda.due {
            let rests = work.tried.get(&task).is_some_and(|ended| now < *ended + NOT_BEFORE);
            // One run has a store at a time.
            let taken = |other: &Task| {
                lane(other) == lane(&task) || (task.store().is_some() && other.store() == task.store())
            };
            if rests || work.running.iter().any(taken) {
                continue;
            }
            work.running.insert(task.clone());
            let ends = ends.clone();
            scope.spawn(move || {
                let _told = self.command(&task.arguments());
                // Nobody listens any more once it stops.
                drop(ends.send(task));
            });
        }
        for store in agenda.follow {
            if work.followed.insert(store.clone()) {
                scope.spawn(move || self.follow(&store));
            }
        }
    }

    /// Follows a log for as long as this serves; what ended it is told, and it is begun again.
    fn follow(&self, store: &StoreName) {
        let arguments = ["wal", "stream", store.as_str()].map(str::to_owned);
        let (_kept, never) = sync_channel::<()>(1);
        while !self.stopping() {
            let _told = self.command(&arguments);
            let until = self.clock.monotonic() + NOT_BEFORE;
            while !self.stopping() && self.clock.monotonic() < until && never.recv_timeout(POLL).is_err() {}
        }
    }

    fn states(&self) -> Result<States, EngineError> {
        Ok(self.promises()?.into_iter().map(|(key, (state, _reason))| (key, state)).collect())
    }

    fn promises(&self) -> Result<BTreeMap<Cell, (PromiseState, String)>, EngineError> {
        let report = commands::load(self.args, Arc::default())?.status(&[])?;
        let of = |store: lifeboat_engine::StoreStatus| {
            let name = store.name.to_string();
            store
                .promises
                .into_iter()
                .map(move |cell| ((name.clone(), cell.promise.word().to_owned()), (cell.state, cell.reason)))
        };
        Ok(report.stores.into_iter().flat_map(of).collect())
    }

    /// Tells what broke and what holds again since it was looked at last.
    fn compare(&self, known: &mut States) {
        let now = match self.promises() {
            Ok(now) => now,
            Err(error) => return fault::print(&error, self.output),
        };
        let mut changes = Vec::new();
        for ((store, promise), (state, reason)) in now {
            let from = known.insert((store.clone(), promise.clone()), state);
            let broke = state == PromiseState::Broken && from != Some(PromiseState::Broken);
            let mended = from == Some(PromiseState::Broken) && state != PromiseState::Broken;
            if broke || mended {
                note(&format!(
                    "{}: {promise} of `{store}`: {reason}",
                    if broke { "BROKEN" } else { "no longer broken" }
                ));
                changes.push(Change { store, promise, from, to: state, reason });
            }
        }
        if let (Some(program), false) = (&self.options.alert, changes.is_empty()) {
            let alert = Alert { schema: "lifeboat.alert/v1", at: self.clock.now(), changes: &changes };
            if let Err(failure) = tell(program, &alert) {
                note(&format!("error: the alert was not taken: {}", failure.chain()));
            }
        }
    }
}

/// What is under way.
struct Work {
    /// When a task ended last.
    tried: BTreeMap<Task, Duration>,
    running: BTreeSet<Task>,
    followed: BTreeSet<StoreName>,
}

/// Hands an alert to a program.
fn tell(program: &Path, alert: &Alert<'_>) -> Result<(), Failure> {
    let failed = |error| Failure::io(format!("failed to run {}", program.display()), error);
    let text = serde_json::to_vec(alert)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to write an alert", error))?;
    let mut child =
        Program::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Findings, format!("{} ended with {status}", program.display())))
}
