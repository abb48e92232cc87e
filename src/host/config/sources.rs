//! The sources of values, laid over one another.
//! Invariant: an [`Effective`] holds one value for each key, in the order of the tree.

use super::declare::{Key, List};
use super::file::{self, Entry, Read, Row};
use super::origin::{Origin, Problem};
use super::profiles;
use super::tree::{LISTS, Lists, PROFILE_DEFAULT, SECTIONS, Tree, key, keys, list};
use super::value::{Value, Wrong};
use crate::host::Options;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const PREFIX: &str = "RINGROOM_";
/// Keys of the command line's own, which the server leaves alone.
const OTHERS: [&str; 1] = ["TOKEN"];

pub struct Sources {
    pub options: Options,
    /// Where a listener that was handed over listens: for clients, for operators, for clients that speak TLS.
    pub handed: [Option<SocketAddr>; 3],
    /// Read when the options name no file, if it is there.
    pub standard_file: PathBuf,
    pub environment: Vec<(OsString, OsString)>,
}

/// What the sources say together.
pub struct Gathered {
    pub effective: Effective,
    pub problems: Vec<Problem>,
    pub notes: Vec<String>,
}

pub struct Effective {
    entries: Vec<Entry>,
    /// The rows of each list, in the order of the tree.
    lists: Vec<Vec<Row>>,
    /// Paths of keys that were given a value which is not allowed.
    refused: Vec<&'static str>,
}

impl Sources {
    /// Those of this process.
    pub fn of_process(options: Options) -> Sources {
        let standard_file = PathBuf::from("/etc/ringroom/ringroom.toml");
        Sources { options, handed: [None; 3], standard_file, environment: std::env::vars_os().collect() }
    }

    /// The file that is read.
    pub fn file(&self) -> Option<PathBuf> {
        match &self.options.config {
            Some(path) => Some(path.into()),
            // One that cannot be looked at is there: to go on without it would be a surprise.
            None => self.standard_file.try_exists().unwrap_or(true).then(|| self.standard_file.clone()),
        }
    }

    pub fn gather(&self) -> Gathered {
        let mut notes = Vec::new();
        let file = self.read_file(&mut notes);
        let environment = self.read_environment(&mut notes);
        let options = self.read_options();
        let mut above = Read::default();
        for read in [file, environment, options] {
            above.entries.extend(read.entries);
            above.lists.extend(read.lists);
            above.problems.extend(read.problems);
            above.refused.extend(read.refused);
        }
        let chosen = above.entries.iter().rfind(|entry| entry.key.path == "server.profile");
        let profile = match chosen {
            Some(Entry { value: Value::Text(name), origin, .. }) => profiles::read(name, origin),
            _ => profiles::read(PROFILE_DEFAULT, &Origin::Default),
        };
        let mut effective = Effective::defaults();
        effective.lay_over(profile.entries, profile.lists);
        effective.lay_over(above.entries, above.lists);
        effective.refused.extend(profile.refused.into_iter().chain(above.refused));
        let problems = profile.problems.into_iter().chain(above.problems).collect();
        Gathered { effective, problems, notes }
    }

