//! The kinds of datastore a row can name, and what each kind's row may say.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::suggest;
use crate::value::InvalidValue;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// What a store is; picks its adapter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind, in the order of the documentation.
            pub const fn all() -> &'static [Self] {
                &[$(Self::$name,)*]
            }

            /// The word of the policy file.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// A tree of files.
    Files = "files";
    /// A SQLite database file.
    Sqlite = "sqlite";
    /// A PostgreSQL cluster.
    Postgres = "postgres";
    /// Redis, Valkey or a compatible hosted service.
    Redis = "redis";
    /// An etcd cluster.
    Etcd = "etcd";
    /// An S3-compatible bucket.
    ObjectStore = "object-store";
    /// A MongoDB deployment.
    Mongodb = "mongodb";
    /// A ClickHouse server.
    Clickhouse = "clickhouse";
    /// The resources of a Kubernetes cluster.
    Kubernetes = "kubernetes";
    /// Longhorn volumes.
    Longhorn = "longhorn";
    /// A secret store: Vault, Kubernetes secrets, SOPS.
    Secrets = "secrets";
    /// Git repositories with their issues.
    Git = "git";
    /// A vector index.
    Vector = "vector";
    /// A durable queue.
    Queue = "queue";
    /// Logs of a CDN.
    EdgeLogs = "edge-logs";
}

impl Kind {
    /// True when the engine writes a continuous log that can fill the time between two captures.
    pub const fn has_log(self) -> bool {
        matches!(
            self,
            Self::Postgres
                | Self::Redis
                | Self::ObjectStore
                | Self::Mongodb
                | Self::Kubernetes
                | Self::Secrets
                | Self::EdgeLogs
        )
    }

    /// True when a restored copy can be asked, so that `checks` has a meaning.
    pub const fn has_checks(self) -> bool {
        self.has_tables() || matches!(self, Self::Redis)
    }

    /// True when rows can be counted and queried, so that `unique` and `sql` have a meaning.
    pub const fn has_tables(self) -> bool {
        matches!(self, Self::Sqlite | Self::Postgres | Self::Clickhouse)
    }

    /// True when the store is a path on this machine rather than a server behind a `url`.
    pub const fn is_path(self) -> bool {
        matches!(self, Self::Files | Self::Sqlite)
    }
}

impl FromStr for Kind {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::all().iter().copied().find(|kind| kind.word() == text).ok_or_else(|| {
            let words: Vec<&str> = Self::all().iter().map(|kind| kind.word()).collect();
            InvalidValue::new(format!("unknown kind `{text}`"), suggest::help(text, &words, "the kinds are"))
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl TryFrom<String> for Kind {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.word().to_owned()
    }
}
