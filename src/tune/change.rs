//! Changes to the system, and the way back.
//! Invariant: the former value of whatever is changed is on disk before the change, in [`RECORD`],
//! which only the user who runs this can have written; taking back touches nothing that somebody else
//! has changed since; and nothing outside a closed list of places is ever written.

use super::Needs;
use super::machine::Machine;
use super::profile::Wanted;
use super::setting::{Place, SETTINGS, State, spoken};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

pub const RECORD: &str = "/var/lib/ringroom/tune-undo.json";
const SYSCTL_FILE: &str = "/etc/sysctl.d/60-ringroom.conf";
const CHOICES_FILE: &str = "/etc/tmpfiles.d/60-ringroom.conf";
const DROP_IN_FOLDER: &str = "/etc/systemd/system/ringroom.service.d";
const DROP_IN: &str = "/etc/systemd/system/ringroom.service.d/60-tune.conf";
/// Files that are ours alone.
const FILES: [&str; 3] = [SYSCTL_FILE, CHOICES_FILE, DROP_IN];
const HEAD: &str = "# Written by `ringroom tune apply`; `ringroom tune undo` takes it away.\n";
const RECORD_VERSION: u32 = 1;
const FILE_MODE: u32 = 0o644;
const RECORD_MODE: u32 = 0o600;

/// What apply would do.
pub struct Plan {
    changes: Vec<Change>,
    /// What is wanted and cannot be had, and why.
    pub notes: Vec<String>,
}

struct Change {
    name: &'static str,
    path: String,
    is: String,
    write: String,
    why: &'static str,
}

