//! Stores that are there and that no row covers: after a loss everything the matrix names comes back, and what reads them
//! finds nothing.
//!
//! In: the policy's `[inventory]`, the settings of applications, folders, the servers of this machine. Out: each store found,
//! where it was seen, and the row that covers it. Nothing is contacted, and of an address only the place is kept.

mod address;
mod databases;
mod servers;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use lifeboat_base::failure::{Failure, chain};
use lifeboat_base::ids::StoreName;
use lifeboat_base::monitor::Finding;
use lifeboat_policy::{CopyUrl, Endpoint, Inventory, Kind, Source, Store};
use serde::Serialize;

pub use self::databases::is_database;

use self::address::{Address, Place};
use crate::context::Engine;

/// A settings file larger than this is none.
const MAX_SETTINGS_BYTES: u64 = 4 * 1024 * 1024;
/// What nobody covers.
const UNCOVERED: &str = "inventory.uncovered";
/// Where nobody could look.
const UNSEEN: &str = "inventory.unseen";

/// A store that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundStore {
    /// As it is named here, and in `known`.
    pub address: String,
    /// What it is.
    pub kind: &'static str,
    /// Where it was seen.
    pub seen_in: Vec<String>,
    /// The row that covers it.
    pub row: Option<StoreName>,
    /// Why it needs none, as the policy says.
    pub reason: Option<String>,
    #[serde(skip)]
    places: Vec<Place>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct InventoryReport {
    /// `lifeboat.inventory/v1`.
    pub schema: &'static str,
    /// Whether the policy says where to look.
    pub looked: bool,
    /// Each store, in the order of addresses.
    pub stores: Vec<FoundStore>,
    /// Stores without a row, and places that could not be looked at.
    pub findings: Vec<Finding>,
}

/// What was seen, before it is known which of it is the same.
#[derive(Default)]
struct Sighted {
    stores: Vec<(Address, String)>,
    findings: Vec<Finding>,
}

impl Engine {
    /// Looks for stores in the places that the policy's `[inventory]` names.
    pub fn inventory(&self) -> InventoryReport {
        let schema = "lifeboat.inventory/v1";
        let Some(wanted) = &self.policy.inventory else {
            return InventoryReport { schema, looked: false, stores: Vec::new(), findings: Vec::new() };
        };
        let mut sighted = self.sight(wanted);
        for (address, _) in &mut sighted.stores {
            address.places = address.places.drain(..).map(here).collect();
        }
        let stores = sighted.stores.drain(..).flat_map(|(address, seen)| {
            readings(address).into_iter().map(move |address| (address, seen.clone()))
        });
        let stores: Vec<(Address, String)> = stores.collect();
        let mut rows = Vec::new();
        for row in self.policy.stores.values() {
            match self.row_places(row) {
                Ok(places) => rows.push((row, places.into_iter().map(here).collect())),
                Err(why) => sighted.findings.push(Finding::new(
                    UNSEEN,
                    row.name.as_str(),
                    format!("nobody can tell which store `{}` is: {}", row.name, why.chain()),
                )),
            }
        }
        let stores = judged(merged(stores), &rows, wanted);
        let mut findings: Vec<Finding> = stores.iter().filter_map(uncovered).collect();
        findings.extend(sighted.findings);
        InventoryReport { schema, looked: true, stores, findings }
    }

    fn sight(&self, wanted: &Inventory) -> Sighted {
        let mut sighted = Sighted::default();
        for file in &wanted.files {
            let path = self.resolve(file);
            match settings(&path) {
                Ok(text) => {
                    let folder = path.parent().unwrap_or(Path::new("/"));
                    let found = address::addresses(&text, folder);
                    sighted.stores.extend(found.into_iter().map(|address| (address, file.clone())));
                }
                Err(failure) => sighted.unseen(file, &failure.chain()),
            }
        }
        let ours = self.own_folders();
        for folder in &wanted.folders {
            let path = real(self.resolve(folder));
            if ours.iter().any(|own| path.starts_with(own)) {
                sighted
                    .unseen(folder, "it lies in the state folder or in a copy, which are not looked through");
                continue;
            }
            match databases::databases(&self.resolve(folder), &ours) {
                Ok(found) => sighted.stores.extend(found.into_iter().map(|path| {
                    (Address { kind: "sqlite", places: vec![Place::Path(path)] }, folder.clone())
                })),
                Err(error) => sighted.unseen(folder, &chain(&error)),
            }
        }
        if wanted.machine {
            sighted.machine(&ours, &self.env.host);
        }
        sighted
    }

