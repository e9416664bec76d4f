//! Reads `[inventory]`: where stores are looked for that no row covers.

use std::collections::BTreeMap;

use crate::keys;
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
    let names: Vec<String> = table.entries().map(|(name, _, _)| name.to_owned()).collect();
    let reason = |name: String| match table.filled(&name, context) {
        Field::Set(reason, _) => Some((name, reason.trim().to_owned())),
        Field::Absent | Field::Broken => None,
    };
    names.into_iter().filter_map(reason).collect()
}
