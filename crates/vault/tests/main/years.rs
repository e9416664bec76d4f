//! Years of retention in one test: points, holds, releases, changed policies, clocks that jump, copies that go away, kills
//! between any two steps. After every step all that must stay is there, and in the end nothing else is.
//!
//! `LIFEBOAT_YEARS_SEED` repeats a run, `LIFEBOAT_YEARS_DAYS` makes it longer or shorter.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that fails, fails the test; the seed is printed so that it can be repeated"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::ids::PointId;
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{TimeZone, Timestamp};
use lifeboat_policy::{Candidate, Gfs, Rules, Soundness, Verdict, ceiling, decide};
use lifeboat_vault::retire::{DroppedPoint, Filed, RetireOptions, RetirePlan, RetireReport, Wanted};
use lifeboat_vault::storage::{MemoryStorage, Storage};
use lifeboat_vault::{CheckLevel, PointManifest, Vault, VaultError};

use super::storage::{Fault, FaultyStorage};
use super::support::{Fixture, Model, backup_at, noise, restore};

/// Days of an ordinary run; `LIFEBOAT_YEARS_DAYS=1095` makes it three years.
const DAYS: u32 = 60;
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
const POLICIES: [&str; 4] = ["7d 4w", "24h 3d", "2d 2w 3mo", "1d 1w 12mo 1y"];
/// Calls of a storage after which a kill is put, at most.
const LATEST_KILL: u64 = 400;

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
}

/// A point as the test knows it.
struct Known {
    manifest: PointManifest,
    content: Model,
    held: bool,
}

