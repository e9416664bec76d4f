//! Addresses of stores in the settings of applications. Pure: text in, what it leads to out; passwords are left behind at
//! once.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

/// A store as somebody else names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// What kind of store it is, as far as the address tells.
    pub(super) kind: &'static str,
    /// Every place it names; one of them is enough to know it again. None where the address is not understood: nothing of it
    /// is kept then, since any part may be a password.
    pub(super) places: Vec<Place>,
}

/// Where a store can be found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A host, in small letters, and a port.
    Port(String, u16),
    /// A unix socket or a file of this machine.
    Path(PathBuf),
    /// The folder of a server that is captured by its files; several servers may work in one.
    Folder(PathBuf),
    /// A bucket of an object store, with the service's scheme.
    Bucket(String),
}

/// Schemes that mean a store, what it is, and its usual port.
const SCHEMES: [(&str, &str, u16); 25] = [
    ("postgres", "postgres", 5432),
    ("postgresql", "postgres", 5432),
    ("pgsql", "postgres", 5432),
    ("psql", "postgres", 5432),
    ("postgis", "postgres", 5432),
    ("redis", "redis", 6379),
    ("rediss", "redis", 6379),
    ("redis-sentinel", "redis", 26379),
    ("valkey", "redis", 6379),
    ("valkeys", "redis", 6379),
    ("etcd", "etcd", 2379),
    ("mysql", "mysql", 3306),
    ("mysql2", "mysql", 3306),
    ("mariadb", "mysql", 3306),
    ("mongodb", "mongodb", 27017),
    ("clickhouse", "clickhouse", 9000),
    ("sqlserver", "sqlserver", 1433),
    ("mssql", "sqlserver", 1433),
    ("cassandra", "cassandra", 9042),
    ("neo4j", "neo4j", 7687),
    ("bolt", "neo4j", 7687),
    ("amqp", "queue", 5672),
    ("amqps", "queue", 5671),
    ("nats", "queue", 4222),
    ("kafka", "queue", 9092),
];
const BUCKETS: [&str; 2] = ["s3", "gs"];
/// Where a word of settings ends.
const QUOTES: [char; 5] = ['"', '\'', '`', '<', '>'];
/// Where an address in a word ends, if it holds no login that could have such letters in its password.
const ENDS: [char; 5] = [')', '}', '\\', ';', '|'];
/// How far before an address a word may stand that tells what answers there.
const NEAR_BYTES: usize = 48;
/// Words beside an address over HTTP that tell what answers there, and its usual port.
const NEIGHBOURS: [(&str, &str, u16); 6] = [
    ("upstash", "redis", 443),
    ("etcd", "etcd", 2379),
    ("clickhouse", "clickhouse", 8123),
    ("qdrant", "vector", 6333),
    ("elasticsearch", "elasticsearch", 9200),
    ("opensearch", "elasticsearch", 9200),
];

/// Every address of a store in a text. Paths that are not absolute begin at `folder`.
pub(super) fn addresses(text: &str, folder: &Path) -> Vec<Address> {
    let lines = text.split(['\n', '\r']);
    let mut found: Vec<Address> = lines.flat_map(|line| in_line(line, folder)).collect();
    found.sort();
    found.dedup();
    found
}

/// What a line that is no comment names.
fn in_line(line: &str, folder: &Path) -> Vec<Address> {
    if line.trim_start().starts_with(['#', ';']) || line.trim_start().starts_with("//") {
        return Vec::new();
    }
    // As JSON may write it.
    let line = line.replace("\\/", "/");
    let mut found = Vec::new();
    for (at, _) in line.match_indices("://") {
        let before = line.get(..at).unwrap_or_default();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
        let scheme = before.get(before.trim_end_matches(is_part).len()..).unwrap_or_default();
        let scheme = scheme.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        let word = word(line.get(at + 3..).unwrap_or_default());
        // The next one of a list has an entry of its own.
        let own =
            word.split_once("://").and_then(|(own, _)| own.rsplit_once(',')).map_or(word, |(own, _)| own);
        found.extend(one(&scheme.to_ascii_lowercase(), own, before, folder));
    }
    for (at, _) in line.match_indices("sqlite:").filter(|(at, _)| !line[at + 7..].starts_with("//")) {
        let path = word(line.get(at + 7..).unwrap_or_default());
        found.extend(sqlite(path.split(ENDS).next().unwrap_or_default(), folder));
    }
    found
}

