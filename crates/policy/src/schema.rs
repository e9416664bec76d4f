//! The JSON Schema of the policy file, for editors and other tools. It is generated from the same table of keys the
//! reader uses; what needs more than one value (references, unknown copies, missing recipients) is the reader's work.

use serde_json::{Map, Value, json};

use crate::keys::{self, Key, Shape};
use crate::kind::Kind;
use crate::model::{
    DrillTarget, Encryption, Expectation, LockMode, Network, RedisCapture, VectorEngine, VectorMetric,
};
use crate::store::MAX_COUNT;

const SPAN: &str = r"^\s*([0-9]+(s|mo|m|h|d|w|y)\s*)+$";
const NAME: &str = "^[a-z0-9][a-z0-9_-]{0,63}$";
const TIER: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$";

/// The schema, draft 2020-12; committed as `docs/lifeboat.schema.json`.
pub fn json_schema() -> Value {
    let mut schema = object(keys::TOP, &["version"]);
    insert(&mut schema, "$schema", json!("https://json-schema.org/draft/2020-12/schema"));
    insert(&mut schema, "title", json!("Lifeboat policy"));
    insert(
        &mut schema,
        "description",
        json!("The promises a company makes about its datastores, version 1."),
    );
    insert(
        &mut schema,
        "$defs",
        json!({
            "keys": object(keys::KEYS, &[]),
            "promises": object(keys::PROMISES, &[]),
            "tiers": named(TIER, &json!({"$ref": "#/$defs/promises"})),
            "copies": named(NAME, &object(keys::COPY, &["url"])),
            "stores": named(NAME, &stores()),
            "agreements": named(NAME, &object(keys::AGREEMENT, &["left", "right"])),
            "applications": named(NAME, &object(keys::APPLICATION, &["stores", "command"])),
            "drills": named(NAME, &object(keys::DRILL, &[])),
            "inventory": object(keys::INVENTORY, &[]),
            "reasons": {"type": "object", "additionalProperties": {"$ref": "#/$defs/text"}},
            "selection": object(keys::SELECTION, &["store"]),
            "span": {"type": "string", "pattern": SPAN},
            "spanOrNone": {"anyOf": [{"$ref": "#/$defs/span"}, {"const": "none"}]},
            "cadence": {"anyOf": [{"enum": cadences()}, {"$ref": "#/$defs/span"}]},
            "schedule": {"type": "string", "pattern": schedule()},
            "retention": {"type": "string", "pattern": r"^\s*(none|[0-9]+(h|d|w|mo|y)(\s+[0-9]+(h|d|w|mo|y))*)\s*$"},
            "lock": object(keys::LOCK, &["mode", "min"]),
            "verify": object(keys::VERIFY, &[]),
            "checks": object(keys::CHECKS, &[]),
            "text": {"type": "string", "minLength": 1},
            "texts": {"type": "array", "items": {"$ref": "#/$defs/text"}},
        }),
    );
    schema
}

fn schedule() -> String {
    let time = r"([01][0-9]|2[0-3]):[0-5][0-9]";
    let every = r"every\s+([0-9]+(s|m|h|d|w)\s*)+";
    let cron = r"\S+\s+\S+\s+\S+\s+\S+\s+\S+|@[a-z]+";
    format!(r"^\s*(none|{time}|{every}|{cron})\s*$")
}

fn cadences() -> Vec<&'static str> {
    keys::CADENCES.iter().map(|(word, _)| *word).collect()
}

/// An object with exactly these keys.
fn object(keys: &[Key], required: &[&str]) -> Value {
    object_of(&keys.iter().collect::<Vec<_>>(), required)
}

