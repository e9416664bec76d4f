//! Keys of a restored directory, for comparing them with what another store says: asked of a throwaway server.

use std::path::Path;

use lifeboat_base::failure::Failure;
use lifeboat_redis::census::page;
use lifeboat_redis::pattern::fits;
use lifeboat_redis::server::Programs;
use lifeboat_redis::wire::{Connection, RedisError, Reply};

use super::checks::{Subject, with_server};
use super::commands::database_and_rest;
use super::error;
use crate::select::{Selected, Selection, Take, foreign, going_on};

/// Longer values are not compared.
const MAX_VALUE_BYTES: i64 = 64 * 1024;

pub(super) fn select(
    subject: &Subject<'_>,
    restored: &Path,
    wanted: &[Selection],
    take: &mut Take<'_>,
) -> Result<Vec<Result<(), Failure>>, Failure> {
    const WHAT: &str = "the restored server cannot be asked on this machine";
    let programs = Programs::find(subject.programs).map_err(error::server(WHAT))?;
    let asked = with_server(subject, &programs, restored, |sandbox, _work| {
        let mut connection =
            sandbox.connect().map_err(error::connection("the throwaway server takes no connection"))?;
        let mut results = Vec::new();
        for (number, selection) in wanted.iter().enumerate() {
            let Selection::Keys(text) = selection else {
                results.push(Err(foreign("redis")));
                continue;
            };
            let mut each = |found| {
                going_on(subject.monitor)?;
                take(number, found)
            };
            results.push(keys(&mut connection, text, &mut each)?);
        }
        Ok(results)
    })?;
    asked.map_err(error::server("a throwaway server did not start on what was restored"))
}

/// Lets an application read a throwaway server. It is a replica of nobody, so it takes no writes.
pub(super) fn serve(
    subject: &Subject<'_>,
    restored: &Path,
    work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let programs = Programs::find(subject.programs)
        .map_err(error::server("the restored server cannot be run on this machine"))?;
    let served = with_server(subject, &programs, restored, |sandbox, _work| work(sandbox.socket()))?;
    served.map_err(error::server("a throwaway server did not start on what was restored"))
}

/// The keys of one database that fit; the inner error is of this question alone. Nothing changes meanwhile, so a key may come twice and none is left out.
fn keys(
    connection: &mut Connection,
    text: &str,
    take: &mut dyn FnMut(Selected) -> Result<(), Failure>,
) -> Result<Result<(), Failure>, Failure> {
    let (database, pattern) = database_and_rest(text);
    let asked = |error: RedisError| error::connection("the throwaway server does not answer")(error);
    if let Err(error) = connection.ask(&format!("SELECT {database}")) {
        return Ok(Err(error::connection(format!("database {database} cannot be asked"))(error)));
    }
    let mut cursor = b"0".to_vec();
    loop {
        let mut names = page(connection, &mut cursor).map_err(asked)?;
        names.retain(|name| fits(pattern.as_bytes(), name));
        let lengths: Vec<[&[u8]; 2]> = names.iter().map(|name| [b"STRLEN".as_slice(), name]).collect();
        let lengths = connection.commands(lengths.iter().map(<[&[u8]; 2]>::as_slice)).map_err(asked)?;
        // What is no string answers with an error, and has no value here.
        let short = |reply: &Reply| reply.integer().is_some_and(|length| length <= MAX_VALUE_BYTES);
        for (name, length) in names.into_iter().zip(&lengths) {
            let value = if short(length) {
                connection.command(&[b"GET", &name]).map_err(asked)?.bytes().map(<[u8]>::to_vec)
            } else {
                None
            };
            take(Selected { name, value, at: None })?;
        }
        if cursor == b"0" {
            return Ok(Ok(()));
        }
    }
}
