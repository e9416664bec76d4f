//! Sentinels: each is asked, most of all that are known must name the same primary, and the server that is named is asked
//! whether it is what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_base::failure::chain;

use super::error::PlaceError;
use super::{Found, Role, is_in_role};
use crate::wire::{ConnectOptions, Connection, RedisError, Reply};

/// What is told of a sentinel that names another primary in a newer epoch than most do.
pub const ODD: &str = "sentinels_odd";
/// How long one that was reached may take for an answer.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// The most replicas that are tried.
const MAX_REPLICAS: usize = 64;
const MALFORMED: RedisError = RedisError::Protocol { what: "an answer to SENTINEL that is none" };

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

/// What one sentinel has said.
#[derive(Clone, Debug)]
struct Answer {
    /// Its own id, or its address where it has none: the same sentinel under two addresses counts once.
    id: String,
    /// Where it says that the primary is, and what it knows of it; nothing if it knows no such primary.
    told: Option<Told>,
}

impl Answer {
    fn primary(&self) -> Option<&Place> {
        self.told.as_ref().map(|told| &told.primary)
    }
}

#[derive(Clone, Debug)]
struct Told {
    primary: Place,
    /// It grows with every failover that most sentinels have agreed to.
    epoch: u64,
    /// How many other sentinels it knows.
    others: usize,
    /// Addresses of replicas that it calls well.
    replicas: Vec<Place>,
}

/// The primary that most sentinels name.
struct Agreed {
    primary: Place,
    epoch: u64,
    votes: usize,
    /// Sentinels that are known to watch it, whether they answered or not.
    known: usize,
    replicas: BTreeSet<Place>,
    /// Another primary that somebody names in a newer epoch.
    odd: Option<String>,
}

impl SentinelOptions {
    pub(super) fn find(&self) -> Result<Found, PlaceError> {
        let agreed = self.agreed()?;
        let places: Vec<&Place> = match self.role {
            Role::Primary => vec![&agreed.primary],
            Role::Replica => agreed.replicas.iter().take(MAX_REPLICAS).collect(),
        };
        let mut tried = Vec::new();
        for (host, port) in places {
            let options = self.server.at(host, *port);
            let came = match is_in_role(&options, self.role) {
                Ok(true) => return Ok(self.found(options, &agreed)),
                Ok(false) => "is none".to_owned(),
                Err(error) => chain(&error),
            };
            tried.push(format!("{host}:{port} {came}"));
        }
        if tried.is_empty() {
            tried.push("the sentinels know none that is well".to_owned());
        }
        Err(PlaceError::NotInRole { role: self.role, name: self.quoted(), tried: tried.join("; ") })
    }

    fn quoted(&self) -> String {
        format!("`{}`", self.name)
    }

    fn found(&self, options: ConnectOptions, agreed: &Agreed) -> Found {
        let mut told = BTreeMap::from([
            ("sentinel_name", self.name.clone()),
            (
                "sentinels",
                format!("{} of {} that are known, in epoch {}", agreed.votes, agreed.known, agreed.epoch),
            ),
        ]);
        told.extend(agreed.odd.clone().map(|odd| (ODD, odd)));
        Found { options, role: Some(self.role), told, shard: None }
    }

    /// What most of the sentinels say. One that does not answer is known all the same; it takes at most its time to connect.
    fn agreed(&self) -> Result<Agreed, PlaceError> {
        let mut answers: BTreeMap<String, Answer> = BTreeMap::new();
        let (mut silent, mut last) = (0, None);
        for sentinel in &self.sentinels {
            let answer = match self.ask(&sentinel.with_silence_limit(ASK_LIMIT)) {
                Ok(answer) => answer,
                Err(error) => {
                    silent += 1;
                    last = Some(error);
                    continue;
                }
            };
            if let Some(other) = answers.get(&answer.id)
                && other.primary() != answer.primary()
            {
                let who = format!("the sentinel {}", answer.id);
                let what = "names different primaries under two addresses".to_owned();
                return Err(PlaceError::Unknown { who, what });
            }
            answers.insert(answer.id.clone(), answer);
        }
        match last {
            Some(source) if answers.is_empty() => {
                Err(PlaceError::NobodyAnswers { asked: self.sentinels.len(), who: "sentinels", source })
            }
            _ => self.counted(&answers.into_values().collect::<Vec<_>>(), silent),
        }
    }

