//! Where a snapshot comes from: a member, or a command.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Clock;
use lifeboat_etcd::{Client, ClientOptions, EtcdError, OutsideCommand, Snapshot, Status, run_outside};
use serde_json::{Value, json};

use super::capture::CLUSTER;
use super::error::etcd;
use crate::adapter::Inspection;

/// Gives what is needed to reach a cluster; secrets are asked for only when it is called.
pub type Reach = Arc<dyn Fn() -> Result<ClientOptions, Failure> + Send + Sync>;
/// Gives a command with the variables it may see.
pub type Order = Arc<dyn Fn() -> Result<OutsideCommand, Failure> + Send + Sync>;

/// Where snapshots come from.
#[derive(Clone)]
pub enum EtcdSource {
    /// A voting member of the cluster, the first that answers.
    Members(Reach),
    /// A command that writes a snapshot to a file it is given.
    Command(Order),
}

impl fmt::Debug for EtcdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Members(_) => "Members",
            Self::Command(_) => "Command",
        })
    }
}

/// A snapshot, and what is known about where it came from.
pub(crate) struct Taken {
    pub(crate) snapshot: Snapshot,
    pub(crate) notes: Vec<(&'static str, Value)>,
    /// The member, to be asked for its hash.
    pub(crate) client: Option<Client>,
}

/// What looking at the members gave.
struct Look {
    client: Client,
    status: Status,
    findings: Vec<Finding>,
}

/// A source that was found ready.
pub(crate) enum Ready {
    Member(Box<Client>, Status, Vec<Finding>),
    Command(OutsideCommand),
}

/// Finds a member to take the snapshot from. `Unreachable` if none answers, `Refused` if only learners do.
fn look(options: &ClientOptions) -> Result<Look, Failure> {
    let mut best: Option<(Client, Status)> = None;
    let mut findings = Vec::new();
    let mut refused: Option<EtcdError> = None;
    for endpoint in &options.endpoints {
        let found = Client::connect(options, endpoint).and_then(|mut client| {
            let status = client.status()?;
            Ok((client, status))
        });
        match found {
            Err(error) => {
                let message = format!("a member cannot be asked: {}", chain(&error));
                findings.push(
                    Finding::new("etcd-member-unreachable", endpoint.to_string(), message)
                        .with_kind(FailureKind::Unreachable),
                );
                refused = Some(error);
            }
            Ok((_, status)) if status.is_learner => {
                let error = EtcdError::Learner { endpoint: endpoint.to_string() };
                findings.push(Finding::new("etcd-learner", endpoint.to_string(), error.to_string()));
                // Of all the reasons it says most about what to do.
                refused = Some(error);
            }
            Ok((_, status)) if status.leader == 0 => {
                let message = "the member has no leader: what it holds may be behind";
                findings.push(Finding::new("etcd-no-leader", endpoint.to_string(), message));
            }
            Ok((client, status)) => match &best {
                Some((_, other)) if other.cluster_id != status.cluster_id => {
                    let what = format!("{endpoint} belongs to another cluster than {}", options.endpoints[0]);
                    return Err(Failure::new(FailureKind::Refused, what));
                }
                Some(_) => {}
                None => best = Some((client, status)),
            },
        }
    }
    match (best, refused) {
        (Some((client, status)), _) => Ok(Look { client, status, findings }),
        (None, Some(error)) => Err(etcd("no member can be asked for a snapshot")(error)),
        (None, None) => Err(Failure::new(FailureKind::Unreachable, "no member of the cluster has a leader")),
    }
}

impl EtcdSource {
    /// Reaches the source, so that what cannot be captured fails before anything is stored.
    pub(crate) fn ready(&self) -> Result<Ready, Failure> {
        match self {
            Self::Members(reach) => {
                let Look { client, status, findings } = look(&reach()?)?;
                Ok(Ready::Member(Box::new(client), status, findings))
            }
            Self::Command(order) => {
                let command = order()?;
                find_program(&command)?;
                Ok(Ready::Command(command))
            }
        }
    }

