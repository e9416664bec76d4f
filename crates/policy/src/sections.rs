//! Reads `[keys]` and the `[copy.NAME]` sections.

use std::collections::BTreeMap;
use std::ops::Range;

use lifeboat_base::ids::CopyName;
use toml::de::DeValue;

use crate::keys;
use crate::mask;
use crate::model::{CopyPlace, CopyUrl, Lock, LockMode, Recipient};
use crate::reader::{Context, Field, Section};
use crate::span::Span;
use crate::store;
use crate::suggest;
use crate::value::InvalidValue;

pub(crate) const NAME_RULE: &str =
    "use 1 to 64 lowercase letters, digits, `-` or `_`, starting with a letter or digit";

/// The copies with valid names and addresses, and the places of their names.
pub(crate) type Copies = BTreeMap<CopyName, (CopyPlace, Range<usize>)>;

/// The shortest object lock, in seconds: providers count locks in days.
const MIN_LOCK_SECONDS: u64 = 86_400;

/// `None` when one is wrong.
pub(crate) fn recipients(section: &Section<'_>, context: &mut Context) -> Option<Vec<Recipient>> {
    let texts = match section.texts("recipients", context) {
        Field::Absent => return Some(Vec::new()),
        Field::Broken => return None,
        Field::Set(texts, _) => texts,
    };
    let mut recipients = Vec::new();
    let mut whole = true;
    for (text, at) in texts {
        match recipient(text) {
            Ok(recipient) if recipients.contains(&recipient) => {
                context.error(
                    "duplicate-recipient",
                    &at,
                    format!("recipient `{recipient}` is listed twice"),
                    "remove one",
                );
                whole = false;
            }
            Ok(recipient) => recipients.push(recipient),
            Err(error) => {
                context.secret("bad-recipient", &at, error.to_string(), error.help());
                whole = false;
            }
        }
    }
    whole.then_some(recipients)
}

/// Errors never repeat the text: it may be a passphrase or a private key.
fn recipient(text: &str) -> Result<Recipient, InvalidValue> {
    const FORMS: &str = "write `passphrase:env:NAME`, `passphrase:file:PATH`, `keyfile:PATH`, `age:age1…`, \
                         `aws-kms:arn:…` or `vault-transit:KEY`";
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(InvalidValue::new("this recipient has no kind", FORMS));
    };
    let filled = !rest.trim().is_empty() && !rest.contains("://");
    match scheme {
        "passphrase" => store::secret_ref(rest).map(Recipient::Passphrase).ok_or_else(|| {
            InvalidValue::new(
                "a passphrase in the clear, or a reference that is not one",
                "keep it outside this file: `passphrase:env:NAME`, `passphrase:file:PATH` or `passphrase:vault:PATH#FIELD`",
            )
        }),
        "keyfile" if filled => Ok(Recipient::KeyFile(rest.to_owned())),
        "age" if is_age_key(rest) => Ok(Recipient::Age(rest.to_owned())),
        "age" => Err(InvalidValue::new(
            "this is not a public key of age",
            "write the public key, which starts with `age1`; never the `AGE-SECRET-KEY`",
        )),
        "aws-kms" if filled && rest.starts_with("arn:") => Ok(Recipient::AwsKms(rest.to_owned())),
        "aws-kms" => Err(InvalidValue::new("this is not the ARN of a key", "write `aws-kms:arn:aws:kms:…`")),
        "vault-transit" if filled => Ok(Recipient::VaultTransit(rest.to_owned())),
        "keyfile" | "vault-transit" => Err(InvalidValue::new(format!("`{scheme}:` names nothing"), FORMS)),
        _ => Err(InvalidValue::new("unknown kind of recipient", FORMS)),
    }
}

