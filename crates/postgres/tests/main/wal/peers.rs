//! Logs of real servers of every version at hand: the same commits, restore points and positions as `pg_waldump` shows.

use std::fs;
use std::path::Path;

use lifeboat_postgres::lsn::{parse_segment_name, segment_name};
use lifeboat_postgres::wal::{
    Event, Scanner, SegmentFacts, TimelineHistory, WalError, WalLevel, WalShape, check_segment, history_name,
};
use lifeboat_postgres::{Lsn, Timeline};
use lifeboat_testkit::{PgOptions, PgServer};

const MAJORS: [u32; 3] = [15, 16, 18];
const SHAPE: WalShape = WalShape { segment_bytes: 1 << 20, page_bytes: 8 << 10 };

const WORKLOAD: &str = "
    SET lock_timeout = '20s';
    CREATE TABLE other (id int); INSERT INTO other VALUES (1); CREATE TABLE gone AS SELECT 1 AS id;
    CREATE TABLE t (id int PRIMARY KEY, note text);
    INSERT INTO t SELECT n, repeat('x', n % 90) FROM generate_series(1, 3000) n;
    BEGIN; INSERT INTO t VALUES (5001, 'rolled back'); ROLLBACK;
    BEGIN; UPDATE t SET note = 'y' WHERE id < 500; SAVEPOINT a; DELETE FROM t WHERE id = 1; ROLLBACK TO a;
    SAVEPOINT b; DELETE FROM t WHERE id = 2; COMMIT;
    DO $$ BEGIN FOR n IN 6000..6150 LOOP
      BEGIN INSERT INTO t VALUES (n, 'each in a subtransaction'); EXCEPTION WHEN OTHERS THEN NULL; END;
    END LOOP; END $$;
    CHECKPOINT;
    BEGIN; INSERT INTO t VALUES (7000, 'kept'); PREPARE TRANSACTION 'kept';
    BEGIN; CREATE TABLE never (id int); SAVEPOINT s; INSERT INTO t VALUES (7001, 'given up');
    PREPARE TRANSACTION 'given up';
    BEGIN; CREATE TABLE made (id serial PRIMARY KEY, body text); DROP TABLE IF EXISTS gone;
    SAVEPOINT s; INSERT INTO made (body) VALUES ('z'); RELEASE s; TRUNCATE other; PREPARE TRANSACTION 'with tables';
    COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'given up'; COMMIT PREPARED 'with tables';
    SELECT pg_logical_emit_message(true, 'large', repeat('m', 3000000));
    SELECT pg_logical_emit_message(false, 'page', repeat('p', 9000));
    VACUUM t; CREATE INDEX ON made (body); DROP TABLE made;
    CHECKPOINT;";

fn options(major: u32) -> PgOptions {
    PgOptions::new(major)
        .initdb("--wal-segsize=1")
        .set("wal_keep_size", "1GB")
        .set("wal_compression", "on")
        .set("autovacuum", "off")
}

fn lsn(server: &PgServer, sql: &str) -> Lsn {
    server.psql(&format!("SELECT {sql}")).parse().unwrap()
}

fn system(server: &PgServer) -> u64 {
    server.psql("SELECT system_identifier FROM pg_control_system()").parse().unwrap()
}

/// The bytes of the timeline's segments, from the oldest at hand up to the one that holds the byte before `until`.
fn log(server: &PgServer, timeline: Timeline, until: Lsn) -> (Lsn, Vec<u8>) {
    let folder = server.data().join("pg_wal");
    let mut starts: Vec<Lsn> = fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| parse_segment_name(entry.unwrap().file_name().to_str()?, SHAPE.segment_bytes))
        .filter(|(found, start)| *found == timeline && *start < until)
        .map(|(_, start)| start)
        .collect();
    starts.sort_unstable();
    let bytes = starts.iter().flat_map(|start| segment(&folder, timeline, *start)).collect();
    (starts[0], bytes)
}

fn segment(folder: &Path, timeline: Timeline, at: Lsn) -> Vec<u8> {
    fs::read(folder.join(segment_name(timeline, at, SHAPE.segment_bytes))).unwrap()
}

/// The records that recovery is steered by, in the words of `described`, and the start of the last record of all.
fn dumped(server: &PgServer, timeline: Timeline, start: Lsn, end: Lsn) -> (Vec<String>, Lsn) {
    let folder = server.data().join("pg_wal");
    let (start, end, timeline) = (start.to_string(), end.to_string(), timeline.to_string());
    let arguments = ["-p", folder.to_str().unwrap(), "-t", &timeline, "-s", &start, "-e", &end];
    let text = server.run("pg_waldump", &arguments);
    let last = text.lines().filter_map(position).next_back().unwrap();
    (text.lines().filter_map(described_by_the_server).collect(), last)
}

