//! λ: whether an index answers one question the same way however it is asked.
//!
//! In: what six runs of a probe found, three paraphrases with two seeds each. Out: a state per run, per probe, and the
//! board's rates. Agreement of what was retrieved decides, never a trend of numbers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::number::{finite, share};
use crate::profile::{PARAPHRASES_COUNT, Profile, RUNS_COUNT, SEEDS_COUNT};

/// A state of a run or of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Lambda {
    /// `→`: it found what it should.
    Convergent,
    /// `←`: it failed, or found nothing.
    Divergent,
    /// `<>`: it missed where others did not.
    Split,
    /// `×`: it has nothing in common with any other run.
    Chaotic,
}

impl Lambda {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Convergent, Self::Divergent, Self::Split, Self::Chaotic];

    /// The sign in a board.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Convergent => "\u{2192}",
            Self::Divergent => "\u{2190}",
            Self::Split => "<>",
            Self::Chaotic => "\u{d7}",
        }
    }

    /// The number for a chart.
    pub fn number(self) -> u8 {
        match self {
            Self::Convergent => 0,
            Self::Divergent => 1,
            Self::Split => 2,
            Self::Chaotic => 3,
        }
    }

    /// Reads a sign or any of the words in use for it.
    pub fn read(text: &str) -> Option<Self> {
        match text.trim().to_lowercase().as_str() {
            "\u{2192}" | "->" | "convergent" => Some(Self::Convergent),
            "\u{2190}" | "<-" | "divergent" => Some(Self::Divergent),
            "<>" | "recursive" | "split" | "transitional" => Some(Self::Split),
            "\u{d7}" | "x" | "chaotic" | "collapse" => Some(Self::Chaotic),
            _ => None,
        }
    }
}

impl TryFrom<String> for Lambda {
    type Error = ProbeError;

    fn try_from(text: String) -> Result<Self, ProbeError> {
        let why = "expected one of \u{2192}, \u{2190}, <>, \u{d7}";
        Self::read(&text).ok_or_else(|| ProbeError::invalid(format!("the state `{text}`"), why))
    }
}

impl From<Lambda> for String {
    fn from(state: Lambda) -> Self {
        state.sign().to_owned()
    }
}

/// What one run of a probe came to.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFacts {
    /// It ended in an error or a timeout, or its citations break a rule.
    pub is_broken: bool,
    /// The sections of its top-k snippets; empty when nothing was found.
    pub sections: BTreeSet<String>,
    /// Its coverage.
    pub coverage: f64,
    /// Its ΔS between question and rank-1 snippet.
    pub ds: f64,
}

/// What six runs say about one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeLambda {
    /// The state of each run, paraphrase by paraphrase.
    pub runs: Vec<Lambda>,
    /// The state of the probe.
    pub state: Lambda,
    /// How many runs converge.
    pub convergent_count: u64,
    /// How many paraphrases have a run that differs from the most frequent state.
    pub flip_count: u64,
    /// Whether enough of it converges. A probe may be called split and still do.
    pub is_convergent: bool,
}

impl ProbeLambda {
    /// The share of runs that converge.
    pub fn conv(&self) -> f64 {
        share(self.convergent_count, self.runs.len() as u64)
    }

    /// Decides from the runs: those of the first paraphrase by seed, then those of the second, then of the third.
    pub fn decide(probe: &str, runs: &[RunFacts], profile: &Profile) -> Result<Self, ProbeError> {
        if runs.len() != RUNS_COUNT {
            return Err(ProbeError::Runs { probe: probe.to_owned(), found: runs.len() });
        }
        for run in runs {
            finite("ΔS of a run", run.ds)?;
            finite("coverage of a run", run.coverage)?;
        }
        let states = runs.iter().enumerate().map(|(at, run)| run_state(at, run, runs, profile));
        Self::of_states(probe, states.collect(), profile)
    }

    /// The same from states that are known already.
    pub fn of_states(probe: &str, runs: Vec<Lambda>, profile: &Profile) -> Result<Self, ProbeError> {
        if runs.len() != RUNS_COUNT {
            return Err(ProbeError::Runs { probe: probe.to_owned(), found: runs.len() });
        }
        let state = probe_state(&runs);
        let modal = modal(&runs);
        let pairs = runs.chunks(SEEDS_COUNT).take(PARAPHRASES_COUNT);
        let flips = pairs.filter(|pair| pair.iter().any(|state| *state != modal)).count();
        let convergent_count = count(&runs, Lambda::Convergent);
        let enough = share(convergent_count, runs.len() as u64) >= profile.lambda_conv_rate_min;
        let is_convergent = enough && !runs.contains(&Lambda::Chaotic);
        Ok(Self { runs, state, convergent_count, flip_count: flips as u64, is_convergent })
    }
}

