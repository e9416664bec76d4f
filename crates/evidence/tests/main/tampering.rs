//! Every kind of tampering is found and the file is named; each test is the canary of one check.

use std::fs;
use std::os::unix::fs::symlink;

use lifeboat_base::crashsafe::TEMP_PREFIX;
use lifeboat_evidence::ProblemKind::{
    Dropped, Edited, Extra, ForeignKey, Reordered, Replayed, Truncated, Unreadable,
};
use lifeboat_evidence::{Head, verify};
use proptest::prelude::*;
use serde_json::json;

use super::tools::{Sample, at, overwrite, place, poke, public, record, signer, stranger, summary};

#[test]
fn one_flipped_bit_in_any_byte_of_any_file_is_found_and_the_file_named() {
    let sample = Sample::of(3);
    let names = ["head.json".to_owned(), "public.key".to_owned(), record(1), record(2), record(3)];
    for name in names {
        let path = sample.path(&name);
        let bytes = fs::read(&path).unwrap();
        for (position, byte) in bytes.iter().copied().enumerate() {
            for bit in [position % 8, (position + 5) % 8] {
                poke(&path, position, byte ^ (1 << bit));
                let report = sample.verify();
                assert!(
                    report.problems.iter().any(|problem| problem.file == name),
                    "byte {position} bit {bit} of {name}: {report:?}"
                );
            }
            poke(&path, position, byte);
        }
    }
    assert!(sample.verify().is_sound());
}

