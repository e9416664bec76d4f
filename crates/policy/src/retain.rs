//! Which recovery points stay and which may go: slots of the calendar, the window of the log, locks, proofs.
//!
//! In: a row's promises, its points and a moment. Out: for every point all reasons to keep it, or since when and why
//! nothing keeps it. Rules: a slot belongs to its first whole point, so what a point will own is known when it is made;
//! the slot in progress does not count, so `7d` reaches back seven whole days; nothing is measured against a clock that
//! runs on while no new point arrives. What a rule would keep if every point were sound stays, however it fares; damage
//! and absence only decide who else stays in its stead, so that nothing ever goes because something got worse.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use lifeboat_base::ids::PointId;
use serde::Serialize;

use crate::reckon::{CLOCK_TOLERANCE, Ceiling, Gap, later, long, stall};
use crate::retention::Gfs;
use crate::span::Span;

/// What the rules ask of one row.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The slots.
    pub keep: Gfs,
    /// How far back every moment must be restorable.
    pub window: Option<Span>,
    /// Until this long after its end nothing may be removed: a lock of a copy, or promised immutability.
    pub minimum: Option<Span>,
    /// The longest time between two captures, as scheduled; else how far they usually lie apart.
    pub interval: Option<Duration>,
    /// Where time stops while the clock is in doubt.
    pub ceiling: Option<Ceiling>,
    /// Whether captures have to bear out that time has passed; nothing if the clock is believed.
    pub borne_out: Option<BorneOut>,
    /// The calendar.
    pub zone: &'a TimeZone,
}

/// That no point leaves its slot, or the window of the log, before as many captures came after it as belong there: a clock that
/// jumps, once or every day, takes no more from what is kept than new captures put in its place.
#[derive(Clone, Copy, Debug)]
pub struct BorneOut {
    /// Up to this moment a person said that time has passed.
    pub confirmed: Option<Timestamp>,
}

/// Whether a point can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soundness {
    /// It can be restored, as far as is known.
    Sound,
    /// No copy that is here can restore it, as far as is known, or something speaks against all that could.
    Damaged,
    /// No copy that is here has it: nobody can look at it.
    Away,
}

/// One point, as far as the decision needs it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The point.
    pub id: PointId,
    /// The moment it shows.
    pub moment: Timestamp,
    /// When it was sealed.
    pub ended: Timestamp,
    /// Whether everything was captured.
    pub complete: bool,
    /// Whether it can be relied on.
    pub soundness: Soundness,
    /// Whether it was restored and passed its checks.
    pub restored: bool,
    /// Legal holds that cover it, whatever the rules say.
    pub holds: Vec<String>,
}

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Hours; one that the clock repeats is two.
    Hour,
    /// Days of the policy's time zone.
    Day,
    /// Weeks from Monday, as ISO 8601 numbers them.
    Week,
    /// Months.
    Month,
    /// Years.
    Year,
}

/// Why a point stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "rule")]
pub enum Reason {
    /// It fills a slot.
    Slot {
        /// The unit of the slot.
        unit: Unit,
        /// The slot, such as `2026-11` or `2026-W47`.
        slot: String,
    },
    /// A legal hold covers it.
    Hold {
        /// The hold.
        hold: String,
    },
    /// The promised window of the log starts from it or lies around it.
    LogWindow,
    /// A lock or a promise of immutability ends later.
    Minimum {
        /// When it ends.
        until: Timestamp,
    },
    /// Nothing newer is good.
    LastGood,
    /// Nothing newer was restored and checked.
    LastRestored,
    /// It is damaged in every copy that is here, or suspected to be, and might be healed while it is promised.
    MightHeal,
    /// It lies in no copy that is here: nothing is decided about what nobody can look at.
    Away,
    /// It claims to come from the future: a clock was wrong.
    Future,
}

/// What becomes of one point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It stays, for all these reasons.
    Kept(Vec<Reason>),
    /// It may go.
    Deletable {
        /// Since when nothing keeps it.
        since: Timestamp,
        /// What kept it last.
        because: String,
    },
}

/// The verdict on one point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The point.
    pub id: PointId,
    /// The moment it shows.
    pub moment: Timestamp,
    /// What becomes of it.
    pub verdict: Verdict,
    /// How long its objects are to be locked: to the end of the last slot that it will own, of the window that needs it, and of
    /// what is promised at least, as far as points and calendar tell today. Nothing that no rule keeps, and never longer than
    /// the rules do. Points that come later may extend it.
    pub lock_until: Option<Timestamp>,
}