/// The shape of a public key: `age1` and lowercase letters and digits. Its checksum is proven when it is used.
fn is_age_key(text: &str) -> bool {
    /// The length of the plain X25519 form; plugins have longer ones.
    const MIN_AGE_KEY_BYTES: usize = 62;
    text.len() >= MIN_AGE_KEY_BYTES
        && text.starts_with("age1")
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

pub(crate) fn copies(section: &Section<'_>, context: &mut Context) -> Copies {
    let mut copies = Copies::new();
    for (name, at, _) in section.entries() {
        let table = section.table(name, context);
        if !table.readable {
            continue;
        }
        table.refuse_unknown(&keys::COPY.iter().collect::<Vec<_>>(), context);
        let url = copy_url(&table, context);
        let region = table.filled("region", context).value().map(str::to_owned);
        let account = table.filled("account", context).value().map(str::to_owned);
        let lock = lock(&table, context);
        if let (Some(CopyUrl::File(_)), Some(Lock { mode: LockMode::Compliance, .. })) = (&url, &lock) {
            let help = "write `mode = \"governance\"`, or use a bucket with object lock in compliance mode";
            context.error(
                "compliance-in-directory",
                &table.key_at("lock"),
                format!(
                    "copy `{name}` is a directory, whose root can lift any lock: it cannot promise that nobody can"
                ),
                help,
            );
        }
        match (CopyName::new(name), url) {
            (Ok(name), Some(url)) => {
                copies.insert(name, (CopyPlace { url, region, account, lock }, at));
            }
            (Err(_), _) => bad_name("copy", name, &at, NAME_RULE, context),
            (Ok(_), None) => {}
        }
    }
    copies
}

pub(crate) fn bad_name(what: &str, name: &str, at: &Range<usize>, rule: &str, context: &mut Context) {
    context.error("bad-name", at, format!("`{name}` is not a valid name for a {what}"), rule);
}

fn copy_url(table: &Section<'_>, context: &mut Context) -> Option<CopyUrl> {
    let (text, at) = match table.filled("url", context) {
        Field::Set(text, at) => (text, at),
        Field::Broken => return None,
        Field::Absent => {
            let help = "say where it is: `url = \"file:PATH\"` or `url = \"s3://BUCKET/PREFIX\"`";
            context.absent("missing-key", &table.at, format!("{} has no `url`", table.title()), help);
            return None;
        }
    };
    if mask::url_holds_secret(text) {
        let message = format!("the url of {} holds a secret in the clear", table.title());
        context.secret("secret-in-clear", &at, message, "keep credentials outside this file");
        return None;
    }
    parse_copy_url(text).map_err(|error| context.invalid("bad-copy-url", &at, &error)).ok()
}

fn parse_copy_url(text: &str) -> Result<CopyUrl, InvalidValue> {
    const HELP: &str = "write `file:PATH` or `s3://BUCKET/PREFIX`";
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(InvalidValue::new(
            format!("`{text}` is not the URL of a copy"),
            format!("write `file:{text}`"),
        ));
    };
    match scheme {
        "file" => {
            let path = match rest.strip_prefix("//") {
                // `file://host/path` would silently be another machine's.
                Some(absolute) if absolute.starts_with('/') => absolute,
                Some(_) => {
                    return Err(InvalidValue::new(format!("`{text}` names a host"), "write `file:PATH`"));
                }
                None => rest,
            };
            if path.is_empty() {
                return Err(InvalidValue::new("`file:` names no directory", HELP));
            }
            Ok(CopyUrl::File(path.to_owned()))
        }
        "s3" => {
            let rest = rest.strip_prefix("//").unwrap_or_default();
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let valid = (3..=63).contains(&bucket.len())
                && bucket.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
                });
            if !valid {
                return Err(InvalidValue::new(format!("`{text}` names no valid bucket"), HELP));
            }
            Ok(CopyUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
        }
        _ => Err(InvalidValue::new(format!("a copy cannot live at `{scheme}:`"), HELP)),
    }
}

fn lock(table: &Section<'_>, context: &mut Context) -> Option<Lock> {
    table.get("lock")?;
    let lock = table.table("lock", context);
    lock.refuse_unknown(&keys::LOCK.iter().collect::<Vec<_>>(), context);
    let mode = lock.parsed("mode", "bad-lock", context, |text| match text {
        "compliance" => Ok(LockMode::Compliance),
        "governance" => Ok(LockMode::Governance),
        _ => {
            let words = [LockMode::Compliance.word(), LockMode::Governance.word()];
            Err(InvalidValue::new(
                format!("unknown lock mode `{text}`"),
                suggest::help(text, &words, "the modes are"),
            ))
        }
    });
    let min = lock.parsed("min", "bad-lock", context, |text| {
        let span: Span = text.parse()?;
        if span.approx().as_secs() < MIN_LOCK_SECONDS {
            return Err(InvalidValue::new(
                format!("a lock of {span} is too short"),
                "object locks count in days: write at least `1d`",
            ));
        }
        Ok(span)
    });
    for (key, absent) in [("mode", matches!(mode, Field::Absent)), ("min", matches!(min, Field::Absent))] {
        if absent && matches!(table.get("lock")?.get_ref(), DeValue::Table(_)) {
            let help = "write `lock = { mode = \"governance\", min = \"30d\" }`";
            context.absent("missing-key", &table.key_at("lock"), format!("the lock has no `{key}`"), help);
        }
    }
    Some(Lock { mode: mode.value()?, min: min.value()? })
}
