//! Reads the promises that a row, a tier and `[defaults]` have in common.

use lifeboat_base::ids::CopyName;

use crate::keys;
use crate::model::{Encryption, Promises, Verify};
use crate::reader::{Context, Field, Section};
use crate::retention::Retention;
use crate::schedule::Schedule;
use crate::span::Span;
use crate::suggest;
use crate::value::InvalidValue;

/// Reads every promise of `section`; wrong ones are reported and listed in `broken`.
pub(crate) fn read(section: &Section<'_>, known_copies: &[&str], context: &mut Context) -> Promises {
    let mut broken = Vec::new();
    let mut span = |key: &'static str, context: &mut Context| {
        let field = section.parsed(key, "bad-duration", context, span_or_none);
        keep(key, field, &mut broken, context)
    };
    let rpo = span("rpo", context);
    let rto = span("rto", context);
    let logs = span("logs", context);
    let immutability = span("immutability", context);
    let schedule = section.parsed("schedule", "bad-schedule", context, schedule_or_none);
    let schedule = keep("schedule", schedule, &mut broken, context);
    let retention = section.parsed("retention", "bad-retention", context, str::parse::<Retention>);
    let retention = keep("retention", retention, &mut broken, context);
    let encryption = section.parsed("encryption", "bad-encryption", context, encryption);
    let encryption = keep("encryption", encryption, &mut broken, context);
    let copies = copies(section, known_copies, context);
    let copies = keep("copies", copies, &mut broken, context);
    let verify = verify(section, context);
    let verify = keep("verify", verify, &mut broken, context);
    Promises { rpo, rto, schedule, retention, logs, copies, encryption, immutability, verify, broken }
}

fn keep<T>(
    key: &'static str,
    field: Field<T>,
    broken: &mut Vec<&'static str>,
    context: &Context,
) -> Option<crate::model::Written<T>> {
    match field {
        Field::Absent => None,
        Field::Broken => {
            broken.push(key);
            None
        }
        Field::Set(value, at) => Some(context.written(value, at)),
    }
}

fn span_or_none(text: &str) -> Result<Option<Span>, InvalidValue> {
    if text.trim() == "none" { Ok(None) } else { text.parse().map(Some) }
}

fn schedule_or_none(text: &str) -> Result<Option<Schedule>, InvalidValue> {
    if text.trim() == "none" { Ok(None) } else { text.parse().map(Some) }
}

fn encryption(text: &str) -> Result<Encryption, InvalidValue> {
    if text == Encryption::Required.word() {
        return Ok(Encryption::Required);
    }
    Err(InvalidValue::new(
        format!("encryption cannot be `{text}`"),
        "every vault is encrypted: write `required` or remove the key",
    ))
}

fn copies(section: &Section<'_>, known: &[&str], context: &mut Context) -> Field<Vec<CopyName>> {
    let (names, at) = match section.texts("copies", context) {
        Field::Absent => return Field::Absent,
        Field::Broken => return Field::Broken,
        Field::Set(names, at) => (names, at),
    };
    let mut copies: Vec<CopyName> = Vec::new();
    let mut whole = true;
    for (name, at) in names {
        match CopyName::new(name) {
            Ok(copy) if copies.contains(&copy) => {
                let message = format!("copy `{name}` is listed twice");
                context.error("duplicate-copy", &at, message, "one place holds one copy: remove it");
                whole = false;
            }
            Ok(copy) if known.contains(&name) => copies.push(copy),
            // Its name has been reported where it is defined.
            Err(_) if known.contains(&name) => whole = false,
            _ => {
                let help = suggest::help(name, known, "the copies are");
                context.error("unknown-copy", &at, format!("there is no copy `{name}`"), help);
                whole = false;
            }
        }
    }
    if whole { Field::Set(copies, at) } else { Field::Broken }
}

fn verify(section: &Section<'_>, context: &mut Context) -> Field<Verify> {
    let Some(value) = section.get("verify") else { return Field::Absent };
    let reported = context.found.len();
    let table = section.table("verify", context);
    table.refuse_unknown(&keys::VERIFY.iter().collect::<Vec<_>>(), context);
    let mut cadence = |key| table.parsed(key, "bad-cadence", context, cadence).value();
    let verify = Verify {
        checksum: cadence("checksum"),
        readable: cadence("readable"),
        restore: cadence("restore"),
        pitr: cadence("pitr"),
        drill: cadence("drill"),
    };
    if context.found.len() > reported { Field::Broken } else { Field::Set(verify, value.span()) }
}

pub(crate) fn cadence(text: &str) -> Result<Span, InvalidValue> {
    let words: Vec<&str> = keys::CADENCES.iter().map(|(word, _)| *word).collect();
    if let Some((_, span)) = keys::CADENCES.iter().find(|(word, _)| *word == text) {
        return span.parse();
    }
    text.parse().map_err(|_error: InvalidValue| {
        let lead = "write a duration such as `36h`, or one of";
        InvalidValue::new(format!("`{text}` is not a cadence"), suggest::help(text, &words, lead))
    })
}
