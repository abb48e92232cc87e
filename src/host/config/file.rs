//! One file of TOML to values of keys, with the place of each.
//! Invariant: every line that changes nothing is a problem, and all problems are found at once.

use super::declare::{Key, List};
use super::origin::{Origin, Problem, nearest};
use super::tree::{LISTS, SECTIONS, key, keys, list};
use super::value::{Quoted, Value, Wrong};
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Far more than all keys need: a larger file is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The part of a profile that is not for the server.
const SYSTEM: &str = "system";

/// One key that is set somewhere.
#[derive(Clone)]
pub struct Entry {
    pub key: &'static Key,
    pub value: Value,
    pub origin: Origin,
}

/// One table of a list.
#[derive(Clone)]
pub struct Row {
    pub entries: Vec<Entry>,
    pub origin: Origin,
}

impl Row {
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.path == path)
    }

    pub fn value(&self, path: &str) -> Option<&Value> {
        self.entry(path).map(|entry| &entry.value)
    }
}

#[derive(Default)]
pub struct Read {
    pub entries: Vec<Entry>,
    /// Lists that are there, be it without a row.
    pub lists: Vec<(&'static List, Vec<Row>)>,
    pub problems: Vec<Problem>,
    /// Paths of keys whose values were refused, and names of lists with something wrong.
    pub refused: Vec<&'static str>,
}

/// The text of a file, or why there is none.
pub fn load(path: &Path) -> Result<String, String> {
    let unreadable = |error| format!("cannot be read: {error}; check the path, and that this user may read the file");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes; is it the right file?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("is not UTF-8 in line {line}; save it as UTF-8")
    })
}

/// The text of a file at `path`.
pub fn parse(path: &str, text: &str) -> Read {
    parse_as(Kind::Configuration, path, text)
}

