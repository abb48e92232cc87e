//! Profiles: values for a purpose, as files of the same tree. Ours are part of the program.
//! Invariant: each of ours is free of problems (a test reads them all).

use super::file::{self, Read};
use super::origin::{Origin, Problem, nearest};
use super::tree::PROFILE_DEFAULT;
use super::value::Quoted;
use std::path::{Path, PathBuf};

pub const BENCH: &str = "bench";

const PROFILES: [(&str, &str); 5] = [
    ("default", include_str!("../../../tuning/default.toml")),
    ("latency", include_str!("../../../tuning/latency.toml")),
    ("throughput", include_str!("../../../tuning/throughput.toml")),
    ("density", include_str!("../../../tuning/density.toml")),
    (BENCH, include_str!("../../../tuning/bench.toml")),
];

/// What the profile `name` sets. `named_at`: who chose it, which a file is found relative to.
pub fn read(name: &str, named_at: &Origin) -> Read {
    let mut read = if let Some((name, text)) = PROFILES.iter().find(|(known, _)| *known == name) {
        let mut read = file::parse_profile(name, text);
        let rows = read.lists.iter_mut().flat_map(|(_, rows)| rows);
        let of_rows =
            rows.flat_map(|row| row.entries.iter_mut().map(|entry| &mut entry.origin).chain([&mut row.origin]));
        let origins = read.entries.iter_mut().map(|entry| &mut entry.origin).chain(of_rows);
        origins.for_each(|origin| *origin = Origin::Profile((*name).into()));
        read
    } else if name.contains('/') || name.ends_with(".toml") {
        let path = place(name, named_at);
        match file::load(&path) {
            Ok(text) => file::parse_profile(&path.to_string_lossy(), &text),
            Err(what) => {
                let what = format!("the profile {} {what}", path.display());
                Read { problems: vec![Problem::new(named_at, what)], ..Read::default() }
            }
        }
    } else {
        let names = || PROFILES.iter().map(|(name, _)| *name);
        let near = nearest(name, names()).map_or(String::new(), |near| format!("; did you mean {near}?"));
        let what = format!(
            "there is no profile {}{near}; there are {}, and files that end with .toml",
            Quoted(name),
            names().collect::<Vec<_>>().join(", "),
        );
        Read { problems: vec![Problem::new(named_at, what)], ..Read::default() }
    };
    for entry in read.entries.extract_if(.., |entry| entry.key.path == "server.profile") {
        read.problems.push(Problem::new(
            &entry.origin,
            "server.profile cannot stand in a profile; write the values that you want here",
        ));
    }
    read
}

/// Where a profile of one's own lies: beside the file that names it.
fn place(name: &str, named_at: &Origin) -> PathBuf {
    let beside = match named_at {
        Origin::File { path, .. } => Path::new(&**path).parent().unwrap_or(Path::new("")),
        _ => Path::new(""),
    };
    beside.join(name)
}

/// The name and the text of the profile, and those of [`PROFILE_DEFAULT`] before it: what that asks of
/// the system holds under every profile. Reads again what [`read`] was content with.
pub fn texts(name: &str, named_at: &Origin) -> Result<Vec<(String, String)>, Problem> {
    let of_ours = |wanted: &str| PROFILES.iter().find(|(known, _)| *known == wanted);
    let ours = [PROFILE_DEFAULT, name].into_iter().filter_map(of_ours);
    let mut texts: Vec<_> = ours.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    texts.dedup();
    if of_ours(name).is_none() {
        let path = place(name, named_at);
        let text = file::load(&path)
            .map_err(|what| Problem::new(named_at, format!("the profile {} {what}", path.display())))?;
        texts.push((path.to_string_lossy().into_owned(), text));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_ours_is_free_of_problems_and_says_why() {
        for (name, text) in PROFILES {
            let read = read(name, &Origin::Default);
            assert!(read.problems.is_empty(), "{name}: {:?}", read.problems);
            let mut above = "";
            for line in text.lines() {
                let is_value = line.contains(" = ") && !line.starts_with('#');
                assert!(!is_value || above.starts_with('#'), "{name}: no comment above {line}");
                above = line;
            }
        }
    }

    #[test]
    fn a_profile_that_is_not_there_is_told_with_the_nearest() {
        let read = read("latnecy", &Origin::Option("--profile"));
        let problem = read.problems[0].to_string();
        assert!(problem.starts_with("--profile: ") && problem.contains("did you mean latency?"), "{problem}");
    }
}
