//! The pages of a bundle people and spreadsheets read: `index.md`, `index.json`, `records.csv`, `VERIFY.md`.
//!
//! In: rows of verified records. Out: text in which no record can start a formula, a table cell or a terminal
//! command.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use lifeboat_base::digest::Digest;
use lifeboat_base::human::{count, markdown as escaped, spreadsheet};
use lifeboat_base::time::Timestamp;
use lifeboat_keys::PublicKey;

use crate::files::{RECORDS, record_name};
use crate::record::{Head, tool};

const INDEX_SCHEMA: &str = "lifeboat.evidence-index/v1";
/// The verifier that goes into every bundle: Python and its `cryptography` package, nothing of ours.
pub(crate) const VERIFIER: &str = include_str!("verify_bundle.py");
/// A spreadsheet cell holds 32767 characters; a longer body is named, not cut.
const MAX_CELL_BYTES: usize = 32_000;
const CSV_HEADER: &str = "seq,at,kind,subject,tool,digest,file,body\r\n";

/// One record of a bundle, without its body.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) tool: String,
    pub(crate) digest: Digest,
    pub(crate) file: String,
}

/// What the pages say about the whole bundle.
pub(crate) struct Cover<'a> {
    pub(crate) at: Timestamp,
    pub(crate) public: &'a PublicKey,
    pub(crate) head: Head,
    pub(crate) filter: String,
    pub(crate) rows: &'a [Row],
}

impl Row {
    pub(crate) fn file_of(seq: u64) -> String {
        format!("{RECORDS}/{}", record_name(seq))
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", spreadsheet(text).replace('"', "\"\""))
}

/// The table for spreadsheets, grown record by record.
pub(crate) struct Csv(String);

impl Csv {
    pub(crate) fn new() -> Self {
        Self(CSV_HEADER.to_owned())
    }

    pub(crate) fn push(&mut self, row: &Row, body: &Value) {
        let mut body = body.to_string();
        if body.len() > MAX_CELL_BYTES {
            body = format!("see {}", row.file);
        }
        let cells = [
            row.seq.to_string(),
            row.at.to_string(),
            quoted(&row.kind),
            quoted(&row.subject),
            quoted(&row.tool),
            row.digest.to_string(),
            quoted(&row.file),
            quoted(&body),
        ];
        self.0.push_str(&cells.join(","));
        self.0.push_str("\r\n");
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// A document for programs; the bodies stay in the record files.
pub(crate) fn json(cover: &Cover<'_>) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Index<'a> {
        schema: &'static str,
        at: Timestamp,
        public_key: &'a PublicKey,
        head: Head,
        records: &'a [Row],
    }
    let index = Index {
        schema: INDEX_SCHEMA,
        at: cover.at,
        public_key: cover.public,
        head: cover.head,
        records: cover.rows,
    };
    let mut bytes = serde_json::to_vec_pretty(&index)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The page to open first.
pub(crate) fn markdown(cover: &Cover<'_>) -> String {
    let Cover { at, public, head, filter, rows } = cover;
    let included = rows.len() as u64;
    let mut out = format!(
        "# Evidence bundle\n\n\
         - Made at {at} by {}\n\
         - Signing key: `{public}` (key id `{}`)\n\
         - The chain ends with record {}, written at {}, SHA-256 `{}`\n\
         - In this bundle: {} of {} records ({})\n\
         - How to check that nothing was altered: `VERIFY.md`\n\n\
         | record | time (UTC) | kind | subject | SHA-256 of the file |\n|---:|---|---|---|---|\n",
        tool(),
        public.key_id(),
        head.seq,
        head.at,
        head.digest,
        count(included),
        count(head.seq),
        escaped(filter),
    );
    for row in *rows {
        // Writing into a string cannot fail.
        let _ok = writeln!(
            out,
            "| [{}]({}) | {} | {} | {} | `{}` |",
            row.seq,
            row.file,
            row.at,
            escaped(&row.kind),
            escaped(&row.subject),
            row.digest
        );
    }
    out
}

/// The page for the outsider who checks.
pub(crate) fn instructions(cover: &Cover<'_>) -> String {
    let Cover { public, head, rows, .. } = cover;
    let (seq, digest, included) = (head.seq, head.digest, rows.len() as u64);
    let key_id = public.key_id();
    let omitted = head.seq.saturating_sub(included);
    format!(
        "# How to check this bundle\n\n\
         You need no account, no network and none of our software.\n\n\
         1. Get the signing key from the people who gave you this bundle, **by another way** (a contract, a call, a \
         page you trust). It must be\n\n   `{public}`\n\n   with key id `{key_id}`. The copy in `public.key` proves \
         nothing: whoever alters the bundle can alter it too.\n\
         2. Run either of these in this directory, with the key you got:\n\n\
         \u{20}\u{20}\u{20}```\n\
         \u{20}\u{20}\u{20}python3 verify.py . '{public}'      # Python 3.9 or later with the package `cryptography`\n\
         \u{20}\u{20}\u{20}lifeboat evidence verify --dir . --public-key '{public}'\n\
         \u{20}\u{20}\u{20}```\n\n   `verify.py` is short: read it first, or take it from the project instead of from \
         here.\n\
         3. It must say that {included} records are authentic, {omitted} are left out, and that the chain ends with \
         record {seq}, SHA-256 `{digest}`. If you were given an earlier bundle of the same chain, its list must be the \
         beginning of this one.\n\n\
         ## What is proved\n\n\
         - Each `records/NNNNNNNN.json` is a DSSE v1 document: `payload` (base64) was signed with ed25519 as \
         `DSSEv1 SP len(type) SP type SP len(payload) SP payload`.\n\
         - `previous` in each record is the SHA-256 of the whole file of the record before it. `bundle.json`, signed \
         with the same key, lists the SHA-256 of every record of the chain, those left out of the bundle included, so \
         that none can be altered, dropped, added or moved without a trace.\n\
         - `index.md`, `index.json`, `records.csv` repeat the records for reading; `bundle.json` lists their SHA-256.\n\n\
         ## What is not proved\n\n\
         - That the holder of the signing key told the truth, or that the clock was right.\n\
         - That no later records exist: ask for the current head and compare.\n"
    )
}
