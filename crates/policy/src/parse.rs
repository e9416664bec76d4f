//! From text to a [`Policy`], or to every problem of the text at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use lifeboat_base::digest::Digest;
use lifeboat_base::ids::{StoreName, TierName};
use toml::de::DeTable;

use crate::agreement;
use crate::application;
use crate::check;
use crate::drill::{self, Known};
use crate::inventory;
use crate::keys;
use crate::mask;
use crate::model::{Keys, Policy, Store};
use crate::order::restore_order;
use crate::problem::{MaskedText, PolicyErrors, Problem, Severity};
use crate::promises;
use crate::reader::{Context, Field, Found, Section};
use crate::rows::{self, World};
use crate::sections;
use crate::suggest;
use crate::value::InvalidValue;

/// The largest policy file that is read.
const MAX_POLICY_BYTES: usize = 1024 * 1024;

/// The hash of a policy: SHA-256 of its bytes, as `sha256sum` prints it.
pub fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Reads a policy. `file_name` is for messages only.
pub fn parse(text: &str, file_name: &str) -> Result<Policy, PolicyErrors> {
    let mut context = Context::new(text);
    if text.len() > MAX_POLICY_BYTES {
        let message = format!("the policy is larger than {MAX_POLICY_BYTES} bytes");
        context.error("too-large", &(0..0), message, "is this the right file?");
        return Err(PolicyErrors::new(problems(context, "", file_name, false)));
    }
    let (document, syntax) = DeTable::parse_recoverable(text);
    let policy = read(&Section::root(document.get_ref()), &mut context);
    let broken = !syntax.is_empty();
    if broken {
        let lines: Vec<usize> =
            syntax.iter().map(|error| context.line(place_of(error, text).start)).collect();
        // What is missing, and what stands on a line that could not be read, follows from the syntax error.
        let found = std::mem::take(&mut context.found);
        let keep = |found: &Found, context: &Context| {
            found.severity == Severity::Error
                && !found.absence
                && !lines.contains(&context.line(found.at.start))
        };
        context.found = found.into_iter().filter(|found| keep(found, &context)).collect();
        for error in &syntax {
            let message = format!("this is not valid TOML: {}", error.message());
            context.error(
                "syntax",
                &place_of(error, text),
                message,
                "fix the line; the rest is checked as far as it can be read",
            );
        }
    }
    let refused = context.has_errors();
    let found = problems(context, text, file_name, broken);
    match policy {
        Some(policy) if !refused => Ok(Policy { warnings: found, ..policy }),
        _ => Err(PolicyErrors::new(
            found.into_iter().filter(|problem| problem.severity() == Severity::Error).collect(),
        )),
    }
}

fn place_of(error: &toml::de::Error, text: &str) -> Range<usize> {
    error.span().unwrap_or(text.len()..text.len())
}

/// Gives every finding its line and column in the masked text, in the order of the file.
fn problems(context: Context, text: &str, file_name: &str, broken: bool) -> Vec<Problem> {
    let masked = mask::mask(text, &context.secrets, broken);
    let source = Arc::new(MaskedText { file_name: file_name.to_owned(), text: masked });
    let mut problems: Vec<Problem> =
        context.found.into_iter().map(|found| Problem::new(found, &source)).collect();
    problems.sort_by_key(Problem::position);
    problems
}

