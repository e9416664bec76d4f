//! A first policy from what is found in a folder.

use std::fs;
use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::StoreName;
use lifeboat_engine::{EngineError, is_database, keys, policy};
use serde_json::json;

use crate::commands::Outcome;
use crate::output::Output;

const POLICY: &str = "lifeboat.toml";
const KEY: &str = "secrets/lifeboat.key";
/// How many entries of the folder are looked at.
const MAX_ENTRIES: usize = 10_000;
/// How many rows a first policy gets; a person reads it.
const MAX_ROWS: usize = 50;

/// A store found in the folder.
struct Found {
    name: StoreName,
    kind: &'static str,
    path: String,
}

/// What a PostgreSQL server needs, as a script for its superuser.
const POSTGRES: &str = include_str!("init/postgres.sql");
/// What a Redis server needs, as commands for its administrator.
const REDIS: &str = include_str!("init/redis.txt");

/// What an etcd cluster needs, as commands for its administrator.
const ETCD: &str = include_str!("init/etcd.sh");

/// What `init` prints instead for these words: its schema, the key of the text in JSON, and the text.
const SCRIPTS: [(&str, &str, &str, &str); 3] = [
    ("postgres", "lifeboat.init-postgres/v1", "sql", POSTGRES),
    ("redis", "lifeboat.init-redis/v1", "commands", REDIS),
    ("etcd", "lifeboat.init-etcd/v1", "script", ETCD),
];

/// Where servers come from, which no folder shows.
const SERVERS: &str = "for servers run `lifeboat init postgres`, `redis` or `etcd`, and add a row for each as docs/stores.md shows";

/// Writes `lifeboat.toml` and a key file. Refuses to touch what is there already. The words `postgres`, `redis` and `etcd`
/// ask for what such a server needs instead, unless a folder has that name.
pub(crate) fn run(dir: &Path, output: &Output) -> Outcome {
    let script = SCRIPTS.iter().find(|(word, ..)| dir == Path::new(word) && !dir.exists());
    if let Some((_, schema, key, text)) = script {
        output.result(&json!({ "schema": schema, (*key): text }), || (*text).to_owned())?;
        return Ok(None);
    }
    let target = dir.join(POLICY);
    if target.exists() {
        return Err(EngineError::new(FailureKind::Refused, format!("{} exists already", target.display()))
            .next("edit it, then run `lifeboat check`"));
    }
    let stores = look(dir)?;
    if stores.is_empty() {
        return Err(EngineError::new(
            FailureKind::Refused,
            format!("found nothing to protect in {}", dir.display()),
        )
        .next(format!("name a folder that holds SQLite databases or folders of files; {SERVERS}")));
    }
    let text = render(&stores);
    // A policy that does not parse must never be written.
    policy::parse(&text, POLICY).map_err(|errors| {
        Failure::with_source(FailureKind::Internal, "the generated policy is not valid", errors)
    })?;
    let write = |path: &Path, bytes: &[u8]| {
        crashsafe::create_dir_all(path.parent().unwrap_or(dir))
            .and_then(|()| crashsafe::write_new(path, bytes))
            .map_err(|error| Failure::io(format!("failed to write {}", path.display()), error))
    };
    let key = dir.join(KEY);
    if !key.exists() {
        write(&key, keys::generate_key_file(&OsEntropy).expose().as_bytes())?;
    }
    write(&target, text.as_bytes())?;
    let document = json!({
        "schema": "lifeboat.init/v1", "policy": target, "key_file": key,
        "stores": stores.iter().map(|found| json!({ "name": found.name, "kind": found.kind, "path": found.path }))
            .collect::<Vec<_>>(),
    });
    output.result(&document, || {
        let mut lines = vec![format!("wrote {} with {} stores", target.display(), stores.len())];
        lines.extend(stores.iter().map(|found| format!("  {} ({}) at {}", found.name, found.kind, found.path)));
        lines.push(format!("wrote {}: whoever holds it can open the vaults. Keep a copy away from here.", key.display()));
        lines.push("next: read the policy, add a second copy on another disk, then run `lifeboat check` and `lifeboat backup`".to_owned());
        lines.push(SERVERS.to_owned());
        lines.join("\n")
    })?;
    Ok(None)
}

