//! Addresses of stores in the settings of applications. Pure: text in, what it leads to out; passwords are left behind at
//! once.

use std::path::{Path, PathBuf};

/// A store as somebody else names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// What kind of store it is, as far as the address tells.
    pub(super) kind: &'static str,
    /// Every place it names; one of them is enough to know it again.
    pub(super) places: Vec<Place>,
}

/// Where a store can be found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A host, in small letters, and a port.
    Port(String, u16),
    /// A unix socket, or a file or folder of this machine.
    Path(PathBuf),
    /// A bucket of an object store.
    Bucket(String),
}

/// Schemes that mean a store, what it is, and its usual port.
const SCHEMES: [(&str, &str, u16); 18] = [
    ("postgres", "postgres", 5432),
    ("postgresql", "postgres", 5432),
    ("redis", "redis", 6379),
    ("rediss", "redis", 6379),
    ("valkey", "redis", 6379),
    ("etcd", "etcd", 2379),
    ("mysql", "mysql", 3306),
    ("mariadb", "mysql", 3306),
    ("mongodb", "mongodb", 27017),
    ("clickhouse", "clickhouse", 9000),
    ("sqlserver", "sqlserver", 1433),
    ("mssql", "sqlserver", 1433),
    ("cassandra", "cassandra", 9042),
    ("neo4j", "neo4j", 7687),
    ("amqp", "queue", 5672),
    ("amqps", "queue", 5671),
    ("nats", "queue", 4222),
    ("kafka", "queue", 9092),
];
const BUCKETS: [&str; 2] = ["s3", "gs"];
/// Where an address ends, in every kind of settings file.
const ENDS: [char; 10] = ['"', '\'', '`', '<', '>', ')', ']', '\\', ';', '|'];
/// Words beside an address over HTTP that tell what answers there, and its usual port.
const NEIGHBOURS: [(&str, &str, u16); 6] = [
    ("etcd", "etcd", 2379),
    ("upstash", "redis", 443),
    ("clickhouse", "clickhouse", 8123),
    ("qdrant", "vector", 6333),
    ("elasticsearch", "elasticsearch", 9200),
    ("opensearch", "elasticsearch", 9200),
];

/// Every address of a store in a text. Paths that are not absolute begin at `folder`.
pub(super) fn addresses(text: &str, folder: &Path) -> Vec<Address> {
    let mut found: Vec<Address> = text.lines().flat_map(|line| in_line(line, folder)).collect();
    found.sort();
    found.dedup();
    found
}

/// What a line that is no comment names.
fn in_line(line: &str, folder: &Path) -> Vec<Address> {
    if line.trim_start().starts_with(['#', ';']) || line.trim_start().starts_with("//") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, _) in line.match_indices("://") {
        let before = line.get(..at).unwrap_or_default();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
        let scheme = before.get(before.trim_end_matches(is_part).len()..).unwrap_or_default();
        let rest = line.get(at + 3..).unwrap_or_default();
        let rest = rest.split(|c: char| c.is_whitespace() || ENDS.contains(&c)).next().unwrap_or_default();
        // The next one of a list has an entry of its own.
        let own =
            rest.split_once("://").map_or(rest, |(own, _)| own.rsplit_once(',').map_or(own, |(own, _)| own));
        found.extend(one(&scheme.to_ascii_lowercase(), own, before, folder));
    }
    found
}

fn one(scheme: &str, rest: &str, before: &str, folder: &Path) -> Option<Address> {
    // As in `postgresql+asyncpg`, `mongodb+srv`.
    let base = scheme.split('+').next().unwrap_or_default();
    if base == "sqlite" {
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        // `sqlite:///a.db` is beside the application for some and below the root for others, `sqlite:////srv/a.db` is not.
        let beside = path.strip_prefix('/').unwrap_or(path);
        let mut places = vec![Place::Path(folder.join(beside)), Place::Path(folder.join(path))];
        places.dedup();
        let named = !beside.is_empty() && !beside.starts_with(':');
        return named.then_some(Address { kind: "sqlite", places });
    }
    if BUCKETS.contains(&base) {
        let bucket = rest.split(['/', '?']).next().filter(|bucket| !bucket.is_empty())?;
        return Some(Address { kind: "object-store", places: vec![Place::Bucket(bucket.to_owned())] });
    }
    if let Some((_, kind, port)) = SCHEMES.iter().find(|(known, ..)| *known == base) {
        let places = places(rest, *port);
        return (!places.is_empty()).then_some(Address { kind, places });
    }
    if !matches!(base, "http" | "https") {
        return None;
    }
    let told = format!("{} {}", before, host_part(rest)).to_ascii_lowercase();
    let (_, kind, port) = NEIGHBOURS.iter().find(|(word, ..)| told.contains(word))?;
    let port = if base == "https" && *kind == "redis" { 443 } else { *port };
    Some(Address { kind, places: places(rest, port) })
}

