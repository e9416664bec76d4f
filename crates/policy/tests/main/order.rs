//! The order of restores, for every set of needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use lifeboat_policy::{Phase, Store, parse, restore_order};
use proptest::prelude::*;

const KINDS: [&str; 5] = ["vector", "files", "sqlite", "secrets", "git"];

/// A policy of stores with these kinds and needs.
fn policy(rows: &[(usize, Vec<usize>)]) -> String {
    let mut text = String::from("version = 1\n");
    for (number, (kind, needs)) in rows.iter().enumerate() {
        let kind = KINDS[kind % KINDS.len()];
        let needs: Vec<String> = needs.iter().map(|need| format!("\"s{need}\"")).collect();
        let place = if matches!(kind, "files" | "sqlite") { "path = \"x\"" } else { "url = \"env:X\"" };
        writeln!(
            text,
            "[store.s{number}]\nkind = \"{kind}\"\n{place}\nretention = \"none\"\nneeds = [{}]",
            needs.join(",")
        )
        .unwrap();
    }
    text
}

proptest! {
    /// Needs that point to lower numbers have no circle.
    #[test]
    fn everything_comes_back_once_and_after_what_it_needs(
        rows in prop::collection::vec((0..5usize, prop::collection::vec(0..20usize, 0..3)), 1..20)
    ) {
        let rows: Vec<(usize, Vec<usize>)> = rows
            .into_iter()
            .enumerate()
            .map(|(number, (kind, needs))| (kind, needs.into_iter().filter(|need| *need < number).collect()))
            .collect();
        let policy = parse(&policy(&rows), "p").unwrap();
        let all: Vec<&Store> = policy.stores.values().collect();
        let waves = restore_order(&all).unwrap();
        let wave: BTreeMap<&str, usize> = waves
            .iter()
            .enumerate()
            .flat_map(|(number, wave)| wave.iter().map(move |row| (row.name.as_str(), number)))
            .collect();
        prop_assert_eq!(wave.len(), rows.len());
        prop_assert_eq!(waves.iter().map(Vec::len).sum::<usize>(), rows.len());
        for row in &all {
            for need in &row.needs {
                prop_assert!(wave[need.as_str()] < wave[row.name.as_str()]);
            }
        }
        // Without needs of their own, and needed by nobody earlier, phases are in order.
        for one in all.iter().filter(|row| row.needs.is_empty()) {
            for other in all.iter().filter(|row| row.needs.is_empty()) {
                if Phase::of(one.kind) < Phase::of(other.kind) {
                    prop_assert!(wave[one.name.as_str()] < wave[other.name.as_str()]);
                }
            }
        }
    }

    #[test]
    fn a_circle_is_found_and_every_store_of_it_needs_the_next(length in 2..8usize, before in 0..4usize) {
        let mut rows: Vec<(usize, Vec<usize>)> =
            (0..length).map(|number| (number, vec![(number + 1) % length])).collect();
        // Stores that wait for the circle are no part of it.
        rows.extend((0..before).map(|number| (number, vec![0])));
        let errors = parse(&policy(&rows), "p").unwrap_err();
        let problem = errors.problems().iter().find(|problem| problem.code() == "circular-needs").unwrap();
        let (_, way) = problem.message().split_once(": ").unwrap();
        let way: Vec<usize> = way.split(" → ").map(|name| name[1..].parse().unwrap()).collect();
        prop_assert_eq!(way.first(), way.last());
        prop_assert_eq!(way.len(), length + 1);
        prop_assert!(way.windows(2).all(|pair| rows[pair[0]].1.contains(&pair[1])));
        prop_assert_eq!(way.iter().collect::<BTreeSet<_>>().len(), length);
    }
}

#[test]
fn what_is_outside_of_a_drill_is_not_waited_for() {
    let policy = parse(&policy(&[(0, vec![]), (1, vec![0])]), "p").unwrap();
    let rows: Vec<&Store> = policy.stores.values().filter(|row| row.name.as_str() == "s1").collect();
    assert_eq!(restore_order(&rows).unwrap().len(), 1);
}
