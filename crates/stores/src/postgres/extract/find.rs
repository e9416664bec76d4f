//! Finds what was asked for in a running cluster, and names what there is instead.
//!
//! In: the texts of a command line, which mean names exactly as they are written. Out: the relations `pg_dump` is to take,
//! the partitions of each among them: left to itself it would take a partitioned table without a single row.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::failure::Failure;
use lifeboat_postgres::wire::{PgError, Row, quote_identifier, quote_literal};

use crate::parts::{Part, PartMissing, PartTable};
use crate::postgres::checks::Cluster;
use crate::postgres::session::{Session, dotted, number, qualified, text};

/// Names listed when the right one is not there.
const MAX_LISTED: usize = 20;
/// The most relations that are named one by one, partitions included: they must fit into an argument list.
const MAX_SELECTED: usize = 10_000;
/// Databases tried for questions about the cluster, besides the one that is asked for.
const COMMON: [&str; 2] = ["postgres", "template1"];

/// A database whose dropping broke off takes no connections.
const DATABASES: &str = "SELECT datname, datallowconn AND datconnlimit <> -2, datistemplate \
                         FROM pg_catalog.pg_database ORDER BY datname";
/// Tables without rows that are named before the rest is only counted.
const MAX_NAMED: usize = 5;
/// Everything that users have made and that has a name, foreign tables included.
const ALL: &str = "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
/// What of it `pg_dump --table` takes, but foreign tables: their rows are elsewhere.
const NAMED: &str = "AND c.relkind IN ('r', 'p', 'm', 'v', 'S')";
/// The tables of a whole database that should have rows of their own.
const TABLES: &str = "AND c.relkind IN ('r', 'p')";
/// Those that have none after a recovery.
const ROWLESS: &str = "AND (c.relkind = 'f' OR c.relkind = 'r' AND c.relpersistence = 'u')";
/// What belongs to an extension comes back with it.
const NO_EXTENSION: &str = "AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
     WHERE d.deptype = 'e' AND (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
     OR d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid))";

/// One relation.
#[derive(Debug)]
struct Relation {
    schema: String,
    name: String,
    /// As in `pg_class.relkind`.
    kind: String,
    unlogged: bool,
    populated: bool,
}

impl Relation {
    fn shown(&self) -> String {
        dotted(&[&self.schema, &self.name])
    }

    /// Has rows that stand in its own files.
    fn holds_rows(&self) -> bool {
        matches!(self.kind.as_str(), "r" | "m")
    }
}

/// What is taken out.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// The relations named one by one, by object id; none for a whole database.
    relations: BTreeMap<u32, Relation>,
    /// What was asked for, each with the relations it stands for.
    asked: Vec<(String, Vec<u32>)>,
    /// Tables that must be in the archive, and whether with an entry for their rows.
    expected: Vec<(u32, bool)>,
    /// Of a whole database: the tables that come without rows.
    rowless: Vec<Rowless>,
}

/// Tables of one sort whose rows are in no recovery point.
#[derive(Debug)]
pub(super) struct Rowless {
    /// Their rows are on another server; else they are unlogged, and a recovery empties them.
    pub(super) foreign: bool,
    pub(super) count: u64,
    /// The first of them.
    pub(super) names: Vec<String>,
}

impl Selection {
    /// Patterns of `pg_dump` that mean these relations and no others: inside quotes nothing is special.
    pub(super) fn patterns(&self) -> Vec<String> {
        self.relations.values().map(|relation| qualified(&relation.schema, &relation.name)).collect()
    }

    pub(super) fn is_ascii(&self) -> bool {
        self.relations.values().all(|relation| relation.schema.is_ascii() && relation.name.is_ascii())
    }

    /// The names of the relations of a kind.
    pub(super) fn named(&self, kind: &str) -> impl Iterator<Item = String> {
        self.relations.values().filter(move |relation| relation.kind == kind).map(Relation::shown)
    }

    /// The names of the tables that have no log.
    pub(super) fn unlogged(&self) -> impl Iterator<Item = String> {
        self.relations.values().filter(|relation| relation.unlogged).map(Relation::shown)
    }

    /// The tables of a whole database that come without rows.
    pub(super) fn rowless(&self) -> &[Rowless] {
        &self.rowless
    }

    /// The object ids that must have a definition, and those that must have an entry for rows.
    pub(super) fn expected(&self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let rows = self.expected.iter().filter(|(_, rows)| *rows);
        (self.expected.iter().map(|(oid, _)| *oid).collect(), rows.map(|(oid, _)| *oid).collect())
    }

