//! Writing and reading a chain, also after a kill and from several writers.

use std::fs;

use lifeboat_base::crashsafe::{TEMP_PREFIX, create_dir_all};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_evidence::{Chain, EvidenceError, MAX_RECORD_BYTES, verify};
use serde_json::{Value, json};

use super::tools::{Sample, at, overwrite, place, public, signer, stranger};

#[test]
fn appended_records_link_to_the_file_before_them_and_the_chain_verifies() {
    let sample = Sample::of(5);
    let records: Vec<_> = sample.chain().iter().map(Result::unwrap).collect();
    let mut previous = Digest::from_bytes([0; 32]);
    for (seq, stored) in (1..).zip(&records) {
        assert_eq!((stored.record.seq, stored.record.previous), (seq, previous));
        assert_eq!(stored.path, sample.record(seq));
        previous = Digest::of(&fs::read(&stored.path).unwrap());
        assert_eq!(stored.digest, previous);
    }
    assert_eq!(records.len(), 5);
    assert_eq!(records[0].record.body["number"], 1);
    assert_eq!(records[0].record.format, "lifeboat.evidence/v1");
    let report = sample.verify();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.records, 5);
    assert!(!report.unfinished);
    let head = sample.chain().head().unwrap().unwrap();
    assert_eq!((head.seq, head.digest, head.at), (5, previous, at(5)));
    assert_eq!(report.head, Some(head));
}

#[test]
fn records_are_found_newest_first_by_kind_and_subject() {
    let sample = Sample::of(7);
    let seqs = |kind, subject| -> Vec<u64> {
        sample.chain().find(kind, subject).map(|found| found.unwrap().record.seq).collect()
    };
    assert_eq!(seqs("backup", "orders"), [7, 5, 3, 1]);
    assert_eq!(seqs("drill", "uploads"), [6, 4, 2]);
    assert!(seqs("drill", "orders").is_empty());
    let backwards: Vec<u64> = sample.chain().iter().rev().map(|found| found.unwrap().record.seq).collect();
    assert_eq!(backwards, [7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn a_chain_that_was_never_written_is_empty_but_does_not_verify() {
    let temp = tempfile::tempdir().unwrap();
    for dir in [temp.path().to_owned(), temp.path().join("none")] {
        let chain = Chain::open(&dir).unwrap();
        assert_eq!(chain.head().unwrap(), None);
        assert_eq!(chain.iter().count(), 0);
        assert!(verify(&dir, &public(), None).is_err());
    }
    overwrite(&temp.path().join("file"), b"x");
    assert_eq!(Chain::open(&temp.path().join("file")).unwrap_err().kind(), FailureKind::Unreachable);
}

/// Which files are there, which head, how many records the next append builds on, whether the last is ahead of the head.
type State<'a> = (&'a [&'a str], Option<&'a [u8]>, u64, bool);

/// Every state a kill can leave while the first two records are written, in order.
#[test]
fn a_kill_between_any_two_writes_is_repaired_by_the_next_append() {
    let (none, one, two) = (head_before_the_first_record(), Sample::of(1), Sample::of(2));
    let one_head = fs::read(one.path("head.json")).unwrap();
    let states: [State<'_>; 6] = [
        (&[], None, 0, false),
        (&["public.key"], None, 0, false),
        (&["public.key"], Some(&none), 0, false),
        (&["public.key", "records/00000001.json"], Some(&none), 1, true),
        (&["public.key", "records/00000001.json"], Some(&one_head), 1, false),
        (&["public.key", "records/00000001.json", "records/00000002.json"], Some(&one_head), 2, true),
    ];
    for (number, (files, head, record_count, unfinished)) in states.into_iter().enumerate() {
        let sample = Sample::of(0);
        create_dir_all(&sample.path("records")).unwrap();
        overwrite(&sample.path(&format!("records/{TEMP_PREFIX}99-1")), b"half a reco");
        for name in files {
            place(&two.path(name), &sample.path(name));
        }
        if let Some(head) = head {
            overwrite(&sample.path("head.json"), head);
            let report = sample.verify();
            assert!(report.is_sound(), "state {number}: {report:?}");
            assert_eq!((report.records, report.unfinished), (record_count, unfinished), "state {number}");
        }
        assert_eq!(sample.chain().head().unwrap().map_or(0, |head| head.seq), record_count, "state {number}");
        sample.append(99);
        let report = sample.verify();
        assert!(report.is_sound() && !report.unfinished, "state {number}: {report:?}");
        assert_eq!(report.records, record_count + 1);
    }
}

fn head_before_the_first_record() -> Vec<u8> {
    let payload =
        json!({ "format": "lifeboat.evidence-head/v1", "seq": 0, "digest": "0".repeat(64), "at": at(1) });
    signer().sign("application/vnd.lifeboat.evidence-head+json", payload.to_string().as_bytes()).to_bytes()
}

#[test]
fn writers_at_the_same_time_do_not_fork_the_chain() {
    let sample = Sample::of(0);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let sample = &sample;
            scope.spawn(move || {
                for number in 0..10 {
                    sample.append(writer * 10 + number);
                    // A reader between writes never sees a broken chain.
                    assert!(sample.verify().is_sound());
                }
            });
        }
    });
    let report = sample.verify();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.records, 40);
}

