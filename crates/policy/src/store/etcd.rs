//! Reads what is particular to a row of kind `etcd`: its members and how they are reached, or a command.

use crate::kind::Kind;
use crate::model::{EtcdAccess, Source};
use crate::reader::{Context, Field, Section};

/// What stands for the file in the words of a command.
const PLACEHOLDER: &str = "{file}";
/// Keys that need a `url`.
const OF_URL: [&str; 6] = ["url", "ca", "cert", "key", "user", "password"];

/// Where the cluster is.
pub(super) fn source(section: &Section<'_>, context: &mut Context) -> Option<Source> {
    if section.get("command").is_some() {
        return command(section, context);
    }
    if section.get("environment").is_some() {
        let message = "`environment` without `command`: nothing is run for this row";
        context.error(
            "bad-command",
            &section.key_at("environment"),
            message,
            "remove it, or write `command`",
        );
    }
    let access = access(section, context);
    let url = super::url(section, Kind::Etcd, context);
    Some(Source::Etcd { url: url?, access: Box::new(access?) })
}

fn command(section: &Section<'_>, context: &mut Context) -> Option<Source> {
    let mut whole = true;
    for key in OF_URL.into_iter().filter(|key| section.get(key).is_some()) {
        let message = format!("{} has `command` and `{key}`", section.title());
        let help = "a snapshot comes from the members or from a command: keep one of the two";
        context.error("bad-command", &section.key_at(key), message, help);
        whole = false;
    }
    let words = section.texts("command", context).value().unwrap_or_default();
    let words: Vec<String> = words.into_iter().map(|(word, _)| word.to_owned()).collect();
    if !words.iter().skip(1).any(|word| word.contains(PLACEHOLDER)) {
        let message = format!("the command of {} is not told where to write", section.title());
        let help = "write each word by itself, with `{file}` in one of the arguments: \
                    `command = [\"talosctl\", \"etcd\", \"snapshot\", \"{file}\"]`";
        context.error("bad-command", &section.key_at("command"), message, help);
        whole = false;
    }
    let environment = super::variables(section, "environment", context)?;
    whole.then_some(Source::EtcdCommand { words, environment })
}

fn access(section: &Section<'_>, context: &mut Context) -> Option<EtcdAccess> {
    let mut whole = true;
    let mut read = |key: &str, context: &mut Context| match super::reference(section, key, context) {
        Field::Absent => None,
        Field::Broken => {
            whole = false;
            None
        }
        Field::Set(reference, _) => Some(reference),
    };
    let (ca, cert, key) = (read("ca", context), read("cert", context), read("key", context));
    let password = read("password", context);
    let user = section.filled("user", context).value().map(str::to_owned);
    for (one, other) in [("cert", "key"), ("key", "cert"), ("user", "password"), ("password", "user")] {
        if section.get(one).is_some() && section.get(other).is_none() {
            let message = format!("{} has `{one}` without `{other}`", section.title());
            context.error(
                "missing-key",
                &section.key_at(one),
                message,
                format!("add `{other}`, or remove `{one}`"),
            );
            whole = false;
        }
    }
    whole.then_some(EtcdAccess { ca, cert, key, user, password })
}
