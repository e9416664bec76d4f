//! Databases, schemas, tables, rows and content of a restored cluster against what was recorded.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::monitor::Monitor;
use lifeboat_postgres::wire::PgError;
use serde_json::Value;

use super::{CONTENT, DATABASES, ROWS, SCHEMA, TABLES};
use crate::adapter::CheckResult;
use crate::postgres::schema::{fingerprint, schema_text};
use crate::postgres::session::{Session, is_lost, reason};
use crate::postgres::tables::{Listed, list, measure};
use crate::tally::{Tally, equal, failed, not_applicable};

/// Where the facts keep the least and most rows of tables that changed during the capture.
const RANGES: &str = "postgres.ranges";
/// Where the facts keep what is unknown, and why.
const UNCHECKED: &str = "postgres.unchecked";

/// What a point says about its tables.
pub(super) struct Recorded<'a> {
    facts: &'a CaptureFacts,
    ranges: BTreeMap<&'a str, (u64, u64)>,
    unchecked: BTreeMap<&'a str, &'a str>,
    /// Why none of it can be expected.
    beyond: Option<&'static str>,
}

/// Why a cluster that replayed more log than its point has is not compared with the point.
const BEYOND: &str = "the log was replayed beyond the point, so what was counted then need not be there now";

impl<'a> Recorded<'a> {
    /// `beyond`: more log was replayed than the point has.
    pub(super) fn new(facts: &'a CaptureFacts, beyond: bool) -> Self {
        let map = |name: &str| facts.environment.get(name).and_then(Value::as_object).into_iter().flatten();
        let range = |value: &Value| Some((value.get(0)?.as_u64()?, value.get(1)?.as_u64()?));
        Self {
            facts,
            ranges: map(RANGES).filter_map(|(name, value)| Some((name.as_str(), range(value)?))).collect(),
            unchecked: map(UNCHECKED)
                .map(|(name, why)| (name.as_str(), why.as_str().unwrap_or("unknown")))
                .collect(),
            beyond: beyond.then_some(BEYOND),
        }
    }

    fn why(&self, key: &str) -> String {
        self.unchecked.get(key).copied().unwrap_or("nothing was recorded").to_owned()
    }

    /// The tables that must be there.
    fn tables(&self) -> BTreeSet<&'a str> {
        let counted = self.facts.counts.keys().filter_map(|key| key.strip_prefix("rows/"));
        let uncounted = self.unchecked.keys().filter_map(|key| key.strip_prefix("rows/"));
        counted.chain(uncounted).chain(self.ranges.keys().copied()).collect()
    }

    /// Whether nothing can be said about a table that is there and was not recorded.
    fn may_be_there(&self, table: &str, database: &str) -> bool {
        self.unchecked.contains_key(format!("maybe/{table}").as_str())
            || self.unchecked.contains_key(format!("database/{database}").as_str())
    }
}

/// The databases of a cluster, both ways, and whether each that should take connections does.
pub(super) fn check_databases(
    recorded: &Recorded<'_>,
    found: &[String],
    closed: &BTreeMap<String, String>,
) -> CheckResult {
    let listed = recorded.facts.environment.get("databases").and_then(Value::as_object);
    let unknown = recorded.beyond.or(listed.is_none().then_some("the databases were not recorded"));
    let mut tally = Tally::default();
    for (name, why) in closed {
        tally.add(|| format!("{name} takes no connection: {why}"));
    }
    if let Some(why) = unknown.filter(|_| tally.count() == 0) {
        return not_applicable(DATABASES, "unknown", why);
    }
    let recorded: BTreeSet<&str> =
        listed.into_iter().flat_map(|all| all.keys().map(String::as_str)).collect();
    let restored: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    recorded.difference(&restored).for_each(|name| tally.add(|| format!("missing: {name}")));
    restored.difference(&recorded).for_each(|name| tally.add(|| format!("extra: {name}")));
    tally.result(
        DATABASES,
        format!("{} databases", restored.len()),
        format!("{} databases that take connections as recorded", recorded.len()),
    )
}

/// The schema of one database against its fingerprint; `text` is what differences are shown from.
pub(super) fn check_schema(
    session: &mut Session,
    database: &str,
    recorded: &Recorded<'_>,
    text: Option<&str>,
) -> CheckResult {
    let (id, key) = (format!("{SCHEMA}/{database}"), format!("schema/{database}"));
    if let Some(why) = recorded.beyond {
        return not_applicable(&id, "unknown", why);
    }
    let Some(expected) = recorded.facts.checksums.get(&key) else {
        let why = recorded.unchecked.get(format!("database/{database}").as_str());
        let why = why.map_or_else(|| recorded.why(&key), |why| (*why).to_owned());
        return not_applicable(&id, "unknown", why);
    };
    let found = match schema_text(session) {
        Ok(found) => found,
        Err(error) => return failed(&id, expected, reason(&error)),
    };
    let measured = fingerprint(&found);
    let mut tally = Tally::default();
    let text = text.filter(|text| fingerprint(text) == *expected);
    if text.is_none() {
        tally.add(|| "the listing recorded with the point is missing or altered".to_owned());
    }
    if measured != *expected {
        if let Some(text) = text {
            let (before, after): (BTreeSet<&str>, BTreeSet<&str>) =
                (text.lines().collect(), found.lines().collect());
            before.difference(&after).for_each(|line| tally.add(|| format!("missing: {line}")));
            after.difference(&before).for_each(|line| tally.add(|| format!("extra: {line}")));
        }
        if tally.count() == 0 {
            tally.add(|| "it is another schema; the listing does not say where".to_owned());
        }
    }
    tally.result(&id, measured, expected)
}