fn run_state(at: usize, run: &RunFacts, runs: &[RunFacts], profile: &Profile) -> Lambda {
    if run.is_broken || run.sections.is_empty() {
        return Lambda::Divergent;
    }
    let hit = run.coverage >= profile.coverage_min;
    if hit && run.ds < profile.ds_rebuild_min {
        return Lambda::Convergent;
    }
    let others = runs.iter().enumerate().filter(|(other, _)| *other != at);
    let nearest = others.map(|(_, other)| jaccard(&run.sections, &other.sections)).fold(0.0, f64::max);
    if !hit && nearest < profile.lambda_align_min { Lambda::Chaotic } else { Lambda::Split }
}

fn count(runs: &[Lambda], state: Lambda) -> u64 {
    runs.iter().filter(|run| **run == state).count() as u64
}

fn probe_state(runs: &[Lambda]) -> Lambda {
    if runs.contains(&Lambda::Chaotic) {
        Lambda::Chaotic
    } else if count(runs, Lambda::Divergent) >= 2 {
        Lambda::Divergent
    } else if runs.iter().all(|state| *state == Lambda::Convergent) {
        Lambda::Convergent
    } else {
        Lambda::Split
    }
}

/// The most frequent state; of two that are as frequent the one with the smaller number.
fn modal(runs: &[Lambda]) -> Lambda {
    let mut best = Lambda::Convergent;
    for state in Lambda::ALL {
        if count(runs, state) > count(runs, best) {
            best = state;
        }
    }
    best
}

/// How much two sets have in common: 1 is all, 0 nothing; two empty sets have nothing in common.
pub fn jaccard<T: Ord>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> f64 {
    let both = a.intersection(b).count() as u64;
    share(both, (a.len() + b.len()) as u64 - both)
}

/// The rates of a board.
#[derive(Clone, Debug, PartialEq)]
pub struct BoardLambda {
    /// The share of runs that converge.
    pub conv_rate: f64,
    /// How many probes are in each state, by its number.
    pub states: [u64; 4],
    /// The share of paraphrases that flip.
    pub flip_rate: f64,
    /// Whether rates and shares are within the profile's bounds.
    pub passes: bool,
}

