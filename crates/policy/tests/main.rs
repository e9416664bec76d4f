//! The policy file from the outside: every example, every valid and every invalid policy, and the documentation.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "main/documents.rs"]
mod documents;
#[path = "main/examples.rs"]
mod examples;
#[path = "main/invalid.rs"]
mod invalid;
#[path = "main/order.rs"]
mod order;
#[path = "main/promises.rs"]
mod promises;
#[path = "main/retain.rs"]
mod retain;
#[path = "main/schedules.rs"]
mod schedules;
#[path = "main/secrets.rs"]
mod secrets;
#[path = "main/values.rs"]
mod values;
