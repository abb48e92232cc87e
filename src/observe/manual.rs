//! `docs/metrics.md`, from the declarations: what is written there is what is served.

use super::metrics::{self, Kind, Metric};
use std::fmt::Write;

const HEAD: &str = "\
# Metrics

Made from the declarations by `ringroom config docs metrics`; a test fails when it is not. `/metrics` on the
ops port serves all of them in Prometheus' text format, and as OpenMetrics to whoever asks for that.

- A metric \"by shard\" has a label `shard`; add them up for the process. What strangers cause (codes, reasons) is
  summed already. Parts that nobody caused yet may be missing.
- A shard that does not answer within a second keeps what it said last, so no counter goes back;
  `ringroom_shards_silent` says how many there are.
- A scrape costs each shard some microseconds, whatever the number of connections. Scrapes that come together
  share one question to the shards. Every second is fine.

## What to alarm on

The rest is for finding out why. Thresholds that depend on your load are words here; `docs/operations.md` says
what to do.

| metric | alarm |
| --- | --- |
";

pub fn manual() -> String {
    let mut text = HEAD.to_owned();
    for metric in metrics::all() {
        if let Some(alarm) = metric.alarm {
            // Writing to a string does not fail.
            let _ = writeln!(text, "| `{}` | {alarm} |", metric.name);
        }
    }
    for (title, about, table) in [
        ("The process", "One series each.", metrics::PROCESS),
        ("The core", "Connections, rooms, messages and what they hold.", metrics::CORE),
        ("The edge", "Sockets and the ways between shards.", metrics::EDGE),
        ("Times", "Histograms count up to 10 us, 25 us, 50 us and so on to 10 s.", metrics::TIMES),
    ] {
        let _ = writeln!(
            text,
            "\n## {title}\n\n{about}\n\n| metric | type, unit | by | meaning |\n| --- | --- | --- | --- |"
        );
        for metric in table {
            let _ = writeln!(
                text,
                "| `{}` | {}, {} | {} | {} |",
                metric.name,
                kind(metric.kind),
                metric.unit,
                by(metric),
                metric.help.trim()
            );
        }
    }
    for metric in metrics::all() {
        let parts = metric.parts();
        if parts.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "\n## Parts of `{}`\n\n| {} | meaning |\n| --- | --- |",
            metric.name,
            metric.labels.join(", ")
        );
        for (name, meaning) in parts {
            let name = if metric.labels.len() == 2 { name.replacen('_', ", ", 1) } else { name.to_owned() };
            let _ = writeln!(text, "| {name} | {meaning} |");
        }
    }
    text
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn by(metric: &Metric) -> String {
    let shard = (metric.is_of_shards() && !metric.is_summed()).then_some("shard");
    let labels: Vec<&str> = shard.into_iter().chain(metric.labels.iter().copied()).collect();
    labels.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_in_docs_is_the_one_that_the_table_makes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == manual(),
            "docs/metrics.md is out of date; write it anew: cargo run -- config docs metrics > docs/metrics.md"
        );
    }
}