impl BoardLambda {
    /// Judges the probes of a board; none at all is refused.
    pub fn of(probes: &[&ProbeLambda], profile: &Profile) -> Result<Self, ProbeError> {
        if probes.is_empty() {
            return Err(ProbeError::Empty { what: "the board".to_owned() });
        }
        let mut states = [0; 4];
        let (mut convergent, mut runs, mut flips) = (0, 0, 0);
        for probe in probes {
            if let Some(count) = states.get_mut(usize::from(probe.state.number())) {
                *count += 1;
            }
            convergent += probe.convergent_count;
            runs += probe.runs.len() as u64;
            flips += probe.flip_count;
        }
        let all = probes.len() as u64;
        let [_, _, split, chaotic] = states;
        let conv_rate = share(convergent, runs);
        let passes = conv_rate >= profile.lambda_conv_rate_min
            && share(chaotic, all) <= profile.lambda_chaos_max
            && share(split, all) <= profile.lambda_split_max;
        Ok(Self { conv_rate, states, flip_rate: share(flips, all * PARAPHRASES_COUNT as u64), passes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Lambda::{Chaotic, Convergent, Divergent, Split};
    use super::*;

    fn of(states: [Lambda; 6]) -> ProbeLambda {
        ProbeLambda::of_states("p-001", states.to_vec(), &Profile::default()).unwrap()
    }

    fn board(probes: &[ProbeLambda]) -> BoardLambda {
        BoardLambda::of(&probes.iter().collect::<Vec<_>>(), &Profile::default()).unwrap()
    }

    fn run(coverage: f64, ds: f64, sections: &[&str]) -> RunFacts {
        let sections = sections.iter().map(|section| (*section).to_owned()).collect();
        RunFacts { is_broken: false, sections, coverage, ds }
    }

    fn decide(runs: &[RunFacts]) -> ProbeLambda {
        ProbeLambda::decide("p-001", runs, &Profile::default()).unwrap()
    }

    #[test]
    fn the_example_of_the_source_page_fails() {
        let probe = of([Convergent, Convergent, Split, Convergent, Chaotic, Convergent]);
        assert_eq!((probe.conv() * 1000.0).round(), 667.0);
        assert_eq!((probe.state, probe.is_convergent), (Chaotic, false));
        assert!(!board(&[probe]).passes);
    }

    #[test]
    fn six_of_six_converge_and_five_are_called_split_but_will_do() {
        let all = of([Convergent; 6]);
        assert_eq!((all.state, all.is_convergent, all.flip_count), (Convergent, true, 0));
        let five = of([Convergent, Convergent, Convergent, Split, Convergent, Convergent]);
        assert_eq!((five.state, five.is_convergent, five.flip_count), (Split, true, 1));
        let four = of([Convergent, Convergent, Split, Split, Convergent, Convergent]);
        assert!(!four.is_convergent);
    }

    #[test]
    fn one_failed_run_is_a_split_and_two_diverge() {
        let one = of([Convergent, Convergent, Convergent, Convergent, Convergent, Divergent]);
        assert_eq!((one.state, one.is_convergent), (Split, true));
        let two = of([Convergent, Convergent, Convergent, Convergent, Divergent, Divergent]);
        assert_eq!((two.state, two.is_convergent), (Divergent, false));
    }

    #[test]
    fn a_run_is_judged_by_what_it_found() {
        let good = run(0.70, 0.5999, &["a", "b"]);
        let mut runs = vec![good; 6];
        assert_eq!(decide(&runs).state, Convergent);
        runs[5] = run(0.70, 0.60, &["a", "b"]);
        assert_eq!(decide(&runs).runs[5], Split);
        runs[5] = run(0.69, 0.30, &["a", "c"]);
        assert_eq!(decide(&runs).runs[5], Split);
        runs[5] = run(0.0, 0.30, &["x", "y"]);
        assert_eq!(decide(&runs).runs[5], Chaotic);
        runs[5] = run(1.0, 0.30, &[]);
        assert_eq!(decide(&runs).runs[5], Divergent);
        runs[5] = RunFacts { is_broken: true, ..run(1.0, 0.30, &["a"]) };
        assert_eq!(decide(&runs).runs[5], Divergent);
    }

    #[test]
    fn fewer_runs_and_numbers_that_are_none_are_refused() {
        let five = vec![run(1.0, 0.3, &["a"]); 5];
        assert!(matches!(ProbeLambda::decide("p", &five, &Profile::default()), Err(ProbeError::Runs { .. })));
        for bad in [run(f64::NAN, 0.3, &["a"]), run(1.0, f64::INFINITY, &["a"])] {
            let runs = vec![bad; 6];
            assert!(ProbeLambda::decide("p", &runs, &Profile::default()).is_err());
        }
    }

    #[test]
    fn every_spelling_is_understood() {
        let spellings = [
            ("\u{2192}", Convergent),
            ("->", Convergent),
            ("Convergent", Convergent),
            ("\u{2190}", Divergent),
            ("<-", Divergent),
            ("divergent", Divergent),
            ("<>", Split),
            ("recursive", Split),
            ("split", Split),
            ("transitional", Split),
            ("\u{d7}", Chaotic),
            ("x", Chaotic),
            ("chaotic", Chaotic),
            ("collapse", Chaotic),
        ];
        for (text, state) in spellings {
            assert_eq!(Lambda::read(text), Some(state), "{text}");
        }
        assert_eq!(Lambda::read("fine"), None);
        assert_eq!(Lambda::ALL.map(Lambda::number), [0, 1, 2, 3]);
    }

    #[test]
    fn a_board_tolerates_one_split_probe_in_ten_and_no_chaos() {
        let (whole, split) =
            (of([Convergent; 6]), of([Convergent, Convergent, Convergent, Convergent, Convergent, Split]));
        let mut probes = vec![whole; 9];
        probes.push(split.clone());
        assert!(board(&probes).passes);
        probes[0] = split;
        assert!(!board(&probes).passes);
        let chaotic = of([Convergent, Convergent, Convergent, Convergent, Convergent, Chaotic]);
        let mut many = vec![of([Convergent; 6]); 99];
        many.push(chaotic);
        assert!(!board(&many).passes);
        assert!(BoardLambda::of(&[], &Profile::default()).is_err());
    }

    fn any_state() -> impl Strategy<Value = Lambda> {
        prop::sample::select(Lambda::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn the_order_of_seeds_and_paraphrases_changes_nothing(states in prop::array::uniform6(any_state()), turn in 0usize..3) {
            let probe = of(states);
            let mut swapped = states;
            swapped.rotate_left(turn * 2);
            swapped.swap(2, 3);
            let other = of(swapped);
            prop_assert_eq!((probe.state, probe.conv().to_bits(), probe.flip_count, probe.is_convergent),
                (other.state, other.conv().to_bits(), other.flip_count, other.is_convergent));
            prop_assert!((0.0..=1.0).contains(&probe.conv()) && probe.flip_count <= 3);
        }

        #[test]
        fn boards_do_not_depend_on_the_order_of_probes(all in prop::collection::vec(prop::array::uniform6(any_state()), 1..20)) {
            let mut probes: Vec<ProbeLambda> = all.into_iter().map(of).collect();
            let straight = board(&probes);
            probes.reverse();
            prop_assert_eq!(straight, board(&probes));
        }
    }
}
