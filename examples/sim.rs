//! Replays runs of the simulation: `cargo sim -- --seed 7 --trace`.

use lexopt::prelude::*;
use ringroom::sim::{Fault, Simulation};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo sim -- [--seed N] [--seeds COUNT] [--trace] [--fault NAME]

Runs the seeds N, N+1, ... and stops at the first that breaks a promise. A fault is a planted bug:";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            let faults: Vec<String> = Fault::ALL.iter().map(|fault| format!("{fault:?}")).collect();
            eprintln!("{error}\n{USAGE}\n{}", faults.join(" "));
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, lexopt::Error> {
    let (mut seed, mut seeds, mut trace, mut fault) = (0u64, 1u64, false, None);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("seed") => seed = arguments.value()?.parse()?,
            Long("seeds") => seeds = arguments.value()?.parse()?,
            Long("trace") => trace = true,
            Long("fault") => {
                let name = arguments.value()?.string()?;
                let known = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
                fault = Some(known.ok_or_else(|| format!("there is no fault {name}"))?);
            }
            other => return Err(other.unexpected()),
        }
    }
    let mut print = |line: &str| println!("{line}");
    for seed in seed..seed + seeds {
        let simulation = Simulation::new(seed, fault);
        let outcome = if trace { simulation.with_trace(&mut print).run() } else { simulation.run() };
        if let Some(failure) = outcome.failure {
            println!("seed {seed} breaks {:?}: {}", failure.check, failure.saw);
            return Ok(ExitCode::FAILURE);
        }
        if seeds == 1 {
            println!("seed {seed} keeps every promise: {:?}", outcome.snapshot);
        }
    }
    println!("{seeds} seeds from {seed} keep every promise");
    Ok(ExitCode::SUCCESS)
}