    /// What is ours and no store: the state folder and every copy.
    fn own_folders(&self) -> Vec<PathBuf> {
        let copies = self.policy.copies.values().filter_map(|copy| match &copy.url {
            CopyUrl::File(path) => Some(self.resolve(path)),
            CopyUrl::S3 { .. } => None,
        });
        copies.chain([self.state.clone()]).map(real).collect()
    }

    /// Where a row's store is.
    fn row_places(&self, row: &Store) -> Result<Vec<Place>, Failure> {
        let usual = usual_port(row.kind);
        let of = |endpoint: &Endpoint| {
            let text = self.address(endpoint)()?;
            Ok::<_, Failure>(address::places_of_row(text.expose(), usual))
        };
        match &row.source {
            Source::Files { path, .. } | Source::Sqlite { path } => {
                Ok(vec![Place::Path(real(self.resolve(path)))])
            }
            Source::RedisFiles { dir, .. } => Ok(vec![Place::Folder(real(self.resolve(dir)))]),
            // Its kind is found by no address.
            Source::Vector(_) => Ok(Vec::new()),
            Source::Url(url) | Source::Redis { url, .. } | Source::Etcd { url, .. } => of(url),
            Source::EtcdCommand { words, .. } => Ok(words
                .iter()
                .filter(|word| word.contains("://"))
                .flat_map(|word| address::places_of_row(word, usual))
                .collect()),
        }
    }
}

impl Sighted {
    fn machine(&mut self, ours: &[PathBuf], host: &str) {
        match servers::servers(ours, host) {
            Ok(found) => {
                for server in found {
                    let seen = format!("process {} of this machine", server.pid);
                    let hidden =
                        if server.places.is_none() { ", whose sockets only root may see" } else { "" };
                    let address = Address { kind: server.kind, places: server.places.unwrap_or_default() };
                    self.stores.push((address, format!("{seen}{hidden}")));
                }
            }
            Err(error) => self.unseen("machine", &chain(&error)),
        }
    }

    fn unseen(&mut self, place: &str, why: &str) {
        let message = format!("what stores there are in {place} nobody can tell: {why}");
        self.findings.push(Finding::new(UNSEEN, place, message));
    }
}

fn usual_port(kind: Kind) -> u16 {
    match kind {
        Kind::Postgres => 5432,
        Kind::Redis => 6379,
        Kind::Etcd => 2379,
        Kind::Mongodb => 27017,
        Kind::Clickhouse => 9000,
        _ => 0,
    }
}

/// The hosts and ports that a row's address names, without those of this machine.
pub(crate) fn addresses(text: &str, kind: Kind, host: &str) -> Vec<(String, u16)> {
    let own = servers::own_names(host);
    let elsewhere = |place| match here(place) {
        Place::Port(host, port) if !own.contains(&host) && !host.starts_with("127.") => Some((host, port)),
        _ => None,
    };
    let mut found: Vec<(String, u16)> =
        address::places_of_row(text, usual_port(kind)).into_iter().filter_map(elsewhere).collect();
    found.sort();
    found.dedup();
    found
}

/// Text of a settings file; what is none holds nobody knows what.
fn settings(path: &Path) -> Result<String, Failure> {
    let fail = |error| Failure::io(format!("failed to read {}", path.display()), error);
    // A pipe would be waited for, a device read for ever.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(fail(std::io::Error::other("it is no file")));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(MAX_SETTINGS_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_SETTINGS_BYTES {
        return Err(fail(std::io::ErrorKind::FileTooLarge.into()));
    }
    if bytes.contains(&0) {
        return Err(fail(std::io::Error::other("it is no text")));
    }
    String::from_utf8(bytes).map_err(|_bytes| fail(std::io::Error::other("it is no text in UTF-8")))
}

/// The same place under one name. Other addresses of the loopback are other places: a server may listen on one of them only.
fn here(place: Place) -> Place {
    match place {
        Place::Port(host, port) if host == "127.0.0.1" || host == "::1" => {
            Place::Port("localhost".to_owned(), port)
        }
        Place::Path(path) => Place::Path(real(path)),
        Place::Folder(path) => Place::Folder(real(path)),
        other => other,
    }
}