struct World {
    random: Random,
    faulty: [Arc<FaultyStorage>; 2],
    copies: [Vault; 2],
    away: Option<usize>,
    known: BTreeMap<PointId, Known>,
    filed: Vec<Timestamp>,
    /// The newest moment of which a person said that the clock was right.
    confirmed: Option<Timestamp>,
    keep: Gfs,
    now: Timestamp,
    made: u32,
    kills: u32,
    dropped: u32,
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
            filed: Vec::new(),
            confirmed: None,
            keep: POLICIES[0].parse().unwrap(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            made: 0,
            kills: 0,
            dropped: 0,
        }
    }

    fn open(&self) -> Vec<&Vault> {
        let there = self.copies.iter().enumerate().filter(|(number, _)| self.away != Some(*number));
        there.map(|(_, vault)| vault).collect()
    }

    fn backup(&mut self) {
        self.made += 1;
        // Much stays from point to point, something is new, and now and then what was gone comes back.
        let old = self.random.below(u64::from(self.made));
        let content = Model::new()
            .file("data/same", noise(1, 3_000))
            .file("data/month", noise(u64::from(self.made / 60) + 1_000, 2_000))
            .file("data/own", noise(u64::from(self.made) + 10_000, 700))
            .file("data/again", noise(old + 10_000, 700));
        let open = self.open();
        if let Some(other) = open.get(1) {
            other.copy_to(open[0], &Findings::new()).unwrap();
        }
        let (manifest, _) = backup_at(open[0], self.made, &content, self.now).unwrap();
        if let Some(other) = open.get(1) {
            open[0].copy_to(other, &Findings::new()).unwrap();
        }
        self.filed.insert(0, self.now);
        self.known.insert(manifest.id.clone(), Known { manifest, content, held: false });
    }

    /// The verdicts, as retention makes them.
    fn verdicts(&self) -> BTreeMap<PointId, Verdict> {
        let listed: BTreeSet<PointId> = self
            .open()
            .iter()
            .flat_map(|vault| vault.points().unwrap())
            .filter_map(|entry| entry.id().cloned())
            .collect();
        let candidate = |known: &Known| Candidate {
            id: known.manifest.id.clone(),
            moment: known.manifest.facts.consistency.moment,
            ended: known.manifest.ended,
            soundness: if listed.contains(&known.manifest.id) { Soundness::Good } else { Soundness::Damaged },
            restored: false,
            holds: if known.held { vec!["hold".to_owned()] } else { Vec::new() },
        };
        let interval = Some(HOUR * 12);
        let rules = Rules {
            keep: self.keep,
            window: None,
            minimum: None,
            interval,
            ceiling: ceiling(&self.filed, interval, self.confirmed, self.now),
            zone: &TimeZone::UTC,
        };
        let decided = decide(&rules, self.known.values().map(candidate).collect(), self.now);
        decided.points.into_iter().map(|point| (point.id, point.verdict)).collect()
    }

    fn retain(&self, verdicts: BTreeMap<PointId, Verdict>) -> Result<RetireReport, VaultError> {
        let open = self.open();
        if let Some(other) = open.get(1) {
            other.copy_to(open[0], &Findings::new())?;
            open[0].copy_to(other, &Findings::new())?;
        }
        let drop: Vec<DroppedPoint> = verdicts
            .into_iter()
            .filter_map(|(id, verdict)| match verdict {
                Verdict::Deletable { since, because } => {
                    let manifest = &self.known[&id].manifest;
                    let moment = manifest.facts.consistency.moment;
                    Some(DroppedPoint { id, moment, snapshot: manifest.snapshot, since, because })
                }
                Verdict::Kept(_) => None,
            })
            .collect();
        let options =
            RetireOptions { now: self.now, reckoned: self.now, grace: DAY, all_open: open.len() == 2 };
        let plan =
            RetirePlan::new(&open, &Wanted { points: &drop, logs: &[], filed: &Filed::default() }, &options)?;
        plan.apply(&open, &Findings::new())
    }

    /// Retention that may be killed at any call of a storage. What it recorded is dropped, whatever became of it.
    fn retain_or_die(&mut self) {
        let verdicts = self.verdicts();
        let kept = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Kept(_)));
        let stays: Vec<PointId> = kept.map(|(id, _)| id.clone()).collect();
        let killed = self.random.one_in(3);
        if killed {
            let (number, call) = (self.random.below(2), self.random.below(LATEST_KILL));
            self.faulty[usize::from(number == 1)].fail_at(call, Fault::Dead);
        }
        let outcome = self.retain(verdicts);
        let reached = self.faulty.each_ref().map(|faulty| faulty.heal());
        self.kills += u32::from(reached.contains(&true));
        assert!(outcome.is_ok() || reached.contains(&true), "{outcome:?}");
        let mut gone = BTreeSet::new();
        for vault in &self.copies {
            gone.extend(vault.retired().unwrap().points().keys().cloned());
        }
        for id in &stays {
            assert!(!gone.contains(id), "{id} stays and was dropped");
        }
        let before = self.known.len();
        self.known.retain(|id, _| !gone.contains(id));
        self.dropped += u32::try_from(before - self.known.len()).unwrap();
    }

    /// Everything that is known is listed in one of the copies, and whatever an open copy offers can be restored.
    fn check(&mut self) {
        let mut offered = BTreeSet::new();
        for vault in &self.copies {
            let retired = vault.retired().unwrap();
            for entry in vault.points().unwrap() {
                let manifest = entry.manifest().unwrap();
                if retired.point(&manifest.id).is_none() {
                    offered.insert(manifest.id.clone());
                }
            }
        }
        for id in self.known.keys() {
            assert!(offered.contains(id), "{id} is in no copy");
        }
        let ids: Vec<PointId> = self.known.keys().cloned().collect();
        let picked = ids[usize::try_from(self.random.below(ids.len() as u64)).unwrap()].clone();
        let known = &self.known[&picked];
        for vault in self.open() {
            if vault.points().unwrap().iter().any(|entry| entry.id() == Some(&picked)) {
                assert!(restore(vault, &known.manifest).unwrap() == known.content.below_data(), "{picked}");
            }
        }
    }

    /// Holds, releases, policies, clocks, copies.
    fn live(&mut self) {
        let ids: Vec<PointId> = self.known.keys().cloned().collect();
        let any = usize::try_from(self.random.below(ids.len() as u64)).unwrap();
        match self.random.below(14) {
            0 | 1 => self.known.get_mut(&ids[any]).unwrap().held = true,
            2 | 3 => self
                .known
                .values_mut()
                .filter(|known| known.held)
                .take(2)
                .for_each(|known| known.held = false),
            4 => self.keep = POLICIES[usize::try_from(self.random.below(4)).unwrap()].parse().unwrap(),
            5 => self.away = Some(usize::from(self.random.one_in(2))),
            6..=8 => self.away = None,
            9 if self.random.one_in(4) => self.now += DAY * u32::try_from(self.random.below(900)).unwrap(),
            11 => self.confirmed = Some(self.now),
            10 if self.random.one_in(4) => self.now -= HOUR * u32::try_from(self.random.below(60)).unwrap(),
            _ => {}
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
    for _day in 0..days {
        for _half in 0..2 {
            world.backup();
            world.now += HOUR * 12;
        }
        world.live();
        world.retain_or_die();
        world.check();
    }
    // Nobody kills any more, every copy is there, holds are released: then only what the policy keeps is left.
    world.away = None;
    world.known.values_mut().for_each(|known| known.held = false);
    for _day in 0..8 {
        world.backup();
        world.now += DAY;
        world.confirmed = Some(world.now);
        world.retain(world.verdicts()).unwrap();
        let retired = world.copies[0].retired().unwrap();
        world.known.retain(|id, _| retired.point(id).is_none());
    }
    for vault in &world.copies {
        let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
        assert_eq!((report.damaged, report.extra), (Vec::new(), Vec::new()));
        let listed: Vec<PointId> = report.points.into_iter().map(|point| point.id).collect();
        assert_eq!(listed, world.known.keys().cloned().collect::<Vec<_>>());
        assert!(vault.absence(&vault.retired().unwrap()).unwrap().holds());
        for known in world.known.values() {
            assert!(restore(vault, &known.manifest).unwrap() == known.content.below_data());
        }
    }
    println!("{} points, {} dropped, {} kills", world.made, world.dropped, world.kills);
    assert!(world.dropped > days && world.kills > 0, "{} dropped, {} kills", world.dropped, world.kills);
}
