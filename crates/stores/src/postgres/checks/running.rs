//! The checks that ask a running server: each database once, each question on its own session, so that one that breaks
//! does not silence the others.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_postgres::Lsn;
use lifeboat_postgres::wire::PgError;
use serde_json::Value;

use super::cluster::Cluster;
use super::collation::Collations;
use super::indexes::{check_amcheck, check_invalid};
use super::promises::{check_statement, check_unique};
use super::references::check_foreign_keys;
use super::tables::{Found, Recorded, check_databases, check_schema};
use super::{AMCHECK, DATABASES, FOREIGN_KEYS, RECOVERY, SCHEMA, SYSTEM, Subject};
use crate::adapter::CheckResult;
use crate::postgres::facts::invalid_indexes;
use crate::postgres::session::{Session, number, reason, text};
use crate::tally::{Tally, equal, failed, not_applicable};

/// Databases tried, after that of the policy, for questions about the cluster as a whole.
const COMMON: [&str; 2] = ["postgres", "template1"];
const ALL_DATABASES: &str =
    "SELECT datname, datallowconn AND datconnlimit <> -2 FROM pg_catalog.pg_database ORDER BY datname";
/// How far the log was replayed; a cluster that was stopped in order replays nothing.
const REPLAYED: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     coalesce(pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_current_wal_insert_lsn())";

/// Asks the running cluster everything.
pub(crate) fn check_running(
    subject: &Subject<'_>,
    texts: &BTreeMap<String, String>,
    cluster: &Cluster,
    control: &BTreeMap<String, String>,
    beyond: bool,
) -> Vec<CheckResult> {
    let own = subject.database.as_deref();
    let first = own.into_iter().chain(COMMON).find_map(|name| cluster.session(name).ok());
    let Some(mut session) = first else {
        let why =
            format!("no database takes a connection; the server's log ends with: {}", cluster.log_tail());
        return super::broken(subject, &why)
            .into_iter()
            .filter(|result| result.id != super::CHECKSUMS)
            .collect();
    };
    let mut results = vec![check_recovery(&mut session, subject.facts, cluster)];
    results.push(check_system(&session, subject.facts, control));
    let databases = match session.ask(ALL_DATABASES) {
        Ok(rows) => rows,
        Err(error) => {
            results.push(failed(DATABASES, "a catalog that can be read", reason(&error)));
            Vec::new()
        }
    };
    let mut walk = Walk::new(subject, texts, cluster, Recorded::new(subject.facts, beyond));
    if let Err(error) = walk.collations.databases(&mut session, subject.facts) {
        walk.collations.broke_off(reason(&error));
    }
    drop(session);
    for row in databases.iter().filter(|row| text(row, 1) == "t" && !subject.monitor.cancelled()) {
        walk.enter(text(row, 0));
    }
    let names: Vec<String> = databases.iter().map(|row| text(row, 0).to_owned()).collect();
    if !names.is_empty() {
        results.push(check_databases(&walk.recorded, &names, &walk.closed));
    }
    results.extend(walk.finish());
    let database = own.unwrap_or("postgres");
    for promise in subject.unique {
        results.push(check_unique(cluster, database, promise));
    }
    for (index, statement) in subject.sql.iter().enumerate() {
        results.push(check_statement(cluster, database, index + 1, statement));
    }
    results
}

/// Recovery has ended, and not before the position of the point.
pub(crate) fn check_recovery(session: &mut Session, facts: &CaptureFacts, cluster: &Cluster) -> CheckResult {
    const EXPECTED: &str = "recovered, with the log replayed at least to";
    let position = facts.consistency.position.as_deref();
    let expected = format!("{EXPECTED} {}", position.unwrap_or("the end of the backup"));
    let rows = match session.ask(REPLAYED) {
        Ok(rows) => rows,
        Err(error) => {
            let why = format!("{}; the server's log ends with: {}", reason(&error), cluster.log_tail());
            return failed(RECOVERY, expected, why);
        }
    };
    let answer = rows.first();
    let replayed = answer.and_then(|row| number::<Lsn>(row, 1));
    let mut tally = Tally::default();
    if answer.is_none_or(|row| text(row, 0) != "f") {
        tally.add(|| "the server is still in recovery".to_owned());
    }
    match (position.map(str::parse::<Lsn>), replayed) {
        (None, _) => {}
        (Some(Ok(position)), Some(replayed)) if replayed >= position => {}
        (Some(Ok(position)), Some(replayed)) => {
            tally.add(|| format!("the log ended at {replayed}, before {position}"));
        }
        (Some(Ok(_)), None) => tally.add(|| "the server does not say how far it replayed".to_owned()),
        (Some(Err(_)), _) => tally.add(|| "the position of the point cannot be understood".to_owned()),
    }
    let reached = replayed.map_or_else(|| "an unknown position".to_owned(), |lsn| lsn.to_string());
    tally.result(RECOVERY, format!("replayed to {reached}"), expected)
}

