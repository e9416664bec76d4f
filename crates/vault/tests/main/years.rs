//! Years of retention in one test: a point every hour, holds placed here and on machines that see only one copy, releases,
//! policies that change, clocks that jump, copies that go away and come back, records that vanish, kills between any two
//! steps. Three times a day all that must stay is there, and in the end nothing else is.
//!
//! `LIFEBOAT_YEARS_SEED` repeats a run, `LIFEBOAT_YEARS_DAYS=1095` makes it three years.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails, fails the test; the seed is printed so that it can be repeated"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::ids::{HoldId, PointId};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{TimeZone, Timestamp};
use lifeboat_policy::{Candidate, Decided, Gfs, Rules, Soundness, Verdict, ceiling, decide};
use lifeboat_vault::holds::{HOLD_FORMAT, Hold, HoldScope, Holds, RELEASE_FORMAT, Release};
use lifeboat_vault::retire::{
    BadBlobs, DroppedPoint, Filed, RetireOptions, RetirePlan, RetireReport, Wanted,
};
use lifeboat_vault::storage::{MemoryStorage, Storage};
use lifeboat_vault::{CheckLevel, PointManifest, Vault, VaultError};

use super::storage::{Fault, FaultyStorage};
use super::support::{Fixture, Model, backup_at, noise, point_id, restore};

/// Days of an ordinary run.
const DAYS: u32 = 10;
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
const POLICIES: [&str; 4] = ["7d 4w", "24h 3d", "2d 2w 3mo", "1d 1w 12mo 1y"];
/// Calls of a storage after which a kill is put, at most.
const LATEST_KILL: u64 = 500;

#[expect(clippy::disallowed_methods, reason = "a run is repeated by hand")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()].clone()
    }
}

/// A point as the test knows it.
#[derive(Clone)]
struct Known {
    manifest: PointManifest,
    /// Its own number and that of an older point some of whose content it has again.
    numbers: (u32, u32),
}

/// Much stays from point to point, something is new, and now and then what was gone comes back.
fn content((number, old): (u32, u32)) -> Model {
    Model::new()
        .file("data/same", noise(1, 3_000))
        .file("data/month", noise(u64::from(number / 720) + 1_000, 2_000))
        .file("data/own", noise(u64::from(number) + 10_000, 700))
        .file("data/again", noise(u64::from(old) + 10_000, 700))
}

#[derive(Debug, Default)]
struct Counts {
    made: u32,
    dropped: u32,
    kills: u32,
    holds: u32,
    lost_records: u32,
}