/// An address that can be read in two ways is the one that leads somewhere; two stores, if both do.
fn readings(address: Address) -> Vec<Address> {
    let Address { kind, places } = address;
    let there: Vec<Place> = places.iter().filter(|place| is_there(place)).cloned().collect();
    match there.len() {
        0 => vec![Address { kind, places }],
        _ if kind == "sqlite" => {
            there.into_iter().map(|place| Address { kind, places: vec![place] }).collect()
        }
        _ => vec![Address { kind, places }],
    }
}

fn is_there(place: &Place) -> bool {
    matches!(place, Place::Path(path) if path.exists())
}

/// The path without links, as far as it is there.
fn real(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or(path)
}

/// Each store once, however often it was seen.
fn merged(sighted: Vec<(Address, String)>) -> Vec<FoundStore> {
    let mut found: Vec<FoundStore> = Vec::new();
    for (address, seen) in sighted {
        let is_same = |store: &&mut FoundStore| {
            let is_shared =
                |place: &&Place| !matches!(place, Place::Folder(_)) && address.places.contains(place);
            let shared = store.places.iter().any(|place| is_shared(&place));
            store.kind == address.kind && (shared || store.places.is_empty() && address.places.is_empty())
        };
        if let Some(store) = found.iter_mut().find(is_same) {
            store.places.extend(address.places);
            if !store.seen_in.contains(&seen) {
                store.seen_in.push(seen);
            }
        } else {
            let shown = shown(&address);
            let Address { kind, places } = address;
            found.push(FoundStore {
                address: shown,
                kind,
                seen_in: vec![seen],
                row: None,
                reason: None,
                places,
            });
        }
    }
    found.sort_by(|left, right| left.address.cmp(&right.address));
    found
}

fn shown(address: &Address) -> String {
    let kind = address.kind;
    let port = address.places.iter().find_map(|place| match place {
        Place::Port(host, port) if host.contains(':') => Some(format!("{kind}://[{host}]:{port}")),
        Place::Port(host, port) => Some(format!("{kind}://{host}:{port}")),
        Place::Bucket(name) => Some(name.clone()),
        Place::Path(_) | Place::Folder(_) => None,
    });
    let path = address.places.iter().find_map(|place| match place {
        Place::Path(path) => Some(format!("{kind}:{}", path.display())),
        _ => None,
    });
    port.or(path).unwrap_or_else(|| format!("{kind}:unknown"))
}

fn judged(found: Vec<FoundStore>, rows: &[(&Store, Vec<Place>)], wanted: &Inventory) -> Vec<FoundStore> {
    // Where several servers work in one folder, nobody can tell which of them its files are.
    let folders: Vec<Place> = found
        .iter()
        .flat_map(|store| store.places.iter().filter(|place| matches!(place, Place::Folder(_))).cloned())
        .collect();
    let is_one = |place: &Place| folders.iter().filter(|folder| *folder == place).count() <= 1;
    found
        .into_iter()
        .map(|store| {
            let covers = |(row, places): &&(&Store, Vec<Place>)| {
                let named = |place: &Place| store.places.contains(place) && is_one(place);
                row.kind.word() == store.kind && places.iter().any(named)
            };
            let row = rows.iter().find(covers).map(|(row, _)| row.name.clone());
            let reason = wanted.known.get(&store.address).cloned();
            FoundStore { row, reason, ..store }
        })
        .collect()
}

fn uncovered(store: &FoundStore) -> Option<Finding> {
    if store.row.is_some() || store.reason.is_some() {
        return None;
    }
    if store.places.is_empty() {
        let kind = store.kind;
        let message = format!(
            "there is a store of kind {kind} whose address cannot be told (seen in {}): write it without a password that \
             holds `/`, `#` or `;`, look as root, or name `{}` in `[inventory.known]`",
            store.seen_in.join(", "),
            store.address
        );
        return Some(Finding::new(UNSEEN, &store.address, message));
    }
    let message = format!(
        "{} (seen in {}) has no row: nothing of it is kept, and what reads it finds nothing after a loss",
        store.address,
        store.seen_in.join(", ")
    );
    Some(Finding::new(UNCOVERED, &store.address, message))
}
