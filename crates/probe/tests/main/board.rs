//! Boards: a sound index passes, every damage of its answers is seen, and the same answers give the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;
use lifeboat_probe::{
    Action, Board, BoardRow, BoardVerdict, CheckContext, CheckState, DriftLevel, Dropped, Flaw, GateName,
    GoldLock, GoldSet, Identity, Lambda, ProbeError, Profile, Question, Retrieval, RunRow, Sweep, Symptom,
    board_checks, curate, decide, drift, drift_check, from_csv, from_jsonl, identity_checks, symptoms,
    to_csv, to_jsonl,
};

use super::samples::{
    PROBES, answers, board, context, found, gold, gold_set, hit, measured, measured_as, section, section_id,
    sound,
};

fn failed(board: &Board) -> Vec<GateName> {
    board.verdict.failed_gates.iter().map(|gate| gate.name).collect()
}

#[test]
fn a_sound_index_passes_every_gate() {
    let board = sound();
    assert_eq!(board.verdict.verdict, BoardVerdict::Pass, "{:#?}", board.verdict);
    assert_eq!((board.verdict.n, failed(&board)), (60, Vec::new()));
    assert_eq!(board.runs.len(), PROBES * 6);
    assert_eq!(board.verdict.citation_match, 1.0);
    assert_eq!(board.verdict.lambda.states.get("\u{2192}"), Some(&60));
    assert_eq!(decide(&Identity::default(), Some(&board), &Profile::default()).action, Action::Serve);
}

#[test]
fn the_same_answers_give_the_same_bytes_and_other_seeds_the_same_numbers() {
    let (one, two) = (sound(), sound());
    assert_eq!(to_csv(&one.rows).unwrap(), to_csv(&two.rows).unwrap());
    assert_eq!(to_jsonl(&one.runs).unwrap(), to_jsonl(&two.runs).unwrap());
    let seeded = board(|at| answers(&found(at), [7, 8]));
    assert_eq!(one.rows, seeded.rows);
    assert_eq!(one.verdict, seeded.verdict);
}

#[test]
fn the_order_in_which_probes_are_measured_changes_nothing() {
    let turned = (0..PROBES).rev().map(|at| measured(at, &answers(&found(at), [1, 2]))).collect();
    assert_eq!(Board::of(turned, &Profile::default()).unwrap(), sound());
    let twice = vec![measured(1, &answers(&found(1), [1, 2])); 2];
    assert!(matches!(Board::of(twice, &Profile::default()), Err(ProbeError::Unsorted { .. })));
    assert!(matches!(Board::of(Vec::new(), &Profile::default()), Err(ProbeError::Empty { .. })));
}

#[test]
fn an_index_that_shifted_its_ids_fails_on_everything() {
    let board = board(|at| answers(&found(at + 1), [1, 2]));
    assert_eq!(board.verdict.verdict, BoardVerdict::Fail);
    let gates = failed(&board);
    for gate in [GateName::Stress, GateName::Coverage, GateName::CoveragePassRate, GateName::Lambda] {
        assert!(gates.contains(&gate), "{gate:?} of {gates:?}");
    }
    assert_eq!(decide(&Identity::default(), Some(&board), &Profile::default()).action, Action::Rebuild);
}

#[test]
fn a_third_of_the_chunks_missing_is_seen_by_the_tails_though_the_median_is_blind() {
    let board = board(|at| {
        let hits = found(at).into_iter().filter(|hit| !(hit.k_pos == 1 && at % 3 == 0)).collect::<Vec<_>>();
        answers(&hits, [1, 2])
    });
    assert_eq!(board.verdict.coverage.median, 1.0);
    let gates = failed(&board);
    assert!(gates.contains(&GateName::CoveragePassRate) && !gates.contains(&GateName::Coverage), "{gates:?}");
    assert_eq!(decide(&Identity::default(), Some(&board), &Profile::default()).action, Action::Rebuild);
    let seen = symptoms(&Identity::default(), Some(&board), Sweep::Usual, &Profile::default());
    assert_eq!(seen, BTreeSet::from([Symptom::CoverageLow]));
}

