//! Charts as SVG: what happened when, how much of the promised times was used, and what questions to an index came to.

use lifeboat_base::human;
use lifeboat_drill::{DrillReport, StageReport};
use lifeboat_stores::{Band, Lambda, share};
use plotters::prelude::*;

use crate::ReportError;

const WIDTH: u32 = 960;
const ROW: u32 = 26;
/// Room for the axis and its label.
const AXIS: u32 = 48;
/// Room for names, in pixels: 64 characters at most, of which most names use few.
const NAMES: u32 = 180;
/// Room for the half of the last number of the axis.
const RIGHT: u32 = 40;
const FONT: (&str, i32) = ("sans-serif", 13);
const MAX_NAME_CHARS: usize = 24;
/// A share beyond this is drawn as this; the number beside it says what it is.
const MAX_SHARE: f64 = 1.5;

/// Stages in their order and colours that people with any colour vision can tell apart (after Okabe and Ito).
const STAGES: [(&str, RGBColor); 6] = [
    ("open", RGBColor(0x56, 0xb4, 0xe9)),
    ("restore", RGBColor(0x00, 0x72, 0xb2)),
    ("check", RGBColor(0x00, 0x9e, 0x73)),
    ("probe", RGBColor(0xf0, 0xe4, 0x42)),
    ("log", RGBColor(0xcc, 0x79, 0xa7)),
    ("canaries", RGBColor(0xe6, 0x9f, 0x00)),
];
const OTHER: RGBColor = RGBColor(0x99, 0x99, 0x99);
const MISSED: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const KEPT: RGBColor = RGBColor(0x00, 0x9e, 0x73);

fn colour(stage: &str) -> RGBColor {
    STAGES.iter().find(|(name, _)| *name == stage).map_or(OTHER, |(_, colour)| *colour)
}

/// The stages that appear, each with its colour for a style sheet.
pub(crate) fn legend(report: &DrillReport) -> Vec<(&'static str, String)> {
    let seen =
        |name: &str| report.stores.iter().flat_map(|store| &store.stages).any(|stage| stage.stage == name);
    STAGES.iter().filter(|(name, _)| seen(name)).map(|(name, colour)| (*name, css(*colour))).collect()
}

