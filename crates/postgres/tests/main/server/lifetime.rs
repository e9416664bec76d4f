//! Starting, recovering, failing and ending.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::time::SystemClock;
use lifeboat_postgres::server::{
    Sandbox, SandboxOptions, ServerError, ServerState, Stop, Wait, control_data, installation, installations,
};
use lifeboat_testkit::{PgOptions, PgServer, pg_majors, pg_system_major};

use super::{LIMIT, is_empty, is_root, options, processes_in, psql, restored, runtime, start, start_within};

#[test]
fn every_version_starts_on_a_copy_and_leaves_nothing_behind() {
    for major in pg_majors() {
        let server = PgServer::start(PgOptions::new(major).initdb("--data-checksums"));
        server.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
        let data = restored(&server, "copy");
        for how in [Stop::Immediate, Stop::Fast] {
            let runtime = runtime();
            let mut sandbox = start(&server, &data, &options(&runtime)).unwrap();
            assert!(sandbox.is_running());
            assert_eq!(sandbox.state(), Some(ServerState::Ready));
            assert_eq!(psql(&sandbox, "SELECT count(*) FROM t"), "1000", "{major}");
            psql(&sandbox, "INSERT INTO t VALUES (1)");
            psql(&sandbox, "DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t)");
            sandbox.stop(how, LIMIT, &SystemClock::new()).unwrap();
            assert_eq!(processes_in(&data), Vec::<PathBuf>::new());
            assert!(is_empty(runtime.path()));
        }
        let state = control_data(server.installation(), &data, &SystemClock::new()).unwrap();
        assert_eq!(state["Database cluster state"], "shut down");
        assert_eq!(state["Data page checksum version"], "1");
        let id = server.psql("SELECT system_identifier FROM pg_control_system()");
        assert_eq!(state["Database system identifier"], id);
    }
}

#[test]
fn a_server_that_root_starts_runs_as_another_account_which_owns_just_its_folders() {
    let server = PgServer::start(PgOptions::new(16));
    let data = restored(&server, "copy");
    let (outside, runtime) = (server.dir("outside"), runtime());
    let before = fs::metadata(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, data.join("base/link")).unwrap();
    let sandbox = start(&server, &data, &options(&runtime)).unwrap();
    let process = fs::metadata(format!("/proc/{}", sandbox.pid())).unwrap();
    assert_ne!(process.uid(), 0);
    assert_eq!(fs::metadata(&data).unwrap().uid(), process.uid());
    assert_eq!(fs::symlink_metadata(data.join("base/link")).unwrap().uid(), process.uid());
    assert_eq!(fs::metadata(&outside).unwrap().uid(), before.uid(), "a link is not followed");
    let sockets = fs::metadata(sandbox.socket_dir()).unwrap();
    assert_eq!((sockets.uid(), sockets.permissions().mode() & 0o777), (process.uid(), 0o700));
    if is_root() {
        let status = fs::read_to_string(format!("/proc/{}/status", sandbox.pid())).unwrap();
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        assert_eq!(groups.trim(), "", "no group of ours came along");
        let folder = sandbox.socket_dir().parent().unwrap().to_owned();
        assert_eq!(fs::metadata(folder.join("pg_hba.conf")).unwrap().uid(), 0, "its rules are not its own");
    }
    drop(sandbox);
    assert!(is_empty(runtime.path()));
}

#[test]
fn a_file_with_a_second_name_is_not_given_away() {
    if !is_root() {
        // Only root gives anything away; there is nothing to be tricked into.
        return;
    }
    let server = PgServer::start(PgOptions::new(16));
    let data = restored(&server, "copy");
    let precious = data.parent().unwrap().join("precious");
    crashsafe::write_new(&precious, b"root's").unwrap();
    fs::hard_link(&precious, data.join("base/planted")).unwrap();
    let runtime = runtime();
    let error = start(&server, &data, &options(&runtime)).unwrap_err();
    assert!(error.to_string().contains("second name"), "{error}");
    assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
}

