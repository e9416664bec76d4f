//! Kind `redis`: the conformance suite over real servers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lifeboat_base::failure::Failure;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_stores::conformance::{Answer, Fixture, violations};
use lifeboat_stores::{
    Adapter, Address, RedisAdapter, RedisFilesAdapter, RedisFilesOptions, RedisOptions as Options,
    ScanOptions, Selection, Upkeep,
};
use lifeboat_testkit::{RedisOptions, RedisServer};

/// A user that may do what `lifeboat init redis` grants, and nothing else.
const USER: &str = "keeper on >secret +psync +replconf +ping +info +config|get";

/// A user that may read keys one by one, as `lifeboat init redis` grants it.
pub(super) const READER: &str = "reader on >secret ~* +ping +info +select +scan +dbsize +type +ttl +pttl +pexpiretime \
    +get +strlen +getrange +hlen +hscan +scard +sscan +zcard +zscan +llen +lrange +xrange +xinfo|stream +xinfo|groups \
    +function|list";

#[derive(Default)]
struct Servers {
    servers: Mutex<BTreeMap<PathBuf, RedisServer>>,
    /// Whether they are read key by key.
    is_scanned: bool,
}

pub(super) fn adapter(address: String, scan: Option<ScanOptions>) -> Box<dyn Adapter> {
    adapter_with(address, scan, None)
}

pub(super) fn adapter_with(
    address: String,
    scan: Option<ScanOptions>,
    token: Option<&'static str>,
) -> Box<dyn Adapter> {
    adapter_by(Arc::new(SystemClock::new()), address, scan, token)
}

pub(super) fn adapter_by(
    clock: Arc<dyn Clock>,
    address: String,
    scan: Option<ScanOptions>,
    token: Option<&'static str>,
) -> Box<dyn Adapter> {
    let url = move || Ok(Secret::new(address.clone()));
    let options = Options {
        url: Arc::new(url),
        programs: Vec::new(),
        commands: Vec::new(),
        upkeep: Upkeep::default(),
        scan,
        token: token.map(|token| Arc::new(move || Ok(Secret::new(token.to_owned()))) as Address),
    };
    Box::new(RedisAdapter::with_clock(options, clock))
}

fn options() -> RedisOptions {
    RedisOptions::default().set("user", USER).set("user", READER)
}

impl Servers {
    fn scan(&self) -> Option<ScanOptions> {
        self.is_scanned.then(ScanOptions::default)
    }

    fn keep(&self, place: &Path, server: RedisServer) -> Box<dyn Adapter> {
        let user = if self.is_scanned { "reader" } else { "keeper" };
        let address = format!("unix://{}?user={user}&password=secret", server.socket().display());
        self.servers.lock().unwrap().insert(place.to_owned(), server);
        adapter(address, self.scan())
    }

    fn fill(&self, place: &Path, options: RedisOptions) -> Box<dyn Adapter> {
        let server = RedisServer::start(options);
        let parts = |text: &str| text.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let large: Vec<u8> = (0..2_500_000_u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .take(2_500_000)
            .collect();
        server.load([vec![b"SET".to_vec(), "gr\u{f6}\u{df}e \0 \n".as_bytes().to_vec(), large]]);
        server.load((0..400).map(|n| parts(&format!("SET key:{n} {n}"))));
        server.load((0..400).map(|n| parts(&format!("ZADD zset {n}.5 m{n}"))));
        server.load((0..400).map(|n| parts(&format!("HSET hash:{} f{n} v{n}", n % 7))));
        server.load((1..400).map(|n| parts(&format!("XADD stream {n}-1 n {n}"))));
        server.load((0..50).map(|n| parts(&format!("SET ends:{n} v PXAT {}", 4_000_000_000_000_u64 + n))));
        server.load([parts("SELECT 3"), parts("SADD set a b c 1 2 3")]);
        self.keep(place, server)
    }
}

impl Fixture for Servers {
    fn empty(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        Ok(self.keep(place, RedisServer::start(options())))
    }