fn position(line: &str) -> Option<Lsn> {
    line.split_once(", lsn: ")?.1.split_once(',')?.0.parse().ok()
}

/// A line of `pg_waldump` in our words; none if it is of no interest.
fn described_by_the_server(line: &str) -> Option<String> {
    let at = position(line)?;
    let manager = line.strip_prefix("rmgr: ")?.split_whitespace().next()?;
    let xid = line.split_once(" tx: ")?.1.split_once(',')?.0.trim();
    let (what, rest) = line.split_once("desc: ")?.1.split_once(' ').unwrap_or((line.rsplit_once(' ')?.1, ""));
    let until = |text: &str, mark: &str| text.split(mark).next().unwrap_or_default().trim().to_owned();
    let field = |name: &str| until(rest.split_once(name).unwrap_or_default().1, ";");
    let words = match (manager, what) {
        ("Transaction", "COMMIT" | "ABORT") => format!("{} {xid} {}", what.to_lowercase(), until(rest, ";")),
        ("Transaction", "COMMIT_PREPARED" | "ABORT_PREPARED") => {
            let (xid, time) = rest.split_once(": ")?;
            format!("{} {xid} {}", until(what, "_").to_lowercase(), until(time, ";"))
        }
        ("Transaction", "PREPARE") => format!("prepare {xid} {}", until(rest.split_once(": ")?.1, ";")),
        ("XLOG", "RESTORE_POINT") => format!("restore point {rest}"),
        ("XLOG", "CHECKPOINT_ONLINE" | "CHECKPOINT_SHUTDOWN") => {
            let redo: Lsn = field("redo ").parse().ok()?;
            let shutdown = what == "CHECKPOINT_SHUTDOWN";
            format!("checkpoint {redo} {} {} {shutdown}", field("; tli "), field("prev tli "))
        }
        ("XLOG", "END_OF_RECOVERY") => {
            format!("end of recovery {} {} {}", field("tli "), field("prev tli "), field("time "))
        }
        ("XLOG", "BACKUP_END") => format!("end of backup {}", rest.trim().parse::<Lsn>().ok()?),
        ("XLOG", "PARAMETER_CHANGE") => format!("settings {}", until(rest.split_once("wal_level=")?.1, " ")),
        ("XLOG", "OVERWRITE_CONTRECORD") => format!("overwritten {}", field("lsn ").parse::<Lsn>().ok()?),
        ("XLOG", "SWITCH") => "switch".to_owned(),
        _ => return None,
    };
    Some(format!("{at} {words}"))
}

/// An event in the same words.
fn described(event: &Event) -> String {
    let time = |at: &lifeboat_base::time::Timestamp| at.strftime("%Y-%m-%d %H:%M:%S%.6f UTC").to_string();
    let words = match event {
        Event::Commit { xid, at, .. } => format!("commit {xid} {}", time(at)),
        Event::Abort { xid, at, .. } => format!("abort {xid} {}", time(at)),
        Event::Prepare { xid, at, .. } => format!("prepare {xid} {}", time(at)),
        Event::RestorePoint { name, .. } => format!("restore point {name}"),
        Event::Checkpoint { redo, timeline, previous_timeline, shutdown, .. } => {
            format!("checkpoint {redo} {timeline} {previous_timeline} {shutdown}")
        }
        Event::EndOfRecovery { timeline, previous_timeline, at, .. } => {
            format!("end of recovery {timeline} {previous_timeline} {}", time(at))
        }
        Event::BackupEnd { start, .. } => format!("end of backup {start}"),
        Event::Settings { level: WalLevel::Minimal, .. } => "settings minimal".to_owned(),
        Event::Settings { level: WalLevel::Replica, .. } => "settings replica".to_owned(),
        Event::Settings { level: WalLevel::Logical, .. } => "settings logical".to_owned(),
        Event::Overwritten { overwritten, .. } => format!("overwritten {overwritten}"),
        Event::Switch { .. } => "switch".to_owned(),
    };
    format!("{} {words}", event.lsn())
}

/// Scans what is on the server's disk and compares it with its own `pg_waldump`; gives the events.
fn compare(server: &PgServer, timeline: Timeline, history: TimelineHistory, until: Lsn) -> Vec<Event> {
    let (start, bytes) = log(server, timeline, until);
    let mut scanner =
        Scanner::new(SHAPE, timeline, Some(system(server)), start).unwrap().with_history(history);
    let mut events = Vec::new();
    for piece in bytes.chunks(100_003) {
        scanner.feed(piece, &mut events).unwrap();
    }
    let ours: Vec<String> = events.iter().map(described).collect();
    let (theirs, last) = dumped(server, timeline, scanner.first_record().unwrap(), until);
    assert_eq!(ours, theirs);
    assert_eq!(scanner.last_record(), Some(last));
    assert_eq!(scanner.major(), Some(server.installation().major));
    events
}

