//! The text that Prometheus reads: format 0.0.4, and OpenMetrics 1.0 for whoever asks for it.
//! Invariant: every sample stands below the help, the type and the unit of its family, and nothing
//! of what a stranger said can end a line.

use super::metrics::{BOUNDS, Kind, Metric, Said};
use std::fmt::Write;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    Prometheus,
    OpenMetrics,
}

impl Style {
    /// The one that an `Accept` header asks for.
    pub fn wanted(accept: Option<&str>) -> Style {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Style::OpenMetrics,
            _ => Style::Prometheus,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Style::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Style::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

pub struct Page {
    style: Style,
    text: String,
}

impl Page {
    pub fn new(style: Style) -> Page {
        Page { style, text: String::with_capacity(64 * 1024) }
    }

    /// Help, type and unit; the samples follow.
    pub fn family(&mut self, metric: &Metric) {
        let (name, kind) = match (self.style, metric.kind) {
            (Style::OpenMetrics, Kind::Counter) => (metric.name.trim_end_matches("_total"), "counter"),
            (Style::OpenMetrics, _) if metric.name.ends_with("_info") => {
                (metric.name.trim_end_matches("_info"), "info")
            }
            (_, Kind::Counter) => (metric.name, "counter"),
            (_, Kind::Gauge) => (metric.name, "gauge"),
            (_, Kind::Histogram) => (metric.name, "histogram"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {} Unit: {}.", metric.help.trim(), metric.unit);
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        if self.style == Style::OpenMetrics && name.ends_with(&format!("_{}", metric.unit)) {
            let _ = writeln!(self.text, "# UNIT {name} {}", metric.unit);
        }
    }

    /// What one shard says of a metric, or all together.
    pub fn say(&mut self, metric: &Metric, shard: Option<u8>, said: &Said<'_>) {
        let shard = shard.map(|shard| ("shard", shard.to_string()));
        let own: Vec<(&str, &str)> = shard.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match said {
            Said::Number(number) => self.sample(metric.name, "", &own, *number),
            Said::Seconds(seconds) => self.sample(metric.name, "", &own, *seconds),
            Said::Each(parts) => {
                for (part, number) in parts {
                    let mut labels = own.clone();
                    match metric.labels {
                        [first, second] => {
                            let (one, other) = part.split_once('_').unwrap_or((part, ""));
                            labels.extend([(*first, one), (*second, other)]);
                        }
                        labelled => labels.extend(labelled.iter().map(|label| (*label, part.as_str()))),
                    }
                    self.sample(metric.name, "", &labels, *number);
                }
            }
            Said::Longest(longest) => {
                let mut labels = own;
                labels.extend(metric.labels.iter().map(|label| (*label, longest.what)));
                self.sample(metric.name, "", &labels, seconds(longest.took));
            }
            Said::Durations(durations) => {
                for (bound, count) in BOUNDS.iter().zip(durations.up_to(&BOUNDS)) {
                    let bound = seconds(*bound).to_string();
                    self.sample(metric.name, "_bucket", &[&own[..], &[("le", &bound)]].concat(), count);
                }
                self.sample(metric.name, "_bucket", &[&own[..], &[("le", "+Inf")]].concat(), durations.len());
                self.sample(metric.name, "_sum", &own, seconds(durations.sum()));
                self.sample(metric.name, "_count", &own, durations.len());
            }
        }
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        for (nth, (label, value)) in labels.iter().enumerate() {
            self.text.push(if nth == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", Escaped(value));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    pub fn end(mut self) -> String {
        if self.style == Style::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e9
}

/// The value of a label.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for char in self.0.chars() {
            match char {
                '\\' => out.write_str("\\\\")?,
                '"' => out.write_str("\\\"")?,
                '\n' => out.write_str("\\n")?,
                char => out.write_char(char)?,
            }
        }
        Ok(())
    }
}
