//! What of production must not stand in the target of a drill: the secrets the policy refers to, and the addresses of its
//! servers. What this machine does not know cannot be looked for, and is named.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_base::digest::Digest;
use lifeboat_base::secret::{Secret, SecretRef};
use lifeboat_drill::{Telltale, Telltales};
use lifeboat_policy::{Endpoint, Recipient, Source, Store};
use percent_encoding::percent_decode_str;

use crate::context::Engine;
use crate::inventory::addresses;

impl Engine {
    /// Of every row, also those that are not drilled: whatever of them comes along would lead to them.
    pub(super) fn telltales(&self) -> Telltales {
        let mut all = Telltales::default();
        for row in self.policy.stores.values() {
            for reference in references(row) {
                self.look_for_secret(reference, &format!("{reference} of `{}`", row.name), &mut all);
            }
            if let Some(endpoint) = endpoint(row) {
                self.look_for_address(endpoint, row, &mut all);
            }
        }
        for recipient in &self.policy.keys.recipients {
            match recipient {
                Recipient::Passphrase(reference) => {
                    self.look_for_secret(reference, &recipient.to_string(), &mut all);
                }
                Recipient::KeyFile(path) => match fs::read_to_string(self.resolve(path)) {
                    Ok(text) => {
                        let text = Secret::new(text);
                        all.known.push(telltale(recipient.to_string(), &[text.expose().trim()]));
                    }
                    Err(_unreadable) => all.unknown.push(recipient.to_string()),
                },
                // Public, or not usable here.
                Recipient::Age(_) | Recipient::AwsKms(_) | Recipient::VaultTransit(_) => {}
            }
        }
        all
    }

    fn look_for_secret(&self, reference: &SecretRef, what: &str, all: &mut Telltales) {
        // A pipe would be waited for, and of a row that is not drilled nobody is about to fill it.
        let is_file = match reference {
            SecretRef::File(path) => self.resolve(path).is_file(),
            SecretRef::Env(_) | SecretRef::Vault { .. } => true,
        };
        if !is_file {
            all.unknown.push(what.to_owned());
            return;
        }
        match self.env.secrets.resolve(reference) {
            Ok(text) => {
                let passwords = passwords(text.expose());
                let mut values: Vec<&str> = passwords.iter().map(|text| text.expose().as_str()).collect();
                values.push(text.expose().trim());
                all.known.push(telltale(what.to_owned(), &values));
            }
            Err(_unknown) => all.unknown.push(what.to_owned()),
        }
    }

    fn look_for_address(&self, endpoint: &Endpoint, row: &Store, all: &mut Telltales) {
        // An address that is not known is among the secrets that are not.
        if let Endpoint::Secret(SecretRef::File(path)) = endpoint
            && !self.resolve(path).is_file()
        {
            return;
        }
        let Ok(text) = self.address(endpoint)() else { return };
        for (host, port) in addresses(text.expose(), row.kind, &self.env.host) {
            let what = format!("the address {host}:{port} of `{}`", row.name);
            // A name with a dot is that of nothing else; one word may be any.
            let forms = if host.contains(['.', ':']) {
                vec![host]
            } else {
                vec![
                    format!("{host}:{port}"),
                    format!("//{host}"),
                    format!("@{host}"),
                    format!("host={host}"),
                ]
            };
            let forms = forms.into_iter().map(|form| Secret::new(form.into_bytes())).collect();
            all.known.push(Telltale { what, forms });
        }
    }
}

/// A secret as it is, as Kubernetes keeps it, and its hash.
fn telltale(what: String, values: &[&str]) -> Telltale {
    let forms = values.iter().filter(|value| !value.is_empty()).flat_map(|value| {
        let coded = Secret::new(STANDARD.encode(value).into_bytes());
        let line = Secret::new(STANDARD.encode(format!("{value}\n")).into_bytes());
        let hash = Secret::new(Digest::of(value.as_bytes()).to_string().into_bytes());
        [Secret::new(value.as_bytes().to_vec()), coded, line, hash]
    });
    Telltale { what, forms: forms.collect() }
}

/// The passwords in a text, if it is an address: as written, and as meant.
fn passwords(text: &str) -> Vec<Secret<String>> {
    let logins = text.split(',').filter_map(|part| {
        let (_, rest) = part.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, _) = authority.rsplit_once('@')?;
        login.split_once(':').map(|(_user, password)| password)
    });
    let in_query = text
        .split(['?', '&', ' '])
        .filter_map(|pair| pair.strip_prefix("password="))
        .chain(logins)
        .filter(|password| !password.is_empty());
    in_query
        .flat_map(|password| {
            let meant = percent_decode_str(password).decode_utf8_lossy().into_owned();
            [Secret::new(password.to_owned()), Secret::new(meant)]
        })
        .collect()
}

fn references(row: &Store) -> Vec<&SecretRef> {
    let mut found: Vec<&SecretRef> = match endpoint(row) {
        Some(Endpoint::Secret(reference)) => vec![reference],
        _ => Vec::new(),
    };
    match &row.source {
        Source::Redis { token, .. } => found.extend(token),
        Source::Etcd { access, .. } => found.extend(access.password.iter().chain(&access.key)),
        _ => {}
    }
    found
}

fn endpoint(row: &Store) -> Option<&Endpoint> {
    match &row.source {
        Source::Url(url) | Source::Redis { url, .. } | Source::Etcd { url, .. } => Some(url),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_taken_out_of_addresses_as_written_and_as_meant() {
        let found =
            |text: &str| passwords(text).iter().map(|password| password.expose().clone()).collect::<Vec<_>>();
        assert_eq!(found("postgres://u:p%40ss@db/x"), ["p%40ss", "p@ss"]);
        assert_eq!(found("redis://:token@a,redis://:other@b"), ["token", "token", "other", "other"]);
        assert_eq!(found("host=db password=secret user=u"), ["secret", "secret"]);
        assert_eq!(found("postgres://db/x?password=secret&a=b"), ["secret", "secret"]);
        assert_eq!(found("a plain token"), Vec::<String>::new());
    }
}
