//! The audit log: who came, from where, who was refused and why, and what operators did, as JSON
//! lines in a file of its own.
//! Invariants: a line is one line, whatever strangers call themselves, and has a bound; whoever tells
//! never waits for the disk. What could not be written is counted, and a line `lost` says how much.

use crate::admission::revocations::{Revocation, Target};
use crate::base::limits::AUDITED_REFUSALS_MAX;
use crate::base::time::timestamp;
use crate::io::audit::{Entry, Listener, Teller, Told, lines};
use crate::io::process;
use crate::kernel::audited::Audited;
use crate::kernel::ids::ConnId;
use crate::kernel::membership::ConnSlot;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often what was told is written.
const PACE: Duration = Duration::from_millis(100);
/// Refusals of one kind within this are one line.
const REFUSALS_PACE_MS: u64 = 1_000;
/// How long the end waits for a disk.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Entries taken from one shard before they are written.
const BATCH: usize = 4_096;
/// Operators and groups that may read it.
const MODE: u32 = 0o640;

/// The audit log of a process, or none.
#[derive(Clone, Default)]
pub struct Audit {
    shared: Option<Arc<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// What the process itself has to say. Operators cause it, so it is little.
    notes: Mutex<Vec<Line>>,
    written: AtomicU64,
    lost: AtomicU64,
    reopen: AtomicBool,
    end: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One line to be.
struct Line {
    unix_ms: u64,
    kind: &'static str,
    fields: Map<String, Value>,
}

impl Audit {
    /// Opens the file and starts to write. Gives each shard its end.
    pub fn open(path: PathBuf, shards: usize) -> io::Result<(Audit, Vec<Teller>)> {
        let file = open(&path)?;
        let (tellers, listeners) = lines(shards);
        let shared = Arc::new(Shared::default());
        let journal = Journal { path, file, shared: Arc::clone(&shared), is_torn: false, untold: 0, is_failing: false };
        let writer = Writer { journal, listeners, here: HashMap::new(), refusals: Refusals::default() };
        let thread = thread::Builder::new().name("audit".into()).spawn(move || writer.run())?;
        *shared.lock(|shared| &shared.thread) = Some(thread);
        Ok((Audit { shared: Some(shared) }, tellers))
    }

    /// Something that the process or its operators did. `fields`: a JSON object.
    pub fn note(&self, kind: &'static str, fields: Value) {
        if let (Some(shared), Value::Object(fields)) = (&self.shared, fields) {
            shared.lock(|shared| &shared.notes).push(Line { unix_ms: unix_ms(), kind, fields });
        }
    }

