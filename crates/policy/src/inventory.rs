//! Reads `[inventory]`: where stores are looked for that no row covers.

use std::collections::BTreeMap;

use crate::keys;
use crate::mask;
use crate::model::Inventory;
use crate::reader::{Context, Field, Section};

/// Nothing where the section is missing or broken.
pub(crate) fn inventory(root: &Section<'_>, context: &mut Context) -> Option<Inventory> {
    root.get("inventory")?;
    let section = root.table("inventory", context);
    if !section.readable {
        return None;
    }
    section.refuse_unknown(&keys::INVENTORY.iter().collect::<Vec<_>>(), context);
    let texts = |key, context: &mut Context| {
        let found = section.texts(key, context).value().unwrap_or_default();
        for (_, at) in found.iter().filter(|(text, _)| mask::url_holds_secret(text)) {
            context.secret(
                "bad-inventory",
                at,
                format!("`{key}` holds an address with a secret"),
                "name a path",
            );
        }
        found.into_iter().map(|(text, _)| text.to_owned()).collect::<Vec<String>>()
    };
    let machine = section.switch("machine", context).value().unwrap_or(false);
    let (folders, files) = (texts("folders", context), texts("files", context));
    if !machine && folders.is_empty() && files.is_empty() {
        let help = "say where: `machine = true`, `files = [\"/srv/app/.env\"]` or `folders = [\"/srv/app\"]`";
        context.error("empty-inventory", &section.at, "`inventory` names no place to look at", help);
    }
    Some(Inventory { machine, folders, files, known: known(&section, context) })
}

/// What needs no row, and why not; without a reason nobody can judge it later.
fn known(section: &Section<'_>, context: &mut Context) -> BTreeMap<String, String> {
    let table = section.table("known", context);
    let mut names: Vec<String> = Vec::new();
    for (name, at, _) in table.entries() {
        if mask::url_holds_secret(name) {
            let help = "name it as `lifeboat inventory` shows it, which is without a login";
            context.secret("bad-inventory", &at, "`known` names an address with a secret", help);
        } else {
            names.push(name.to_owned());
        }
    }
    let reason = |name: String| match table.filled(&name, context) {
        Field::Set(reason, _) => Some((name, reason.trim().to_owned())),
        Field::Absent | Field::Broken => None,
    };
    names.into_iter().filter_map(reason).collect()
}
