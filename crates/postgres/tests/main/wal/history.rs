//! Timeline histories: read as the server reads them, printed as it prints them, followed as it follows them.

use lifeboat_postgres::Lsn;
use lifeboat_postgres::wal::{
    HistoryError, Span, TimelineHistory, history_name, newest_timeline, parse_history_name,
};
use proptest::prelude::*;

const SEGMENT: u32 = 16 << 20;

/// Any history a server can have made, with its name.
fn histories() -> impl Strategy<Value = TimelineHistory> {
    proptest::collection::vec((1u32..5, 0u64..50, "[a-z ]{0,20}"), 0..8).prop_map(|steps| {
        let mut history = TimelineHistory::root(1);
        for (ahead, megabytes, reason) in steps {
            let timeline = history.timeline() + ahead;
            history = history.fork(timeline, Lsn(megabytes << 20), &reason).unwrap();
        }
        history
    })
}

/// As the server looks a position up: from the newest entry to the oldest, the first that holds it.
fn owner_as_the_server_finds_it(history: &TimelineHistory, at: Lsn) -> u32 {
    let (mut begin, mut entries) = (Lsn(0), Vec::new());
    for fork in history.forks() {
        entries.push((fork.parent, begin, Some(fork.switch)));
        begin = fork.switch;
    }
    entries.push((history.timeline(), begin, None));
    entries.reverse();
    let holds = |entry: &&(u32, Lsn, Option<Lsn>)| {
        // For the server a switch at 0 is no bound at all.
        (entry.1 == Lsn(0) || entry.1 <= at) && entry.2.is_none_or(|end| end == Lsn(0) || at < end)
    };
    entries.iter().find(holds).unwrap().0
}

proptest! {
    #[test]
    fn a_printed_history_reads_as_it_was(history in histories()) {
        let name = history_name(history.timeline());
        prop_assert_eq!(TimelineHistory::parse(&name, &history.to_string()), Ok(history));
    }

    #[test]
    fn a_position_has_the_owner_that_the_server_finds(history in histories(), megabytes in 0u64..60) {
        let at = Lsn(megabytes << 20);
        let owner = owner_as_the_server_finds_it(&history, at);
        prop_assert_eq!(history.timeline_at(at), owner);
        prop_assert!(history.contains(owner, at));
        prop_assert!(!history.contains(owner + 1, at));
    }

    #[test]
    fn spans_cover_the_log_without_gap_or_overlap(history in histories()) {
        let spans = history.spans();
        prop_assert_eq!(spans[0].begin, Lsn(0));
        prop_assert!(spans.windows(2).all(|pair| pair[0].end == Some(pair[1].begin)));
        prop_assert!(spans.iter().all(|span| span.end.is_none_or(|end| span.begin < end)));
        let last = spans[spans.len() - 1];
        prop_assert_eq!((last.timeline, last.end), (history.timeline(), None));
        for span in &spans {
            prop_assert_eq!(history.timeline_at(span.begin), span.timeline);
            prop_assert_eq!(history.switch_from(span.timeline), span.end);
        }
    }
}

#[test]
fn a_servers_file_is_read_and_printed_byte_for_byte() {
    let text = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000060\tbefore transaction 740 commits\n";
    let history = TimelineHistory::parse("00000003.history", text).unwrap();
    assert_eq!(history.to_string(), text);
    let spans = history.spans().into_iter().map(|span| (span.timeline, span.begin, span.end));
    let (first, second) = (Lsn(0x300_0148), Lsn(0x500_0060));
    let expected = [(1, Lsn(0), Some(first)), (2, first, Some(second)), (3, second, None)];
    assert_eq!(spans.collect::<Vec<_>>(), expected);
    assert_eq!((history.timeline_at(Lsn(first.0 - 1)), history.timeline_at(first)), (1, 2));
}

#[test]
fn a_timeline_that_was_followed_but_never_reached_owns_nothing() {
    let text = "1\t0/5000000\ta\n\n2\t0/3000000\tb\n";
    let history = TimelineHistory::parse("00000003.history", text).unwrap();
    let at = Lsn(0x300_0000);
    let expected =
        [Span { timeline: 1, begin: Lsn(0), end: Some(at) }, Span { timeline: 3, begin: at, end: None }];
    assert_eq!(history.spans(), expected);
    assert_eq!(history.timeline_at(Lsn(0x400_0000)), 3);
    assert_eq!(history.switch_from(2), None);
}

#[test]
fn comments_and_missing_reasons_are_as_fine_as_for_the_server() {
    let history =
        TimelineHistory::parse("0000000A.history", "# kept by hand\n\n  4 1/20\n 7\t1/30\tx y\n").unwrap();
    let forks: Vec<_> =
        history.forks().iter().map(|fork| (fork.parent, fork.switch, fork.reason.as_str())).collect();
    assert_eq!(forks, [(4, Lsn(0x1_0000_0020), ""), (7, Lsn(0x1_0000_0030), "x y")]);
}

#[test]
fn files_that_the_server_would_refuse_are_refused() {
    for (name, text, error) in [
        ("2.history", "", HistoryError::Name("2.history".to_owned())),
        ("00000000.history", "", HistoryError::Name("00000000.history".to_owned())),
        ("00000002.history", "1 0/z\n", HistoryError::Line { line: 1 }),
        ("00000002.history", "\none\t0/1\n", HistoryError::Line { line: 2 }),
        ("00000002.history", "1\n", HistoryError::Line { line: 1 }),
        ("00000002.history", "2\t0/1\n", HistoryError::Order { line: 1 }),
        ("00000002.history", "0\t0/1\n", HistoryError::Order { line: 1 }),
        ("00000004.history", "1\t0/1\n1\t0/2\n", HistoryError::Order { line: 2 }),
    ] {
        assert_eq!(TimelineHistory::parse(name, text), Err(error), "{name} {text:?}");
    }
}

#[test]
fn a_segment_is_looked_for_on_the_newest_timeline_that_reaches_it() {
    let switch = Lsn(u64::from(SEGMENT) * 3 + 500);
    let history = TimelineHistory::root(1).fork(2, switch, "").unwrap();
    assert_eq!(history.segment_timelines(Lsn(u64::from(SEGMENT) * 2), SEGMENT), [1]);
    assert_eq!(history.segment_timelines(Lsn(u64::from(SEGMENT) * 3), SEGMENT), [2, 1]);
}

#[test]
fn latest_is_the_last_timeline_before_a_gap() {
    let existing = [2, 3, 5];
    let newest = |start| newest_timeline(start, |timeline| existing.contains(timeline));
    assert_eq!((newest(1), newest(3), newest(4)), (3, 3, 5));
    assert_eq!(
        (history_name(0x1F), parse_history_name("0000001F.history")),
        ("0000001F.history".to_owned(), Some(31))
    );
}
