//! Data directories and throwaway members made of real snapshots.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::time::SystemClock;
use lifeboat_etcd::{
    EtcdError, Installation, Member, RUNTIME, Snapshot, Version, Wait, bump_revision, installation,
    make_data_directory, switch_off_auth,
};
use lifeboat_testkit::{EtcdOptions, EtcdServer, etcd_installations};

use crate::client::{content, snapshot};

fn written(snapshot: &Snapshot, path: &Path) {
    let mut file = File::create_new(path).unwrap();
    std::io::copy(&mut snapshot.reader(), &mut file).unwrap();
}

fn start(installed: &Installation, data: &Path) -> Result<Member, EtcdError> {
    let clock = SystemClock::new();
    let wait = Wait { limit: Duration::from_secs(60), clock: &clock, cancelled: &|| false };
    Member::start(installed, data, &OsEntropy, wait)
}

fn directory(installed: &Installation, snapshot: &Path, into: &Path) {
    make_data_directory(installed, snapshot, into, &SystemClock::new(), &|| false).unwrap();
}

#[test]
fn a_throwaway_member_has_every_key_of_the_snapshot_and_no_port() {
    for installed in etcd_installations() {
        let server = EtcdServer::start(EtcdOptions::new(&installed));
        server.load("/registry/pods/", 2500);
        server.ctl(&["del", "/registry/pods/0000007"]);
        let dir = tempfile::tempdir().unwrap();
        let taken = snapshot(&server);
        let (content, keys) = content(&taken);
        written(&taken, &dir.path().join("snapshot.db"));
        let data = dir.path().join("data");
        directory(&installed, &dir.path().join("snapshot.db"), &data);
        let member = start(&installed, &data).unwrap();
        let mut client = member.connect().unwrap();
        let mut served = Vec::new();
        let all = client.keys(content.revision, &mut |key| {
            served.push(key);
            Ok(())
        });
        all.unwrap();
        assert_eq!(served, keys);
        assert_eq!(client.hash_kv(content.revision).unwrap().hash, content.hash_kv);
        let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", member.pid())).unwrap();
        let own: Vec<_> = fs::read_dir(format!("/proc/{}/fd", member.pid()))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .filter_map(|link| {
                Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
            })
            .collect();
        assert!(!own.is_empty());
        assert!(!sockets.lines().any(|line| own.iter().any(|inode| line.contains(inode.as_str()))));
        let environment = fs::read(format!("/proc/{}/environ", member.pid())).unwrap();
        assert!(environment.is_empty(), "{environment:?}");
        let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_ne!(network(&member.pid().to_string()), network("self"));
        let folder = fs::read_link(format!("/proc/{}/cwd", member.pid())).unwrap();
        assert!(folder.starts_with(RUNTIME));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        drop(member);
        assert!(!folder.exists());
    }
}

#[test]
fn a_raised_revision_is_served_by_real_servers_and_old_ones_are_gone() {
    for installed in etcd_installations() {
        let server = EtcdServer::start(EtcdOptions::new(&installed));
        server.load("/registry/", 100);
        server.ctl(&["put", "twice", "1"]);
        server.ctl(&["put", "twice", "2"]);
        server.ctl(&["put", "gone", "1"]);
        server.ctl(&["del", "gone"]);
        let dir = tempfile::tempdir().unwrap();
        let taken = snapshot(&server);
        let (before, keys) = content(&taken);
        let raised = dir.path().join("raised.db");
        let revision = bump_revision(&taken, 1_000_000, &raised, &|| false).unwrap();
        assert_eq!(revision, before.revision + 1_000_000);
        let data = dir.path().join("data");
        directory(&installed, &raised, &data);
        let member = start(&installed, &data).unwrap();
        let mut client = member.connect().unwrap();
        assert_eq!(client.status().unwrap().revision, revision);
        let mut served = Vec::new();
        let all = client.keys(revision, &mut |key| {
            served.push(key);
            Ok(())
        });
        all.unwrap();
        assert_eq!(served, keys, "keys keep their values and their own revisions");
        let old = client.keys(before.revision, &mut |_key| Ok(())).unwrap_err();
        assert!(old.to_string().contains("compacted"), "{old}");
        // Life goes on above the new revision, and what the server stored then is read as it is served.
        drop(member);
        let server = EtcdServer::start(EtcdOptions::new(&installed).on_copy_of(&data));
        server.ctl(&["put", "new", "1"]);
        server.ctl(&["del", "twice"]);
        let (after, keys) = content(&snapshot(&server));
        assert_eq!(after.revision, revision + 2);
        assert_eq!(after.compact_revision, revision);
        assert_eq!(keys.len(), 101);
        let told = server.ctl(&["get", "new", "-w", "json"]);
        assert!(told.contains(&format!("\"mod_revision\":{}", revision + 1)), "{told}");
    }
}

