//! What a valid policy says, after every row has been resolved against its tier and the defaults.

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;
use lifeboat_base::ids::{AgreementName, ApplicationName, CopyName, PlanName, StoreName, TierName};
use lifeboat_base::secret::SecretRef;

use crate::kind::Kind;
use crate::mask;
use crate::problem::Problem;
use crate::retention::Retention;
use crate::schedule::Schedule;
use crate::span::Span;
use crate::value::InvalidValue;

/// A policy without errors. Paths are as written: relative ones start at the folder of the policy file.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The version of the file format; 1.
    pub version: u32,
    /// The zone of every schedule, day, week and month.
    pub timezone: TimeZone,
    /// Its IANA name.
    pub timezone_name: String,
    /// The folder of the catalog, the evidence chain and the spool.
    pub state: String,
    /// Who can open the vaults.
    pub keys: Keys,
    /// The places where vaults live.
    pub copies: BTreeMap<CopyName, CopyPlace>,
    /// The tiers as written; rows have already been resolved against them.
    pub tiers: BTreeMap<TierName, Tier>,
    /// The rows of the matrix.
    pub stores: BTreeMap<StoreName, Store>,
    /// What stores must say of each other when they show one moment.
    pub agreements: BTreeMap<AgreementName, Agreement>,
    /// What applications must be able to do on restored stores.
    pub applications: BTreeMap<ApplicationName, Application>,
    /// The drills that are due again and again.
    pub drills: BTreeMap<PlanName, DrillPlan>,
    /// Where stores are looked for that no row covers.
    pub inventory: Option<Inventory>,
    /// What is allowed but probably not meant, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// The `[inventory]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Whether the servers of this machine are looked at.
    pub machine: bool,
    /// Folders below which there may be databases that are files, as written.
    pub folders: Vec<String>,
    /// Files in which applications are told where their stores are, as written.
    pub files: Vec<String>,
    /// What needs no row, as it is shown, and why not.
    pub known: BTreeMap<String, String>,
}

/// The `[keys]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// At least one when any store is retained.
    pub recipients: Vec<Recipient>,
}

/// Who can open a vault. Printing one is safe: it names a place, never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A passphrase kept elsewhere.
    Passphrase(SecretRef),
    /// The path of a key file.
    KeyFile(String),
    /// A public key of age.
    Age(String),
    /// The ARN of a key in AWS KMS.
    AwsKms(String),
    /// A key of Vault's transit engine.
    VaultTransit(String),
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase(reference) => write!(f, "passphrase:{reference}"),
            Self::KeyFile(path) => write!(f, "keyfile:{path}"),
            Self::Age(key) => write!(f, "age:{key}"),
            Self::AwsKms(arn) => write!(f, "aws-kms:{arn}"),
            Self::VaultTransit(key) => write!(f, "vault-transit:{key}"),
        }
    }
}

/// A `[copy.NAME]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPlace {
    /// Where.
    pub url: CopyUrl,
    /// The region it is in, for the regions column of the matrix.
    pub region: Option<String>,
    /// The account it belongs to.
    pub account: Option<String>,
    /// The object lock its objects get.
    pub lock: Option<Lock>,
}

/// The place of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyUrl {
    /// A directory, as written.
    File(String),
    /// A prefix of a bucket; the prefix may be empty and has no slash at either end.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix inside it.
        prefix: String,
    },
}

impl fmt::Display for CopyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// An object lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Who may lift it.
    pub mode: LockMode,
    /// How long every object is locked at least.
    pub min: Span,
}

/// Who may lift an object lock before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody, the owner of the account included.
    Compliance,
    /// Whoever holds a special permission.
    Governance,
}

impl LockMode {
    /// The word of the policy file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Compliance => "compliance",
            Self::Governance => "governance",
        }
    }
}

/// A value and the line it was written on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    /// The value.
    pub value: T,
    /// Its line, from 1.
    pub line: usize,
    pub(crate) at: std::ops::Range<usize>,
}

/// The promises a row, a tier or `[defaults]` writes down; an inner `None` is the word `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promises {
    /// The most data, as time, that may be lost.
    pub rpo: Option<Written<Option<Span>>>,
    /// The longest time a restore may take.
    pub rto: Option<Written<Option<Span>>>,
    /// When captures are due.
    pub schedule: Option<Written<Option<Schedule>>>,
    /// What is kept.
    pub retention: Option<Written<Retention>>,
    /// How far back continuous logs are kept.
    pub logs: Option<Written<Option<Span>>>,
    /// Where.
    pub copies: Option<Written<Vec<CopyName>>>,
    /// Whether vaults are encrypted; they always are.
    pub encryption: Option<Written<Encryption>>,
    /// How long recovery points cannot be deleted.
    pub immutability: Option<Written<Option<Span>>>,
    /// How often each proof is renewed.
    pub verify: Option<Written<Verify>>,
    /// Keys that are present but wrong: they are reported once and never replaced by a value from further away.
    pub(crate) broken: Vec<&'static str>,
}