#[test]
fn recovery_to_a_named_moment_has_ended_when_the_sandbox_is_ready() {
    for major in pg_majors() {
        let server = PgServer::start(PgOptions::new(major));
        let archive = server.dir("archive");
        let copy = format!("cp %p {}/%f", archive.display());
        server
            .configure(&[("archive_mode".to_owned(), "on".to_owned()), ("archive_command".to_owned(), copy)]);
        let mut server = server;
        server.restart();
        server.psql("CREATE TABLE t (i int)");
        let data = restored(&server, "copy");
        server.psql("INSERT INTO t VALUES (1)");
        server.psql("SELECT pg_create_restore_point('here')");
        server.psql("INSERT INTO t VALUES (2)");
        // The server archives what it switched away from before it ends.
        server.psql("SELECT pg_switch_wal()");
        server.stop();
        fs::File::create(data.join("recovery.signal")).unwrap();
        let runtime = runtime();
        let mut options = options(&runtime);
        options.restore_command = Some(format!("cp {}/%f %p", archive.display()));
        let target = [("recovery_target_name", "here"), ("recovery_target_action", "promote")];
        options.settings.extend(target.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let sandbox = start(&server, &data, &options).unwrap();
        assert_eq!(psql(&sandbox, "SELECT pg_is_in_recovery()"), "f");
        assert_eq!(psql(&sandbox, "SELECT string_agg(i::text, ',') FROM t"), "1", "{major}");
    }
}

#[test]
fn a_broken_data_directory_fails_with_the_servers_own_reason() {
    let server = PgServer::start(PgOptions::new(pg_system_major()));
    let runtime = runtime();
    let data = restored(&server, "copy");
    for entry in fs::read_dir(data.join("pg_wal")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    let error = start(&server, &data, &options(&runtime)).unwrap_err();
    assert!(matches!(error, ServerError::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("could not locate required checkpoint record"), "{error}");
    assert_eq!(error.kind(), FailureKind::Findings);

    let control = data.join("global/pg_control");
    let mut bytes = fs::read(&control).unwrap();
    bytes[40] ^= 1;
    crashsafe::replace(&control, &bytes).unwrap();
    let error = start(&server, &data, &options(&runtime)).unwrap_err();
    assert!(error.to_string().contains("control file is damaged"), "{error}");

    let error = start(&server, &data.join("nothing"), &options(&runtime)).unwrap_err();
    assert!(matches!(error, ServerError::Io { .. }), "{error:?}");
    assert!(is_empty(runtime.path()));
}

#[test]
fn a_server_that_never_gets_ready_is_ended_at_its_deadline_or_when_cancelled() {
    let server = PgServer::start(PgOptions::new(18));
    let (data, runtime) = (restored(&server, "copy"), runtime());
    // A standby without connections has no reason ever to say that it is ready.
    fs::File::create(data.join("standby.signal")).unwrap();
    let error = start_within(&server, &data, &options(&runtime), Duration::from_millis(1_500)).unwrap_err();
    assert!(matches!(error, ServerError::Late { goal: "ready", .. }), "{error:?}");
    assert_eq!(processes_in(&data), Vec::<PathBuf>::new());

    let clock = SystemClock::new();
    let pid_file = data.join("postmaster.pid");
    let wait = Wait { limit: LIMIT, clock: &clock, cancelled: &|| pid_file.exists() };
    let stopped = Sandbox::start(server.installation(), &data, &options(&runtime), &OsEntropy, wait);
    assert!(matches!(stopped, Err(ServerError::Cancelled)), "{stopped:?}");
    assert_eq!(processes_in(&data), Vec::<PathBuf>::new());
    assert!(is_empty(runtime.path()));
}

#[test]
fn a_directory_on_which_a_server_runs_is_refused_and_untouched() {
    let server = PgServer::start(PgOptions::new(16));
    let before = fs::read(server.data().join("postmaster.pid")).unwrap();
    let runtime = runtime();
    let error = start(&server, &server.data(), &options(&runtime)).unwrap_err();
    assert!(matches!(error, ServerError::Running { pid, .. } if pid > 0), "{error:?}");
    assert_eq!(error.kind(), FailureKind::Refused);
    assert_eq!(fs::read(server.data().join("postmaster.pid")).unwrap(), before);
    assert!(server.data().join("postgresql.auto.conf").exists());
    assert_eq!(server.psql("SELECT 1"), "1");
}

#[test]
fn a_pid_file_that_a_copy_brought_along_does_not_stop_the_start() {
    let server = PgServer::start(PgOptions::new(16));
    let data = restored(&server, "copy");
    let mine = format!("{}\n{}\n1\n5432\n\n\n\nready   \n", std::process::id(), data.display());
    crashsafe::write_new(&data.join("postmaster.pid"), mine.as_bytes()).unwrap();
    let runtime = runtime();
    let sandbox = start(&server, &data, &options(&runtime)).unwrap();
    assert_eq!(psql(&sandbox, "SELECT 1"), "1");
}

#[test]
fn places_that_cannot_work_are_refused_before_anything_starts() {
    let server = PgServer::start(PgOptions::new(16));
    let data = restored(&server, "copy");
    let long = runtime();
    let deep = long.path().join("d".repeat(80));
    fs::create_dir(&deep).unwrap();
    let options = SandboxOptions { runtime: Some(deep), ..SandboxOptions::default() };
    assert!(matches!(start(&server, &data, &options), Err(ServerError::TooLong(_))));
    if is_root() {
        let closed = runtime();
        fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let options = SandboxOptions { runtime: Some(closed.path().to_owned()), ..SandboxOptions::default() };
        let error = start(&server, &data, &options).unwrap_err();
        assert!(matches!(&error, ServerError::Closed { folder, .. } if folder == closed.path()), "{error:?}");
        assert!(is_empty(closed.path()));
    }
}

#[test]
fn what_is_installed_is_found_by_asking_the_programs() {
    let folder = tempfile::tempdir().unwrap();
    let liar = folder.path().join("postgresql/18/bin");
    fs::create_dir_all(&liar).unwrap();
    crashsafe::write_new(&liar.join("postgres"), b"#!/bin/sh\necho 'postgres (PostgreSQL) 7.4'\n").unwrap();
    fs::set_permissions(liar.join("postgres"), PermissionsExt::from_mode(0o755)).unwrap();
    let found = installations(&[liar.clone(), Path::new("/nowhere").to_owned()]);
    let seven = found.iter().find(|found| found.bin == liar).unwrap();
    assert_eq!((seven.major, seven.version.as_str()), (7, "7.4"), "the folder's name is not believed");
    assert!(found.iter().any(|found| found.major == pg_system_major()));

    let error = installation(6, std::slice::from_ref(&liar)).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused);
    let text = error.to_string();
    assert!(text.contains(&liar.display().to_string()) && text.contains("postgresql-6"), "{text}");
}