#[test]
fn a_truncated_or_lengthened_file_is_found() {
    let sample = Sample::of(2);
    let bytes = fs::read(sample.record(2)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(sample.record(2)).unwrap();
    for length in (0..bytes.len()).rev() {
        file.set_len(length as u64).unwrap();
        assert_eq!(summary(&sample.verify().problems), [(record(2), Edited)], "{length}");
    }
    overwrite(&sample.record(2), &[bytes.as_slice(), b"\n"].concat());
    assert_eq!(summary(&sample.verify().problems), [(record(2), Edited)]);
}

#[test]
fn a_dropped_record_is_found_wherever_it_stood() {
    for (dropped, kind) in [(1, Dropped), (3, Dropped), (5, Truncated)] {
        let sample = Sample::of(5);
        fs::remove_file(sample.record(dropped)).unwrap();
        let report = sample.verify();
        assert_eq!(summary(&report.problems), [(record(dropped), kind)]);
        assert_eq!(report.problems[0].seq, Some(dropped));
        assert_eq!(report.records, 4);
    }
}

#[test]
fn a_dropped_record_whose_successors_were_renamed_is_found() {
    let sample = Sample::of(5);
    for seq in 3..5 {
        place(&sample.record(seq + 1), &sample.record(seq));
    }
    fs::remove_file(sample.record(5)).unwrap();
    assert_eq!(
        summary(&sample.verify().problems),
        [(record(3), Reordered), (record(4), Reordered), (record(5), Truncated)]
    );
}

#[test]
fn a_cut_tail_is_found_by_the_head_and_with_the_head_replayed_only_by_an_anchor() {
    let sample = Sample::of(3);
    let old_head = fs::read(sample.path("head.json")).unwrap();
    sample.append(4);
    sample.append(5);
    let anchor = sample.chain().head().unwrap();
    for seq in [4, 5] {
        fs::remove_file(sample.record(seq)).unwrap();
    }
    let report = sample.verify();
    assert_eq!(summary(&report.problems), [(record(4), Truncated)]);
    assert!(report.problems[0].message.contains("2 records"), "{report:?}");

    overwrite(&sample.path("head.json"), &old_head);
    assert!(sample.verify().is_sound(), "nothing in the directory can show this");
    let report = verify(&sample.dir, &public(), anchor).unwrap();
    assert_eq!(summary(&report.problems), [(record(4), Truncated)]);
}

#[test]
fn an_anchor_finds_a_history_rewritten_with_the_real_key() {
    let sample = Sample::of(4);
    let anchor = sample.chain().head().unwrap();
    let rewritten = Sample::of(2);
    for number in [13, 14, 15] {
        rewritten.append(number);
    }
    assert!(rewritten.verify().is_sound(), "the holder of the key can write another history");
    let report = verify(&rewritten.dir, &public(), anchor).unwrap();
    assert_eq!(summary(&report.problems), [(record(4), Edited)]);
    assert!(verify(&sample.dir, &public(), anchor).unwrap().is_sound());
    sample.append(5);
    assert!(
        verify(&sample.dir, &public(), anchor).unwrap().is_sound(),
        "an anchor is a point to pass through"
    );
}

#[test]
fn an_older_head_in_front_of_newer_records_is_found() {
    let sample = Sample::of(3);
    let old_head = fs::read(sample.path("head.json")).unwrap();
    sample.append(4);
    overwrite(&sample.path("head.json"), &old_head);
    let report = sample.verify();
    assert!(report.is_sound() && report.unfinished, "one record ahead is what a kill leaves");
    sample.append(5);
    overwrite(&sample.path("head.json"), &old_head);
    assert_eq!(summary(&sample.verify().problems), [("head.json".to_owned(), Replayed)]);
}

#[test]
fn swapped_duplicated_and_transplanted_records_are_found() {
    let sample = Sample::of(4);
    let third = fs::read(sample.record(3)).unwrap();
    place(&sample.record(2), &sample.record(3));
    overwrite(&sample.record(2), &third);
    assert_eq!(summary(&sample.verify().problems), [(record(2), Reordered), (record(3), Reordered)]);

    let sample = Sample::of(4);
    place(&sample.record(2), &sample.record(5));
    assert_eq!(summary(&sample.verify().problems), [(record(5), Reordered)]);

    // A valid record 3 of another chain of the same key.
    let other = Sample::of(1);
    for number in [12, 13] {
        other.append(number);
    }
    let sample = Sample::of(4);
    place(&other.record(3), &sample.record(3));
    assert_eq!(summary(&sample.verify().problems), [(record(3), Reordered)]);
    let sample = Sample::of(3);
    place(&other.record(3), &sample.record(3));
    assert_eq!(summary(&sample.verify().problems), [(record(3), Reordered)]);
    // Its head, too.
    let sample = Sample::of(3);
    place(&other.path("head.json"), &sample.path("head.json"));
    assert_eq!(summary(&sample.verify().problems), [("head.json".to_owned(), Reordered)]);
}

#[test]
fn an_inserted_record_and_a_whole_chain_of_a_foreign_key_are_found() {
    let foreign = Sample::signed_by(&stranger(), 4);
    let sample = Sample::of(4);
    place(&foreign.record(2), &sample.record(2));
    assert_eq!(summary(&sample.verify().problems), [(record(2), ForeignKey)]);
    let sample = Sample::of(3);
    place(&foreign.record(4), &sample.record(4));
    assert_eq!(summary(&sample.verify().problems), [(record(4), ForeignKey)]);
    assert!(foreign.verify().problems.iter().all(|problem| problem.kind == ForeignKey));
    assert_eq!(foreign.verify().problem_count, 6);
}

#[test]
fn a_signed_document_of_another_type_is_no_record() {
    let sample = Sample::of(2);
    place(&sample.path("head.json"), &sample.record(2));
    assert_eq!(summary(&sample.verify().problems), [(record(2), Edited)]);
}

#[test]
fn files_that_do_not_belong_there_are_named_and_leftovers_of_a_kill_are_not() {
    let sample = Sample::of(2);
    for name in ["records/00000002.json.bak", "records/2.json", "note.txt"] {
        overwrite(&sample.path(name), b"x");
    }
    for name in [format!("records/{TEMP_PREFIX}1-1"), format!("{TEMP_PREFIX}1-2")] {
        overwrite(&sample.path(&name), b"x");
    }
    let expected =
        ["records/00000002.json.bak", "records/2.json", "note.txt"].map(|name| (name.to_owned(), Extra));
    assert_eq!(summary(&sample.verify().problems), expected);
}

#[test]
fn a_pipe_a_link_or_a_directory_in_a_records_place_neither_hangs_nor_passes() {
    let sample = Sample::of(4);
    for seq in [1, 2, 3] {
        fs::remove_file(sample.record(seq)).unwrap();
    }
    let pipe = std::process::Command::new("mkfifo").arg(sample.record(1)).status().unwrap();
    assert!(pipe.success());
    symlink("/dev/zero", sample.record(2)).unwrap();
    fs::create_dir(sample.record(3)).unwrap();
    assert_eq!(summary(&sample.verify().problems), [1, 2, 3].map(|seq| (record(seq), Unreadable)));
}

#[test]
fn a_far_record_number_does_not_make_the_report_endless() {
    let sample = Sample::of(2);
    place(&sample.record(1), &sample.record(99_999_999));
    let report = sample.verify();
    assert_eq!(report.problem_count, 3, "{report:?}");
    assert_eq!(summary(&report.problems)[0], (record(3), Dropped));
}

#[test]
fn all_damage_is_reported_at_once() {
    let sample = Sample::of(9);
    overwrite(&sample.record(2), b"{");
    fs::remove_file(sample.record(4)).unwrap();
    place(&sample.record(6), &sample.record(7));
    fs::remove_file(sample.path("public.key")).unwrap();
    overwrite(&sample.path("extra"), b"");
    assert_eq!(
        summary(&sample.verify().problems),
        [
            ("public.key".to_owned(), Dropped),
            (record(2), Edited),
            (record(4), Dropped),
            (record(7), Reordered),
            ("extra".to_owned(), Extra),
        ]
    );
    assert_eq!(sample.verify().records, 6);
}

#[test]
fn a_report_reads_well() {
    let sample = Sample::of(4);
    let mut bytes = fs::read(sample.record(2)).unwrap();
    bytes[200] ^= 1;
    overwrite(&sample.record(2), &bytes);
    fs::remove_file(sample.record(4)).unwrap();
    let text: Vec<String> = sample.verify().problems.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(text.join("\n"), @"
    records/00000002.json was changed after it was signed (edited)
    records/00000004.json is missing (truncated)
    ");
}

#[test]
fn a_chain_that_was_emptied_is_an_error_or_truncated_but_never_sound() {
    let sample = Sample::of(3);
    let anchor = sample.chain().head().unwrap();
    for seq in 1..=3 {
        fs::remove_file(sample.record(seq)).unwrap();
    }
    assert_eq!(summary(&sample.verify().problems), [(record(1), Truncated)]);
    fs::remove_file(sample.path("head.json")).unwrap();
    assert!(verify(&sample.dir, &public(), anchor).is_err());
    // Begun again with the same key: only the anchor shows it.
    sample.append(1);
    assert!(!verify(&sample.dir, &public(), anchor).unwrap().is_sound());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn garbage_in_any_file_never_panics_and_never_passes(
        which in 0usize..4,
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let sample = Sample::of(2);
        let name = ["head.json", "public.key", "records/00000001.json", "records/00000002.json"][which];
        overwrite(&sample.path(name), &bytes);
        prop_assert!(!sample.verify().is_sound());
        drop(sample.chain().head());
        prop_assert!(sample.chain().iter().count() < 3);
    }

    #[test]
    fn signed_payloads_of_any_shape_never_panic_and_never_pass(text in "\\PC{0,40}", seq in 0u64..5) {
        let sample = Sample::of(1);
        let payloads = [
            text.clone(),
            json!({ "format": text, "seq": seq }).to_string(),
            json!({
                "format": "lifeboat.evidence/v2", "seq": 2, "previous": "0".repeat(64), "at": at(0), "kind": "x",
                "subject": text, "tool": "t", "body": null,
            })
            .to_string(),
        ];
        for payload in payloads {
            let bytes =
                signer().sign("application/vnd.lifeboat.evidence+json", payload.as_bytes()).to_bytes();
            overwrite(&sample.record(2), &bytes);
            prop_assert!(!sample.verify().is_sound());
        }
    }
}

#[test]
fn a_head_signed_for_a_record_that_never_was_is_found() {
    let sample = Sample::of(2);
    let head = Head { seq: u64::MAX, digest: sample.chain().head().unwrap().unwrap().digest, at: at(0) };
    let mut payload = serde_json::to_value(head).unwrap();
    payload["format"] = json!("lifeboat.evidence-head/v1");
    let document =
        signer().sign("application/vnd.lifeboat.evidence-head+json", payload.to_string().as_bytes());
    overwrite(&sample.path("head.json"), &document.to_bytes());
    assert_eq!(summary(&sample.verify().problems), [(record(3), Truncated)]);
    assert!(sample.chain().append(&signer(), at(3), "drill", "orders", json!({})).is_err());
}
