//! Servers that say anything.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use lifeboat_net::Address;
use lifeboat_redis::replication::{self, Resumed};
use lifeboat_redis::wire::{ConnectOptions, Connection, RedisError};
use proptest::prelude::*;

/// A server that takes one connection, says `words` and waits until the other side has gone.
fn saying(words: Vec<u8>) -> (tempfile::TempDir, ConnectOptions, std::thread::JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        drop(peer.write_all(&words));
        drop(peer.shutdown(std::net::Shutdown::Write));
        drop(peer.read_to_end(&mut Vec::new()));
    });
    let options = ConnectOptions::new(Address::Unix(path)).with_silence_limit(Duration::from_secs(5));
    (dir, options, server)
}

fn answer(words: &[u8]) -> Result<lifeboat_redis::wire::Reply, RedisError> {
    let (_dir, options, server) = saying(words.to_vec());
    let answer = Connection::open(&options).unwrap().ask("PING");
    server.join().unwrap();
    answer
}

#[test]
fn answers_that_are_malformed_or_too_large_are_typed_errors() {
    for words in [
        b"hello\r\n".as_slice(),
        b"$-2\r\n",
        b"$99999999999999999999\r\n",
        b"$100000000\r\n",
        b"*100000000\r\n",
        b":x\r\n",
        b"$3\r\nabcd\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        b"\r\n",
        b"$3\r\nab",
        b"",
    ] {
        let error = answer(words).unwrap_err();
        assert!(matches!(error, RedisError::Protocol { .. } | RedisError::Closed { .. }), "{error:?}");
    }
    let long = vec![b'+'; 100_000];
    assert!(matches!(answer(&long).unwrap_err(), RedisError::Protocol { .. }));
    let error = answer(b"-ERR \x1b[2Jcanary\r\n").unwrap_err();
    assert!(!error.server().unwrap().to_string().contains('\x1b'));
}

/// A greeting as a server answers it, then `words`.
fn synced(words: &[u8]) -> Result<Vec<u8>, String> {
    let (_dir, options, server) = saying([b"+PONG\r\n+OK\r\n+OK\r\n".as_slice(), words].concat());
    let outcome = (|| {
        let mut sync = replication::full_sync(&options, true).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        sync.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    })();
    server.join().unwrap();
    outcome
}

const ID: &str = "0123456789012345678901234567890123456789";

#[test]
fn a_dump_comes_whole_with_a_length_or_a_mark_and_is_never_taken_for_whole_otherwise() {
    let mark = "M".repeat(40);
    let near = format!("{}x{mark}", "M".repeat(39));
    let good = [
        (format!("\n\n+FULLRESYNC {ID} 7\r\n\n\n$5\r\nhello"), "hello".to_owned()),
        (format!("+FULLRESYNC {ID} 7\r\n\n$EOF:{mark}\r\nhello{mark}"), "hello".to_owned()),
        (format!("+FULLRESYNC {ID} 7\r\n$EOF:{mark}\r\n{near}"), format!("{}x", "M".repeat(39))),
        (format!("+FULLRESYNC {ID} 7\r\n$EOF:{mark}\r\n{mark}"), String::new()),
        (format!("+FULLRESYNC {ID} 7\r\n$0\r\n"), String::new()),
    ];
    for (words, expected) in good {
        assert_eq!(synced(words.as_bytes()).unwrap(), expected.as_bytes(), "{words}");
    }
    for words in [
        format!("+FULLRESYNC {ID} 7\r\n$5\r\nhell"),
        format!("+FULLRESYNC {ID} 7\r\n$EOF:{mark}\r\nhello{}", "M".repeat(39)),
        format!("+FULLRESYNC {ID} 7\r\n$EOF:short\r\nhello"),
        format!("+FULLRESYNC {ID} seven\r\n$5\r\nhello"),
        "+FULLRESYNC 12 7\r\n$5\r\nhello".to_owned(),
        format!("+FULLRESYNC {ID} 7\r\n-ERR no disk\r\n"),
        "+CONTINUE\r\n".to_owned(),
        "-NOMASTERLINK cannot\r\n".to_owned(),
        "+OK\r\n".to_owned(),
    ] {
        assert!(synced(words.as_bytes()).is_err(), "{words}");
    }
}

#[test]
fn a_name_that_changes_on_the_way_is_taken_over() {
    let (_dir, options, server) = saying(format!("+PONG\r\n+OK\r\n+CONTINUE {ID}\r\n").into_bytes());
    let place = format!("{}:100", "f".repeat(40)).parse().unwrap();
    let Resumed::Continued(stream) = replication::resume(&options, &place).unwrap() else { panic!("full") };
    assert_eq!((stream.id().as_str(), stream.offset()), (ID, 100));
    assert_eq!(stream.id().short(), 0x0123_4567);
    drop(stream);
    server.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_server_says_is_an_answer_or_a_typed_error(words in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(answer(&words));
        drop(synced(&words));
    }
}
