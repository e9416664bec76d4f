//! Reads what is particular to one row: its kind, where it is, and its checks.

mod etcd;
mod redis;
mod vector;

use std::ops::Range;

use lifeboat_base::secret::SecretRef;
use toml::Spanned;
use toml::de::DeValue;

use crate::keys::{self, Key};
use crate::kind::Kind;
use crate::mask;
use crate::model::{Checks, Endpoint, RedisCapture, Source};
use crate::reader::{Context, Field, Section};
use crate::suggest;
use crate::value::InvalidValue;

pub(crate) use redis::MAX_COUNT;

/// The kind of a row; `None` when it is missing or unknown, which has been reported.
pub(crate) fn kind(section: &Section<'_>, context: &mut Context) -> Option<Kind> {
    match section.parsed("kind", "unknown-kind", context, str::parse::<Kind>) {
        Field::Set(kind, _) => Some(kind),
        Field::Broken => None,
        Field::Absent => {
            let words: Vec<&str> = Kind::all().iter().map(|kind| kind.word()).collect();
            let help = format!("add `kind = \"…\"`; the kinds are {}", suggest::list(&words));
            context.absent("missing-key", &section.at, format!("{} has no `kind`", section.title()), help);
            None
        }
    }
}

/// Reports keys that no row has, and keys that rows of this kind do not have.
pub(crate) fn refuse_foreign_keys(section: &Section<'_>, kind: Option<Kind>, context: &mut Context) {
    let here = keys::of_store(kind);
    let anywhere = keys::of_store(None);
    section.refuse_unless(&anywhere, &here, context);
    let Some(kind) = kind else { return };
    for (name, at, _) in section.entries() {
        let known = |list: &[&Key]| list.iter().any(|key| key.name == name);
        if known(&anywhere) && !known(&here) {
            let own: Vec<&str> = here
                .iter()
                .map(|key| key.name)
                .filter(|name| !keys::PROMISES.iter().chain(keys::STORE).any(|key| key.name == *name))
                .collect();
            context.error(
                "foreign-key",
                &at,
                format!("`{name}` does not belong to a store of kind `{kind}`"),
                format!("besides its promises it can have {}", suggest::list(&own)),
            );
        }
    }
}

/// How a row of kind `redis` is captured; nothing for other kinds, and where it is not known.
pub(crate) fn capture(section: &Section<'_>, kind: Option<Kind>) -> Option<RedisCapture> {
    redis::capture(section).filter(|_way| kind == Some(Kind::Redis))
}

/// Where the store is.
pub(crate) fn source(section: &Section<'_>, kind: Kind, context: &mut Context) -> Option<Source> {
    if kind == Kind::Etcd {
        return etcd::source(section, context);
    }
    if kind == Kind::Redis {
        return redis::source(section, context);
    }
    if kind == Kind::Vector {
        return vector::source(section, context);
    }
    if !kind.is_path() {
        return url(section, kind, context).map(Source::Url);
    }
    let path = required(section, "path", kind, context).map(|(path, _)| path.to_owned());
    if kind == Kind::Sqlite {
        return Some(Source::Sqlite { path: path? });
    }
    let exclude = exclude(section, context);
    let one_file_system = match section.switch("one_file_system", context) {
        Field::Absent => Some(false),
        Field::Broken => None,
        Field::Set(on, _) => Some(on),
    };
    Some(Source::Files { path: path?, exclude: exclude?, one_file_system: one_file_system? })
}

fn required<'a>(
    section: &Section<'a>,
    key: &str,
    kind: Kind,
    context: &mut Context,
) -> Option<(&'a str, Range<usize>)> {
    match section.filled(key, context) {
        Field::Set(text, at) => Some((text, at)),
        Field::Broken => None,
        Field::Absent => {
            let message = format!("{} has no `{key}`", section.title());
            let help = format!("a store of kind `{kind}` needs `{key} = \"…\"`");
            context.absent("missing-key", &section.at, message, help);
            None
        }
    }
}

fn exclude(section: &Section<'_>, context: &mut Context) -> Option<Vec<String>> {
    let globs = match section.texts("exclude", context) {
        Field::Absent => return Some(Vec::new()),
        Field::Broken => return None,
        Field::Set(globs, _) => globs,
    };
    let mut whole = true;
    for (glob, at) in &globs {
        if let Some(bracket) = unclosed(glob) {
            let message = format!("`{glob}` is not a glob: `{bracket}` is never closed");
            context.error("bad-glob", at, message, "close the bracket, or escape it with `\\`");
            whole = false;
        }
    }
    whole.then(|| globs.into_iter().map(|(glob, _)| glob.to_owned()).collect())
}

/// The first bracket of a glob that is never closed.
fn unclosed(glob: &str) -> Option<char> {
    let mut characters = glob.chars();
    let mut braces = 0u32;
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '[' => {
                // The first character of a class may be a closing bracket.
                let mut first = true;
                loop {
                    match characters.next() {
                        None => return Some('['),
                        Some('!' | '^') if first => {}
                        Some(']') if !first => break,
                        Some(_) => first = false,
                    }
                }
            }
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
    }
    (braces > 0).then_some('{')
}

pub(crate) fn url(section: &Section<'_>, kind: Kind, context: &mut Context) -> Option<Endpoint> {
    let (text, at) = required(section, "url", kind, context)?;
    endpoint(section, text, &at, context)
}