    pub(super) fn name_of(&self, oid: u32) -> String {
        let known = self.relations.get(&oid).map(Relation::shown);
        known.unwrap_or_else(|| format!("the table with object id {oid}"))
    }

    /// Counts the rows of what was asked for, table by table: a foreign partition is never asked.
    pub(super) fn count(&self, session: &mut Session) -> Result<Vec<PartTable>, PgError> {
        let mut tables = Vec::new();
        for (name, oids) in &self.asked {
            let own = oids.iter().filter_map(|oid| self.relations.get(oid));
            let mut rows = None;
            for relation in own.filter(|relation| relation.holds_rows() && relation.populated) {
                let name = qualified(&relation.schema, &relation.name);
                let counted = session.ask(&format!("SELECT count(*) FROM ONLY {name}"))?;
                let more: u64 = counted.first().and_then(|row| number(row, 0)).unwrap_or_default();
                rows = Some(rows.unwrap_or(0) + more);
            }
            tables.push(PartTable { name: name.clone(), rows });
        }
        Ok(tables)
    }

    #[cfg(test)]
    pub(super) fn of_oids(expected: &[(u32, bool)]) -> Self {
        Self { expected: expected.to_vec(), ..Self::default() }
    }
}

/// A session with whichever database takes one.
pub(super) fn any_session(cluster: &Cluster, asked: &str) -> Result<Session, PgError> {
    let [first, second] = COMMON;
    cluster.session(first).or_else(|_| cluster.session(second)).or_else(|_| cluster.session(asked))
}

/// Whether the database is there and can be entered.
pub(super) fn check_database(session: &mut Session, asked: &str) -> Result<Result<(), Failure>, PgError> {
    let rows = session.ask(DATABASES)?;
    let open = |row: &&Row| text(row, 1) == "t";
    if let Some(found) = rows.iter().find(|row| text(row, 0) == asked) {
        if open(&found) {
            return Ok(Ok(()));
        }
        let what = format!("the database {} takes no connections", quote_identifier(asked));
        return Ok(Err(PartMissing::refusal(what)));
    }
    let there = rows.iter().filter(open).filter(|row| text(row, 2) != "t");
    let names: Vec<String> = there.map(|row| text(row, 0).to_owned()).collect();
    let what =
        format!("the cluster had no database {} then; it had {}", quote_identifier(asked), listed(&names));
    Ok(Err(PartMissing::refusal(what)))
}

/// Finds every table of the part.
pub(super) fn select(session: &mut Session, part: &Part) -> Result<Result<Selection, Failure>, PgError> {
    let mut selection = Selection::default();
    if part.tables.is_empty() {
        let rows = session.ask(&format!("SELECT c.oid, c.relkind FROM {ALL} {TABLES} {NO_EXTENSION}"))?;
        let tables = rows.iter().filter_map(|row| Some((number(row, 0)?, text(row, 1) == "r")));
        selection.expected = tables.collect();
        selection.rowless = rowless(session)?;
        return Ok(Ok(selection));
    }
    for asked in &part.tables {
        let (oid, shown) = match find(session, asked)? {
            Ok(found) => found,
            Err(failure) => return Ok(Err(failure)),
        };
        let oids = descend(session, oid, &mut selection.relations)?;
        if selection.relations.len() > MAX_SELECTED {
            let what =
                format!("{shown} and the others have more than {MAX_SELECTED} partitions: leave out --table");
            return Ok(Err(PartMissing::refusal(what)));
        }
        selection.asked.push((shown, oids));
    }
    selection.expected = selection.relations.iter().map(|(oid, found)| (*oid, found.kind == "r")).collect();
    Ok(Ok(selection))
}

/// The tables of this database that come without rows, those of each sort together.
fn rowless(session: &mut Session) -> Result<Vec<Rowless>, PgError> {
    let sql = format!(
        "SELECT * FROM (SELECT c.relkind = 'f', n.nspname, c.relname, \
           count(*) OVER (PARTITION BY c.relkind = 'f') AS total, \
           row_number() OVER (PARTITION BY c.relkind = 'f' ORDER BY n.nspname, c.relname) AS place \
           FROM {ALL} {ROWLESS} {NO_EXTENSION}) r WHERE place <= {MAX_NAMED} ORDER BY 1, place"
    );
    let mut found: Vec<Rowless> = Vec::new();
    for row in session.ask(&sql)? {
        let (foreign, name) = (text(&row, 0) == "t", dotted(&[text(&row, 1), text(&row, 2)]));
        if let Some(sort) = found.last_mut().filter(|sort| sort.foreign == foreign) {
            sort.names.push(name);
        } else {
            let count = number(&row, 3).unwrap_or_default();
            found.push(Rowless { foreign, count, names: vec![name] });
        }
    }
    Ok(found)
}

