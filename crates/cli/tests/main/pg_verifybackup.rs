//! PostgreSQL's own `pg_verifybackup` as an independent witness: what is restored is the backup that the server described.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use lifeboat_testkit::PgServer;

use super::postgres::{server, world_of};

fn verify(server: &PgServer, cluster: &Path) -> Output {
    server.bin("pg_verifybackup").arg(cluster).output().unwrap()
}

#[test]
fn stock_pg_verifybackup_finds_a_restored_point_whole_and_one_flipped_bit_in_it() {
    // The 18 at hand comes with a `pg_verifybackup` that ends in a segmentation fault on every directory, also on what its
    // own `pg_basebackup` has just made; an older one does not know the manifests of 17 and later.
    for major in [15, 16] {
        let server = server(major);
        let world = world_of(&server);
        let point = world.backup("shop");
        server.psql("INSERT INTO ledger (n) VALUES (1)");
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
        // Without the checks and without the log nothing has been started on it, and nothing was added to its own log.
        world.run(&["restore", "shop", "--to", "back", "--at", &point, "--skip-checks"]).expect(0);
        let verified = verify(&server, &world.path("back"));
        assert!(verified.status.success(), "{major}: {verified:?}");
        let path = server.psql("SELECT pg_relation_filepath('orders')");
        let file = OpenOptions::new().read(true).write(true).open(world.path("back").join(&path)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4_321).unwrap();
        file.write_all_at(&[byte[0] ^ 4], 4_321).unwrap();
        let damaged = verify(&server, &world.path("back"));
        let said = String::from_utf8_lossy(&damaged.stderr).into_owned();
        assert!(!damaged.status.success() && said.contains(&path), "{major}: {said}");
    }
}