    fn read_file(&self, notes: &mut Vec<String>) -> Read {
        let Some(path) = self.file() else { return Read::default() };
        let text = match file::load(&path) {
            Ok(text) => text,
            Err(what) => return Read { problems: vec![Problem::new(&path.display(), what)], ..Read::default() },
        };
        let read = file::parse(&path.to_string_lossy(), &text);
        const OTHERS_READ: u32 = 0o004;
        let is_open = || path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & OTHERS_READ != 0);
        if read.entries.iter().any(|entry| entry.key.spec.is_secret) && is_open() {
            let path = path.display();
            notes.push(format!("{path} holds a secret and every user of this machine may read it; chmod 640 {path}"));
        }
        read
    }

    fn read_environment(&self, notes: &mut Vec<String>) -> Read {
        let mut read = Read::default();
        for (name, value) in &self.environment {
            let Some(path) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let name = format!("{PREFIX}{path}");
            let Some(key) = named_in_environment(path) else {
                if let Some(list) = list(path.to_lowercase().split("__").next().unwrap_or_default()) {
                    let list = list.name;
                    notes.push(format!("{name} changes nothing: {list} is a list, which only files can hold"));
                } else if !OTHERS.contains(&path) {
                    let unknown = file::unknown(&path.to_lowercase().replacen("__", ".", 1));
                    notes.push(format!("{name} changes nothing: {unknown}"));
                }
                continue;
            };
            let origin = Origin::Environment(name);
            if let Some(other) = read.entries.iter().find(|entry| entry.key.path == key.path) {
                let what = format!("{} is set by {} as well; keep one of them", key.path, other.origin);
                read.problems.push(Problem::new(&origin, what));
                continue;
            }
            match value.to_str() {
                Some(value) => read.take(key, value, origin),
                None => read.problems.push(Problem::new(&origin, "is not UTF-8; set it again")),
            }
        }
        read
    }

    fn read_options(&self) -> Read {
        let Options { listen, ops, shards, profile, .. } = &self.options;
        let shards = shards.map(|shards| shards.to_string());
        let given = [
            ("--listen", "server.listen", listen),
            ("--ops", "server.ops", ops),
            ("--shards", "server.shards", &shards),
            ("--profile", "server.profile", profile),
        ];
        let mut read = Read::default();
        for (option, path, text) in given {
            if let (Some(text), Some(key)) = (text, key(path)) {
                read.take(key, text, Origin::Option(option));
            }
        }
        // Over all else: there is nothing left to choose.
        for (address, path) in self.handed.iter().zip(["server.listen", "server.ops", "tls.listen"]) {
            if let (Some(address), Some(key)) = (address, key(path)) {
                read.take(key, &address.to_string(), Origin::Option("LISTEN_FDS"));
            }
        }
        read
    }
}

impl Read {
    fn take(&mut self, key: &'static Key, text: &str, origin: Origin) {
        match key.of_text(text) {
            Ok(value) => self.entries.push(Entry { key, value, origin }),
            Err(Wrong(what)) => {
                self.refused.push(key.path);
                self.problems.push(Problem::new(&origin, format!("{} {what}", key.path)));
            }
        }
    }
}

/// The key of `LIMITS__IDLE_MS`, or of a short name.
fn named_in_environment(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.in_environment() == name || key.spec.short == Some(name))
}

impl Key {
    /// Its name in the environment, without the prefix.
    pub fn in_environment(&self) -> String {
        self.path.to_uppercase().replace('.', "__")
    }
}

impl Effective {
    fn defaults() -> Effective {
        let default = |key: &'static Key| Entry { key, value: key.spec.default.value(), origin: Origin::Default };
        let lists = LISTS.iter().map(|_| Vec::new()).collect();
        Effective { entries: keys().map(default).collect(), lists, refused: Vec::new() }
    }

    /// Defaults and one file.
    #[cfg(test)]
    pub fn of_text(text: &str) -> Effective {
        let read = file::parse("f", text);
        assert!(read.problems.is_empty(), "{:?} in\n{text}", read.problems);
        let mut effective = Effective::defaults();
        effective.lay_over(read.entries, read.lists);
        effective
    }

    #[cfg(test)]
    pub fn value(&self, path: &str) -> &Value {
        &self.entry(path).value
    }