/// Every table of every database, by its name in the facts.
#[derive(Default)]
pub(super) struct Found {
    names: BTreeSet<String>,
    extra: Vec<String>,
    results: Vec<CheckResult>,
    failure: Option<String>,
}

impl Found {
    /// Compares the tables of one database with what was recorded about them.
    pub(super) fn visit(
        &mut self,
        session: &mut Session,
        database: &str,
        recorded: &Recorded<'_>,
        monitor: &dyn Monitor,
    ) -> Result<(), PgError> {
        if recorded.beyond.is_some() {
            return Ok(());
        }
        session.ask("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        let expected = recorded.tables();
        for table in list(session)? {
            let name = table.key(database);
            if !expected.contains(name.as_str()) {
                if !recorded.may_be_there(&name, database) {
                    self.extra.push(name);
                }
                continue;
            }
            let [rows, content] = check_table(session, &table, &name, recorded)?;
            self.results.extend([rows, content]);
            self.names.insert(name);
            monitor.advance(0, 1);
        }
        session.ask("COMMIT").map(drop)
    }

    /// Remembers why a database could not be looked at to the end.
    pub(super) fn broke_off(&mut self, database: &str, error: &PgError) {
        self.failure = Some(format!("{database}: {}", reason(error)));
    }

    /// Tables both ways, then rows and content of each that was recorded.
    pub(super) fn finish(mut self, recorded: &Recorded<'_>) -> Vec<CheckResult> {
        if let Some(why) = recorded.beyond.filter(|_| self.failure.is_none()) {
            return [TABLES, ROWS, CONTENT].map(|id| not_applicable(id, "unknown", why)).into();
        }
        let expected = recorded.tables();
        let mut tally = Tally::default();
        for name in expected.iter().filter(|name| !self.names.contains(**name)) {
            tally.add(|| format!("missing: {name}"));
            for family in [ROWS, CONTENT] {
                self.results.push(failed(&format!("{family}/{name}"), "a table", "the table is missing"));
            }
        }
        self.extra.iter().for_each(|name| tally.add(|| format!("extra: {name}")));
        if let Some(why) = self.failure {
            tally.add(|| why);
        }
        let measured = format!("{} tables", self.names.len() + self.extra.len());
        let mut all = vec![tally.result(TABLES, measured, format!("{} tables", expected.len()))];
        all.append(&mut self.results);
        all
    }
}

fn check_table(
    session: &mut Session,
    table: &Listed,
    name: &str,
    recorded: &Recorded<'_>,
) -> Result<[CheckResult; 2], PgError> {
    let (rows_id, content_id) = (format!("{ROWS}/{name}"), format!("{CONTENT}/{name}"));
    let (rows_key, content_key) = (format!("rows/{name}"), format!("table/{name}"));
    let count = recorded.facts.counts.get(&rows_key);
    let range = recorded.ranges.get(name);
    let sum = recorded.facts.checksums.get(&content_key);
    let unknown_sum = || {
        let why = recorded.unchecked.get(content_key.as_str()).or(recorded.unchecked.get(rows_key.as_str()));
        not_applicable(&content_id, "unknown", why.copied().unwrap_or("nothing was recorded"))
    };
    if count.is_none() && range.is_none() {
        return Ok([not_applicable(&rows_id, "unknown", recorded.why(&rows_key)), unknown_sum()]);
    }
    let expected_rows = match (count, range) {
        (Some(count), _) => count.to_string(),
        (None, Some((least, most))) => format!("{least} to {most}"),
        (None, None) => String::new(),
    };
    let (found, found_sum) = match measure(session, table, sum.is_some()) {
        Ok(found) => found,
        Err(error) if is_lost(&error) => return Err(error),
        Err(error) => {
            let content = match sum {
                Some(sum) => failed(&content_id, sum, reason(&error)),
                None => unknown_sum(),
            };
            return Ok([failed(&rows_id, expected_rows, reason(&error)), content]);
        }
    };
    let rows = match (count, range) {
        (None, Some((least, most))) if (least..=most).contains(&&found) => {
            Tally::default().result(&rows_id, found.to_string(), expected_rows)
        }
        _ => equal(&rows_id, found.to_string(), expected_rows),
    };
    let content = match sum {
        Some(sum) => equal(&content_id, found_sum.unwrap_or_default(), sum),
        None => unknown_sum(),
    };
    Ok([rows, content])
}