    /// A failover is believed as the sentinels decide it: by most of all that there are. Those who are cut off from the rest
    /// go on to name the primary that was replaced, which does not know better either.
    fn counted(&self, answers: &[Answer], silent: usize) -> Result<Agreed, PlaceError> {
        let told: Vec<&Told> = answers.iter().filter_map(|answer| answer.told.as_ref()).collect();
        let votes = |primary: &Place| told.iter().filter(|told| told.primary == *primary).count();
        let Some(newest) = told.iter().max_by_key(|told| (votes(&told.primary), told.epoch)) else {
            let who = format!("{} of {} sentinels", answers.len(), self.sentinels.len());
            return Err(PlaceError::Unknown {
                who,
                what: format!("know no primary called {}", self.quoted()),
            });
        };
        // What one alone says of their number changes nothing where others say something else.
        let mut numbers: Vec<usize> = told.iter().map(|told| told.others.saturating_add(1)).collect();
        numbers.sort_unstable();
        let said = numbers.get(numbers.len() / 2).copied().unwrap_or_default();
        let known = said.max(answers.len() + silent);
        let agreed = votes(&newest.primary);
        if agreed * 2 <= known {
            let mut named: BTreeMap<&Place, usize> = BTreeMap::new();
            for told in &told {
                *named.entry(&told.primary).or_default() += 1;
            }
            let named: Vec<String> =
                named.iter().map(|((host, port), votes)| format!("{host}:{port} by {votes}")).collect();
            let (name, named) = (self.quoted(), named.join(", "));
            return Err(PlaceError::Minority { name, known, answered: answers.len(), named });
        }
        let agree = told.iter().filter(|told| told.primary == newest.primary);
        let replicas = agree.flat_map(|told| told.replicas.iter().cloned()).collect();
        let (primary, epoch) = (newest.primary.clone(), newest.epoch);
        let odd = told.iter().find(|told| told.primary != primary && told.epoch > epoch);
        let odd = odd.map(|told| {
            let ((host, port), newer) = (&told.primary, told.epoch);
            format!("{host}:{port} in epoch {newer}, and most name another one in epoch {epoch}")
        });
        Ok(Agreed { primary, epoch, votes: agreed, known, replicas, odd })
    }

    fn ask(&self, sentinel: &ConnectOptions) -> Result<Answer, RedisError> {
        let name = self.name.as_bytes();
        let mut connection = Connection::open(sentinel)?;
        let id = match connection.command(&[b"SENTINEL", b"MYID"]) {
            Ok(reply) => reply.text().ok_or(MALFORMED)?,
            // Before version 6.2.
            Err(RedisError::Server { .. }) => sentinel.target(),
            Err(error) => return Err(error),
        };
        let reply = connection.command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name])?;
        let primary = match &reply {
            Reply::Null => return Ok(Answer { id, told: None }),
            reply => pair(reply).ok_or(MALFORMED)?,
        };
        let about = fields(&connection.command(&[b"SENTINEL", b"MASTER", name])?);
        let number = |name: &str| about.get(name).and_then(|text| text.parse::<u64>().ok()).ok_or(MALFORMED);
        let epoch = number("config-epoch")?;
        let others = usize::try_from(number("num-other-sentinels")?).unwrap_or(usize::MAX);
        let replicas = match self.role {
            Role::Primary => Vec::new(),
            Role::Replica => replicas(&mut connection, name)?,
        };
        Ok(Answer { id, told: Some(Told { primary, epoch, others, replicas }) })
    }
}

