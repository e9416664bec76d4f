//! Row over tier over defaults over built-in: decides every promise of a row and remembers where it was written.

use std::ops::Range;

use lifeboat_base::ids::CopyName;

use crate::model::{Encryption, Origin, Promises, Sourced, Tier, Verify, Written};
use crate::retention::Retention;
use crate::schedule::Schedule;
use crate::span::Span;

/// A value in force and the place a message about it points at.
#[derive(Debug, Clone)]
pub(crate) struct Resolved<T> {
    pub(crate) sourced: Sourced<T>,
    pub(crate) at: Range<usize>,
}

impl<T> Resolved<T> {
    pub(crate) fn value(&self) -> &T {
        &self.sourced.value
    }

    pub(crate) fn in_row(&self) -> bool {
        matches!(self.sourced.origin, Origin::Row { .. })
    }
}

/// What the layers of a row say about one key.
#[derive(Debug, Clone)]
pub(crate) enum Nearest<T> {
    /// Nothing.
    Absent,
    /// Something wrong, or perhaps something in a tier that does not exist; reported already.
    Broken,
    /// A value.
    Written(Resolved<T>),
}

/// Every promise of a row; `None` where it is broken, which has been reported.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedPromises {
    pub(crate) rpo: Option<Resolved<Option<Span>>>,
    pub(crate) rto: Option<Resolved<Option<Span>>>,
    pub(crate) schedule: Option<Resolved<Option<Schedule>>>,
    pub(crate) retention: Nearest<Retention>,
    pub(crate) logs: Option<Resolved<Option<Span>>>,
    pub(crate) copies: Option<Resolved<Vec<CopyName>>>,
    pub(crate) encryption: Option<Resolved<Encryption>>,
    pub(crate) immutability: Option<Resolved<Option<Span>>>,
    pub(crate) verify: Option<Resolved<Verify>>,
}

/// What stands behind a row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TierOf<'a> {
    /// It names none.
    None,
    /// It names one that does not exist, which has been reported: what is missing may stand there.
    Unknown,
    /// It names one.
    Known(&'a Tier),
}

/// Where a row's values come from.
pub(crate) struct Layers<'a> {
    pub(crate) row: &'a Promises,
    /// The place of the row's name.
    pub(crate) row_at: &'a Range<usize>,
    pub(crate) tier: TierOf<'a>,
    pub(crate) defaults: &'a Promises,
}