#[test]
fn logins_are_switched_off_in_a_copy() {
    for installed in etcd_installations() {
        let mut server = EtcdServer::start(EtcdOptions::new(&installed));
        server.ctl(&["put", "a", "1"]);
        server.ctl(&["snapshot", "save", server.root().join("open.db").to_str().unwrap()]);
        server.enable_auth("s3cret");
        let saved = server.root().join("closed.db");
        server.ctl(&["snapshot", "save", saved.to_str().unwrap()]);
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        directory(&installed, &saved, &data);
        assert!(switch_off_auth(&data.join("member/snap/db")).unwrap());
        assert!(!switch_off_auth(&data.join("member/snap/db")).unwrap());
        let member = start(&installed, &data).unwrap();
        let mut count = 0;
        let all = member.connect().unwrap().keys(2, &mut |_key| {
            count += 1;
            Ok(())
        });
        all.unwrap();
        assert_eq!(count, 1);
        let other = dir.path().join("open");
        directory(&installed, &server.root().join("open.db"), &other);
        assert!(!switch_off_auth(&other.join("member/snap/db")).unwrap());
    }
}

#[test]
fn a_snapshot_of_every_version_can_be_run_by_its_own_or_the_next() {
    let found = etcd_installations();
    let folders: Vec<_> = found.iter().filter_map(|one| Some(one.server.parent()?.to_owned())).collect();
    let version = |text: &str| Version::parse(text);
    for (wanted, expected) in [("3.4.1", "3.4"), ("3.3.0", "3.4"), ("3.5.9", "3.5"), ("3.4.99", "3.4")] {
        let chosen = installation(version(wanted), &folders).unwrap().version.to_string();
        assert!(chosen.starts_with(expected), "{wanted}: {chosen}");
    }
    let error = installation(version("3.9.0"), &folders).unwrap_err();
    assert!(matches!(&error, EtcdError::NotInstalled { wanted, .. } if wanted == "3.9"), "{error}");
    assert_eq!(installation(None, &folders).unwrap().version, found.last().unwrap().version);
}

#[test]
fn a_server_that_does_not_start_shows_its_log() {
    let installed = etcd_installations().remove(0);
    let dir = tempfile::tempdir().unwrap();
    let snap = dir.path().join("data/member/snap");
    fs::create_dir_all(&snap).unwrap();
    File::create(snap.join("db")).unwrap().set_len(100_000).unwrap();
    let error = start(&installed, &dir.path().join("data")).unwrap_err();
    assert!(matches!(&error, EtcdError::Ended { log, .. } if !log.is_empty()), "{error}");
}

#[test]
fn the_servers_own_tool_agrees_with_what_is_read() {
    for installed in etcd_installations() {
        let server = EtcdServer::start(EtcdOptions::new(&installed));
        server.load("/k/", 1000);
        let dir = tempfile::tempdir().unwrap();
        let taken = snapshot(&server);
        let raised = dir.path().join("raised.db");
        bump_revision(&taken, 5, &raised, &|| false).unwrap();
        let raised_bytes = File::open(&raised).unwrap();
        let (content, _) = content(&Snapshot::open(Arc::new(raised_bytes), &|| false).unwrap());
        let told = server.ctl(&["snapshot", "status", raised.to_str().unwrap(), "-w", "json"]);
        assert!(told.contains(&format!("\"revision\":{}", content.revision)), "{told}");
    }
}