/// Checks every segment file on its own; the events are those of one scan, but for records on two segments.
fn check_files(server: &PgServer, until: Lsn, events: &[Event]) {
    let (start, bytes) = log(server, 1, until);
    let mut found = Vec::new();
    let mut crossing = Vec::new();
    for (file, at) in bytes.chunks(1 << 20).zip((start.0..).step_by(1 << 20)) {
        let name = segment_name(1, Lsn(at), SHAPE.segment_bytes);
        let facts: SegmentFacts = check_segment(&name, file, Some(system(server)), &mut found).unwrap();
        assert_eq!((facts.start, facts.major, facts.shape), (Lsn(at), server.installation().major, SHAPE));
        assert_eq!(facts.log_end, None);
        crossing.extend(facts.unfinished);
    }
    let inside: Vec<Event> =
        events.iter().filter(|event| !crossing.contains(&event.lsn())).cloned().collect();
    assert_eq!(found, inside);
}

#[test]
fn a_servers_log_holds_what_its_own_tool_says() {
    for major in MAJORS {
        let server = PgServer::start(options(major));
        server.psql(WORKLOAD);
        let point = lsn(&server, "pg_create_restore_point('before the flood')");
        server.psql("BEGIN; DELETE FROM t; PREPARE TRANSACTION 'late'; ROLLBACK PREPARED 'late'");
        let target = server.dir("backup");
        server.run("pg_basebackup", &["-D", target.to_str().unwrap(), "-c", "fast", "--no-sync"]);
        server.psql("INSERT INTO other VALUES (2)");
        let committed = lsn(&server, "pg_current_wal_insert_lsn()");
        let switched = lsn(&server, "pg_switch_wal()");

        let events = compare(&server, 1, TimelineHistory::root(1), switched);
        check_files(&server, switched, &events);
        let ends_at = |at: Lsn| events.iter().rev().find(|event| event.end() == at);
        assert!(
            matches!(ends_at(point), Some(Event::RestorePoint { name, .. }) if name == "before the flood")
        );
        assert!(
            matches!(ends_at(switched), Some(Event::Switch { .. })),
            "{major}: {switched} {:?}",
            events.last()
        );
        assert!(committed <= switched);
        let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
        assert_eq!(count(|event| matches!(event, Event::Prepare { .. })), 4);
        assert_eq!(count(|event| matches!(event, Event::BackupEnd { .. })), 1);
        assert!(count(|event| matches!(event, Event::Abort { .. })) >= 4);
    }
}

#[test]
fn a_wrong_byte_in_a_servers_log_is_found() {
    let server = PgServer::start(options(18));
    server.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 20000) n");
    let switched = lsn(&server, "pg_switch_wal()");
    let (start, bytes) = log(&server, 1, switched);
    let bytes = &bytes[..usize::try_from(switched.0 - start.0).unwrap()];
    let identifier = system(&server);
    let scan = |bytes: &[u8]| {
        let history = TimelineHistory::root(1);
        let mut scanner = Scanner::new(SHAPE, 1, Some(identifier), start).unwrap().with_history(history);
        let outcome = scanner.feed(bytes, &mut Vec::new());
        (outcome, scanner)
    };
    let (sound, scanner) = scan(bytes);
    assert_eq!((sound, scanner.record_end()), (Ok(()), Some(switched)));
    let checked = usize::try_from(scanner.first_record().unwrap().0 - start.0).unwrap();
    let mut found = 0;
    for at in (checked..bytes.len() - 10_000).step_by(bytes.len() / 300) {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        if scan(&damaged).0.is_ok() {
            let padding = &bytes[at..at.next_multiple_of(8).max(at + 1)];
            assert!(padding.iter().all(|byte| *byte == 0) && at % 8 != 0, "the byte {at}");
        } else {
            found += 1;
        }
    }
    assert!(found > 250, "{found}");
}

