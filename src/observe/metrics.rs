//! The metrics, each declared once: what `/metrics` says and what `docs/metrics.md` explains.
//! Invariant: each list takes its struct apart, so a figure that a shard counts and that is missing
//! here does not compile.
//!
//! What tells one shard from another has a label `shard`. What strangers cause (codes, reasons) is
//! summed over the shards: which of them met it says nothing.

use super::collector::Seen;
use super::exposition::{Page, Style};
use crate::io::counters::{Counters, Report};
use crate::io::timing::{Durations, Longest, Times};
use crate::kernel::reasons::{CloseReason, Dropped};
use crate::shard::Snapshot;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub struct Metric {
    /// With its unit, and `_total` where it is a counter.
    pub name: &'static str,
    pub kind: Kind,
    pub unit: &'static str,
    pub help: &'static str,
    /// Those of its own, beside `shard`. A value with two is cut at its first underscore.
    pub labels: &'static [&'static str],
    /// What to watch for.
    pub alarm: Option<&'static str>,
}

/// What is said of one metric.
pub enum Said<'a> {
    Number(u64),
    Seconds(f64),
    Each(Vec<(String, u64)>),
    Durations(&'a Durations),
    Longest(Longest),
}

/// Upper ends of what histograms count, as `le`.
pub const BOUNDS: [Duration; 19] = {
    const fn us(microseconds: u64) -> Duration {
        Duration::from_micros(microseconds)
    }
    [
        us(10),
        us(25),
        us(50),
        us(100),
        us(250),
        us(500),
        us(1_000),
        us(2_500),
        us(5_000),
        us(10_000),
        us(25_000),
        us(50_000),
        us(100_000),
        us(250_000),
        us(500_000),
        us(1_000_000),
        us(2_500_000),
        us(5_000_000),
        us(10_000_000),
    ]
};

/// Of each metric: its field, what it is, its name, what it is counted in, the labels of its parts,
/// what to alarm on; and, above, its help.
macro_rules! metrics {
    ($(
        $TABLE:ident, $said:ident: $Source:ident {
            $(
                $(#[doc = $help:literal])+
                $field:ident: $kind:ident $name:literal in $unit:literal
                    $(by $($label:literal)+)? $(=> $alarm:literal)?;
            )+
        }
    )+) => {
        $(
            pub static $TABLE: &[Metric] = &[
                $( Metric {
                    name: $name,
                    kind: Kind::$kind,
                    unit: $unit,
                    help: concat!($($help),+),
                    labels: &[$($($label),+)?],
                    alarm: [$(Some($alarm),)? None][0],
                }, )+
            ];

            fn $said(source: &$Source) -> Vec<Said<'_>> {
                let $Source { $($field),+ } = source;
                vec![$( Said::from($field) ),+]
            }
        )+
    };
}

