//! Reads the `[tier.X]` and `[store.NAME]` sections and resolves every row.

use std::collections::BTreeMap;

use lifeboat_base::ids::{StoreName, TierName};

use crate::check;
use crate::keys;
use crate::kind::Kind;
use crate::model::{Promises, RedisCapture, Store, Tier};
use crate::promises;
use crate::reader::{Context, Field, Section};
use crate::resolve::{InForce, Layers, TierOf};
use crate::sections::{Copies, NAME_RULE, bad_name};
use crate::store;
use crate::suggest;

const TIER_RULE: &str = "use 1 to 64 letters, digits, `-` or `_`, starting with a letter or digit";

/// Tiers by name as written; `None` where the name is not valid.
pub(crate) type Tiers<'a> = BTreeMap<&'a str, Option<Tier>>;

pub(crate) fn tiers<'a>(section: &Section<'a>, copies: &[&str], context: &mut Context) -> Tiers<'a> {
    let mut tiers = Tiers::new();
    for (name, at, _) in section.entries() {
        let table = section.table(name, context);
        table.refuse_unknown(&keys::PROMISES.iter().collect::<Vec<_>>(), context);
        let promises = promises::read(&table, copies, context);
        let line = context.line(at.start);
        let tier = TierName::new(name).ok().map(|name| Tier { name, line, promises });
        if tier.is_none() {
            bad_name("tier", name, &at, TIER_RULE, context);
        }
        tiers.insert(name, tier);
    }
    tiers
}

/// What rows refer to.
pub(crate) struct World<'a> {
    pub(crate) known_stores: Vec<&'a str>,
    pub(crate) known_copies: Vec<&'a str>,
    pub(crate) copies: &'a Copies,
    pub(crate) tiers: &'a Tiers<'a>,
    pub(crate) defaults: &'a Promises,
}

impl World<'_> {
    /// The rows without errors, and the name of the first retained one.
    pub(crate) fn stores(
        &self,
        section: &Section<'_>,
        context: &mut Context,
    ) -> (BTreeMap<StoreName, Store>, Option<String>) {
        let mut stores = BTreeMap::new();
        let mut retained = None;
        for (name, _, _) in section.entries() {
            let table = section.table(name, context);
            if !table.readable {
                continue;
            }
            if let Some(store) = self.store(name, &table, &mut retained, context) {
                stores.insert(store.name.clone(), store);
            }
        }
        (stores, retained)
    }

    fn store(
        &self,
        name: &str,
        table: &Section<'_>,
        retained: &mut Option<String>,
        context: &mut Context,
    ) -> Option<Store> {
        let id = StoreName::new(name).ok();
        if id.is_none() {
            bad_name("store", name, &table.at, NAME_RULE, context);
        }
        let kind = store::kind(table, context);
        store::refuse_foreign_keys(table, kind, context);
        store::refuse_secret_in_stray_url(table, kind, context);
        let source = kind.and_then(|kind| store::source(table, kind, context));
        let checks = store::checks(table, kind, context);
        let needs = self.needs(name, table, context);
        let (tier_name, tier) = self.tier(table, context);
        let written = promises::read(table, &self.known_copies, context);
        let layers = Layers { row: &written, row_at: &table.at, tier, defaults: self.defaults };
        let capture = store::capture(table, kind);
        let has_log = kind.is_none_or(Kind::has_log) && capture.is_none_or(RedisCapture::has_log);
        let promises = layers.resolve(has_log);
        let row = check::Row {
            name,
            at: &table.at,
            kind,
            capture,
            has_log,
            written: &written,
            promises: &promises,
            checks: &checks,
        };
        if check::row(&row, self.copies, context) && retained.is_none() {
            *retained = Some(name.to_owned());
        }
        let line = context.line(table.at.start);
        let promises = InForce::of(promises)?;
        Some(Store {
            name: id?,
            kind: kind?,
            source: source?,
            tier: tier_name,
            rpo: promises.rpo,
            rto: promises.rto,
            schedule: promises.schedule,
            retention: promises.retention,
            logs: promises.logs,
            copies: promises.copies,
            encryption: promises.encryption,
            immutability: promises.immutability,
            verify: promises.verify,
            checks,
            needs,
            line,
        })
    }

    /// What has to be there before a row.
    fn needs(&self, name: &str, table: &Section<'_>, context: &mut Context) -> Vec<StoreName> {
        let mut needs = Vec::new();
        for (need, at) in table.texts("needs", context).value().unwrap_or_default() {
            if need == name {
                let message = format!("store `{name}` needs itself");
                context.error("circular-needs", &at, message, "remove it");
            } else if !self.known_stores.contains(&need) {
                let help = suggest::help(need, &self.known_stores, "the stores are");
                context.error("unknown-store", &at, format!("there is no store `{need}`"), help);
            } else if let Ok(need) = StoreName::new(need) {
                needs.push(need);
            }
        }
        needs
    }

    /// The tier a row names.
    fn tier(&self, table: &Section<'_>, context: &mut Context) -> (Option<TierName>, TierOf<'_>) {
        let (name, at) = match table.filled("tier", context) {
            Field::Absent => return (None, TierOf::None),
            Field::Broken => return (None, TierOf::Unknown),
            Field::Set(name, at) => (name, at),
        };
        match self.tiers.get(name) {
            Some(Some(tier)) => (Some(tier.name.clone()), TierOf::Known(tier)),
            // Its name has been reported where it is defined.
            Some(None) => (None, TierOf::Unknown),
            None => {
                let known: Vec<&str> = self.tiers.keys().copied().collect();
                let help = suggest::help(name, &known, "the tiers are");
                context.error("unknown-tier", &at, format!("there is no tier `{name}`"), help);
                (None, TierOf::Unknown)
            }
        }
    }
}