fn word(text: &str) -> &str {
    let word = text.split(|c: char| c.is_whitespace() || QUOTES.contains(&c)).next().unwrap_or_default();
    // The end of a list in YAML, if it is not that of a number in brackets.
    if word.contains('[') { word } else { word.trim_end_matches(']') }
}

fn one(scheme: &str, word: &str, before: &str, folder: &Path) -> Option<Address> {
    // As in `postgresql+asyncpg`, `mongodb+srv`.
    let base = scheme.split('+').next().unwrap_or_default();
    let bare = word.split(ENDS).next().unwrap_or_default();
    if base == "sqlite" {
        return sqlite(bare, folder);
    }
    if BUCKETS.contains(&base) {
        let bucket = bare.split(['/', '?']).next().filter(|bucket| is_host(bucket));
        let places = bucket.map(|bucket| Place::Bucket(format!("{base}://{bucket}")));
        return Some(Address { kind: "object-store", places: places.into_iter().collect() });
    }
    if base == "unix" {
        let is_redis = bare.to_ascii_lowercase().contains("redis");
        return is_redis.then(|| Address { kind: "redis", places: vec![Place::Path(bare.into())] });
    }
    if let Some((_, kind, port)) = SCHEMES.iter().find(|(known, ..)| *known == base) {
        return Some(Address { kind, places: places(word, *port).unwrap_or_default() });
    }
    if !matches!(base, "http" | "https") {
        return None;
    }
    let start = before.len().saturating_sub(NEAR_BYTES);
    let near = before
        .char_indices()
        .find(|(at, _)| *at >= start)
        .map_or("", |(at, _)| before.get(at..).unwrap_or_default());
    let host = bare.split(['/', '?', '#']).next().unwrap_or_default();
    let told = [host, near].map(str::to_ascii_lowercase);
    let (_, kind, port) =
        told.iter().find_map(|told| NEIGHBOURS.iter().find(|(name, ..)| told.contains(name)))?;
    let port = if base == "https" && *kind == "redis" { 443 } else { *port };
    Some(Address { kind, places: places(word, port).unwrap_or_default() })
}

/// `sqlite:///a.db` is beside the application for some and below the root for others, `sqlite:////srv/a.db` is not.
fn sqlite(path: &str, folder: &Path) -> Option<Address> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let beside = path.strip_prefix('/').unwrap_or(path);
    let mut places = vec![Place::Path(folder.join(beside)), Place::Path(folder.join(path))];
    places.dedup();
    let named = !beside.is_empty() && !beside.starts_with(':');
    named.then_some(Address { kind: "sqlite", places })
}

/// Every host of a row's address whatever its scheme is: its kind is known. Nothing where it is not understood.
pub(super) fn places_of_row(text: &str, usual: u16) -> Vec<Place> {
    let mut found = Vec::new();
    // Members of a list have a scheme each, or only the first has one.
    let mut left = text.trim();
    while !left.is_empty() {
        let (scheme, rest) = left.split_once("://").unwrap_or(("", left));
        let next = rest.find("://").and_then(|at| rest.get(..at)?.rfind(','));
        let (own, others) = next.map_or((rest, ""), |at| (&rest[..at], rest[at..].trim_start_matches(',')));
        left = others;
        match scheme {
            "unix" => found.push(Place::Path(own.split('?').next().unwrap_or_default().into())),
            "s3" | "gs" => {
                let bucket = own.split(['/', '?']).next().unwrap_or_default();
                found.push(Place::Bucket(format!("{scheme}://{bucket}")));
            }
            _ => {
                let usual = match scheme {
                    "https" => 443,
                    "http" if usual != 2379 => 80,
                    _ => usual,
                };
                found.extend(places(own, usual).unwrap_or_default());
            }
        }
    }
    found
}

