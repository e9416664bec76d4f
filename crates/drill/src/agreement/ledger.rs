//! The scratch database of a comparison: what both sides of each rule said, and the questions to it.
//!
//! Memory: SQLite's page cache, 16 MiB. Disk: names and values once, in the sandbox.

use std::path::Path;
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::Timestamp;
use lifeboat_stores::{CheckResult, CheckState, Selected};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::{Expect, FAMILY, Rule, database};

/// Differences that are spelled out; the others are counted.
const MAX_DETAILS: i64 = 10;
/// Longer names are cut where a person reads them.
const MAX_SHOWN_BYTES: usize = 200;
const CACHE_KIB: i64 = 16 * 1024;
const LEFT: i64 = 0;
const RIGHT: i64 = 1;

/// What a name begins with that did not have what should stand before or after it.
pub(super) const LEFT_MARK: &[u8] = b"\0left\0";
pub(super) const RIGHT_MARK: &[u8] = b"\0right\0";
/// Clocks of stores that differ from ours by less are not worth a word.
const CLOCK_TOLERANCE_US: i64 = 2_000_000;

/// The moments that the two stores of a rule show, and until when each may hold what was written.
pub(super) struct Moments {
    pub(super) left: Timestamp,
    pub(super) left_until: Timestamp,
    pub(super) right: Timestamp,
    pub(super) right_until: Timestamp,
}

/// Times that explain why one side does not know something: after the moment of the one that does not, and not after all that
/// the other can hold. Nothing was written in the future.
#[derive(Clone, Copy)]
struct Window {
    after: i64,
    until: i64,
}

impl Window {
    fn new(unaware: Timestamp, until: Timestamp, within: i64) -> Self {
        let until = until.as_microsecond().saturating_add(within).saturating_add(CLOCK_TOLERANCE_US);
        Self { after: unaware.as_microsecond().saturating_sub(within), until }
    }
}

/// Adds what one side of a rule said.
type Add<'a> = dyn FnMut(usize, i64, &[u8], &Selected) -> Result<(), Failure> + 'a;

pub(super) struct Ledger(Connection);

fn scratch(error: rusqlite::Error) -> Failure {
    Failure::with_source(FailureKind::Internal, "failed to compare the stores in the scratch database", error)
}

