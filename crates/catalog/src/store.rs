//! The catalog file: what goes in and what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::ids::{CopyName, PointId, StoreName};
use lifeboat_base::time::Timestamp;
use lifeboat_vault::PointManifest;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use crate::{CatalogError, Holding, PointRow, Proof, RunRow, schema};

/// How long a writer waits for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// An open catalog. Every write is one transaction and durable when it returns.
#[derive(Debug)]
pub struct Catalog {
    connection: Mutex<Connection>,
    path: PathBuf,
}

type Result<T> = std::result::Result<T, CatalogError>;

fn database(action: &'static str) -> impl FnOnce(rusqlite::Error) -> CatalogError {
    move |source| CatalogError::Database { action, source }
}

/// Nanoseconds since 1970; the years 1677 to 2262 fit.
fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::MAX)
}

/// Reads a text column whose value was checked when it was written.
fn parsed<T: std::str::FromStr>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(index)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
    })
}

impl Catalog {
    /// Opens or makes the catalog at `path` (mode 0600). A file of an older version is emptied; the caller sees no
    /// points and rebuilds.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            crashsafe::create_dir_all(folder).map_err(CatalogError::Folder)?;
        }
        if !path.exists() {
            match crashsafe::write_new(path, b"") {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(CatalogError::Folder(error));
                }
                _ => {}
            }
        }
        // One at a time: SQLite does not wait for another process that is switching the journal. The folder is locked, for
        // closing a second descriptor of the file would drop SQLite's own locks on it.
        let folder =
            File::open(path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")))
                .map_err(CatalogError::Folder)?;
        folder.lock().map_err(CatalogError::Folder)?;
        let mut connection = Self::connect(path)?;
        if !schema::prepare(&connection)? {
            drop(connection);
            Self::discard(path)?;
            connection = Self::connect(path)?;
            schema::prepare(&connection)?;
        }
        Ok(Self { connection: Mutex::new(connection), path: path.to_owned() })
    }

    fn connect(path: &Path) -> Result<Connection> {
        let connection = Connection::open(path).map_err(database("open"))?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(database("open"))?;
        Ok(connection)
    }

    /// Removes the file and its journals; what it knew is read again from the vaults.
    pub fn discard(path: &Path) -> Result<()> {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            match fs::remove_file(PathBuf::from(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CatalogError::Folder(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that these copies list the point of this manifest. A copy in which it was found damaged stays marked
    /// until [`Catalog::set_holding`] clears it: being listed proves nothing about the content.
    pub fn put_point(&self, manifest: &PointManifest, copies: &[CopyName], seen: Timestamp) -> Result<()> {
        let text = serde_json::to_string(manifest)
            .map_err(|source| CatalogError::Row { point: manifest.id.to_string(), source })?;
        let mut connection = self.lock();
        let transaction = connection.transaction().map_err(database("write"))?;
        transaction
            .execute(
                "INSERT INTO point (store, id, moment, manifest) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (store, id) DO UPDATE SET moment = ?3, manifest = ?4",
                params![
                    manifest.store.as_str(),
                    manifest.id.as_str(),
                    nanoseconds(manifest.facts.consistency.moment),
                    text
                ],
            )
            .map_err(database("write"))?;
        for copy in copies {
            transaction
                .execute(
                    "INSERT INTO holding (store, point, copy, seen, damaged) VALUES (?1, ?2, ?3, ?4, NULL)
                     ON CONFLICT (store, point, copy) DO UPDATE SET seen = ?4",
                    params![manifest.store.as_str(), manifest.id.as_str(), copy.as_str(), nanoseconds(seen)],
                )
                .map_err(database("write"))?;
        }
        transaction.commit().map_err(database("write"))
    }

    /// Records the state of one point in one copy: undamaged, or why not.
    pub fn set_holding(
        &self,
        store: &StoreName,
        point: &PointId,
        copy: &CopyName,
        seen: Timestamp,
        damaged: Option<&str>,
    ) -> Result<()> {
        self.lock()
            .execute(
                "INSERT INTO holding (store, point, copy, seen, damaged) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (store, point, copy) DO UPDATE SET seen = ?4, damaged = ?5",
                params![store.as_str(), point.as_str(), copy.as_str(), nanoseconds(seen), damaged],
            )
            .map_err(database("write"))?;
        Ok(())
    }

    /// Forgets points that retention dropped, and remembers that they were: they are neither lost nor to be listed again.
    pub fn drop_points<'a>(
        &self,
        store: &StoreName,
        points: impl IntoIterator<Item = &'a PointId>,
    ) -> Result<()> {
        let mut connection = self.lock();
        let transaction = connection.transaction().map_err(database("write"))?;
        for point in points {
            let row = params![store.as_str(), point.as_str()];
            for statement in [
                "DELETE FROM point WHERE store = ?1 AND id = ?2",
                "DELETE FROM holding WHERE store = ?1 AND point = ?2",
                "DELETE FROM proof WHERE store = ?1 AND point = ?2",
                "INSERT OR IGNORE INTO dropped (store, point) VALUES (?1, ?2)",
            ] {
                transaction
                    .prepare_cached(statement)
                    .and_then(|mut statement| statement.execute(row))
                    .map_err(database("write"))?;
            }
        }
        transaction.commit().map_err(database("write"))
    }

    /// Points that retention dropped.
    pub fn dropped(&self, store: &StoreName) -> Result<BTreeSet<PointId>> {
        let connection = self.lock();
        let mut statement =
            connection.prepare("SELECT point FROM dropped WHERE store = ?1").map_err(database("read"))?;
        statement
            .query_map([store.as_str()], |row| parsed(row, 0))
            .and_then(Iterator::collect::<rusqlite::Result<_>>)
            .map_err(database("read"))
    }

    /// Forgets every mark of damage in one copy of a store: its vault was made anew.
    pub fn clear_damage(&self, store: &StoreName, copy: &CopyName) -> Result<()> {
        self.lock()
            .execute(
                "UPDATE holding SET damaged = NULL WHERE store = ?1 AND copy = ?2",
                params![store.as_str(), copy.as_str()],
            )
            .map_err(database("write"))?;
        Ok(())
    }

    /// Records an attempt at a proof; of those with the same outcome the newest is known. One that failed takes nothing back
    /// that was shown before: both stay.
    pub fn put_proof(&self, proof: &Proof) -> Result<()> {
        self.lock()
            .execute(
                "INSERT INTO proof (store, point, copy, level, at, ok, evidence) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (store, point, copy, level, ok) DO UPDATE SET at = ?5, evidence = ?7
                 WHERE excluded.evidence >= proof.evidence",
                params![
                    proof.store.as_str(),
                    proof.point.as_str(),
                    proof.copy.as_str(),
                    proof.level.word(),
                    nanoseconds(proof.at),
                    proof.ok,
                    i64::try_from(proof.evidence).unwrap_or(i64::MAX)
                ],
            )
            .map_err(database("write"))?;
        Ok(())
    }

    /// Records a finished run; the same evidence number again changes nothing.
    pub fn put_run(&self, run: &RunRow) -> Result<()> {
        self.lock()
            .execute(
                "INSERT OR IGNORE INTO run (evidence, kind, store, at, ok, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    i64::try_from(run.evidence).unwrap_or(i64::MAX),
                    run.kind,
                    run.store.as_str(),
                    nanoseconds(run.at),
                    run.ok,
                    run.body.to_string()
                ],
            )
            .map_err(database("write"))?;
        Ok(())
    }

    /// The points of a store, oldest moment first. Cost grows with the number of points of that store.
    pub fn points(&self, store: &StoreName) -> Result<Vec<PointRow>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare("SELECT id, manifest FROM point WHERE store = ?1 ORDER BY moment, id")
            .map_err(database("read"))?;
        let texts = statement
            .query_map([store.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(database("read"))?;
        let mut holdings = Self::holdings(&connection, store)?;
        let mut proofs = Self::proofs(&connection, store)?;
        texts
            .into_iter()
            .map(|(id, text)| {
                let manifest = serde_json::from_str(&text)
                    .map_err(|source| CatalogError::Row { point: id.clone(), source })?;
                Ok(PointRow {
                    manifest,
                    holdings: holdings.remove(&id).unwrap_or_default(),
                    proofs: proofs.remove(&id).unwrap_or_default(),
                })
            })
            .collect()
    }

    fn holdings(connection: &Connection, store: &StoreName) -> Result<BTreeMap<String, Vec<Holding>>> {
        let mut statement = connection
            .prepare("SELECT point, copy, seen, damaged FROM holding WHERE store = ?1 ORDER BY point, copy")
            .map_err(database("read"))?;
        let rows = statement
            .query_map([store.as_str()], |row| {
                let holding =
                    Holding { copy: parsed(row, 1)?, seen: timestamp(row.get(2)?), damaged: row.get(3)? };
                Ok((row.get::<_, String>(0)?, holding))
            })
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(database("read"))?;
        let mut by_point: BTreeMap<String, Vec<Holding>> = BTreeMap::new();
        for (point, holding) in rows {
            by_point.entry(point).or_default().push(holding);
        }
        Ok(by_point)
    }

    fn proofs(connection: &Connection, store: &StoreName) -> Result<BTreeMap<String, Vec<Proof>>> {
        let mut statement = connection
            .prepare(
                "SELECT point, copy, level, at, ok, evidence FROM proof WHERE store = ?1 ORDER BY point, evidence",
            )
            .map_err(database("read"))?;
        let rows = statement
            .query_map([store.as_str()], |row| {
                let evidence: i64 = row.get(5)?;
                Ok(Proof {
                    store: store.clone(),
                    point: parsed(row, 0)?,
                    copy: parsed(row, 1)?,
                    level: parsed(row, 2)?,
                    at: timestamp(row.get(3)?),
                    ok: row.get(4)?,
                    evidence: u64::try_from(evidence).unwrap_or(0),
                })
            })
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(database("read"))?;
        let mut by_point: BTreeMap<String, Vec<Proof>> = BTreeMap::new();
        for proof in rows {
            by_point.entry(proof.point.to_string()).or_default().push(proof);
        }
        Ok(by_point)
    }

    /// The newest run of `kind` on a store in one copy.
    pub fn last_run_in(&self, store: &StoreName, kind: &str, copy: &CopyName) -> Result<Option<RunRow>> {
        self.newest(
            "kind = ?2 AND json_extract(body, '$.copy') = ?3",
            store,
            params![store.as_str(), kind, copy.as_str()],
        )
    }

    /// The newest backup of a store that met damage in a copy.
    pub fn last_damage_met(&self, store: &StoreName) -> Result<Option<RunRow>> {
        self.newest(
            "kind = 'backup' AND json_array_length(body, '$.damaged') > 0",
            store,
            params![store.as_str()],
        )
    }

    /// The newest drill of a store that was not asked for a particular point or copy.
    pub fn last_drill(&self, store: &StoreName, successful: bool) -> Result<Option<RunRow>> {
        self.newest(
            "kind = 'drill' AND json_extract(body, '$.scope') = 'newest' AND (ok OR NOT ?2)",
            store,
            params![store.as_str(), successful],
        )
    }

    /// The newest drill of a store that replayed its log up to a moment that was asked for.
    pub fn last_pitr(&self, store: &StoreName) -> Result<Option<RunRow>> {
        self.newest(
            "kind = 'drill' AND json_extract(body, '$.pitr') IS NOT NULL",
            store,
            params![store.as_str()],
        )
    }

    /// When the newest backups that made a point were filed, the latest filed first whatever their clocks said.
    pub fn capture_times(&self, store: &StoreName, limit: u32) -> Result<Vec<Timestamp>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare(
                "SELECT at FROM run WHERE store = ?1 AND kind = 'backup'
                 AND json_extract(body, '$.point') IS NOT NULL ORDER BY evidence DESC LIMIT ?2",
            )
            .map_err(database("read"))?;
        statement
            .query_map(params![store.as_str(), limit], |row| row.get(0).map(timestamp))
            .and_then(Iterator::collect::<rusqlite::Result<_>>)
            .map_err(database("read"))
    }

    /// The newest drill of a store together with others, at a moment and from copies that nobody chose.
    pub fn last_together(&self, store: &StoreName) -> Result<Option<RunRow>> {
        self.newest(
            "kind = 'drill' AND json_extract(body, '$.together_with') > 0 AND NOT json_extract(body, '$.asked')",
            store,
            params![store.as_str()],
        )
    }

    /// The newest drill at a moment and from copies that nobody chose in which the rule, or the application, of this name was asked of
    /// the store.
    pub fn last_compared(&self, store: &StoreName, name: &str) -> Result<Option<RunRow>> {
        self.newest(
            "kind = 'drill' AND NOT json_extract(body, '$.asked') AND EXISTS (SELECT 1 FROM \
                 json_each(body, '$.agreement') AS rule WHERE json_extract(rule.value, '$.id') IN \
                 ('agreement/' || ?2, 'application/' || ?2))",
            store,
            params![store.as_str(), name],
        )
    }

    /// The newest backup of a store that made a point.
    pub fn last_capture(&self, store: &StoreName) -> Result<Option<RunRow>> {
        self.newest(
            "kind = 'backup' AND json_extract(body, '$.point') IS NOT NULL",
            store,
            params![store.as_str()],
        )
    }

    /// Points that a filed backup names, no vault was seen to list and retention did not drop.
    pub fn lost_points(&self, store: &StoreName) -> Result<Vec<String>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare(
                "SELECT DISTINCT json_extract(body, '$.point') AS id FROM run
                 WHERE store = ?1 AND kind = 'backup' AND id IS NOT NULL
                 AND id NOT IN (SELECT id FROM point WHERE store = ?1)
                 AND id NOT IN (SELECT point FROM dropped WHERE store = ?1) ORDER BY id",
            )
            .map_err(database("read"))?;
        statement
            .query_map([store.as_str()], |row| row.get(0))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
            .map_err(database("read"))
    }

    /// The number of the newest evidence record that was taken over; 0 before the first.
    pub fn last_evidence(&self) -> Result<u64> {
        let newest: Option<i64> = self
            .lock()
            .query_row("SELECT value FROM seen", [], |row| row.get(0))
            .optional()
            .map_err(database("read"))?;
        Ok(newest.and_then(|newest| u64::try_from(newest).ok()).unwrap_or(0))
    }

    /// Records that every evidence record up to `seq` was taken over.
    pub fn set_last_evidence(&self, seq: u64) -> Result<()> {
        self.lock()
            .execute(
                "INSERT INTO seen (id, value) VALUES (1, ?1)
                 ON CONFLICT (id) DO UPDATE SET value = max(value, excluded.value)",
                params![i64::try_from(seq).unwrap_or(i64::MAX)],
            )
            .map_err(database("write"))?;
        Ok(())
    }

    /// Every run of `kind` on a store, oldest first.
    pub fn runs(&self, store: &StoreName, kind: &str) -> Result<Vec<RunRow>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare(
                "SELECT evidence, at, ok, body FROM run WHERE store = ?1 AND kind = ?2 ORDER BY evidence",
            )
            .map_err(database("read"))?;
        statement
            .query_map([store.as_str(), kind], |row| {
                let evidence: i64 = row.get(0)?;
                let body: String = row.get(3)?;
                Ok(RunRow {
                    evidence: u64::try_from(evidence).unwrap_or(0),
                    kind: kind.to_owned(),
                    store: store.clone(),
                    at: timestamp(row.get(1)?),
                    ok: row.get(2)?,
                    body: serde_json::from_str(&body).unwrap_or_default(),
                })
            })
            .and_then(Iterator::collect::<rusqlite::Result<_>>)
            .map_err(database("read"))
    }

    /// What the runs of `kind` on a store say at `path` of their bodies, oldest first: every item of a list, or the one value.
    pub fn said(&self, store: &StoreName, kind: &str, path: &str) -> Result<Vec<Value>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare(
                "SELECT CASE said.type WHEN 'object' THEN said.value WHEN 'array' THEN said.value
                 ELSE json_quote(said.value) END FROM run, json_each(run.body, ?3) AS said
                 WHERE store = ?1 AND kind = ?2 ORDER BY evidence, said.id",
            )
            .map_err(database("read"))?;
        statement
            .query_map([store.as_str(), kind, path], |row| row.get::<_, String>(0))
            .and_then(|rows| {
                rows.map(|text| text.map(|text| serde_json::from_str(&text).unwrap_or_default())).collect()
            })
            .map_err(database("read"))
    }

    /// The newest run of `kind` on a store whose body says something at `path`, whether it succeeded or not.
    pub fn last_saying(&self, store: &StoreName, kind: &str, path: &str) -> Result<Option<RunRow>> {
        let condition = "kind = ?2 AND json_extract(body, ?3) IS NOT NULL";
        self.newest(condition, store, params![store.as_str(), kind, path])
    }

    /// How many runs are known.
    pub fn count_runs(&self) -> Result<usize> {
        self.lock()
            .query_row("SELECT count(*) FROM run", [], |row| row.get::<_, i64>(0))
            .map(|count| usize::try_from(count).unwrap_or(0))
            .map_err(database("read"))
    }

    /// How many bytes the newest drills of a store restored, and in how many seconds they were back and checked; the newest
    /// `limit` of those that were.
    pub fn restore_times(&self, store: &StoreName, limit: u32) -> Result<Vec<(u64, f64)>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare(
                "SELECT json_extract(body, '$.store.bytes'), json_extract(body, '$.store.rto_s') FROM run
                 WHERE store = ?1 AND kind = 'drill' AND json_extract(body, '$.store.rto_s') IS NOT NULL
                   AND json_extract(body, '$.store.bytes') IS NOT NULL
                 ORDER BY evidence DESC LIMIT ?2",
            )
            .map_err(database("read"))?;
        let rows = statement
            .query_map(params![store.as_str(), limit], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, f64>(1)?))
            })
            .map_err(database("read"))?;
        rows.map(|row| row.map(|(bytes, seconds)| (u64::try_from(bytes).unwrap_or(0), seconds)))
            .collect::<std::result::Result<_, _>>()
            .map_err(database("read"))
    }

    /// The newest run of `kind` on a store, or the newest that succeeded.
    pub fn last_run(&self, store: &StoreName, kind: &str, successful: bool) -> Result<Option<RunRow>> {
        self.newest("kind = ?2 AND (ok OR NOT ?3)", store, params![store.as_str(), kind, successful])
    }

    /// The newest run of a store, its parameter 1, for which `condition` holds.
    fn newest(
        &self,
        condition: &str,
        store: &StoreName,
        values: impl rusqlite::Params,
    ) -> Result<Option<RunRow>> {
        let query = format!(
            "SELECT evidence, kind, at, ok, body FROM run WHERE store = ?1 AND {condition} ORDER BY evidence DESC LIMIT 1"
        );
        self.lock()
            .query_row(&query, values, |row| {
                let evidence: i64 = row.get(0)?;
                let body: String = row.get(4)?;
                Ok(RunRow {
                    evidence: u64::try_from(evidence).unwrap_or(0),
                    kind: row.get(1)?,
                    store: store.clone(),
                    at: timestamp(row.get(2)?),
                    ok: row.get(3)?,
                    body: serde_json::from_str(&body).unwrap_or_default(),
                })
            })
            .optional()
            .map_err(database("read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProofLevel;

    #[test]
    fn an_older_attempt_never_hides_a_newer_one_and_a_failure_takes_nothing_back() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let proof = |evidence, ok| Proof {
            store: StoreName::new("orders").unwrap(),
            point: PointId::new("pt-1").unwrap(),
            copy: CopyName::new("local").unwrap(),
            level: ProofLevel::Readable,
            at: Timestamp::from_second(evidence).unwrap(),
            ok,
            evidence: evidence.unsigned_abs(),
        };
        let known = || {
            let proofs = Catalog::proofs(&catalog.lock(), &StoreName::new("orders").unwrap()).unwrap();
            proofs["pt-1"].clone()
        };
        catalog.put_proof(&proof(3, false)).unwrap();
        for evidence in [2, 1] {
            catalog.put_proof(&proof(evidence, true)).unwrap();
        }
        assert_eq!(known(), [proof(2, true), proof(3, false)]);
        catalog.put_proof(&proof(4, true)).unwrap();
        assert_eq!(known(), [proof(3, false), proof(4, true)]);
    }

    #[test]
    fn several_may_make_it_at_once() {
        const AT_ONCE: usize = 8;
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let (path, start) = (dir.path().join("catalog.db"), std::sync::Barrier::new(AT_ONCE));
            std::thread::scope(|scope| {
                for _ in 0..AT_ONCE {
                    scope.spawn(|| {
                        start.wait();
                        Catalog::open(&path).unwrap();
                    });
                }
            });
        }
    }

    #[test]
    fn runs_are_found_by_kind_and_success() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let store = StoreName::new("orders").unwrap();
        let run = |evidence, ok| RunRow {
            evidence,
            kind: "drill".to_owned(),
            store: store.clone(),
            at: Timestamp::from_second(evidence.cast_signed()).unwrap(),
            ok,
            body: serde_json::json!({ "n": evidence }),
        };
        for entry in [run(1, true), run(2, false), run(2, false)] {
            catalog.put_run(&entry).unwrap();
        }
        assert_eq!(catalog.last_run(&store, "drill", false).unwrap(), Some(run(2, false)));
        assert_eq!(catalog.last_run(&store, "drill", true).unwrap(), Some(run(1, true)));
        assert_eq!(catalog.last_run(&store, "backup", false).unwrap(), None);
    }

    #[test]
    fn a_file_from_a_newer_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        drop(Catalog::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Catalog::open(&path), Err(CatalogError::Newer { found: 99, .. })));
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error_and_not_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        crashsafe::write_new(&path, &[7u8; 4096]).unwrap();
        assert!(matches!(Catalog::open(&path), Err(CatalogError::Database { .. })));
    }
}
