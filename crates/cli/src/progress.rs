//! Progress: bars on a terminal, plain lines elsewhere, nothing when not wanted. Findings are shown with the result; what
//! whoever watches should know at once is always shown.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lifeboat_base::human;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_engine::Observer;

use crate::output::note;

/// Plain lines come at most this often for each job.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(120);

/// How progress is shown.
#[derive(Debug)]
enum Way {
    /// Bars, one for each job.
    Bars(MultiProgress),
    /// Lines on standard error.
    Lines,
    /// Nothing but notices.
    Silent,
}

/// Shows progress, and passes a request to stop on to the work.
#[derive(Debug)]
pub(crate) struct Progress {
    way: Way,
    stop: Arc<AtomicBool>,
}

impl Progress {
    /// The work is asked to stop once `stop` is set.
    pub(crate) fn new(wanted: bool, stop: Arc<AtomicBool>) -> Self {
        let way = if !wanted {
            Way::Silent
        } else if std::io::stderr().is_terminal() {
            Way::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        } else {
            Way::Lines
        };
        Self { way, stop }
    }
}

fn notice(name: &str, text: &str) {
    note(&format!("{name}: {}", human::printable(text)));
}

impl Observer for Progress {
    fn job(&self, name: &str) -> Box<dyn Monitor> {
        let stop = Arc::clone(&self.stop);
        match &self.way {
            Way::Bars(bars) => {
                let bar = bars.add(ProgressBar::no_length());
                bar.set_style(style(false));
                bar.set_prefix(name.to_owned());
                bar.enable_steady_tick(TICK);
                Box::new(Bar(bar, stop))
            }
            Way::Lines => Box::new(Lines {
                name: name.to_owned(),
                clock: SystemClock::new(),
                state: Mutex::new(LineState::default()),
                stop,
            }),
            Way::Silent => Box::new(Silent { name: name.to_owned(), stop }),
        }
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{prefix}  {msg}  {bar:24} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}"
    } else {
        "{prefix}  {msg}  {spinner} {binary_bytes}  {binary_bytes_per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_error| ProgressStyle::default_bar())
}

struct Bar(ProgressBar, Arc<AtomicBool>);

impl Monitor for Bar {
    fn phase(&self, name: &str, total_bytes: Option<u64>) {
        self.0.reset();
        match total_bytes {
            Some(total) => self.0.set_length(total),
            None => self.0.unset_length(),
        }
        self.0.set_style(style(total_bytes.is_some()));
        self.0.set_message(name.to_owned());
    }

    fn advance(&self, bytes: u64, _items: u64) {
        self.0.inc(bytes);
    }

    fn notice(&self, text: &str) {
        self.0.println(format!("{}: {}", self.0.prefix(), human::printable(text)));
    }

    fn finding(&self, _finding: Finding) {}

    fn cancelled(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[derive(Default)]
struct LineState {
    phase: String,
    total: Option<u64>,
    bytes: u64,
    last: Duration,
}

struct Lines {
    name: String,
    clock: SystemClock,
    state: Mutex<LineState>,
    stop: Arc<AtomicBool>,
}

impl Lines {
    fn lock(&self) -> std::sync::MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Monitor for Lines {
    fn phase(&self, name: &str, total_bytes: Option<u64>) {
        let mut state = self.lock();
        *state =
            LineState { phase: name.to_owned(), total: total_bytes, bytes: 0, last: self.clock.monotonic() };
    }

    #[expect(clippy::print_stderr, reason = "progress goes to standard error")]
    fn advance(&self, bytes: u64, _items: u64) {
        let mut state = self.lock();
        state.bytes += bytes;
        let now = self.clock.monotonic();
        if now.saturating_sub(state.last) >= LINE_INTERVAL {
            state.last = now;
            let total = state.total.map(|total| format!(" of {}", human::bytes(total))).unwrap_or_default();
            eprintln!("{}: {} {}{total}", self.name, state.phase, human::bytes(state.bytes));
        }
    }

    fn notice(&self, text: &str) {
        notice(&self.name, text);
    }

    fn finding(&self, _finding: Finding) {}

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

struct Silent {
    name: String,
    stop: Arc<AtomicBool>,
}

impl Monitor for Silent {
    fn phase(&self, _name: &str, _total_bytes: Option<u64>) {}

    fn advance(&self, _bytes: u64, _items: u64) {}

    fn notice(&self, text: &str) {
        notice(&self.name, text);
    }

    fn finding(&self, _finding: Finding) {}

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
