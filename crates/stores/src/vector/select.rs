//! What a restored index names: its records, their documents and sections, for comparing them with where they come from.

use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_probe::{ProbeError, Record};
use serde_json::Value;

use super::place::take_stock;
use crate::select::{Selected, Selection, Take, foreign, going_on};

/// Every selection in one pass over the shards.
pub(crate) fn select(
    restored: &Path,
    wanted: &[Selection],
    monitor: &dyn Monitor,
    take: &mut Take<'_>,
) -> Result<Vec<Result<(), Failure>>, Failure> {
    let fields: Vec<Result<&str, Failure>> = wanted
        .iter()
        .map(|selection| match selection {
            Selection::Field(field) => Ok(field.as_str()),
            _ => Err(foreign("vector")),
        })
        .collect();
    // The pass over the shards has errors of its own kind.
    let mut refused = None;
    let mut visit = |record: &Record| {
        for (number, field) in fields.iter().enumerate() {
            let Some(name) = field.as_ref().ok().and_then(|field| named(record, field)) else { continue };
            let found =
                Selected { name: name.into_bytes(), value: Some(record.rev.clone().into_bytes()), at: None };
            if let Err(failure) = going_on(monitor).and_then(|()| take(number, found)) {
                refused = Some(failure);
                return Err(ProbeError::Invalid {
                    what: "the index".to_owned(),
                    why: "it was not read to its end".to_owned(),
                });
            }
        }
        Ok(())
    };
    let taken = take_stock(restored, None, monitor, &mut visit);
    if let Some(failure) = refused {
        return Err(failure);
    }
    if let Some(fault) = taken?.faults.named.first() {
        let what = format!("the restored index holds lines that are no records: {fault}");
        return Err(Failure::new(FailureKind::Damaged, what));
    }
    Ok(fields.into_iter().map(|field| field.map(drop)).collect())
}

/// What a record holds in a field, if that is a text or a number; a point leads into an object.
fn named(record: &Record, field: &str) -> Option<String> {
    match field {
        "id" => return Some(record.id.clone()),
        "doc_id" => return Some(record.doc_id.clone()),
        "section_id" => return Some(record.section_id.clone()),
        _ => {}
    }
    let mut parts = field.split('.');
    let first = record.others.get(parts.next()?)?;
    match parts.try_fold(first, |value, part| value.get(part))? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_of_the_record_or_lies_in_an_object_of_it() {
        let line = r#"{"id":"c1","text":"a","doc_id":"d1","section_id":"s1","offsets":[0,1],"rev":"7",
            "metadata":{"page":{"number":4},"lang":"en","tags":["a"]},"flag":true}"#;
        let record = Record::from_line(line).unwrap();
        let found = |field: &str| named(&record, field);
        assert_eq!(found("id").as_deref(), Some("c1"));
        assert_eq!(found("doc_id").as_deref(), Some("d1"));
        assert_eq!(found("section_id").as_deref(), Some("s1"));
        assert_eq!(found("metadata.lang").as_deref(), Some("en"));
        assert_eq!(found("metadata.page.number").as_deref(), Some("4"));
        for nothing in ["metadata", "metadata.tags", "metadata.lang.x", "flag", "docid", ""] {
            assert_eq!(found(nothing), None, "{nothing}");
        }
    }
}
