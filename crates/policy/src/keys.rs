//! Every key of the file with its shape, default and meaning: one table for the reader, the schema and the tests.

use crate::kind::Kind;

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Version,
    Text,
    Texts,
    Switch,
    Recipients,
    CopyUrl,
    Lock,
    LockMode,
    Span,
    SpanOrNone,
    ScheduleOrNone,
    Retention,
    CopyNames,
    TierName,
    Encryption,
    Verify,
    Cadence,
    Kind,
    StoreUrl,
    Reference,
    RedisCapture,
    VectorEngine,
    VectorMetric,
    Count,
    Checks,
    StoreNames,
    StoreName,
    Expectation,
    Network,
    Target,
    Selection,
    Sections(&'static str),
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) about: &'static str,
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about }
}

/// The top of the file.
pub(crate) const TOP: &[Key] = &[
    key("version", Shape::Version, "The version of the file format: 1."),
    key("timezone", Shape::Text, "The IANA time zone of schedules, days, weeks and months. Default: UTC."),
    key("state", Shape::Text, "The folder of the catalog, the evidence and the spool. Default: ./state."),
    key("keys", Shape::Sections("keys"), "Who can open the vaults."),
    key("defaults", Shape::Sections("promises"), "Promises of every row that does not say otherwise."),
    key("tier", Shape::Sections("tiers"), "Promises shared by the rows that name the tier."),
    key("copy", Shape::Sections("copies"), "Places where vaults live."),
    key("store", Shape::Sections("stores"), "The rows of the matrix."),
    key("agreement", Shape::Sections("agreements"), "What stores must say of each other at one moment."),
    key(
        "application",
        Shape::Sections("applications"),
        "What applications must be able to do on restored stores.",
    ),
    key("drill", Shape::Sections("drills"), "Rehearsals that are due again and again."),
    key("inventory", Shape::Sections("inventory"), "Where stores are looked for that no row covers."),
];

/// `[keys]`.
pub(crate) const KEYS: &[Key] = &[key(
    "recipients",
    Shape::Recipients,
    "Who can open the vaults. Required as soon as one store is retained.",
)];

/// `[copy.NAME]`.
pub(crate) const COPY: &[Key] = &[
    key("url", Shape::CopyUrl, "Where: file:PATH or s3://BUCKET/PREFIX. Required."),
    key("region", Shape::Text, "The region, for the matrix."),
    key("account", Shape::Text, "The account, for the matrix."),
    key("lock", Shape::Lock, "The object lock of every object. In a directory only governance."),
];

/// `lock = { … }`.
pub(crate) const LOCK: &[Key] = &[
    key("mode", Shape::LockMode, "Who may lift the lock early: compliance (nobody) or governance. Required."),
    key("min", Shape::Span, "How long every object is locked at least. Required."),
];

/// The promises of a row, a tier and `[defaults]`.
pub(crate) const PROMISES: &[Key] = &[
    key("rpo", Shape::SpanOrNone, "The most data, as time, that may be lost. Default: none."),
    key("rto", Shape::SpanOrNone, "The longest time a restore may take. Default: none."),
    key("schedule", Shape::ScheduleOrNone, "When captures are due. Default: none."),
    key("retention", Shape::Retention, "What is kept. Required for every row, here or further out."),
    key("logs", Shape::SpanOrNone, "How far back continuous logs are kept. Default: none."),
    key("copies", Shape::CopyNames, "The copies that hold the store. Required for a retained row."),
    key("encryption", Shape::Encryption, "Always required: every vault is encrypted. Default: required."),
    key("immutability", Shape::SpanOrNone, "How long recovery points cannot be deleted. Default: none."),
    key("verify", Shape::Verify, "How often each proof is renewed. Default: never."),
];

/// `[store.NAME]`, every kind.
pub(crate) const STORE: &[Key] = &[
    key("kind", Shape::Kind, "What the store is. Required."),
    key("tier", Shape::TierName, "The tier whose promises it takes."),
    key("needs", Shape::StoreNames, "The stores that are restored before it. Default: none."),
];

/// `[store.NAME]` of the kinds `files` and `sqlite`.
pub(crate) const PATH: Key = key("path", Shape::Text, "Where the files or the database are. Required.");
/// `[store.NAME]` of every other kind.
pub(crate) const URL: Key =
    key("url", Shape::StoreUrl, "Where the server is: a reference, or a URL without a password. Required.");
/// `[store.NAME]` of the kinds that can be asked.
pub(crate) const CHECK: Key = key("checks", Shape::Checks, "What a restored copy must satisfy.");

/// `[store.NAME]` of the kind `files`.
pub(crate) const FILES: &[Key] = &[
    key("exclude", Shape::Texts, "Globs of what is left out. Default: nothing."),
    key("one_file_system", Shape::Switch, "Leave out what is mounted below the path. Default: false."),
];