fn read(root: &Section<'_>, context: &mut Context) -> Option<Policy> {
    root.refuse_unknown(&keys::TOP.iter().collect::<Vec<_>>(), context);
    version(root, context);
    let timezone = root.parsed("timezone", "unknown-timezone", context, timezone);
    let (timezone, timezone_name) = timezone.value().unwrap_or((TimeZone::UTC, "UTC".to_owned()));
    let state = root.filled("state", context).value().unwrap_or("./state").to_owned();

    let keys_section = root.table("keys", context);
    keys_section.refuse_unknown(&keys::KEYS.iter().collect::<Vec<_>>(), context);
    let recipients = sections::recipients(&keys_section, context);

    let copy_section = root.table("copy", context);
    let known_copies: Vec<&str> = copy_section.entries().map(|(name, _, _)| name).collect();
    let copies = sections::copies(&copy_section, context);
    check::places(&copies, context);

    let promise_keys: Vec<_> = keys::PROMISES.iter().collect();
    let defaults_section = root.table("defaults", context);
    defaults_section.refuse_unknown(&promise_keys, context);
    let defaults = promises::read(&defaults_section, &known_copies, context);

    let tiers = rows::tiers(&root.table("tier", context), &known_copies, context);
    let store_section = root.table("store", context);
    let known_stores: Vec<&str> = store_section.entries().map(|(name, _, _)| name).collect();
    let world = World {
        known_stores: known_stores.clone(),
        known_copies,
        copies: &copies,
        tiers: &tiers,
        defaults: &defaults,
    };
    let (stores, retained) = world.stores(&store_section, context);
    circular_needs(&stores, &store_section, context);
    let agreements =
        agreement::agreements(&root.table("agreement", context), &known_stores, &stores, context);

    let named = application::Known { names: &known_stores, rows: &stores, agreements: &agreements };
    let applications = application::applications(&root.table("application", context), &named, context);

    let known = Known {
        named: &named,
        applications: &applications,
        copies: &copies,
        recipients: recipients.as_deref().unwrap_or_default(),
    };
    let drills = drill::plans(&root.table("drill", context), &known, context);

    let inventory = inventory::inventory(root, context);

    if let (Some(recipients), Some(store)) = (&recipients, retained)
        && recipients.is_empty()
    {
        let message =
            format!("store `{store}` is retained, but nobody could open its vault: there are no recipients");
        let help = "add `recipients = [\"passphrase:env:LIFEBOAT_PASSPHRASE\"]` under `[keys]`";
        context.absent("no-recipients", &keys_section.at, message, help);
    }
    if store_section.readable && store_section.entries().next().is_none() {
        let help = "add a `[store.NAME]` for every datastore, also for those that are not retained";
        context.absent("no-stores", &store_section.at, "the policy has no stores", help);
    }
    Some(Policy {
        version: 1,
        timezone,
        timezone_name,
        state,
        keys: Keys { recipients: recipients? },
        copies: copies.into_iter().map(|(name, (place, _))| (name, place)).collect(),
        tiers: tiers
            .into_iter()
            .filter_map(|(name, tier)| Some((TierName::new(name).ok()?, tier?)))
            .collect(),
        stores,
        agreements,
        applications,
        drills,
        inventory,
        warnings: Vec::new(),
    })
}

/// Stores that wait for each other can never be restored.
fn circular_needs(stores: &BTreeMap<StoreName, Store>, section: &Section<'_>, context: &mut Context) {
    let rows: Vec<&Store> = stores.values().collect();
    if let Err(circle) = restore_order(&rows)
        && let Some(first) = circle.first()
    {
        let way: Vec<&str> = circle.iter().chain([first]).map(StoreName::as_str).collect();
        let message = format!("these stores need each other in a circle: {}", way.join(" → "));
        let at = section.key_at(first.as_str());
        context.error("circular-needs", &at, message, "remove the need that does not hold");
    }
}

fn version(root: &Section<'_>, context: &mut Context) {
    match root.integer("version", context) {
        Field::Set(1, _) | Field::Broken => {}
        Field::Set(other, at) => {
            let message = format!("version {other} of the policy file is not supported");
            context.error("unknown-version", &at, message, "this Lifeboat reads `version = 1`");
        }
        Field::Absent => {
            context.absent(
                "missing-key",
                &(0..0),
                "the policy has no `version`",
                "start the file with `version = 1`",
            );
        }
    }
}

fn timezone(name: &str) -> Result<(TimeZone, String), InvalidValue> {
    // The bundled database alone: reading the machine's would be I/O, and machines differ.
    let database = TimeZoneDatabase::bundled();
    database.get(name).map(|zone| (zone, name.to_owned())).map_err(|_error| {
        let known: Vec<String> = database.available().map(|known| known.as_str().to_owned()).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let help = suggest::nearest(name, &known).map_or_else(
            || "write an IANA name such as `UTC`, `Europe/Berlin` or `America/New_York`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        InvalidValue::new(format!("unknown time zone `{name}`"), help)
    })
}