impl Ledger {
    pub(super) fn make(folder: &Path) -> Result<Self, Failure> {
        let made = || {
            let connection = Connection::open(database(folder))?;
            connection.pragma_update(None, "journal_mode", "OFF")?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            // A name that comes twice was there since the older of its times; without one of them that is unknown.
            connection.execute_batch(
                "CREATE TABLE said(rule INTEGER, side INTEGER, name BLOB, value BLOB, at INTEGER, twice INTEGER DEFAULT 0,
                                   PRIMARY KEY(rule, side, name)) WITHOUT ROWID;",
            )?;
            Ok(Self(connection))
        };
        made().map_err(scratch)
    }

    /// Keeps what `read` adds. The inner error is the reader's.
    pub(super) fn fill<T>(
        &mut self,
        read: impl FnOnce(&mut Add<'_>) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, Failure> {
        let transaction = self.0.unchecked_transaction().map_err(scratch)?;
        let result = {
            let mut insert = transaction
                .prepare(
                    "INSERT INTO said(rule, side, name, value, at) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET
                        twice = twice OR (value IS NOT excluded.value),
                        at = CASE WHEN at IS NULL OR excluded.at IS NULL THEN NULL ELSE min(at, excluded.at) END",
                )
                .map_err(scratch)?;
            read(&mut |number, side, name, found| {
                let at = found.at.map(Timestamp::as_microsecond);
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                insert.execute(params![number, side, name, found.value, at]).map(drop).map_err(scratch)
            })
        };
        transaction.commit().map_err(scratch)?;
        Ok(result)
    }

    pub(super) fn judge(
        &self,
        rule: &Rule,
        number: usize,
        moments: &Moments,
    ) -> Result<CheckResult, Failure> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let judged = match rule.expect {
            Expect::Newest => self.newest(rule, number, moments),
            Expect::Exists | Expect::Same => self.compared(rule, number, moments),
        };
        judged.map_err(scratch)
    }

    /// Whether the rule fails once one thing is taken away on the right, or added there, or made older.
    pub(super) fn notices(&mut self, rule: &Rule, number: usize, moments: &Moments) -> Result<bool, Failure> {
        let own = i64::try_from(number).unwrap_or(i64::MAX);
        let damages: &[&str] = match rule.expect {
            // What was written longest ago, and so cannot be explained by the time between the stores.
            Expect::Exists => &[OLDEST_GONE],
            Expect::Same if self.compares_values(own).map_err(scratch)? => {
                &[OLDEST_GONE, ONE_MORE, OTHER_VALUE]
            }
            Expect::Same => &[OLDEST_GONE, ONE_MORE],
            Expect::Newest => &[NEWEST_AGED],
        };
        for damage in damages {
            // Without a journal nothing can be rolled back: what was there is kept and put back.
            self.0
                .execute_batch("CREATE TEMP TABLE kept AS SELECT * FROM said WHERE 0")
                .and_then(|()| {
                    self.0.execute("INSERT INTO kept SELECT * FROM said WHERE rule = ?1 AND side = 1", [own])
                })
                .map_err(scratch)?;
            let aged = moments.left.min(moments.right).as_microsecond()
                - i64::try_from(rule.within.as_micros()).unwrap_or(i64::MAX / 4)
                - apart(moments)
                - 365 * 86_400_000_000;
            let changed = if *damage == NEWEST_AGED {
                self.0.execute(damage, params![own, aged])
            } else {
                self.0.execute(damage, params![own])
            };
            let changed = changed.map_err(scratch)?;
            let state = self.judge(rule, number, moments)?.state;
            self.0
                .execute("DELETE FROM said WHERE rule = ?1 AND side = 1", [own])
                .and_then(|_| self.0.execute("INSERT INTO said SELECT * FROM kept", []))
                .and_then(|_| self.0.execute("DROP TABLE kept", []))
                .map_err(scratch)?;
            if changed == 0 || state != CheckState::Failed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn count(&self, number: i64, side: i64) -> rusqlite::Result<i64> {
        let sql = "SELECT count(*) FROM said WHERE rule = ?1 AND side = ?2";
        self.0.query_row(sql, [number, side], |row| row.get(0))
    }

    fn compared(&self, rule: &Rule, number: i64, moments: &Moments) -> rusqlite::Result<CheckResult> {
        let (left, right) = (self.count(number, LEFT)?, self.count(number, RIGHT)?);
        let both = rule.expect == Expect::Same;
        if left == 0 && (right == 0 || !both) {
            let why = format!("there is nothing in `{}` to look for", rule.left.store);
            return Ok(outcome(rule, CheckState::NotApplicable, "nothing".to_owned(), vec![why], 0));
        }
        let mut differences = Differences::default();
        let within = i64::try_from(rule.within.as_micros()).unwrap_or(i64::MAX / 4);
        let window = Window::new(moments.right, moments.left_until, within);
        self.missing(number, (LEFT, RIGHT), window, &mut differences, |name| {
            format!("{name} of {} is not in {}", rule.left.store, rule.right.store)
        })?;
        if both {
            let window = Window::new(moments.left, moments.right_until, within);
            self.missing(number, (RIGHT, LEFT), window, &mut differences, |name| {
                format!("{name} of {} is not in {}", rule.right.store, rule.left.store)
            })?;
            let (valued_left, valued_right) = (self.valued(number, LEFT)?, self.valued(number, RIGHT)?);
            if differences.failed == 0 && valued_left != valued_right {
                let store = if valued_left { &rule.right.store } else { &rule.left.store };
                let why = format!("{store} gives no values, so none was compared");
                return Ok(outcome(rule, CheckState::NotApplicable, "no values".to_owned(), vec![why], 0));
            }
            if valued_left && valued_right {
                let unaware = moments.left.min(moments.right);
                let until = moments.left_until.max(moments.right_until);
                self.other(number, Window::new(unaware, until, within), &mut differences)?;
            }
        }
        let Differences { failed, allowed, detail, again } = differences;
        let mut measured = format!("{left} in {} and {right} in {}", rule.left.store, rule.right.store);
        if failed > 0 {
            measured = format!("{measured}, {failed} differ");
        }
        if allowed > 0 {
            measured = format!(
                "{measured}, {allowed} explained by the {} between the two: to be made again",
                span(apart(moments).saturating_add(within))
            );
        }
        let mut lines = detail;
        lines.extend(again.into_iter().map(|line| format!("to be made again: {line}")));
        if failed > 0 && moments.left != moments.right && self.untimed(number)? {
            let hint = format!(
                "{} shows {}, {} shows {}: a column `at` would tell what was written between the two",
                rule.left.store, moments.left, rule.right.store, moments.right
            );
            lines.push(hint);
        }
        let state = if failed == 0 { CheckState::Passed } else { CheckState::Failed };
        Ok(outcome(rule, state, measured, lines, failed))
    }

    /// What one side has and the other has not. What was written within the window is explained.
    fn missing(
        &self,
        number: i64,
        (one, other): (i64, i64),
        window: Window,
        into: &mut Differences,
        say: impl Fn(&str) -> String,
    ) -> rusqlite::Result<()> {
        const FROM: &str = "FROM said AS one WHERE rule = ?1 AND side = ?2 AND NOT EXISTS
            (SELECT 1 FROM said AS other WHERE other.rule = ?1 AND other.side = ?3 AND other.name = one.name)";
        let explained = "AND at > ?4 AND at <= ?5";
        let not = "AND (at IS NULL OR at <= ?4 OR at > ?5)";
        for (condition, allowed) in [(not, false), (explained, true)] {
            let bounds = params![number, one, other, window.after, window.until];
            self.differing(&format!("{FROM} {condition}"), bounds, into.part(allowed), &say)?;
        }
        Ok(())
    }

    /// Names that both have, with other values; or that came twice with two. One that was written again within the window is
    /// explained.
    fn other(&self, number: i64, window: Window, into: &mut Differences) -> rusqlite::Result<()> {
        const FROM: &str = "FROM said AS one JOIN said AS other USING (rule, name)
            WHERE rule = ?1 AND one.side = 0 AND other.side = 1
                AND (one.twice OR other.twice OR one.value IS NOT other.value)";
        let fresh = "coalesce(max(coalesce(one.at, other.at), coalesce(other.at, one.at)) > ?2
            AND max(coalesce(one.at, other.at), coalesce(other.at, one.at)) <= ?3, 0)";
        for (condition, allowed) in [(format!("AND NOT {fresh}"), false), (format!("AND {fresh}"), true)] {
            let bounds = params![number, window.after, window.until];
            let say = |name: &str| format!("{name} has another value");
            self.differing(&format!("{FROM} {condition}"), bounds, into.part(allowed), &say)?;
        }
        Ok(())
    }

    /// Counts the names that differ, and says the first of them. `from` is a `FROM` with its `WHERE`, and has `bounds`.
    fn differing(
        &self,
        from: &str,
        bounds: &[&dyn ToSql],
        (count, lines): (&mut u64, &mut Vec<String>),
        say: &dyn Fn(&str) -> String,
    ) -> rusqlite::Result<()> {
        let total: i64 = self.0.query_row(&format!("SELECT count(*) {from}"), bounds, |row| row.get(0))?;
        *count += total.unsigned_abs();
        let mut statement =
            self.0.prepare(&format!("SELECT name {from} ORDER BY name LIMIT {MAX_DETAILS}"))?;
        let mut rows = statement.query(bounds)?;
        while let Some(row) = rows.next()? {
            lines.push(say(&name(row)?));
        }
        Ok(())
    }

    /// Whether a side gives any value.
    fn valued(&self, number: i64, side: i64) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM said WHERE rule = ?1 AND side = ?2 AND value IS NOT NULL LIMIT 1";
        self.0.query_row(sql, [number, side], |_row| Ok(())).optional().map(|found| found.is_some())
    }

    fn compares_values(&self, number: i64) -> rusqlite::Result<bool> {
        Ok(self.valued(number, LEFT)? && self.valued(number, RIGHT)?)
    }

    /// Whether any side says nothing about time.
    fn untimed(&self, number: i64) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM said WHERE rule = ?1 AND at IS NULL LIMIT 1";
        self.0.query_row(sql, [number], |_row| Ok(())).optional().map(|found| found.is_some())
    }

    fn newest(&self, rule: &Rule, number: i64, moments: &Moments) -> rusqlite::Result<CheckResult> {
        // Only what both could know: one row from the future must not speak for a thousand that are lost.
        let sql = "SELECT max(at) FROM said WHERE rule = ?1 AND side = ?2 AND at <= ?3";
        let until = moments.left.min(moments.right).as_microsecond();
        let newest = |side| self.0.query_row(sql, [number, side, until], |row| row.get::<_, Option<i64>>(0));
        let (Some(left), Some(right)) = (newest(LEFT)?, newest(RIGHT)?) else {
            let why = "a side has no times before the moment both show: give it a column `at`".to_owned();
            return Ok(outcome(rule, CheckState::NotApplicable, "no times".to_owned(), vec![why], 0));
        };
        let found = left.abs_diff(right);
        let within = i64::try_from(rule.within.as_micros()).unwrap_or(i64::MAX / 4);
        let allowed = within.unsigned_abs();
        let measured = format!("{} apart", span(i64::try_from(found).unwrap_or(i64::MAX)));
        let fails = found > allowed;
        let state = if fails { CheckState::Failed } else { CheckState::Passed };
        let detail = if fails {
            let allowed = span(i64::try_from(allowed).unwrap_or(i64::MAX));
            vec![format!("the newest of {} and {} may be {allowed} apart", rule.left.store, rule.right.store)]
        } else {
            Vec::new()
        };
        Ok(outcome(rule, state, measured, detail, u64::from(fails)))
    }
}

