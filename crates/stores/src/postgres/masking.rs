//! Settings can hold passwords: which of their values are kept, and which are not.

/// What a masked value is shown as.
const MASKED: &str = "[masked]";
/// Parts of names that say that a value is secret.
const SECRET_NAMES: [&str; 9] =
    ["conninfo", "credential", "passphrase", "passwd", "password", "private", "secret", "token", "apikey"];
/// Parts of values that say so.
const SECRET_VALUES: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "access_key",
    "account_key",
    "private key",
];
/// Settings of the server whose names look secret and whose values are not.
const PLAIN: [&str; 2] = ["password_encryption", "ssl_key_file"];

/// The value of a setting, or a mask. Settings of applications (`app.signing_key`) are masked at the first doubt.
pub(crate) fn masked(name: &str, value: &str) -> String {
    let (name, lower) = (name.to_ascii_lowercase(), value.to_ascii_lowercase());
    if value.is_empty() || PLAIN.contains(&name.as_str()) {
        return value.to_owned();
    }
    let by_name =
        SECRET_NAMES.iter().any(|word| name.contains(word)) || (name.contains('.') && name.contains("key"));
    let by_value = SECRET_VALUES.iter().any(|word| lower.contains(word)) || has_login(&lower);
    if by_name || by_value { MASKED.to_owned() } else { value.to_owned() }
}

/// Whether a text holds an address with a password: `scheme://user:password@host`.
fn has_login(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', ' ', '\'', '"']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_secret_are_masked() {
        for (name, value) in [
            ("primary_conninfo", "host=a password=x"),
            ("ssl_passphrase_command", "echo x"),
            ("app.settings.jwt_secret", "x"),
            ("app.signing_key", "x"),
            ("archive_command", "curl https://user:hunter2@host/%f -T %p"),
            ("archive_command", "AWS_SECRET_ACCESS_KEY=x aws s3 cp %p s3://b/%f"),
            ("restore_command", "fetch --token=abc %f"),
        ] {
            assert_eq!(masked(name, value), "[masked]", "{name}");
        }
        for (name, value) in [
            ("archive_command", "test ! -f /arch/%f && cp %p /arch/%f"),
            ("password_encryption", "scram-sha-256"),
            ("ssl_key_file", "/etc/ssl/private/server.key"),
            ("restore_command", "curl https://host:8080/%f@v1"),
            ("primary_conninfo", ""),
        ] {
            assert_eq!(masked(name, value), value, "{name}");
        }
    }
}
