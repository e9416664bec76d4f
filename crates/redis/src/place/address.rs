//! Addresses: of one server, of sentinels that know one, of a cluster's slot.

use lifeboat_base::secret::Secret;
use zeroize::Zeroizing;

use super::cluster::{ClusterOptions, SLOTS};
use super::error::PlaceError;
use super::sentinel::SentinelOptions;
use super::{Found, Role};
use crate::wire::{ConnectOptions, DEFAULT_PORT};

/// The usual port of a sentinel.
const SENTINEL_PORT: u16 = 26379;
/// More servers than this are not named in one address.
const MAX_SERVERS: usize = 64;

const SENTINEL_FORM: &str = "`redis+sentinel://user:password@host:26379,host:26379/NAME`, with the name of the primary as the sentinels know it, and `rediss+sentinel` for TLS; `role` is `primary` or `replica`";
const CLUSTER_FORM: &str = "`redis+cluster://user:password@host:6379,host:6379/SLOT`, with a slot from 0 to 16383, and `rediss+cluster` for TLS; `role` is `primary` or `replica`";

/// A server, by address or by what is known of it.
#[derive(Clone, Debug)]
pub enum Target {
    /// By its own address.
    Server(ConnectOptions),
    /// By the name sentinels know.
    Sentinel(Box<SentinelOptions>),
    /// By a slot of a cluster.
    Shard(ClusterOptions),
}

impl Target {
    /// Reads an address of one server (see [`ConnectOptions::parse`]), of sentinels, or of a cluster's slot.
    pub fn parse(text: &Secret<String>) -> Result<Self, PlaceError> {
        let Some((scheme, rest)) = text.expose().split_once("://") else { return server(text) };
        let Some((plain @ ("redis" | "rediss"), what)) = scheme.split_once('+') else {
            return server(text);
        };
        match what {
            "sentinel" => sentinel(plain, rest),
            "cluster" => cluster(plain, rest),
            _ => server(text),
        }
    }

    /// Finds the server: by its address at once, else by asking.
    pub fn find(&self) -> Result<Found, PlaceError> {
        match self {
            Self::Server(options) => Ok(Found {
                options: options.clone(),
                role: None,
                told: std::collections::BTreeMap::new(),
                shard: None,
            }),
            Self::Sentinel(options) => options.find(),
            Self::Shard(options) => options.find(),
        }
    }
}

fn server(text: &Secret<String>) -> Result<Target, PlaceError> {
    Ok(Target::Server(ConnectOptions::parse(text).map_err(PlaceError::Address)?))
}

/// What addresses with several servers have in common.
struct Several {
    servers: Vec<ConnectOptions>,
    /// After the servers.
    path: String,
    role: Role,
    sentinel_user: Option<String>,
    sentinel_password: Option<Secret<String>>,
}

fn several(plain: &str, rest: &str, port: u16, form: &'static str) -> Result<Several, PlaceError> {
    let wrong = PlaceError::Form(form);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (login, place) = place.rsplit_once('@').map_or((None, place), |(login, place)| (Some(login), place));
    let Some((hosts, path)) = place.split_once('/') else { return Err(wrong) };
    let (mut role, mut sentinel_user, mut sentinel_password) = (Role::Primary, None, None);
    let mut others = Zeroizing::new(String::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value) {
            ("role", "primary") => role = Role::Primary,
            ("role", "replica") => role = Role::Replica,
            ("role", _) => return Err(wrong),
            // Read as the user and the password of an address are.
            ("sentinel_user", _) => sentinel_user = Some(Zeroizing::new(format!("user={value}&"))),
            ("sentinel_password", _) => sentinel_password = Some(Zeroizing::new(format!("password={value}"))),
            _ => others.push_str(&Zeroizing::new(format!("{pair}&"))),
        }
    }
    let own = sentinel_password.map(|password| {
        let user = sentinel_user.as_ref().map_or("", |user| user.as_str());
        let text = Secret::new(format!("unix:///s?{user}{}", password.as_str()));
        ConnectOptions::parse(&text).map(ConnectOptions::login)
    });
    let own = own.transpose().map_err(PlaceError::Address)?;
    let mut servers = Vec::new();
    for host in hosts.split(',').take(MAX_SERVERS + 1) {
        let named = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if named { String::new() } else { format!(":{port}") };
        let login = Zeroizing::new(login.map(|login| format!("{login}@")).unwrap_or_default());
        let text = Secret::new(format!("{plain}://{}{host}{port}?{}", login.as_str(), others.as_str()));
        servers.push(ConnectOptions::parse(&text).map_err(PlaceError::Address)?);
    }
    if servers.len() > MAX_SERVERS || (sentinel_user.is_some() && own.is_none()) {
        return Err(wrong);
    }
    let (sentinel_user, sentinel_password) = own.unwrap_or_default();
    Ok(Several { servers, path: path.to_owned(), role, sentinel_user, sentinel_password })
}

