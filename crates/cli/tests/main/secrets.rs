//! Planted secrets: no command, however it ends, writes one of them anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use super::tree;
use super::world::{KEY_FILE, PASSPHRASE_ENV, Ran, World};

const PLANTED_PASSPHRASE: &str = "canary-passphrase-7Qd2mVx9pLk3";
const PLANTED_URL: &str = "redis://user:canary-url-secret-5Zt8wYb1@cache.invalid:6379";

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, index: u32| char::from(DIGITS[(group >> (18 - 6 * index)) as usize & 63]);
    let group = |chunk: &[u8]| chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte));
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let shifted = group(chunk) << (8 * (3 - u32::try_from(chunk.len()).unwrap()));
            (0..=u32::try_from(chunk.len()).unwrap()).map(move |index| digit(shifted, index))
        })
        .collect()
}

/// Every way in which a secret could show itself, each with a name that is no secret.
struct Planted(Vec<(String, Vec<u8>)>);

impl Planted {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn plant(&mut self, name: &str, secret: &[u8]) {
        self.0.push((name.to_owned(), secret.to_vec()));
        self.0.push((format!("{name} in hex"), hex(secret).into_bytes()));
        self.0.push((format!("{name} in HEX"), hex(secret).to_uppercase().into_bytes()));
        self.0.push((format!("{name} in base64"), base64(secret).into_bytes()));
    }

    /// The names of the secrets that `bytes` shows.
    fn seen_in(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let shows = |secret: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == secret.as_slice());
        self.0.iter().filter(|(_, secret)| shows(secret)).map(|(name, _)| name.as_str()).collect()
    }

    #[track_caller]
    fn assert_unseen(&self, place: &str, bytes: &[u8]) {
        assert_eq!(self.seen_in(bytes), BTreeSet::new(), "in {place}");
    }

    fn assert_unseen_below(&self, root: &Path) {
        for (name, bytes) in tree::contents(root) {
            self.assert_unseen(&format!("the name {}", name.display()), name.as_os_str().as_encoded_bytes());
            self.assert_unseen(&root.join(name).display().to_string(), &bytes);
        }
    }
}

/// Runs a command and looks at its arguments, again and again, while it lives.
fn watched(world: &World, args: &[&str], planted: &Planted) -> Ran {
    let mut child = world.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let arguments = format!("/proc/{}/cmdline", child.id());
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| read(out));
        let stderr = scope.spawn(|| read(err));
        while child.try_wait().unwrap().is_none() {
            planted.assert_unseen(&arguments, &fs::read(&arguments).unwrap_or_default());
        }
        Ran {
            code: child.wait().unwrap().code(),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    })
}

fn read(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn planted(world: &mut World) -> Planted {
    world.env = vec![
        (PASSPHRASE_ENV.to_owned(), PLANTED_PASSPHRASE.to_owned()),
        ("SESSIONS_URL".to_owned(), PLANTED_URL.to_owned()),
    ];
    let key = fs::read_to_string(world.path(KEY_FILE)).unwrap();
    let mut planted = Planted::new();
    planted.plant("the passphrase", PLANTED_PASSPHRASE.as_bytes());
    planted.plant("the url", PLANTED_URL.as_bytes());
    planted.plant("the password in the url", b"canary-url-secret-5Zt8wYb1");
    planted.plant("the key file", key.trim().strip_prefix("lifeboat-key-1:").unwrap().as_bytes());
    planted
}

#[test]
fn a_secret_in_any_disguise_would_be_seen() {
    let mut planted = Planted::new();
    planted.plant("it", b"secret!");
    assert_eq!(base64(b"secret!"), "c2VjcmV0IQ==".trim_end_matches('='));
    assert_eq!(planted.seen_in(b"..secret!.."), BTreeSet::from(["it"]));
    assert_eq!(planted.seen_in(b"73656372657421"), BTreeSet::from(["it in HEX", "it in hex"]));
    assert_eq!(planted.seen_in(b"c2VjcmV0IQ=="), BTreeSet::from(["it in base64"]));
    assert_eq!(planted.seen_in(b"nothing"), BTreeSet::new());
}

#[test]
fn no_command_shows_a_secret_and_no_file_holds_one() {
    let mut world = World::of_everything().and_passphrase();
    let mut secrets = planted(&mut world);
    world.run(&["backup"]).expect(0);
    let password = super::peers::password(&world, "uploads", "local");
    secrets.plant("the repository password", password.as_bytes());
    let point = world.points("uploads").remove(0);
    let manifest = world.vault("local", "uploads").join(format!("lifeboat/points/{point}.json"));
    let good: [&[&str]; 17] = [
        &["check"],
        &["explain", "uploads"],
        &["backup"],
        &["points"],
        &["status"],
        &["status", "--markdown"],
        &["verify"],
        &["drill", "--all"],
        &["restore", "uploads", "--to", "x"],
        &["restore", "uploads", "--to", "x"],
        &["restore", "nobody", "--to", "x"],
        &["evidence", "verify"],
        &["evidence", "export", "--to", "bundle"],
        &["evidence", "show"],
        &["catalog", "rebuild"],
        &["keys", "new-file", KEY_FILE],
        &["init"],
    ];
    let everything = |when: &str, ways: &[&[&str]]| {
        for args in good {
            for extra in ways {
                if args.contains(&"--markdown") && extra.contains(&"--json") {
                    continue;
                }
                let all: Vec<&str> = extra.iter().chain(args).copied().collect();
                let ran = watched(&world, &all, &secrets);
                secrets.assert_unseen(
                    &format!("{all:?} {when}"),
                    format!("{}{}", ran.stdout, ran.stderr).as_bytes(),
                );
            }
        }
    };
    everything("when all is well", &[&["-v"], &["-v", "--json"]]);
    tree::write(&manifest, b"{}");
    tree::write(&world.vault("offsite", "orders").join("lifeboat/envelope.json"), b"{}");
    tree::rename(&world.path("live"), &world.path("dead"));
    everything("when nothing is well", &[&["-v"]]);
    tree::rename(&world.path("dead"), &world.path("live"));
    for folder in ["state", "vaults", "bundle"] {
        secrets.assert_unseen_below(&world.path(folder));
    }
}

#[test]
fn a_wrong_secret_is_not_shown_either() {
    let mut world = World::of_everything().and_passphrase();
    world.run(&["backup"]).expect(0);
    let secrets = planted(&mut world);
    tree::write(&world.path(KEY_FILE), format!("{PLANTED_PASSPHRASE}\n").as_bytes());
    world.write_policy(&world.policy.replace("env:SESSIONS_URL", PLANTED_URL));
    for policy in [world.policy.clone(), world.policy.replace("env:SESSIONS_URL", PLANTED_URL)] {
        world.write_policy(&policy);
        for args in [&["backup"][..], &["check"], &["verify"], &["drill", "--all"], &["status"], &["points"]]
        {
            for extra in [&["-v"][..], &["-v", "--json"]] {
                let all: Vec<&str> = extra.iter().chain(args).copied().collect();
                let ran = watched(&world, &all, &secrets);
                assert_ne!(ran.code, Some(0), "{all:?}: {ran:?}");
                secrets
                    .assert_unseen(&format!("{all:?}"), format!("{}{}", ran.stdout, ran.stderr).as_bytes());
            }
        }
    }
    secrets.assert_unseen_below(&world.path("state"));
    secrets.assert_unseen_below(&world.path("vaults"));
}
