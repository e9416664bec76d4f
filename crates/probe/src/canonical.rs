//! Canonical JSON: one text per value, so that a hash of it means the value.
//!
//! In: anything that serialises. Out: sorted keys, no insignificant space, text in NFC, whole numbers without an exponent.
//! Two keys that are the same in NFC are refused, for one of them would vanish.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::ProbeError;

/// The canonical text of `value`.
pub fn canonical_json(value: &impl Serialize) -> Result<String, ProbeError> {
    let value = serde_json::to_value(value)
        .map_err(|error| ProbeError::invalid("a value to hash", error.to_string()))?;
    let mut text = String::new();
    write(&value, &mut text)?;
    Ok(text)
}

fn write(value: &Value, out: &mut String) -> Result<(), ProbeError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&plain(number)),
        Value::String(text) => quote(text, out)?,
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let sorted: BTreeMap<String, &Value> =
                fields.iter().map(|(key, value)| (key.nfc().collect(), value)).collect();
            if sorted.len() != fields.len() {
                let why = "two keys are the same text once they are normalised";
                return Err(ProbeError::invalid("a value to hash", why));
            }
            out.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(&key, out)?;
                out.push(':');
                write(value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// A number of whole value is written without a fraction and an exponent: `10.0`, `1e1` and `10` are one value.
fn plain(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 9e15 => {
            format!("{:.0}", if value == 0.0 { 0.0 } else { value })
        }
        _ => number.to_string(),
    }
}

fn quote(text: &str, out: &mut String) -> Result<(), ProbeError> {
    let composed: String = text.nfc().collect();
    let quoted = serde_json::to_string(&composed)
        .map_err(|error| ProbeError::invalid("a text to hash", error.to_string()))?;
    out.push_str(&quoted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_value_has_one_text() {
        let one = json!({"b": [1, 2.5, null], "a": {"z": true, "y": "cafe\u{301}"}});
        assert_eq!(
            canonical_json(&one).unwrap(),
            "{\"a\":{\"y\":\"caf\u{e9}\",\"z\":true},\"b\":[1,2.5,null]}"
        );
        for text in ["10", "10.0", "1e1", "1.0E+1"] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(canonical_json(&value).unwrap(), "10", "{text}");
        }
        assert_eq!(canonical_json(&json!(-0.0)).unwrap(), "0");
    }

    #[test]
    fn keys_that_fall_together_are_refused() {
        assert!(canonical_json(&json!({"\u{e9}": 1, "e\u{301}": 2})).is_err());
    }
}