metrics! {
    CORE, said_by_core: Snapshot {
        /// Open connections, those that are closing included.
        connections: Gauge "ringroom_connections" in "connections" => "near `ringroom_connections_max`";
        /// How many connections a shard takes (`limits.conns_per_shard`).
        connections_max: Gauge "ringroom_connections_max" in "connections";
        /// Rooms that have their home on this shard, inboxes of users included.
        rooms: Gauge "ringroom_rooms" in "rooms";
        /// Connections that the core took in.
        opened: Counter "ringroom_connections_opened_total" in "connections";
        /// Connections whose sockets have ended.
        gone: Counter "ringroom_connections_gone_total" in "connections";
        /// Clients in namespaces of Socket.IO; one connection may be in several.
        namespaces: Gauge "ringroom_socketio_namespaces" in "clients";
        /// Clients that were let into namespaces of Socket.IO.
        namespaces_opened: Counter "ringroom_socketio_namespaces_opened_total" in "clients";
        /// WebSockets that took over from polling.
        upgrades: Counter "ringroom_engineio_upgrades_total" in "sessions";
        /// Streams of server-sent events.
        streams: Gauge "ringroom_sse_streams" in "connections";
        /// Streams of server-sent events that were opened.
        streams_opened: Counter "ringroom_sse_streams_opened_total" in "connections";
        /// Requests that clients of streams sent to `/emit`.
        emits: Counter "ringroom_emits_total" in "messages";
        /// Messages of clients, whatever became of them.
        requests: Counter "ringroom_requests_total" in "messages";
        /// Messages that got their place in a room's order.
        publishes: Counter "ringroom_publishes_total" in "messages";
        /// Publishes that were a repetition, answered as the first time.
        repeated: Counter "ringroom_publishes_repeated_total" in "messages";
        /// Live pushes of rooms put into outboxes: one for each receiver.
        deliveries: Counter "ringroom_deliveries_total" in "pushes";
        /// Pushes put into outboxes because a client said where it was.
        replayed: Counter "ringroom_deliveries_replayed_total" in "pushes";
        /// Pushes that reached no outbox or left it unwritten, by class and reason.
        dropped: Counter "ringroom_drops_total" in "pushes" by "class" "reason" => "`class=\"logged\"` grows: readers are closed with messages unread, and resume";
        /// Times that another shard fell behind in a room, for want of places in its lane.
        behind: Counter "ringroom_rooms_fell_behind_total" in "rooms" => "grows steadily: a shard does not keep up";
        /// Times that it could not be caught up, because the history had gone on: its members were closed.
        lost: Counter "ringroom_rooms_lost_total" in "rooms" => "grows at all";
        /// Requests that waited for places in a lane; their connection was not read from meanwhile.
        parked: Counter "ringroom_requests_parked_total" in "requests" => "grows steadily: a shard does not keep up";
        /// Questions to somebody outside that have no answer yet.
        asked_now: Gauge "ringroom_questions_open" in "questions";
        /// Requests that wait for these, those behind them included.
        asked_waiting: Gauge "ringroom_questions_requests" in "requests";
        /// Questions to somebody outside.
        asked: Counter "ringroom_questions_total" in "questions";
        /// Those that nobody answered in time.
        asked_timed_out: Counter "ringroom_questions_timed_out_total" in "questions" => "grows: who should answer does not";
        /// Requests that were refused because too much waited for answers.
        asked_full: Counter "ringroom_questions_refused_total" in "requests";
        /// Requests that wait for their answers.
        calls: Gauge "ringroom_calls" in "requests";
        /// Mails to other shards that wait for places in their lanes.
        held: Gauge "ringroom_lane_held" in "mails";
        /// Replays under way.
        replays: Gauge "ringroom_replays" in "replays";
        /// Rooms that are behind on another shard, once for each such shard.
        rooms_behind: Gauge "ringroom_rooms_behind" in "rooms" => "above 0 for a minute: a shard does not keep up";
        /// Connections whose sockets take nothing.
        blocked: Gauge "ringroom_readers_blocked" in "connections";
        /// Those of them that have taken nothing for `limits.slow_ms`: transient pushes pass them by.
        slow: Gauge "ringroom_readers_slow" in "connections" => "a large part of `ringroom_connections`: the network, or clients that do not read";
        /// What the shard may hold for readers (`memory.budget_bytes`).
        memory_budget: Gauge "ringroom_memory_budget_bytes" in "bytes";
        /// What it holds: queued frames, each once, what histories keep, and queues' places.
        memory_used: Gauge "ringroom_memory_used_bytes" in "bytes" => "above 7/8 of the budget: stalled readers are closed, then histories become shorter";
        /// What histories keep, of the same.
        memory_history: Gauge "ringroom_memory_history_bytes" in "bytes";
        /// What the places of queues take, of the same.
        memory_places: Gauge "ringroom_memory_places_bytes" in "bytes";
        /// Frames that are held, each once however many readers wait for it.
        frames: Gauge "ringroom_memory_frames" in "frames";
        /// 1 while publishes are refused because nothing is left to let go of.
        memory_full: Gauge "ringroom_memory_full" in "yes or no" => "1: publishes fail; raise `memory.budget_bytes` or spread the load";
        /// Times that the shard let go of memory.
        reliefs: Counter "ringroom_memory_reliefs_total" in "times" => "grows steadily: the budget is too small for the load";
        /// Messages that histories lost by it before their time.
        forgotten: Counter "ringroom_messages_forgotten_total" in "messages";
        /// Publishes refused because letting go did not help.
        refused_full: Counter "ringroom_publishes_refused_full_total" in "messages" => "grows at all";
        /// Requests refused, by the code that the client got.
        errors: Counter "ringroom_request_errors_total" in "requests" by "code" => "`code=\"internal\"` grows: report it; `code=\"unavailable\"` grows: too much load";
        /// Those of them that name a limit, by the limit.
        limited: Counter "ringroom_requests_limited_total" in "requests" by "limit" => "far above the usual: clients that do not slow down, or a limit that is too low";
        /// Buckets of users, and of connections that were refused, that are not known to be full.
        buckets: Gauge "ringroom_rate_buckets" in "buckets";
        /// Connections closed, by the code of the close frame.
        closes: Counter "ringroom_closes_total" in "connections" by "code" => "`code=\"slow_consumer\"` or `code=\"unauthorized\"` far above the usual";
        /// Those of them that the core had a reason of its own for.
        closed_for: Counter "ringroom_closes_by_reason_total" in "connections" by "reason" => "`reason=\"memory\"`, `reason=\"lost_between_shards\"` or `reason=\"lost_replay\"` grows";
        /// Connections cut by the core because they did not go: in time (`linger`), or soon enough for
        /// the memory that they held (`memory`).
        resets_for: Counter "ringroom_resets_by_reason_total" in "connections" by "reason";
        /// Places free in the lane to another shard.
        credit: Gauge "ringroom_lane_free" in "mails" by "peer" => "0 for seconds: the peer does not keep up";
    }

    EDGE, said_by_edge: Counters {
        /// Sockets taken from the listener.
        accepted: Counter "ringroom_sockets_accepted_total" in "sockets";
        /// Times that none could be taken, for want of descriptors or memory.
        accept_failures: Counter "ringroom_accept_failures_total" in "times" => "grows at all: raise `LimitNOFILE`";
        /// Sockets that became WebSockets on this shard.
        opened: Counter "ringroom_websockets_opened_total" in "sockets";
        /// WebSockets that have ended.
        closed: Counter "ringroom_websockets_closed_total" in "sockets";
        /// Sockets cut by us because their peers did not end them in time.
        resets: Counter "ringroom_resets_total" in "sockets";
        /// Handshakes of TLS that signed anew, by version.
        tls_full: Counter "ringroom_tls_handshakes_full_total" in "handshakes" by "version" => "grows as fast as connections: clients bring no tickets, and each costs a signature";
        /// Handshakes of TLS with a ticket from an earlier one, by version.
        tls_resumed: Counter "ringroom_tls_handshakes_resumed_total" in "handshakes" by "version";
        /// Handshakes of TLS that came to nothing, by reason.
        tls_failed: Counter "ringroom_tls_handshakes_failed_total" in "handshakes" by "reason" => "`certificate_refused` grows: clients do not trust the certificate";
        /// Requests to connect that became nothing, by reason.
        refused: Counter "ringroom_handshakes_refused_total" in "requests" by "reason" => "grows far above the usual: an attack, a wrong key, or clients with old tokens";
        /// Requests whose proxy said something else than addresses of where they come from.
        forwarded_malformed: Counter "ringroom_forwarded_malformed_total" in "requests" => "grows at all: a proxy of `network.trusted_proxies` is set up wrongly";
        /// Connections handed to the shard of their user.
        moved_out: Counter "ringroom_connections_moved_out_total" in "connections";
        /// Connections taken over as such.
        moved_in: Counter "ringroom_connections_moved_in_total" in "connections";
        /// Of Engine.IO: requests of polling clients for packets.
        engine_polls: Counter "ringroom_engineio_polls_total" in "requests";
        /// Of Engine.IO: requests of polling clients that brought packets.
        engine_posts: Counter "ringroom_engineio_posts_total" in "requests";
        /// Of Engine.IO: requests handed to the shard of their session.
        requests_out: Counter "ringroom_engineio_requests_moved_out_total" in "requests";
        /// Of Engine.IO: requests taken over as such.
        requests_in: Counter "ringroom_engineio_requests_moved_in_total" in "requests";
        /// Times that the shard asked which sockets have something to read.
        looks: Counter "ringroom_looks_total" in "times";
        /// Turns that only looked for work, without sleeping (`turn.busy_poll_us`).
        polls: Counter "ringroom_polls_total" in "turns";
        /// Reads of sockets.
        reads: Counter "ringroom_reads_total" in "reads";
        /// What clients sent, frames and masks included.
        bytes_in: Counter "ringroom_read_bytes_total" in "bytes";
        /// Writes to sockets.
        writes: Counter "ringroom_writes_total" in "writes";
        /// What was sent to clients.
        bytes_out: Counter "ringroom_written_bytes_total" in "bytes";
        /// Writes of which the socket took only a part.
        writes_short: Counter "ringroom_writes_short_total" in "writes";
        /// Mails sent to other shards.
        mails_out: Counter "ringroom_mails_sent_total" in "mails";
        /// Mails taken from other shards.
        mails_in: Counter "ringroom_mails_taken_total" in "mails";
        /// Sleeping shards that were woken.
        bells: Counter "ringroom_bells_total" in "times";
        /// Sockets whose request has not ended.
        handshakes_now: Gauge "ringroom_handshakes" in "sockets" => "thousands: somebody opens connections and says nothing";
        /// Open WebSockets.
        connections_now: Gauge "ringroom_websockets" in "sockets";
        /// Open WebSockets over TLS.
        tls_connections_now: Gauge "ringroom_tls_websockets" in "sockets";
        /// Open Engine.IO sessions that have no WebSocket.
        sessions_polling_now: Gauge "ringroom_engineio_sessions_polling" in "sessions";
        /// Sockets that are kept for the requests of polling clients.
        requesters_now: Gauge "ringroom_engineio_sockets" in "sockets" => "thousands more than `ringroom_engineio_sessions_polling`: a proxy keeps sockets that nobody uses";
        /// 1 while the shard takes new sockets.
        listening: Gauge "ringroom_listening" in "yes or no";
    }

    TIMES, said_by_times: Times {
        /// Turns: the work between two waits. The rate of the sum is the part of the time that the
        /// shard is busy.
        turns: Histogram "ringroom_turn_seconds" in "seconds" => "the rate of `_sum` near 1: the shard is full; p99 above 50 ms: everybody on it waits";
        /// From the receive that brought a message to the first write of its delivery; one for each
        /// flush that found somebody new.
        lags: Histogram "ringroom_delivery_lag_seconds" in "seconds" => "p99 above what you promise your users";
        /// The longest step of the last minute or two, and what it was: an event of clients, or a word.
        longest_step: Gauge "ringroom_step_longest_seconds" in "seconds" by "what";
        /// The longest turn of the last minute or two.
        longest_turn: Gauge "ringroom_turn_longest_seconds" in "seconds" => "above 0.25: everybody on the shard waited";
    }

    PROCESS, said_by_process: Process {
        /// Always 1; the labels say what runs.
        build: Gauge "ringroom_build_info" in "one" by "version" "io";
        /// Shards of this process.
        shards: Gauge "ringroom_shards" in "shards";
        /// Shards that did not answer this scrape within a second; what they said last is shown.
        silent: Gauge "ringroom_shards_silent" in "shards" => "above 0 for ten seconds: the process hangs, `/health` fails";
        /// 1 while `/ready` says so.
        ready: Gauge "ringroom_ready" in "yes or no" => "0; `/ready` says why";
        /// 1 from the moment when the process was told to go.
        draining: Gauge "ringroom_draining" in "yes or no";
        /// Lines of the service log that were left out because the same place said too much.
        log_left_out: Counter "ringroom_log_lines_left_out_total" in "lines";
        /// Lines written to the audit log.
        audit_written: Counter "ringroom_audit_lines_total" in "lines";
        /// Events that the audit log lost: its disk was full or slow.
        audit_lost: Counter "ringroom_audit_lost_total" in "events" => "grows at all: the disk of `audit.file` is full or slow";
        /// When each certificate that TLS is served with ends, since 1970.
        tls_ends: Gauge "ringroom_tls_certificate_expiry_seconds" in "seconds" by "file" => "less than a week from now: whatever renews it has stopped";
        /// Times that changed certificates, keys or authorities were taken.
        tls_taken: Counter "ringroom_tls_reloads_total" in "times";
        /// Times that they could not be, and the former ones went on; the log says why.
        tls_refused: Counter "ringroom_tls_reloads_refused_total" in "times";
        /// 1 while the files hold what cannot be served.
        tls_stale: Gauge "ringroom_tls_stale" in "yes or no" => "1: the certificates in the files cannot be served";
        /// When the process started, since 1970.
        started: Gauge "process_start_time_seconds" in "seconds" => "changes: the process was started again";
        /// Processor time that the process has used.
        cpu: Counter "process_cpu_seconds_total" in "seconds";
        /// Memory of the process that lies in RAM.
        resident: Gauge "process_resident_memory_bytes" in "bytes" => "near what the machine or the unit allows";
        /// Open descriptors; each connection has one.
        files: Gauge "process_open_fds" in "descriptors" => "near `process_max_fds`";
        /// How many there may be.
        files_max: Gauge "process_max_fds" in "descriptors";
    }
}

