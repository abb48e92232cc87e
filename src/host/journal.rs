//! The service log: one line an event on standard error, for whatever collects it.
//! Invariant: a message never spans lines, so a stranger's bytes cannot forge one.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

struct Journal;

/// Later calls change the level only.
pub fn start(level: LevelFilter) {
    // An application that has a logger of its own keeps it.
    let _ = log::set_logger(&Journal);
    log::set_max_level(level);
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Libraries speak only when something is wrong.
        let is_ours = record.target().starts_with(env!("CARGO_CRATE_NAME"));
        if !self.enabled(record.metadata()) || (!is_ours && record.level() > Level::Warn) {
            return;
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = line(unix.as_millis() as u64, record.level(), &record.args().to_string());
        // Nobody is left to tell when standard error is closed.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn line(unix_ms: u64, level: Level, message: &str) -> String {
    let message: String = message.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    format!("{} {level:5} {message}\n", timestamp(unix_ms))
}

/// `2025-11-21T02:03:04.567Z`.
fn timestamp(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1_000, unix_ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a day since 1970 (Hinnant: "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_with_a_readable_time() {
        assert_eq!(
            line(1_763_690_584_567, Level::Warn, "first\nsecond\u{1b}[0m"),
            "2025-11-21T02:03:04.567Z WARN  first second [0m\n"
        );
        assert_eq!(timestamp(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
    }
}
