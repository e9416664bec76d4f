//! Kind `etcd`: the conformance suite over real servers of both versions, and what is special to the kind.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::SystemClock;
use lifeboat_etcd::{ClientOptions, Installation, OutsideCommand};
use lifeboat_stores::conformance::{Answer, Fixture, violations};
use lifeboat_stores::{
    Adapter, CaptureContext, CheckResult, CheckState, EtcdAdapter, EtcdOptions as Options, EtcdSource,
    Recording, Selection,
};
use lifeboat_testkit::{EtcdOptions, EtcdServer, etcd_installations};

fn adapter(address: String, programs: &[PathBuf]) -> EtcdAdapter {
    let reach = move || {
        ClientOptions::parse(&address)
            .map_err(|error| Failure::with_source(error.kind(), "the address is wrong", error))
    };
    let source = EtcdSource::Members(Arc::new(reach));
    EtcdAdapter::new(Options { source, programs: programs.to_vec(), bump_revision: None })
}

struct Clusters {
    installation: Installation,
    servers: Mutex<BTreeMap<PathBuf, EtcdServer>>,
}

impl Clusters {
    fn keep(&self, place: &Path, server: EtcdServer) -> Box<dyn Adapter> {
        let adapter = adapter(server.url(), &[server.programs()]);
        self.servers.lock().unwrap().insert(place.to_owned(), server);
        Box::new(adapter)
    }

    fn make(&self) -> EtcdServer {
        EtcdServer::start(EtcdOptions::new(&self.installation))
    }
}

impl Fixture for Clusters {
    fn empty(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        Ok(self.keep(place, self.make()))
    }

    fn full(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        let server = self.make();
        server.load("/registry/pods/default/", 400);
        for key in ["Größe \"x\"", "a\nb", "\u{1}", "plain"] {
            server.ctl(&["put", key, "1"]);
        }
        for number in 0..25 {
            server.ctl(&["put", &format!("/large/{number}/x"), &"y".repeat(100_000)]);
        }
        let lease = server.ctl(&["lease", "grant", "3600"]);
        let lease = lease.split_whitespace().nth(1).unwrap().to_owned();
        server.ctl(&["put", "leased", "1", &format!("--lease={lease}")]);
        server.ctl(&["del", "plain"]);
        Ok(self.keep(place, server))
    }

    fn question(&self) -> Option<(Selection, Answer)> {
        let value = Some("y".repeat(100_000).into_bytes());
        let names = (0..25).map(|number| (format!("/large/{number}/x").into_bytes(), value.clone()));
        Some((Selection::Under("/large/".to_owned()), names.collect()))
    }

    fn change(&self, place: &Path, round: u64) -> Result<(), Failure> {
        let servers = self.servers.lock().unwrap();
        servers[place].ctl(&[
            "put",
            &format!("/registry/pods/default/{round:07}"),
            &format!("changed {round}"),
        ]);
        servers[place].ctl(&["del", &format!("/large/{round}/x")]);
        Ok(())
    }

    fn seal(&self, place: &Path) -> Result<(), Failure> {
        self.servers.lock().unwrap().get_mut(place).unwrap().enable_auth("s3cret");
        Ok(())
    }

    fn missing(&self, _place: &Path) -> Box<dyn Adapter> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Box::new(adapter(format!("http://127.0.0.1:{port}"), &[]))
    }

    fn wrong(&self, _place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                drop(stream.read(&mut [0; 1024]));
                drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
            }
        });
        Ok(Box::new(adapter(format!("http://127.0.0.1:{port}"), &[])))
    }

    fn is_content(&self, _path: &Path) -> bool {
        false
    }

    fn is_live(&self) -> bool {
        true
    }

    fn reopen(&self, artefact: &Path) -> Box<dyn Adapter> {
        let options = EtcdOptions::new(&self.installation).on_copy_of(artefact);
        self.keep(artefact, EtcdServer::start(options))
    }
}

fn conforms(installation: Installation) {
    let scratch = tempfile::tempdir().unwrap();
    let clusters = Clusters { installation, servers: Mutex::default() };
    assert_eq!(violations(&clusters, scratch.path()), Vec::<String>::new());
}

#[test]
fn the_etcd_adapter_conforms_on_the_older_version() {
    conforms(etcd_installations().remove(0));
}

#[test]
fn the_etcd_adapter_conforms_on_the_newer_version() {
    conforms(etcd_installations().remove(1));
}

fn record(adapter: &dyn Adapter, monitor: &Findings) -> Result<Recording, Failure> {
    let spool = tempfile::tempdir().unwrap();
    let clock = SystemClock::new();
    let capture =
        adapter.capture(&CaptureContext { clock: &clock, spool: spool.path(), kept: None, known: &[] })?;
    let point = Recording::record(capture, monitor);
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0, "scratch files were left behind");
    point
}