/// A `[tier.X]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: TierName,
    /// The line of its name, from 1.
    pub line: usize,
    /// What it promises for the rows that name it.
    pub promises: Promises,
}

/// Where a value was written. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the row itself.
    Row {
        /// The line of the value.
        line: usize,
    },
    /// In the row's tier.
    Tier {
        /// The tier.
        name: TierName,
        /// The line of the value.
        line: usize,
    },
    /// In `[defaults]`.
    Defaults {
        /// The line of the value.
        line: usize,
    },
    /// Nowhere: it is what Lifeboat does by itself.
    BuiltIn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { line } => write!(f, "this row, line {line}"),
            Self::Tier { name, line } => write!(f, "tier {name}, line {line}"),
            Self::Defaults { line } => write!(f, "defaults, line {line}"),
            Self::BuiltIn => f.write_str("built in"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value in force.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

/// A row of the matrix with every promise resolved.
///
/// When `retention` is `none` nothing is captured: `rpo`, `schedule`, `logs`, `immutability` and `verify` are then empty
/// and `copies` has no entry, whatever the tier or the defaults say, with the origin of the retention as their origin.
#[derive(Debug, Clone)]
pub struct Store {
    /// Its name.
    pub name: StoreName,
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub source: Source,
    /// The tier it names.
    pub tier: Option<TierName>,
    /// The most data, as time, that may be lost.
    pub rpo: Sourced<Option<Span>>,
    /// The longest time a restore may take.
    pub rto: Sourced<Option<Span>>,
    /// When captures are due; `None` leaves it to whoever runs `lifeboat backup`.
    pub schedule: Sourced<Option<Schedule>>,
    /// What is kept.
    pub retention: Sourced<Retention>,
    /// How far back continuous logs are kept; always `None` for a kind without them.
    pub logs: Sourced<Option<Span>>,
    /// Where; never empty for a retained store, never the same copy twice.
    pub copies: Sourced<Vec<CopyName>>,
    /// Whether vaults are encrypted.
    pub encryption: Sourced<Encryption>,
    /// How long recovery points cannot be deleted.
    pub immutability: Sourced<Option<Span>>,
    /// How often each proof is renewed.
    pub verify: Sourced<Verify>,
    /// What a restored copy must satisfy.
    pub checks: Checks,
    /// What has to be restored before it; never itself.
    pub needs: Vec<StoreName>,
    /// The line of the row's name, from 1.
    pub line: usize,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A tree of files.
    Files {
        /// Its root, as written.
        path: String,
        /// Globs of what is left out.
        exclude: Vec<String>,
        /// Whether other file systems mounted below the root are left out.
        one_file_system: bool,
    },
    /// A SQLite database.
    Sqlite {
        /// Its file, as written.
        path: String,
    },
    /// A server.
    Url(Endpoint),
    /// A Redis server or service.
    Redis {
        /// Where it is.
        url: Endpoint,
        /// The token of a REST address.
        token: Option<SecretRef>,
        /// How it is read key by key; nothing for one that replicates.
        scan: Option<Box<RedisScan>>,
    },
    /// The files of a Redis server beside us.
    RedisFiles {
        /// The server's folder, as written.
        dir: String,
        /// The server's configuration, as written.
        config: Option<String>,
    },
    /// The members of an etcd cluster.
    Etcd {
        /// Where they listen, with commas between them.
        url: Endpoint,
        /// What they must be shown.
        access: Box<EtcdAccess>,
    },
    /// A vector index on this machine.
    Vector(Box<VectorIndex>),
    /// A command that writes a snapshot of an etcd cluster.
    EtcdCommand {
        /// Program and arguments; `{file}` stands for the file to write.
        words: Vec<String>,
        /// The names of the variables it may see.
        environment: Vec<String>,
    },
}

/// What holds a vector index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorEngine {
    /// Files of lines of JSON, one record a line.
    Jsonl,
}

impl VectorEngine {
    /// Every engine that can be captured.
    pub const fn all() -> [Self; 1] {
        [Self::Jsonl]
    }

