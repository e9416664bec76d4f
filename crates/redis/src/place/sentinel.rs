//! Sentinels: each is asked, and the server that is named is asked whether it is what they say.

use std::collections::BTreeMap;

use lifeboat_base::failure::chain;

use super::error::PlaceError;
use super::{Found, Role, is_in_role};
use crate::wire::{ConnectOptions, Connection, RedisError, Reply};

/// The most replicas that are tried.
const MAX_REPLICAS: usize = 64;

/// Sentinels, and what they are to find.
#[derive(Clone, Debug)]
pub struct SentinelOptions {
    /// Each with its own login.
    pub(super) sentinels: Vec<ConnectOptions>,
    /// How servers are reached, but for their address.
    pub(super) server: ConnectOptions,
    /// The primary's name.
    pub(super) name: String,
    pub(super) role: Role,
}

type Place = (String, u16);

/// What sentinels have said.
#[derive(Default)]
struct Answers {
    answered: usize,
    /// How many of them named an address of the primary.
    primaries: BTreeMap<Place, usize>,
    /// How many of them named an address of a replica that they call well.
    replicas: BTreeMap<Place, usize>,
}

impl SentinelOptions {
    pub(super) fn find(&self) -> Result<Found, PlaceError> {
        let answers = self.ask()?;
        let named = match self.role {
            Role::Primary => &answers.primaries,
            Role::Replica => &answers.replicas,
        };
        let name = format!("`{}`", self.name);
        if named.is_empty() {
            let who = format!("{} of {} sentinels", answers.answered, self.sentinels.len());
            let what = match self.role {
                Role::Primary => format!("know no primary called {name}"),
                Role::Replica => format!("know no replica of {name} that is well"),
            };
            return Err(PlaceError::Unknown { who, what });
        }
        let mut named: Vec<(&Place, usize)> = named.iter().map(|(place, votes)| (place, *votes)).collect();
        named.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        let (mut tried, mut good) = (Vec::new(), Vec::new());
        for ((host, port), votes) in named.into_iter().take(MAX_REPLICAS) {
            let options = self.server.at(host, *port);
            let came = match is_in_role(&options, self.role) {
                Ok(true) => {
                    good.push((options, votes));
                    if self.role == Role::Replica {
                        break;
                    }
                    "says so".to_owned()
                }
                Ok(false) => "is none".to_owned(),
                Err(error) => chain(&error),
            };
            tried.push(format!("{host}:{port} (named by {votes}) {came}"));
        }
        let tried = tried.join("; ");
        let mut good = good.into_iter();
        match (good.next(), good.next()) {
            (Some((_, votes)), Some((_, others))) if votes == others => {
                Err(PlaceError::Disagreement { name, tried })
            }
            (Some((options, votes)), _) => Ok(self.found(options, votes, answers.answered)),
            (None, _) => Err(PlaceError::NotInRole { role: self.role, name, tried }),
        }
    }

    fn found(&self, options: ConnectOptions, votes: usize, answered: usize) -> Found {
        let all = self.sentinels.len();
        let told = BTreeMap::from([
            ("sentinel_name", self.name.clone()),
            (
                "sentinels",
                format!("{votes} of {answered} that answered, of {all}, named {}", options.target()),
            ),
        ]);
        Found { options, role: Some(self.role), told, shard: None }
    }

    /// Asks every sentinel. One that does not answer is left out; it takes at most its time to connect.
    fn ask(&self) -> Result<Answers, PlaceError> {
        let mut answers = Answers::default();
        let mut last = None;
        for sentinel in &self.sentinels {
            match self.ask_one(sentinel, &mut answers) {
                Ok(()) => answers.answered += 1,
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(source) if answers.answered == 0 => {
                Err(PlaceError::NobodyAnswers { asked: self.sentinels.len(), who: "sentinels", source })
            }
            _ => Ok(answers),
        }
    }

    fn ask_one(&self, sentinel: &ConnectOptions, answers: &mut Answers) -> Result<(), RedisError> {
        const MALFORMED: RedisError = RedisError::Protocol { what: "an answer to SENTINEL that is none" };
        let name = self.name.as_bytes();
        let mut connection = Connection::open(sentinel)?;
        let reply = connection.command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name])?;
        let primary = match &reply {
            Reply::Null => return Ok(()),
            reply => pair(reply).ok_or(MALFORMED)?,
        };
        *answers.primaries.entry(primary).or_default() += 1;
        if self.role == Role::Replica {
            let reply = match connection.command(&[b"SENTINEL", b"REPLICAS", name]) {
                // Before version 5.
                Err(RedisError::Server { .. }) => connection.command(&[b"SENTINEL", b"SLAVES", name])?,
                other => other?,
            };
            for replica in reply.members().iter().take(MAX_REPLICAS) {
                if let Some(place) = well(replica) {
                    *answers.replicas.entry(place).or_default() += 1;
                }
            }
        }
        Ok(())
    }
}

/// An address and a port.
fn pair(reply: &Reply) -> Option<Place> {
    let [host, port] = reply.members() else { return None };
    Some((host.text().filter(|host| !host.is_empty())?, port.text()?.parse().ok()?))
}

/// The address of a replica, if the sentinel has nothing against it.
fn well(reply: &Reply) -> Option<Place> {
    let fields: Vec<String> = reply.members().iter().filter_map(Reply::text).collect();
    let of = |name: &str| {
        let (pairs, _) = fields.as_chunks::<2>();
        pairs.iter().find(|[field, _]| field == name).map(|[_, value]| value.as_str())
    };
    let down = of("flags")?.split(',').any(|flag| flag.ends_with("down") || flag == "disconnected");
    let linked = of("master-link-status").is_none_or(|link| link == "ok");
    if down || !linked {
        return None;
    }
    Some((of("ip")?.to_owned(), of("port")?.parse().ok()?))
}
