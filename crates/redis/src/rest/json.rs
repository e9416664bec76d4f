//! Commands and answers as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::scan::Command;
use crate::wire::{RedisError, Reply, ServerError};

/// Commands as an array of arrays of texts; nothing if one of them holds what is no text.
pub(super) fn pipeline(commands: &[Command]) -> Option<Vec<u8>> {
    let texts: Option<Vec<Vec<&str>>> = commands
        .iter()
        .map(|command| command.iter().map(|part| std::str::from_utf8(part).ok()).collect())
        .collect();
    serde_json::to_vec(&texts?).ok()
}

/// Whether a command can be written as JSON.
pub(super) fn is_text(command: &Command) -> bool {
    command.iter().all(|part| std::str::from_utf8(part).is_ok())
}

/// The answers to a pipeline; nothing if this is not JSON, as where it was cut.
pub(super) fn answers(body: &[u8]) -> Option<Result<Vec<Reply>, RedisError>> {
    match serde_json::from_slice(body).ok()? {
        Value::Array(answers) => Some(answers.into_iter().map(answer).collect()),
        _ => Some(Err(malformed())),
    }
}

/// The answer to a single command.
pub(super) fn one(body: &[u8]) -> Option<Result<Reply, RedisError>> {
    serde_json::from_slice(body).ok().map(answer)
}

/// What a service says went wrong with a whole request.
pub(super) fn complaint(body: &[u8]) -> ServerError {
    let said: Option<Value> = serde_json::from_slice(body).ok();
    match said.as_ref().and_then(|said| said.get("error")).and_then(Value::as_str) {
        Some(text) => ServerError::read(text.as_bytes()),
        None => ServerError { code: "ERR".to_owned(), message: "without a reason".to_owned() },
    }
}

fn malformed() -> RedisError {
    RedisError::Protocol { what: "an answer of another form than the REST form has" }
}

fn answer(value: Value) -> Result<Reply, RedisError> {
    let Value::Object(mut fields) = value else { return Err(malformed()) };
    match (fields.remove("result"), fields.remove("error")) {
        (None, Some(Value::String(text))) => Ok(Reply::Error(ServerError::read(text.as_bytes()))),
        (Some(result), None) => reply(result),
        _ => Err(malformed()),
    }
}

fn reply(value: Value) -> Result<Reply, RedisError> {
    Ok(match value {
        Value::Null => Reply::Null,
        Value::Bool(is) => Reply::Integer(i64::from(is)),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Reply::Integer(number),
            None => Reply::Bulk(number.to_string().into_bytes()),
        },
        // The one text that comes as it is.
        Value::String(text) if text == "OK" => Reply::Simple(text.into_bytes()),
        Value::String(text) => Reply::Bulk(STANDARD.decode(text).map_err(|_invalid| malformed())?),
        Value::Array(members) => Reply::Array(members.into_iter().map(reply).collect::<Result<_, _>>()?),
        Value::Object(_) => return Err(malformed()),
    })
}