    /// The word of the policy file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
        }
    }
}

/// How a vector index measures nearness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorMetric {
    /// By the angle.
    Cosine,
    /// By the inner product.
    InnerProduct,
    /// By the Euclidean distance.
    L2,
}

impl VectorMetric {
    /// Every metric.
    pub const fn all() -> [Self; 3] {
        [Self::Cosine, Self::InnerProduct, Self::L2]
    }

    /// The word of the policy file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::InnerProduct => "ip",
            Self::L2 => "l2",
        }
    }
}

/// A vector index on this machine. Paths are as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorIndex {
    /// What holds it.
    pub engine: VectorEngine,
    /// Its file, or the folder of its shards.
    pub path: String,
    /// The file that says by what it is built.
    pub contract: String,
    /// How it measures, as the policy knows it.
    pub metric: VectorMetric,
    /// The folder of the questions that are asked of it.
    pub gold: Option<String>,
}

/// How a Redis server is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedisCapture {
    /// As a replica: a dump, and the stream of commands after it.
    #[default]
    Replication,
    /// By its files, on this machine.
    Files,
    /// Key by key, with plain commands.
    Scan,
}

impl RedisCapture {
    /// Every way.
    pub const fn all() -> [Self; 3] {
        [Self::Replication, Self::Files, Self::Scan]
    }

    /// The word of the policy file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Replication => "replication",
            Self::Files => "files",
            Self::Scan => "scan",
        }
    }

    /// True where a continuous log fills the time between two captures: only a replica is sent one.
    pub const fn has_log(self) -> bool {
        matches!(self, Self::Replication)
    }
}

/// How a Redis server is read key by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisScan {
    /// Only keys whose names begin like this.
    pub prefix: String,
    /// Commands a second at most.
    pub requests_per_second: Option<u32>,
    /// Whether everything is read once more, to count what changed.
    pub second_pass: bool,
    /// Whether keys of types that are not known are left out and told.
    pub skip_unknown: bool,
}

/// What the members of an etcd cluster must be shown, each by reference. `cert` comes with `key`, `user` with `password`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdAccess {
    /// The authorities to believe.
    pub ca: Option<SecretRef>,
    /// The client's certificate.
    pub cert: Option<SecretRef>,
    /// Its private key.
    pub key: Option<SecretRef>,
    /// The user's name.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<SecretRef>,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Kept elsewhere, since it holds a password.
    Secret(SecretRef),
    /// Written in the policy; proven to hold no password.
    Plain(String),
}

impl Endpoint {
    /// What an argument of a command line means: nothing if it names no server, an error if it holds a secret, which
    /// everybody on the machine could read there.
    pub fn of_argument(text: &str) -> Option<Result<Self, InvalidValue>> {
        if let Some(reference) = crate::store::secret_ref(text) {
            return Some(Ok(Self::Secret(reference)));
        }
        if !mask::is_url(text) {
            return None;
        }
        if mask::url_holds_secret(text) {
            return Some(Err(InvalidValue::new(
                "the address holds a secret, which everybody on this machine can read in the list of processes",
                "keep it elsewhere and name the place: `env:NAME`, `file:PATH` or `vault:PATH#FIELD`",
            )));
        }
        Some(Ok(Self::Plain(text.to_owned())))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(reference) => reference.fmt(f),
            Self::Plain(url) => f.write_str(url),
        }
    }
}

/// What a drill restores to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DrillTarget {
    /// A sandbox on this machine.
    #[default]
    Local,
}

impl DrillTarget {
    /// The word of the policy file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
        }
    }
}

/// How a vault is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// Every object is encrypted and authenticated by Lifeboat, whatever the provider does.
    #[default]
    Required,
}

impl Encryption {
    /// The word of the policy file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
        }
    }
}

/// How old each proof of a recovery point may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verify {
    /// Every stored object hashed.
    pub checksum: Option<Span>,
    /// Every stored object decrypted and read.
    pub readable: Option<Span>,
    /// A restore with the adapter's checks.
    pub restore: Option<Span>,
    /// A restore to a moment between two captures.
    pub pitr: Option<Span>,
    /// A drill with other stores, in order.
    pub drill: Option<Span>,
}