#[test]
fn an_index_that_answers_one_wording_only_is_seen_by_lambda_alone() {
    let board = board(|at| {
        let mut runs = answers(&found(at), [1, 2]);
        if at % 4 == 0 {
            for run in runs.iter_mut().skip(4) {
                run.hits.rotate_left(1);
                run.hits.pop();
            }
        }
        runs
    });
    assert_eq!(failed(&board), [GateName::Lambda]);
    assert_eq!(board.verdict.verdict, BoardVerdict::Fail);
    assert_eq!(decide(&Identity::default(), Some(&board), &Profile::default()).action, Action::Review);
    let seen = symptoms(&Identity::default(), Some(&board), Sweep::Usual, &Profile::default());
    assert_eq!(seen, BTreeSet::from([Symptom::LambdaOnly]));
}

#[test]
fn a_store_that_is_sure_and_wrong_fails() {
    let baseline = sound();
    let context = lifeboat_probe::BoardContext { baseline_score_q3: baseline.verdict.score_q3, ..context() };
    let of = |wrong: usize| {
        let probes = (0..PROBES).map(|at| {
            let hits = if at < wrong { found(at + 1) } else { found(at) };
            measured_as(at, &answers(&hits, [1, 2]), &context)
        });
        Board::of(probes.collect(), &Profile::default()).unwrap()
    };
    assert!(!failed(&of(3)).contains(&GateName::SimilarButWrong));
    assert!(failed(&of(4)).contains(&GateName::SimilarButWrong));
    assert_eq!(baseline.verdict.similar_but_wrong, None);
}

#[test]
fn too_few_probes_two_indexes_or_nothing_found_cannot_be_judged() {
    let few = (0..49).map(|at| measured(at, &answers(&found(at), [1, 2]))).collect();
    let few = Board::of(few, &Profile::default()).unwrap();
    assert_eq!(few.verdict.verdict, BoardVerdict::Invalid);
    assert_eq!(decide(&Identity::default(), Some(&few), &Profile::default()).action, Action::Review);

    let other = lifeboat_probe::BoardContext { index_hash: Digest::of(b"other"), ..context() };
    let two = (0..PROBES).map(|at| match at {
        0 => measured_as(at, &answers(&found(at), [1, 2]), &other),
        at => measured(at, &answers(&found(at), [1, 2])),
    });
    let two = Board::of(two.collect(), &Profile::default()).unwrap();
    assert_eq!((two.verdict.verdict, failed(&two)), (BoardVerdict::Invalid, vec![GateName::Valid]));

    let nothing = |empty: usize| {
        board(|at| if at < empty { answers(&[], [1, 2]) } else { answers(&found(at), [1, 2]) })
            .verdict
            .verdict
    };
    assert_eq!(nothing(3), BoardVerdict::Pass);
    assert_eq!(nothing(4), BoardVerdict::Invalid);
}

#[test]
fn an_empty_answer_a_failed_query_and_a_bad_citation_have_their_reason() {
    let one = |change: fn(&mut Retrieval)| {
        let mut runs = answers(&found(0), [1, 2]);
        runs.iter_mut().for_each(change);
        measured(0, &runs)
    };
    let empty = one(|run| run.hits.clear());
    assert_eq!(
        (empty.row.ds_q_r, empty.row.coverage, empty.row.reason),
        (1.0, 0.0, Some(Flaw::EmptyRetrieval))
    );
    assert_eq!(empty.row.lambda_state, Lambda::Divergent);
    let broken = one(|run| run.error = Some("timeout".to_owned()));
    assert_eq!((broken.row.ds_q_r, broken.row.reason), (1.0, Some(Flaw::QueryFailed)));
    let cited = one(|run| run.citation_fault = Some("empty_citations".to_owned()));
    assert_eq!((cited.row.reason, cited.row.lambda_state), (Some(Flaw::InvalidCitation), Lambda::Divergent));
    let unknown = one(|run| run.hits.iter_mut().for_each(|hit| hit.text = " ".to_owned()));
    assert_eq!((unknown.row.ds_q_r, unknown.row.reason), (1.0, Some(Flaw::ZeroVector)));
}