#[test]
fn promotions_are_followed_along_the_servers_own_histories() {
    for major in MAJORS {
        let mut first = PgServer::start(options(major));
        first.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 20000) n");
        let mut second = first.standby();
        first.psql("INSERT INTO t SELECT n FROM generate_series(1, 100) n");
        second.catch_up(&first);
        first.stop();
        second.promote();
        second.psql("INSERT INTO t SELECT n FROM generate_series(1, 9000) n; CHECKPOINT");
        let third = second.standby();
        second.psql("INSERT INTO t SELECT n FROM generate_series(1, 100) n");
        third.catch_up(&second);
        second.stop();
        third.promote();
        third.psql("INSERT INTO t SELECT n FROM generate_series(1, 9000) n");
        let switched = lsn(&third, "pg_switch_wal()");

        let text = fs::read_to_string(third.data().join("pg_wal").join(history_name(3))).unwrap();
        let history = TimelineHistory::parse(&history_name(3), &text).unwrap();
        assert_eq!(history.to_string(), text);
        assert_eq!(history.spans().iter().map(|span| span.timeline).collect::<Vec<_>>(), [1, 2, 3]);
        let events = compare(&third, 3, history.clone(), switched);
        let began = events.iter().find_map(|event| match event {
            Event::EndOfRecovery { lsn, timeline: 3, previous_timeline: 2, .. } => Some(*lsn),
            _ => None,
        });
        // The first record of a timeline starts where its parent was left, or behind the page header there.
        let left = history.switch_from(2).unwrap();
        assert!(began.is_some_and(|began| began >= left && began.0 <= left.0 + 40), "{began:?} {left}");

        let (start, bytes) = log(&third, 3, switched);
        let wrong = TimelineHistory::root(3);
        let mut scanner = Scanner::new(SHAPE, 3, None, start).unwrap().with_history(wrong);
        let refused = scanner.feed(&bytes, &mut Vec::new());
        assert!(matches!(refused, Err(WalError::Timeline { found: 2, expected: 3, .. })), "{refused:?}");
    }
}

#[test]
fn a_recovery_that_stops_before_the_timeline_it_follows_makes_a_history_we_read_as_the_server_does() {
    let first = PgServer::start(options(15));
    first.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 20000) n");
    let mut late = first.standby();
    late.stop();
    first.psql("INSERT INTO t SELECT 1 FROM generate_series(1, 9000) n");
    let target = lsn(&first, "pg_create_restore_point('here')");
    first.psql("INSERT INTO t SELECT 2 FROM generate_series(1, 20000) n");
    let second = first.standby();
    second.promote();
    second.psql("SELECT pg_switch_wal()");

    let archive = second.data().join("pg_wal");
    let oldest = first.data().join("pg_wal");
    let fetch = format!("cp {}/%f %p || cp {}/%f %p", archive.display(), oldest.display());
    fs::remove_file(late.data().join("standby.signal")).unwrap();
    late.write(&late.data().join("recovery.signal"), b"");
    // Without connections during recovery, the server is ready only when its new timeline has begun.
    let settings = format!(
        "hot_standby = off\nrestore_command = '{fetch}'\nrecovery_target_name = 'here'\n\
         recovery_target_action = promote\n"
    );
    late.write(&late.data().join("postgresql.auto.conf"), settings.as_bytes());
    late.start_again();
    let text = fs::read_to_string(late.data().join("pg_wal").join(history_name(3))).unwrap();
    let history = TimelineHistory::parse(&history_name(3), &text).unwrap();
    assert_eq!(history.to_string(), text);
    let forks: Vec<_> = history.forks().iter().map(|fork| (fork.parent, fork.switch)).collect();
    assert_eq!((forks.len(), forks[0].0, forks[1]), (2, 1, (2, target)));
    assert!(forks[1].1 < forks[0].1, "timeline 2 begins behind its own end: {text}");
    assert_eq!(history.spans().iter().map(|span| span.timeline).collect::<Vec<_>>(), [1, 3]);
    let switched = lsn(&late, "pg_switch_wal()");
    compare(&late, 3, history, switched);
}

#[test]
fn a_record_that_a_crash_cut_off_is_told_as_given_up() {
    for major in MAJORS {
        let mut server = PgServer::start(options(major));
        server.psql("CREATE TABLE t (n int); CHECKPOINT; SELECT pg_switch_wal(); INSERT INTO t VALUES (1)");
        let begun = lsn(&server, "pg_current_wal_insert_lsn()");
        server.psql("SELECT pg_logical_emit_message(false, 'cut', repeat('m', 3000000))");
        server.crash();
        // As if the machine had lost what was written after the segment in which the message begins.
        let folder = server.data().join("pg_wal");
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name =
                path.file_name().and_then(|name| parse_segment_name(name.to_str()?, SHAPE.segment_bytes));
            if name.is_some_and(|(_, start)| start > begun) {
                fs::remove_file(path).unwrap();
            }
        }
        server.start_again();
        server.psql("INSERT INTO t VALUES (2)");
        let switched = lsn(&server, "pg_switch_wal()");
        let events = compare(&server, 1, TimelineHistory::root(1), switched);
        let given_up = events.iter().filter_map(|event| match event {
            Event::Overwritten { overwritten, .. } => Some(*overwritten),
            _ => None,
        });
        assert_eq!(given_up.collect::<Vec<_>>(), [begun]);
    }
}