impl Verify {
    /// Every level with its word.
    pub fn levels(&self) -> [(&'static str, Option<Span>); 5] {
        [
            ("checksum", self.checksum),
            ("readable", self.readable),
            ("restore", self.restore),
            ("pitr", self.pitr),
            ("drill", self.drill),
        ]
    }
}

/// What a restored copy of a store must satisfy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checks {
    /// Columns that must be unique, as `table(column, column)`.
    pub unique: Vec<String>,
    /// Queries whose first row must be a true value.
    pub sql: Vec<String>,
    /// Commands that only read, with what they must answer.
    pub commands: Vec<String>,
    /// Program and arguments that fill an empty server, with `{url}` for its address; only for a store that is not retained.
    pub replay: Vec<String>,
    /// The names of the variables it may see.
    pub replay_environment: Vec<String>,
    /// Patterns of keys that may have no time to live in a store that is not retained.
    pub durable: Vec<String>,
}

/// A `[drill.NAME]` section: a rehearsal that is due again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillPlan {
    /// What is restored; empty for everything that is retained.
    pub stores: Vec<StoreName>,
    /// How often it is due.
    pub every: Span,
    /// How long before the drill the moment lies that is restored; nothing for the newest.
    pub back: Option<Span>,
    /// Copies that are treated as gone.
    pub without: Vec<CopyName>,
    /// The only recipients that are there; empty for all.
    pub open_with: Vec<Recipient>,
    /// What it restores to.
    pub target: DrillTarget,
    /// The line of its name, from 1.
    pub line: usize,
}

/// A `[agreement.NAME]` section: what two stores must say of each other when both show one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// What is asked for.
    pub left: Selection,
    /// Where it is looked up; of another store.
    pub right: Selection,
    /// What must hold between the two.
    pub expect: Expectation,
    /// How long the application may take from its write in one store to the one in the other; nothing means no time at all.
    pub within: Option<Span>,
    /// The line of its name, from 1.
    pub line: usize,
}

/// An `[application.NAME]` section: a command that shows that an application works on stores that were restored together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// What it needs.
    pub stores: Vec<StoreName>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long it may take.
    pub within: Span,
    /// What it may reach beside the stores.
    pub network: Network,
    /// What it answers over HTTP; empty for a command that shows by its end that it works.
    pub http: Vec<Question>,
    /// The line of its name, from 1.
    pub line: usize,
}

/// What an application is asked over HTTP, and what it must answer: `/orders?newest 200 total`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The path, with what follows it.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// What must stand in the answer, if it says.
    pub text: Option<String>,
}

impl std::str::FromStr for Question {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let help = "write a path, a status if it is not 200, and a text if one must stand in the answer: \
                    `/orders?newest 200 total`";
        let wrong = |what: &str| InvalidValue::new(format!("{what}: `{text}`"), help);
        let (path, rest) = text.split_once(' ').unwrap_or((text, ""));
        // What RFC 3986 lets stand in a path and behind it.
        let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(may_stand) {
            return Err(wrong("no path of a request"));
        }
        let (status, rest) = match rest.split_once(' ') {
            Some((status, rest)) => (status, Some(rest)),
            None => (rest, None),
        };
        let status = if status.is_empty() { Some(200) } else { status.parse().ok() };
        let status = status.filter(|status| (200..600).contains(status)).ok_or_else(|| wrong("no status"))?;
        let text = rest.filter(|rest| !rest.is_empty()).map(str::to_owned);
        Ok(Self { path: path.to_owned(), status, text })
    }
}

/// What a command of a drill may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// A loopback of its own.
    #[default]
    None,
    /// What this machine reaches.
    Host,
}

impl Network {
    /// The word of the policy file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Host => "host",
        }
    }
}

/// What must hold between what two stores say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expectation {
    /// Everything on the left exists on the right.
    #[default]
    Exists,
    /// Both have the same, also in value where both give one.
    Same,
    /// The newest times on both sides are equally old.
    Newest,
}

impl Expectation {
    /// The word of the policy file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Same => "same",
            Self::Newest => "newest",
        }
    }
}

/// One side of an agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The store; a retained one.
    pub store: StoreName,
    /// What is read out of it.
    pub selected: Selected,
    /// What stands before each name and is no part of it.
    pub prefix: String,
    /// What stands after each name and is no part of it.
    pub suffix: String,
}

/// What is read out of a restored store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// The rows of a query. The first column is the name; columns called `value` and `at` are what their names say.
    Sql {
        /// The database; nothing means the one the store's address names.
        database: Option<String>,
        /// One statement that reads.
        text: String,
    },
    /// The files that a glob matches, by their paths below the root; `at` is when each was last written.
    Paths(String),
    /// The keys that a pattern matches, `dbN:` before it; the value is that of a string.
    Keys(String),
    /// The keys that start with this, with their values.
    Under(String),
}