/// Every host of an address whatever its scheme is; for rows, whose kind is known.
pub(super) fn places_of_row(text: &str, usual: u16) -> Vec<Place> {
    let parts = text.split(|c: char| c.is_whitespace() || c == ',');
    let mut found: Vec<Place> = parts
        .flat_map(|part| match part.split_once("://") {
            Some((scheme, rest)) => {
                let usual = match scheme {
                    "https" => 443,
                    "http" if usual != 2379 => 80,
                    _ => usual,
                };
                places(rest, usual)
            }
            None => places(part, usual),
        })
        .collect();
    if text.contains("://") {
        found.extend(addresses(text, Path::new("/")).into_iter().flat_map(|address| address.places));
    }
    found
}

/// Without what a password may stand in.
fn host_part(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_login, hosts)| hosts)
}

fn places(rest: &str, usual: u16) -> Vec<Place> {
    let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let port = value("port").and_then(|port| port.parse().ok()).unwrap_or(usual);
    if let Some(host) = value("host") {
        let host = host.replace("%2F", "/").replace("%2f", "/");
        return vec![socket_or_host(&host, port)];
    }
    let hosts = host_part(rest);
    if hosts.is_empty() {
        // `postgres:///db` goes to this machine, `unix:///run/redis.sock` to a socket.
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let is_socket = Path::new(path).extension().is_some_and(|end| end == "sock");
        return vec![if is_socket {
            Place::Path(path.into())
        } else {
            Place::Port("localhost".to_owned(), usual)
        }];
    }
    hosts.split(',').filter(|host| !host.is_empty()).map(|host| host_and_port(host, usual)).collect()
}

/// A folder is that of a PostgreSQL socket.
fn socket_or_host(host: &str, port: u16) -> Place {
    if host.starts_with('/') {
        return Place::Path(Path::new(host).join(format!(".s.PGSQL.{port}")));
    }
    Place::Port(host.to_ascii_lowercase(), port)
}

fn host_and_port(text: &str, usual: u16) -> Place {
    let text = text.replace("%2F", "/").replace("%2f", "/");
    if text.starts_with('/') {
        return socket_or_host(&text, usual);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    let (host, port) = match (bare, text.rsplit_once(':')) {
        (Some((host, port)), _) => (host, port.strip_prefix(':')),
        (None, Some((host, port))) => (host, Some(port)),
        (None, None) => (text.as_str(), None),
    };
    let port = port.and_then(|port| port.parse().ok()).unwrap_or(usual);
    Place::Port(host.to_ascii_lowercase(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, String)> {
        let shown = |address: Address| {
            let places: Vec<String> = address.places.iter().map(|place| format!("{place:?}")).collect();
            (address.kind, places.join(" "))
        };
        addresses(text, Path::new("/srv/app")).into_iter().map(shown).collect()
    }

    #[test]
    fn addresses_are_found_in_every_kind_of_settings_and_no_password_is_kept() {
        let text = "\
            DATABASE_URL=postgresql+asyncpg://app:hunter2-canary@DB.internal/orders?sslmode=require\n\
            export CACHE=\"rediss://:hunter2-canary@cache.internal:6380/0\"\n\
            url: jdbc:mysql://mysql.internal/shop\n\
            {\"mongo\": \"mongodb+srv://u:hunter2-canary@m1.internal:1,m2.internal:2/x\"}\n\
            # OLD=postgres://gone.internal/x\n\
            SQLITE=sqlite:///data/app.db\n\
            UPLOADS=s3://uploads/prefix\n\
            ETCD_ENDPOINTS=http://etcd-1:2379,http://etcd-2:2379\n\
            UPSTASH_REDIS_REST_URL=https://x.upstash.io\n\
            HOMEPAGE=https://www.internal\n\
            LOCAL=postgres:///db?host=/run/postgresql&port=5433\n";
        let shown = found(text);
        assert!(!format!("{shown:?}").contains("canary"));
        let port = |host: &str, port: u16| format!("Port(\"{host}\", {port})");
        let expected = [
            ("etcd", port("etcd-1", 2379)),
            ("etcd", port("etcd-2", 2379)),
            ("mongodb", format!("{} {}", port("m1.internal", 1), port("m2.internal", 2))),
            ("mysql", port("mysql.internal", 3306)),
            ("object-store", "Bucket(\"uploads\")".to_owned()),
            ("postgres", port("db.internal", 5432)),
            ("postgres", "Path(\"/run/postgresql/.s.PGSQL.5433\")".to_owned()),
            ("redis", port("cache.internal", 6380)),
            ("redis", port("x.upstash.io", 443)),
            ("sqlite", "Path(\"/srv/app/data/app.db\") Path(\"/data/app.db\")".to_owned()),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_a_row_names_is_the_same_place_however_it_is_written() {
        let port = |host: &str, port| Place::Port(host.to_owned(), port);
        assert!(places_of_row("postgres://u@db.internal/x", 5432).contains(&port("db.internal", 5432)));
        assert!(places_of_row("http://a:2379,b:2380", 2379).contains(&port("b", 2380)));
        assert!(places_of_row("https://x.upstash.io", 6379).contains(&port("x.upstash.io", 443)));
        assert!(places_of_row("redis://[::1]:7000", 6379).contains(&port("::1", 7000)));
        assert!(
            places_of_row("unix:///run/redis.sock", 6379).contains(&Place::Path("/run/redis.sock".into()))
        );
    }
}