/// Takes away on the right what both have and was written longest ago.
const OLDEST_GONE: &str = "DELETE FROM said WHERE rule = ?1 AND side = 1 AND name =
    (SELECT one.name FROM said AS one JOIN said AS other USING (rule, name)
     WHERE rule = ?1 AND one.side = 0 AND other.side = 1 ORDER BY one.at NULLS FIRST LIMIT 1)";
/// Adds on the right what nobody has.
const ONE_MORE: &str = "INSERT INTO said(rule, side, name) VALUES (?1, 1, randomblob(32))";
/// Gives something that both have another value on the right, the one that was written longest ago.
const OTHER_VALUE: &str =
    "UPDATE said SET value = x'00' || coalesce(value, x'00') WHERE rule = ?1 AND side = 1 AND name =
    (SELECT one.name FROM said AS one JOIN said AS other USING (rule, name)
     WHERE rule = ?1 AND one.side = 0 AND other.side = 1 ORDER BY one.at NULLS FIRST LIMIT 1)";
/// Makes everything on the right older than any rule allows.
const NEWEST_AGED: &str = "UPDATE said SET at = min(at, ?2) WHERE rule = ?1 AND side = 1";

#[derive(Default)]
struct Differences {
    failed: u64,
    allowed: u64,
    detail: Vec<String>,
    again: Vec<String>,
}