#[test]
fn every_probe_the_same_is_no_measurement() {
    let probes = (0..PROBES).map(|at| {
        let mut probe = measured(at, &answers(&found(at), [1, 2]));
        probe.row.ds_q_r = 0.0;
        probe
    });
    let board = Board::of(probes.collect(), &Profile::default()).unwrap();
    assert_eq!(board.verdict.verdict, BoardVerdict::Invalid);
}

#[test]
fn a_score_that_is_no_number_has_no_board() {
    let mut runs = answers(&found(0), [1, 2]);
    runs[3].hits[2].score = f64::NAN;
    let gold = gold(0);
    let question = Question { gold: &gold, required: vec![section(0)], decoy: None };
    let refused =
        lifeboat_probe::measure(&question, &runs, &super::samples::Letters, &context(), &Profile::default());
    assert!(matches!(refused, Err(ProbeError::NotFinite { .. })), "{refused:?}");
    let five = lifeboat_probe::measure(
        &question,
        &runs[..5],
        &super::samples::Letters,
        &context(),
        &Profile::default(),
    );
    assert!(matches!(five, Err(ProbeError::Runs { .. })));
}

#[test]
fn only_the_first_k_snippets_count() {
    let mut hits: Vec<_> = (1..=10).map(|next| hit(next, next as u64)).collect();
    hits.push(hit(0, 11));
    assert_eq!(measured(0, &answers(&hits, [1, 2])).row.coverage, 0.0);
}

#[test]
fn the_sample_row_of_the_pages_passes_when_five_of_six_runs_do() {
    let mut row = sound().rows.swap_remove(0);
    (row.ds_q_r, row.coverage, row.lambda_state) = (0.38, 0.74, Lambda::Split);
    let profile = Profile::default();
    assert!(row.ds_q_r <= profile.ds_median_max && row.coverage >= profile.coverage_min);
    row.conv = 5.0 / 6.0;
    assert!(row.converges(&profile));
    row.conv = 4.0 / 6.0;
    assert!(!row.converges(&profile));
    (row.conv, row.lambda_state) = (5.0 / 6.0, Lambda::Chaotic);
    assert!(!row.converges(&profile));
}

#[test]
fn a_board_is_read_back_from_both_forms() {
    let mut rows = sound().rows;
    for (row, text) in
        rows.iter_mut().zip(["=1+1", "'=1+1", "''=x", "'quoted'", "a \"b\", c\nd", "@x", "\u{130}i"])
    {
        row.question = text.to_owned();
    }
    rows[3].reason = Some(Flaw::FlatZero);
    rows[4].lambda_state = Lambda::Chaotic;
    let csv = to_csv(&rows).unwrap();
    assert!(csv.starts_with(
        "probe_id,question,expected_section,\u{394}S_q_r,coverage,\u{3bb}_state,citations,index_family,"
    ));
    assert!(!csv.contains(",=1+1,"));
    let again = from_csv(&csv).unwrap();
    assert_eq!(to_csv(&again).unwrap(), csv);
    assert_eq!(
        again.iter().map(|row| &row.question).collect::<Vec<_>>(),
        rows.iter().map(|row| &row.question).collect::<Vec<_>>()
    );
    let ascii = csv.replacen("\u{394}S_q_r", "ds_q_r", 1).replacen("\u{3bb}_state", "lambda_state", 1);
    assert_eq!(from_csv(&ascii).unwrap(), again);
    let lines = to_jsonl(&rows).unwrap();
    assert_eq!(from_jsonl::<BoardRow>(&lines).unwrap(), again);
    let runs = sound().runs;
    let detail = to_jsonl(&runs).unwrap();
    assert_eq!(to_jsonl(&from_jsonl::<RunRow>(&detail).unwrap()).unwrap(), detail);
}

