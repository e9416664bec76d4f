//! Reads what is particular to a row of kind `redis`: a server, a service, or the files of a server.

use toml::Spanned;
use toml::de::DeValue;

use crate::kind::Kind;
use crate::model::{RedisCapture, RedisScan, Source};
use crate::reader::{Context, Field, Section};
use crate::suggest;
use crate::value::InvalidValue;

/// The highest number of commands a second that means a limit.
pub(crate) const MAX_COUNT: u32 = 1_000_000;
/// Keys that mean something only where files are taken,
const OF_FILES: [&str; 2] = ["dir", "config"];
/// where a server is contacted,
const OF_URL: [&str; 2] = ["url", "token"];
/// and where keys are read one by one.
const OF_SCAN: [&str; 4] = ["prefix", "requests_per_second", "second_pass", "skip_unknown"];

/// How the row is captured: as it says, or as its address does. Nothing where what it says is no way.
pub(super) fn capture(section: &Section<'_>) -> Option<RedisCapture> {
    match text(section, "capture") {
        Some(word) => way(word).ok(),
        None if section.get("capture").is_some() => None,
        None if is_rest(section) => Some(RedisCapture::Scan),
        None => Some(RedisCapture::default()),
    }
}

/// Where the server is, and how it is read.
pub(super) fn source(section: &Section<'_>, context: &mut Context) -> Option<Source> {
    if matches!(section.parsed("capture", "wrong-value", context, way), Field::Broken) {
        return None;
    }
    match capture(section)? {
        RedisCapture::Files => files(section, context),
        RedisCapture::Scan => {
            let why = "it is read key by key";
            let whole = stray(section, &OF_FILES, why, context);
            let scan = scan(section, context).map(Box::new);
            server(section, Some(scan?), context).filter(|_| whole)
        }
        RedisCapture::Replication => {
            let mut whole = stray(section, &OF_FILES, "it has no `capture = \"files\"`", context);
            whole &= stray(section, &OF_SCAN, "it has no `capture = \"scan\"`", context);
            if is_rest(section) {
                let message =
                    format!("{} has a REST address, over which nothing replicates", section.title());
                let help = "write `capture = \"scan\"`, or an address that begins with redis:// or rediss://";
                context.error("wrong-value", &section.key_at("capture"), message, help);
                whole = false;
            }
            server(section, None, context).filter(|_| whole)
        }
    }
}

fn way(text: &str) -> Result<RedisCapture, InvalidValue> {
    RedisCapture::all().into_iter().find(|way| way.word() == text).ok_or_else(|| {
        let words = RedisCapture::all().map(RedisCapture::word);
        let help = suggest::help(text, &words, "a server is captured by");
        InvalidValue::new(format!("unknown way to capture a server: `{text}`"), help)
    })
}

fn text<'a>(section: &Section<'a>, key: &str) -> Option<&'a str> {
    match section.get(key).map(Spanned::get_ref) {
        Some(DeValue::String(text)) => Some(text),
        _ => None,
    }
}

fn is_rest(section: &Section<'_>) -> bool {
    text(section, "url").is_some_and(|url| url.starts_with("https://") || url.starts_with("http://"))
}

fn files(section: &Section<'_>, context: &mut Context) -> Option<Source> {
    let why = "its files are captured";
    let mut whole = stray(section, &OF_URL, why, context);
    whole &= stray(section, &OF_SCAN, why, context);
    // They may still hold a secret, which no message may show.
    if section.get("url").is_some() {
        super::url(section, Kind::Redis, context);
    }
    super::reference(section, "token", context);
    let dir = super::required(section, "dir", Kind::Redis, context).map(|(dir, _)| dir.to_owned());
    let config = section.filled("config", context);
    whole &= !matches!(config, Field::Broken);
    let config = config.value().map(str::to_owned);
    Some(Source::RedisFiles { dir: dir?, config }).filter(|_| whole)
}

fn server(section: &Section<'_>, scan: Option<Box<RedisScan>>, context: &mut Context) -> Option<Source> {
    let url = super::url(section, Kind::Redis, context);
    let token = optional(super::reference(section, "token", context));
    Some(Source::Redis { url: url?, token: token.ok()?, scan })
}

/// Reports keys that belong to another way of capturing; false if there is one.
fn stray(section: &Section<'_>, keys: &[&str], why: &str, context: &mut Context) -> bool {
    let mut whole = true;
    for key in keys.iter().filter(|key| section.get(key).is_some()) {
        let message = format!("`{key}` has no meaning for {}: {why}", section.title());
        let help = if OF_SCAN.contains(key) {
            "remove it, or write `capture = \"scan\"` with a `url`"
        } else {
            "a server has a `url`; files have `capture = \"files\"` and `dir`"
        };
        context.error("foreign-key", &section.key_at(key), message, help);
        whole = false;
    }
    whole
}

/// What is written is wrong, which has been reported.
struct Broken;

/// What may be left out.
fn optional<T>(field: Field<T>) -> Result<Option<T>, Broken> {
    match field {
        Field::Absent => Ok(None),
        Field::Broken => Err(Broken),
        Field::Set(value, _) => Ok(Some(value)),
    }
}

fn scan(section: &Section<'_>, context: &mut Context) -> Option<RedisScan> {
    let prefix = optional(section.text("prefix", context));
    let second_pass = optional(section.switch("second_pass", context));
    let skip_unknown = optional(section.switch("skip_unknown", context));
    let requests_per_second = match section.integer("requests_per_second", context) {
        Field::Absent => Some(None),
        Field::Broken => None,
        Field::Set(number, at) => {
            let number = u32::try_from(number).ok().filter(|number| (1..=MAX_COUNT).contains(number));
            if number.is_none() {
                let message = format!("`requests_per_second` is a number from 1 to {MAX_COUNT}");
                context.error("wrong-value", &at, message, "remove it for no limit");
            }
            number.map(Some)
        }
    };
    Some(RedisScan {
        prefix: prefix.ok()?.unwrap_or_default().to_owned(),
        requests_per_second: requests_per_second?,
        second_pass: second_pass.ok()?.unwrap_or(true),
        skip_unknown: skip_unknown.ok()?.unwrap_or(false),
    })
}
