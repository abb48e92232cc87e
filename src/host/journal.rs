//! The service log: one line an event on standard error, for whatever collects it.
//! Invariants: a message never spans lines, so a stranger's bytes cannot forge one; and what strangers
//! cause again and again is a few lines a second, so they cannot fill a disk.

use crate::base::limits::LOG_LINES_PER_SECOND;
use crate::base::time::timestamp;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::Value;
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Text,
    Json,
}

struct Journal;

static IS_JSON: AtomicBool = AtomicBool::new(false);
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
/// Places of the code that shards wrote from.
static PLACES: Mutex<Option<HashMap<Place, Window>>> = Mutex::new(None);

const WINDOW: Duration = Duration::from_secs(1);

/// File and line.
type Place = (&'static str, u32);

/// What one place wrote in the present second.
struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
    level: Level,
}

/// Later calls change level and format only.
pub fn start(level: LevelFilter, format: Format) {
    // An application that has a logger of its own keeps it.
    let _ = log::set_logger(&Journal);
    IS_JSON.store(format == Format::Json, Ordering::Relaxed);
    log::set_max_level(level);
}

/// Lines that were left out because their place said too much.
pub fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Tells how much was left out, for as long as it is polled.
pub async fn keep() {
    loop {
        tokio::time::sleep(WINDOW).await;
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let over = places.get_or_insert_default().extract_if(|_, window| window.began.elapsed() >= WINDOW);
        let said: Vec<(Place, Window)> = over.filter(|(_, window)| window.left_out > 0).collect();
        drop(places);
        for (place, window) in said {
            write(window.level, &rest(place, window.left_out));
        }
    }
}

fn rest((file, line): Place, count: u64) -> String {
    format!("{count} more lines like those of {file}:{line} were left out")
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
        // Shards meet strangers; what other threads say is caused by operators.
        if shard().is_some() && !may_speak(record) {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
            return;
        }
        write(record.level(), &record.args().to_string());
    }

    fn flush(&self) {}
}

/// The shard that this thread is.
fn shard() -> Option<u8> {
    thread::current().name()?.strip_prefix("shard-")?.parse().ok()
}

fn may_speak(record: &Record<'_>) -> bool {
    let place = (record.file_static().unwrap_or("?"), record.line().unwrap_or(0));
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let fresh = || Window { began: now, lines: 0, left_out: 0, level: record.level() };
    let window = places.get_or_insert_default().entry(place).or_insert_with(fresh);
    window.take(now)
}

impl Window {
    /// Whether one more line may be written. What was left out before is told by [`keep`].
    fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.began) >= WINDOW && self.left_out == 0 {
            (self.began, self.lines) = (now, 0);
        }
        let may = self.lines < LOG_LINES_PER_SECOND;
        self.lines += u32::from(may);
        self.left_out += u64::from(!may);
        may
    }
}

fn write(level: Level, message: &str) {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let format = if IS_JSON.load(Ordering::Relaxed) { Format::Json } else { Format::Text };
    let line = line(format, unix.as_millis() as u64, level, shard(), message);
    // Nobody is left to tell when standard error is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn line(format: Format, unix_ms: u64, level: Level, shard: Option<u8>, message: &str) -> String {
    let ts = timestamp(unix_ms);
    match format {
        Format::Text => {
            let message: String = message.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
            format!("{ts} {level:5} {message}\n")
        }
        Format::Json => {
            // By hand for the order: what people look for comes first.
            let level = level.as_str().to_lowercase();
            let shard = shard.map(|shard| format!(",\"shard\":{shard}")).unwrap_or_default();
            format!("{{\"ts\":\"{ts}\",\"level\":\"{level}\"{shard},\"message\":{}}}\n", Value::from(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_is_one_line_with_a_readable_time() {
        let message = "first\nsecond\u{1b}[0m";
        assert_eq!(
            line(Format::Text, 1_763_690_584_567, Level::Warn, None, message),
            "2025-11-21T02:03:04.567Z WARN  first second [0m\n"
        );
        let json = line(Format::Json, 1_763_690_584_567, Level::Warn, Some(3), message);
        assert_eq!(json.lines().count(), 1);
        assert_eq!(
            serde_json::from_str::<Value>(&json).unwrap(),
            json!({"ts": "2025-11-21T02:03:04.567Z", "level": "warn", "message": message, "shard": 3})
        );
        assert!(!line(Format::Json, 0, Level::Info, None, "m").contains("shard"));
    }

    #[test]
    fn a_place_that_says_much_is_cut_short_until_the_rest_was_told() {
        let now = Instant::now();
        let mut window = Window { began: now, lines: 0, left_out: 0, level: Level::Warn };
        let spoken = (0..100).filter(|_| window.take(now)).count();
        assert_eq!((spoken, window.left_out), (LOG_LINES_PER_SECOND as usize, 100 - u64::from(LOG_LINES_PER_SECOND)));
        assert!(!window.take(now + WINDOW * 2), "the rest was not told yet");
        let mut calm = Window { began: now, lines: 0, left_out: 0, level: Level::Warn };
        assert!((0..LOG_LINES_PER_SECOND).all(|_| calm.take(now)));
        assert!(calm.take(now + WINDOW), "another second");
    }
}