#[derive(Clone, Copy)]
enum Layer<'a> {
    Row(&'a Promises),
    Tier(&'a Tier),
    Defaults(&'a Promises),
}

impl<'a> Layer<'a> {
    fn promises(self) -> &'a Promises {
        match self {
            Self::Row(promises) | Self::Defaults(promises) => promises,
            Self::Tier(tier) => &tier.promises,
        }
    }

    fn origin(self, line: usize) -> Origin {
        match self {
            Self::Row(_) => Origin::Row { line },
            Self::Tier(tier) => Origin::Tier { name: tier.name.clone(), line },
            Self::Defaults(_) => Origin::Defaults { line },
        }
    }
}

impl Layers<'_> {
    pub(crate) fn resolve(&self, has_log: bool) -> ResolvedPromises {
        let mut promises = ResolvedPromises {
            rpo: self.pick("rpo", |promises| promises.rpo.as_ref(), None),
            rto: self.pick("rto", |promises| promises.rto.as_ref(), None),
            schedule: self.pick("schedule", |promises| promises.schedule.as_ref(), None),
            retention: self.find("retention", |promises| promises.retention.as_ref()),
            logs: self.pick("logs", |promises| promises.logs.as_ref(), None),
            copies: self.pick("copies", |promises| promises.copies.as_ref(), Vec::new()),
            encryption: self.pick(
                "encryption",
                |promises| promises.encryption.as_ref(),
                Encryption::Required,
            ),
            immutability: self.pick("immutability", |promises| promises.immutability.as_ref(), None),
            verify: self.pick("verify", |promises| promises.verify.as_ref(), Verify::default()),
        };
        // A log window from a tier is for the stores that have a log.
        if !has_log && promises.logs.as_ref().is_some_and(|logs| !logs.in_row()) {
            promises.logs = Some(self.built_in(None));
        }
        promises
    }

    fn pick<T: Clone>(
        &self,
        key: &'static str,
        get: for<'p> fn(&'p Promises) -> Option<&'p Written<T>>,
        built_in: T,
    ) -> Option<Resolved<T>> {
        match self.find(key, get) {
            Nearest::Written(resolved) => Some(resolved),
            Nearest::Absent => Some(self.built_in(built_in)),
            Nearest::Broken => None,
        }
    }

    fn built_in<T>(&self, value: T) -> Resolved<T> {
        Resolved { sourced: Sourced { value, origin: Origin::BuiltIn }, at: self.row_at.clone() }
    }

    /// The nearest layer that has the key.
    fn find<T: Clone>(
        &self,
        key: &'static str,
        get: for<'p> fn(&'p Promises) -> Option<&'p Written<T>>,
    ) -> Nearest<T> {
        let tier = match self.tier {
            TierOf::Known(tier) => Some(Layer::Tier(tier)),
            TierOf::None | TierOf::Unknown => None,
        };
        for layer in
            [Some(Layer::Row(self.row)), tier, Some(Layer::Defaults(self.defaults))].into_iter().flatten()
        {
            if layer.promises().broken.contains(&key) {
                return Nearest::Broken;
            }
            if let Some(written) = get(layer.promises()) {
                let at = if matches!(layer, Layer::Row(_)) { &written.at } else { self.row_at };
                let sourced = Sourced { value: written.value.clone(), origin: layer.origin(written.line) };
                return Nearest::Written(Resolved { sourced, at: at.clone() });
            }
        }
        match self.tier {
            TierOf::Unknown => Nearest::Broken,
            TierOf::None | TierOf::Known(_) => Nearest::Absent,
        }
    }
}

/// Every promise of a row, none of them broken.
pub(crate) struct InForce {
    pub(crate) rpo: Sourced<Option<Span>>,
    pub(crate) rto: Sourced<Option<Span>>,
    pub(crate) schedule: Sourced<Option<Schedule>>,
    pub(crate) retention: Sourced<Retention>,
    pub(crate) logs: Sourced<Option<Span>>,
    pub(crate) copies: Sourced<Vec<CopyName>>,
    pub(crate) encryption: Sourced<Encryption>,
    pub(crate) immutability: Sourced<Option<Span>>,
    pub(crate) verify: Sourced<Verify>,
}

impl InForce {
    /// `None` when a promise is broken or no retention is written. A row that is not retained loses every promise about recovery points, so that
    /// nothing a tier says can make anybody capture it.
    pub(crate) fn of(promises: ResolvedPromises) -> Option<Self> {
        let Nearest::Written(retention) = promises.retention else { return None };
        let retention = retention.sourced;
        let mut in_force = Self {
            rpo: promises.rpo?.sourced,
            rto: promises.rto?.sourced,
            schedule: promises.schedule?.sourced,
            logs: promises.logs?.sourced,
            copies: promises.copies?.sourced,
            encryption: promises.encryption?.sourced,
            immutability: promises.immutability?.sourced,
            verify: promises.verify?.sourced,
            retention,
        };
        if !in_force.retention.value.keeps_points() {
            let origin = &in_force.retention.origin;
            in_force.rpo = Sourced { value: None, origin: origin.clone() };
            in_force.schedule = Sourced { value: None, origin: origin.clone() };
            in_force.logs = Sourced { value: None, origin: origin.clone() };
            in_force.copies = Sourced { value: Vec::new(), origin: origin.clone() };
            in_force.immutability = Sourced { value: None, origin: origin.clone() };
            in_force.verify = Sourced { value: Verify::default(), origin: origin.clone() };
        }
        Some(in_force)
    }
}
