//! Data of every kind and encoding, for a real server.

use lifeboat_testkit::RedisServer;

/// Words of a command.
pub(crate) type Words = Vec<Vec<u8>>;

/// A command of plain words.
pub(crate) fn words(text: &str) -> Words {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// Bytes that do not compress, from a seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Strings, lists, sets, sorted sets, hashes and streams, small and large, in several databases, with and without ends.
pub(crate) fn every_kind() -> Vec<Words> {
    let mut all = strings();
    all.extend(collections());
    all.extend(streams());
    all.push(words("SELECT 9"));
    all.push(words("SET in-nine 1"));
    all.push(words("FUNCTION LOAD #!lua"));
    all.pop();
    all.push(vec![
        b"FUNCTION".to_vec(),
        b"LOAD".to_vec(),
        b"#!lua name=mylib\nredis.register_function('f', function(keys, args) return 1 end)".to_vec(),
    ]);
    all
}

fn strings() -> Vec<Words> {
    let mut all = Vec::new();
    let mut set = |key: &[u8], value: &[u8]| all.push(vec![b"SET".to_vec(), key.to_vec(), value.to_vec()]);
    set(b"empty", b"");
    set(b"one", b"x");
    set(b"\0\xff\r\nbinary", &noise(1, 1000));
    for number in
        ["0", "-1", "127", "-128", "128", "32767", "-32768", "2147483647", "-2147483648", "2147483648"]
    {
        set(format!("number {number}").as_bytes(), number.as_bytes());
    }
    set(b"leading zero", b"007");
    set(b"compressible", &b"lifeboat ".repeat(30_000));
    set(b"far apart", &[noise(2, 9000), noise(2, 9000), noise(3, 300)].concat().repeat(3));
    set(b"large", &noise(4, 3_000_000));
    set(&noise(5, 20_000), b"a long key");
    all.push(words("SET ends-later v PX 100000000"));
    all.push(words("SET ends-much-later v PXAT 4000000000000"));
    all
}

fn collections() -> Vec<Words> {
    let mut all = Vec::new();
    for (name, count, long) in [("small", 20_usize, 5_usize), ("many", 1500, 5), ("long", 20, 5000)] {
        let text = |index: usize| noise(index as u64, long);
        for index in 0..count {
            let digits = index.to_string().into_bytes();
            all.push(vec![b"RPUSH".to_vec(), format!("list {name}").into(), text(index)]);
            all.push(vec![b"RPUSH".to_vec(), format!("list {name}").into(), digits.clone()]);
            all.push(vec![b"SADD".to_vec(), format!("set {name}").into(), text(index)]);
            all.push(vec![b"SADD".to_vec(), format!("integers {name}").into(), digits.clone()]);
            let score = format!("{}.5e{}", index, index % 40).into_bytes();
            all.push(vec![b"ZADD".to_vec(), format!("zset {name}").into(), score, text(index)]);
            all.push(vec![b"ZADD".to_vec(), format!("zset {name}").into(), digits.clone(), digits.clone()]);
            all.push(vec![b"HSET".to_vec(), format!("hash {name}").into(), text(index), digits.clone()]);
            all.push(vec![b"HSET".to_vec(), format!("hash {name}").into(), digits, text(index)]);
        }
    }
    for number in ["-9223372036854775808", "70000", "-70000", "8388607", "-8388608", "4095", "-4096", "64"] {
        all.push(words(&format!("SADD wide {number}")));
        all.push(words(&format!("RPUSH numbers {number}")));
    }
    all.push(vec![b"RPUSH".to_vec(), b"list plain".to_vec(), noise(9, 100_000), b"short".to_vec()]);
    all.push(words("ZADD edges inf a -inf b -0 c 0 d 1e-300 e 17 f"));
    all.push(words("SADD mixed a 1 2 b"));
    all.push(words("EXPIRE wide 1000000"));
    all
}

fn streams() -> Vec<Words> {
    let mut all = Vec::new();
    for index in 1..=500 {
        all.push(words(&format!("XADD stream {index}-1 field {index} other {}", index * 7)));
        if index % 3 == 0 {
            all.push(words(&format!("XADD stream {index}-2 unlike {index}")));
        }
    }
    all.push(words("XDEL stream 7-1 9-2"));
    all.push(words("XGROUP CREATE stream group 0"));
    all.push(words("XGROUP CREATE stream idle $"));
    all.push(words("XREADGROUP GROUP group alice COUNT 10 STREAMS stream >"));
    all.push(words("XREADGROUP GROUP group bob COUNT 5 STREAMS stream >"));
    all.push(words("XACK stream group 1-1 2-1"));
    all.push(words("XGROUP CREATECONSUMER stream group carol"));
    all.push(words("XADD trimmed MAXLEN 3 * a b"));
    for _entry in 0..9 {
        all.push(words("XADD trimmed MAXLEN 3 * a b"));
    }
    all.push(words("XGROUP CREATE without-entries g $ MKSTREAM"));
    all
}

/// Settings that keep collections in their packed form, or in their large one.
pub(crate) fn keep_packed(server: &RedisServer, packed: bool) {
    let (entries, value) = if packed { ("100000", "100000") } else { ("1", "1") };
    for name in ["hash-max-listpack-entries", "zset-max-listpack-entries", "set-max-intset-entries"] {
        server.run(&format!("CONFIG SET {name} {entries}"));
    }
    for name in ["hash-max-listpack-value", "zset-max-listpack-value"] {
        server.run(&format!("CONFIG SET {name} {value}"));
    }
    server.run(&format!("CONFIG SET list-max-listpack-size {}", if packed { "-5" } else { "2" }));
    server.run(&format!("CONFIG SET stream-node-max-entries {}", if packed { "1000" } else { "1" }));
    server.run(&format!("CONFIG SET rdbcompression {}", if packed { "yes" } else { "no" }));
}
