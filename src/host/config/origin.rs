//! Where values come from, and what is wrong there.
//! Invariant: a problem names its place, its key, what is wrong and what to do, on one line.

use std::fmt;
use std::sync::Arc;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    Default,
    /// A profile of ours; its name.
    Profile(Arc<str>),
    File {
        path: Arc<str>,
        line: usize,
        column: usize,
    },
    /// The variable.
    Environment(String),
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => out.write_str("default"),
            Origin::Profile(name) => write!(out, "profile {name}"),
            Origin::File { path, line, column } => write!(out, "{path}:{line}:{column}"),
            Origin::Environment(name) => out.write_str(name),
            Origin::Option(name) => out.write_str(name),
        }
    }
}

/// One reason not to run with a configuration.
#[derive(Debug)]
pub struct Problem {
    place: String,
    what: String,
}

impl Problem {
    pub fn new(place: &impl fmt::Display, what: impl Into<String>) -> Problem {
        Problem { place: place.to_string(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// All problems at once.
#[derive(Debug)]
pub struct Refused(pub Vec<Problem>);

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.0[..] {
            return write!(out, "{only}");
        }
        write!(out, "the configuration has {} errors:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(out, "\n  {problem}"))
    }
}

/// The candidate that somebody may have meant by `given`.
pub fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong: more is another word.
    let far = given.chars().count().max(3) / 3;
    let of_distance = candidates.map(|candidate| (distance(given, candidate), candidate));
    of_distance.filter(|(distance, _)| *distance <= far).min().map(|(_, candidate)| candidate)
}

/// Letters to add, drop, replace or swap with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for at in 1..=from.len() {
        let mut row = vec![at];
        for to_at in 1..=to.len() {
            let is_other = from[at - 1] != to[to_at - 1];
            let mut least = (rows[at - 1][to_at] + 1).min(row[to_at - 1] + 1);
            least = least.min(rows[at - 1][to_at - 1] + usize::from(is_other));
            if at > 1 && to_at > 1 && from[at - 1] == to[to_at - 2] && from[at - 2] == to[to_at - 1] {
                least = least.min(rows[at - 2][to_at - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_unless_it_is_far() {
        let names = ["heartbeat_ms", "heartbeat_time_out_ms", "idle_ms", "ops"];
        let near = |given| nearest(given, names.into_iter());
        assert_eq!(near("heartbeet_ms"), Some("heartbeat_ms"));
        assert_eq!(near("hearbeat_timeout_ms"), Some("heartbeat_time_out_ms"));
        assert_eq!(near("osp"), Some("ops"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(""), None);
    }
}
