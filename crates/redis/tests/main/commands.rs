//! Streams of commands, cut anywhere.

use std::io::Cursor;

use lifeboat_redis::aof::AofWriter;
use lifeboat_redis::commands::{Command, Scanner};
use lifeboat_redis::wire::encode;
use proptest::prelude::*;

fn stream(commands: &[&str]) -> Vec<u8> {
    commands.iter().flat_map(|text| encode(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>())).collect()
}

/// What a file of commands made of `bytes` holds.
fn file(bytes: &[u8], database: Option<u64>, pieces: usize) -> Result<(Vec<u8>, u64), String> {
    let mut out = Cursor::new(Vec::new());
    let mut writer = AofWriter::new(&mut out, 1000, database);
    for piece in bytes.chunks(pieces.max(1)) {
        writer.push(piece).map_err(|error| error.to_string())?;
    }
    let report = writer
        .finish(|out, length| {
            out.get_mut().truncate(usize::try_from(length).unwrap());
            Ok(())
        })
        .map_err(|error| error.to_string())?;
    assert_eq!(report.bytes, out.get_ref().len() as u64);
    Ok((out.into_inner(), report.end))
}

#[test]
fn a_file_of_commands_never_ends_inside_a_command_or_a_unit() {
    let whole = [
        "SELECT 3",
        "SET a 1",
        "PING",
        "MULTI",
        "SET b 2",
        "PING",
        "SET c 3",
        "EXEC",
        "REPLCONF GETACK *",
        "DEL a",
    ];
    let kept = ["SELECT 3", "SET a 1", "MULTI", "SET b 2", "SET c 3", "EXEC", "DEL a"];
    let bytes = stream(&whole);
    // Every end of a command outside of a unit, with what a file that ends there holds.
    let mut ends = vec![(0, 0)];
    let (mut raw, mut written) = (0, 0);
    for (index, command) in whole.iter().enumerate() {
        raw += stream(&[command]).len();
        if kept.contains(command) {
            written += stream(&[command]).len();
        }
        if !(3..7).contains(&index) {
            ends.push((raw, written));
        }
    }
    let expected = stream(&kept);
    for cut in 0..=bytes.len() {
        let (end, written) = *ends.iter().rfind(|(raw, _)| *raw <= cut).unwrap();
        for pieces in [1, 7, bytes.len()] {
            let (file, reached) = file(&bytes[..cut], None, pieces).unwrap();
            assert_eq!(file, expected[..written], "cut at {cut} in pieces of {pieces}");
            assert_eq!(reached, 1000 + end as u64);
        }
    }
}

#[test]
fn a_stream_that_names_no_database_gets_the_one_that_is_known_or_is_refused() {
    let bytes = stream(&["PING", "SET a 1", "SELECT 2", "SET b 1"]);
    assert!(file(&bytes, None, 5).unwrap_err().contains("which database"));
    let (file_of, _) = file(&bytes, Some(9), 5).unwrap();
    assert_eq!(file_of, stream(&["SELECT 9", "SET a 1", "SELECT 2", "SET b 1"]));
    let unit = stream(&["MULTI", "SET a 1", "EXEC"]);
    assert_eq!(file(&unit, Some(9), 5).unwrap().0, stream(&["MULTI", "SELECT 9", "SET a 1", "EXEC"]));
    let unit = stream(&["MULTI", "SELECT 4", "SET a 1", "EXEC"]);
    assert_eq!(file(&unit, None, 5).unwrap().0, unit);
}

#[test]
fn a_value_larger_than_what_is_held_passes_through() {
    let large = "x".repeat(1_000_000);
    let bytes = stream(&["SELECT 0", &format!("SET k {large}"), "PING", "SET l 1"]);
    let kept = stream(&["SELECT 0", &format!("SET k {large}"), "SET l 1"]);
    assert_eq!(file(&bytes, None, 1 << 20).unwrap().0, kept);
    let without = stream(&[&format!("SET k {large}")]);
    assert_eq!(file(&without, Some(5), 1 << 20).unwrap().0, [stream(&["SELECT 5"]), without].concat());
}

#[test]
fn bytes_that_are_no_commands_are_an_error_with_their_place() {
    for bytes in [
        b"SET a 1\r\n".as_slice(),
        b"*0\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$1\r\nab\r\n",
        b"*1\r\n$99999999999999999\r\n",
        b"*1\n$4\nPING\n",
        b"*-1\r\n",
        b"*1111111111111111111111111111111",
    ] {
        assert!(Scanner::new(5).push(bytes, &mut |_| {}).is_err(), "{}", String::from_utf8_lossy(bytes));
    }
}

proptest! {
    #[test]
    fn commands_are_found_whatever_the_pieces(
        commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..5), 1..20),
        cuts in prop::collection::vec(1usize..40, 1..200),
    ) {
        let bytes: Vec<u8> = commands.iter().flat_map(|parts| encode(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())).collect();
        let mut found: Vec<Command> = Vec::new();
        let mut scanner = Scanner::new(0);
        let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            scanner.push(now, &mut |command| found.push(*command)).unwrap();
            rest = later;
        }
        prop_assert_eq!(found.len(), commands.len());
        let mut at = 0;
        for (command, parts) in found.iter().zip(&commands) {
            prop_assert_eq!(command.start, at);
            prop_assert_eq!(command.words, parts.len() as u64);
            prop_assert_eq!(command.name.bytes(), &parts[0][..parts[0].len().min(32)]);
            at = command.end;
        }
        prop_assert_eq!(at, bytes.len() as u64);
    }

    #[test]
    fn whatever_bytes_come_there_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for start in [b"".as_slice(), b"*2\r\n$3\r\n"] {
            Scanner::new(0).push(&[start, &bytes].concat(), &mut |_| {}).unwrap_or_default();
        }
    }
}