/// A `url` where none belongs, or of a kind that is not known, may still hold a password.
pub(crate) fn refuse_secret_in_stray_url(section: &Section<'_>, kind: Option<Kind>, context: &mut Context) {
    if kind.is_none_or(Kind::is_path)
        && let Some(DeValue::String(text)) = section.get("url").map(Spanned::get_ref)
    {
        let at = section.get("url").map_or(section.at.clone(), Spanned::span);
        endpoint(section, text, &at, context);
    }
}

fn endpoint(section: &Section<'_>, text: &str, at: &Range<usize>, context: &mut Context) -> Option<Endpoint> {
    if let Some(reference) = secret_ref(text) {
        return Some(Endpoint::Secret(reference));
    }
    let help =
        "keep the URL outside this file and name the place: `env:NAME`, `file:PATH` or `vault:PATH#FIELD`";
    if !mask::is_url(text) {
        context.secret(
            "not-a-reference",
            at,
            format!("the url of {} is neither a reference nor a URL", section.title()),
            help,
        );
        return None;
    }
    if mask::url_holds_secret(text) {
        let message = format!("the url of {} holds a secret in the clear", section.title());
        context.secret("secret-in-clear", at, message, help);
        return None;
    }
    Some(Endpoint::Plain(text.to_owned()))
}

/// A reference whose parts look like names, so that it is safe to print.
pub(crate) fn secret_ref(text: &str) -> Option<SecretRef> {
    let reference: SecretRef = text.parse().ok()?;
    let safe = match &reference {
        SecretRef::Env(name) => {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !name.starts_with(|c: char| c.is_ascii_digit())
        }
        SecretRef::File(path) | SecretRef::Vault { path, .. } => !path.contains("://"),
    };
    safe.then_some(reference)
}

/// A secret by reference; `Broken` if it is something else, which has been reported without showing it.
pub(crate) fn reference(section: &Section<'_>, key: &str, context: &mut Context) -> Field<SecretRef> {
    let (text, at) = match section.filled(key, context) {
        Field::Absent => return Field::Absent,
        Field::Broken => return Field::Broken,
        Field::Set(text, at) => (text, at),
    };
    if let Some(reference) = secret_ref(text) {
        return Field::Set(reference, at);
    }
    let message = format!("`{key}` of {} is not a reference", section.title());
    let help = "name the place where it is kept: `env:NAME`, `file:PATH` or `vault:PATH#FIELD`";
    context.secret("not-a-reference", &at, message, help);
    Field::Broken
}

/// What a restored copy must satisfy; empty when the kind cannot be asked.
pub(crate) fn checks(section: &Section<'_>, kind: Option<Kind>, context: &mut Context) -> Checks {
    if section.get("checks").is_none() || kind.is_some_and(|kind| !kind.has_checks()) {
        return Checks::default();
    }
    let table = section.table("checks", context);
    table.refuse_unknown(&keys::checks_of(kind), context);
    let unique = table.texts("unique", context).value().unwrap_or_default();
    for (text, at) in &unique {
        if let Err(error) = table_and_columns(text) {
            context.invalid("bad-check", at, &error);
        }
    }
    let sql = table.texts("sql", context).value().unwrap_or_default();
    let commands = table.texts("commands", context).value().unwrap_or_default();
    let owned =
        |texts: Vec<(&str, Range<usize>)>| texts.into_iter().map(|(text, _)| text.to_owned()).collect();
    Checks {
        unique: owned(unique),
        sql: owned(sql),
        commands: owned(commands),
        replay: replay(&table, context),
        replay_environment: variables(&table, "replay_environment", context).unwrap_or_default(),
        durable: owned(table.texts("durable", context).value().unwrap_or_default()),
    }
}

/// The words of a program that fills an empty server.
fn replay(table: &Section<'_>, context: &mut Context) -> Vec<String> {
    let words = table.texts("replay", context).value().unwrap_or_default();
    let words: Vec<String> = words.into_iter().map(|(word, _)| word.to_owned()).collect();
    if !words.is_empty() && !words.iter().skip(1).any(|word| word.contains("{url}")) {
        let message = "the command is not told which server to fill";
        let help = "write each word by itself, with `{url}` in one of the arguments: \
                    `replay = [\"./warm-cache\", \"--redis\", \"{url}\"]`";
        context.error("bad-command", &table.key_at("replay"), message, help);
    }
    words
}

/// Names of variables; nothing if one of them is none, which has been reported without showing it.
pub(crate) fn variables(section: &Section<'_>, key: &str, context: &mut Context) -> Option<Vec<String>> {
    let mut whole = true;
    let mut names = Vec::new();
    for (name, at) in section.texts(key, context).value().unwrap_or_default() {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit()) {
            names.push(name.to_owned());
        } else {
            // It may be `NAME=value`, and the value a secret.
            let help = "write names only: their values are taken from the environment of `lifeboat`";
            context.secret("bad-command", &at, "this is not the name of a variable", help);
            whole = false;
        }
    }
    whole.then_some(names)
}

fn table_and_columns(text: &str) -> Result<(), InvalidValue> {
    let parts = text.trim().strip_suffix(')').and_then(|rest| rest.split_once('('));
    let good = parts.is_some_and(|(table, columns)| {
        !table.trim().is_empty() && columns.split(',').all(|column| !column.trim().is_empty())
    });
    if good {
        return Ok(());
    }
    Err(InvalidValue::new(
        format!("`{text}` does not name a table and its columns"),
        "write `table(column)` or `table(first, second)`",
    ))
}