#[test]
fn another_key_cannot_continue_a_chain() {
    let sample = Sample::of(2);
    let error = sample.chain().append(&stranger(), at(3), "drill", "orders", json!({})).unwrap_err();
    assert!(matches!(error, EvidenceError::OtherKey { .. }), "{error}");
    assert_eq!(error.kind(), FailureKind::Refused);
    assert!(sample.verify().is_sound());
}

#[test]
fn a_record_that_breaks_a_rule_is_refused_and_nothing_is_written() {
    let sample = Sample::of(1);
    let long = "x".repeat(600);
    let huge = Value::String("x".repeat(usize::try_from(MAX_RECORD_BYTES).unwrap()));
    for (kind, subject, body) in [
        ("", "orders", json!(1)),
        ("Drill", "orders", json!(1)),
        ("a b", "orders", json!(1)),
        ("drill", "or\nders", json!(1)),
        ("drill", long.as_str(), json!(1)),
        ("drill", "orders", huge),
    ] {
        let error = sample.chain().append(&signer(), at(2), kind, subject, body).unwrap_err();
        assert!(matches!(error, EvidenceError::InvalidRecord { .. }), "{error}");
    }
    assert_eq!(sample.verify().records, 1);
}

#[test]
fn a_damaged_or_missing_head_stops_the_chain_and_is_never_taken_for_an_empty_one() {
    for damage in 0..3 {
        let sample = Sample::of(3);
        match damage {
            0 => fs::remove_file(sample.path("head.json")).unwrap(),
            1 => overwrite(&sample.path("head.json"), b"{}"),
            _ => fs::remove_file(sample.path("public.key")).unwrap(),
        }
        let error = sample.chain().append(&signer(), at(4), "drill", "orders", json!({})).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Damaged, "{error}");
        assert_eq!(fs::read_dir(sample.path("records")).unwrap().count(), 3);
        if damage > 0 {
            assert!(sample.chain().head().is_err());
            assert!(sample.chain().iter().next().unwrap().is_err());
            assert!(sample.chain().find("drill", "uploads").next().unwrap().is_err());
        }
    }
}

#[test]
fn a_file_in_the_place_of_the_next_record_is_named_and_left_as_it_is() {
    let sample = Sample::of(3);
    let foreign = Sample::signed_by(&stranger(), 4);
    place(&foreign.record(4), &sample.record(4));
    let error = sample.chain().append(&signer(), at(4), "drill", "orders", json!({})).unwrap_err();
    assert!(error.to_string().contains("00000004.json"), "{error}");
    assert_eq!(fs::read(sample.record(4)).unwrap(), fs::read(foreign.record(4)).unwrap());
}

#[test]
fn damage_to_an_earlier_record_does_not_stop_new_ones_and_reads_as_an_error() {
    let sample = Sample::of(4);
    overwrite(&sample.record(2), b"gone");
    fs::remove_file(sample.record(4)).unwrap();
    sample.append(5);
    let results: Vec<bool> = sample.chain().iter().map(|record| record.is_ok()).collect();
    assert_eq!(results, [true, false, true, false, true]);
    // A damaged record may be the one that is looked for, so a search shows it.
    let found: Vec<_> = sample.chain().find("backup", "orders").collect();
    assert_eq!(found.iter().filter(|found| found.is_err()).count(), 2);
    assert_eq!(sample.verify().problem_count, 2);
}

#[test]
fn errors_leave_their_cause_to_the_chain_of_causes() {
    let temp = tempfile::tempdir().unwrap();
    let error = verify(&temp.path().join("none"), &public(), None).unwrap_err();
    let failure: lifeboat_base::failure::Failure = error.into();
    assert!(!failure.to_string().contains("No such file"), "{failure}");
    assert_eq!(failure.kind(), FailureKind::Unreachable);
}
