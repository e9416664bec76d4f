//! From a row of the policy to the adapter that can talk to its store.

use std::path::PathBuf;
use std::sync::Arc;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::StoreName;
use lifeboat_base::secret::Secret;
use lifeboat_policy::{Endpoint, Kind, Source, Store};
use lifeboat_stores::{
    Adapter, Address, FilesAdapter, FilesOptions, PostgresAdapter, PostgresOptions, RedisAdapter,
    RedisOptions, SqliteAdapter, SqliteOptions,
};

use crate::context::Engine;
use crate::error::EngineError;

impl Engine {
    /// The adapter of a row; `Refused` for a kind this version cannot capture.
    pub(crate) fn adapter(&self, row: &Store) -> Result<Box<dyn Adapter>, EngineError> {
        self.adapter_placing(row, &[])
    }

    /// The adapter of a row, to restore tablespaces to folders of their own; kinds without any leave them unread.
    pub(crate) fn adapter_placing(
        &self,
        row: &Store,
        tablespaces: &[(String, PathBuf)],
    ) -> Result<Box<dyn Adapter>, EngineError> {
        match &row.source {
            Source::Files { path, exclude, one_file_system } => {
                let options = FilesOptions {
                    root: self.resolve(path),
                    exclude: exclude.clone(),
                    one_file_system: *one_file_system,
                };
                Ok(Box::new(FilesAdapter::new(options)))
            }
            Source::Sqlite { path } => {
                let options = SqliteOptions {
                    path: self.resolve(path),
                    unique: row.checks.unique.clone(),
                    sql: row.checks.sql.clone(),
                };
                Ok(Box::new(SqliteAdapter::new(options)))
            }
            Source::Url(endpoint) if row.kind == Kind::Postgres => {
                let options = PostgresOptions {
                    url: self.address(endpoint),
                    slot: slot_name(&row.name),
                    programs: self.env.programs.clone(),
                    unique: row.checks.unique.clone(),
                    sql: row.checks.sql.clone(),
                    tablespaces: tablespaces.to_vec(),
                };
                Ok(Box::new(PostgresAdapter::new(options)))
            }
            Source::Url(endpoint) if row.kind == Kind::Redis => {
                let options = RedisOptions {
                    url: self.address(endpoint),
                    programs: self.env.programs.clone(),
                    commands: row.checks.commands.clone(),
                };
                Ok(Box::new(RedisAdapter::new(options)))
            }
            Source::Url(_) => Err(EngineError::new(
                FailureKind::Refused,
                format!("this version cannot capture stores of kind `{}` (`{}`)", row.kind.word(), row.name),
            )
            .risking(&row.name, "rpo")
            .next("this version captures `files`, `sqlite`, `postgres` and `redis`; the row stays broken in `lifeboat status`")),
        }
    }

    /// A server's address, asked for only when the server is contacted: a restore must not need production's.
    fn address(&self, endpoint: &Endpoint) -> Address {
        let (endpoint, secrets) = (endpoint.clone(), Arc::clone(&self.env.secrets));
        Arc::new(move || match &endpoint {
            Endpoint::Secret(reference) => secrets.resolve(reference),
            Endpoint::Plain(url) => Ok(Secret::new(url.clone())),
        })
    }
}

/// A replication slot takes fewer characters than the name of a store.
fn slot_name(store: &StoreName) -> String {
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    format!("lifeboat_{}", store.as_str().chars().map(plain).collect::<String>())
}
