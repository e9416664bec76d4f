//! Servers that run on this machine, as its kernel shows them. Nothing is contacted.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::address::Place;

const PROC: &str = "/proc";
/// Programs that keep something, as the kernel cuts their names, and what they are.
const PROGRAMS: [(&str, &str); 13] = [
    ("postgres", "postgres"),
    ("postmaster", "postgres"),
    ("redis-server", "redis"),
    ("valkey-server", "redis"),
    ("etcd", "etcd"),
    ("mysqld", "mysql"),
    ("mariadbd", "mysql"),
    ("mongod", "mongodb"),
    ("clickhouse-serv", "clickhouse"),
    ("qdrant", "vector"),
    ("nats-server", "queue"),
    ("influxd", "influxdb"),
    ("minio", "object-store"),
];
/// The state of a TCP socket that waits for connections.
const LISTENING: &str = "0A";

/// A server of this machine.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) kind: &'static str,
    pub(super) pid: u32,
    /// Where it listens, and the folder of one that is captured by its files; nothing if this account may not see that.
    pub(super) places: Option<Vec<Place>>,
}

/// Every server in our network whose folder is not below one of `ours`: those of drills and checks come and go.
pub(super) fn servers(ours: &[PathBuf], host: &str) -> io::Result<Vec<Server>> {
    let names = own_names(host);
    let mut found = Vec::new();
    let here = fs::read_link(format!("{PROC}/self/ns/net")).ok();
    for entry in fs::read_dir(PROC)? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let at = Path::new(PROC).join(pid.to_string());
        let Some(kind) = kind(&at) else { continue };
        let elsewhere = fs::read_link(at.join("ns/net"))
            .is_ok_and(|network| here.as_ref().is_some_and(|own| *own != network));
        let cwd = fs::read_link(at.join("cwd")).ok();
        let is_ours = cwd.as_ref().is_some_and(|cwd| ours.iter().any(|folder| cwd.starts_with(folder)));
        if elsewhere || is_ours {
            continue;
        }
        let places = places(kind, &at, cwd, &names);
        found.push(Server { kind, pid, places });
    }
    Ok(found)
}

/// What the process is; nothing for other programs, and for the workers of a server, which are its own affair.
fn kind(at: &Path) -> Option<&'static str> {
    let name = name(at)?;
    let (_, kind) = PROGRAMS.iter().find(|(program, _)| *program == name)?;
    let parent = parent(at).and_then(|parent| self::name(&Path::new(PROC).join(parent)))?;
    let (_, above) = PROGRAMS.iter().find(|(program, _)| *program == parent).copied().unwrap_or_default();
    (above != *kind).then_some(kind)
}

fn name(at: &Path) -> Option<String> {
    fs::read_to_string(at.join("comm")).ok().map(|name| name.trim_end().to_owned())
}

fn parent(at: &Path) -> Option<String> {
    let stat = fs::read_to_string(at.join("stat")).ok()?;
    // After the name, which may hold anything: the state, then the parent.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1).map(str::to_owned)
}

fn places(kind: &str, at: &Path, cwd: Option<PathBuf>, names: &BTreeSet<String>) -> Option<Vec<Place>> {
    let own = sockets(at).ok()?;
    let mut places: Vec<Place> = ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(at.join("net").join(table)).ok())
        .flat_map(|table| ports(&table, &own))
        .flat_map(|(host, port)| {
            // Who listens everywhere is found under every name of this machine.
            let hosts =
                if host.is_unspecified() { names.clone() } else { BTreeSet::from([host.to_string()]) };
            hosts.into_iter().map(move |host| Place::Port(host, port))
        })
        .collect();
    let unix = fs::read_to_string(at.join("net/unix")).unwrap_or_default();
    places.extend(socket_files(&unix, &own).into_iter().map(Place::Path));
    places.extend(cwd.filter(|_| kind == "redis").map(Place::Folder));
    places.sort();
    places.dedup();
    Some(places)
}

/// The numbers of the sockets a process has open.
fn sockets(at: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(at.join("fd"))? {
        // It may be closed by now.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let number = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        found.extend(number.map(str::to_owned));
    }
    Ok(found)
}

/// Where the sockets `own` wait, out of the kernel's table.
fn ports(table: &str, own: &BTreeSet<String>) -> Vec<(IpAddr, u16)> {
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let waits = *state == LISTENING && own.contains(*inode);
        let (host, port) = local.rsplit_once(':').filter(|_| waits)?;
        Some((number(host)?, u16::from_str_radix(port, 16).ok()?))
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// An address as the kernel writes it: words of four bytes, each in the order of this machine.
fn number(text: &str) -> Option<IpAddr> {
    let words = hex::decode(text).ok()?;
    let bytes: Vec<u8> = words
        .chunks_exact(4)
        .flat_map(|word| <[u8; 4]>::try_from(word).map(|word| u32::from_be_bytes(word).to_ne_bytes()))
        .flatten()
        .collect();
    let four = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(sixteen) => Some(Ipv6Addr::from(sixteen).to_canonical()),
        Err(_) => four(&bytes),
    }
}

/// The files of the sockets `own`, out of the kernel's table.
fn socket_files(table: &str, own: &BTreeSet<String>) -> Vec<PathBuf> {
    let file = |line: &str| {
        let mut fields = line.split_whitespace();
        let inode = fields.nth(6)?;
        let path = fields.next().filter(|path| path.starts_with('/'))?;
        own.contains(inode).then(|| PathBuf::from(path))
    };
    table.lines().skip(1).filter_map(file).collect()
}

/// Names and numbers that lead to this machine.
pub(super) fn own_names(host: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::from(["localhost".to_owned(), "::1".to_owned(), host.to_ascii_lowercase()]);
    let table = fs::read_to_string(format!("{PROC}/net/fib_trie")).unwrap_or_default();
    names.extend(local_numbers(&table));
    let table = fs::read_to_string(format!("{PROC}/net/if_inet6")).unwrap_or_default();
    let number = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    names.extend(table.lines().filter_map(number).map(|number| Ipv6Addr::from(number).to_string()));
    names
}

/// The numbers of this machine, out of the kernel's tree: each stands on the line before the one that says what it is.
fn local_numbers(table: &str) -> Vec<String> {
    let lines: Vec<&str> = table.lines().collect();
    let pair = |pair: &[&str]| match pair {
        [number, what] if what.contains("host LOCAL") => {
            number.rsplit_once("|-- ").map(|(_, number)| number.trim().to_owned())
        }
        _ => None,
    };
    lines.windows(2).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let own = BTreeSet::from(["31".to_owned(), "32".to_owned()]);
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   \x20  0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31 1 x\n\
                   \x20  1: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 99 1 x\n\
                   \x20  2: 0100007F:1538 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 32 1 x\n";
        assert_eq!(ports(tcp, &own), [("127.0.0.1".parse().unwrap(), 6379)]);
        assert_eq!(number("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(number("0000000000000000FFFF00000100007F"), Some("127.0.0.1".parse().unwrap()));
        let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    ffff: 00000002 00000000 00010000 0001 01 32 /run/postgresql/.s.PGSQL.5432\n\
                    ffff: 00000002 00000000 00010000 0001 01 33 /run/other.sock\n";
        assert_eq!(socket_files(unix, &own), [Path::new("/run/postgresql/.s.PGSQL.5432")]);
        let tree = "  |-- 10.0.0.7\n     /32 host LOCAL\n  |-- 10.0.0.255\n     /32 link BROADCAST\n";
        assert_eq!(local_numbers(tree), ["10.0.0.7"]);
    }
}