#[test]
fn a_board_that_lost_a_column_or_holds_no_number_is_refused() {
    let csv = to_csv(&sound().rows).unwrap();
    assert!(from_csv(&csv.replacen("coverage,", "covering,", 1)).is_err());
    let (head, rest) = csv.split_once("\r\n").unwrap();
    for bad in ["NaN", "inf", "", "0.4.1"] {
        let line = rest.lines().next().unwrap();
        let ds = from_csv(&csv).unwrap()[0].ds_q_r;
        let wrong = line.replacen(&format!(",{ds:.4},"), &format!(",{bad},"), 1);
        assert_ne!(wrong, line);
        assert!(from_csv(&format!("{head}\r\n{wrong}\r\n")).is_err(), "{bad}");
    }
}

#[test]
fn drift_is_told_against_a_board_that_was_measured_the_same_way() {
    let (before, profile) = (sound(), Profile::default());
    let same = drift((&before.rows, &before.verdict), (&before.rows, &before.verdict), &profile).unwrap();
    assert_eq!((same.level, same.within_regions, same.probes.len()), (DriftLevel::None, true, 0));
    let broken = board(|at| answers(&found(if at < 12 { at + 1 } else { at }), [1, 2]));
    let told = drift((&before.rows, &before.verdict), (&broken.rows, &broken.verdict), &profile).unwrap();
    assert_eq!(told.level, DriftLevel::Stop, "{told:#?}");
    assert!(!told.within_regions && told.probes.len() == 12);
    let fields: Vec<&str> = told.crossed.iter().map(|crossed| crossed.field.as_str()).collect();
    assert!(fields.contains(&"ds_mean") && fields.contains(&"coverage_mean"), "{fields:?}");
    let mut other = before.clone();
    for row in &mut other.rows {
        row.embedder_hash = Digest::of(b"another embedder");
    }
    let refused = drift((&before.rows, &before.verdict), (&other.rows, &other.verdict), &profile);
    assert!(matches!(refused, Err(ProbeError::NotComparable { field: "embedder_hash", .. })));
    let refused = drift((&before.rows, &before.verdict), (&before.rows[1..], &before.verdict), &profile);
    assert!(matches!(refused, Err(ProbeError::NotComparable { .. })));
}

#[test]
fn checks_that_could_not_be_made_are_unproven() {
    let profile = Profile::default();
    let evidence = ["probes_after.csv".to_owned()];
    let context = CheckContext { ts: "2026-11-22T02:00:00Z", evidence: &evidence, profile: &profile };
    let states = |board: Option<&Board>| {
        let results = board_checks(board, &context).unwrap();
        results.iter().map(|result| (result.check_id.clone(), result.state)).collect::<Vec<_>>()
    };
    let all = |state| ["SEM-1", "SEM-2", "SEM-3"].map(|id| (id.to_owned(), state)).to_vec();
    assert_eq!(states(None), all(CheckState::Unproven));
    assert_eq!(states(Some(&sound())), all(CheckState::Passed));
    assert_eq!(states(Some(&board(|at| answers(&found(at + 1), [1, 2])))), all(CheckState::Failed));
    let none = board(|_| answers(&[], [1, 2]));
    assert_eq!(states(Some(&none)), all(CheckState::Unproven));
    assert!(!drift_check(None, &context).unwrap().pass());
    let identity = identity_checks(None, &context).unwrap();
    assert!(identity.iter().all(|result| result.state == CheckState::Unproven));
    let sound = identity_checks(Some(&Identity::default()), &context).unwrap();
    assert!(sound.iter().all(lifeboat_probe::CheckResult::pass));
}

