//! The files of real backups, tablespaces included: whole, and damaged in each way.

use std::fs;

use lifeboat_base::monitor::Findings;
use lifeboat_testkit::{PgOptions, PgServer};

use super::{Point, check, failures, manifest_end, options, point, recorded, server, state};
use crate::adapter::CheckState;
use crate::postgres::checks::check_files;
use crate::postgres::facts::read;
use crate::postgres::tables::{settled, survey};

type Act<'a> = Box<dyn Fn() + 'a>;

#[test]
fn damage_to_the_files_of_a_real_backup_is_found_and_named() {
    let source = server(16);
    let point = point(&source, "restored");
    let restored = &point.restored;
    let look = || check_files(restored, &[], &Findings::new()).unwrap();
    assert_eq!(look().state, CheckState::Passed);
    let page = source.psql("SELECT pg_relation_filepath('pg_class')");
    let bytes = fs::read(restored.join(&page)).unwrap();
    let damages: [(&str, Act<'_>, Act<'_>); 5] = [
        (
            "changed: ",
            Box::new(|| {
                let mut bytes = bytes.clone();
                bytes[5000] ^= 1;
                source.write(&restored.join(&page), &bytes);
            }),
            Box::new(|| source.write(&restored.join(&page), &bytes)),
        ),
        (
            "changed: ",
            Box::new(|| source.write(&restored.join(&page), &bytes[..8192])),
            Box::new(|| source.write(&restored.join(&page), &bytes)),
        ),
        (
            "missing: ",
            Box::new(|| fs::remove_file(restored.join(&page)).unwrap()),
            Box::new(|| source.write(&restored.join(&page), &bytes)),
        ),
        (
            "extra: base/1/77777",
            Box::new(|| source.write(&restored.join("base/1/77777"), b"x")),
            Box::new(|| fs::remove_file(restored.join("base/1/77777")).unwrap()),
        ),
        (
            "neither file nor folder: base/9",
            Box::new(|| std::os::unix::fs::symlink("/etc", restored.join("base/9")).unwrap()),
            Box::new(|| fs::remove_file(restored.join("base/9")).unwrap()),
        ),
    ];
    for (needle, damage, undo) in damages {
        damage();
        let result = look();
        assert_eq!((result.state, result.differences), (CheckState::Failed, 1), "{needle}: {result:?}");
        assert!(result.detail[0].starts_with(needle), "{result:?}");
        undo();
        assert_eq!(look().state, CheckState::Passed, "{needle}");
    }
    let auto = restored.join("postgresql.auto.conf");
    let mut longer = fs::read(&auto).unwrap();
    longer.extend(b"# appended\n");
    source.write(&auto, &longer);
    assert_eq!(look().state, CheckState::Passed, "a restore may append settings");
    longer[0] ^= 1;
    source.write(&auto, &longer);
    assert_eq!(look().detail, ["changed: postgresql.auto.conf"]);
}

#[test]
fn tablespaces_are_compared_through_their_links() {
    let source = PgServer::start(PgOptions::new(15).tablespace("spare"));
    source.psql("CREATE TABLE t TABLESPACE spare AS SELECT generate_series(1, 100) AS a");
    let known = read(&options(&source, "postgres", "postgres")).unwrap();
    let seen = survey(&options(&source, "postgres", "postgres")).unwrap();
    let restored = source.dir("restored");
    let space = restored.join("lifeboat_tablespaces");
    let oid = source.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'spare'");
    let mapping = format!(
        "--tablespace-mapping={}={}",
        source.tablespace_dir("spare").display(),
        source.dir("elsewhere").display()
    );
    source.run(
        "pg_basebackup",
        &[
            "-D",
            &restored.to_string_lossy(),
            "-X",
            "fetch",
            "-c",
            "fast",
            "--no-sync",
            "--manifest-checksums=SHA256",
            &mapping,
        ],
    );
    fs::create_dir(&space).unwrap();
    lifeboat_base::crashsafe::publish(&source.dir("elsewhere"), &space.join(&oid)).unwrap();
    let link = restored.join("pg_tblspc").join(&oid);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(space.join(&oid), &link).unwrap();
    lifeboat_postgres::server::give_tree(&restored, source.account()).unwrap();
    let facts = recorded(known.environment, settled(&seen, &seen), &manifest_end(&restored));
    let point = Point { restored, facts, texts: known.schema_texts.into_iter().collect() };
    let results = check(&point, 15, &[], &[], None);
    assert_eq!(failures(&results), Vec::<String>::new());
    assert_eq!(state(&results, "postgres.content/postgres.public.t"), CheckState::Passed);
}