/// What is true of the process as a whole.
pub struct Process {
    pub build: Vec<(String, u64)>,
    pub shards: u64,
    pub silent: u64,
    pub ready: u64,
    pub draining: u64,
    pub log_left_out: u64,
    pub audit_written: u64,
    pub audit_lost: u64,
    pub tls_ends: Vec<(String, u64)>,
    pub tls_taken: u64,
    pub tls_refused: u64,
    pub tls_stale: u64,
    pub started: f64,
    pub cpu: f64,
    pub resident: u64,
    pub files: u64,
    pub files_max: u64,
}

impl<'a> From<&'a u64> for Said<'a> {
    fn from(number: &u64) -> Self {
        Said::Number(*number)
    }
}

impl<'a> From<&'a f64> for Said<'a> {
    fn from(seconds: &f64) -> Self {
        Said::Seconds(*seconds)
    }
}

impl<'a, K: ToString> From<&'a BTreeMap<K, u64>> for Said<'a> {
    fn from(each: &'a BTreeMap<K, u64>) -> Self {
        Said::Each(each.iter().map(|(name, count)| (name.to_string(), *count)).collect())
    }
}

impl<'a> From<&'a Vec<(String, u64)>> for Said<'a> {
    fn from(each: &'a Vec<(String, u64)>) -> Self {
        Said::Each(each.clone())
    }
}

