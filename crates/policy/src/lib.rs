//! The policy file: text and a moment in, promises and due times out.
//!
//! In: the text of a policy file and its name; moments and a time zone. Out: a [`Policy`] whose every value knows
//! where it came from, or every problem of the text at once, each with its place and what to write instead.
//!
//! Invariant: no I/O and no clock; a secret written in the clear is refused and appears in no message.

pub mod explain;
pub mod kind;
pub mod model;
pub mod order;
pub mod problem;
pub mod reckon;
pub mod retain;
pub mod retention;
pub mod schedule;
pub mod schema;
pub mod span;
pub mod value;

mod agreement;
mod application;
mod check;
mod drill;
mod inventory;
mod keys;
mod mask;
mod parse;
mod promises;
mod reader;
mod resolve;
mod rows;
mod sections;
mod store;
mod suggest;

pub use application::variable;
pub use explain::{ExplainLine, explain};
pub use kind::Kind;
pub use model::{
    Agreement, Application, Checks, CopyPlace, CopyUrl, DrillPlan, DrillTarget, Encryption, Endpoint,
    EtcdAccess, Expectation, Inventory, Keys, Lock, LockMode, Network, Origin, Policy, Promises, Question,
    Recipient, RedisCapture, RedisScan, Selected, Selection, Source, Sourced, Store, Tier, VectorEngine,
    VectorIndex, VectorMetric, Verify, Written,
};
pub use order::{Phase, restore_order};
pub use parse::{digest, parse};
pub use problem::{PolicyErrors, Position, Problem, Severity};
pub use reckon::{Ceiling, Gap, ceiling, usual};
pub use retain::{BorneOut, Candidate, Decided, Decision, Reason, Rules, Soundness, Unit, Verdict, decide};
pub use retention::{Gfs, Retention};
pub use schedule::Schedule;
pub use schema::json_schema;
pub use span::Span;
pub use value::InvalidValue;
