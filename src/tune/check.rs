//! What the machine lacks. Invariant: what bites comes first, in the order in which it bites; a
//! setting that bites is not told twice; advice makes nothing incomplete.

use super::Needs;
use super::advice::Advised;
use super::bites::{Bite, bites};
use super::cgroup::{TASKS, allowed_by_groups};
use super::machine::Machine;
use super::profile::Wanted;
use super::setting::{Place, State};
use super::unit::unit;
use serde::Serialize;
use std::fmt;

#[derive(Serialize)]
pub struct Report {
    pub profile: String,
    pub connections: u64,
    pub shards: u64,
    pub bites: Vec<Bite>,
    pub lacks: Vec<Lack>,
    pub advice: Vec<Advice>,
    pub notes: Vec<String>,
    /// Nothing bites and nothing is lacking.
    pub complete: bool,
}

/// What the profile wants and is not so.
#[derive(Serialize)]
pub struct Lack {
    pub name: &'static str,
    pub is: String,
    pub wanted: String,
    pub why: &'static str,
    pub effect: &'static str,
    pub undo: &'static str,
    pub remedy: String,
}

#[derive(Serialize)]
pub struct Advice {
    pub name: &'static str,
    #[serde(flatten)]
    pub advised: Advised,
    pub why: &'static str,
    pub effect: &'static str,
    pub undo: &'static str,
}

