//! Numbers as people read them. Machines get the plain numbers.

use std::borrow::Cow;
use std::time::Duration;

/// `1.5 GiB`, `12 KiB`, `7 B`: binary units, one decimal below ten.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `3m 20s`, `2h 5m`, `4d 3h`, `850ms`: the two largest units.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let pair = |large: u64, large_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{large}{large_unit}")
        } else {
            format!("{large}{large_unit} {small}{small_unit}")
        }
    };
    match seconds {
        0 => format!("{}ms", span.subsec_millis()),
        1..=9 if span.subsec_millis() >= 100 => format!("{seconds}.{}s", span.subsec_millis() / 100),
        1..=59 => format!("{seconds}s"),
        60..=3_599 => pair(seconds / 60, "m", seconds % 60, "s"),
        3_600..=86_399 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// The same of seconds as a drill measures them; what is no time at all is shown as none.
pub fn seconds(seconds: f64) -> String {
    duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Masks control characters, so that a hostile file name cannot drive a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Text for a cell of a Markdown table: nothing in it is markup, and nothing leaves the cell.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '!' | '~' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

/// Text for a cell of a spreadsheet: one that starts like a formula gets an apostrophe, so that it is not run.
pub fn spreadsheet(text: &str) -> Cow<'_, str> {
    let formula =
        |c: char| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠');
    if text.trim_start_matches(' ').starts_with(formula) {
        return Cow::Owned(format!("'{text}"));
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(37 * 1024 * 1024), "37 MiB");
        assert_eq!(duration(Duration::from_millis(850)), "850ms");
        assert_eq!(duration(Duration::from_millis(2_350)), "2.3s");
        assert_eq!(duration(Duration::from_secs(200)), "3m 20s");
        assert_eq!(duration(Duration::from_secs(90_000)), "1d 1h");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }

    #[test]
    fn a_cell_that_starts_like_a_formula_is_not_run_by_a_spreadsheet() {
        for text in ["=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1"] {
            assert_eq!(spreadsheet(text), format!("'{text}"));
        }
        assert_eq!(spreadsheet("a \"b\", c"), "a \"b\", c");
    }

    #[test]
    fn a_subject_cannot_leave_its_cell_of_a_page() {
        assert_eq!(markdown("a|b<script>`x`\u{1b}[2J"), "a\\|b&lt;script&gt;\\`x\\`\u{fffd}\\[2J");
    }
}
