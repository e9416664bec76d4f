//! Bundles: what is in them, that an outsider can check them, and that every change shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifeboat_base::failure::FailureKind;
use lifeboat_evidence::ProblemKind::{Dropped, Edited, Extra, ForeignKey, Reordered};
use lifeboat_evidence::{EvidenceError, Filter, Page, export, unpack, verify_bundle};
use serde_json::Value;

use super::tools::{Sample, at, overwrite, place, poke, public, record, signer, stranger, summary};

fn bundle(sample: &Sample, filter: &Filter) -> PathBuf {
    let out = sample.dir.parent().unwrap().join("bundle");
    export(&sample.dir, &out, &signer(), at(100), filter, &[]).unwrap();
    out
}

fn drills() -> Filter {
    Filter { kinds: vec!["drill".to_owned()], ..Filter::default() }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_bundle_of_the_whole_chain_verifies_and_holds_every_page() {
    let sample = Sample::of(5);
    let out = bundle(&sample, &Filter::default());
    assert_eq!(
        names(&out),
        [
            "VERIFY.md",
            "bundle.json",
            "head.json",
            "index.json",
            "index.md",
            "public.key",
            "records",
            "records.csv",
            "verify.py"
        ]
    );
    assert_eq!(names(sample.dir.parent().unwrap()), ["bundle", "evidence"]);
    let report = verify_bundle(&out, &public()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.included, report.omitted), (5, 0));
    assert_eq!(report.head, sample.chain().head().unwrap());
    for name in ["head.json", "public.key", &record(3)] {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(sample.path(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_filter_leaves_records_out_and_the_chain_still_links() {
    let sample = Sample::of(6);
    let out = bundle(&sample, &drills());
    assert_eq!(names(&out.join("records")), ["00000002.json", "00000004.json", "00000006.json"]);
    let report = verify_bundle(&out, &public()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.included, report.omitted), (3, 3));

    let time = Filter { from: Some(at(2)), until: Some(at(4)), ..Filter::default() };
    let subject = Filter { subjects: vec!["orders".to_owned()], ..Filter::default() };
    let taken = |filter: &Filter| -> Vec<u64> {
        let records = sample.chain().iter().map(|stored| stored.unwrap().record);
        records.filter(|record| filter.takes(record)).map(|record| record.seq).collect()
    };
    assert_eq!(taken(&time), [2, 3]);
    assert_eq!(taken(&subject), [1, 3, 5]);
}

#[test]
fn the_pages_say_what_the_records_say() {
    let sample = Sample::of(3);
    let out = bundle(&sample, &drills());
    let csv = fs::read_to_string(out.join("records.csv")).unwrap();
    assert!(csv.starts_with("seq,at,kind,subject,tool,digest,file,body\r\n2,"), "{csv}");
    assert!(csv.contains("\"{\"\"note\"\":\"\"=1+1\"\",\"\"number\"\":2}\""), "{csv}");
    let index: Value = serde_json::from_slice(&fs::read(out.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["schema"], "lifeboat.evidence-index/v1");
    assert_eq!(index["records"][0]["seq"], 2);
    let page = fs::read_to_string(out.join("index.md")).unwrap();
    assert!(page.contains("1 of 3 records (kind drill)"), "{page}");
    assert!(page.contains("| [2](records/00000002.json) |"), "{page}");
    let how = fs::read_to_string(out.join("VERIFY.md")).unwrap();
    assert!(
        how.contains(&public().to_string()) && how.contains("1 records are authentic, 2 are left out"),
        "{how}"
    );
}

#[test]
fn one_flipped_bit_in_any_file_of_a_bundle_is_found_and_the_file_named() {
    let sample = Sample::of(3);
    let out = bundle(&sample, &drills());
    let mut files: Vec<String> = names(&out).into_iter().filter(|name| name != "records").collect();
    files.push(record(2));
    for name in files {
        let path = out.join(&name);
        let bytes = fs::read(&path).unwrap();
        for (position, byte) in bytes.iter().copied().enumerate() {
            poke(&path, position, byte ^ (1 << (position % 8)));
            let report = verify_bundle(&out, &public()).unwrap();
            assert!(report.problems.iter().any(|problem| problem.file == name), "byte {position} of {name}");
            poke(&path, position, byte);
        }
    }
    assert!(verify_bundle(&out, &public()).unwrap().is_sound());
}

#[test]
fn dropped_added_moved_and_foreign_files_of_a_bundle_are_found() {
    let problems = |change: &dyn Fn(&Path, &Sample)| {
        let sample = Sample::of(6);
        let out = bundle(&sample, &drills());
        change(&out, &sample);
        summary(&verify_bundle(&out, &public()).unwrap().problems)
    };
    assert_eq!(problems(&|out, _| fs::remove_file(out.join(record(4))).unwrap()), [(record(4), Dropped)]);
    assert_eq!(
        problems(&|out, _| fs::remove_file(out.join("index.md")).unwrap()),
        [("index.md".to_owned(), Dropped)]
    );
    assert_eq!(problems(&|out, sample| place(&sample.record(3), &out.join(record(3)))), [(record(3), Extra)]);
    assert_eq!(problems(&|out, _| overwrite(&out.join("more"), b"")), [("more".to_owned(), Extra)]);
    assert_eq!(
        problems(&|out, _| place(&out.join(record(2)), &out.join(record(4)))),
        [(record(4), Reordered)]
    );
    let foreign = Sample::signed_by(&stranger(), 4);
    assert_eq!(
        problems(&|out, _| place(&foreign.record(4), &out.join(record(4)))),
        [(record(4), ForeignKey)]
    );
    // A valid record 4 of another history of the same key.
    let other = Sample::of(3);
    other.append(14);
    assert_eq!(problems(&|out, _| place(&other.record(4), &out.join(record(4)))), [(record(4), Reordered)]);
    assert_eq!(
        problems(&|out, _| place(&out.join("head.json"), &out.join("bundle.json"))),
        [("bundle.json".to_owned(), Edited)]
    );
}

#[test]
fn a_bundle_is_not_made_of_a_damaged_chain_or_with_another_key_or_over_something() {
    let sample = Sample::of(3);
    let out = sample.dir.parent().unwrap().join("bundle");
    overwrite(&sample.record(2), b"{}");
    let error = export(&sample.dir, &out, &signer(), at(9), &Filter::default(), &[]).unwrap_err();
    assert!(
        matches!(&error, EvidenceError::NotSound { first, .. } if first.contains("00000002.json")),
        "{error}"
    );
    assert_eq!(error.kind(), FailureKind::Damaged);
    let sample = Sample::of(3);
    assert!(export(&sample.dir, &out, &stranger(), at(9), &Filter::default(), &[]).is_err());
    assert!(!out.exists());
    let out = bundle(&sample, &Filter::default());
    let error = export(&sample.dir, &out, &signer(), at(9), &Filter::default(), &[]).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused);
    assert!(verify_bundle(&sample.dir, &public()).is_err(), "a chain is no bundle");
}

#[test]
fn a_page_beside_the_records_is_signed_like_them_and_can_be_nothing_else() {
    let sample = Sample::of(3);
    let out = sample.dir.parent().unwrap().join("bundle");
    let page = |name: &str| Page { name: name.to_owned(), bytes: b"<p>1 of 1</p>".to_vec() };
    for name in
        ["../report.html", "records.csv", "bundle.json", "report", "a/b.md", "Report.md", ".md", "x.py"]
    {
        let refused = export(&sample.dir, &out, &signer(), at(9), &Filter::default(), &[page(name)]);
        assert!(refused.is_err() && !out.exists(), "{name}");
    }
    let twice = [page("report.html"), page("report.html")];
    assert!(export(&sample.dir, &out, &signer(), at(9), &Filter::default(), &twice).is_err());

    let filter = Filter { numbers: vec![2, 3], ..Filter::default() };
    export(&sample.dir, &out, &signer(), at(9), &filter, &[page("report.html")]).unwrap();
    let report = verify_bundle(&out, &public()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.included, report.omitted), (2, 1));
    assert_eq!(python(&out, &public().to_string()).0, Some(0));
    overwrite(&out.join("report.html"), b"<p>0 of 1</p>");
    let problems = summary(&verify_bundle(&out, &public()).unwrap().problems);
    assert_eq!(problems, [("report.html".to_owned(), Edited)]);
    assert_eq!(python(&out, &public().to_string()).0, Some(6));
}

#[test]
fn a_bundle_in_one_file_opens_to_what_it_was_and_to_nothing_else() {
    let sample = Sample::of(3);
    let parent = sample.dir.parent().unwrap();
    let page = Page { name: "report.html".to_owned(), bytes: b"<p>1 of 1</p>".to_vec() };
    let pack = |name: &str| {
        let out = parent.join(name);
        export(&sample.dir, &out, &signer(), at(9), &drills(), std::slice::from_ref(&page)).unwrap();
        fs::read(out).unwrap()
    };
    assert_eq!(names(parent), ["evidence"]);
    let archive = pack("one.tar");
    assert_eq!(names(parent), ["evidence", "one.tar"]);
    let opened = parent.join("opened");
    unpack(&parent.join("one.tar"), &opened).unwrap();
    assert!(verify_bundle(&opened, &public()).unwrap().is_sound());
    assert_eq!(fs::read(opened.join("report.html")).unwrap(), page.bytes);

    // Every name in it is a plain one; a hostile archive has others.
    for hostile in
        ["one/../../escaped.md", "one/records/../x.md", "one/verify.sh", "/etc/x.md", "one/records/1.json"]
    {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.as_mut_bytes()[..hostile.len()].copy_from_slice(hostile.as_bytes());
        header.set_cksum();
        builder.append(&header, b"x".as_slice()).unwrap();
        overwrite(&parent.join("bad.tar"), &builder.into_inner().unwrap());
        let error = unpack(&parent.join("bad.tar"), &parent.join("bad")).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Damaged, "{hostile}");
        fs::remove_dir_all(parent.join("bad")).unwrap();
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "one/report.md", "/etc/passwd").unwrap();
    overwrite(&parent.join("link.tar"), &builder.into_inner().unwrap());
    assert!(unpack(&parent.join("link.tar"), &parent.join("link")).is_err());
    overwrite(&parent.join("cut.tar"), &archive[..archive.len() / 2]);
    let cut = unpack(&parent.join("cut.tar"), &parent.join("cut"));
    assert!(cut.is_err() || verify_bundle(&parent.join("cut"), &public()).is_err(), "half of it opens");
    assert!(!parent.parent().unwrap().join("escaped.md").exists());
}

fn python(out: &Path, key: &str) -> (Option<i32>, String) {
    let output = Command::new("python3").arg(out.join("verify.py")).arg(out).arg(key).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_script_in_the_bundle_agrees_with_this_crate() {
    let imports = Command::new("python3").args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
    assert!(
        imports.is_ok_and(|status| status.success()),
        "python3 with the package `cryptography` is missing: run the tests with `make test`"
    );
    let sample = Sample::of(6);
    let out = bundle(&sample, &drills());
    let (code, text) = python(&out, &public().to_string());
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.starts_with("authentic: 3 records, 3 left out\nthe chain ends with record 6, SHA-256 "),
        "{text}"
    );
    assert_eq!(python(&out, &stranger().public().to_string()).0, Some(6));
    assert_eq!(python(&out, "ed25519:AAAA").0, Some(2));

    for name in [record(4), "bundle.json".to_owned(), "index.md".to_owned(), "head.json".to_owned()] {
        let bytes = fs::read(out.join(&name)).unwrap();
        let mut damaged = bytes.clone();
        damaged[150] ^= 1;
        overwrite(&out.join(&name), &damaged);
        let (code, text) = python(&out, &public().to_string());
        assert_eq!(code, Some(6), "{name}: {text}");
        assert!(text.contains(&name), "{name}: {text}");
        overwrite(&out.join(&name), &bytes);
    }
    overwrite(&out.join("records/00000003.json"), b"");
    fs::remove_file(out.join(record(2))).unwrap();
    let (code, text) = python(&out, &public().to_string());
    assert_eq!(code, Some(6));
    assert!(
        text.contains("00000003.json: does not belong") && text.contains("00000002.json: is missing"),
        "{text}"
    );
}