fn check_system(session: &Session, facts: &CaptureFacts, control: &BTreeMap<String, String>) -> CheckResult {
    let identifier = facts.environment.get("system_identifier").and_then(Value::as_str);
    let major = facts.environment.get("server_major").and_then(Value::as_u64);
    let (Some(identifier), Some(major)) = (identifier, major) else {
        return not_applicable(SYSTEM, "unknown", "the identity of the captured cluster was not recorded");
    };
    let found = control.get("Database system identifier").map(String::as_str).unwrap_or_default();
    let shown = |identifier: &str, major: u64| format!("system {identifier}, version {major}");
    equal(SYSTEM, shown(found, u64::from(session.version() / 10_000)), shown(identifier, major))
}

/// One pass through the databases.
struct Walk<'a> {
    subject: &'a Subject<'a>,
    texts: &'a BTreeMap<String, String>,
    cluster: &'a Cluster,
    recorded: Recorded<'a>,
    found: Found,
    invalid: BTreeSet<String>,
    collations: Collations,
    closed: BTreeMap<String, String>,
    results: Vec<CheckResult>,
}

impl<'a> Walk<'a> {
    fn new(
        subject: &'a Subject<'a>,
        texts: &'a BTreeMap<String, String>,
        cluster: &'a Cluster,
        recorded: Recorded<'a>,
    ) -> Self {
        Self {
            subject,
            texts,
            cluster,
            recorded,
            found: Found::default(),
            invalid: BTreeSet::new(),
            collations: Collations::default(),
            closed: BTreeMap::new(),
            results: Vec::new(),
        }
    }

    /// Every question to one database.
    fn enter(&mut self, database: &str) {
        let mut session = match self.cluster.session(database) {
            Ok(session) => session,
            Err(error) => {
                self.found.broke_off(database, &error);
                self.closed.insert(database.to_owned(), reason(&error));
                for family in [SCHEMA, FOREIGN_KEYS, AMCHECK] {
                    let why = format!("it takes no connection: {}", reason(&error));
                    self.results.push(failed(&format!("{family}/{database}"), "a database that opens", why));
                }
                return;
            }
        };
        let text = self.texts.get(database).map(String::as_str);
        self.results.push(check_schema(&mut session, database, &self.recorded, text));
        if let Err(error) = self.found.visit(&mut session, database, &self.recorded, self.subject.monitor) {
            self.found.broke_off(database, &error);
        }
        let checked = self.fresh(database, |session| check_foreign_keys(session, database));
        self.push(FOREIGN_KEYS, database, checked);
        match self.fresh(database, |session| invalid_indexes(session, database)) {
            Ok(names) => self.invalid.extend(names),
            // As good as invalid: nobody could tell.
            Err(error) => drop(self.invalid.insert(format!("{database}: {}", reason(&error)))),
        }
        let mut collations = std::mem::take(&mut self.collations);
        if let Err(error) = self.fresh(database, |session| collations.inside(session, database)) {
            collations.broke_off(format!("{database}: {}", reason(&error)));
        }
        self.collations = collations;
        let monitor = self.subject.monitor;
        let checked = self.fresh(database, |session| check_amcheck(session, database, monitor));
        self.push(AMCHECK, database, checked);
    }

    /// An answer on a session of its own.
    fn fresh<T>(
        &self,
        database: &str,
        ask: impl FnOnce(&mut Session) -> Result<T, PgError>,
    ) -> Result<T, PgError> {
        ask(&mut self.cluster.session(database)?)
    }

    fn push(&mut self, family: &str, database: &str, checked: Result<CheckResult, PgError>) {
        self.results.push(checked.unwrap_or_else(|error| {
            let why = format!("{}; the server's log ends with: {}", reason(&error), self.cluster.log_tail());
            failed(&format!("{family}/{database}"), "a check that ends", why)
        }));
    }

    fn finish(self) -> Vec<CheckResult> {
        let mut all = self.found.finish(&self.recorded);
        all.extend(self.results);
        all.push(check_invalid(self.subject.facts, &self.invalid));
        all.push(self.collations.finish());
        all
    }
}