fn replicas(connection: &mut Connection, name: &[u8]) -> Result<Vec<Place>, RedisError> {
    let reply = match connection.command(&[b"SENTINEL", b"REPLICAS", name]) {
        // Before version 5.
        Err(RedisError::Server { .. }) => connection.command(&[b"SENTINEL", b"SLAVES", name])?,
        other => other?,
    };
    Ok(reply.members().iter().take(MAX_REPLICAS).filter_map(well).collect())
}

/// An address and a port.
fn pair(reply: &Reply) -> Option<Place> {
    let [host, port] = reply.members() else { return None };
    Some((host.text().filter(|host| !host.is_empty())?, port.text()?.parse().ok()?))
}

/// Names and values that take turns.
fn fields(reply: &Reply) -> BTreeMap<String, String> {
    let words: Vec<String> = reply.members().iter().filter_map(Reply::text).collect();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().map(|[name, value]| (name.clone(), value.clone())).collect()
}

/// The address of a replica, if the sentinel has nothing against it.
fn well(reply: &Reply) -> Option<Place> {
    let fields = fields(reply);
    let of = |name: &str| fields.get(name).map(String::as_str);
    let down = of("flags")?.split(',').any(|flag| flag.ends_with("down") || flag == "disconnected");
    let linked = of("master-link-status").is_none_or(|link| link == "ok");
    if down || !linked {
        return None;
    }
    Some((of("ip")?.to_owned(), of("port")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use lifeboat_base::secret::Secret;
    use lifeboat_net::Address;

    use super::*;

    fn options(sentinels: usize) -> SentinelOptions {
        let server = ConnectOptions::parse(&Secret::new("redis://nobody".to_owned())).unwrap();
        let one = ConnectOptions::new(Address::Tcp("nobody".to_owned(), 1));
        SentinelOptions {
            sentinels: vec![one; sentinels],
            server,
            name: "shop".to_owned(),
            role: Role::Primary,
        }
    }

    /// A sentinel that names this port in this epoch and knows so many others.
    fn answer(port: u16, epoch: u64, others: usize) -> Answer {
        let told = Told { primary: ("a".to_owned(), port), epoch, others, replicas: Vec::new() };
        Answer { id: String::new(), told: Some(told) }
    }

    fn counted(answers: &[Answer], silent: usize) -> Option<(u16, usize, usize)> {
        let counted = options(answers.len() + silent).counted(answers, silent);
        counted.ok().map(|agreed| (agreed.primary.1, agreed.votes, agreed.known))
    }

    #[test]
    fn a_primary_is_believed_if_most_of_all_known_sentinels_name_it() {
        assert_eq!(counted(&[answer(1, 0, 0)], 0), Some((1, 1, 1)));
        assert_eq!(counted(&[answer(1, 4, 2), answer(1, 4, 2)], 1), Some((1, 2, 3)));
        assert_eq!(counted(&[answer(1, 4, 2), answer(1, 3, 2), answer(2, 3, 2)], 0), Some((1, 2, 3)));
        for odd in 0..3 {
            let all = [0, 1, 2].map(|index| answer(if index == odd { 2 } else { 1 }, 4, 2));
            assert_eq!(counted(&all, 0), Some((1, 2, 3)), "{odd}");
        }
        // One that is cut off, with what it knew before: alone, beside others that are silent, or that are not named.
        assert_eq!(counted(&[answer(1, 4, 2)], 0), None);
        assert_eq!(counted(&[answer(1, 4, 0)], 2), None);
        assert_eq!(counted(&[answer(1, 4, 2), answer(1, 4, 4)], 0), None);
        // As many for one as for the other.
        assert_eq!(counted(&[answer(1, 4, 1), answer(2, 4, 1)], 0), None);
        // One that says what nobody else does, of the epoch or of their number.
        let odd = [answer(1, 4, 2), answer(1, 4, 2), answer(2, 999, 1_000_000)];
        assert_eq!(counted(&odd, 0), Some((1, 2, 3)));
        assert!(options(3).counted(&odd, 0).unwrap().odd.is_some());
        assert_eq!(counted(&[answer(1, 4, 2), answer(2, 999, 1_000_000)], 1), None);
    }
}
