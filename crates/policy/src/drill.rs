//! Reads the `[drill.NAME]` sections: rehearsals that are due again and again.

use std::collections::BTreeMap;

use lifeboat_base::ids::{AgreementName, ApplicationName, CopyName, PlanName, StoreName};

use crate::application;
use crate::keys;
use crate::model::{Application, DrillChecks, DrillPlan, DrillTarget, Recipient, Store};
use crate::promises::cadence;
use crate::reader::{Context, Field, Section};
use crate::sections::{Copies, NAME_RULE, bad_name};
use crate::span::Span;
use crate::suggest;
use crate::value::InvalidValue;

/// What a plan can name.
pub(crate) struct Known<'a> {
    pub(crate) named: &'a application::Known<'a>,
    pub(crate) applications: &'a BTreeMap<ApplicationName, Application>,
    pub(crate) copies: &'a Copies,
    pub(crate) recipients: &'a [Recipient],
}

impl Known<'_> {
    /// The stores that a rule or an application needs; nothing if there is none of that name.
    fn needed(&self, name: &str) -> Option<Vec<&StoreName>> {
        let rule = self.named.agreements.iter().find(|(known, _)| known.as_str() == name);
        let application = self.applications.iter().find(|(known, _)| known.as_str() == name);
        rule.map(|(_, rule)| vec![&rule.left.store, &rule.right.store])
            .or_else(|| application.map(|(_, application)| application.stores.iter().collect()))
    }
}

/// The plans without errors.
pub(crate) fn plans(
    section: &Section<'_>,
    known: &Known<'_>,
    context: &mut Context,
) -> BTreeMap<PlanName, DrillPlan> {
    let mut plans = BTreeMap::new();
    for (name, at, _) in section.entries() {
        let table = section.table(name, context);
        if !table.readable {
            continue;
        }
        table.refuse_unknown(&keys::DRILL.iter().collect::<Vec<_>>(), context);
        let stores = stores(&table, known, context);
        let without = without(&table, stores.as_deref().unwrap_or_default(), known, context);
        let open_with = open_with(&table, known, context);
        let checks = checks(&table, stores.as_deref().unwrap_or_default(), known, context);
        let back = table.parsed("back", "bad-duration", context, str::parse::<Span>);
        let target = table.parsed("target", "bad-target", context, target);
        let every = table.parsed("every", "bad-cadence", context, cadence);
        let broken = matches!(back, Field::Broken)
            || matches!(every, Field::Broken)
            || matches!(target, Field::Broken);
        let Ok(id) = PlanName::new(name) else {
            bad_name("drill", name, &at, NAME_RULE, context);
            continue;
        };
        let (Some(stores), Some(without), Some(open_with), Some(checks), false) =
            (stores, without, open_with, checks, broken)
        else {
            continue;
        };
        let back = back.value();
        let usual = usual(&stores, back, &without, &open_with);
        let line = context.line(at.start);
        let every = every.value().or_else(|| usual.parse().ok());
        let Some(every) = every else { continue };
        let target = target.value().unwrap_or_default();
        plans.insert(id, DrillPlan { stores, every, back, without, open_with, checks, target, line });
    }
    plans
}

fn target(text: &str) -> Result<DrillTarget, InvalidValue> {
    if text == DrillTarget::Local.word() {
        return Ok(DrillTarget::Local);
    }
    Err(InvalidValue::new(
        format!("a drill cannot restore to `{text}`"),
        "write `local`, a sandbox on this machine: this version knows no other target",
    ))
}

/// How often a drill is due that does not say: a small restore each day, a moment of the past each week, everything each month,
/// the loss of a place or of the everyday keys each quarter.
fn usual(
    stores: &[StoreName],
    back: Option<Span>,
    without: &[CopyName],
    open_with: &[Recipient],
) -> &'static str {
    if !without.is_empty() || !open_with.is_empty() {
        "3mo"
    } else if back.is_some() {
        "7d"
    } else if stores.is_empty() {
        "1mo"
    } else {
        "1d"
    }
}