impl Differences {
    /// What is allowed, or what is not: how many there are, and the first of them in words.
    fn part(&mut self, allowed: bool) -> (&mut u64, &mut Vec<String>) {
        if allowed { (&mut self.allowed, &mut self.again) } else { (&mut self.failed, &mut self.detail) }
    }
}

fn apart(moments: &Moments) -> i64 {
    let apart = moments.left.as_microsecond().abs_diff(moments.right.as_microsecond());
    i64::try_from(apart).unwrap_or(i64::MAX / 4)
}

fn span(microseconds: i64) -> String {
    let seconds = Duration::from_micros(microseconds.unsigned_abs()).as_secs_f64();
    format!("{seconds:.1} s")
}

fn name(row: &Row<'_>) -> rusqlite::Result<String> {
    let name: Vec<u8> = row.get(0)?;
    let marked = [LEFT_MARK, RIGHT_MARK].iter().find_map(|mark| name.strip_prefix(*mark));
    let without = if marked.is_some() { " (without its prefix or suffix)" } else { "" };
    let name = marked.map(<[u8]>::to_vec).unwrap_or(name);
    let cut = name.len() > MAX_SHOWN_BYTES;
    let head = String::from_utf8_lossy(name.get(..MAX_SHOWN_BYTES).unwrap_or(&name)).into_owned();
    let shown = lifeboat_base::human::printable(&head);
    Ok(if cut { format!("`{shown}…`{without}") } else { format!("`{shown}`{without}") })
}

/// What a rule asks for, for people.
pub(super) fn expected(rule: &Rule) -> String {
    let (left, right) = (&rule.left.store, &rule.right.store);
    match rule.expect {
        Expect::Exists => format!("everything that {left} names is in {right}"),
        Expect::Same => format!("{left} and {right} have the same"),
        Expect::Newest => format!("the newest of {left} and {right} are equally old"),
    }
}

fn outcome(
    rule: &Rule,
    state: CheckState,
    measured: String,
    detail: Vec<String>,
    differences: u64,
) -> CheckResult {
    CheckResult {
        id: format!("{FAMILY}/{}", rule.name),
        state,
        measured,
        expected: expected(rule),
        detail,
        differences,
    }
}