/// What becomes of every point, oldest moment first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// The verdicts.
    pub points: Vec<Decision>,
    /// The moment the calendar was read at: not later than new points justify.
    pub as_of: Timestamp,
    /// Nothing was captured for too long: nothing ages until something is.
    pub stalled: bool,
    /// It has been so for so long that somebody has to look after it.
    pub long_stalled: bool,
    /// Why the clock is not believed, if so.
    pub doubt: Option<Gap>,
    /// Points that only a lock or promised immutability keeps, longer than retention would.
    pub overstayed: Vec<PointId>,
    /// Up to where the clock is believed.
    pub seen: Timestamp,
    /// The moments of bases that can be relied on, the oldest first: what a log is replayed from.
    pub bases: Vec<Timestamp>,
}

impl Decided {
    /// How long what was written to the log up to `ended` is to be locked: until the window begins after the next base that can be
    /// relied on, and for what is promised at least. Later bases may extend it. What claims to be written after what the clock is
    /// believed for gets no more than the minimum, counted from there.
    pub fn log_lock_until(&self, rules: &Rules<'_>, ended: Timestamp) -> Option<Timestamp> {
        let minimum = rules.minimum.map(|minimum| minimum.after(ended.min(self.seen), rules.zone));
        if ended.duration_since(self.seen) > CLOCK_TOLERANCE {
            return minimum;
        }
        let next = self.bases.partition_point(|base| *base < ended);
        window_end(rules, ended, self.bases.get(next).copied()).max(minimum)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot { unit, slot } => write!(f, "{unit} {slot}"),
            Self::Hold { hold } => write!(f, "held by {hold}"),
            Self::LogWindow => f.write_str("log window"),
            Self::Minimum { until } => write!(f, "locked until {until:.0}"),
            Self::LastGood => f.write_str("newest good point"),
            Self::LastRestored => f.write_str("newest point proven by a restore"),
            Self::MightHeal => f.write_str("damaged, might be healed"),
            Self::Away => f.write_str("in no copy that is here"),
            Self::Future => f.write_str("claims to come from the future"),
        }
    }
}

impl Unit {
    /// About how long it lasts.
    fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
            Self::Year => 365 * 86_400,
        })
    }

    /// Where the slot of `at` begins.
    fn start(self, at: &Zoned) -> Option<Zoned> {
        let date = at.date();
        let first = |date: Date| date.to_zoned(at.time_zone().clone()).ok();
        match self {
            // By elapsed time within the hour, so that a repeated hour is a slot of its own.
            Self::Hour => {
                let into = i64::from(at.minute()) * 60 + i64::from(at.second());
                let start = Timestamp::from_second(at.timestamp().as_second().checked_sub(into)?).ok()?;
                Some(start.to_zoned(at.time_zone().clone()))
            }
            Self::Day => first(date),
            Self::Week => {
                first(date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok()?)
            }
            Self::Month => first(date.first_of_month()),
            Self::Year => first(date.first_of_year()),
        }
    }

    /// The slot `count` after (before, if negative) the one that begins at `start`.
    fn step(self, start: &Zoned, count: i64) -> Option<Zoned> {
        match self {
            Self::Hour => {
                let moved = start.timestamp().checked_add(SignedDuration::from_hours(count)).ok()?;
                self.start(&moved.to_zoned(start.time_zone().clone()))
            }
            Self::Day => start.checked_add(count.days()).ok(),
            Self::Week => start.checked_add(count.weeks()).ok(),
            Self::Month => start.checked_add(count.months()).ok(),
            Self::Year => start.checked_add(count.years()).ok(),
        }
    }

    fn label(self, start: &Zoned) -> String {
        let date = start.date();
        match self {
            Self::Hour => format!("{date} {:02}h{}", start.hour(), start.strftime("%:z")),
            Self::Day => date.to_string(),
            Self::Week => {
                let week = date.iso_week_date();
                format!("{}-W{:02}", week.year(), week.week())
            }
            Self::Month => format!("{}-{:02}", date.year(), date.month()),
            Self::Year => date.year().to_string(),
        }
    }
}

impl Candidate {
    fn future(&self, now: Timestamp) -> bool {
        self.moment.duration_since(now) > CLOCK_TOLERANCE
    }
}

/// Who fills a slot: the first sound point of either sort.
#[derive(Default)]
struct Slot {
    whole: Option<usize>,
    half: Option<usize>,
}

impl Slot {
    fn owner(&self) -> Option<usize> {
        self.whole.or(self.half)
    }