    /// Goes on in a new file of the same name: the old one was moved away.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.reopen.store(true, Ordering::Release);
        }
    }

    /// Writes what was told and ends. A disk that hangs is not waited for long.
    pub fn close(&self) {
        let Some(shared) = &self.shared else { return };
        let Some(thread) = shared.lock(|shared| &shared.thread).take() else { return };
        shared.end.store(true, Ordering::Release);
        let until = Instant::now() + END_PATIENCE;
        while !thread.is_finished() {
            if Instant::now() >= until {
                return log::error!("audit: the disk does not take the last lines in time; they are lost");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lines written.
    pub fn written(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.written.load(Ordering::Relaxed))
    }

    /// Events that were not.
    pub fn lost(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.lost.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn lock<'a, T>(&'a self, what: impl FnOnce(&'a Shared) -> &'a Mutex<T>) -> MutexGuard<'a, T> {
        what(self).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The thread that writes.
struct Writer {
    journal: Journal,
    listeners: Vec<Listener>,
    /// When and from where the connections that live came, by shard and slot: a close that was lost
    /// gives way to whoever has the slot next.
    here: HashMap<(u8, ConnSlot), Came>,
    refusals: Refusals,
}

struct Came {
    conn: ConnId,
    unix_ms: u64,
    address: IpAddr,
}

impl Writer {
    fn run(mut self) {
        // What shards do is more urgent; where that is not allowed, it goes on as it is.
        let _ = process::step_back();
        loop {
            // Looked at first: what was told before the end is written.
            let is_end = self.journal.shared.end.load(Ordering::Acquire);
            if self.journal.shared.reopen.swap(false, Ordering::Acquire) {
                self.journal.reopen();
            }
            let is_more = self.turn(is_end);
            if is_end && !is_more {
                return;
            }
            if !is_more {
                thread::sleep(PACE);
            }
        }
    }

    /// Writes what was told, a bounded part of it. Says whether there may be more.
    fn turn(&mut self, is_end: bool) -> bool {
        let mut entries = Vec::new();
        let mut is_more = false;
        for listener in &mut self.listeners {
            let before = entries.len();
            entries.extend(std::iter::from_fn(|| listener.hear()).take(BATCH));
            is_more |= entries.len() == before + BATCH;
            self.journal.lose(listener.take_lost());
        }
        let mut lines = std::mem::take(&mut *self.journal.shared.lock(|shared| &shared.notes));
        for entry in entries {
            lines.extend(self.line(entry));
        }
        lines.extend(self.refusals.due(unix_ms(), is_end && !is_more));
        // Shards are emptied one after the other.
        lines.sort_by_key(|line| line.unix_ms);
        if !lines.is_empty() || self.journal.untold > 0 {
            self.journal.write(&lines.iter().map(Line::text).collect::<Vec<_>>());
        }
        is_more
    }

    fn line(&mut self, entry: Entry) -> Option<Line> {
        let Entry { unix_ms, shard, told } = entry;
        let name = |conn: ConnId| format!("{shard}-{}-{}", conn.0.slot, conn.0.generation);
        let (kind, fields) = match told {
            Told::Connected { conn, identity, address } => {
                self.here.insert((shard, conn.0.slot), Came { conn, unix_ms, address });
                let fields = json!({
                    "conn": name(conn),
                    "shard": shard,
                    "tenant": &**identity.tenant(),
                    "user": &*identity.user,
                    "address": address,
                    "token": identity.token(),
                    "device": identity.device(),
                });
                ("connected", fields)
            }
            Told::Refused { address, reason, origin } => {
                self.refusals.take(unix_ms, Refusal { address: Some(address), reason, origin });
                return None;
            }
            Told::Revoked(revocations) => {
                ("revoked", json!({"targets": revocations.iter().map(target).collect::<Vec<_>>()}))
            }
            Told::OfCore(Audited::Closed { conn, user, code, reason }) => {
                let came = self.here.remove(&(shard, conn.0.slot)).filter(|came| came.conn == conn);
                let fields = json!({
                    "conn": name(conn),
                    "shard": shard,
                    "tenant": &**user.tenant(),
                    "user": &*user,
                    "address": came.as_ref().map(|came| came.address),
                    "code": code,
                    "reason": reason,
                    "duration_ms": came.map(|came| unix_ms.saturating_sub(came.unix_ms)),
                });
                ("closed", fields)
            }
            Told::OfCore(Audited::Request { conn, user, event, rooms, refused }) => {
                let fields = json!({
                    "conn": name(conn),
                    "shard": shard,
                    "tenant": &**user.tenant(),
                    "user": &*user,
                    "event": event,
                    "rooms": rooms.first,
                    "rooms_count": rooms.count,
                    "outcome": refused.unwrap_or("ok"),
                });
                ("request", fields)
            }
        };
        let Value::Object(fields) = fields else { unreachable!("fields are an object") };
        Some(Line { unix_ms, kind, fields })
    }
}

fn target(revocation: &Revocation) -> Value {
    match &revocation.target {
        Target::User { tenant, user } => {
            json!({"tenant": &**tenant, "user": &**user, "issued_upto_s": revocation.issued_upto_unix_s})
        }
        Target::Token(token) => json!({"token": &**token}),
    }
}

impl Line {
    /// JSON escapes what could end a line.
    fn text(&self) -> String {
        let known = self.fields.iter().filter(|(_, value)| !value.is_null());
        let rest = Value::Object(known.map(|(name, value)| (name.clone(), value.clone())).collect()).to_string();
        let comma = if rest == "{}" { "" } else { "," };
        format!("{{\"ts\":\"{}\",\"kind\":\"{}\"{comma}{}\n", timestamp(self.unix_ms), self.kind, &rest[1..])
    }
}

/// Refused requests, one line a second for each kind: who knocks a thousand times a second fills no
/// disk.
#[derive(Default)]
struct Refusals {
    /// When the first of them came, and how many there were.
    kinds: BTreeMap<Refusal, (u64, u64)>,
    since: Option<u64>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Refusal {
    address: Option<IpAddr>,
    reason: &'static str,
    origin: Option<Box<str>>,
}

impl Refusals {
    fn take(&mut self, unix_ms: u64, refusal: Refusal) {
        self.since.get_or_insert(unix_ms);
        let is_known = self.kinds.contains_key(&refusal);
        // Of more kinds than can be told apart, the reason stays.
        let kind = match is_known || self.kinds.len() < AUDITED_REFUSALS_MAX {
            true => refusal,
            false => Refusal { address: None, origin: None, ..refusal },
        };
        self.kinds.entry(kind).or_insert((unix_ms, 0)).1 += 1;
    }

    /// Their lines, once the second is over.
    fn due(&mut self, now_ms: u64, is_end: bool) -> Vec<Line> {
        let is_over = |since| is_end || now_ms < since || now_ms - since >= REFUSALS_PACE_MS;
        if !self.since.is_some_and(is_over) {
            return Vec::new();
        }
        self.since = None;
        let line = |(refusal, (unix_ms, count)): (Refusal, (u64, u64))| {
            let Refusal { address, reason, origin } = refusal;
            let fields = json!({"address": address, "reason": reason, "origin": origin, "count": count});
            let Value::Object(fields) = fields else { unreachable!("fields are an object") };
            Line { unix_ms, kind: "refused", fields }
        };
        std::mem::take(&mut self.kinds).into_iter().map(line).collect()
    }
}

/// The file, and what it did not take.
struct Journal {
    path: PathBuf,
    file: File,
    shared: Arc<Shared>,
    /// The last byte in the file ended no line.
    is_torn: bool,
    /// Lost events of which no line in the file tells.
    untold: u64,
    is_failing: bool,
}

impl Journal {
    fn lose(&mut self, count: u64) {
        self.untold += count;
        self.shared.lost.fetch_add(count, Ordering::Relaxed);
    }

    fn write(&mut self, lines: &[String]) {
        let mut text = if self.is_torn { "\n".to_owned() } else { String::new() };
        let told = self.untold;
        if told > 0 {
            let Value::Object(fields) = json!({"count": told}) else { unreachable!("fields are an object") };
            text.push_str(&Line { unix_ms: unix_ms(), kind: "lost", fields }.text());
        }
        let told_at = text.len();
        let mut ends = Vec::with_capacity(lines.len());
        for line in lines {
            text.push_str(line);
            ends.push(text.len());
        }
        let (done, failed) = self.put(text.as_bytes());
        if done > 0 {
            self.is_torn = text.as_bytes()[done - 1] != b'\n';
        }
        if told > 0 && done >= told_at {
            self.untold -= told;
            self.shared.written.fetch_add(1, Ordering::Relaxed);
        }
        let written = ends.partition_point(|end| *end <= done);
        self.shared.written.fetch_add(written as u64, Ordering::Relaxed);
        self.lose((lines.len() - written) as u64);
        match failed {
            Some(error) if !self.is_failing => {
                self.is_failing = true;
                log::error!(
                    "audit: {} cannot be written: {error}; events are lost and counted until it can, make room on that disk",
                    self.path.display()
                );
            }
            None if self.is_failing => {
                self.is_failing = false;
                log::info!("audit: {} is written again", self.path.display());
            }
            _ => {}
        }
    }

    /// How much of it the file took, and why not more.
    fn put(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write(&bytes[done..]) {
                Ok(0) => return (done, Some(ErrorKind::WriteZero.into())),
                Ok(more) => done += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }

    fn reopen(&mut self) {
        match open(&self.path) {
            Ok(file) => {
                self.file = file;
                self.is_torn = false;
            }
            Err(error) => log::error!(
                "audit: {} cannot be opened again: {error}; the file that was open is written on",
                self.path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::identity::{Identity, Particulars};
    use crate::admission::names::User;
    use crate::base::table::Key;
    use crate::base::time::{Instant as At, Now};
    use crate::kernel::audited::Rooms;
    use std::os::unix::fs::PermissionsExt;

    /// A folder of one test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ringroom-audit-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("audit.log")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn now(unix_ms: u64) -> Now {
        Now { at: At::ZERO, unix_ms }
    }

    fn conn(slot: u32) -> ConnId {
        ConnId(Key { slot, generation: 3 })
    }

    /// Each line of a file, parsed.
    fn written(path: &PathBuf) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    #[test]
    fn what_was_told_is_in_the_file_at_the_end_and_nobody_forges_a_line() {
        let folder = Folder::new("told");
        let (audit, tellers) = Audit::open(folder.file(), 2).unwrap();
        let user = User::new("acme".into(), "eve\n{\"kind\":\"forged\"}\u{2028}\u{1b}");
        let said = Particulars { device: Some("a\r\nb".into()), token: Some("t-1".into()), ..Particulars::default() };
        let identity = Identity::new(user.clone(), None, said);
        audit.note("started", json!({"version": "1"}));
        tellers[1].connected(now(1_000), conn(7), &identity, "192.0.2.7".parse().unwrap());
        let rooms = Rooms::of(["a", "b"].into_iter());
        tellers[1].tell(now(2_000), || {
            Told::OfCore(Audited::Request {
                conn: conn(7),
                user: user.clone(),
                event: "room:join-many",
                rooms,
                refused: Some("forbidden"),
            })
        });
        tellers[1].tell(now(3_500), || {
            Told::OfCore(Audited::Closed { conn: conn(7), user, code: 1000, reason: "closed by the client".into() })
        });
        for _ in 0..3 {
            tellers[0].refused(now(500), "signature", "192.0.2.9".parse().unwrap(), Some("https://evil.example/\"\n"));
        }
        audit.close();
        let lines = written(&folder.file());
        let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
        for kind in ["refused", "connected", "request", "closed", "started"] {
            assert_eq!(kinds.iter().filter(|other| **other == kind).count(), 1, "{kind}: {lines:?}");
        }
        let of = |kind: &str| lines.iter().find(|line| line["kind"] == kind).unwrap();
        assert_eq!(of("refused")["count"], 3);
        assert_eq!(of("connected")["address"], "192.0.2.7");
        assert_eq!((of("connected")["conn"].as_str(), of("connected")["token"].as_str()), (Some("1-7-3"), Some("t-1")));
        assert_eq!(of("connected")["ts"], "1970-01-01T00:00:01.000Z");
        assert_eq!(of("closed")["duration_ms"], 2_500);
        assert_eq!(of("closed")["address"], "192.0.2.7");
        assert_eq!(
            (of("request")["outcome"].as_str(), of("request")["rooms_count"].as_u64()),
            (Some("forbidden"), Some(2))
        );
        assert_eq!((audit.written(), audit.lost()), (5, 0));
        let mode = std::fs::metadata(folder.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}: others may not read it");
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_told_later() {
        let folder = Folder::new("full");
        let mut journal = Journal {
            path: "/dev/full".into(),
            file: open(&"/dev/full".into()).unwrap(),
            shared: Arc::default(),
            is_torn: false,
            untold: 0,
            is_failing: false,
        };
        let line = || "{\"kind\":\"x\"}\n".to_owned();
        journal.write(&[line(), line()]);
        journal.write(&[line()]);
        assert_eq!((journal.untold, journal.shared.lost.load(Ordering::Relaxed)), (3, 3));
        journal.path = folder.file();
        journal.reopen();
        journal.is_torn = true;
        journal.write(&[line()]);
        assert_eq!((journal.untold, journal.is_failing), (0, false));
        let text = std::fs::read_to_string(folder.file()).unwrap();
        let lines: Vec<Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(text.starts_with('\n'), "what was torn is ended");
        assert_eq!((lines[0]["kind"].as_str(), lines[0]["count"].as_u64()), (Some("lost"), Some(3)));
        assert_eq!((lines[1]["kind"].as_str(), lines.len()), (Some("x"), 2));
    }

    #[test]
    fn a_new_file_takes_the_place_of_one_that_was_moved_away() {
        let folder = Folder::new("moved");
        let (audit, _tellers) = Audit::open(folder.file(), 1).unwrap();
        audit.note("one", json!({}));
        while audit.written() < 1 {
            thread::sleep(Duration::from_millis(1));
        }
        std::fs::rename(folder.file(), folder.0.join("old")).unwrap();
        audit.reopen();
        while !folder.file().exists() {
            thread::sleep(Duration::from_millis(1));
        }
        audit.note("two", json!({}));
        audit.close();
        assert_eq!(written(&folder.0.join("old"))[0]["kind"], "one");
        assert_eq!(written(&folder.file())[0]["kind"], "two");
    }

    #[test]
    fn refusals_of_more_kinds_than_can_be_told_apart_still_count() {
        let mut refusals = Refusals::default();
        let address = |nth: u32| Some(IpAddr::from(nth.to_be_bytes()));
        for nth in 0..AUDITED_REFUSALS_MAX as u32 + 10 {
            refusals.take(5, Refusal { address: address(nth), reason: "head", origin: None });
        }
        assert!(refusals.due(1_004, false).is_empty(), "the second is not over");
        let lines = refusals.due(1_005, false);
        assert_eq!(lines.len(), AUDITED_REFUSALS_MAX + 1);
        assert_eq!(lines.iter().find(|line| line.fields["address"].is_null()).unwrap().fields["count"], 10);
        assert!(refusals.due(9_000, true).is_empty());
    }

    #[test]
    fn without_an_audit_nothing_is_told() {
        let audit = Audit::default();
        audit.note("started", json!({}));
        audit.reopen();
        audit.close();
        assert_eq!((audit.written(), audit.lost()), (0, 0));
    }
}