struct World {
    random: Random,
    faulty: [Arc<FaultyStorage>; 2],
    copies: [Vault; 2],
    away: Option<usize>,
    /// Points that no record names.
    known: BTreeMap<PointId, Known>,
    /// Every point that was ever made.
    all: BTreeMap<PointId, Known>,
    /// What a copy had when a hold in it, or in the chain, covered it: it has to stay there.
    guarded: BTreeSet<(usize, PointId)>,
    captures: Vec<Timestamp>,
    confirmed: Option<Timestamp>,
    /// What the chain knows.
    filed: Filed,
    keep: Gfs,
    now: Timestamp,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> Self {
        let faulty = [(); 2].map(|()| Arc::new(FaultyStorage::new(Arc::new(MemoryStorage::new()))));
        let first = Fixture::new().create(Arc::clone(&faulty[0]) as Arc<dyn Storage>).unwrap();
        let second = Vault::adopt(Arc::clone(&faulty[1]) as Arc<dyn Storage>, &first).unwrap();
        Self {
            random: Random(seed | 1),
            faulty,
            copies: [first, second],
            away: None,
            known: BTreeMap::new(),
            all: BTreeMap::new(),
            guarded: BTreeSet::new(),
            captures: Vec::new(),
            confirmed: None,
            filed: Filed::default(),
            keep: POLICIES[0].parse().unwrap(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            counts: Counts::default(),
        }
    }

    fn open(&self) -> Vec<&Vault> {
        let there = self.copies.iter().enumerate().filter(|(number, _)| self.away != Some(*number));
        there.map(|(_, vault)| vault).collect()
    }

    /// From now on some call of one copy fails, and all after it, sometimes.
    fn maybe_kill(&mut self, chance: u64) {
        if self.random.one_in(chance) {
            let (number, call) = (self.random.below(2), self.random.below(LATEST_KILL));
            self.faulty[usize::from(number == 1)].fail_at(call, Fault::Dead);
        }
    }

    /// Whether a kill was met.
    fn revive(&mut self) -> bool {
        let reached = self.faulty.each_ref().map(|faulty| faulty.heal()).contains(&true);
        self.counts.kills += u32::from(reached);
        reached
    }

    fn make_equal(&self) -> Result<(), VaultError> {
        let open = self.open();
        if let Some(other) = open.get(1) {
            other.copy_to(open[0], &Findings::new())?;
            open[0].copy_to(other, &Findings::new())?;
        }
        Ok(())
    }

    fn backup(&mut self) {
        self.counts.made += 1;
        let number = self.counts.made;
        let numbers = (number, u32::try_from(self.random.below(u64::from(number))).unwrap());
        self.maybe_kill(40);
        let made = backup_at(self.open()[0], number, &content(numbers), self.now);
        let equal = made.as_ref().ok().map(|_| self.make_equal());
        let met = self.revive();
        assert!(met || (made.is_ok() && equal.is_some_and(|equal| equal.is_ok())), "{made:?}");
        self.captures.push(self.now);
        // One that was killed may have made its point all the same.
        let id = point_id(number);
        let entries = self.copies.iter().flat_map(|vault| vault.points().unwrap());
        let found =
            entries.into_iter().find_map(|entry| entry.manifest().filter(|own| own.id == id).cloned());
        if let Some(manifest) = found {
            let known = Known { manifest, numbers };
            self.all.insert(id.clone(), known.clone());
            self.known.insert(id, known);
        }
    }

    fn holds(&self) -> Holds {
        let mut holds = self.filed.holds.clone();
        self.open().iter().for_each(|vault| holds.merge(vault.holds().unwrap()));
        holds
    }

    /// The verdicts, as retention makes them.
    fn decided(&self) -> Decided {
        let holds = self.holds();
        let listed: BTreeSet<PointId> = self
            .open()
            .iter()
            .flat_map(|vault| vault.points().unwrap())
            .filter_map(|entry| entry.id().cloned())
            .collect();
        let candidate = |known: &Known| {
            let (id, moment) = (&known.manifest.id, known.manifest.facts.consistency.moment);
            Candidate {
                id: id.clone(),
                moment,
                ended: known.manifest.ended,
                complete: true,
                soundness: if listed.contains(id) { Soundness::Sound } else { Soundness::Away },
                restored: false,
                holds: holds.covering(id, moment).map(ToString::to_string).collect(),
            }
        };
        let interval = Some(HOUR);
        let rules = Rules {
            keep: self.keep,
            window: None,
            minimum: None,
            interval,
            ceiling: ceiling(&self.captures, (self.keep, interval), self.confirmed, self.now),
            borne_out: None,
            zone: &TimeZone::UTC,
        };
        decide(&rules, self.known.values().map(candidate).collect(), self.now)
    }

    fn retain(&self, decided: Decided) -> Result<RetireReport, VaultError> {
        self.make_equal()?;
        let open = self.open();
        for vault in &open {
            vault.mend_holds(&self.filed.holds)?;
        }
        let in_doubt = decided.doubt.is_some_and(|gap| gap.needs_word);
        let drop: Vec<DroppedPoint> = decided
            .points
            .into_iter()
            .filter_map(|point| match point.verdict {
                Verdict::Deletable { since, because } if !in_doubt => {
                    let manifest = &self.known[&point.id].manifest;
                    let moment = manifest.facts.consistency.moment;
                    Some(DroppedPoint { id: point.id, moment, snapshot: manifest.snapshot, since, because })
                }
                _ => None,
            })
            .collect();
        let options =
            RetireOptions { now: self.now, reckoned: decided.as_of, grace: DAY, all_open: open.len() == 2 };
        let wanted = Wanted { points: &drop, logs: &[], filed: &self.filed, bad: &BadBlobs::new() };
        let plan = RetirePlan::new(&open, &wanted, &options)?;
        assert!(plan.unresolved.is_empty(), "{:?}", plan.unresolved);
        plan.apply(&open, &Findings::new())
    }

    /// Retention that may be killed at any call of a storage. What it recorded is dropped, whatever became of it.
    fn retain_or_die(&mut self) {
        let decided = self.decided();
        let stays: Vec<PointId> = decided
            .points
            .iter()
            .filter(|point| matches!(point.verdict, Verdict::Kept(_)))
            .map(|point| point.id.clone())
            .collect();
        self.maybe_kill(3);
        let outcome = self.retain(decided);
        let met = self.revive();
        assert!(outcome.is_ok() || met, "{outcome:?}");
        let gone = self.recorded();
        for id in stays.iter().filter(|id| gone.contains_key(*id)) {
            // Recorded before by somebody who did not know the hold.
            assert!(!self.known.contains_key(id), "{id} stays and was dropped");
        }
        let before = self.known.len();
        self.known.retain(|id, _| !gone.contains_key(id));
        self.counts.dropped += u32::try_from(before - self.known.len()).unwrap();
        // The outcome is filed.
        self.filed.points = gone.into_values().collect();
        self.filed.seq = self.copies.iter().map(|vault| vault.retired().unwrap().seq()).max().unwrap();
    }

    /// What was dropped, by the records of all copies and by the chain.
    fn recorded(&self) -> BTreeMap<PointId, DroppedPoint> {
        let mut gone: BTreeMap<PointId, DroppedPoint> =
            self.filed.points.iter().map(|point| (point.id.clone(), point.clone())).collect();
        for vault in &self.copies {
            let retired = vault.retired().unwrap();
            gone.extend(retired.points().iter().map(|(id, gone)| (id.clone(), gone.point.clone())));
        }
        gone
    }

    /// What is held in a copy, by its own word or by that of the chain, stays in it.
    fn guard(&mut self) {
        let mut holding = Vec::new();
        for (number, vault) in self.copies.iter().enumerate() {
            let mut holds = vault.holds().unwrap();
            holds.merge(self.filed.holds.clone());
            let listed: BTreeSet<PointId> =
                vault.points().unwrap().iter().filter_map(|entry| entry.id().cloned()).collect();
            let kept = |id: &PointId| holds.cover(id, self.all[id].manifest.facts.consistency.moment);
            let own = self.guarded.iter().filter(|(copy, _)| *copy == number).map(|(_, id)| id);
            for id in own.filter(|id| kept(id)) {
                assert!(listed.contains(id), "{id} is held and gone from copy {number}");
            }
            holding.extend(listed.into_iter().filter(|id| kept(id)).map(|id| (number, id)));
        }
        self.guarded = holding.into_iter().collect();
    }

    /// Everything that no record names is listed in one of the copies, and what is listed and not dropped can be restored.
    fn check(&mut self) {
        self.guard();
        let mut offered: BTreeMap<PointId, Vec<usize>> = BTreeMap::new();
        for (number, vault) in self.copies.iter().enumerate() {
            let retired = vault.retired().unwrap();
            for entry in vault.points().unwrap() {
                let manifest = entry.manifest().unwrap();
                if !retired.takes(&manifest.id) {
                    offered.entry(manifest.id.clone()).or_default().push(number);
                }
            }
        }
        for id in self.known.keys() {
            assert!(offered.contains_key(id), "{id} is in no copy");
        }
        let ids: Vec<PointId> = self.known.keys().cloned().collect();
        let mut picked = vec![(self.random.pick(&ids), None)];
        let guarded: Vec<(usize, PointId)> = self.guarded.iter().cloned().collect();
        if !guarded.is_empty() {
            let (copy, id) = self.random.pick(&guarded);
            picked.push((id, Some(copy)));
        }
        for (id, copy) in picked {
            let known = &self.all[&id];
            let places = copy.map_or_else(|| offered[&id].clone(), |copy| vec![copy]);
            for place in places {
                let back = restore(&self.copies[place], &known.manifest).unwrap();
                assert!(back == content(known.numbers).below_data(), "{id} in copy {place}");
            }
        }
    }

    fn place_hold(&mut self) {
        self.counts.holds += 1;
        let ids: Vec<PointId> = self.known.keys().cloned().collect();
        let point = self.random.pick(&ids);
        let scope = match self.random.below(8) {
            0 => HoldScope::Store,
            1 => HoldScope::Before { before: self.all[&point].manifest.facts.consistency.moment },
            _ => HoldScope::Point { point },
        };
        let hold = Hold {
            format: HOLD_FORMAT.to_owned(),
            id: HoldId::new(format!("hold-{:05}", self.counts.holds)).unwrap(),
            vault: self.copies[0].vault_id().clone(),
            store: self.copies[0].store().clone(),
            scope,
            reason: "r".to_owned(),
            holder: "h".to_owned(),
            placed: self.now,
        };
        if self.random.one_in(3) {
            // Another machine, which sees this copy only and files in a chain of its own.
            let copy = usize::from(self.random.one_in(2));
            self.copies[copy].put_hold(&hold).unwrap();
        } else {
            self.open().iter().for_each(|vault| vault.put_hold(&hold).unwrap());
            self.filed.holds.known.insert(hold.id.clone(), (hold, None));
        }
    }

    fn release_hold(&mut self) {
        let active: Vec<Hold> = self.holds().active().cloned().collect();
        if active.is_empty() {
            return;
        }
        let hold = self.random.pick(&active);
        let release = Release {
            format: RELEASE_FORMAT.to_owned(),
            id: hold.id.clone(),
            vault: hold.vault.clone(),
            reason: "r".to_owned(),
            by: "b".to_owned(),
            released: self.now,
        };
        for vault in self.open() {
            vault.put_hold(&hold).unwrap();
            vault.put_release(&release).unwrap();
        }
        self.filed.holds.known.insert(hold.id.clone(), (hold, Some(release)));
    }

    /// Records rot or vanish, in one copy or in both.
    fn lose_records(&mut self) {
        let both = self.random.one_in(2);
        if self.away.is_some() {
            return;
        }
        self.counts.lost_records += 1;
        for faulty in self.faulty.iter().take(if both { 2 } else { 1 }) {
            for listed in faulty.list("lifeboat/retired/").unwrap() {
                faulty.remove(&listed.name).unwrap();
            }
        }
    }

    /// Holds, releases, policies, clocks, copies.
    fn live(&mut self) {
        match self.random.below(16) {
            0 | 1 => self.place_hold(),
            2..=4 => self.release_hold(),
            5 => self.keep = self.random.pick(&POLICIES).parse().unwrap(),
            6 => self.away = Some(usize::from(self.random.one_in(2))),
            7..=9 => self.away = None,
            10 if self.random.one_in(4) => self.now += DAY * u32::try_from(self.random.below(900)).unwrap(),
            11 if self.random.one_in(4) => self.now -= HOUR * u32::try_from(self.random.below(60)).unwrap(),
            12 => self.confirmed = Some(self.now),
            13 if self.random.one_in(4) => self.lose_records(),
            _ => {}
        }
    }

    /// Nobody kills any more, every copy is there, holds are released.
    fn calm_down(&mut self) {
        self.away = None;
        while !self.holds().keep_nothing() {
            self.release_hold();
        }
    }
}

#[test]
fn years_of_holds_kills_and_wrong_clocks_lose_nothing_that_stays_and_leave_nothing_that_goes() {
    let seed = asked("LIFEBOAT_YEARS_SEED").unwrap_or_else(|| {
        let mut bytes = [0u8; 8];
        lifeboat_base::entropy::Entropy::fill(&lifeboat_base::entropy::OsEntropy, &mut bytes);
        u64::from_le_bytes(bytes)
    });
    println!("LIFEBOAT_YEARS_SEED={seed}");
    let days = asked("LIFEBOAT_YEARS_DAYS").and_then(|days| days.try_into().ok()).unwrap_or(DAYS);
    let mut world = World::new(seed);
    for _third in 0..days * 3 {
        for _hour in 0..8 {
            world.backup();
            world.now += HOUR;
        }
        world.live();
        world.guard();
        world.retain_or_die();
        world.check();
    }
    world.calm_down();
    for _day in 0..8 {
        world.backup();
        world.now += DAY;
        world.confirmed = Some(world.now);
        world.retain_or_die();
        world.check();
    }
    let mut last = None;
    for _day in 0..3 {
        world.now += DAY;
        last = Some(world.retain(world.decided()).unwrap());
        let gone = world.recorded();
        world.known.retain(|id, _| !gone.contains_key(id));
    }
    let retired = last.unwrap().retired;
    for vault in &world.copies {
        let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
        assert_eq!((report.damaged, report.extra), (Vec::new(), Vec::new()));
        let listed: Vec<PointId> = report.points.into_iter().map(|point| point.id).collect();
        assert_eq!(listed, world.known.keys().cloned().collect::<Vec<_>>());
        assert!(vault.absence(&retired).unwrap().holds());
        for known in world.known.values() {
            assert!(restore(vault, &known.manifest).unwrap() == content(known.numbers).below_data());
        }
    }
    println!("{days} days, {:?}, {} left", world.counts, world.known.len());
    assert!(world.counts.dropped > days && world.counts.kills > 0, "{:?}", world.counts);
}
