//! From a row of the policy to the adapter that can talk to its store.

use lifeboat_base::failure::FailureKind;
use lifeboat_policy::{Source, Store};
use lifeboat_stores::{Adapter, FilesAdapter, FilesOptions, SqliteAdapter, SqliteOptions};

use crate::context::Engine;
use crate::error::EngineError;

impl Engine {
    /// The adapter of a row; `Refused` for a kind this version cannot capture.
    pub(crate) fn adapter(&self, row: &Store) -> Result<Box<dyn Adapter>, EngineError> {
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
            Source::Url(_) => Err(EngineError::new(
                FailureKind::Refused,
                format!("this version cannot capture stores of kind `{}` (`{}`)", row.kind.word(), row.name),
            )
            .risking(&row.name, "rpo")
            .next("this version captures `files` and `sqlite`; the row stays broken in `lifeboat status`")),
        }
    }
}