    /// Whether the point fills the slot, or would if it were sound: one before the first sound one of its sort does. Half a
    /// slot is better than none, and a whole one better than half.
    fn takes(&self, index: usize, complete: bool) -> bool {
        let first = if complete { self.whole } else { self.half };
        first.is_none_or(|first| index <= first) && (complete || self.whole.is_none())
    }
}

/// One tier of slots at work.
struct Tier {
    unit: Unit,
    count: u32,
    /// The slots, by where they begin.
    slots: BTreeMap<Timestamp, Slot>,
    /// Slots that begin earlier are over.
    oldest: Timestamp,
    /// How many slots that are filled come after one that is over, if captures have to bear that out.
    filled: Option<usize>,
}

impl Tier {
    fn new(
        (unit, count): (Unit, u32),
        (rules, as_of): (&Rules<'_>, Timestamp),
        now: Timestamp,
        points: &[Zoned],
        candidates: &[Candidate],
    ) -> Self {
        let due = |at: Timestamp| {
            unit.start(&at.to_zoned(rules.zone.clone()))
                .and_then(|current| unit.step(&current, -i64::from(count)))
                .map_or(Timestamp::MIN, |start| start.timestamp())
        };
        let oldest = due(as_of);
        let mut slots: BTreeMap<Timestamp, Slot> = BTreeMap::new();
        for (index, (at, point)) in points.iter().zip(candidates).enumerate() {
            let Some(start) = unit.start(at) else { continue };
            let slot = slots.entry(start.timestamp()).or_default();
            if point.soundness == Soundness::Sound && !point.future(now) {
                let first = if point.complete { &mut slot.whole } else { &mut slot.half };
                first.get_or_insert(index);
            }
        }
        let Some(borne_out) = rules.borne_out else {
            return Self { unit, count, slots, oldest, filled: None };
        };
        let apart = unit.length().max(rules.interval.unwrap_or_default());
        let filled = captures_in(unit.length().saturating_mul(count), apart);
        let newest = slots.iter().rev().filter(|(_start, slot)| slot.owner().is_some());
        let needed = newest.map(|(start, _slot)| *start).nth(filled - 1).unwrap_or(Timestamp::MIN);
        let believed = borne_out.confirmed.map_or(Timestamp::MIN, |at| due(at.min(as_of)));
        Self { unit, count, slots, oldest: oldest.min(needed.max(believed)), filled: Some(filled) }
    }

    /// When captures had borne out that the slot which begins at `start` is over.
    fn borne_out(&self, start: Timestamp, candidates: &[Candidate]) -> Option<Timestamp> {
        let later = self.slots.range(start..).skip(1).filter_map(|(_start, slot)| slot.owner());
        let last = later.map(|owner| candidates.get(owner)).nth(self.filled? - 1)??;
        Some(last.ended)
    }

    fn place(&self, at: &Zoned) -> Option<(Zoned, &Slot)> {
        let start = self.unit.start(at)?;
        let slot = self.slots.get(&start.timestamp())?;
        Some((start, slot))
    }

    fn reason(&self, index: usize, at: &Zoned, point: &Candidate) -> Option<Reason> {
        let (start, slot) = self.place(at)?;
        let keeps = start.timestamp() >= self.oldest && slot.takes(index, point.complete);
        keeps.then(|| Reason::Slot { unit: self.unit, slot: self.unit.label(&start) })
    }

    /// When this tier will stop keeping a point that it keeps. Of half a point nothing while its slot is in progress at `seen`: a
    /// whole one may still take its place.
    fn ends(&self, index: usize, at: &Zoned, point: &Candidate, seen: Timestamp) -> Option<Timestamp> {
        let (start, _slot) = self.place(at).filter(|(_start, slot)| slot.takes(index, point.complete))?;
        if !point.complete && self.unit.step(&start, 1)?.timestamp() > seen {
            return None;
        }
        Some(self.unit.step(&start, i64::from(self.count) + 1)?.timestamp())
    }

    /// When this tier stopped keeping a point it does not keep.
    fn left(&self, index: usize, at: &Zoned, candidates: &[Candidate]) -> Option<(Timestamp, String)> {
        let (start, slot) = self.place(at)?;
        let own = candidates.get(index)?;
        let other = slot.owner().filter(|_owner| !slot.takes(index, own.complete));
        if let Some(owner) = other.and_then(|owner| candidates.get(owner)) {
            let because = format!("{} {} is kept by {}", self.unit, self.unit.label(&start), owner.id);
            return Some((own.ended.max(owner.ended), because));
        }
        let end = self.unit.step(&start, i64::from(self.count) + 1)?.timestamp();
        let end = self.borne_out(start.timestamp(), candidates).map_or(end, |borne_out| end.max(borne_out));
        Some((end, format!("{} {} is over", self.unit, self.unit.label(&start))))
    }
}

/// How many captures belong into a span, at least one.
fn captures_in(span: Duration, apart: Duration) -> usize {
    let (span, apart) = (span.as_secs(), apart.as_secs().max(1));
    usize::try_from((span + apart / 2) / apart).unwrap_or(usize::MAX).max(1)
}

/// The window of the log.
struct Window {
    start: Timestamp,
    /// The moment of the newest sound base before it. Without one every base might be the one.
    anchor: Timestamp,
}

impl Window {
    /// `good` are the moments of bases that can be relied on, the newest first.
    fn new(
        rules: &Rules<'_>,
        as_of: Timestamp,
        mut good: impl Iterator<Item = Timestamp> + Clone,
    ) -> Option<Self> {
        let window = rules.window?;
        let start = window.before(as_of, rules.zone);
        let start = match rules.borne_out.zip(rules.interval) {
            None => start,
            Some((borne_out, apart)) => {
                let needed = good.clone().nth(captures_in(window.approx(), apart) - 1);
                let believed = borne_out.confirmed.map(|at| window.before(at.min(as_of), rules.zone));
                start.min(needed.unwrap_or(Timestamp::MIN).max(believed.unwrap_or(Timestamp::MIN)))
            }
        };
        let anchor = good.find(|moment| *moment <= start);
        Some(Self { start, anchor: anchor.unwrap_or(Timestamp::MIN) })
    }