/// SQLite databases by their first bytes, and every other folder as a tree of files.
fn look(dir: &Path) -> Result<Vec<Found>, EngineError> {
    let fail = |error| Failure::io(format!("failed to look through {}", dir.display()), error);
    let mut names: Vec<_> = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)?.take(MAX_ENTRIES) {
        names.push(entry.map_err(fail)?.file_name());
    }
    names.sort();
    let mut found: Vec<Found> = Vec::new();
    for name in names {
        let Some(text) = name.to_str().filter(|text| !text.starts_with('.')) else { continue };
        let kind = match fs::metadata(dir.join(&name)) {
            Ok(meta) if meta.is_dir() && !matches!(text, "state" | "vaults" | "secrets" | "target") => {
                "files"
            }
            Ok(meta) if meta.is_file() && is_database(&dir.join(&name)).unwrap_or(false) => "sqlite",
            _ => continue,
        };
        let Some(store) = store_name(text, &found) else { continue };
        found.push(Found { name: store, kind, path: format!("./{text}") });
        if found.len() == MAX_ROWS {
            break;
        }
    }
    Ok(found)
}

/// A name a store may have, made from a file name, unique among those found.
fn store_name(text: &str, found: &[Found]) -> Option<StoreName> {
    let stem = text.rsplit_once('.').map_or(text, |(stem, _extension)| stem);
    let clean: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(48)
        .collect();
    let clean = clean.trim_matches('-').to_owned();
    (1..=MAX_ROWS)
        .map(|number| if number == 1 { clean.clone() } else { format!("{clean}-{number}") })
        .filter_map(|name| StoreName::new(name).ok())
        .find(|name| found.iter().all(|other| other.name != *name))
}

fn render(stores: &[Found]) -> String {
    let mut text = format!(
        "# What Lifeboat keeps, proves and shows. Every key: docs/policy.md\n\
         version = 1\n\
         timezone = \"UTC\"\n\
         state = \"./state\"                     # catalog, evidence, locks\n\n\
         [keys]                                # who can open the vaults\n\
         recipients = [\"keyfile:./{KEY}\"]\n\n\
         [copy.local]\n\
         url = \"file:./vaults/local\"\n\n\
         # A copy on the same disk dies with it. Mount another one and name it in [defaults] too:\n\
         # [copy.offsite]\n\
         # url = \"file:/mnt/offsite\"\n\
         # region = \"B\"\n\n\
         [defaults]\n\
         rpo = \"24h\"\n\
         rto = \"60m\"\n\
         schedule = \"02:00\"                    # call `lifeboat backup` from cron or a timer at this time\n\
         retention = \"7d 4w 12mo\"\n\
         copies = [\"local\"]\n\
         verify = {{ checksum = \"weekly\", restore = \"monthly\" }}\n"
    );
    for found in stores {
        let path = toml_string(&found.path);
        text.extend([
            "\n[store.",
            found.name.as_str(),
            "]\nkind = \"",
            found.kind,
            "\"\npath = ",
            &path,
            "\n",
        ]);
    }
    // What is not rehearsed is not known: a small store each day, everything each month.
    if let Some(first) = stores.first() {
        text.push_str(
            "\n# Rehearsals: call `lifeboat drill --due` each day; an overdue one breaks the matrix.\n",
        );
        text.extend([
            "[drill.smoke]                         # daily\nstores = [\"",
            first.name.as_str(),
            "\"]\n\n",
        ]);
        text.push_str("[drill.everything]                    # monthly\n");
    }
    text.push_str(
        "\n# Where a store would show that has no row above; one that is found breaks the matrix.\n\
         [inventory]\n\
         folders = [\".\"]                       # databases that are files\n\
         # machine = true                      # servers that run here\n\
         # files = [\"./.env\"]                  # settings of applications, for the addresses in them\n",
    );
    text
}

/// A TOML basic string; file names may hold quotes.
fn toml_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_nothing_to_protect_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        crashsafe::write_new(&dir.path().join("notes.txt"), b"no store").unwrap();
        let error = run(dir.path(), &Output::new(true)).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused);
        assert!(error.failure.to_string().starts_with("found nothing to protect in "), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
