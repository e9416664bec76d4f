//! A member of a cluster, asked synchronously.

use std::fmt;
use std::time::Duration;

use lifeboat_base::secret::Secret;

use super::channel::{Channel, Method};
use super::options::{ClientOptions, Endpoint};
use super::tls;
use crate::error::EtcdError;
use crate::proto::{KeyValue, Value, Writer, fields};

/// Calls that every healthy server answers at once.
const SHORT: Duration = Duration::from_secs(15);
/// Calls that read the whole store, or wait for the next part of it.
const LONG: Duration = Duration::from_secs(300);
/// How much a page of keys should hold; the number of keys of the next page follows from the last.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// The most keys of a page.
const MAX_PAGE_KEYS: i64 = 2_000;
/// The keys of the first page: values are at most some megabytes large.
const FIRST_PAGE_KEYS: i64 = 64;

/// Takes bytes of a snapshot, and how many are still to come.
pub type SnapshotPart<'a> = dyn FnMut(&[u8], u64) -> Result<(), EtcdError> + 'a;

const KV: &str = "etcdserverpb.KV";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";

const fn method(service: &'static str, name: &'static str, limit: Duration) -> Method {
    Method { service, name, limit }
}

/// What a member says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The cluster's number.
    pub cluster_id: u64,
    /// The member's number.
    pub member_id: u64,
    /// The revision of the last change it has.
    pub revision: i64,
    /// Its version, such as `3.4.23`.
    pub version: String,
    /// The size of its database file in bytes.
    pub database_bytes: u64,
    /// The number of the leader; 0 if there is none.
    pub leader: u64,
    /// Whether it learns and has no vote.
    pub is_learner: bool,
}

/// A member as the cluster lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its number.
    pub id: u64,
    /// Its name; empty if it has not started yet.
    pub name: String,
    /// Whether it learns and has no vote.
    pub is_learner: bool,
}

/// An alarm that a cluster has raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The member's number.
    pub member_id: u64,
    /// 1: no space is left within the quota; 2: members differ.
    pub kind: u64,
}

impl Alarm {
    /// Its name as etcd prints it.
    pub fn name(self) -> &'static str {
        match self.kind {
            1 => "NOSPACE",
            2 => "CORRUPT",
            _ => "UNKNOWN",
        }
    }
}

/// A server's own hash of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashAtRevision {
    /// CRC-32C.
    pub hash: u32,
    /// The revision up to which the server had compacted.
    pub compact_revision: i64,
    /// The revision the member was at.
    pub revision: i64,
}

/// Keys that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys with their values.
    pub keys: Vec<KeyValue>,
    /// Whether more follow.
    pub more: bool,
}

/// A connection to one member, logged in where that was asked for.
pub struct Client {
    channel: Channel,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.channel.endpoint())
    }
}

impl Client {
    /// Connects to one of the endpoints and logs in.
    pub fn connect(options: &ClientOptions, endpoint: &Endpoint) -> Result<Self, EtcdError> {
        let config = match endpoint {
            Endpoint::Tcp { tls: true, .. } => Some(tls::config(&options.tls)?),
            _ => None,
        };
        let mut client = Self { channel: Channel::connect(endpoint, config)? };
        if let Some(login) = &options.login {
            let question = Writer::default()
                .bytes(1, login.user.as_bytes())
                .bytes(2, login.password.expose().as_bytes())
                .finish();
            let question = Secret::new(question);
            let call = method("etcdserverpb.Auth", "Authenticate", SHORT);
            let answer = client.channel.call(call, question.expose())?;
            let mut token = String::new();
            fields(&answer, |field, value| {
                if field == 2 {
                    token = value.text();
                }
                Ok(())
            })?;
            client.channel.show(Secret::new(token));
        }
        Ok(client)
    }

    /// The endpoint it talks to, as text.
    pub fn endpoint(&self) -> String {
        self.channel.endpoint().to_string()
    }

