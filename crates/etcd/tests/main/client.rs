//! The client against real servers, and snapshots against what their servers say.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::secret::Secret;
use lifeboat_etcd::{
    Client, ClientOptions, Content, EtcdError, KeyValue, Login, Snapshot, TlsPem, read_content,
};
use lifeboat_testkit::{EtcdOptions, EtcdServer, etcd_installations};

pub(crate) fn options(server: &EtcdServer) -> ClientOptions {
    let mut options = ClientOptions::parse(&server.url()).unwrap();
    if let Some(tls) = server.tls() {
        let read = |path| std::fs::read_to_string(path).unwrap();
        let key = Secret::new(read(&tls.key));
        options.tls = TlsPem { ca: Some(read(&tls.ca)), cert: Some(read(&tls.cert)), key: Some(key) };
    }
    options
}

fn connect(options: &ClientOptions) -> Result<Client, EtcdError> {
    Client::connect(options, &options.endpoints[0])
}

/// A snapshot as the client gives it.
fn take(client: &mut Client) -> Result<File, EtcdError> {
    let mut file = tempfile::tempfile().unwrap();
    client.snapshot(&mut |part, _left| {
        file.write_all(part).unwrap();
        Ok(())
    })?;
    Ok(file)
}

pub(crate) fn snapshot(server: &EtcdServer) -> Snapshot {
    let file = take(&mut connect(&options(server)).unwrap()).unwrap();
    Snapshot::open(Arc::new(file), &|| false).unwrap()
}

pub(crate) fn content(snapshot: &Snapshot) -> (Content, Vec<KeyValue>) {
    let mut keys = Vec::new();
    let content = read_content(snapshot.database(), &|| false, &mut |key| {
        keys.push(key);
        Ok(())
    });
    keys.sort_by(|one, other| one.key.cmp(&other.key));
    (content.unwrap(), keys)
}

/// What the snapshot holds is what its server says, by its own hash too.
fn compare(server: &EtcdServer, when: &str) {
    let mut client = connect(&options(server)).unwrap();
    let version = server.installation().version;
    let (content, keys) = content(&snapshot(server));
    let status = client.status().unwrap();
    assert_eq!(content.revision, status.revision, "{version} {when}");
    let hash = client.hash_kv(content.revision).unwrap();
    assert_eq!(
        (content.hash_kv, content.compact_revision),
        (hash.hash, hash.compact_revision),
        "{version} {when}"
    );
    let mut served = Vec::new();
    let all = client.keys(content.revision, &mut |key| {
        served.push(key);
        Ok(())
    });
    all.unwrap();
    assert_eq!(keys, served, "{version} {when}");
    let ids: Vec<i64> = content.leases.iter().map(|lease| lease.id).collect();
    assert_eq!(ids, client.leases().unwrap(), "{version} {when}");
}

#[test]
fn what_is_read_from_a_snapshot_is_what_the_server_says_whatever_its_history() {
    for installation in etcd_installations() {
        let server = EtcdServer::start(EtcdOptions::new(&installation));
        compare(&server, "empty");
        server.load("/registry/pods/", 300);
        for key in ["a", "b", "Größe \"x\"", "\u{1}\u{2}"] {
            server.ctl(&["put", key, "1"]);
        }
        server.ctl(&["put", "empty", ""]);
        server.ctl(&["put", "large", &"y".repeat(100_000)]);
        let lease = server.ctl(&["lease", "grant", "3600"]);
        let lease = lease.split_whitespace().nth(1).unwrap().to_owned();
        server.ctl(&["put", "leased", "1", &format!("--lease={lease}")]);
        compare(&server, "full");
        server.ctl(&["del", "a"]);
        server.ctl(&["put", "b", "2"]);
        server.ctl(&["del", "b"]);
        server.ctl(&["put", "b", "3"]);
        compare(&server, "changed");
        let revision = |server: &EtcdServer| connect(&options(server)).unwrap().status().unwrap().revision;
        server.ctl(&["compact", "--physical", &(revision(&server) - 1).to_string()]);
        compare(&server, "compacted");
        server.ctl(&["del", "large"]);
        server.ctl(&["compact", "--physical", &revision(&server).to_string()]);
        compare(&server, "compacted at a deletion");
        server.ctl(&["put", "after", "1"]);
        server.ctl(&["defrag"]);
        compare(&server, "defragmented");
    }
}

