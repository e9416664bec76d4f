//! The schema of one database as a listing of its catalogs: every object of its own that shapes the data.
//!
//! In: a session. Out: text of one line per object, sorted, and its fingerprint. It is for comparing and for reading, not
//! for running. Not in it: large objects, statistics objects, operators, casts, text search, comments, and whatever
//! holds a password (user mappings, options of servers and subscriptions).

use lifeboat_base::digest::Digest;
use lifeboat_postgres::wire::{PgError, Row};

use super::session::Session;

/// What each kind of line is read from. Objects of the server's own schemas and of temporary ones are left out; all
/// object ids below 16384 are the server's own.
const LISTINGS: [(&str, &str); 15] = [
    (
        "schema",
        "SELECT nspname, pg_catalog.pg_get_userbyid(nspowner), nspacl::text FROM pg_catalog.pg_namespace \
         WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
    ),
    (
        "relation",
        "SELECT n.nspname, c.relname, c.relkind, pg_catalog.pg_get_userbyid(c.relowner), c.relpersistence, \
         a.amname, s.spcname, c.reloptions::text, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, \
         c.relacl::text, pg_catalog.pg_get_partkeydef(c.oid), pg_catalog.pg_get_expr(c.relpartbound, c.oid) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam \
         LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace \
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind NOT IN ('i', 'I', 'c')",
    ),
    (
        "parent",
        "SELECT i.inhrelid::pg_catalog.regclass, i.inhseqno, i.inhparent::pg_catalog.regclass \
         FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relkind IN ('r', 'p', 'f') \
         AND c.relpersistence <> 't'",
    ),
    (
        "column",
        "SELECT n.nspname, c.relname, a.attname, a.attnum, pg_catalog.format_type(a.atttypid, a.atttypmod), \
         a.attnotnull, pg_catalog.pg_get_expr(d.adbin, d.adrelid), nullif(a.attidentity::text, ''), \
         nullif(a.attgenerated::text, ''), nullif(a.attcollation, 0)::pg_catalog.regcollation, a.attacl::text \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND a.attnum > 0 AND NOT a.attisdropped \
         AND c.relkind NOT IN ('i', 'I')",
    ),
    (
        "index",
        "SELECT n.nspname, c.relname, pg_catalog.pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident, s.spcname \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace \
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
    ),
    (
        "constraint",
        "SELECT n.nspname, o.conname, nullif(o.conrelid, 0)::pg_catalog.regclass, \
         nullif(o.contypid, 0)::pg_catalog.regtype, \
         pg_catalog.pg_get_constraintdef(o.oid), o.convalidated \
         FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace \
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
    ),
    (
        "view",
        "SELECT n.nspname, c.relname, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('v', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
    ),
    (
        "function",
        "SELECT n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid), \
         pg_catalog.pg_get_function_result(p.oid), p.prokind, l.lanname, p.provolatile, p.proisstrict, p.prosecdef, \
         p.proconfig::text, pg_catalog.pg_get_userbyid(p.proowner), p.proacl::text, pg_catalog.md5(p.prosrc), p.probin \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
    ),
    (
        "trigger",
        "SELECT t.tgrelid::pg_catalog.regclass, t.tgname, pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled \
         FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
         WHERE NOT t.tgisinternal AND c.relpersistence <> 't'",
    ),
    (
        "type",
        "SELECT n.nspname, t.typname, t.typtype, pg_catalog.format_type(nullif(t.typbasetype, 0), t.typtypmod), t.typnotnull, \
         t.typdefault, (SELECT pg_catalog.array_agg(e.enumlabel ORDER BY e.enumsortorder) \
         FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)::text \
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND t.typcategory <> 'A' \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')",
    ),
    (
        "sequence",
        "SELECT s.seqrelid::pg_catalog.regclass, s.seqtypid::pg_catalog.regtype, s.seqstart, s.seqincrement, s.seqmin, \
         s.seqmax, s.seqcache, s.seqcycle FROM pg_catalog.pg_sequence s \
         JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid WHERE c.relpersistence <> 't'",
    ),
    (
        "policy",
        "SELECT p.polrelid::pg_catalog.regclass, p.polname, p.polcmd, p.polpermissive, \
         (SELECT pg_catalog.array_agg(r ORDER BY r) FROM (SELECT coalesce(pg_catalog.pg_get_userbyid(nullif(u, 0)), 'public') \
         FROM pg_catalog.unnest(p.polroles) u) x(r))::text, pg_catalog.pg_get_expr(p.polqual, p.polrelid), \
         pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) FROM pg_catalog.pg_policy p \
         JOIN pg_catalog.pg_class c ON c.oid = p.polrelid WHERE c.relpersistence <> 't'",
    ),
    (
        "rule",
        "SELECT r.ev_class::pg_catalog.regclass, r.rulename, pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled \
         FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class \
         WHERE r.oid >= 16384 AND r.rulename <> '_RETURN' AND c.relpersistence <> 't'",
    ),
    (
        "extension",
        "SELECT e.extname, n.nspname, e.extversion FROM pg_catalog.pg_extension e \
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace",
    ),
    (
        "other",
        "SELECT 'event trigger', evtname, evtevent, evtfoid::pg_catalog.regprocedure::text, evtenabled::text \
         FROM pg_catalog.pg_event_trigger UNION ALL \
         SELECT 'publication', pubname, puballtables::text, \
         (SELECT pg_catalog.string_agg(r.prrelid::pg_catalog.regclass::text, ', ' ORDER BY r.prrelid::pg_catalog.regclass::text) \
         FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid), \
         pg_catalog.concat(pubinsert, pubupdate, pubdelete, pubtruncate) FROM pg_catalog.pg_publication p UNION ALL \
         SELECT 'foreign server', srvname, f.fdwname, NULL, NULL FROM pg_catalog.pg_foreign_server s \
         JOIN pg_catalog.pg_foreign_data_wrapper f ON f.oid = s.srvfdw",
    ),
];

/// Reads the listing. The same schema gives the same text on the same major version, whoever asks.
pub(crate) fn schema_text(session: &mut Session) -> Result<String, PgError> {
    let mut lines = Vec::new();
    for (kind, sql) in LISTINGS {
        lines.extend(session.ask(sql)?.iter().map(|row| line(kind, row)));
    }
    lines.sort_unstable();
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// The fingerprint of a listing.
pub(crate) fn fingerprint(text: &str) -> String {
    format!("sha256:{}", Digest::of(text.as_bytes()))
}

/// `kind name | name | …`; a missing value is `-`, and nothing inside a value can look like the end of it.
fn line(kind: &str, row: &Row) -> String {
    let fields: Vec<String> = (0..row.len()).map(|index| field(row.get(index))).collect();
    format!("{kind} {}", fields.join(" | "))
}

fn field(value: Option<&str>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '|' => text.push_str("\\|"),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    if text.is_empty() || text == "-" { format!("\\{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_look_like_another_line_or_column() {
        assert_eq!(field(Some("a\nb|c\\n\u{1}")), "a\\nb\\|c\\\\n\\u{1}");
        assert_ne!(field(None), field(Some("-")));
        assert_ne!(field(Some("")), field(None));
        assert_ne!(field(Some("\\")), field(Some("")));
    }
}