fn stores(table: &Section<'_>, known: &Known<'_>, context: &mut Context) -> Option<Vec<StoreName>> {
    let names = match table.texts("stores", context) {
        Field::Absent => return Some(Vec::new()),
        Field::Broken => return None,
        Field::Set(names, at) if names.is_empty() => {
            let help = "name some, or remove `stores` for all of them";
            context.error("bad-drill", &at, format!("{} has no stores", table.title()), help);
            return None;
        }
        Field::Set(names, _) => names,
    };
    let mut stores = Vec::new();
    let mut whole = true;
    for (name, at) in names {
        if !known.named.names.contains(&name) {
            let help = suggest::help(name, known.named.names, "the stores are");
            context.error("unknown-store", &at, format!("there is no store `{name}`"), help);
            whole = false;
        } else if let Ok(id) = StoreName::new(name) {
            stores.push(id);
        }
    }
    whole.then_some(stores)
}

/// The copies that are treated as gone; every store of the drill must have another.
fn without(
    table: &Section<'_>,
    stores: &[StoreName],
    known: &Known<'_>,
    context: &mut Context,
) -> Option<Vec<CopyName>> {
    let names = match table.texts("without", context) {
        Field::Absent => return Some(Vec::new()),
        Field::Broken => return None,
        Field::Set(names, _) => names,
    };
    let copies: Vec<&str> = known.copies.keys().map(CopyName::as_str).collect();
    let mut gone = Vec::new();
    let mut whole = true;
    for (name, at) in names {
        match CopyName::new(name) {
            Ok(copy) if known.copies.contains_key(&copy) => gone.push(copy),
            _ => {
                let help = suggest::help(name, &copies, "the copies are");
                context.error("unknown-copy", &at, format!("there is no copy `{name}`"), help);
                whole = false;
            }
        }
    }
    let drilled = |row: &&Store| stores.is_empty() || stores.contains(&row.name);
    let lost = known.named.rows.values().filter(drilled).find(|row| {
        let copies = &row.copies.value;
        !copies.is_empty() && copies.iter().all(|copy| gone.contains(copy))
    });
    if let Some(row) = lost.filter(|_| whole) {
        let message = format!("without these copies nothing of `{}` is left", row.name);
        let help = "give the row a copy somewhere else: after such a loss it could not come back";
        context.error("bad-drill", &table.key_at("without"), message, help);
        return None;
    }
    whole.then_some(gone)
}

/// The rules and applications that are asked. One that needs a store outside of the drill would never be asked.
fn checks(
    table: &Section<'_>,
    stores: &[StoreName],
    known: &Known<'_>,
    context: &mut Context,
) -> Option<DrillChecks> {
    let names = match table.texts("checks", context) {
        Field::Absent => return Some(DrillChecks::All),
        Field::Broken => return None,
        Field::Set(names, _) => names,
    };
    let agreements = known.named.agreements.keys().map(AgreementName::as_str);
    let all: Vec<&str> = agreements.chain(known.applications.keys().map(ApplicationName::as_str)).collect();
    let (mut asked, mut whole) = (Vec::new(), true);
    for (name, at) in names {
        let Some(needed) = known.needed(name) else {
            let help = suggest::help(name, &all, "the rules and applications are");
            context.error("bad-drill", &at, format!("there is no rule or application `{name}`"), help);
            whole = false;
            continue;
        };
        let outside = needed.into_iter().find(|store| !stores.is_empty() && !stores.contains(store));
        if let Some(store) = outside {
            let message = format!("`{name}` needs `{store}`, which this drill does not restore");
            context.error("bad-drill", &at, message, "add it to `stores`, or leave the name out");
            whole = false;
        }
        asked.push(name.to_owned());
    }
    whole.then_some(DrillChecks::Only(asked))
}

/// The recipients that are there; each one of the policy's.
fn open_with(table: &Section<'_>, known: &Known<'_>, context: &mut Context) -> Option<Vec<Recipient>> {
    let texts = match table.texts("open_with", context) {
        Field::Absent => return Some(Vec::new()),
        Field::Broken => return None,
        Field::Set(texts, _) => texts,
    };
    let mut left = Vec::new();
    let mut whole = true;
    for (text, at) in texts {
        if let Some(recipient) = known.recipients.iter().find(|recipient| recipient.to_string() == text) {
            left.push(recipient.clone());
            continue;
        }
        // The text may be a secret that was put in the wrong place.
        let message = "this is none of the recipients under `[keys]`";
        context.secret("unknown-recipient", &at, message, "repeat one of them, letter by letter");
        whole = false;
    }
    whole.then_some(left)
}