pub fn check(machine: &Machine, needs: &Needs, wanted: &[Wanted]) -> Report {
    let bites = bites(machine, needs);
    let (mut lacks, mut advice, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for Wanted { setting, value } in wanted {
        let (name, why, effect, undo) = (setting.name, setting.why, setting.effect, setting.undo);
        if let Place::Advice(advise) = setting.place {
            let told = advise(machine, needs, value).into_iter();
            advice.extend(told.map(|advised| Advice { name, advised, why, effect, undo }));
            continue;
        }
        match setting.judge(machine, needs, value) {
            State::Lacks { is, wanted, write } if bites.iter().all(|bite| bite.name != name) => {
                let remedy = match setting.place {
                    Place::Sysctl if write.contains(' ') => format!("sysctl -w {name}=\"{write}\""),
                    Place::Sysctl => format!("sysctl -w {name}={write}"),
                    _ => "ringroom tune apply".into(),
                };
                lacks.push(Lack { name, is, wanted, why, effect, undo, remedy });
            }
            State::Unreadable(error) => notes.push(format!("{name} cannot be judged: {error}")),
            State::Lacks { .. } | State::Serves | State::Absent => {}
        }
    }
    lacks.extend(tasks(machine, needs));
    let complete = bites.is_empty() && lacks.is_empty();
    let Needs { profile, connections, shards, .. } = needs.clone();
    Report { profile, connections, shards, bites, lacks, advice, notes, complete }
}

/// Threads, where the service or this shell may have too few.
fn tasks(machine: &Machine, needs: &Needs) -> Option<Lack> {
    let allowed = match unit(machine) {
        Some(unit) => unit.tasks?,
        None => allowed_by_groups(machine, &TASKS)?,
    };
    let needed = needs.shards + THREADS_BESIDE;
    (allowed < needed).then(|| Lack {
        name: "TasksMax",
        is: allowed.to_string(),
        wanted: format!("at least {needed}"),
        why: "each shard is a thread; the service and io_uring have some of their own",
        effect: "all of them can be started",
        undo: "take the line away again",
        remedy: format!("systemctl edit ringroom, with the lines [Service] and TasksMax={needed}"),
    })
}

/// Threads of the process beside its shards, those of io_uring among them.
const THREADS_BESIDE: u64 = 32;

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { profile, connections, shards, .. } = self;
        writeln!(out, "For {connections} connections on {shards} shards, with the profile {profile}:")?;
        if !self.bites.is_empty() {
            writeln!(out, "\nLimits that bite, the first one first:")?;
        }
        for Bite { connections, name, is, needed, why, remedy } in &self.bites {
            writeln!(out, "  at {connections} connections: {name} is {is}, needed {needed}")?;
            writeln!(out, "    why:  {why}\n    do:   {remedy}")?;
        }
        if !self.lacks.is_empty() {
            writeln!(out, "\nWanted by the profile and not so:")?;
        }
        for Lack { name, is, wanted, why, effect, undo, remedy } in &self.lacks {
            writeln!(out, "  {name} is {is}, wanted {wanted}")?;
            writeln!(out, "    why:  {why}\n    then: {effect}\n    do:   {remedy}\n    undo: {undo}")?;
        }
        if self.complete {
            writeln!(out, "\nNothing is missing.")?;
        }
        if !self.advice.is_empty() {
            writeln!(out, "\nAdvice, which is yours to follow or not:")?;
        }
        for Advice { name, advised: Advised { what, command }, why, effect, undo } in &self.advice {
            writeln!(out, "  {name}: {what}")?;
            writeln!(out, "    why:  {why}\n    then: {effect}\n    do:   {command}\n    undo: {undo}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "\nnote: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::{Scratch, needs};
    use super::super::{Machine, parse};
    use super::*;
    use std::path::Path;

    fn wanted() -> Vec<Wanted> {
        let text = "[system]\nlimits.nofile = \"auto\"\nfs.nr_open = \"auto\"\nnet.core.somaxconn = 4096\n\
                    net.ipv4.tcp_slow_start_after_idle = 0\nio_uring = \"allowed\"\nnet.core.wmem_max = \"auto\"\n";
        parse("f", text).unwrap()
    }

    #[test]
    fn bites_come_first_then_what_is_wanted_then_advice_and_nothing_comes_twice() {
        let scratch = Scratch::small();
        scratch.put("/proc/sys/kernel/io_uring_disabled", "2");
        let report = check(&scratch.machine(), &needs(100_000), &wanted());
        assert!(!report.complete);
        let lacks: Vec<_> = report.lacks.iter().map(|lack| lack.name).collect();
        assert_eq!(lacks, ["net.core.somaxconn", "net.ipv4.tcp_slow_start_after_idle"]);
        let text = report.to_string();
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in\n{text}"));
        assert!(
            at("at 8848 connections: limits.nofile is 10000, needed 101152") < at("at 18848 connections: fs.nr_open")
        );
        assert!(at("fs.nr_open") < at("net.core.somaxconn is 128, wanted at least 4096"));
        assert!(at("do:   sysctl -w net.core.somaxconn=4096") < at("io_uring: kernel.io_uring_disabled is 2"));
        assert!(text.matches("fs.nr_open is").count() == 1 && !text.contains("wmem_max"));
    }

    #[test]
    fn a_machine_that_has_all_of_it_is_complete_whatever_is_advised() {
        let scratch = Scratch::new();
        scratch.put("/proc/sys/kernel/io_uring_disabled", "2");
        let report = check(&scratch.machine(), &needs(100_000), &wanted());
        assert!(report.complete && report.advice.len() == 1);
        assert!(report.to_string().contains("Nothing is missing."));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["complete"], &json["connections"]), (&true.into(), &100_000.into()));
        assert!(json["advice"][0]["command"].as_str().unwrap().contains("io_uring_disabled=0"));
    }

    #[test]
    fn what_cannot_be_judged_is_noted_and_too_few_tasks_are_a_lack() {
        let scratch = Scratch::new();
        scratch.put("/proc/sys/net/core/somaxconn", "plenty");
        scratch.put("/etc/systemd/system/ringroom.service", "[Service]\nTasksMax=8\n");
        let report = check(&scratch.machine(), &needs(1), &wanted());
        assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
        assert_eq!((report.lacks[0].name, report.lacks[0].wanted.as_str()), ("TasksMax", "at least 34"));
        assert!(!report.complete);
        scratch.put("/etc/systemd/system/ringroom.service", "[Service]\nTasksMax=34\n");
        assert!(check(&scratch.machine(), &needs(1), &wanted()).complete);
    }

    #[test]
    fn this_machine_can_be_checked() {
        let report = check(&Machine::at(Path::new("/")), &needs(1_000), &wanted());
        assert!(report.to_string().starts_with("For 1000 connections on 2 shards"));
    }
}