fn css(colour: RGBColor) -> String {
    format!("#{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2)
}

fn cut(name: &str) -> String {
    if name.chars().count() <= MAX_NAME_CHARS {
        return name.to_owned();
    }
    name.chars().take(MAX_NAME_CHARS - 1).chain(['…']).collect()
}

/// One bar: from where to where, in which colour, with a word after it.
struct Bar {
    from: f64,
    to: f64,
    colour: RGBColor,
    said: String,
}

/// Rows of bars from top to bottom, each with its name; `most` is the right end of the axis, `line` a mark across all.
fn bars(
    rows: &[(String, Vec<Bar>)],
    most: f64,
    axis: (&str, &dyn Fn(&f64) -> String),
    line: Option<f64>,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut svg = String::new();
    let height = ROW.saturating_mul(u32::try_from(rows.len())?).saturating_add(AXIS + 12);
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let end = f64::from(u32::try_from(rows.len())?);
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let mut chart = ChartBuilder::on(&root)
            .margin(6)
            .margin_right(RIGHT)
            .x_label_area_size(AXIS - 6)
            .y_label_area_size(NAMES)
            .build_cartesian_2d(0.0..most, end..0.0)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .x_desc(axis.0)
            .x_label_formatter(axis.1)
            .label_style(FONT.into_font())
            .draw()
            .map_err(|error| failed(&error))?;
        for (number, (name, bars)) in (0u32..).zip(rows) {
            let top = f64::from(number);
            let (left, middle) = chart.backend_coord(&(0.0, top + 0.5));
            let (x, y) = (left - i32::try_from(NAMES)? + 8, middle - 7);
            root.draw(&Text::new(cut(name), (x, y), FONT.into_font())).map_err(|error| failed(&error))?;
            for bar in bars {
                let corners = [(bar.from, top + 0.15), (bar.to, top + 0.85)];
                let shape = Rectangle::new(corners, bar.colour.filled());
                chart.draw_series([shape]).map_err(|error| failed(&error))?;
                if !bar.said.is_empty() {
                    let (right, _) = chart.backend_coord(&(bar.to, top));
                    let word = Text::new(bar.said.clone(), (right + 6, y), FONT.into_font());
                    root.draw(&word).map_err(|error| failed(&error))?;
                }
            }
        }
        if let Some(at) = line {
            let mark = PathElement::new([(at, 0.0), (at, end)], BLACK.stroke_width(2));
            chart.draw_series([mark]).map_err(|error| failed(&error))?;
        }
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

/// Every stage of every store, from the start of the first.
pub(crate) fn timeline(report: &DrillReport) -> Result<String, ReportError> {
    let stages = || report.stores.iter().flat_map(|store| &store.stages);
    let Some(start) = stages().map(|stage| stage.started).min() else { return Ok(String::new()) };
    let since = |stage: &StageReport| stage.started.duration_since(start).as_secs_f64().max(0.0);
    let end = stages().map(|stage| since(stage) + stage.seconds).fold(0.001, f64::max);
    let rows: Vec<(String, Vec<Bar>)> = report
        .stores
        .iter()
        .map(|store| {
            let bar = |stage: &StageReport| Bar {
                from: since(stage),
                to: since(stage) + stage.seconds,
                colour: if stage.ok { colour(&stage.stage) } else { MISSED },
                said: String::new(),
            };
            (store.name.to_string(), store.stages.iter().map(bar).collect())
        })
        .collect();
    let axis = ("since the start", &|at: &f64| human::seconds(*at));
    bars(&rows, end * 1.02, (axis.0, axis.1), None).map_err(ReportError::of("report.html"))
}

/// The bands of ΔS, from near to far, and the states of λ, from the one that is wanted on.
const BANDS: [(Band, RGBColor); 4] = [
    (Band::Stable, KEPT),
    (Band::Transitional, STAGES[3].1),
    (Band::Risk, STAGES[5].1),
    (Band::Danger, MISSED),
];
const STATES: [(Lambda, RGBColor); 4] = [
    (Lambda::Convergent, KEPT),
    (Lambda::Divergent, STAGES[3].1),
    (Lambda::Split, STAGES[5].1),
    (Lambda::Chaotic, MISSED),
];

/// Shares one after the other, as far as there are any.
fn stacked(shares: impl IntoIterator<Item = (f64, RGBColor)>, said: String) -> Vec<Bar> {
    let mut from = 0.0;
    let mut bars: Vec<Bar> = shares
        .into_iter()
        .map(|(share, colour)| {
            let bar = Bar { from, to: from + share, colour, said: String::new() };
            from = bar.to;
            bar
        })
        .filter(|bar| bar.to > bar.from)
        .collect();
    if let Some(last) = bars.last_mut() {
        last.said = said;
    }
    bars
}

/// What the questions to each index came to: the bands of ΔS, the share that is covered, the states of λ; empty where nothing
/// was asked.
pub(crate) fn boards(report: &DrillReport) -> Result<String, ReportError> {
    let mut rows = Vec::new();
    for store in &report.stores {
        let Some(board) = store.meaning.as_ref().and_then(|meaning| meaning.board.as_ref()) else { continue };
        let name = cut(store.name.as_str());
        let bands = BANDS.map(|(band, colour)| (board.ds.bands.get(&band).copied().unwrap_or(0.0), colour));
        rows.push((format!("{name} \u{394}S"), stacked(bands, format!("median {:.4}", board.ds.median))));
        let covered = board.coverage.pass_rate;
        let shares = [(covered, KEPT), (1.0 - covered, MISSED)];
        rows.push((
            format!("{name} coverage"),
            stacked(shares, format!("median {:.4}", board.coverage.median)),
        ));
        let all: u64 = board.lambda.states.values().sum();
        let states = STATES.map(|(state, colour)| {
            let count = board.lambda.states.get(state.sign()).copied().unwrap_or(0);
            (share(count, all), colour)
        });
        let said = format!("{:.0} % of the runs agree", board.lambda.conv_rate * 100.0);
        rows.push((format!("{name} \u{3bb}"), stacked(states, said)));
    }
    if rows.is_empty() {
        return Ok(String::new());
    }
    let axis = ("share of the questions", &|share: &f64| format!("{:.0} %", share * 100.0));
    bars(&rows, MAX_SHARE, (axis.0, axis.1), Some(1.0)).map_err(ReportError::of("report.html"))
}

/// What the colours of [`boards`] say, each for a style sheet.
pub(crate) fn board_legend() -> Vec<(&'static str, String)> {
    let words = [
        "stable, covered, convergent",
        "transitional, divergent",
        "risk, split",
        "danger, not covered, chaotic",
    ];
    words.into_iter().zip(BANDS).map(|(word, (_, colour))| (word, css(colour))).collect()
}

/// How much of the promised recovery times and points was used; empty where nothing is promised.
pub(crate) fn shares(report: &DrillReport) -> Result<String, ReportError> {
    let mut rows = Vec::new();
    for store in &report.stores {
        let pairs =
            [("RTO", store.rto_s, store.rto_target_s), ("RPO", Some(store.rpo_s), store.rpo_target_s)];
        for (what, took, target) in pairs {
            let Some(target) = target.filter(|target| *target > 0.0) else { continue };
            let (to, colour, said) = match took {
                Some(took) => {
                    let colour = if took <= target { KEPT } else { MISSED };
                    (
                        (took / target).min(MAX_SHARE),
                        colour,
                        format!("{} of {}", human::seconds(took), human::seconds(target)),
                    )
                }
                None => (MAX_SHARE, MISSED, "never came back".to_owned()),
            };
            rows.push((
                format!("{} {what}", cut(store.name.as_str())),
                vec![Bar { from: 0.0, to, colour, said }],
            ));
        }
    }
    if rows.is_empty() {
        return Ok(String::new());
    }
    let axis = ("share of the promised time", &|share: &f64| format!("{:.0} %", share * 100.0));
    bars(&rows, MAX_SHARE + 0.5, (axis.0, axis.1), Some(1.0)).map_err(ReportError::of("report.html"))
}