/// `[store.NAME]` of the kind `redis`, which has a `url` or a `dir`.
pub(crate) const REDIS: &[Key] = &[
    key(
        "url",
        Shape::StoreUrl,
        "Where the server is: a reference, or a URL without a password. This or `dir`.",
    ),
    key(
        "capture",
        Shape::RedisCapture,
        "How it is captured: replication, files (those of a server on this machine), or scan (key by key, for \
         services). Default: replication, and scan for http(s).",
    ),
    key("dir", Shape::Text, "With files: the server's folder, on this machine."),
    key("config", Shape::Text, "With files: the server's configuration. Default: usual names."),
    key("token", Shape::Reference, "The token of a REST address, http:// or https://."),
    key("prefix", Shape::Text, "With scan: only keys whose names begin like this. Default: all."),
    key("requests_per_second", Shape::Count, "With scan: commands a second at most. Default: no limit."),
    key("second_pass", Shape::Switch, "With scan: read all once more, to count what changed. Default: true."),
    key(
        "skip_unknown",
        Shape::Switch,
        "With scan: leave out keys of unknown types and say so. Default: false.",
    ),
];

/// `[store.NAME]` of the kind `etcd`, which has a `url` or a `command`.
pub(crate) const ETCD: &[Key] = &[
    key("url", Shape::StoreUrl, "Where its members listen, with commas between them. This or `command`."),
    key("ca", Shape::Reference, "The authorities to believe, as PEM. Default: those of the machine."),
    key("cert", Shape::Reference, "The client's certificate, as PEM."),
    key("key", Shape::Reference, "The private key of `cert`, as PEM."),
    key("user", Shape::Text, "The user, where users must log in: one with the role root."),
    key("password", Shape::Reference, "The user's password."),
    key("command", Shape::Texts, "Program and arguments that write a snapshot to `{file}`. This or `url`."),
    key("environment", Shape::Texts, "The variables that the command may see. Default: none."),
];

/// `[store.NAME]` of the kind `vector`, which has an `engine` or a `url`.
pub(crate) const VECTOR: &[Key] = &[
    key("url", Shape::StoreUrl, "Where the server is; it is named, not captured. This or `engine`."),
    key(
        "engine",
        Shape::VectorEngine,
        "What holds the index: jsonl, files of lines of JSON, one record a line. Required without `url`.",
    ),
    key("path", Shape::Text, "The file, or the folder of shards that end in .jsonl. Required with `engine`."),
    key(
        "contract",
        Shape::Text,
        "The file that says by what the index is built: model, analyzer, metric, chunking. Required with `engine`.",
    ),
    key(
        "metric",
        Shape::VectorMetric,
        "How the index measures nearness: cosine, ip or l2. Required with `engine`.",
    ),
    key("gold", Shape::Text, "The folder of the curated questions that are asked in drills. Default: none."),
];

/// `[agreement.NAME]`.
pub(crate) const AGREEMENT: &[Key] = &[
    key("left", Shape::Selection, "What one store says. Required."),
    key("right", Shape::Selection, "What another store says of the same. Required."),
    key(
        "expect",
        Shape::Expectation,
        "exists: all of left is in right; same: both ways, also in value; newest: equally new. Default: exists.",
    ),
    key(
        "within",
        Shape::Span,
        "How long the application may take from one store to the other. Default: no time.",
    ),
];

/// `[application.NAME]`.
pub(crate) const APPLICATION: &[Key] = &[
    key(
        "stores",
        Shape::StoreNames,
        "The stores it needs; it is tried where all of them were restored. Required.",
    ),
    key(
        "command",
        Shape::Texts,
        "Program and arguments; it passes by ending with status 0, or by its answers over HTTP. Required.",
    ),
    key(
        "http",
        Shape::Texts,
        "What it is asked over HTTP on the socket `HTTP_SOCKET`: path, status (200) and a text of the answer.",
    ),
    key("within", Shape::Span, "How long it may take. Default: 5m."),
    key(
        "network",
        Shape::Network,
        "none: a loopback of its own; host: what this machine reaches, production included. Default: none.",
    ),
];

/// `[drill.NAME]`.
pub(crate) const DRILL: &[Key] = &[
    key("stores", Shape::StoreNames, "What is restored. Default: everything that is retained."),
    key(
        "every",
        Shape::Cadence,
        "How often it is due. Default: daily with `stores`, weekly with `back`, monthly for everything, quarterly \
         with `without` or `open_with`.",
    ),
    key("back", Shape::Span, "How long ago the moment is that is restored. Default: the newest there is."),
    key(
        "without",
        Shape::CopyNames,
        "Copies that are treated as gone, as in the loss of a region. Default: none.",
    ),
    key(
        "open_with",
        Shape::Recipients,
        "The only recipients that are there, as break-glass keys. Default: all.",
    ),
    key(
        "checks",
        Shape::Texts,
        "Which rules between stores and applications it asks, by their names. Default: all of its stores.",
    ),
    key("target", Shape::Target, "Where it restores to: local, a sandbox on this machine. Default: local."),
];