impl<'a> From<&'a Durations> for Said<'a> {
    fn from(durations: &'a Durations) -> Self {
        Said::Durations(durations)
    }
}

impl<'a> From<&'a Longest> for Said<'a> {
    fn from(longest: &Longest) -> Self {
        Said::Longest(*longest)
    }
}

impl Metric {
    /// Strangers cause it, on whichever shard they met.
    pub fn is_summed(&self) -> bool {
        self.kind == Kind::Counter && !self.labels.is_empty()
    }

    pub fn is_of_shards(&self) -> bool {
        !PROCESS.iter().any(|own| own.name == self.name)
    }

    /// What the parts are, where the code knows it: label values and their meaning.
    pub fn parts(&self) -> Vec<(&'static str, &'static str)> {
        match self.name {
            "ringroom_drops_total" => Dropped::ALL.iter().map(|what| (what.name(), what.help())).collect(),
            "ringroom_closes_by_reason_total" => CloseReason::ALL.iter().map(|why| (why.name(), why.help())).collect(),
            _ => Vec::new(),
        }
    }
}

/// All metrics, in the order of the page.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    PROCESS.iter().chain(CORE).chain(EDGE).chain(TIMES)
}

/// The body of `/metrics`.
pub fn page(seen: &Seen, process: &Process, style: Style) -> String {
    let mut page = Page::new(style);
    for (metric, said) in PROCESS.iter().zip(said_by_process(process)) {
        page.family(metric);
        page.say(metric, None, &said);
    }
    let shards: Vec<(u8, Vec<Said<'_>>)> = seen.last().map(|report| (report.shard, said_by(report))).collect();
    for (nth, metric) in CORE.iter().chain(EDGE).chain(TIMES).enumerate() {
        page.family(metric);
        if metric.is_summed() {
            page.say(metric, None, &sum(shards.iter().map(|(_, said)| &said[nth])));
            continue;
        }
        for (shard, said) in &shards {
            page.say(metric, Some(*shard), &said[nth]);
        }
    }
    page.end()
}

/// In the order of the tables of shards.
fn said_by(report: &Report) -> Vec<Said<'_>> {
    let Report { shard: _, edge, core, times } = report;
    let mut said = said_by_core(core);
    said.extend(said_by_edge(edge));
    said.extend(said_by_times(times));
    said
}

