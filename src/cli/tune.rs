//! `ringroom tune`: from what is configured to what the system has to offer.

use super::Failed;
use crate::host::{self, SystemNeeds};
use crate::io::runtime::Choice;
use crate::tune::{self, Io, Machine, Needs, Outcome, Wanted};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

pub struct TuneOptions {
    pub action: Action,
    pub serve: host::Options,
    /// As many as the configuration lets in, where nothing is said.
    pub connections: Option<u64>,
    pub root: PathBuf,
}

pub enum Action {
    Check {
        json: bool,
    },
    /// `yes`: nobody is asked.
    Apply {
        yes: bool,
    },
    Undo,
}

pub fn run(options: TuneOptions) -> Result<(), Failed> {
    let machine = Machine::at(&options.root);
    match options.action {
        Action::Undo => undo(&machine),
        Action::Check { json } => {
            let (needs, wanted) = asked(host::system_needs(options.serve)?, options.connections)?;
            check(&machine, &needs, &wanted, json)
        }
        Action::Apply { yes } => {
            let (needs, wanted) = asked(host::system_needs(options.serve)?, options.connections)?;
            apply(&machine, &needs, &wanted, yes)
        }
    }
}

/// What a profile says to the system is free of errors.
pub fn check_profile(options: host::Options) -> Result<(), Failed> {
    asked(host::system_needs(options)?, None).map(|_| ())
}

fn asked(asked: SystemNeeds, connections: Option<u64>) -> Result<(Needs, Vec<Wanted>), Failed> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for (name, text) in &asked.profile_texts {
        let more = tune::parse(name, text).map_err(|problems| Failed::configuration(problems.join("\n  ")))?;
        // Later lines go over earlier ones.
        wanted.retain(|known| more.iter().all(|other| other.setting.name != known.setting.name));
        wanted.extend(more);
    }
    let needs = Needs {
        profile: asked.profile,
        connections: connections.unwrap_or(asked.connections_max as u64),
        connections_max: asked.connections_max as u64,
        shards: asked.shards as u64,
        budget_bytes: asked.budget_bytes as u64,
        send_buffer_bytes: asked.send_buffer_bytes.map(|bytes| bytes as u64),
        receive_buffer_bytes: asked.receive_buffer_bytes.map(|bytes| bytes as u64),
        io: match asked.io {
            Choice::Auto => Io::Auto,
            Choice::IoUring => Io::IoUring,
            Choice::Epoll => Io::Epoll,
        },
    };
    Ok((needs, wanted))
}

fn check(machine: &Machine, needs: &Needs, wanted: &[Wanted], json: bool) -> Result<(), Failed> {
    let report = tune::check(machine, needs, wanted);
    match json {
        true => {
            let text = serde_json::to_string_pretty(&report).map_err(|error| Failed::failure(error.to_string()))?;
            println!("{text}");
        }
        false => print!("{report}"),
    }
    match (report.bites.len(), report.lacks.len()) {
        (0, 0) => Ok(()),
        (bites, lacks) => Err(Failed::failure(format!(
            "{bites} limits bite and {lacks} settings are lacking; `ringroom tune apply` sets what it can, and asks first"
        ))),
    }
}

fn apply(machine: &Machine, needs: &Needs, wanted: &[Wanted], yes: bool) -> Result<(), Failed> {
    let plan = tune::plan(machine, needs, wanted);
    if plan.is_empty() {
        println!("Nothing has to change for {} connections.", needs.connections);
        print!("{plan}");
        return Ok(());
    }
    println!("For {} connections, with the profile {}:\n{plan}", needs.connections, needs.profile);
    if !yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failed::failure(
                "nothing was changed: there is nobody to ask; look at the changes above and say --yes",
            ));
        }
        print!("Make these {} changes? `ringroom tune undo` takes them back. [y/N] ", plan.len());
        let mut answer = String::new();
        let asked = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
        asked.map_err(|error| Failed::failure(format!("nothing was changed: the answer cannot be read: {error}")))?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            println!("Nothing was changed.");
            return Ok(());
        }
    }
    tell(&tune::apply(machine, &plan).map_err(Failed::failure)?)
}

fn undo(machine: &Machine) -> Result<(), Failed> {
    match tune::undo(machine).map_err(Failed::failure)? {
        Some(outcomes) => tell(&outcomes),
        None => {
            println!("There is nothing to undo: {} is not there.", tune::RECORD);
            Ok(())
        }
    }
}

fn tell(outcomes: &[Outcome]) -> Result<(), Failed> {
    let mut failed = 0;
    for outcome in outcomes {
        match outcome {
            Outcome::Done(line) => println!("done:   {line}"),
            Outcome::Left(line) => println!("left:   {line}"),
            Outcome::Failed(line) => {
                failed += 1;
                println!("failed: {line}");
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failed::failure(format!("{failed} of {} changes failed; the others hold", outcomes.len()))),
    }
}