    /// What is cheap to know.
    pub(crate) fn inspect(&self) -> Result<Inspection, Failure> {
        let (mut client, status, mut findings) = match self.ready()? {
            Ready::Member(client, status, findings) => (client, status, findings),
            Ready::Command(command) => {
                let program = command.words.first().map(String::as_str).unwrap_or_default();
                return Ok(Inspection {
                    version: format!("etcd, through {program}"),
                    logical_bytes: None,
                    items: Vec::new(),
                    findings: Vec::new(),
                    share: None,
                });
            }
        };
        // Only the start of a snapshot shows whether we may have one.
        match client.snapshot(&mut |_part, _left| Err(EtcdError::Cancelled)) {
            Ok(()) | Err(EtcdError::Cancelled) => {}
            Err(error) => return Err(etcd("the cluster gives no snapshot")(error)),
        }
        let members = client.members().map_err(etcd("the cluster does not list its members"))?;
        findings.extend(alarms(&mut client)?);
        Ok(Inspection {
            version: format!("etcd {}", status.version),
            logical_bytes: Some(status.database_bytes),
            items: vec![("members".to_owned(), members.len() as u64)],
            findings,
            share: None,
        })
    }
}

/// Alarms are told with every capture: with one raised, members may differ or take no writes.
fn alarms(client: &mut Client) -> Result<Vec<Finding>, Failure> {
    let alarms = client.alarms().map_err(etcd("the cluster does not list its alarms"))?;
    let finding = |alarm: lifeboat_etcd::Alarm| {
        let message = format!("member {:x} has raised the alarm {}", alarm.member_id, alarm.name());
        Finding::new("etcd-alarm", alarm.name(), message)
    };
    Ok(alarms.into_iter().map(finding).collect())
}

impl Ready {
    /// Takes the snapshot into a scratch file without a name below `spool`, and proves it whole.
    ///
    /// It is not handed on while it comes in: a server holds back the reuse of its pages for as long as a snapshot
    /// is read, so a slow vault would make its database grow.
    pub(crate) fn take(
        self,
        spool: &Path,
        clock: &dyn Clock,
        monitor: &dyn Monitor,
    ) -> Result<Taken, Failure> {
        let cancelled = || monitor.cancelled();
        match self {
            Self::Command(command) => {
                monitor.phase("running the command", None);
                let file = run_outside(&command, spool, clock, &cancelled)
                    .map_err(etcd("the command gave no snapshot"))?;
                let snapshot =
                    Snapshot::open(file, &cancelled).map_err(etcd("the command gave no good snapshot"))?;
                Ok(Taken { snapshot, notes: vec![("source", json!("command"))], client: None })
            }
            Self::Member(mut client, status, findings) => {
                for finding in findings {
                    monitor.finding(finding);
                }
                monitor.phase("reading the snapshot", Some(status.database_bytes));
                client.catch_up().map_err(etcd("the member is behind its cluster"))?;
                let snapshot = download(&mut client, spool, monitor)?;
                let mut notes = vec![
                    ("source", json!("member")),
                    ("server_version", json!(status.version)),
                    (CLUSTER, json!(format!("{:x}", status.cluster_id))),
                    ("member_id", json!(format!("{:x}", status.member_id))),
                ];
                let members = client.members().map_err(etcd("the cluster does not list its members"))?;
                let member = |member: &lifeboat_etcd::MemberInfo| json!({ "id": format!("{:x}", member.id), "name": member.name, "learner": member.is_learner });
                notes.push(("members", members.iter().map(member).collect()));
                let alarms = alarms(&mut client)?;
                notes.push(("alarms", alarms.iter().map(|alarm| json!(alarm.message)).collect()));
                for alarm in alarms {
                    monitor.finding(alarm);
                }
                Ok(Taken { snapshot, notes, client: Some(*client) })
            }
        }
    }
}

fn download(client: &mut Client, spool: &Path, monitor: &dyn Monitor) -> Result<Snapshot, Failure> {
    let scratch = tempfile::tempfile_in(spool).map_err(|error| {
        Failure::io(format!("failed to open a scratch file in {}", spool.display()), error)
    })?;
    let file: Arc<File> = Arc::new(scratch);
    client
        .snapshot(&mut |part, _left| {
            if monitor.cancelled() {
                return Err(EtcdError::Cancelled);
            }
            monitor.advance(part.len() as u64, 0);
            let written = file.as_ref().write_all(part);
            written.map_err(|source| EtcdError::Io { what: "write scratch data".to_owned(), source })
        })
        .map_err(etcd("the member gave no snapshot"))?;
    Snapshot::open(file, &|| monitor.cancelled()).map_err(etcd("the member gave no good snapshot"))
}

/// A program that is not there is told before the time of a capture, not at it.
fn find_program(command: &OutsideCommand) -> Result<(), Failure> {
    let program = command.words.first().map(String::as_str).unwrap_or_default();
    if program.contains('/') && !Path::new(program).is_file() {
        return Err(Failure::new(FailureKind::Unreachable, format!("there is no program {program}")));
    }
    Ok(())
}