fn sum<'a>(each: impl Iterator<Item = &'a Said<'a>>) -> Said<'static> {
    let mut total: BTreeMap<&str, u64> = BTreeMap::new();
    for said in each {
        let Said::Each(parts) = said else { unreachable!("what is summed has parts") };
        for (name, count) in parts {
            *total.entry(name).or_default() += count;
        }
    }
    Said::Each(total.into_iter().map(|(name, count)| (name.to_owned(), count)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn report(shard: u8, refused: &[(&'static str, u64)]) -> Report {
        let mut report =
            Report { shard, edge: Default::default(), core: Default::default(), times: Default::default() };
        report.edge.refused = refused.iter().copied().collect();
        report.edge.reads = 10 + u64::from(shard);
        report.core.dropped.insert("transient_gave_way", 4);
        report.core.credit.insert(1 - shard, 7);
        report
    }

    fn process() -> Process {
        Process {
            build: vec![("0.1.0_io_uring".into(), 1)],
            shards: 2,
            silent: 0,
            ready: 1,
            draining: 0,
            log_left_out: 0,
            audit_written: 0,
            audit_lost: 0,
            tls_ends: Vec::new(),
            tls_taken: 0,
            tls_refused: 0,
            tls_stale: 0,
            started: 1_790_000_000.0,
            cpu: 1.25,
            resident: 5,
            files: 6,
            files_max: 7,
        }
    }

    fn page_of(reports: Vec<Report>) -> Vec<String> {
        let seen = Seen::nothing(2).after(reports);
        page(&seen, &process(), Style::Prometheus).lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_metric_has_a_name_of_its_own_that_follows_the_conventions() {
        let mut names = HashSet::new();
        for metric in all() {
            // OpenMetrics names a counter without its ending.
            let family = metric.name.strip_suffix("_total").unwrap_or(metric.name);
            assert!(names.insert(family), "{family} is there twice");
            assert!(metric.name.starts_with("ringroom_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            let stem = metric.name.trim_end_matches("_total");
            for unit in ["seconds", "bytes"] {
                assert_eq!(stem.ends_with(&format!("_{unit}")), metric.unit == unit, "{}", metric.name);
            }
            assert!(metric.help.trim().ends_with('.') && !metric.help.contains(['\n', '\\']), "{}", metric.name);
        }
    }

    #[test]
    fn what_strangers_cause_is_summed_and_the_rest_is_told_by_shard() {
        let lines = page_of(vec![report(0, &[("head", 1), ("path", 2)]), report(1, &[("head", 5)])]);
        for wanted in [
            "ringroom_handshakes_refused_total{reason=\"head\"} 6",
            "ringroom_handshakes_refused_total{reason=\"path\"} 2",
            "ringroom_reads_total{shard=\"0\"} 10",
            "ringroom_reads_total{shard=\"1\"} 11",
            "ringroom_drops_total{class=\"transient\",reason=\"gave_way\"} 8",
            "ringroom_lane_free{shard=\"0\",peer=\"1\"} 7",
            "ringroom_build_info{version=\"0.1.0\",io=\"io_uring\"} 1",
            "ringroom_turn_seconds_bucket{shard=\"1\",le=\"+Inf\"} 0",
            "ringroom_turn_seconds_sum{shard=\"1\"} 0",
            "process_cpu_seconds_total 1.25",
            "# TYPE ringroom_turn_seconds histogram",
            "# HELP ringroom_reads_total Reads of sockets. Unit: reads.",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted} is missing in\n{}", lines.join("\n"));
        }
    }

    #[test]
    fn a_shard_that_falls_silent_takes_nothing_back() {
        let seen = Seen::nothing(2).after(vec![report(0, &[("head", 1)]), report(1, &[("head", 5)])]);
        let before = page(&seen, &process(), Style::Prometheus);
        assert_eq!(page(&seen.after(vec![report(0, &[("head", 1)])]), &process(), Style::Prometheus), before);
    }

    #[test]
    fn a_part_that_a_client_chose_ends_no_line() {
        let lines = page_of(vec![report(0, &[("a\"b\\c\nd", 1)])]);
        assert!(lines.iter().any(|line| line.ends_with("{reason=\"a\\\"b\\\\c\\nd\"} 1")));
    }
}