    fn full(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        Ok(self.fill(place, options()))
    }

    fn question(&self) -> Option<(Selection, Answer)> {
        let name = |n: u32| (format!("key:{n}").into_bytes(), Some(n.to_string().into_bytes()));
        Some((Selection::Keys("key:*".to_owned()), (0..400).map(name).collect()))
    }

    fn change(&self, place: &Path, round: u64) -> Result<(), Failure> {
        let servers = self.servers.lock().unwrap();
        servers[place].run(&format!("SET key:{} round-{round}", round % 400));
        servers[place].run(&format!("SET round:{round} 1"));
        Ok(())
    }

    fn seal(&self, place: &Path) -> Result<(), Failure> {
        self.servers.lock().unwrap()[place].run("ACL SETUSER keeper -psync -replconf");
        self.servers.lock().unwrap()[place].run("ACL SETUSER reader -hscan -scan");
        Ok(())
    }

    fn missing(&self, place: &Path) -> Box<dyn Adapter> {
        adapter(format!("unix://{}", place.join("s").display()), self.scan())
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
        Ok(adapter(format!("redis://127.0.0.1:{port}"), self.scan()))
    }

    fn is_content(&self, _path: &Path) -> bool {
        false
    }

    fn is_live(&self) -> bool {
        true
    }

    fn reopen(&self, artefact: &Path) -> Box<dyn Adapter> {
        self.keep(artefact, RedisServer::start_on(artefact, options().set("appendonly", "yes")))
    }
}

#[test]
fn the_redis_adapter_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    assert_eq!(violations(&Servers::default(), scratch.path()), Vec::<String>::new());
}

/// Servers whose files are captured, and not what they send.
#[derive(Default)]
struct Folders(Servers);

fn beside(dir: &Path) -> Box<dyn Adapter> {
    Box::new(RedisFilesAdapter::new(RedisFilesOptions {
        dir: dir.to_owned(),
        config: None,
        programs: Vec::new(),
        commands: Vec::new(),
    }))
}

impl Folders {
    fn of(&self, place: &Path) -> Box<dyn Adapter> {
        beside(&self.0.servers.lock().unwrap()[place].data())
    }
}

impl Fixture for Folders {
    fn empty(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        self.0.keep(place, RedisServer::start(options().set("appendonly", "yes")));
        Ok(self.of(place))
    }

    fn full(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        self.0.fill(place, options().set("appendonly", "yes"));
        Ok(self.of(place))
    }

    fn question(&self) -> Option<(Selection, Answer)> {
        self.0.question()
    }

    fn change(&self, place: &Path, round: u64) -> Result<(), Failure> {
        self.0.change(place, round)
    }

    fn seal(&self, place: &Path) -> Result<(), Failure> {
        let log = self.0.servers.lock().unwrap()[place].data().join("appendonlydir");
        for entry in std::fs::read_dir(log).unwrap() {
            std::fs::set_permissions(entry.unwrap().path(), std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        Ok(())
    }

    fn missing(&self, place: &Path) -> Box<dyn Adapter> {
        beside(&place.join("gone"))
    }

    fn wrong(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        let file = place.join("file");
        lifeboat_base::crashsafe::write_new(&file, b"no folder").unwrap();
        Ok(beside(&file))
    }

    fn is_content(&self, _path: &Path) -> bool {
        false
    }

    fn reopen(&self, artefact: &Path) -> Box<dyn Adapter> {
        beside(artefact)
    }
}

#[test]
fn the_redis_files_adapter_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    assert_eq!(violations(&Folders::default(), scratch.path()), Vec::<String>::new());
}

#[test]
fn the_redis_adapter_that_reads_key_by_key_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    let servers = Servers { is_scanned: true, ..Servers::default() };
    assert_eq!(violations(&servers, scratch.path()), Vec::<String>::new());
}
