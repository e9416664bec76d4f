//! Reads what is particular to a row of kind `vector`: an engine and where its index lies, or a server that is only named.

use crate::kind::Kind;
use crate::model::{Source, VectorEngine, VectorIndex, VectorMetric};
use crate::reader::{Context, Field, Section};
use crate::suggest;
use crate::value::InvalidValue;

/// Keys that mean something only with an engine.
const OF_ENGINE: [&str; 4] = ["path", "contract", "metric", "gold"];

/// Where the index is, and by what it is held.
pub(super) fn source(section: &Section<'_>, context: &mut Context) -> Option<Source> {
    let engine = section.parsed("engine", "wrong-value", context, engine);
    if matches!(engine, Field::Absent) && section.get("url").is_some() {
        let whole = without_engine(section, context);
        return super::url(section, Kind::Vector, context).map(Source::Url).filter(|_| whole);
    }
    if section.get("url").is_some() {
        let message = format!("{} has `engine` and `url`", section.title());
        let help = "an index of lines of JSON has a `path`; of other engines none is captured yet";
        context.error("foreign-key", &section.key_at("url"), message, help);
        super::url(section, Kind::Vector, context);
        return None;
    }
    if matches!(engine, Field::Absent) {
        let help = format!("write `engine = \"jsonl\"`; {}", known());
        let message = format!("{} has no `engine`", section.title());
        context.absent("missing-key", &section.at, message, help);
    }
    let path = text(section, "path", context);
    let contract = text(section, "contract", context);
    let metric = match section.parsed("metric", "wrong-value", context, metric) {
        Field::Absent => {
            let message = format!("{} has no `metric`", section.title());
            let help = "write how the index measures nearness: `metric = \"cosine\"`, `\"ip\"` or `\"l2\"`";
            context.absent("missing-key", &section.at, message, help);
            None
        }
        field => field.value(),
    };
    let gold = section.filled("gold", context);
    let whole = !matches!(gold, Field::Broken);
    let gold = gold.value().map(str::to_owned);
    let index =
        VectorIndex { engine: engine.value()?, path: path?, contract: contract?, metric: metric?, gold };
    Some(Source::Vector(Box::new(index))).filter(|_| whole)
}

fn text(section: &Section<'_>, key: &str, context: &mut Context) -> Option<String> {
    super::required(section, key, Kind::Vector, context).map(|(text, _)| text.to_owned())
}

fn without_engine(section: &Section<'_>, context: &mut Context) -> bool {
    let mut whole = true;
    for key in OF_ENGINE.into_iter().filter(|key| section.get(key).is_some()) {
        let message = format!("`{key}` has no meaning for {}: it has no `engine`", section.title());
        let help = "write `engine = \"jsonl\"` and the `path` of the index in place of `url`";
        context.error("foreign-key", &section.key_at(key), message, help);
        whole = false;
    }
    whole
}

fn known() -> String {
    format!("this version knows {}", suggest::list(&VectorEngine::all().map(VectorEngine::word)))
}

fn engine(text: &str) -> Result<VectorEngine, InvalidValue> {
    VectorEngine::all()
        .into_iter()
        .find(|engine| engine.word() == text)
        .ok_or_else(|| InvalidValue::new(format!("unknown engine `{text}`"), known()))
}

fn metric(text: &str) -> Result<VectorMetric, InvalidValue> {
    VectorMetric::all().into_iter().find(|metric| metric.word() == text).ok_or_else(|| {
        let words = VectorMetric::all().map(VectorMetric::word);
        InvalidValue::new(format!("unknown metric `{text}`"), suggest::help(text, &words, "the metrics are"))
    })
}