#[test]
fn curation_lets_in_what_a_sound_index_answers() {
    let set = gold_set(PROBES);
    let board = board(|at| answers(&found(if at == 7 { at + 1 } else { at }), [1, 2]));
    let near: BTreeMap<String, f64> = set
        .probes()
        .map(|probe| (probe.qid.clone(), if probe.qid == "p-009" { 0.36 } else { 0.2 }))
        .collect();
    let critical: BTreeSet<String> = (0..PROBES).map(section_id).collect();
    let profile = Profile::default();
    let curated = curate(&set, &board.rows, &near, &critical, &profile).unwrap();
    assert_eq!(
        curated.dropped,
        BTreeMap::from([("p-007".to_owned(), vec![Dropped::TooFar, Dropped::NotConvergent])])
    );
    assert_eq!(
        (curated.kept.probes().len(), curated.far_from_anchor, curated.lacks.len()),
        (59, vec!["p-009".to_owned()], 0)
    );
    let few = curate(&set, &board.rows[..40], &near, &critical, &profile).unwrap();
    assert_eq!(few.dropped.values().filter(|why| **why == [Dropped::NotMeasured]).count(), 20);
    assert_eq!(few.lacks.len(), 2, "{:?}", few.lacks);
}

#[test]
fn a_gold_set_is_known_by_its_text_and_frozen() {
    let set = gold_set(PROBES);
    let text = set.to_jsonl().unwrap();
    assert_eq!(GoldSet::from_jsonl(&text).unwrap(), set);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.reverse();
    assert_eq!(GoldSet::from_jsonl(&lines.join("\n")).unwrap().version().unwrap(), set.version().unwrap());
    let lock = GoldLock {
        schema: GoldLock::SCHEMA.to_owned(),
        gold_version: set.version().unwrap(),
        n: 60,
        embedder_id: "letters".to_owned(),
        embedder_hash: Digest::of(b"letters v1"),
        sections_hash: Digest::of(b"sections"),
        questions_hash: None,
        index_hash: Digest::of(b"index"),
        profile_hash: Profile::default().hash().unwrap(),
    };
    lock.check(&set, "letters", Digest::of(b"letters v1")).unwrap();
    assert!(lock.check(&gold_set(PROBES - 1), "letters", Digest::of(b"letters v1")).is_err());
    assert!(lock.check(&set, "letters", Digest::of(b"letters v2")).is_err());
    assert!(lock.check(&set, "others", Digest::of(b"letters v1")).is_err());
}

#[test]
fn a_gold_question_that_breaks_a_rule_is_refused_with_its_id() {
    let refused = |change: fn(&mut lifeboat_probe::GoldProbe)| {
        let mut probe = gold(3);
        change(&mut probe);
        GoldSet::new([probe]).unwrap_err().to_string()
    };
    let changes: [fn(&mut lifeboat_probe::GoldProbe); 10] = [
        |probe| probe.paraphrases.truncate(2),
        |probe| probe.paraphrases[1] = probe.paraphrases[0].clone(),
        |probe| probe.paraphrases[1] = "  ".to_owned(),
        |probe| probe.question = String::new(),
        |probe| probe.anchor = None,
        |probe| probe.answerable = false,
        |probe| probe.anchor.as_mut().unwrap().hash = Digest::of(b"other"),
        |probe| probe.anchor.as_mut().unwrap().section_id = "elsewhere".to_owned(),
        |probe| probe.anchor.as_mut().unwrap().offsets = probe.anchor.as_ref().unwrap().offsets.widened(1),
        |probe| probe.decoy_section = Some(probe.expected_section.clone()),
    ];
    for change in changes {
        assert!(refused(change).starts_with("gold question `p-003` is not valid: "));
    }
    assert!(GoldSet::new([gold(3), gold(3)]).is_err());
    let long = format!("{{\"qid\":\"{}\"}}", "x".repeat(300 << 10));
    assert!(matches!(GoldSet::from_jsonl(&long), Err(ProbeError::TooMany { .. })));
    let set = gold_set(2);
    let document = "x".repeat(500);
    assert!(!set.get("p-001").unwrap().anchor.as_ref().unwrap().resolves(&document));
}
