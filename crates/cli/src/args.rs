//! The command line contract: names and meanings are stable.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use lifeboat_base::ids::{CopyName, HoldId, PlanName, PointId, StoreName};
use lifeboat_engine::{Conflict, MergeOptions, ProofLevel};

/// Backup, restore proof and disaster-recovery rehearsal for every datastore, driven by one policy file.
#[derive(Clone, Debug, Parser)]
#[command(name = "lifeboat", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 promise kept, 1 internal failure, 2 usage or invalid policy, 3 refused and \
nothing changed,\n4 a store or copy is unreachable, 5 finished with findings, 6 data damaged or not decryptable."
)]
pub(crate) struct Args {
    /// The policy file; without it $LIFEBOAT_POLICY or ./lifeboat.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// One JSON document on standard output; text for people goes to standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// Say more: every check, every copy
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a first policy for what is found in this folder, and the key to open its vaults
    Init {
        /// The folder to look through and to write into; `postgres` and `etcd` print what prepares a server
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Run the whole loop on generated stores: back up, damage, verify, drill, restore, show
    Demo {
        /// Where to leave everything; an earlier demo there is replaced
        #[arg(long, default_value = "lifeboat-demo")]
        dir: PathBuf,
    },
    /// Validate the policy and reach every store, copy and secret; changes nothing
    Check,
    /// List the stores that applications and this machine know of, and the row that covers each
    Inventory,
    /// Show the effective promises of a store and where each comes from
    Explain {
        /// The store
        store: StoreName,
    },
    /// Show the live matrix: which promise holds now, which does not, and why
    Status {
        /// Only these stores
        stores: Vec<StoreName>,
        /// As a Markdown table
        #[arg(long, conflicts_with = "json")]
        markdown: bool,
    },
    /// Capture stores now, into every copy
    Backup {
        /// Only these stores
        stores: Vec<StoreName>,
        /// Stores at the same time
        #[arg(long, default_value_t = 2, value_name = "N")]
        jobs: usize,
        /// Fill copies again that held recovery points before and are empty now
        #[arg(long)]
        heal: bool,
    },
    /// List recovery points and restorable ranges
    Points {
        /// Only these stores
        stores: Vec<StoreName>,
    },
    /// Show which recovery points retention keeps, for which reasons, and which may go; with --apply, remove them
    Retain {
        /// Only these stores
        stores: Vec<StoreName>,
        /// Remove what may go from every copy, for good
        #[arg(long)]
        apply: bool,
        /// Only if the plan is still the one that was shown under this name, or beginning of it
        #[arg(long, value_name = "DIGEST", requires = "apply", value_parser = plan)]
        plan: Option<String>,
        /// How long space of dropped points waits before it is freed, such as 12h or 0s [default: 1d]
        #[arg(long, value_name = "SPAN", value_parser = grace)]
        grace: Option<Duration>,
        /// The day it is, such as 2026-11-21: believe the clock although nothing was captured for long
        #[arg(long, value_name = "DATE")]
        today: Option<jiff::civil::Date>,
    },
    /// Ask a live vector index the questions of its gold set, and make such a set
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Probe {
        /// The index
        #[arg(required = true)]
        index: Option<StoreName>,
        /// Write every row of the board to this file too: .csv for people, .jsonl for machines
        #[arg(long, value_name = "FILE")]
        board: Option<PathBuf>,
        /// What to do instead
        #[command(subcommand)]
        action: Option<ProbeAction>,
    },
    /// Legal holds: what they cover stays, whatever retention says
    Hold {
        /// What to do
        #[command(subcommand)]
        action: HoldAction,
    },
    /// Destroy every key of a store's vault in every copy: nothing of it can ever be read again
    Shred {
        /// The store
        store: StoreName,
        /// Its name once more; this cannot be undone
        #[arg(long, value_name = "STORE")]
        confirm: String,
        /// Why
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
        /// By whom
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        by: String,
    },
    /// Restore a store into a new folder or over an earlier state of it, or one database or table of it into a file
    Restore {
        /// The store
        store: StoreName,
        /// The folder to make; without --delta or --force it must not exist or be empty. With --database, the
        /// file to make. For a store of kind redis also an empty server: redis://HOST:PORT, rediss://…, unix:///PATH, or the
        /// place of its address, such as env:NAME
        #[arg(long, value_name = "TARGET")]
        to: PathBuf,
        /// A moment ("2026-11-21 02:00", "yesterday 21:00", "5 minutes ago") or a recovery point id; with a log also
        /// `latest`, a position (16/B374D848), `name:RESTORE-POINT` or `xid:NUMBER`
        #[arg(long, value_name = "TIME|POINT")]
        at: Option<String>,
        /// Only from this copy
        #[arg(long)]
        copy: Option<CopyName>,
        /// Do not run the store's checks on the restored content before publishing it
        #[arg(long)]
        skip_checks: bool,
        /// Only this database, as an archive for `pg_restore`, or as SQL if TARGET ends in `.sql`
        #[arg(long, value_name = "DB")]
        database: Option<String>,
        /// Only this table of it, by its exact name, such as public.orders; may be given several times
        #[arg(long = "table", value_name = "SCHEMA.TABLE", requires = "database")]
        tables: Vec<String>,
        /// Where a tablespace of a cluster comes to lie, a new or empty folder; may be said several times. The others come to
        /// lie inside the target
        #[arg(long, value_name = "NAME|OID=PATH", value_parser = tablespace, conflicts_with = "database")]
        tablespace: Vec<(String, PathBuf)>,
        /// Raise the revision of an etcd by this much and mark everything before as compacted, so that watchers start again;
        /// Kubernetes needs it
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "database")]
        bump_revision: Option<u64>,
        /// Change a stopped cluster in the target into the one asked for: only what differs is fetched and written
        #[arg(long, conflicts_with = "database")]
        delta: bool,
        /// Replace what is in the target although it is something else; never what is in use
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        merge: MergeArgs,
    },
    /// Read what is stored and prove it
    Verify {
        /// Only these stores
        stores: Vec<StoreName>,
        /// How far to go
        #[arg(long, value_enum, default_value_t = Level::Readable)]
        level: Level,
        /// Only this copy
        #[arg(long)]
        copy: Option<CopyName>,
    },
    /// Rehearse a loss: restore into a sandbox, check, measure, file evidence, tear down
    Drill {
        /// Only these stores
        stores: Vec<StoreName>,
        /// Every store of the policy
        #[arg(long, conflicts_with = "stores")]
        all: bool,
        /// The moment of the imagined disaster, or a recovery point id
        #[arg(long, value_name = "TIME|POINT")]
        at: Option<String>,
        /// Only from this copy
        #[arg(long)]
        copy: Option<CopyName>,
        /// As the policy plans it under `[drill.NAME]`
        #[arg(long, value_name = "NAME", conflicts_with_all = ["stores", "all", "at", "copy"])]
        plan: Option<PlanName>,
        /// Every planned drill that is due, that failed or that never ran
        #[arg(long, conflicts_with_all = ["stores", "all", "at", "copy", "plan"])]
        due: bool,
        /// Record how fast applications answer, for later drills to be compared with
        #[arg(long, conflicts_with_all = ["at", "copy", "plan", "due"])]
        baseline: bool,
    },
    /// Do what is due when it is due, follow logs, and tell when a promise breaks or holds again
    Serve {
        /// Do what is due now, and end
        #[arg(long)]
        once: bool,
        /// A program that gets every change of a promise as JSON on its standard input
        #[arg(long, value_name = "PROGRAM")]
        alert: Option<PathBuf>,
    },
    /// The continuous log of a store
    Wal {
        /// What to do with it
        #[command(subcommand)]
        action: WalAction,
    },
    /// What does not hold or is not shown to, what closes each gap, and the order after a loss
    Audit,
    /// Verify, export or show the evidence
    Evidence {
        /// What to do with it
        #[command(subcommand)]
        action: EvidenceAction,
    },
    /// Keys that open vaults
    Keys {
        /// What to do
        #[command(subcommand)]
        action: KeysAction,
    },
    /// The index of recovery points on this machine
    Catalog {
        /// What to do
        #[command(subcommand)]
        action: CatalogAction,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum WalAction {
    /// Follow the log and bring it to every copy, until it is told to stop (SIGTERM or SIGINT)
    Stream {
        /// The store
        store: StoreName,
        /// End as soon as everything the store has now is in every copy
        #[arg(long)]
        once: bool,
        /// The most log that waits here for a copy that is away, in MiB [default: 16384]; beyond it the store keeps it
        #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
        spool_limit: Option<u64>,
    },
    /// Keep one file of the log: `archive_command = 'lifeboat --policy FILE wal push %p'`
    Push {
        /// The file, under the name its server gave it
        path: PathBuf,
        /// The store, where several rows keep a log
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
    },
    /// Give one file of the log back: `restore_command = 'lifeboat --policy FILE wal fetch %f %p'`
    #[command(
        after_help = "Exit codes, as a recovering server reads them: 0 the file is there, 1 neither it nor anything \
after it is kept,\n201 to 206 the recovery must stop: 200 and the code this failure has in other commands."
    )]
    Fetch {
        /// The name of the file
        name: String,
        /// Where to put it
        path: PathBuf,
        /// The store, where several rows keep a log
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
        /// Only from this copy: what it lacks counts as not kept
        #[arg(long, value_name = "NAME")]
        copy: Option<CopyName>,
    },
    /// Fetch the segments after NAME before they are asked for; `wal fetch` starts it
    #[command(hide = true)]
    Ahead {
        name: String,
        #[arg(long)]
        store: Option<StoreName>,
        #[arg(long)]
        copy: Option<CopyName>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum EvidenceAction {
    /// Check every record: edited, dropped, reordered or inserted ones are named. Needs no policy with --dir
    Verify {
        /// A chain, an exported bundle, or the one file of a bundle; without it the chain of the policy
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The key to trust (`ed25519:…` or a file that holds it); without it the one in the folder
        #[arg(long, value_name = "KEY|FILE")]
        public_key: Option<String>,
    },
    /// Write a bundle that an outsider can verify offline: the whole chain, or one drill with a report for people
    Export {
        /// The drill, or `last`; without it everything
        #[arg(value_name = "DRILL")]
        drill: Option<String>,
        /// The folder to make; a name that ends in `.tar` makes one file
        #[arg(long)]
        to: PathBuf,
    },
    /// List the records, or show one
    Show {
        /// The number of a record
        record: Option<u64>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ProbeAction {
    /// Draft questions from the texts of the index, for a person to read; the same index gives the same drafts
    Draft {
        /// The index
        index: StoreName,
        /// Drafts at most; of them, some half is let in
        #[arg(long, default_value_t = 200, value_name = "N")]
        count: usize,
    },
    /// Let in the drafts that the index answers, and freeze them; nothing is written where the set lacks something
    Curate {
        /// The index
        index: StoreName,
    },
    /// Measure the board that later ones are compared with
    Baseline {
        /// The index
        index: StoreName,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum HoldAction {
    /// Place a hold in every copy: on everything of a store, on one point, or on all that shows a moment up to one
    Add {
        /// The store
        #[arg(long, value_name = "NAME")]
        store: StoreName,
        /// Only this recovery point
        #[arg(long, value_name = "POINT", conflicts_with = "before")]
        point: Option<PointId>,
        /// Only points up to this moment, and the log ("2026-11-21 02:00", "yesterday 21:00")
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
        /// Why
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
        /// For whom
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        holder: String,
    },
    /// List holds, released ones too
    List {
        /// Only of these stores
        stores: Vec<StoreName>,
    },
    /// Release a hold: what only it kept may go with the next retention
    Release {
        /// The hold
        id: HoldId,
        /// Why
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
        /// By whom
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        by: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Print the repository password of a vault, for `restic --password-command`
    Password {
        /// The store
        store: StoreName,
        /// The copy
        #[arg(long)]
        copy: CopyName,
    },
    /// Make a key file that can be named as a recipient
    NewFile {
        /// The file to make
        path: PathBuf,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CatalogAction {
    /// Make the index again from the vaults and the evidence
    Rebuild,
}

/// At least eight of the digits a plan is shown with.
fn plan(text: &str) -> Result<String, String> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if digits && (8..=64).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("give at least 8 of the digits that `lifeboat retain` shows behind `plan`".to_owned())
}

fn grace(text: &str) -> Result<Duration, String> {
    if ["0", "0s"].contains(&text) {
        return Ok(Duration::ZERO);
    }
    let span: lifeboat_engine::policy::Span = text.parse().map_err(|error| format!("{error}"))?;
    Ok(span.approx())
}

fn renamed(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(old, new)| (old.to_owned(), new.to_owned()))
        .ok_or_else(|| "say OLD=NEW, such as app:=restored:".to_owned())
}

/// Keys into a running server beside what is there.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// Into a running Redis beside what is there: only keys whose names begin like this
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["database", "delta"])]
    prefix: Option<String>,
    /// The same: only keys whose names begin with OLD, under names that begin with NEW instead
    #[arg(long, value_name = "OLD=NEW", value_parser = renamed, conflicts_with_all = ["database", "delta"])]
    rename_prefix: Option<(String, String)>,
    /// The same: what becomes of keys that are there with other content. `fail`, the default, changes nothing if there are any
    #[arg(long, value_enum, conflicts_with_all = ["database", "delta"])]
    conflict: Option<OnConflict>,
}

impl MergeArgs {
    /// Nothing where none of it is said.
    pub(crate) fn options(&self) -> Option<MergeOptions> {
        let said = self.prefix.is_some() || self.rename_prefix.is_some() || self.conflict.is_some();
        said.then(|| MergeOptions {
            prefix: self.prefix.clone().unwrap_or_default(),
            rename: self.rename_prefix.clone(),
            conflict: self.conflict.map_or(Conflict::Fail, Conflict::from),
        })
    }
}

/// What becomes of keys that are there already.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OnConflict {
    /// Nothing is changed
    Fail,
    /// They stay as they are
    Skip,
    /// They are replaced
    Replace,
}

impl From<OnConflict> for Conflict {
    fn from(way: OnConflict) -> Self {
        match way {
            OnConflict::Fail => Self::Fail,
            OnConflict::Skip => Self::Skip,
            OnConflict::Replace => Self::Replace,
        }
    }
}

/// `NAME=PATH` with an absolute path; a name may hold `=` as well.
fn tablespace(text: &str) -> Result<(String, PathBuf), String> {
    match text.find("=/") {
        Some(at) if at > 0 => {
            let (name, path) = text.split_at(at);
            Ok((name.to_owned(), PathBuf::from(&path[1..])))
        }
        _ => Err("say NAME=/absolute/path or OID=/absolute/path".to_owned()),
    }
}

/// How far a verification goes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    /// Hash every stored file
    Checksummed,
    /// Decrypt and hash every chunk as well
    Readable,
    /// Restore the newest point of each store into a sandbox and check it
    Restored,
}

impl From<Level> for ProofLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Checksummed => Self::Checksummed,
            Level::Readable => Self::Readable,
            Level::Restored => Self::Restored,
        }
    }
}
