//! Reads the `[application.NAME]` sections: what an application must be able to do on stores that were restored together.

use std::collections::BTreeMap;

use lifeboat_base::ids::{AgreementName, ApplicationName, StoreName};

use crate::keys;
use crate::kind::Kind;
use crate::model::{Agreement, Application, Network, Question, Store};
use crate::reader::{Context, Field, Section};
use crate::sections::{NAME_RULE, bad_name};
use crate::span::Span;
use crate::suggest;
use crate::value::InvalidValue;

/// How long a command may take that does not say.
const USUAL: &str = "5m";
/// The kinds that an application can use once they are restored.
const LENT: [Kind; 5] = [Kind::Files, Kind::Sqlite, Kind::Postgres, Kind::Redis, Kind::Etcd];

/// What an application can name.
pub(crate) struct Known<'a> {
    /// All rows, also those with errors.
    pub(crate) names: &'a [&'a str],
    pub(crate) rows: &'a BTreeMap<StoreName, Store>,
    /// Rules and applications are told by one name.
    pub(crate) agreements: &'a BTreeMap<AgreementName, Agreement>,
}

/// The applications without errors.
pub(crate) fn applications(
    section: &Section<'_>,
    known: &Known<'_>,
    context: &mut Context,
) -> BTreeMap<ApplicationName, Application> {
    let mut applications = BTreeMap::new();
    for (name, at, _) in section.entries() {
        let table = section.table(name, context);
        if !table.readable {
            continue;
        }
        table.refuse_unknown(&keys::APPLICATION.iter().collect::<Vec<_>>(), context);
        let stores = stores(&table, known, context);
        let command = command(&table, context);
        let within = table.parsed("within", "bad-duration", context, str::parse::<Span>);
        let network = table.parsed("network", "bad-application", context, network);
        let http = questions(&table, context);
        let broken = matches!(within, Field::Broken) || matches!(network, Field::Broken);
        let Ok(id) = ApplicationName::new(name) else {
            bad_name("check of an application", name, &at, NAME_RULE, context);
            continue;
        };
        if known.agreements.keys().any(|rule| rule.as_str() == name) {
            let message = format!("`{name}` is an agreement and an application");
            context.error("bad-application", &at, message, "give one of the two another name");
            continue;
        }
        let within = within.value().or_else(|| USUAL.parse().ok());
        let (Some(stores), Some(command), Some(within), Some(http), false) =
            (stores, command, within, http, broken)
        else {
            continue;
        };
        let network = network.value().unwrap_or_default();
        let line = context.line(at.start);
        applications.insert(id, Application { stores, command, within, network, http, line });
    }
    applications
}

fn network(text: &str) -> Result<Network, InvalidValue> {
    let all = [Network::None, Network::Host];
    all.into_iter().find(|one| one.word() == text).ok_or_else(|| {
        let help = suggest::help(text, &all.map(Network::word), "a command can have");
        InvalidValue::new(format!("unknown network `{text}`"), help)
    })
}

/// What it is asked; nothing if that is broken.
fn questions(table: &Section<'_>, context: &mut Context) -> Option<Vec<Question>> {
    let asked = match table.texts("http", context) {
        Field::Set(asked, _) => asked,
        Field::Absent => return Some(Vec::new()),
        Field::Broken => return None,
    };
    let mut questions: Vec<Question> = Vec::new();
    for (text, at) in &asked {
        match text.parse::<Question>() {
            Ok(question) if questions.iter().any(|other| other.path == question.path) => {
                let message = format!("`{}` is asked twice", question.path);
                context.error("bad-application", at, message, "ask each path once");
            }
            Ok(question) => questions.push(question),
            Err(error) => context.invalid("bad-application", at, &error),
        }
    }
    (questions.len() == asked.len()).then_some(questions)
}

fn command(table: &Section<'_>, context: &mut Context) -> Option<Vec<String>> {
    match table.texts("command", context) {
        Field::Set(words, _) if !words.is_empty() => {
            Some(words.into_iter().map(|(word, _)| word.to_owned()).collect())
        }
        Field::Broken => None,
        Field::Absent | Field::Set(..) => {
            let help = "write program and arguments: `command = [\"./smoke-test\", \"--read-only\"]`";
            context.absent("missing-key", &table.at, format!("{} has no `command`", table.title()), help);
            None
        }
    }
}

fn stores(table: &Section<'_>, known: &Known<'_>, context: &mut Context) -> Option<Vec<StoreName>> {
    let names = match table.texts("stores", context) {
        Field::Set(names, _) if !names.is_empty() => names,
        Field::Broken => return None,
        Field::Absent | Field::Set(..) => {
            let help = "say what it needs: `stores = [\"NAME\"]`";
            context.absent("missing-key", &table.at, format!("{} has no `stores`", table.title()), help);
            return None;
        }
    };
    let mut stores: Vec<StoreName> = Vec::new();
    let mut whole = true;
    for (name, at) in names {
        if !known.names.contains(&name) {
            let help = suggest::help(name, known.names, "the stores are");
            context.error("unknown-store", &at, format!("there is no store `{name}`"), help);
            whole = false;
            continue;
        }
        // One with errors of its own has been reported.
        let Some(row) = StoreName::new(name).ok().and_then(|id| known.rows.get(&id)) else {
            whole = false;
            continue;
        };
        let wrong = if row.retention.value.gfs().is_none() {
            Some(format!("the store `{name}` is not retained: there is nothing to restore and use"))
        } else if !LENT.contains(&row.kind) {
            Some(format!("a store of kind `{}` cannot be used by an application yet", row.kind))
        } else {
            let twin = stores.iter().find(|other| variable(other) == variable(&row.name));
            twin.map(|twin| format!("`{twin}` and `{name}` would be the same variable"))
        };
        if let Some(message) = wrong {
            context.error("bad-application", &at, message, "remove it from `stores`");
            whole = false;
        }
        stores.push(row.name.clone());
    }
    whole.then_some(stores)
}

/// How the variables that tell an application of a store end: `MY_SHOP` for `my-shop`.
pub fn variable(store: &StoreName) -> String {
    store.as_str().replace('-', "_").to_ascii_uppercase()
}
