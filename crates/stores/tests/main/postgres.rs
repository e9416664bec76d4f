//! Kind `postgres`: the conformance suite over real servers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::Failure;
use lifeboat_base::secret::Secret;
use lifeboat_stores::conformance::{Answer, Fixture, violations};
use lifeboat_stores::{Adapter, PostgresAdapter, PostgresOptions, Selection};
use lifeboat_testkit::{PgOptions, PgServer};

/// A role that may do what `lifeboat init postgres` grants, and nothing else.
const ROLE: &str = "CREATE ROLE keeper LOGIN REPLICATION; GRANT pg_monitor, pg_read_all_data TO keeper";
const CONTENT: &str = "CREATE TABLE \"Größe \"\"x\"\"\" (id int PRIMARY KEY, b bytea, t text);
    INSERT INTO \"Größe \"\"x\"\"\" SELECT g, decode(repeat(lpad(to_hex(g), 8, '0'), 1000), 'hex'), 'naïve ' || g
        FROM generate_series(1, 400) g;
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, round int);
    INSERT INTO parent SELECT generate_series(1, 300);
    INSERT INTO child SELECT g, g FROM generate_series(1, 300) g;
    CREATE SEQUENCE s; SELECT nextval('s');
    CREATE VIEW v AS SELECT count(*) FROM child";

struct Clusters {
    major: u32,
    servers: Mutex<BTreeMap<PathBuf, PgServer>>,
}

fn adapter(address: String, programs: &[PathBuf]) -> Box<dyn Adapter> {
    let url = move || Ok(Secret::new(address.clone()));
    Box::new(PostgresAdapter::new(PostgresOptions {
        url: Arc::new(url),
        slot: "lifeboat_test".to_owned(),
        programs: programs.to_vec(),
        tablespaces: Vec::new(),
        unique: Vec::new(),
        sql: Vec::new(),
    }))
}

impl Clusters {
    fn keep(&self, place: &Path, server: PgServer) -> Box<dyn Adapter> {
        let address = format!(
            "host={} port={} user=keeper dbname=postgres",
            server.socket_dir().display(),
            server.port()
        );
        let programs = [server.installation().bin.clone()];
        self.servers.lock().unwrap().insert(place.to_owned(), server);
        adapter(address, &programs)
    }

    fn make(&self) -> PgServer {
        let server = PgServer::start(PgOptions::new(self.major).initdb("--data-checksums"));
        server.psql(ROLE);
        server
    }

    fn psql(&self, place: &Path, sql: &str) {
        self.servers.lock().unwrap()[place].psql(sql);
    }
}

impl Fixture for Clusters {
    fn empty(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        let server = self.make();
        // One value must be there for two captures to be compared by.
        server.psql("CREATE TABLE nothing ()");
        Ok(self.keep(place, server))
    }

    fn full(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        let server = self.make();
        server.psql(CONTENT);
        Ok(self.keep(place, server))
    }

    fn question(&self) -> Option<(Selection, Answer)> {
        let text =
            "SELECT id, parent AS value, now() AS at FROM child UNION ALL SELECT NULL, 1, NULL; ".to_owned();
        let row = |id: u32| (id.to_string().into_bytes(), Some(id.to_string().into_bytes()));
        Some((Selection::Sql { database: None, text }, (1..=300).map(row).collect()))
    }

    fn change(&self, place: &Path, round: u64) -> Result<(), Failure> {
        self.psql(
            place,
            &format!(
                "INSERT INTO child SELECT max(id) + 1, 1, {round} FROM child; DELETE FROM child WHERE id = {round}; \
                 UPDATE child SET round = {round} WHERE id % 20 = {}",
                round % 20
            ),
        );
        Ok(())
    }

    fn seal(&self, place: &Path) -> Result<(), Failure> {
        self.psql(place, "ALTER ROLE keeper NOLOGIN");
        Ok(())
    }

    fn missing(&self, place: &Path) -> Box<dyn Adapter> {
        adapter(format!("host={} user=keeper dbname=postgres", place.display()), &[])
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
        Ok(adapter(format!("host=127.0.0.1 port={port} user=keeper dbname=postgres"), &[]))
    }

    fn is_content(&self, _path: &Path) -> bool {
        false
    }

    fn is_live(&self) -> bool {
        true
    }

    fn reopen(&self, artefact: &Path) -> Box<dyn Adapter> {
        let installation = lifeboat_testkit::pg_installation(self.major);
        self.keep(artefact, PgServer::on_copy(&installation, artefact))
    }
}

#[test]
fn the_postgres_adapter_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    crashsafe::let_through(scratch.path()).unwrap();
    // What differs between versions has tests of its own on each.
    let clusters = Clusters { major: 15, servers: Mutex::default() };
    assert_eq!(violations(&clusters, scratch.path()), Vec::<String>::new());
}
