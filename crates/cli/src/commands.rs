//! From a parsed command line to the engine and back to the reader.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StoreName};
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_engine::{
    BackupOptions, DrillOptions, DrillReport, DrillVerdict, Endpoint, Engine, EngineError, Environment,
    FollowOptions, HoldRequest, PartOptions, ProofLevel, RestoreOptions, RestoreOutcome, RetainOptions,
    ShredRequest, VerifyOptions, keys,
};
use serde_json::json;

use crate::args::{
    Args, CatalogAction, Command, EvidenceAction, HoldAction, KeysAction, Level, ProbeAction, WalAction,
};
use crate::output::Output;
use crate::progress::Progress;
use crate::secrets::Secrets;
use crate::{demo, init, serve, show, stop};

pub(crate) mod archive;
mod evidence;

/// The worst thing found, if any; it decides the exit code.
pub(crate) type Outcome = Result<Option<FailureKind>, EngineError>;

/// Carries out one command.
pub(crate) fn run(args: Args, output: &Output) -> Outcome {
    match &args.command {
        Command::Init { dir } => init::run(dir, output),
        Command::Demo { dir } => demo::run(dir, output),
        Command::Keys { action: KeysAction::NewFile { path } } => new_key_file(path, output),
        Command::Evidence { action: EvidenceAction::Verify { dir: Some(dir), public_key } } => {
            evidence::verify(dir, public_key.as_deref(), output)
        }
        Command::Serve { once, alert } => {
            serve::run(&args, &serve::Options { once: *once, alert: alert.clone() }, output)
        }
        command => {
            let stop = match command {
                Command::Wal { action: WalAction::Stream { .. } }
                | Command::Drill { .. }
                | Command::Verify { level: Level::Restored, .. } => stop::on_signals()?,
                _ => Arc::default(),
            };
            run_with(args, output, stop)
        }
    }
}

/// Carries out a command that works by the policy; the work is asked to stop once `stop` is set.
pub(crate) fn run_with(args: Args, output: &Output, stop: Arc<AtomicBool>) -> Outcome {
    with_policy(&args, stop, output)
}

