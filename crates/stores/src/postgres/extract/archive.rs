//! What an archive of `pg_dump` says it holds.
//!
//! In: the list that `pg_restore --list` wrote, or plain SQL. Out: the first table that is not in it. Entries are known by
//! their object ids: names may hold anything. Memory: one line, and the ids that are still looked for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};

use super::find::Selection;

/// The catalog of tables, as entries name it.
const PG_CLASS: u32 = 1259;
/// The longest line of a list; a name has at most 63 bytes, a line has four.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// How plain SQL ends; what follows is at most a line that locks the script again.
const LAST_WORDS: &[u8] = b"-- PostgreSQL database dump complete";
/// Where the last words are looked for.
const TAIL_BYTES: u64 = 1024;

/// One line of a list: `217; 1259 16389 TABLE public orders postgres`.
fn entry(line: &str) -> Option<(u32, u32, bool)> {
    let (_, rest) = line.split_once("; ")?;
    let mut words = rest.splitn(3, ' ');
    let (catalog, oid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let data = words.next()?.starts_with("TABLE DATA ");
    Some((catalog, oid, data))
}

/// The name of a table of which the list has no definition, or no rows where it has some of its own.
pub(super) fn missing(list: &Path, selection: &Selection) -> Result<Option<String>, Failure> {
    let fail = |error| Failure::io("failed to read the list of the archive", error);
    let mut reader = BufReader::new(File::open(list).map_err(fail)?);
    let (mut definitions, mut contents): (BTreeSet<u32>, BTreeSet<u32>) = selection.expected();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(fail)?;
        if read == 0 {
            break;
        }
        match entry(&String::from_utf8_lossy(&line)) {
            Some((PG_CLASS, oid, _)) => drop(definitions.remove(&oid)),
            Some((_, oid, true)) => drop(contents.remove(&oid)),
            _ => {}
        }
    }
    let definition = definitions.first().map(|oid| selection.name_of(*oid));
    Ok(definition.or_else(|| contents.first().map(|oid| format!("the rows of {}", selection.name_of(*oid)))))
}

/// Plain SQL that does not end as it should was cut off.
pub(super) fn check_end(sql: &Path) -> Result<(), Failure> {
    let fail = |error| Failure::io("failed to read the plain SQL back", error);
    let mut file = File::open(sql).map_err(fail)?;
    let length = file.seek(SeekFrom::End(0)).map_err(fail)?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).map_err(fail)?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).map_err(fail)?;
    if tail.windows(LAST_WORDS.len()).any(|words| words == LAST_WORDS) {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Internal, "the plain SQL is cut off: nothing was published"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_known_by_their_object_ids() {
        assert_eq!(entry("217; 1259 16389 TABLE public a; b postgres\n"), Some((1259, 16389, false)));
        assert_eq!(entry("3360; 0 16389 TABLE DATA public orders postgres"), Some((0, 16389, true)));
        for line in [";", "; Archive created at 2026-11-21", ";     TOC Entries: 12", ""] {
            assert_eq!(entry(line), None, "{line}");
        }
    }

    #[test]
    fn a_table_without_its_rows_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        let selection = Selection::of_oids(&[(5, true), (6, false)]);
        for (text, expected) in [
            ("1; 1259 5 TABLE a b c\n2; 1259 6 VIEW a c c\n3; 0 5 TABLE DATA a b c\n", None),
            ("1; 1259 5 TABLE a b c\n2; 1259 6 VIEW a c c\n", Some("the rows of the table with object id 5")),
            ("1; 1259 5 TABLE a b c\n3; 0 5 TABLE DATA a b c\n", Some("the table with object id 6")),
            ("", Some("the table with object id 5")),
        ] {
            lifeboat_base::crashsafe::replace(&list, text.as_bytes()).unwrap();
            assert_eq!(missing(&list, &selection).unwrap().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn plain_sql_that_is_cut_off_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sql = dir.path().join("x.sql");
        let whole = format!("SELECT 1;\n{}\n", String::from_utf8_lossy(LAST_WORDS));
        for (text, good) in [(whole.as_str(), true), (&whole[..whole.len() - 3], false), ("", false)] {
            lifeboat_base::crashsafe::replace(&sql, text.as_bytes()).unwrap();
            assert_eq!(check_end(&sql).is_ok(), good, "{text}");
        }
    }
}