fn checked(adapter: &dyn Adapter, point: &Recording, facts: &CaptureFacts) -> Vec<CheckResult> {
    let into = tempfile::tempdir().unwrap();
    adapter.restore(point, facts, into.path(), &Findings::new()).unwrap();
    let results = adapter.checks(point, facts, into.path(), &Findings::new()).unwrap();
    let left: Vec<_> = fs::read_dir(into.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
    results
}

fn states(results: &[CheckResult]) -> Vec<(&str, CheckState)> {
    results.iter().map(|result| (result.id.as_str(), result.state)).collect()
}

fn all_passed(results: &[CheckResult]) {
    assert!(results.iter().all(|result| result.state == CheckState::Passed), "{results:#?}");
}

/// A command that calls the real `etcdctl`, and then does `then` to the file.
fn through_a_command(server: &EtcdServer, then: &str) -> EtcdAdapter {
    let script = server.root().join("take.sh");
    let ctl = server.programs().join("etcdctl");
    let text = format!(
        "#!/bin/sh\nset -e\n[ -z \"$HOME\" ]\n[ \"$ENDPOINT\" ]\n\
         ETCDCTL_API=3 {} --endpoints \"$ENDPOINT\" snapshot save \"$1\" >/dev/null\n{then}\n",
        ctl.display()
    );
    lifeboat_base::crashsafe::replace(&script, text.as_bytes()).unwrap();
    let words = ["sh", script.to_str().unwrap(), "{file}"].map(str::to_owned).to_vec();
    let endpoint = server.url();
    let order = move || {
        let environment = vec![("ENDPOINT".to_owned(), Secret::new(endpoint.clone()))];
        Ok(OutsideCommand { words: words.clone(), environment })
    };
    let source = EtcdSource::Command(Arc::new(order));
    EtcdAdapter::new(Options { source, programs: vec![server.programs()], bump_revision: None })
}

#[test]
fn a_command_may_take_the_snapshot_and_what_it_wrote_is_checked_the_same() {
    for installation in etcd_installations() {
        let server = EtcdServer::start(EtcdOptions::new(&installation));
        server.load("/registry/pods/", 500);
        let direct = record(&adapter(server.url(), &[server.programs()]), &Findings::new()).unwrap();
        let good = through_a_command(&server, "");
        good.inspect().unwrap();
        let point = record(&good, &Findings::new()).unwrap();
        assert_eq!(point.facts().checksums, direct.facts().checksums);
        assert_eq!(point.facts().counts, direct.facts().counts);
        all_passed(&checked(&good, &point, point.facts()));
        for (then, expected) in [
            ("truncate -s -32 \"$1\"", "no digest at its end"),
            ("truncate -s -1000 \"$1\"", "no digest at its end"),
            (
                "printf '\\377' | dd of=\"$1\" bs=1 seek=9000 conv=notrunc 2>/dev/null",
                "not what its digest says",
            ),
            ("rm \"$1\"", "wrote no snapshot"),
            ("rm \"$1\"; ln -s /etc/passwd \"$1\"", "wrote no snapshot"),
            ("echo too bad >&2; exit 3", "too bad"),
        ] {
            // Without what was taken: it would fill a page.
            let taken = record(&through_a_command(&server, then), &Findings::new()).map(drop);
            let failure = taken.unwrap_err();
            assert!(failure.chain().contains(expected), "{then}: {}", failure.chain());
        }
    }
}

#[test]
fn a_learner_is_refused_and_passed_over_where_a_voting_member_answers() {
    for installation in etcd_installations() {
        let server = EtcdServer::start(EtcdOptions::new(&installation));
        server.ctl(&["put", "a", "1"]);
        let learner = server.learner();
        let alone = adapter(learner.url(), &[]);
        // It answers once it has found its cluster.
        let failure = loop {
            let failure = alone.inspect().unwrap_err();
            if failure.kind() == FailureKind::Refused {
                break failure;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        };
        assert!(failure.chain().contains("is a learner"), "{}", failure.chain());
        assert_eq!(record(&alone, &Findings::new()).err().unwrap().kind(), FailureKind::Refused);
        let both = adapter(format!("{},{}", learner.url(), server.url()), &[]);
        let monitor = Findings::new();
        record(&both, &monitor).unwrap();
        assert_eq!(
            monitor.list().iter().map(|finding| finding.code.as_str()).collect::<Vec<_>>(),
            ["etcd-learner"]
        );
    }
}

#[test]
fn members_of_different_clusters_are_never_mixed() {
    let installation = etcd_installations().remove(0);
    // A cluster's number is made of its members' addresses.
    let servers = [(); 2].map(|()| EtcdServer::start(EtcdOptions::new(&installation)));
    let mixed = adapter(format!("{},{}", servers[0].url(), servers[1].url()), &[]);
    let failure = mixed.inspect().unwrap_err();
    assert!(
        failure.kind() == FailureKind::Refused && failure.chain().contains("another cluster"),
        "{failure:?}"
    );
}

#[test]
fn a_store_with_logins_is_checked_without_a_password() {
    for installation in etcd_installations() {
        let mut server = EtcdServer::start(EtcdOptions::new(&installation));
        server.load("/k/x/", 50);
        server.enable_auth("s3cret");
        let options = ClientOptions::parse(&server.url()).unwrap();
        let login =
            || lifeboat_etcd::Login { user: "root".to_owned(), password: Secret::new("s3cret".to_owned()) };
        let reach = move || Ok(ClientOptions { login: Some(login()), ..options.clone() });
        let source = EtcdSource::Members(Arc::new(reach));
        let adapter =
            EtcdAdapter::new(Options { source, programs: vec![server.programs()], bump_revision: None });
        adapter.inspect().unwrap();
        let point = record(&adapter, &Findings::new()).unwrap();
        assert_eq!(point.facts().environment["auth_enabled"], true);
        let results = checked(&adapter, &point, point.facts());
        all_passed(&results);
        let auth = results.iter().find(|result| result.id == "etcd.auth").unwrap();
        assert!(auth.measured.starts_with("logins on, 1 users"), "{}", auth.measured);
    }
}

#[test]
fn a_raised_revision_is_checked_key_by_key() {
    for installation in etcd_installations() {
        let server = EtcdServer::start(EtcdOptions::new(&installation));
        server.load("/registry/pods/", 500);
        server.ctl(&["del", "/registry/pods/0000009"]);
        let plain = adapter(server.url(), &[server.programs()]);
        let point = record(&plain, &Findings::new()).unwrap();
        let source = EtcdSource::Members(Arc::new(|| Err(Failure::new(FailureKind::Internal, "not asked"))));
        let raising = EtcdAdapter::new(Options {
            source,
            programs: vec![server.programs()],
            bump_revision: Some(1_000_000_000),
        });
        let results = checked(&raising, &point, point.facts());
        let failed = results.iter().find(|result| result.state == CheckState::Failed);
        assert!(failed.is_none(), "{failed:?}");
        let revision = results.iter().find(|result| result.id == "etcd.revision").unwrap();
        assert!(revision.measured.parse::<i64>().unwrap() > 1_000_000_000);
        // What was not raised is not taken for it.
        let into = tempfile::tempdir().unwrap();
        plain.restore(&point, point.facts(), into.path(), &Findings::new()).unwrap();
        let results = raising.checks(&point, point.facts(), into.path(), &Findings::new()).unwrap();
        let revision = results.iter().find(|result| result.id == "etcd.revision").unwrap();
        assert_eq!(revision.state, CheckState::Failed);
    }
}

#[test]
fn without_programs_the_snapshot_is_given_back_and_the_rest_is_not_called_proven() {
    let server = EtcdServer::start(EtcdOptions::new(&etcd_installations()[0]));
    server.load("/k/x/", 50);
    let point = record(&adapter(server.url(), &[]), &Findings::new()).unwrap();
    let mut facts = point.facts().clone();
    facts.environment.insert("server_version".to_owned(), "3.99.0".into());
    let results = checked(&adapter(server.url(), &[]), &point, &facts);
    let passed: Vec<&str> = states(&results)
        .into_iter()
        .filter(|(_, state)| *state == CheckState::Passed)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(passed, ["etcd.snapshot", "etcd.content", "etcd.auth", "etcd.manifest"]);
    let start = results.iter().find(|result| result.id == "etcd.start").unwrap();
    assert_eq!(start.state, CheckState::NotApplicable);
    assert!(adapter(String::new(), &[]).essential().contains(&"etcd.start"));
}

#[test]
fn two_hundred_thousand_keys_come_back_and_every_cut_and_flipped_byte_is_refused() {
    let installation = etcd_installations().remove(1);
    let server = EtcdServer::start(EtcdOptions::new(&installation));
    server.load("/registry/pods/", 200_000);
    let adapter = adapter(server.url(), &[server.programs()]);
    let monitor = Findings::new();
    let point = record(&adapter, &monitor).unwrap();
    assert!(monitor.list().is_empty(), "{:?}", monitor.list());
    assert_eq!(point.facts().counts["keys"], 200_000);
    assert_eq!(point.facts().environment["hashkv_of_the_server"], "the same");
    all_passed(&checked(&adapter, &point, point.facts()));

    let path = point.paths().find(|path| path.to_string() == "data/snapshot.db").unwrap().clone();
    let snapshot = point.content(&path).unwrap().to_vec();
    let entry = point.entry(&path).unwrap().clone();
    // A sequence that is the same in every run, and meets all lengths alike.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let refused = |damaged: Vec<u8>, what: String| {
        let mut lie = point.clone();
        lie.put(entry.clone(), damaged);
        let into = tempfile::tempdir().unwrap();
        let failure = adapter.restore(&lie, point.facts(), into.path(), &Findings::new()).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Damaged, "{what}: {failure:?}");
    };
    for round in 0..100 {
        let length = random(snapshot.len());
        refused(snapshot[..length].to_vec(), format!("cut to {length}"));
        if round % 2 == 1 {
            continue;
        }
        let at = random(snapshot.len());
        let mut flipped = snapshot.clone();
        flipped[at] ^= 0x40;
        refused(flipped, format!("flipped at {at}"));
    }
}