/// The one relation a text means: `schema.table`, either part in quotes or not, or a table's name that only one schema has.
/// What is not in quotes is taken as it stands, capitals, dots and stars included.
fn find(session: &mut Session, asked: &str) -> Result<Result<(u32, String), Failure>, PgError> {
    let literal = quote_literal(asked);
    let forms = |column: &str| {
        format!(
            "(VALUES ({column}::text), (pg_catalog.quote_ident({column})), \
             ('\"' || pg_catalog.replace({column}::text, '\"', '\"\"') || '\"'))"
        )
    };
    let (schema, table) = (forms("n.nspname"), forms("c.relname"));
    let sql = format!(
        "SELECT * FROM (SELECT c.oid, n.nspname, c.relname, CASE \
           WHEN EXISTS (SELECT FROM {schema} AS s (v), {table} AS t (v) WHERE s.v || '.' || t.v = {literal}) THEN 1 \
           WHEN EXISTS (SELECT FROM {table} AS t (v) WHERE t.v = {literal}) THEN 2 END AS rank FROM {ALL} {NAMED}) r \
         WHERE rank IS NOT NULL ORDER BY rank, nspname, relname LIMIT {}",
        MAX_LISTED + 1,
    );
    let rows = session.ask(&sql)?;
    let best = rows.first().map(|row| text(row, 3).to_owned());
    let found: Vec<&Row> = rows.iter().filter(|row| Some(text(row, 3)) == best.as_deref()).collect();
    let full = |row: &Row| qualified(text(row, 1), text(row, 2));
    let exact = found.iter().find(|row| full(row) == asked);
    if let Some(row) = exact.or_else(|| found.first().filter(|_| found.len() == 1))
        && let Some(oid) = number(row, 0)
    {
        return Ok(Ok((oid, dotted(&[text(row, 1), text(row, 2)]))));
    }
    if !found.is_empty() {
        let names: Vec<String> = found.iter().map(|row| full(row)).collect();
        let what = format!("{} can mean {}", quote_identifier(asked), listed(&names));
        return Ok(Err(PartMissing::refusal(what)));
    }
    let there = format!(
        "SELECT n.nspname, c.relname FROM {ALL} {NAMED} AND c.relkind <> 'S' ORDER BY \
         pg_catalog.lower(c.relname) <> pg_catalog.lower(pg_catalog.regexp_replace({literal}, '^.*\\.', '')), \
         n.nspname, c.relname LIMIT {}",
        MAX_LISTED + 1
    );
    let rows = session.ask(&there)?;
    let names: Vec<String> = rows.iter().map(|row| dotted(&[text(row, 0), text(row, 1)])).collect();
    let what =
        format!("the database had no table {} then; it had {}", quote_identifier(asked), listed(&names));
    Ok(Err(PartMissing::refusal(what)))
}

/// A relation and all that inherit from it, added to those known; gives their object ids.
fn descend(
    session: &mut Session,
    oid: u32,
    relations: &mut BTreeMap<u32, Relation>,
) -> Result<Vec<u32>, PgError> {
    let sql = format!(
        "WITH RECURSIVE tree AS (SELECT {oid}::pg_catalog.oid AS oid UNION SELECT i.inhrelid FROM \
         pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid) \
         SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relispopulated FROM tree \
         JOIN pg_catalog.pg_class c ON c.oid = tree.oid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY c.oid LIMIT {}",
        MAX_SELECTED + 1
    );
    let mut oids = Vec::new();
    for row in session.ask(&sql)? {
        let Some(oid) = number(&row, 0) else { continue };
        oids.push(oid);
        let relation = Relation {
            schema: text(&row, 1).to_owned(),
            name: text(&row, 2).to_owned(),
            kind: text(&row, 3).to_owned(),
            unlogged: text(&row, 4) == "u",
            populated: text(&row, 5) == "t",
        };
        relations.insert(oid, relation);
    }
    Ok(oids)
}

/// Some names for people.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let more = if names.len() > MAX_LISTED { " and more" } else { "" };
    let shown: Vec<&str> = names.iter().take(MAX_LISTED).map(String::as_str).collect();
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let names: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
        assert!(listed(&names).ends_with("t19 and more"), "{}", listed(&names));
        assert_eq!(listed(&names[..2]), "t0, t1");
        assert_eq!(listed(&[]), "none");
    }
}