    /// Each key goes over the one before; a list that is there goes over the whole one before.
    fn lay_over(&mut self, entries: Vec<Entry>, lists: Vec<(&'static List, Vec<Row>)>) {
        for entry in entries {
            let held = self.entry_mut(entry.key.path);
            *held = entry;
        }
        for (list, rows) in lists {
            self.lists[nth(list.name)] = rows;
        }
    }

    pub fn lists(&self) -> Lists {
        Lists::read(|name| self.rows(name))
    }

    pub fn rows(&self, list: &str) -> &[Row] {
        &self.lists[nth(list)]
    }

    pub fn tree(&self) -> Tree {
        Tree::read(|path| &self.entry(path).value)
    }

    /// Whether this key holds what somebody wants: else what is wrong with it has been said.
    pub fn is_known(&self, path: &str) -> bool {
        !self.refused.contains(&path)
    }

    pub fn origin(&self, path: &str) -> &Origin {
        &self.entry(path).origin
    }

    /// The one of these keys that was set last, so that a problem between them is told where
    /// somebody wrote.
    pub fn origin_of_any(&self, paths: [&'static str; 2]) -> &Origin {
        let set = paths.iter().map(|path| self.origin(path)).find(|origin| **origin != Origin::Default);
        set.unwrap_or(&Origin::Default)
    }

    fn entry(&self, path: &str) -> &Entry {
        let found = self.entries.iter().find(|entry| entry.key.path == path);
        found.expect("there is one for each key of the tree")
    }

    fn entry_mut(&mut self, path: &str) -> &mut Entry {
        let found = self.entries.iter_mut().find(|entry| entry.key.path == path);
        found.expect("there is one for each key of the tree")
    }

    /// Takes over what `newer` says of keys that can change while clients stay.
    pub fn reload(&self, newer: Effective) -> Reloaded {
        let (mut changed, mut waiting) = (Vec::new(), Vec::new());
        let choose = |(old, new): (&Entry, Entry)| {
            if old.value == new.value {
                return new;
            }
            // A secret that is gone cannot be replaced by one that nobody knows.
            let is_gone = new.key.spec.is_secret && new.origin == Origin::Default;
            if new.key.spec.is_live && !is_gone {
                changed.push(new.key.path);
                new
            } else {
                waiting.push(new.key.path);
                old.clone()
            }
        };
        let entries = self.entries.iter().zip(newer.entries).map(choose).collect();
        let choose = |(list, (old, new)): (&List, (&Vec<Row>, Vec<Row>))| {
            if said(old) == said(&new) {
                return new;
            }
            if list.is_live {
                changed.push(list.name);
                new
            } else {
                waiting.push(list.name);
                old.clone()
            }
        };
        let lists = LISTS.iter().zip(self.lists.iter().zip(newer.lists)).map(choose).collect();
        let effective = Effective { entries, lists, refused: newer.refused };
        Reloaded { effective, changed, waiting }
    }
}

/// Which of the lists.
fn nth(list: &str) -> usize {
    LISTS.iter().position(|own| own.name == list).expect("the tree has it")
}

/// What rows say, wherever it stands.
fn said(rows: &[Row]) -> Vec<BTreeMap<&'static str, &Value>> {
    rows.iter().map(|row| row.entries.iter().map(|entry| (entry.key.path, &entry.value)).collect()).collect()
}

pub struct Reloaded {
    pub effective: Effective,
    /// Paths of keys, and names of lists, that changed.
    pub changed: Vec<&'static str>,
    /// Paths of keys that would change with a restart.
    pub waiting: Vec<&'static str>,
}

/// As a file that says the same, save for secrets.
impl fmt::Display for Effective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, section) in SECTIONS.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            writeln!(out, "[{}]", section.name)?;
            for key in section.keys {
                let Entry { value, origin, .. } = self.entry(key.path);
                let name = key.name();
                match (key.spec.is_secret, origin) {
                    (true, Origin::Default) => writeln!(out, "# {name} is not set")?,
                    (true, _) => writeln!(out, "# {name} is hidden  # {origin}")?,
                    (false, _) => writeln!(out, "{name} = {value}  # {origin}")?,
                }
            }
        }
        for list in LISTS {
            for row in self.rows(list.name) {
                writeln!(out, "\n[[{}]]  # {}", list.name, row.origin)?;
                for Entry { key, value, origin } in list.keys.iter().filter_map(|key| row.entry(key.path)) {
                    writeln!(out, "{} = {value}  # {origin}", key.name())?;
                }
            }
        }
        Ok(())
    }
}