    /// What the member says about itself.
    pub fn status(&mut self) -> Result<Status, EtcdError> {
        let answer = self.channel.call(method(MAINTENANCE, "Status", SHORT), &[])?;
        let mut status = Status::default();
        fields(&answer, |field, value| {
            match field {
                1 => fields(value.bytes(), |field, value| {
                    match field {
                        1 => status.cluster_id = value.unsigned(),
                        2 => status.member_id = value.unsigned(),
                        3 => status.revision = value.signed(),
                        _ => {}
                    }
                    Ok(())
                })?,
                2 => status.version = value.text(),
                3 => status.database_bytes = value.unsigned(),
                4 => status.leader = value.unsigned(),
                10 => status.is_learner = value.unsigned() != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(status)
    }

    /// The members of the cluster.
    pub fn members(&mut self) -> Result<Vec<MemberInfo>, EtcdError> {
        let answer = self.channel.call(method("etcdserverpb.Cluster", "MemberList", SHORT), &[])?;
        let mut members = Vec::new();
        repeated(&answer, |message| {
            let mut member = MemberInfo::default();
            fields(message, |field, value| {
                match field {
                    1 => member.id = value.unsigned(),
                    2 => member.name = value.text(),
                    5 => member.is_learner = value.unsigned() != 0,
                    _ => {}
                }
                Ok(())
            })?;
            members.push(member);
            Ok(())
        })?;
        Ok(members)
    }

    /// The alarms that are raised.
    pub fn alarms(&mut self) -> Result<Vec<Alarm>, EtcdError> {
        let answer = self.channel.call(method(MAINTENANCE, "Alarm", SHORT), &[])?;
        let mut alarms = Vec::new();
        repeated(&answer, |message| {
            let mut alarm = Alarm { member_id: 0, kind: 0 };
            fields(message, |field, value| {
                match field {
                    1 => alarm.member_id = value.unsigned(),
                    2 => alarm.kind = value.unsigned(),
                    _ => {}
                }
                Ok(())
            })?;
            alarms.push(alarm);
            Ok(())
        })?;
        Ok(alarms)
    }

    /// Waits until the member has everything that was committed before this call.
    pub fn catch_up(&mut self) -> Result<(), EtcdError> {
        // A read that is not "serializable" asks the leader how far it is. The answer itself, a count, is of no interest.
        let question = Writer::default().bytes(1, &[0]).number(9, 1).finish();
        self.channel.call(method(KV, "Range", SHORT), &question).map(drop)
    }

    /// The server's own hash of the history up to `revision`. Refused once the server has compacted beyond it.
    pub fn hash_kv(&mut self, revision: i64) -> Result<HashAtRevision, EtcdError> {
        match self.hash_up_to(revision) {
            // It refuses the compacted revision itself by number, and gives it while it is the last.
            Err(error @ EtcdError::Refused { .. }) => match self.hash_up_to(0) {
                Ok(last) if last.revision == revision => Ok(last),
                _ => Err(error),
            },
            other => other,
        }
    }

    fn hash_up_to(&mut self, revision: i64) -> Result<HashAtRevision, EtcdError> {
        let question = Writer::default().number(1, revision).finish();
        let answer = self.channel.call(method(MAINTENANCE, "HashKV", LONG), &question)?;
        let mut found = HashAtRevision::default();
        fields(&answer, |field, value| {
            match field {
                1 => fields(value.bytes(), |field, value| {
                    if field == 3 {
                        found.revision = value.signed();
                    }
                    Ok(())
                })?,
                2 => found.hash = u32::try_from(value.unsigned()).unwrap_or_default(),
                3 => found.compact_revision = value.signed().max(0),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Gives `visit` the bytes of a snapshot as they come, with how many are still to come. A server that ends or
    /// falls silent before the last of them is an error. What was given is proven whole by
    /// [`Snapshot::open`](crate::Snapshot::open), not here.
    pub fn snapshot(&mut self, visit: &mut SnapshotPart<'_>) -> Result<(), EtcdError> {
        let mut left = None;
        self.channel.stream(method(MAINTENANCE, "Snapshot", LONG), &[], &mut |message| {
            let (mut remaining_bytes, mut blob) = (0, Vec::new());
            fields(&message, |field, value: Value<'_>| {
                match field {
                    2 => remaining_bytes = value.unsigned(),
                    3 => blob = value.bytes().to_vec(),
                    _ => {}
                }
                Ok(())
            })?;
            left = Some(remaining_bytes);
            visit(&blob, remaining_bytes)
        })?;
        match left {
            Some(0) => Ok(()),
            _ => Err(self.channel.broken("a snapshot without its end")),
        }
    }

    /// Every key as it was at `revision`, in the order of their bytes, page by page.
    pub fn keys(
        &mut self,
        revision: i64,
        visit: &mut dyn FnMut(KeyValue) -> Result<(), EtcdError>,
    ) -> Result<(), EtcdError> {
        let mut from = vec![0];
        let mut limit = FIRST_PAGE_KEYS;
        loop {
            let page = match self.page(&from, limit, revision) {
                // Large values after many small ones.
                Err(EtcdError::TooLarge { .. }) if limit > 1 => {
                    limit = (limit / 16).max(1);
                    continue;
                }
                other => other?,
            };
            let Some(last) = page.keys.last() else { return Ok(()) };
            from.clone_from(&last.key);
            from.push(0);
            let bytes: u64 =
                page.keys.iter().map(|pair| (pair.key.len() + pair.value.len()) as u64).sum::<u64>() + 1;
            let fitting = (page.keys.len() as u64).saturating_mul(PAGE_BYTES) / bytes;
            limit = i64::try_from(fitting).unwrap_or(MAX_PAGE_KEYS).clamp(1, 4 * limit).min(MAX_PAGE_KEYS);
            let more = page.more;
            page.keys.into_iter().try_for_each(&mut *visit)?;
            if !more {
                return Ok(());
            }
        }
    }

    /// The first `limit` keys from `from` on, as they were at `revision`.
    fn page(&mut self, from: &[u8], limit: i64, revision: i64) -> Result<Page, EtcdError> {
        // A range that ends at a zero byte has no end.
        let question =
            Writer::default().bytes(1, from).bytes(2, &[0]).number(3, limit).number(4, revision).finish();
        let answer = self.channel.call(method(KV, "Range", LONG), &question)?;
        let mut page = Page::default();
        fields(&answer, |field, value| {
            match field {
                2 => page.keys.push(KeyValue::decode(value.bytes())?),
                3 => page.more = value.unsigned() != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(page)
    }

    /// The numbers of all leases, in order.
    pub fn leases(&mut self) -> Result<Vec<i64>, EtcdError> {
        let answer = self.channel.call(method("etcdserverpb.Lease", "LeaseLeases", SHORT), &[])?;
        let mut leases = Vec::new();
        repeated(&answer, |message| {
            let mut id = 0;
            fields(message, |field, value| {
                if field == 1 {
                    id = value.signed();
                }
                Ok(())
            })?;
            leases.push(id);
            Ok(())
        })?;
        leases.sort_unstable();
        Ok(leases)
    }
}

/// Visits the messages of field 2, where answers keep their lists.
fn repeated(answer: &[u8], mut visit: impl FnMut(&[u8]) -> Result<(), EtcdError>) -> Result<(), EtcdError> {
    fields(answer, |field, value| if field == 2 { visit(value.bytes()) } else { Ok(()) })
}