    fn holds(&self, point: &Candidate) -> bool {
        point.moment >= if point.complete { self.anchor } else { self.start }
    }
}

/// Decides on every point at `now`. Linear in the points but for sorting them; the order they come in has no meaning.
pub fn decide(rules: &Rules<'_>, mut candidates: Vec<Candidate>, now: Timestamp) -> Decided {
    candidates.sort_by(|a, b| (a.moment, &a.id).cmp(&(b.moment, &b.id)));
    let whole = |point: &&Candidate| point.complete && !point.future(now);
    let good = |point: &&Candidate| whole(point) && point.soundness == Soundness::Sound;
    let since = |point: &Candidate| point.moment;
    // Everything behind the newest that can be relied on would be the newest if it could be relied on itself.
    let last_good = candidates.iter().rev().find(good).map(since);
    let last_restored = candidates.iter().rev().filter(good).find(|point| point.restored).map(since);
    // A capture bears out time, complete or not, and whatever became of it. Without a good point nothing ages at all.
    let newest = candidates.iter().rev().find(|point| !point.future(now)).filter(|_| last_good.is_some());
    let stall = stall(rules.keep, rules.interval);
    let limit = newest.map_or(Timestamp::MIN, |point| later(point.moment, stall));
    let as_of = now.min(limit).min(rules.ceiling.map_or(Timestamp::MAX, |ceiling| ceiling.at));
    let shown: Vec<Zoned> =
        candidates.iter().map(|point| point.moment.to_zoned(rules.zone.clone())).collect();
    let tiers: Vec<Tier> = rules
        .keep
        .units()
        .into_iter()
        .filter(|(count, _unit)| *count > 0)
        .map(|(count, unit)| Tier::new((unit, count), (rules, as_of), now, &shown, &candidates))
        .collect();
    let window = Window::new(rules, as_of, candidates.iter().rev().filter(good).map(since));
    let mut overstayed = Vec::new();
    let mut points = Vec::with_capacity(candidates.len());
    let seen = rules.ceiling.map_or(now, |ceiling| ceiling.at.min(now));
    let next_base = next_bases(&candidates, |point| good(&point));
    for (index, (point, at)) in candidates.iter().zip(&shown).enumerate() {
        let mut reasons: Vec<Reason> =
            tiers.iter().filter_map(|tier| tier.reason(index, at, point)).collect();
        reasons.extend(point.holds.iter().map(|hold| Reason::Hold { hold: hold.clone() }));
        let mut add = |holds: bool, reason: Reason| reasons.extend(holds.then_some(reason));
        add(window.as_ref().is_some_and(|window| window.holds(point)), Reason::LogWindow);
        // Without any good point, whatever there is may be all there is.
        add(last_good.is_none_or(|last| point.complete && point.moment >= last), Reason::LastGood);
        let restored = point.restored && point.complete;
        add(restored && last_restored.is_none_or(|last| point.moment >= last), Reason::LastRestored);
        add(point.future(now), Reason::Future);
        let unsound = point.soundness == Soundness::Damaged && !reasons.is_empty();
        reasons.extend(unsound.then_some(Reason::MightHeal));
        reasons.extend((point.soundness == Soundness::Away).then_some(Reason::Away));
        let until = rules.minimum.map(|minimum| minimum.after(point.ended, rules.zone));
        // By the time that counts: a clock that runs ahead ends no lock.
        if let Some(until) = until.filter(|until| *until > as_of) {
            if reasons.is_empty() {
                overstayed.push(point.id.clone());
            }
            reasons.push(Reason::Minimum { until });
        }
        let verdict = if reasons.is_empty() {
            let (since, because) = left(rules, &tiers, index, at, &candidates, until);
            Verdict::Deletable { since: since.min(now), because }
        } else {
            Verdict::Kept(reasons)
        };
        let base = next_base.get(index).copied().flatten();
        let lock_until = match verdict {
            Verdict::Kept(_) => lock_end(rules, &tiers, (index, point, at), base, seen),
            Verdict::Deletable { .. } => None,
        };
        points.push(Decision { id: point.id.clone(), moment: point.moment, verdict, lock_until });
    }
    let doubt = rules.ceiling.filter(|ceiling| ceiling.at < now).map(|ceiling| ceiling.gap);
    // Without a good point it has stood since there were points at all.
    let stands_since = candidates.first().map_or(as_of, |oldest| as_of.max(oldest.moment));
    // One point stays whatever time it is.
    let long_stalled = candidates.len() > 1 && later(stands_since, long(stall)) < now;
    let bases = candidates.iter().filter(good).map(since).collect();
    Decided { points, as_of, stalled: as_of < now, long_stalled, doubt, overstayed, seen, bases }
}

/// Since when nothing keeps a point, and what did last.
fn left(
    rules: &Rules<'_>,
    tiers: &[Tier],
    index: usize,
    at: &Zoned,
    candidates: &[Candidate],
    minimum: Option<Timestamp>,
) -> (Timestamp, String) {
    let mut ends: Vec<(Timestamp, String)> =
        tiers.iter().filter_map(|tier| tier.left(index, at, candidates)).collect();
    ends.extend(
        rules
            .window
            .map(|window| (window.after(at.timestamp(), rules.zone), "the log window is over".to_owned())),
    );
    ends.extend(minimum.map(|until| (until, "its lock is over".to_owned())));
    ends.into_iter()
        .max_by_key(|(end, _because)| *end)
        .unwrap_or((at.timestamp(), "no slot is for it".to_owned()))
}

/// For each point the moment of the next base that can be relied on, if there is one.
fn next_bases(candidates: &[Candidate], good: impl Fn(&Candidate) -> bool) -> Vec<Option<Timestamp>> {
    let mut next = None;
    let mut bases: Vec<Option<Timestamp>> = candidates
        .iter()
        .rev()
        .map(|point| {
            let after = next;
            next = good(point).then_some(point.moment).or(next);
            after
        })
        .collect();
    bases.reverse();
    bases
}

/// How long a point that stays is to be locked. `seen` is up to where the clock is believed: a lock cannot be taken back, so what
/// claims to come from later gets no more than what is promised at least, counted from there, until that is borne out.
fn lock_end(
    rules: &Rules<'_>,
    tiers: &[Tier],
    (index, point, at): (usize, &Candidate, &Zoned),
    next_base: Option<Timestamp>,
    seen: Timestamp,
) -> Option<Timestamp> {
    let minimum = rules.minimum.map(|minimum| minimum.after(point.ended.min(seen), rules.zone));
    if point.future(seen) {
        return minimum;
    }
    let slots = tiers.iter().filter_map(|tier| tier.ends(index, at, point, seen)).max();
    // A base is needed until the window begins after the next one.
    let window = window_end(rules, point.moment, next_base.filter(|_next| point.complete));
    slots.max(window).max(minimum)
}

/// When the window of the log has left a moment and the base after it behind. Of two days that have no like in the next month the
/// earlier may end later, so both count.
fn window_end(rules: &Rules<'_>, moment: Timestamp, next_base: Option<Timestamp>) -> Option<Timestamp> {
    let window = rules.window?;
    let ends = [Some(moment), next_base].into_iter().flatten().map(|at| window.after(at, rules.zone));
    ends.max()
}