/// The hosts of an address, without its scheme; nothing where they cannot be told from a login.
fn places(word: &str, usual: u16) -> Option<Vec<Place>> {
    // A password may hold any letter, so the login ends at the last `@`.
    let rest = match word.rsplit_once('@') {
        Some((_login, rest)) => rest,
        None => word,
    };
    let rest = rest.split(ENDS).next().unwrap_or_default();
    if rest.is_empty() {
        return None;
    }
    let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let usual = match value("port") {
        Some(port) => port.parse().ok()?,
        None => usual,
    };
    let hosts = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !hosts.is_empty() {
        return hosts
            .split(',')
            .filter(|host| !host.is_empty())
            .map(|host| host_and_port(host, usual))
            .collect();
    }
    if let Some(host) = value("host") {
        return Some(vec![host_and_port(host, usual)?]);
    }
    // `postgres:///db` goes to this machine, `redis:///run/redis.sock` to a socket.
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let is_socket = Path::new(path).extension().is_some_and(|end| end == "sock");
    Some(vec![if is_socket { Place::Path(path.into()) } else { Place::Port("localhost".to_owned(), usual) }])
}

fn host_and_port(text: &str, usual: u16) -> Option<Place> {
    let text = text.replace("%2F", "/").replace("%2f", "/");
    if text.starts_with('/') {
        // A folder is that of a PostgreSQL socket.
        return Some(Place::Path(Path::new(&text).join(format!(".s.PGSQL.{usual}"))));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    let (host, port) = match (bare, text.rsplit_once(':')) {
        (Some((host, "")), _) => (host, None),
        (Some((host, port)), _) => (host, Some(port.strip_prefix(':')?)),
        (None, Some((host, port))) => (host, Some(port)),
        (None, None) => (text.as_str(), None),
    };
    let is_number = bare.is_some() && host.parse::<Ipv6Addr>().is_ok();
    if !is_number && !is_host(host) {
        return None;
    }
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => usual,
    };
    Some(Place::Port(host.to_ascii_lowercase(), port))
}

/// What a name of a host can be made of; a login that was taken for one mostly is not.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
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
            ("object-store", "Bucket(\"s3://uploads\")".to_owned()),
            ("postgres", port("db.internal", 5432)),
            ("postgres", "Path(\"/run/postgresql/.s.PGSQL.5433\")".to_owned()),
            ("redis", port("cache.internal", 6380)),
            ("redis", port("x.upstash.io", 443)),
            ("sqlite", "Path(\"/srv/app/data/app.db\") Path(\"/data/app.db\")".to_owned()),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_part_of_an_address_that_is_not_understood_is_kept() {
        let text = "A=redis://:hunter2secret:more/tail@cache.internal\n\
                    C=amqp://svc:Pa55:Word;x@mq.internal/\n\
                    D=nats://s3cr3tT0ken/abc@nats.internal\n\
                    E=redis://tokensecret#1@cache.internal:1\n\
                    F=amqp://svc:pa55word\n\
                    G=postgres://${USER}:${PASSWORD}@${HOST}/db\n\
                    H=postgres://db.internal:54x2/db\n\
                    I=redis://\\\n";
        let shown = format!("{:?}", found(text));
        for part in ["hunter2", "pa55", "s3cr3t", "tokensecret", "USER"] {
            assert!(!shown.to_lowercase().contains(&part.to_lowercase()), "{part}: {shown}");
        }
        // Each of them is a store all the same.
        assert_eq!(
            addresses(text, Path::new("/")).iter().filter(|address| address.places.is_empty()).count(),
            3
        );
        for host in ["cache.internal", "mq.internal", "nats.internal"] {
            assert!(shown.contains(host), "{host}: {shown}");
        }
    }

    #[test]
    fn the_port_is_the_one_that_is_written_wherever_it_stands() {
        let text = "A=${REDIS_URL:-redis://cache.internal:6380}\nB={url: redis://cache.internal:6390}\n\
                    C=postgres://db.internal/x?port=5433\nD={\"u\": \"postgres:\\/\\/db.internal:5434\\/x\"}\rE=sqlite:a.db\n";
        let places: Vec<Place> =
            addresses(text, Path::new("/srv")).into_iter().flat_map(|address| address.places).collect();
        let port = |host: &str, port| Place::Port(host.to_owned(), port);
        let expected = [
            port("db.internal", 5433),
            port("db.internal", 5434),
            port("cache.internal", 6380),
            port("cache.internal", 6390),
            Place::Path("/srv/a.db".into()),
        ];
        assert_eq!(places, expected);
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