fn object_of(keys: &[&Key], required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// An object whose keys are names.
fn named(pattern: &str, value: &Value) -> Value {
    json!({"type": "object", "propertyNames": {"pattern": pattern}, "additionalProperties": value})
}

/// One alternative for each set of keys a kind can have.
fn stores() -> Value {
    let alternatives: Vec<Value> = Kind::all()
        .iter()
        .map(|kind| {
            let place = if kind.is_path() { "path" } else { "url" };
            let keys = keys::of_store(Some(*kind));
            let other = match kind {
                Kind::Etcd => Some("command"),
                Kind::Redis => Some("dir"),
                _ => None,
            };
            let mut row = match other {
                _ if *kind == Kind::Vector => {
                    let mut row = object_of(&keys, &["kind"]);
                    let of_engine = ["engine", "path", "contract", "metric"];
                    insert(&mut row, "oneOf", json!([{"required": ["url"]}, {"required": of_engine}]));
                    row
                }
                Some(other) => {
                    let mut row = object_of(&keys, &["kind"]);
                    let one_of = ["url", other].map(|place| json!({"required": [place]}));
                    insert(&mut row, "oneOf", json!(one_of));
                    row
                }
                None => object_of(&keys, &["kind", place]),
            };
            if let Some(property) = row.pointer_mut("/properties/kind") {
                *property = json!({"const": kind.word()});
            }
            row
        })
        .collect();
    json!({"oneOf": alternatives})
}

fn property(key: &Key) -> Value {
    let mut value = shape(key.shape);
    insert(&mut value, "description", json!(key.about));
    value
}

fn shape(shape: Shape) -> Value {
    match shape {
        Shape::Version => json!({"const": 1}),
        Shape::Text => json!({"$ref": "#/$defs/text"}),
        Shape::Texts => json!({"$ref": "#/$defs/texts"}),
        Shape::Switch => json!({"type": "boolean"}),
        Shape::Recipients => json!({
            "type": "array",
            "uniqueItems": true,
            "items": {
                "type": "string",
                "pattern": "^(passphrase:(env|file|vault):|keyfile:|age:age1|aws-kms:arn:|vault-transit:).+$",
            },
        }),
        Shape::CopyUrl => json!({"type": "string", "pattern": "^(file:|s3://[a-z0-9]).+$"}),
        Shape::Lock => json!({"$ref": "#/$defs/lock"}),
        Shape::LockMode => json!({"enum": [LockMode::Compliance.word(), LockMode::Governance.word()]}),
        Shape::Span => json!({"$ref": "#/$defs/span"}),
        Shape::SpanOrNone => json!({"$ref": "#/$defs/spanOrNone"}),
        Shape::ScheduleOrNone => json!({"$ref": "#/$defs/schedule"}),
        Shape::Retention => json!({"$ref": "#/$defs/retention"}),
        Shape::CopyNames | Shape::StoreNames => {
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string", "pattern": NAME}})
        }
        Shape::StoreName => json!({"type": "string", "pattern": NAME}),
        Shape::Expectation => {
            let all = [Expectation::Exists, Expectation::Same, Expectation::Newest];
            json!({"enum": all.map(Expectation::word)})
        }
        Shape::Network => json!({"enum": [Network::None.word(), Network::Host.word()]}),
        Shape::Target => json!({"enum": [DrillTarget::Local.word()]}),
        Shape::Selection => json!({"$ref": "#/$defs/selection"}),
        Shape::TierName => json!({"type": "string", "pattern": TIER}),
        Shape::Encryption => json!({"const": Encryption::Required.word()}),
        Shape::Verify => json!({"$ref": "#/$defs/verify"}),
        Shape::Cadence => json!({"$ref": "#/$defs/cadence"}),
        Shape::Kind => json!({"enum": Kind::all().iter().map(|kind| kind.word()).collect::<Vec<_>>()}),
        Shape::StoreUrl => {
            json!({"type": "string", "pattern": r"^(env:|file:|vault:|git@|[A-Za-z][A-Za-z0-9+.-]*://).+$"})
        }
        Shape::Reference => json!({"type": "string", "pattern": "^(env:|file:|vault:).+$"}),
        Shape::RedisCapture => json!({"enum": RedisCapture::all().map(RedisCapture::word)}),
        Shape::VectorEngine => json!({"enum": VectorEngine::all().map(VectorEngine::word)}),
        Shape::VectorMetric => json!({"enum": VectorMetric::all().map(VectorMetric::word)}),
        Shape::Count => json!({"type": "integer", "minimum": 1, "maximum": MAX_COUNT}),
        Shape::Checks => json!({"$ref": "#/$defs/checks"}),
        Shape::Sections(name) => json!({"$ref": format!("#/$defs/{name}")}),
    }
}

fn insert(value: &mut Value, key: &str, entry: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(key.to_owned(), entry);
    }
}
