//! The engine: a policy and requests in, job runs out.
//!
//! In: the policy file, a clock, entropy, a source of secrets and a monitor. Out: reports of what was captured,
//! proved, restored and rehearsed, each filed in the evidence chain before it is believed.
//!
//! Invariant: never prints, never exits, never reads the environment; everything it learns goes back as a value.

mod adapters;
mod audit;
mod backup;
mod check;
mod context;
mod copies;
mod drills;
mod due;
mod duties;
mod error;
mod extract;
mod holds;
mod inventory;
mod journal;
mod load;
mod locks;
mod logs;
mod passwords;
mod places;
mod plans;
mod points;
mod probes;
mod rebuild;
mod recipients;
mod rehearsals;
mod restore;
mod retain;
mod shares;
mod shred;
mod status;
mod verify;
mod view;
mod when;

pub use audit::{AuditReport, AuditSummary, Gap, Rebuild};
pub use backup::{BackupOptions, BackupReport, StoreBackup};
pub use check::{CheckReport, CheckedCopy, CheckedRecipient, CheckedStore};
pub use context::{Engine, Environment, Observer};
pub use drills::DrillOptions;
pub use due::{Agenda, Due, Task};
pub use error::{AtRisk, EngineError};
pub use extract::{PartOptions, PartOutcome};
pub use holds::{Dropped, HoldReport, HoldRequest, HoldView};
pub use inventory::{FoundStore, InventoryReport, is_database};
pub use lifeboat_catalog::ProofLevel;
pub use lifeboat_drill::{
    CheckOutcome, DrillReport, DrillVerdict, MustDiffer, ReplayDrill, StoreDrill, Tally,
};
pub use lifeboat_evidence as evidence;
pub use lifeboat_keys as keys;
pub use lifeboat_policy as policy;
pub use lifeboat_policy::Endpoint;
pub use lifeboat_stores::{CheckState, Conflict, Meaning, MergeOptions, WorstProbe};
pub use lifeboat_vault::holds as vault_holds;
pub use load::LoadOutcome;
pub use locks::{CheckedLocks, CopyLocks};
pub use logs::{FetchOptions, FetchReport, FollowOptions, FollowReport, Kept, PushOptions, PushReport};
pub use plans::PlanStatus;
pub use points::{PointView, PointsReport, RangeView};
pub use probes::{CurateView, DraftView, ProbeReport};
pub use rebuild::RebuildReport;
pub use restore::{RestoreOptions, RestoreOutcome};
pub use retain::{
    Applied, AppliedCopy, LockWait, LockedCopy, LogPlan, RetainOptions, RetainReport, RetainedPoint,
    SpacePlan, StoreRetention, Waiting,
};
pub use shred::{ShredReport, ShredRequest, ShreddedCopy};
pub use status::{PromiseKind, PromiseState, PromiseView, StatusReport, StoreStatus};
pub use verify::{CopyVerification, VerifyOptions, VerifyReport};
