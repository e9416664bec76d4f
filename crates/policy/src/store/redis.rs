//! Reads what is particular to a row of kind `redis`: where it is, and how its keys are read.

use toml::de::DeValue;

use crate::kind::Kind;
use crate::model::{Endpoint, RedisAccess, RedisCapture, Source};
use crate::reader::{Context, Field, Section};
use crate::suggest;
use crate::value::InvalidValue;

/// The highest number of commands a second that means a limit.
pub(crate) const MAX_COUNT: u32 = 1_000_000;
/// Keys that mean something only where keys are read one by one.
const OF_SCAN: [&str; 4] = ["prefix", "requests_per_second", "second_pass", "skip_unknown"];

/// Where the server is, and how it is read.
pub(super) fn source(section: &Section<'_>, context: &mut Context) -> Option<Source> {
    let url = super::url(section, Kind::Redis, context);
    let access = access(section, url.as_ref(), context);
    Some(Source::Redis { url: url?, access: Box::new(access?) })
}

fn way(text: &str) -> Result<RedisCapture, InvalidValue> {
    RedisCapture::all().into_iter().find(|way| way.word() == text).ok_or_else(|| {
        let words = RedisCapture::all().map(RedisCapture::word);
        InvalidValue::new(format!("unknown way `{text}`"), suggest::help(text, &words, "the ways are"))
    })
}

fn access(section: &Section<'_>, url: Option<&Endpoint>, context: &mut Context) -> Option<RedisAccess> {
    let is_rest = match url {
        Some(Endpoint::Plain(url)) => url.starts_with("https://") || url.starts_with("http://"),
        _ => false,
    };
    let mut whole = true;
    let usual = if is_rest { RedisCapture::Scan } else { RedisCapture::Replication };
    let capture = match section.parsed("capture", "unknown-capture", context, way) {
        Field::Absent => usual,
        Field::Broken => return None,
        Field::Set(capture, _) => capture,
    };
    let mut refuse = |key: &str, message: String, help: &str, context: &mut Context| {
        context.error("bad-capture", &section.key_at(key), message, help);
        whole = false;
    };
    if is_rest && capture == RedisCapture::Replication {
        let message = format!("{} has a REST address, over which nothing replicates", section.title());
        refuse(
            "capture",
            message,
            "write `capture = \"scan\"`, or an address that begins with redis:// or rediss://",
            context,
        );
    }
    if capture == RedisCapture::Replication {
        for key in OF_SCAN.into_iter().filter(|key| section.get(key).is_some()) {
            let message = format!("`{key}` means nothing to a server that is read by replication");
            refuse(key, message, "remove it, or write `capture = \"scan\"`", context);
        }
    } else if section
        .get("logs")
        .is_some_and(|value| !matches!(value.get_ref(), DeValue::String(text) if text == "none"))
    {
        let message = format!("{} is read key by key and promises `logs`", section.title());
        refuse("logs", message, "only replication has a stream of commands: remove it", context);
    }
    let access = RedisAccess { capture, ..wishes(section, context)? };
    whole.then_some(access)
}

/// Everything but the way.
fn wishes(section: &Section<'_>, context: &mut Context) -> Option<RedisAccess> {
    let switch = |key: &str, usual: bool, context: &mut Context| match section.switch(key, context) {
        Field::Absent => Some(usual),
        Field::Broken => None,
        Field::Set(on, _) => Some(on),
    };
    let second_pass = switch("second_pass", true, context);
    let skip_unknown = switch("skip_unknown", false, context);
    let token = match super::reference(section, "token", context) {
        Field::Absent => Some(None),
        Field::Broken => None,
        Field::Set(reference, _) => Some(Some(reference)),
    };
    let prefix = match section.text("prefix", context) {
        Field::Absent => Some(String::new()),
        Field::Broken => None,
        Field::Set(text, _) => Some(text.to_owned()),
    };
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
    Some(RedisAccess {
        capture: RedisCapture::default(),
        token: token?,
        prefix: prefix?,
        requests_per_second: requests_per_second?,
        second_pass: second_pass?,
        skip_unknown: skip_unknown?,
    })
}