#[test]
fn a_member_says_who_it_is_and_who_else_there_is() {
    for installation in etcd_installations() {
        let server = EtcdServer::start(EtcdOptions::new(&installation));
        let mut client = connect(&options(&server)).unwrap();
        let status = client.status().unwrap();
        assert_eq!(status.version, installation.version.to_string());
        assert_eq!(status.leader, status.member_id);
        assert!(!status.is_learner && status.database_bytes > 0);
        let members = client.members().unwrap();
        assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [status.member_id]);
        assert!(client.alarms().unwrap().is_empty());
        client.catch_up().unwrap();
        let learner = server.learner();
        let learns = options(&learner);
        // It answers once it has found its cluster.
        let status = loop {
            if let Ok(status) = connect(&learns).and_then(|mut client| client.status()) {
                break status;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        };
        assert!(status.is_learner);
        assert_eq!(client.members().unwrap().iter().filter(|member| member.is_learner).count(), 1);
    }
}

#[test]
fn a_full_server_says_so() {
    let installation = &etcd_installations()[0];
    let server = EtcdServer::start(EtcdOptions::new(installation).argument("--quota-backend-bytes=1000000"));
    let value = "z".repeat(100_000);
    for key in 0..20 {
        if !server.try_ctl(&["put", &format!("k{key}"), &value]).status.success() {
            break;
        }
    }
    let alarms = connect(&options(&server)).unwrap().alarms().unwrap();
    assert_eq!(alarms.iter().map(|alarm| alarm.name()).collect::<Vec<_>>(), ["NOSPACE"]);
}

#[test]
fn certificates_and_passwords_are_asked_for_and_checked() {
    for installation in etcd_installations() {
        let mut server = EtcdServer::start(EtcdOptions::new(&installation).tls());
        let good = options(&server);
        let status = connect(&good).unwrap().status().unwrap();
        assert_eq!(status.version, installation.version.to_string());
        let no_certificate =
            ClientOptions { tls: TlsPem { cert: None, key: None, ..good.tls.clone() }, ..good.clone() };
        let error = connect(&no_certificate).and_then(|mut client| client.status()).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Unreachable, "{error}");
        let no_authority = ClientOptions { tls: TlsPem { ca: None, ..good.tls.clone() }, ..good.clone() };
        let error = connect(&no_authority).unwrap_err();
        assert!(lifeboat_base::failure::chain(&error).contains("certificate"), "{error}");
        let other_name = ClientOptions::parse(&server.url().replace("127.0.0.1", "localhost")).unwrap();
        let other_name = ClientOptions { tls: good.tls.clone(), ..other_name };
        assert!(matches!(connect(&other_name), Err(EtcdError::Unreachable { .. })));

        // A user who may read every key.
        server.ctl(&["role", "add", "reader"]);
        server.ctl(&["role", "grant-permission", "reader", "read", "", "--from-key"]);
        server.ctl(&["user", "add", "keeper:s3cret"]);
        server.ctl(&["user", "grant-role", "keeper", "reader"]);
        server.enable_auth("s3cret");
        let as_user = |user: &str, password: &str| ClientOptions {
            login: Some(Login { user: user.to_owned(), password: Secret::new(password.to_owned()) }),
            ..good.clone()
        };
        let with = |password: &str| as_user("root", password);
        let mut keeper = connect(&as_user("keeper", "s3cret")).unwrap();
        keeper.keys(1, &mut |_key| Ok(())).unwrap();
        let error = take(&mut keeper).unwrap_err();
        assert!(
            matches!(&error, EtcdError::Refused { call: "Snapshot", message, .. } if message.contains("denied")),
            "{error}"
        );
        let error = connect(&with("wrong")).unwrap_err();
        assert!(matches!(error, EtcdError::Refused { call: "Authenticate", .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("wrong"), "{error}");
        let mut client = connect(&with("s3cret")).unwrap();
        client.catch_up().unwrap();
        let file = take(&mut client).unwrap();
        let (content, _) = content(&Snapshot::open(Arc::new(file), &|| false).unwrap());
        assert_eq!((content.auth.enabled, content.auth.user_count), (true, 2));
    }
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_snapshot_is_an_error() {
    for installation in etcd_installations() {
        let mut server = EtcdServer::start(EtcdOptions::new(&installation));
        let value = "v".repeat(100_000);
        for key in 0..80 {
            server.ctl(&["put", &format!("k{key}"), &value]);
        }
        let mut client = connect(&options(&server)).unwrap();
        let mut got: u64 = 0;
        let outcome = client.snapshot(&mut |part, _left| {
            got += part.len() as u64;
            server.end();
            Ok(())
        });
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Unreachable, "{error}");
        assert!(got > 0 && got < 8_000_000, "{got}");
        assert!(connect(&options(&server)).is_err());
    }
}