/// The same for a profile. What it says to the system is for `ringroom tune` to read.
pub fn parse_profile(path: &str, text: &str) -> Read {
    parse_as(Kind::Profile, path, text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Configuration,
    Profile,
}

fn parse_as(kind: Kind, path: &str, text: &str) -> Read {
    let path: Arc<str> = path.into();
    let place = |at: usize| {
        let before = &text[..at];
        let column = 1 + before[line_start(text, at)..].chars().count();
        Origin::File { path: Arc::clone(&path), line: 1 + before.matches('\n').count(), column }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let lists = Vec::new();
    let mut found = Found { place, entries: Vec::new(), lists, problems: Vec::new(), refused: Vec::new() };
    for (name, value) in table.get_ref() {
        match (name.get_ref().as_ref(), kind) {
            (SYSTEM, Kind::Profile) => continue,
            (SYSTEM, Kind::Configuration) => {
                found.problem(name.span().start, format!("[{SYSTEM}] stands in profiles only; move it to one of your own, and name that with server.profile"));
                continue;
            }
            _ => {}
        }
        found.top(name.get_ref(), name.span(), value.get_ref());
    }
    let Found { place, entries, lists, mut problems, refused } = found;
    for error in errors {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let at = (0..=at).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0);
        // What was read there is a guess of the parser's, and no reason to complain again.
        let spoiled = spoiled_by(text, at);
        problems.retain(|(other, _)| !spoiled.contains(other));
        problems.push((at, syntax(error.message())));
    }
    problems.sort_by_key(|(at, _)| *at);
    let problems = problems.into_iter().map(|(at, what)| Problem::new(&place(at), what)).collect();
    Read { entries, lists, problems, refused }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The line of a syntax error; where that line should begin a section, the whole section.
fn spoiled_by(text: &str, at: usize) -> Range<usize> {
    let start = line_start(text, at);
    let end = if text[start..].starts_with('[') { "\n[" } else { "\n" };
    start..text[at..].find(end).map_or(text.len(), |found| at + found) + 1
}

/// `message` is the parser's, which holds no byte of the file, as its longer text does: that could
/// show a secret.
fn syntax(message: &str) -> String {
    if message == "duplicate key" {
        return "this is here a second time; keep one of the two".into();
    }
    // `never` begins like `nan`, `io_uring` like `inf`.
    let is_word = ["`nan`", "`inf`", "must be quoted"].iter().any(|hint| message.contains(hint));
    let message = if is_word { "there is no value, or a text without quotes" } else { message };
    format!("this is not TOML: {message}; a line is a [section], a `key = value` with texts in quotes, or a # comment")
}

struct Found<F> {
    place: F,
    entries: Vec<Entry>,
    lists: Vec<(&'static List, Vec<Row>)>,
    problems: Vec<(usize, String)>,
    refused: Vec<&'static str>,
}

impl<F: Fn(usize) -> Origin> Found<F> {
    fn problem(&mut self, at: usize, what: String) {
        self.problems.push((at, what));
    }

    fn top(&mut self, name: &str, span: Range<usize>, value: &DeValue<'_>) {
        if let Some(list) = list(name) {
            return self.list(list, span, value);
        }
        let section = SECTIONS.iter().find(|section| section.name == name);
        match (section, value) {
            (Some(section), DeValue::Table(inner)) => {
                for (name, value) in inner {
                    let path = format!("{}.{}", section.name, name.get_ref());
                    match key(&path) {
                        Some(key) => self.entry(key, name.span(), value.get_ref()),
                        None => self.problem(name.span().start, unknown(&path)),
                    }
                }
            }
            (Some(section), _) => {
                let (name, first) = (section.name, section.keys[0].name());
                self.problem(
                    span.start,
                    format!("{name} is a section; write [{name}] on a line of its own, and keys such as {first} below"),
                );
            }
            (None, DeValue::Table(_)) => {
                let names = || SECTIONS.iter().map(|section| section.name);
                let lists = || LISTS.iter().map(|list| list.name);
                let advice = match (nearest(name, names()), nearest(name, lists())) {
                    (Some(near), _) => format!("did you mean [{near}]?"),
                    (None, Some(near)) => format!("did you mean [[{near}]]?"),
                    (None, None) => {
                        let lists = lists().map(|list| format!("[[{list}]]"));
                        format!("there are {}", names().map(str::to_owned).chain(lists).collect::<Vec<_>>().join(", "))
                    }
                };
                self.problem(span.start, format!("there is no section {}; {advice}", Quoted(name)));
            }
            (None, DeValue::Array(items)) if items.iter().any(|item| matches!(item.get_ref(), DeValue::Table(_))) => {
                let lists = LISTS.iter().map(|list| format!("[[{}]]", list.name)).collect::<Vec<_>>().join(", ");
                self.problem(span.start, format!("there is no list {}; there is {lists}", Quoted(name)));
            }
            (None, _) => self.problem(span.start, unknown(name)),
        }
    }

    fn list(&mut self, list: &'static List, span: Range<usize>, value: &DeValue<'_>) {
        let before = self.problems.len();
        let (name, needed) = (list.name, list.needed);
        let DeValue::Array(items) = value else {
            self.refused.push(name);
            let first = needed.rsplit('.').next().unwrap_or(needed);
            let what = "for each, and keys such as";
            return self.problem(
                span.start,
                format!("{name} is a list of tables; write [[{name}]] on a line of its own {what} {first} below"),
            );
        };
        let mut rows = Vec::new();
        for item in items {
            let at = item.span().start;
            let DeValue::Table(table) = item.get_ref() else {
                let (is, article) = of_type(item.get_ref());
                self.problem(
                    at,
                    format!("{name} holds {article} {is} where a table belongs; write [[{name}]] for each"),
                );
                continue;
            };
            let outer = std::mem::take(&mut self.entries);
            for (key_name, value) in table {
                match list.keys.iter().find(|key| key.name() == key_name.get_ref()) {
                    Some(key) => self.entry(key, key_name.span(), value.get_ref()),
                    None => self.problem(key_name.span().start, unknown_in_row(list, key_name.get_ref())),
                }
            }
            let entries = std::mem::replace(&mut self.entries, outer);
            let is_named =
                |path: &str| table.keys().any(|key_name| path.rsplit('.').next() == Some(key_name.get_ref()));
            if !is_named(needed) {
                let example = list.keys.iter().find(|key| key.path == needed).map(Key::example).unwrap_or_default();
                self.problem(at, format!("this [[{name}]] has no {needed}; for example: {example}"));
            }
            rows.push(Row { entries, origin: (self.place)(at) });
        }
        if self.problems.len() > before {
            self.refused.push(name);
        }
        self.lists.push((list, rows));
    }

    fn entry(&mut self, key: &'static Key, span: Range<usize>, value: &DeValue<'_>) {
        let at = span.start;
        match key.of_toml(value) {
            Ok(value) => self.entries.push(Entry { key, value, origin: (self.place)(at) }),
            Err(Wrong(what)) => {
                self.refused.push(key.path);
                self.problem(at, format!("{} {what}", key.path));
            }
        }
    }
}

/// What a value is called, and the article before it.
pub fn of_type(value: &DeValue<'_>) -> (&'static str, &'static str) {
    let is = value.type_str();
    (is, if is.starts_with(['a', 'i']) { "an" } else { "a" })
}

fn unknown_in_row(list: &List, name: &str) -> String {
    let names = || list.keys.iter().map(Key::name);
    let advice = match nearest(name, names()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("[[{}]] has {}", list.name, names().collect::<Vec<_>>().join(", ")),
    };
    format!("there is no key {}; {advice}", Quoted(&format!("{}.{name}", list.name)))
}

/// What to say of a path that no key has.
pub fn unknown(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let near = keys()
        .find(|key| key.name() == name)
        .map(|key| key.path)
        .or_else(|| nearest(path, keys().map(|key| key.path)))
        .or_else(|| keys().find(|key| nearest(name, [key.name()].into_iter()).is_some()).map(|key| key.path));
    let section = SECTIONS.iter().find(|section| path.split('.').next() == Some(section.name));
    let advice = match (near, section) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, Some(section)) => {
            let names: Vec<_> = section.keys.iter().map(Key::name).collect();
            format!("[{}] has {}", section.name, names.join(", "))
        }
        (None, None) => "docs/configuration.md names all that there are".into(),
    };
    format!("there is no key {}; {advice}", Quoted(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse("f", text).problems.iter().map(Problem::to_string).collect()
    }

    /// A wrong file and all that is said of it, as an operator reads it.
    const WRONG: &[(&str, &[&str])] = &[
        (
            "[limits]\nheartbeat_ms = \"soon\"",
            &[
                "f:2:1: limits.heartbeat_ms is \"soon\"; it takes a whole number of milliseconds from 1 to 86400000; for example: heartbeat_ms = 25000",
            ],
        ),
        (
            "[limits]\nheartbeat_ms = \"25000\"",
            &[
                "f:2:1: limits.heartbeat_ms is \"25000\"; it takes a whole number of milliseconds from 1 to 86400000; for example: heartbeat_ms = 25000",
            ],
        ),
        (
            "[limits]\nheartbeat_ms = 25s",
            &[
                "f:2:16: this is not TOML: there is no value, or a text without quotes; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "[limits]\nheartbeat_ms = 1.5",
            &[
                "f:2:1: limits.heartbeat_ms is 1.5; it takes a whole number of milliseconds from 1 to 86400000; for example: heartbeat_ms = 25000",
            ],
        ),
        (
            "[limits]\nheartbeat_ms = 0",
            &[
                "f:2:1: limits.heartbeat_ms is 0; it takes a whole number of milliseconds from 1 to 86400000; for example: heartbeat_ms = 25000",
            ],
        ),
        (
            "[limits]\nheartbeat_ms = -1",
            &[
                "f:2:1: limits.heartbeat_ms is -1; it takes a whole number of milliseconds from 1 to 86400000; for example: heartbeat_ms = 25000",
            ],
        ),
        (
            "[limits]\nheartbeat_ms = 99999999999999999999999",
            &[
                "f:2:1: limits.heartbeat_ms is 99999999999999999999999; it takes a whole number of milliseconds from 1 to 86400000; for example: heartbeat_ms = 25000",
            ],
        ),
        (
            "[limits]\nheartbeat_ms = 2026-11-21",
            &[
                "f:2:1: limits.heartbeat_ms is a datetime; it takes a whole number of milliseconds from 1 to 86400000; for example: heartbeat_ms = 25000",
            ],
        ),
        (
            "[limits]\nidle_ms = never",
            &[
                "f:2:11: this is not TOML: there is no value, or a text without quotes; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "[limits]\nidle_ms = \"forever\"",
            &[
                "f:2:1: limits.idle_ms is \"forever\"; it takes a whole number of milliseconds from 1 to 31536000000, or \"never\"; for example: idle_ms = 1800000",
            ],
        ),
        (
            "[limits]\nidle_ms =",
            &[
                "f:2:10: this is not TOML: there is no value, or a text without quotes; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "[limits]\nidle_ms 1",
            &[
                "f:2:9: this is not TOML: key with no value, expected `=`; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "[limits]\nidle_ms = 5,",
            &[
                "f:2:12: this is not TOML: unexpected key or value, expected newline, `#`; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        ("[limits]\nidle_ms = 1\nidle_ms = 2", &["f:3:1: this is here a second time; keep one of the two"]),
        (
            "[limits]\nidle_ms = 1\n[limits]\nlane_entries = 8",
            &["f:3:2: this is here a second time; keep one of the two"],
        ),
        ("[limits]\nidel_ms = 1", &["f:2:1: there is no key \"limits.idel_ms\"; did you mean limits.idle_ms?"]),
        ("[limits]\nidle-ms = 5", &["f:2:1: there is no key \"limits.idle-ms\"; did you mean limits.idle_ms?"]),
        (
            "[limits]\ncolour = \"red\"",
            &[
                "f:2:1: there is no key \"limits.colour\"; [limits] has handshake_ms, heartbeat_ms, heartbeat_time_out_ms, idle_ms, conns_per_shard, lane_entries, conn_burst, conn_per_s, user_events, user_events_ms, events, unlimited_roles, message_bytes, rooms_per_conn, rooms_per_request, rooms_per_shard, outbox_bytes, slow_ms, stall_ms, conns_per_user, attempts_per_user, attempts_per_user_ms",
            ],
        ),
        (
            "[limits.heartbeat]\nms = 1",
            &["f:1:9: there is no key \"limits.heartbeat\"; did you mean limits.heartbeat_ms?"],
        ),
        (
            "[limits\nidle_ms = 1\nlane_entries = 8",
            &[
                "f:1:8: this is not TOML: unclosed table, expected `]`; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "[limits] idle_ms = 5",
            &[
                "f:1:10: this is not TOML: unexpected key or value, expected newline, `#`; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        ("[limit]\nidle_ms = 1", &["f:1:2: there is no section \"limit\"; did you mean [limits]?"]),
        (
            "[colours]\nred = 1",
            &[
                "f:1:2: there is no section \"colours\"; there are server, jwt, claims, roles, anonymous, network, tls, limits, sockets, turn, socketio, compression, memory, drain, log, audit, [[policy]], [[certificate]], [[alias]], [[push]]",
            ],
        ),
        ("heartbeat_ms = 1", &["f:1:1: there is no key \"heartbeat_ms\"; did you mean limits.heartbeat_ms?"]),
        ("listen = \"127.0.0.1:1\"", &["f:1:1: there is no key \"listen\"; did you mean server.listen?"]),
        (
            "limits = 3",
            &["f:1:1: limits is a section; write [limits] on a line of its own, and keys such as handshake_ms below"],
        ),
        (
            "[[limits]]\nidle_ms = 1",
            &["f:1:3: limits is a section; write [limits] on a line of its own, and keys such as handshake_ms below"],
        ),
        (
            "limits: 5",
            &[
                "f:1:7: this is not TOML: invalid unquoted key, expected letters, numbers, `-`, `_`; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "{\"limits\": {\"idle_ms\": 1}}",
            &[
                "f:1:1: this is not TOML: invalid key-value pair, expected key; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "[server]\nlisten = 3001",
            &[
                "f:2:1: server.listen is the number 3001; it takes an address with a port; for example: listen = \"127.0.0.1:3001\"",
            ],
        ),
        (
            "[server]\nlisten = \"localhost\"",
            &[
                "f:2:1: server.listen is \"localhost\"; it takes an address with a port; for example: listen = \"127.0.0.1:3001\"",
            ],
        ),
        (
            "server.listen = true",
            &[
                "f:1:8: server.listen is a boolean; it takes an address with a port; for example: listen = \"127.0.0.1:3001\"",
            ],
        ),
        (
            "[server]\nlisten = \"127.0.0.1:1",
            &[
                "f:2:22: this is not TOML: invalid basic string, expected `\"`; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "[server]\nshards = 65",
            &[
                "f:2:1: server.shards is 65; it takes a whole number of shards from 1 to 64, or \"auto\"; for example: shards = \"auto\"",
            ],
        ),
        (
            "[server]\ncpus = [0, 1]",
            &[
                "f:2:1: server.cpus is an array; it takes \"auto\", \"none\", or numbers of processors; for example: cpus = \"0-3,6\"",
            ],
        ),
        (
            "[server]\nio = \"kqueue\"",
            &[
                "f:2:1: server.io is \"kqueue\"; it takes \"auto\", \"io_uring\" or \"epoll\"; for example: io = \"auto\"",
            ],
        ),
        (
            "[sockets]\nnodelay = 1",
            &["f:2:1: sockets.nodelay is the number 1; it takes true or false; for example: nodelay = true"],
        ),
        (
            "[sockets]\nnodelay = \"yes\"",
            &["f:2:1: sockets.nodelay is \"yes\"; it takes true or false; for example: nodelay = true"],
        ),
        (
            "[turn]\ncrowd_writes = 5",
            &[
                "f:2:1: there is no key \"turn.crowd_writes\"; [turn] has busy_poll_us, reads_per_turn, writes_per_turn, crowd_writes_per_turn, read_bytes, coalesce_us",
            ],
        ),
        (
            "[jwt]\nsecret = \"hunter2\"",
            &[
                "f:2:1: jwt.secret is 7 bytes long; it takes 32 bytes or more; make one with: head -c 32 /dev/urandom | base64",
            ],
        ),
        (
            "[jwt]\nsecret = 12345678",
            &[
                "f:2:1: jwt.secret is not a text in quotes; it takes 32 bytes or more; make one with: head -c 32 /dev/urandom | base64",
            ],
        ),
        ("[jwt]\nsecert = \"hunter2\"", &["f:2:1: there is no key \"jwt.secert\"; did you mean jwt.secret?"]),
        (
            "[log]\nlevel = \"loud\"",
            &[
                "f:2:1: log.level is \"loud\"; it takes \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"; for example: level = \"info\"",
            ],
        ),
        (
            "# é\n[log]\n  level = \"loud\" # é",
            &[
                "f:3:3: log.level is \"loud\"; it takes \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"; for example: level = \"info\"",
            ],
        ),
        (
            "[limits]\nx = 2\nidle_ms = soon\n[sockets]\nbacklog = \"7\"\n[log]\nlevel = 3\n",
            &[
                "f:2:1: there is no key \"limits.x\"; [limits] has handshake_ms, heartbeat_ms, heartbeat_time_out_ms, idle_ms, conns_per_shard, lane_entries, conn_burst, conn_per_s, user_events, user_events_ms, events, unlimited_roles, message_bytes, rooms_per_conn, rooms_per_request, rooms_per_shard, outbox_bytes, slow_ms, stall_ms, conns_per_user, attempts_per_user, attempts_per_user_ms",
                "f:3:11: this is not TOML: there is no value, or a text without quotes; a line is a [section], a `key = value` with texts in quotes, or a # comment",
                "f:5:1: sockets.backlog is \"7\"; it takes a whole number of connections from 1 to 65535; for example: backlog = 4096",
                "f:7:1: log.level is the number 3; it takes \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"; for example: level = \"info\"",
            ],
        ),
    ];

    /// The same of lists.
    const WRONG_LISTS: &[(&str, &[&str])] = &[
        (
            "[policy]\nrooms = \"chat:*\"",
            &[
                "f:1:2: policy is a list of tables; write [[policy]] on a line of its own for each, and keys such as rooms below",
            ],
        ),
        (
            "policy = \"chat:*\"",
            &[
                "f:1:1: policy is a list of tables; write [[policy]] on a line of its own for each, and keys such as rooms below",
            ],
        ),
        (
            "policy.rooms = \"chat:*\"",
            &[
                "f:1:1: policy is a list of tables; write [[policy]] on a line of its own for each, and keys such as rooms below",
            ],
        ),
        ("[polices]\nrooms = \"chat:*\"", &["f:1:2: there is no section \"polices\"; did you mean [[policy]]?"]),
        ("policy = [3]", &["f:1:11: policy holds an integer where a table belongs; write [[policy]] for each"]),
        (
            "[[polices]]\nrooms = \"chat:*\"",
            &["f:1:3: there is no list \"polices\"; there is [[policy]], [[certificate]], [[alias]], [[push]]"],
        ),
        ("[[policy]]", &["f:1:1: this [[policy]] has no policy.rooms; for example: rooms = \"chat:{tenant}.*\""]),
        (
            "[[policy]]\nrooms = \"a\"\njoin = \"nobody\"\n\n[[policy]]\njoin = \"nobody\"",
            &["f:5:1: this [[policy]] has no policy.rooms; for example: rooms = \"chat:{tenant}.*\""],
        ),
        (
            "[[policy]]\nrooms = \"a\"\npublsh = \"nobody\"",
            &["f:3:1: there is no key \"policy.publsh\"; did you mean publish?"],
        ),
        (
            "[[policy]]\nrooms = \"a\"\ncolour = \"red\"",
            &[
                "f:3:1: there is no key \"policy.colour\"; [[policy]] has name, rooms, join, publish, direct, presence, manage",
            ],
        ),
        (
            "[[policy]]\nrooms = \"chat:1*\"",
            &[
                "f:2:1: policy.rooms is \"chat:1*\"; it takes a pattern of rooms; for example: rooms = \"chat:{tenant}.*\"",
            ],
        ),
        (
            "[[policy]]\nrooms = \"chat:{user}\"\njoin = 3",
            &[
                "f:2:1: policy.rooms is \"chat:{user}\"; it takes a pattern of rooms; for example: rooms = \"chat:{tenant}.*\"",
                "f:3:1: policy.join is the number 3; it takes anybody or nobody alone, or words with commas between: role:NAME, claim:PATH=VALUE, token, ask; for example: join = \"role:staff, claim:plan=pro\"",
            ],
        ),
        (
            "[[policy]]\nrooms = \"a\"\njoin = [\"role:a\"]",
            &[
                "f:3:1: policy.join is an array; it takes anybody or nobody alone, or words with commas between: role:NAME, claim:PATH=VALUE, token, ask; for example: join = \"role:staff, claim:plan=pro\"",
            ],
        ),
        (
            "[[policy]]\nrooms = \"a\"\npublish = \"editor\"",
            &[
                "f:3:1: policy.publish is \"editor\"; it takes anybody or nobody alone, or words with commas between: role:NAME, claim:PATH=VALUE, token, ask; for example: publish = \"role:editor, token\"",
            ],
        ),
        (
            "[[policy]]\nname = \"default\"\nrooms = \"a\"",
            &[
                "f:2:1: policy.name is \"default\"; it takes 1 to 64 letters, digits and _ . : @ - and spaces, but not default; for example: name = \"editors\"",
            ],
        ),
        ("[[policy]]\nrooms = \"a\"\nrooms = \"b\"", &["f:3:1: this is here a second time; keep one of the two"]),
        (
            "[[policy]]\nrooms = a",
            &[
                "f:2:9: this is not TOML: there is no value, or a text without quotes; a line is a [section], a `key = value` with texts in quotes, or a # comment",
            ],
        ),
        (
            "[[policy]]\nrooms = \"a\"\n[policy.join]\nrole = \"a\"",
            &[
                "f:3:9: policy.join is a table; it takes anybody or nobody alone, or words with commas between: role:NAME, claim:PATH=VALUE, token, ask; for example: join = \"role:staff, claim:plan=pro\"",
            ],
        ),
    ];

    #[test]
    fn every_wrong_list_is_told_where_it_is_wrong_and_what_to_do() {
        for (text, expected) in WRONG_LISTS {
            assert_eq!(problems(text), *expected, "{text}");
        }
    }

    #[test]
    fn every_wrong_file_is_told_where_it_is_wrong_and_what_to_do() {
        for (text, expected) in WRONG {
            assert_eq!(problems(text), *expected, "{text}");
        }
    }

    #[test]
    fn what_a_profile_says_to_the_system_is_none_of_the_servers_business() {
        let text = "[system]\nnet.core.somaxconn = 1\n[limits]\nidel_ms = 1";
        let read = parse_profile("f", text);
        assert_eq!(read.problems.len(), 1);
        assert!(read.problems[0].to_string().starts_with("f:4:1: there is no key"));
        let said = problems(text);
        assert!(said.len() == 2 && said[0].starts_with("f:1:2: [system] stands in profiles only"), "{said:?}");
    }

    #[test]
    fn what_is_said_of_a_broken_file_never_shows_a_secret() {
        for secret in ["hunter2hunter2", "\"hunter2", "\"hunter2\" hunter2", "12345678", "hunter2 = \"x\"", "[hunter2]"]
        {
            for text in [
                format!("[jwt]\nsecret = {secret}"),
                format!("jwt.secret = {secret}\n"),
                format!("[jwt]\nsecert = {secret}"),
            ] {
                let said = problems(&text).join("\n");
                assert!(!said.is_empty() && !said.contains("hunter2") && !said.contains("12345678"), "{text}: {said}");
            }
        }
    }

    #[test]
    fn a_file_that_is_no_text_is_refused_with_the_reason() {
        let path = std::env::temp_dir().join(format!("ringroom-config-{}", std::process::id()));
        std::fs::write(&path, b"# fine\n\xff").unwrap();
        assert!(load(&path).unwrap_err().contains("line 2"));
        std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(load(&path).unwrap_err().contains("right file"));
        std::fs::remove_file(&path).unwrap();
        assert!(load(&path).unwrap_err().contains("check the path"));
        assert!(load(&std::env::temp_dir()).unwrap_err().contains("cannot be read"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "([a-z\"'\\[\\]{}=.,#0-9é\n\u{0}-\u{20}]|limits|idle_ms|\\[jwt\\]\nsecret=){0,40}") {
            let _ = parse("f", &text);
        }
    }
}