/// The environment the engine works in.
pub(crate) fn environment(base: &Path, clock: Arc<dyn Clock>) -> Environment {
    Environment {
        clock,
        entropy: Arc::new(OsEntropy),
        secrets: Arc::new(Secrets::new(base.to_owned())),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        user: rustix::process::geteuid().as_raw().to_string(),
        programs: program_folders(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
fn program_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect()
}

#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
fn policy_path(args: &Args) -> PathBuf {
    args.policy
        .clone()
        .or_else(|| std::env::var_os("LIFEBOAT_POLICY").filter(|path| !path.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("lifeboat.toml"))
}

pub(crate) fn load(args: &Args, stop: Arc<AtomicBool>) -> Result<Engine, EngineError> {
    let path = policy_path(args);
    let base = path.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let progress = Arc::new(Progress::new(!args.no_progress, stop));
    Engine::load(&path, environment(base, Arc::new(SystemClock::new())), progress)
}

fn with_policy(args: &Args, stop: Arc<AtomicBool>, output: &Output) -> Outcome {
    let engine = load(args, stop)?;
    match &args.command {
        Command::Check => {
            let report = engine.check()?;
            output.result(&report, || show::check::page(&report))?;
            Ok(report.worst())
        }
        Command::Inventory => {
            let report = engine.inventory();
            output.result(&report, || show::inventory::page(&report))?;
            Ok((!report.findings.is_empty()).then_some(FailureKind::Findings))
        }
        Command::Explain { store } => explain(&engine, store, output),
        Command::Status { stores, markdown } => {
            let report = engine.status(stores)?;
            output.result(&report, || {
                if *markdown {
                    show::status::markdown(&report)
                } else {
                    show::status::page(&report, output.colour, args.verbose)
                }
            })?;
            Ok(report.worst())
        }
        Command::Points { stores } => {
            let reports = engine.points(stores)?;
            match (output.json(), reports.as_slice()) {
                (true, [only]) => output.result(only, String::new)?,
                _ => output.result(&show::points::document(&reports), || {
                    show::points::page(&reports, output.colour)
                })?,
            }
            Ok(reports.iter().find_map(lifeboat_engine::PointsReport::worst))
        }
        Command::Audit => {
            let report = engine.audit()?;
            output.result(&report, || show::audit::page(&report))?;
            Ok(report.worst())
        }
        Command::Retain { stores, apply, plan, grace, today } => {
            let options = RetainOptions { apply: *apply, plan: plan.clone(), grace: *grace, today: *today };
            let report = engine.retain(stores, &options)?;
            output.result(&report, || show::retain::page(&report))?;
            Ok(report.worst())
        }
        Command::Probe { index, board, action } => {
            probe(&engine, (index.as_ref(), board.as_deref()), action.as_ref(), output)
        }
        Command::Hold { action } => hold(&engine, action, output),
        Command::Shred { store, confirm, reason, by } => {
            let report = engine.shred(&ShredRequest {
                store: store.clone(),
                confirm: confirm.clone(),
                reason: reason.clone(),
                by: by.clone(),
            })?;
            output.result(&report, || show::shred::page(&report))?;
            Ok(report.worst())
        }
        Command::Evidence { action } => evidence::run(&engine, action, output),
        Command::Keys { action } => keys_action(&engine, action, output),
        Command::Catalog { action: CatalogAction::Rebuild } => {
            let report = engine.rebuild_catalog()?;
            output.result(&report, || show::jobs::rebuild(&report))?;
            Ok(report.worst())
        }
        _ => work(args, &engine, output),
    }
}

/// Into a folder, a file, or a running server.
fn restored(engine: &Engine, options: &RestoreOptions) -> Result<RestoreOutcome, EngineError> {
    match options.target.to_str().and_then(Endpoint::of_argument) {
        Some(Ok(place)) => engine.restore_into_server(options, &place),
        Some(Err(invalid)) => {
            Err(EngineError::new(FailureKind::Usage, invalid.to_string()).next(invalid.help()))
        }
        None => engine.restore(options),
    }
}

/// The commands that capture, read or restore data.
fn work(args: &Args, engine: &Engine, output: &Output) -> Outcome {
    match &args.command {
        Command::Backup { stores, jobs, heal } => {
            let report = engine.backup(stores, &BackupOptions { jobs: *jobs, heal: *heal })?;
            output.result(&report, || show::jobs::backup(&report))?;
            Ok(report.worst())
        }
        Command::Restore {
            store,
            to,
            at,
            copy,
            skip_checks,
            database,
            tables,
            tablespace,
            bump_revision,
            delta,
            force,
            merge,
        } => {
            let part = database.clone().map(|database| PartOptions { database, tables: tables.clone() });
            let options = RestoreOptions {
                at: at.clone(),
                copy: copy.clone(),
                skip_checks: *skip_checks,
                part,
                tablespaces: tablespace.clone(),
                bump_revision: *bump_revision,
                delta: *delta,
                force: *force,
                merge: merge.options(),
                ..RestoreOptions::new(store.clone(), to.clone())
            };
            let outcome = restored(engine, &options)?;
            output.result(&outcome, || show::jobs::restore(&outcome))?;
            Ok(outcome.worst())
        }
        Command::Verify { stores, level: Level::Restored, copy } => {
            let options = drill_options(None, copy.clone(), false);
            drilled(&engine.drill(stores, &options)?, args.verbose, output)
        }
        Command::Verify { stores, level, copy } => {
            let options = VerifyOptions { level: ProofLevel::from(*level), copy: copy.clone() };
            let report = engine.verify(stores, &options)?;
            output.result(&report, || show::jobs::verify(&report))?;
            Ok(report.worst())
        }
        Command::Drill { plan: Some(plan), .. } => {
            drilled(&engine.drill_planned(plan)?, args.verbose, output)
        }
        Command::Drill { due: true, .. } => due_drills(engine, args.verbose, output),
        Command::Drill { stores, all, at, copy, baseline, .. } => {
            let options = drill_options(at.clone(), copy.clone(), *baseline);
            drilled(&drill(engine, stores, *all, &options)?, args.verbose, output)
        }
        Command::Wal { action: WalAction::Stream { store, once, spool_limit } } => {
            let options = FollowOptions { once: *once, spool_limit_bytes: spool_limit.map(|mib| mib << 20) };
            let report = engine.follow_log(store, options)?;
            output.result(&report, || show::jobs::follow(&report))?;
            Ok(report.worst())
        }
        Command::Wal { action: WalAction::Push { path, store } } => {
            archive::push(engine, path, store.as_ref(), output)
        }
        Command::Wal { action: WalAction::Ahead { name, store, copy } } => {
            archive::ahead(engine, name, store.as_ref(), copy.as_ref())
        }
        _ => Err(EngineError::new(FailureKind::Internal, "this command has no way to run")),
    }
}

fn drill_options(at: Option<String>, copy: Option<CopyName>, baseline: bool) -> DrillOptions {
    DrillOptions { at, copy, baseline, ..DrillOptions::default() }
}

fn drill(
    engine: &Engine,
    stores: &[StoreName],
    all: bool,
    options: &DrillOptions,
) -> Result<DrillReport, EngineError> {
    if stores.is_empty() && !all {
        return Err(EngineError::new(FailureKind::Usage, "a drill needs stores")
            .next("name them, or say --all for every store of the policy"));
    }
    engine.drill(stores, options)
}

fn drilled(report: &DrillReport, verbose: bool, output: &Output) -> Outcome {
    output.result(report, || show::drill::page(report, verbose))?;
    Ok(worst(report))
}

/// Every planned drill that is due. One that cannot be run is told like one that failed, and the others still run.
fn due_drills(engine: &Engine, verbose: bool, output: &Output) -> Outcome {
    let due = engine.due_drills()?;
    let (mut reports, mut impossible, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for plan in &due {
        match engine.drill_planned(plan) {
            Ok(report) => {
                kinds.extend(worst(&report));
                reports.push(report);
            }
            Err(error) => {
                kinds.push(error.kind());
                impossible.push((plan, error.failure.chain()));
            }
        }
    }
    let told: Vec<_> = impossible.iter().map(|(plan, why)| json!({ "plan": plan, "error": why })).collect();
    let document = json!({ "schema": "lifeboat.due-drills/v1", "drills": reports, "impossible": told });
    output.result(&document, || {
        let mut pages: Vec<String> =
            reports.iter().map(|report| show::drill::page(report, verbose)).collect();
        pages.extend(impossible.iter().map(|(plan, why)| format!("{plan} could not be run: {why}\n")));
        if due.is_empty() {
            pages.push("no planned drill is due".to_owned());
        }
        pages.join("\n")
    })?;
    Ok(kinds.into_iter().max_by_key(|kind| kind.exit_code()))
}

/// What a drill ends the command with.
fn worst(report: &DrillReport) -> Option<FailureKind> {
    let failed = report.verdict == DrillVerdict::Failed;
    let damaged = report.findings.iter().any(|finding| finding.kind == FailureKind::Damaged);
    match (failed, damaged) {
        (false, _) => None,
        (true, true) => Some(FailureKind::Damaged),
        (true, false) => Some(FailureKind::Findings),
    }
}

fn explain(engine: &Engine, store: &StoreName, output: &Output) -> Outcome {
    let lines = lifeboat_engine::policy::explain(engine.policy(), store).ok_or_else(|| {
        let known: Vec<&str> = engine.policy().stores.keys().map(StoreName::as_str).collect();
        EngineError::new(FailureKind::Usage, format!("the policy has no store `{store}`"))
            .next(format!("name one of: {}", known.join(", ")))
    })?;
    let document = json!({
        "schema": "lifeboat.explain/v1",
        "store": store,
        "promises": lines.iter().map(|line| json!({
            "promise": line.promise, "value": line.value, "origin": line.origin.to_string(),
        })).collect::<Vec<_>>(),
    });
    output.result(&document, || show::check::explain(store, &lines))?;
    Ok(None)
}

fn probe(
    engine: &Engine,
    (index, board): (Option<&StoreName>, Option<&Path>),
    action: Option<&ProbeAction>,
    output: &Output,
) -> Outcome {
    let report = match (action, index) {
        (Some(ProbeAction::Draft { index, count }), _) => engine.probe_draft(index, *count)?,
        (Some(ProbeAction::Curate { index }), _) => engine.probe_curate(index)?,
        (Some(ProbeAction::Baseline { index }), _) => engine.probe_baseline(index)?,
        (None, Some(index)) => engine.probe(index, board)?,
        (None, None) => return Err(EngineError::new(FailureKind::Usage, "no index was named")),
    };
    output.result(&report, || show::probe::page(&report))?;
    Ok(report.worst())
}

fn hold(engine: &Engine, action: &HoldAction, output: &Output) -> Outcome {
    let report = match action {
        HoldAction::Add { store, point, before, reason, holder } => engine.place_hold(&HoldRequest {
            store: store.clone(),
            point: point.clone(),
            before: before.clone(),
            reason: reason.clone(),
            holder: holder.clone(),
        })?,
        HoldAction::List { stores } => engine.list_holds(stores)?,
        HoldAction::Release { id, reason, by } => engine.release_hold(id, reason, by)?,
    };
    output.result(&report, || show::holds::page(&report))?;
    Ok(report.worst())
}

fn keys_action(engine: &Engine, action: &KeysAction, output: &Output) -> Outcome {
    match action {
        KeysAction::Password { store, copy } => {
            let password = engine.repository_password(store, copy)?;
            // The one place where a secret is printed: it was asked for by name, for restic's --password-command.
            crate::output::line(password.expose())?;
            Ok(None)
        }
        KeysAction::NewFile { path } => new_key_file(path, output),
    }
}

fn new_key_file(path: &Path, output: &Output) -> Outcome {
    let key = keys::generate_key_file(&OsEntropy);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made =
        crashsafe::create_dir_all(folder).and_then(|()| crashsafe::write_new(path, key.expose().as_bytes()));
    made.map_err(|error| {
        let what = format!("failed to make the key file {}", path.display());
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::with_source(FailureKind::Refused, what, error),
            _ => Failure::io(what, error),
        }
    })?;
    output.result(&json!({ "schema": "lifeboat.key-file/v1", "path": path }), || {
        format!(
            "made {}; name it under [keys] as `keyfile:{}` and keep a copy apart",
            path.display(),
            path.display()
        )
    })?;
    Ok(None)
}
