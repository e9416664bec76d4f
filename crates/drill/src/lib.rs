//! Drills: restore into a sandbox, check against what was captured, measure, give a verdict, tear down.
//!
//! In: recovery points opened for reading, the adapters of their stores, and the promises of their rows. Out: a
//! report in the shape `lifeboat.drill/v1`.
//!
//! Invariant: a drill writes only inside its sandbox, never touches a store or a vault, and always tears down.

mod agreement;
mod application;
mod deadline;
mod differ;
mod forecast;
mod recorder;
mod replay;
mod report;
mod run;
mod sandbox;
mod target;

pub use agreement::{Expect, Rule, Side};
pub use application::{Answers, Application, Need, Question};
pub use differ::{MustDiffer, Sighting, Telltale, Telltales};
pub use forecast::{Forecast, Past, forecast};
pub use replay::{ReplaySubject, replay};
pub use report::{
    CheckOutcome, DrillReport, DrillVerdict, Environment, LogLine, ReplayDrill, StageReport, StoreDrill,
    Tally, TierDrill,
};
pub use run::{DrillSubject, OpenPoint, ProveLog, Rehearsal, TryReading, run};
pub use sandbox::{Sandbox, SandboxError, Swept, sweep};
pub use target::{Isolated, Local, Target};