/// `[inventory]`.
pub(crate) const INVENTORY: &[Key] = &[
    key("machine", Shape::Switch, "Look at the servers that run on this machine. Default: false."),
    key(
        "folders",
        Shape::Texts,
        "Folders below which databases that are files are looked for. Default: none.",
    ),
    key(
        "files",
        Shape::Texts,
        "Files with the settings of applications, for the addresses in them. Default: none.",
    ),
    key("known", Shape::Sections("reasons"), "What needs no row, as it is shown, and why not."),
];

/// `left = { … }` and `right = { … }`.
pub(crate) const SELECTION: &[Key] = &[
    key("store", Shape::StoreName, "The store that is asked. Required."),
    key(
        "sql",
        Shape::Text,
        "postgres, sqlite: a query; first the name, then columns called `value` and `at`.",
    ),
    key("database", Shape::Text, "postgres: the database that is asked. Default: that of the store's url."),
    key("paths", Shape::Text, "files: a glob of paths below the root."),
    key("keys", Shape::Text, "redis: a pattern of keys, with `dbN:` before it for another database than 0."),
    key("under", Shape::Text, "etcd: what the keys start with."),
    key("field", Shape::Text, "vector: a field of the records, such as `doc_id` or `metadata.page`."),
    key("prefix", Shape::Text, "What stands before each name and is no part of it. Default: nothing."),
    key("suffix", Shape::Text, "What stands after each name and is no part of it. Default: nothing."),
];

/// `verify = { … }`.
pub(crate) const VERIFY: &[Key] = &[
    key("checksum", Shape::Cadence, "Hash every stored object."),
    key("readable", Shape::Cadence, "Decrypt and read every stored object."),
    key("restore", Shape::Cadence, "Restore and run the checks."),
    key("pitr", Shape::Cadence, "Restore to a moment between two captures."),
    key("drill", Shape::Cadence, "Restore with other stores, in order."),
];

/// `checks = { … }`.
pub(crate) const CHECKS: &[Key] = &[
    key("unique", Shape::Texts, "Columns that must be unique, as table(column, column)."),
    key("sql", Shape::Texts, "Queries whose first row must be a true value."),
    key(
        "commands",
        Shape::Texts,
        "Redis: commands that only read, with what they answer, as GET version = 3.",
    ),
    key(
        "replay",
        Shape::Texts,
        "Redis that is not retained: program and arguments that fill the server at {url}.",
    ),
    key("replay_environment", Shape::Texts, "The variables that the program may see. Default: none."),
    key(
        "durable",
        Shape::Texts,
        "Redis that is not retained: patterns of keys that may have no time to live.",
    ),
];

/// Checks that only stores of kind `redis` have.
const OF_REDIS: [&str; 4] = ["commands", "replay", "replay_environment", "durable"];

/// The checks that stores of one kind can have; of any kind when it is not known.
pub(crate) fn checks_of(kind: Option<Kind>) -> Vec<&'static Key> {
    let fits = |key: &&Key| kind.is_none_or(|kind| OF_REDIS.contains(&key.name) != kind.has_tables());
    CHECKS.iter().filter(fits).collect()
}

/// The words a cadence can be, besides a duration.
pub(crate) const CADENCES: &[(&str, &str)] = &[
    ("hourly", "1h"),
    ("daily", "1d"),
    ("weekly", "7d"),
    ("monthly", "1mo"),
    ("quarterly", "3mo"),
    ("yearly", "1y"),
];

/// The keys of a row of one kind; of any kind when it is not known.
pub(crate) fn of_store(kind: Option<Kind>) -> Vec<&'static Key> {
    let mut keys: Vec<&'static Key> = STORE.iter().chain(PROMISES).collect();
    let fits = |rule: fn(Kind) -> bool| kind.is_none_or(rule);
    if fits(Kind::is_path) {
        keys.push(&PATH);
    }
    if fits(|kind| !kind.is_path() && !matches!(kind, Kind::Etcd | Kind::Redis | Kind::Vector)) {
        keys.push(&URL);
    }
    if fits(Kind::has_checks) {
        keys.push(&CHECK);
    }
    if fits(|kind| kind == Kind::Files) {
        keys.extend(FILES);
    }
    if fits(|kind| kind == Kind::Redis) {
        // Of any kind: `url` is there already.
        keys.extend(REDIS.iter().filter(|key| kind.is_some() || key.name != URL.name));
    }
    if fits(|kind| kind == Kind::Etcd) {
        // Of any kind: `url` is there already.
        keys.extend(ETCD.iter().filter(|key| kind.is_some() || key.name != URL.name));
    }
    if fits(|kind| kind == Kind::Vector) {
        // Of any kind: `url` and `path` are there already.
        keys.extend(VECTOR.iter().filter(|key| kind.is_some() || ![URL.name, PATH.name].contains(&key.name)));
    }
    keys
}
