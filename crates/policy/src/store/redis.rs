//! Reads what is particular to a row of kind `redis`: a server, or the files of one.

use toml::Spanned;
use toml::de::DeValue;

use crate::kind::Kind;
use crate::model::Source;
use crate::reader::{Context, Field, Section};
use crate::suggest;
use crate::value::InvalidValue;

/// How a server can be captured; the first unless something else is written.
pub(crate) const CAPTURES: [&str; 2] = ["replication", FILES];
const FILES: &str = "files";

/// Whether its files are captured, and not what it sends.
pub(super) fn is_files(section: &Section<'_>) -> bool {
    matches!(section.get("capture").map(Spanned::get_ref), Some(DeValue::String(text)) if text == FILES)
}

/// Where the server is.
pub(super) fn source(section: &Section<'_>, context: &mut Context) -> Option<Source> {
    let known = |text: &str| {
        CAPTURES.iter().position(|word| *word == text).map(drop).ok_or_else(|| {
            let help = suggest::help(text, &CAPTURES, "a server is captured by");
            InvalidValue::new(format!("unknown way to capture a server: `{text}`"), help)
        })
    };
    if matches!(section.parsed("capture", "wrong-value", context, known), Field::Broken) {
        return None;
    }
    if is_files(section) {
        let mut whole = stray(section, &["url"], "its files are captured", context);
        let dir = super::required(section, "dir", Kind::Redis, context).map(|(dir, _)| dir.to_owned());
        let config = section.filled("config", context);
        whole &= !matches!(config, Field::Broken);
        let config = config.value().map(str::to_owned);
        return Some(Source::RedisFiles { dir: dir?, config }).filter(|_| whole);
    }
    let whole = stray(section, &["dir", "config"], "it has no `capture = \"files\"`", context);
    super::url(section, Kind::Redis, context).map(Source::Url).filter(|_| whole)
}

/// Reports keys that belong to another way of capturing; false if there is one.
fn stray(section: &Section<'_>, keys: &[&str], why: &str, context: &mut Context) -> bool {
    let mut whole = true;
    for key in keys.iter().filter(|key| section.get(key).is_some()) {
        let message = format!("`{key}` has no meaning for {}: {why}", section.title());
        let help = "a server has a `url`; files have `capture = \"files\"` and `dir`";
        context.error("foreign-key", &section.key_at(key), message, help);
        whole = false;
    }
    whole
}
