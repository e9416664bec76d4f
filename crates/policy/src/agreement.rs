//! Reads the `[agreement.NAME]` sections: what two stores must say of each other when both show one moment.

use std::collections::BTreeMap;

use lifeboat_base::ids::{AgreementName, StoreName};

use crate::keys;
use crate::kind::Kind;
use crate::model::{Agreement, Expectation, Selected, Selection, Store};
use crate::reader::{Context, Field, Section};
use crate::sections::{NAME_RULE, bad_name};
use crate::span::Span;
use crate::suggest;
use crate::value::InvalidValue;

/// The rules without errors. `known` are the names of all rows, also of those with errors.
pub(crate) fn agreements(
    section: &Section<'_>,
    known: &[&str],
    stores: &BTreeMap<StoreName, Store>,
    context: &mut Context,
) -> BTreeMap<AgreementName, Agreement> {
    let mut rules = BTreeMap::new();
    for (name, at, _) in section.entries() {
        let table = section.table(name, context);
        if !table.readable {
            continue;
        }
        table.refuse_unknown(&keys::AGREEMENT.iter().collect::<Vec<_>>(), context);
        let left = side(&table, "left", known, stores, context);
        let right = side(&table, "right", known, stores, context);
        let expect = table.parsed("expect", "bad-agreement", context, expectation);
        let within = table.parsed("within", "bad-duration", context, str::parse::<Span>);
        let broken = matches!(expect, Field::Broken) || matches!(within, Field::Broken);
        let Ok(id) = AgreementName::new(name) else {
            bad_name("rule", name, &at, NAME_RULE, context);
            continue;
        };
        let (Some(left), Some(right), false) = (left, right, broken) else { continue };
        if left.store == right.store {
            let message = format!("both sides of `{name}` are in the store `{}`", left.store);
            let help = "compare two stores; what one store must satisfy by itself belongs to its `checks`";
            context.error("bad-agreement", &table.at, message, help);
            continue;
        }
        let expect = expect.value().unwrap_or_default();
        let line = context.line(at.start);
        rules.insert(id, Agreement { left, right, expect, within: within.value(), line });
    }
    rules
}

fn expectation(text: &str) -> Result<Expectation, InvalidValue> {
    let all = [Expectation::Exists, Expectation::Same, Expectation::Newest];
    all.into_iter().find(|one| one.word() == text).ok_or_else(|| {
        let words = all.map(Expectation::word);
        InvalidValue::new(
            format!("unknown expectation `{text}`"),
            suggest::help(text, &words, "a rule can expect"),
        )
    })
}

fn side(
    rule: &Section<'_>,
    key: &'static str,
    known: &[&str],
    stores: &BTreeMap<StoreName, Store>,
    context: &mut Context,
) -> Option<Selection> {
    if rule.get(key).is_none() {
        let help = format!("write `{key} = {{ store = \"…\", sql = \"SELECT …\" }}`");
        context.absent("missing-key", &rule.at, format!("{} has no `{key}`", rule.title()), help);
        return None;
    }
    let table = rule.table(key, context);
    if !table.readable {
        return None;
    }
    table.refuse_unknown(&keys::SELECTION.iter().collect::<Vec<_>>(), context);
    let prefix = table.text("prefix", context).value().unwrap_or_default().to_owned();
    let suffix = table.text("suffix", context).value().unwrap_or_default().to_owned();
    let (name, at) = match table.filled("store", context) {
        Field::Set(name, at) => (name, at),
        Field::Broken => return None,
        Field::Absent => {
            let help = "say which store is asked: `store = \"NAME\"`";
            context.absent("missing-key", &table.at, format!("{} has no `store`", table.title()), help);
            return None;
        }
    };
    if !known.contains(&name) {
        let help = suggest::help(name, known, "the stores are");
        context.error("unknown-store", &at, format!("there is no store `{name}`"), help);
        return None;
    }
    // One with errors of its own has been reported.
    let store = stores.get(&StoreName::new(name).ok()?)?;
    if store.retention.value.gfs().is_none() {
        let message = format!("the store `{name}` is not retained: there is nothing to restore and compare");
        context.error("bad-agreement", &at, message, "name a store that has recovery points");
        return None;
    }
    let selected = selected(&table, store.kind, context)?;
    Some(Selection { store: store.name.clone(), selected, prefix, suffix })
}

/// What is read out of a store of this kind.
fn selected(table: &Section<'_>, kind: Kind, context: &mut Context) -> Option<Selected> {
    let own = match kind {
        Kind::Sqlite | Kind::Postgres => "sql",
        Kind::Files => "paths",
        Kind::Redis => "keys",
        Kind::Etcd => "under",
        Kind::Vector => "field",
        _ => {
            let message = format!("a store of kind `{kind}` cannot be compared yet");
            let help =
                "the kinds that can be are `postgres`, `sqlite`, `files`, `redis`, `etcd` and `vector`";
            context.error("bad-agreement", &table.at, message, help);
            return None;
        }
    };
    let mut fits = true;
    for other in ["sql", "paths", "keys", "under", "field"].into_iter().filter(|other| *other != own) {
        if table.get(other).is_some() {
            let message = format!("`{other}` does not select anything in a store of kind `{kind}`");
            context.error("foreign-key", &table.key_at(other), message, format!("write `{own} = \"…\"`"));
            fits = false;
        }
    }
    let database = table.filled("database", context);
    if kind != Kind::Postgres && !matches!(database, Field::Absent) {
        let message = format!("a store of kind `{kind}` has no `database` to choose");
        context.error("foreign-key", &table.key_at("database"), message, "remove it");
        fits = false;
    }
    let text = match table.filled(own, context) {
        Field::Set(text, _) => text.to_owned(),
        Field::Broken => return None,
        Field::Absent => {
            let message = format!("{} selects nothing", table.title());
            context.absent("missing-key", &table.at, message, format!("write `{own} = \"…\"`"));
            return None;
        }
    };
    let database = database.value().map(str::to_owned);
    fits.then_some(match kind {
        Kind::Files => Selected::Paths(text),
        Kind::Redis => Selected::Keys(text),
        Kind::Etcd => Selected::Under(text),
        Kind::Vector => Selected::Field(text),
        _ => Selected::Sql { database, text },
    })
}