/// How one change went.
pub enum Outcome {
    Done(String),
    /// Nothing was changed there, and why.
    Left(String),
    Failed(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    changes: Vec<Changed>,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Changed {
    path: String,
    /// `None`: there was no such file.
    former: Option<String>,
    now: String,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Change { name, is, write, why, .. } in &self.changes {
            writeln!(out, "  {name}: {is} -> {write}\n    why: {why}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
    }
}

/// What has to change for `wanted`.
pub fn plan(machine: &Machine, needs: &Needs, wanted: &[Wanted]) -> Plan {
    let mut plan = Plan { changes: Vec::new(), notes: Vec::new() };
    for Wanted { setting, value } in wanted {
        let (name, why) = (setting.name, setting.why);
        if matches!(setting.place, Place::Advice(_)) {
            continue;
        }
        match setting.judge(machine, needs, value) {
            State::Lacks { is, write, .. } => {
                let path = setting.path().unwrap_or_else(|| DROP_IN.into());
                plan.changes.push(Change { name, path, is, write, why });
            }
            State::Absent if matches!(setting.place, Place::Descriptors) => {
                plan.notes.push(format!("{name}: there is no service here whose limit could be raised"));
            }
            State::Unreadable(error) => plan.notes.push(format!("{name} is left alone: {error}")),
            State::Serves | State::Absent => {}
        }
    }
    // A limit above nr_open would keep the service from starting, so what that depends on goes first.
    plan.changes.sort_by_key(|change| change.path == DROP_IN);
    plan
}

/// Does what was planned, one line for each change. `Err`: nothing was changed.
pub fn apply(machine: &Machine, plan: &Plan) -> Result<Vec<Outcome>, String> {
    let mut record = read(machine)?.unwrap_or(Record { version: RECORD_VERSION, changes: Vec::new() });
    let mut outcomes = Vec::new();
    for change in &plan.changes {
        outcomes.push(match change.path.as_str() {
            DROP_IN => raise_descriptors(machine, &mut record, change),
            _ => set(machine, &mut record, change),
        });
    }
    outcomes.extend(persist(machine, &mut record));
    Ok(outcomes)
}

fn set(machine: &Machine, record: &mut Record, change: &Change) -> Outcome {
    let Change { name, path, is, write, .. } = change;
    let changed = Changed { path: path.clone(), former: Some(is.clone()), now: write.clone() };
    let done = record.around(machine, changed, || machine.set(path, write));
    // The kernel may make something else of it.
    let now = machine.text(path).map(|text| spoken(&text));
    match (done, now) {
        (Ok(()), Some(now)) if now == *write => Outcome::Done(format!("{name}: {is} -> {write}")),
        (Ok(()), Some(now)) => {
            let kept = record.keep(machine, path, &now);
            let kept = kept.map_or_else(|error| format!("; this could not be noted: {error}"), |()| String::new());
            Outcome::Failed(format!("{name}: wrote {write}, and it became {now}{kept}"))
        }
        (Ok(()), None) => Outcome::Failed(format!("{name}: wrote {write}, and it cannot be read again")),
        (Err(error), _) => Outcome::Failed(format!("{name} stays {is}: {error}")),
    }
}

fn raise_descriptors(machine: &Machine, record: &mut Record, change: &Change) -> Outcome {
    let Change { name, is, write, .. } = change;
    let allowed = machine.number("/proc/sys/fs/nr_open").unwrap_or(u64::MAX);
    if write.parse::<u64>().is_ok_and(|wanted| wanted > allowed) {
        return Outcome::Failed(format!(
            "{name} stays {is}: with more than fs.nr_open, which is {allowed}, the service would not start"
        ));
    }
    match own_file(machine, record, DROP_IN, &format!("{HEAD}[Service]\nLimitNOFILE={write}\n")) {
        Ok(()) => Outcome::Done(format!(
            "{name}: {is} -> {write}, once you run: systemctl daemon-reload && systemctl restart ringroom"
        )),
        Err(error) => Outcome::Failed(format!("{name} stays {is}: {error}")),
    }
}

/// Writes what was changed where the next start of the machine finds it.
fn persist(machine: &Machine, record: &mut Record) -> Vec<Outcome> {
    let (mut sysctls, mut choices) = (String::new(), String::new());
    for changed in &record.changes {
        let setting = SETTINGS.iter().find(|setting| setting.path().as_ref() == Some(&changed.path));
        match setting.map(|setting| (&setting.place, setting.name)) {
            Some((Place::Sysctl, name)) => sysctls.push_str(&format!("{name} = {}\n", changed.now)),
            Some((Place::Choice(path), _)) => choices.push_str(&format!("w {path} - - - - {}\n", changed.now)),
            _ => {}
        }
    }
    let mut outcomes = Vec::new();
    for (path, text) in [(SYSCTL_FILE, sysctls), (CHOICES_FILE, choices)] {
        let text = format!("{HEAD}{text}");
        if text == HEAD || machine.read(path).is_ok_and(|present| present.as_ref() == Some(&text)) {
            continue;
        }
        outcomes.push(match own_file(machine, record, path, &text) {
            Ok(()) => Outcome::Done(format!("{path} keeps it over a restart of the machine")),
            Err(error) => {
                Outcome::Failed(format!("{path} is not written, so a restart of the machine ends it: {error}"))
            }
        });
    }
    outcomes
}

/// Writes a file of ours, and notes what was there.
fn own_file(machine: &Machine, record: &mut Record, path: &str, text: &str) -> io::Result<()> {
    let former = machine.read(path)?;
    let changed = Changed { path: path.into(), former, now: text.into() };
    record.around(machine, changed, || machine.put(path, text, FILE_MODE))
}

impl Record {
    /// Notes `changed`, then changes; the note goes again when that fails.
    fn around(
        &mut self,
        machine: &Machine,
        mut changed: Changed,
        change: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let before = self.changes.clone();
        match self.changes.iter_mut().find(|known| known.path == changed.path) {
            Some(known) => {
                // What we wrote ourselves is not what was there first.
                if changed.former.as_ref() == Some(&known.now) {
                    changed.former = known.former.take();
                }
                *known = changed;
            }
            None => self.changes.push(changed),
        }
        if let Err(error) = self.save(machine) {
            self.changes = before;
            return Err(io::Error::new(error.kind(), format!("{RECORD} cannot be written: {error}")));
        }
        change().inspect_err(|_| {
            self.changes = before;
            // Should this fail as well, undo finds the former value in its place and does nothing.
            let _ = self.save(machine);
        })
    }

    /// Notes what a change came to.
    fn keep(&mut self, machine: &Machine, path: &str, now: &str) -> io::Result<()> {
        let changed = self.changes.iter_mut().filter(|changed| changed.path == path);
        changed.for_each(|changed| changed.now = now.into());
        self.save(machine)
    }

    fn save(&self, machine: &Machine) -> io::Result<()> {
        if self.changes.is_empty() {
            return match machine.exists(RECORD) {
                true => machine.remove(RECORD),
                false => Ok(()),
            };
        }
        machine.put(RECORD, &serde_json::to_string_pretty(self)?, RECORD_MODE)
    }
}

/// The record of earlier changes, if there is one.
fn read(machine: &Machine) -> Result<Option<Record>, String> {
    if !machine.exists(RECORD) {
        return Ok(None);
    }
    let refused = |why: &dyn fmt::Display| {
        format!(
            "{} {why}; nothing is changed. See what is in it, set the values that it names by hand, and remove it",
            machine.path(RECORD).display()
        )
    };
    // The service's user may write to this folder, and must not steer root by it.
    let text = machine.read_own(RECORD).map_err(|error| refused(&format_args!("cannot be trusted: {error}")))?;
    let record: Record =
        serde_json::from_str(&text).map_err(|error| refused(&format_args!("is not a record of changes: {error}")))?;
    if record.version != RECORD_VERSION {
        return Err(refused(&format_args!("is of version {}, which this ringroom does not know", record.version)));
    }
    let is_ours =
        |path: &str| FILES.contains(&path) || SETTINGS.iter().any(|setting| setting.path().as_deref() == Some(path));
    if let Some(stranger) = record.changes.iter().find(|changed| !is_ours(&changed.path)) {
        return Err(refused(&format_args!("names {:?}, which apply never changes", stranger.path)));
    }
    Ok(Some(record))
}

/// Takes back what apply changed, the last change first. `None`: nothing was changed.
pub fn undo(machine: &Machine) -> Result<Option<Vec<Outcome>>, String> {
    let Some(mut record) = read(machine)? else { return Ok(None) };
    let mut outcomes = Vec::new();
    for changed in record.changes.clone().into_iter().rev() {
        let outcome = restore(machine, &changed);
        if !matches!(outcome, Outcome::Failed(_)) {
            record.changes.retain(|kept| kept.path != changed.path);
            if let Err(error) = record.save(machine) {
                outcomes.push(Outcome::Failed(format!("{RECORD} cannot be written: {error}")));
            }
        }
        outcomes.push(outcome);
    }
    machine.tidy(DROP_IN_FOLDER);
    Ok(Some(outcomes))
}

fn restore(machine: &Machine, changed: &Changed) -> Outcome {
    let Changed { path, former, now } = changed;
    let is_file = FILES.contains(&path.as_str());
    let present = match machine.read(path) {
        Ok(present) => present.map(|text| if is_file { text } else { spoken(&text) }),
        Err(error) => return Outcome::Failed(format!("{path} cannot be read: {error}")),
    };
    if present == *former {
        return Outcome::Left(format!("{path} is as it was before"));
    }
    if present.as_ref() != Some(now) {
        let what = if is_file { "its text" } else { present.as_deref().unwrap_or("gone") };
        return Outcome::Left(format!("{path} was changed by somebody else since ({what}) and is left alone"));
    }
    let done = match former {
        Some(former) if is_file => machine.put(path, former, FILE_MODE),
        Some(former) => machine.set(path, former),
        None => machine.remove(path),
    };
    let new = match former {
        _ if is_file => former.as_ref().map_or("removed", |_| "as it was before"),
        Some(former) => former,
        None => "removed",
    };
    match done {
        Ok(()) if path == DROP_IN => Outcome::Done(format!("{path}: {new}; run: systemctl daemon-reload")),
        Ok(()) if is_file => Outcome::Done(format!("{path}: {new}")),
        Ok(()) => Outcome::Done(format!("{path}: {now} -> {new}")),
        Err(error) => Outcome::Failed(format!("{path} stays as it is: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::{Scratch, needs};
    use super::super::{check, parse};
    use super::*;

    const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

    fn wanted() -> Vec<Wanted> {
        let text = "[system]\nlimits.nofile = \"auto\"\nfs.nr_open = \"auto\"\nfs.file-max = \"auto\"\n\
                    net.ipv4.tcp_mem = \"auto\"\nnet.core.somaxconn = 4096\ntransparent_hugepage = \"madvise\"\n\
                    net.netfilter.nf_conntrack_max = \"auto\"\ncpu.governor = \"performance\"\n";
        parse("f", text).unwrap()
    }

    fn whole() -> Scratch {
        let scratch = Scratch::small();
        scratch.put("/usr/lib/systemd/system/ringroom.service", "[Service]\nLimitNOFILE=4096\n");
        scratch
    }

    fn applied(scratch: &Scratch, connections: u64) -> Vec<Outcome> {
        let machine = scratch.machine();
        apply(&machine, &plan(&machine, &needs(connections), &wanted())).unwrap()
    }

    fn failures(outcomes: &[Outcome]) -> Vec<&str> {
        let failed = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Failed(line) => Some(line.as_str()),
            Outcome::Done(_) | Outcome::Left(_) => None,
        });
        failed.collect()
    }

    #[test]
    fn what_was_applied_serves_and_is_kept_for_the_next_start() {
        let scratch = whole();
        assert_eq!(failures(&applied(&scratch, 100_000)), Vec::<&str>::new());
        assert_eq!(scratch.get(SOMAXCONN), "4096");
        let kept = scratch.get(SYSCTL_FILE);
        for line in ["net.core.somaxconn = 4096", "fs.nr_open = 101152", "net.ipv4.tcp_mem = 50000 75000 100000"] {
            assert!(kept.lines().any(|kept| kept == line), "{line} is not in\n{kept}");
        }
        assert!(scratch.get(DROP_IN).ends_with("[Service]\nLimitNOFILE=101152\n"));
        let machine = scratch.machine();
        assert!(check(&machine, &needs(100_000), &wanted()).complete);
        assert!(plan(&machine, &needs(100_000), &wanted()).is_empty());
    }

    #[test]
    fn undo_brings_back_every_byte() {
        let scratch = whole();
        let before = scratch.all();
        applied(&scratch, 100_000);
        assert_ne!(scratch.all(), before);
        let outcomes = undo(&scratch.machine()).unwrap().unwrap();
        assert_eq!(failures(&outcomes), Vec::<&str>::new());
        let trimmed = |all: Vec<(std::path::PathBuf, String)>| -> Vec<_> {
            all.into_iter().map(|(path, text)| (path, spoken(&text))).collect()
        };
        assert_eq!(trimmed(scratch.all()), trimmed(before));
        assert!(undo(&scratch.machine()).unwrap().is_none(), "there is nothing more to take back");
    }

    #[test]
    fn applied_twice_then_undone_is_the_first_state() {
        let scratch = whole();
        applied(&scratch, 50_000);
        applied(&scratch, 100_000);
        assert_eq!(scratch.get("/proc/sys/fs/nr_open"), "101152");
        assert!(scratch.get(SYSCTL_FILE).contains("fs.nr_open = 101152"));
        undo(&scratch.machine()).unwrap();
        assert_eq!(scratch.get("/proc/sys/fs/nr_open"), "20000");
        assert_eq!(scratch.get(SOMAXCONN), "128");
        assert!(!scratch.path(SYSCTL_FILE).exists() && !scratch.path(DROP_IN_FOLDER).exists());
    }

    #[test]
    fn nothing_that_is_higher_is_lowered() {
        let scratch = whole();
        scratch.put(SOMAXCONN, "65535\n");
        scratch.put("/proc/sys/net/ipv4/tcp_mem", "90000 95000 99000\n");
        applied(&scratch, 100_000);
        assert_eq!(scratch.get(SOMAXCONN), "65535\n");
        assert_eq!(scratch.get("/proc/sys/net/ipv4/tcp_mem"), "90000 95000 100000");
        assert!(!scratch.get(SYSCTL_FILE).contains("somaxconn"));
    }

    #[test]
    fn what_somebody_else_changed_since_is_left_alone_and_named() {
        let scratch = whole();
        applied(&scratch, 100_000);
        scratch.put(SOMAXCONN, "9000\n");
        scratch.put(SYSCTL_FILE, "# mine now\n");
        let outcomes = undo(&scratch.machine()).unwrap().unwrap();
        let left = |what: &str| {
            outcomes.iter().any(|outcome| {
                matches!(outcome, Outcome::Left(line) if line.contains(what) && line.contains("somebody else"))
            })
        };
        assert!(left(SOMAXCONN) && left(SYSCTL_FILE));
        assert_eq!((scratch.get(SOMAXCONN).as_str(), scratch.get(SYSCTL_FILE).as_str()), ("9000\n", "# mine now\n"));
        assert_eq!(scratch.get("/proc/sys/fs/nr_open"), "20000");
    }

    #[test]
    fn a_value_that_somebody_else_set_between_two_applies_is_the_one_that_comes_back() {
        let scratch = whole();
        applied(&scratch, 50_000);
        scratch.put("/proc/sys/fs/nr_open", "60000\n");
        applied(&scratch, 100_000);
        undo(&scratch.machine()).unwrap();
        assert_eq!(scratch.get("/proc/sys/fs/nr_open"), "60000");
    }

    #[test]
    fn a_change_that_is_refused_is_told_and_the_rest_is_done_and_can_be_undone() {
        let scratch = whole();
        // Nobody may write it, not even root.
        std::fs::remove_file(scratch.path(SOMAXCONN)).unwrap();
        std::os::unix::fs::symlink("/proc/sys/kernel/cap_last_cap", scratch.path(SOMAXCONN)).unwrap();
        let outcomes = applied(&scratch, 100_000);
        let failed = failures(&outcomes);
        assert!(failed.len() == 1 && failed[0].starts_with("net.core.somaxconn stays "), "{failed:?}");
        assert_eq!(scratch.get("/proc/sys/fs/nr_open"), "101152");
        assert!(!scratch.get(SYSCTL_FILE).contains("somaxconn"));
        assert_eq!(failures(&undo(&scratch.machine()).unwrap().unwrap()), Vec::<&str>::new());
        assert_eq!(scratch.get("/proc/sys/fs/nr_open"), "20000");
    }

    #[test]
    fn a_limit_that_would_keep_the_service_from_starting_is_not_written() {
        let scratch = whole();
        std::fs::remove_file(scratch.path("/proc/sys/fs/nr_open")).unwrap();
        std::os::unix::fs::symlink("/proc/sys/kernel/cap_last_cap", scratch.path("/proc/sys/fs/nr_open")).unwrap();
        let outcomes = applied(&scratch, 100_000);
        assert!(failures(&outcomes).iter().any(|line| line.contains("would not start")));
        assert!(!scratch.path(DROP_IN).exists());
    }

    #[test]
    fn without_a_service_or_a_key_the_rest_is_applied() {
        let scratch = Scratch::small();
        let machine = scratch.machine();
        let plan = plan(&machine, &needs(100_000), &wanted());
        assert!(plan.notes[0].contains("no service here"), "{:?}", plan.notes);
        assert_eq!(failures(&apply(&machine, &plan).unwrap()), Vec::<&str>::new());
        assert!(!scratch.path(DROP_IN).exists() && !scratch.path(CHOICES_FILE).exists());
    }

    #[test]
    fn huge_pages_are_kept_by_a_file_of_their_own() {
        let scratch = Scratch::small();
        const HUGE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
        scratch.put(HUGE, "[always] madvise never\n");
        applied(&scratch, 1);
        assert_eq!(scratch.get(HUGE), "madvise");
        assert!(scratch.get(CHOICES_FILE).ends_with(&format!("w {HUGE} - - - - madvise\n")));
        undo(&scratch.machine()).unwrap();
        assert_eq!(scratch.get(HUGE), "always");
    }

    #[test]
    fn a_record_that_is_garbage_or_names_other_files_stops_both_ways_and_changes_nothing() {
        for garbage in [
            "",
            "{",
            "[]",
            "{\"version\": 2, \"changes\": []}",
            "{\"version\": 1, \"changes\": [{\"path\": \"/etc/passwd\", \"former\": \"x\", \"now\": \"y\"}]}",
            "{\"version\": 1, \"changes\": [{\"path\": \"/proc/sys/../../etc/passwd\", \"former\": \"x\", \"now\": \"y\"}]}",
            "{\"version\": 1, \"changes\": [{\"path\": \"/proc/sys/kernel/core_pattern\", \"former\": \"|x\", \"now\": \"core\"}]}",
        ] {
            let scratch = whole();
            scratch.put(RECORD, garbage);
            let before = scratch.all();
            let machine = scratch.machine();
            let told = undo(&machine).map(|_| ()).unwrap_err();
            assert!(told.contains("tune-undo.json") && told.contains("nothing is changed"), "{told}");
            assert!(apply(&machine, &plan(&machine, &needs(100_000), &wanted())).is_err());
            assert_eq!(scratch.all(), before, "{garbage}");
        }
    }

    #[test]
    fn a_record_that_is_a_link_is_not_followed() {
        let scratch = whole();
        scratch.put("/elsewhere.json", "{\"version\": 1, \"changes\": []}");
        std::fs::create_dir_all(scratch.path("/var/lib/ringroom")).unwrap();
        std::os::unix::fs::symlink(scratch.path("/elsewhere.json"), scratch.path(RECORD)).unwrap();
        assert!(undo(&scratch.machine()).map(|_| ()).unwrap_err().contains("cannot be trusted"));
    }

    #[test]
    fn when_the_record_cannot_be_written_nothing_is_changed() {
        let scratch = whole();
        scratch.put("/var/lib/ringroom", "a file where the folder should be");
        let before = scratch.all();
        let outcomes = applied(&scratch, 100_000);
        assert!(failures(&outcomes)[0].contains("tune-undo.json") && failures(&outcomes).len() == outcomes.len());
        assert_eq!(scratch.all(), before);
    }
}