fn sentinel(plain: &str, rest: &str) -> Result<Target, PlaceError> {
    let several = several(plain, rest, SENTINEL_PORT, SENTINEL_FORM)?;
    let name = several.path;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(good) {
        return Err(PlaceError::Form(SENTINEL_FORM));
    }
    let server = several.servers.first().cloned().ok_or(PlaceError::Form(SENTINEL_FORM))?;
    let login = (several.sentinel_user, several.sentinel_password);
    let sentinels =
        several.servers.into_iter().map(|options| options.with_other_login(login.clone())).collect();
    Ok(Target::Sentinel(Box::new(SentinelOptions { sentinels, server, name, role: several.role })))
}

fn cluster(plain: &str, rest: &str) -> Result<Target, PlaceError> {
    let several = several(plain, rest, DEFAULT_PORT, CLUSTER_FORM)?;
    let wrong = PlaceError::Form(CLUSTER_FORM);
    if several.sentinel_password.is_some() {
        return Err(wrong);
    }
    match several.path.parse::<u16>() {
        Ok(slot) if slot < SLOTS => {
            Ok(Target::Shard(ClusterOptions { nodes: several.servers, slot, role: several.role }))
        }
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::failure::FailureKind;

    use super::*;

    fn parse(text: &str) -> Result<Target, PlaceError> {
        Target::parse(&Secret::new(text.to_owned()))
    }

    #[test]
    fn addresses_of_several_servers_are_read_and_their_secrets_are_not_shown() {
        let text = "redis+sentinel://app:canary-1@a,b:1234,[::1]/mymaster?role=replica&sentinel_user=s&sentinel_password=canary%2d2&connect_timeout=3";
        let Target::Sentinel(found) = parse(text).unwrap() else { panic!("no sentinels") };
        let sentinels: Vec<String> = found.sentinels.iter().map(ConnectOptions::target).collect();
        assert_eq!(sentinels, ["s@a:26379", "s@b:1234", "s@[::1]:26379"]);
        assert_eq!((found.name.as_str(), found.role), ("mymaster", Role::Replica));
        assert!(found.server.target().starts_with("app@"));
        assert!(!format!("{found:?}").contains("canary"));
        let Target::Shard(found) = parse("rediss+cluster://:canary@a,b:7001/16383").unwrap() else {
            panic!("no cluster")
        };
        assert_eq!((found.nodes.len(), found.slot, found.role), (2, 16383, Role::Primary));
        assert!(matches!(parse("redis://a"), Ok(Target::Server(_))));
    }

    #[test]
    fn addresses_that_cannot_be_meant_are_refused_without_being_shown() {
        for wrong in [
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://a/canary canary",
            "redis+sentinel://a/m?role=canary",
            "redis+sentinel://a/m?sentinel_user=canary",
            "redis+sentinel:///m",
            "redis+sentinel://a,,b/m",
            "redis+cluster://a/16384",
            "redis+cluster://a/canary",
            "redis+cluster://a/1?sentinel_password=canary",
            "redis+canary://a/1",
        ] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.kind(), FailureKind::Usage, "{wrong}");
            let said = lifeboat_base::failure::chain(&error);
            assert!(!said.contains("canary"), "{wrong}: {said}");
        }
    }
}
