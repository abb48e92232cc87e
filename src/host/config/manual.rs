//! `docs/configuration.md`, made from the declarations.

use super::declare::{Allowed, Key};
use super::tree::{LISTS, SECTIONS};
use std::fmt::Write;

const HEAD: &str = "\
# Configuration

*Made from `src/host/config/tree.rs` by `cargo run -- config docs`; a test keeps it equal.*

ringroom runs without any configuration on loopback. What is set comes from these places, each over
the ones before:

1. defaults, as below;
2. the profile (`server.profile`): a file of `tuning/` by its name, or a file of your own by its path;
3. the file: `--config FILE`, else `/etc/ringroom/ringroom.toml` if it is there;
4. the environment: `RINGROOM_` and the key in capitals, with two underscores for the dot:
   `RINGROOM_LIMITS__IDLE_MS`; some keys have a short name as well;
5. options of the command line.

Files are TOML. `ringroom config check FILE` names every error with its line, and exits with 0 or
78; `ringroom config show` prints what would run and where each value comes from. Secrets are shown
by neither.

Lists, such as `[[policy]]`, stand in files only. The rows of one source count together and in their order; a
later source that has the list replaces the whole of it (`policy = []` leaves none).

On SIGHUP all of it is read again. A configuration with an error is refused as a whole, its errors
go to the log, and the old one stays. Keys and lists marked **live** change at once, and no connection
is closed for it; a change of any other is named in the log and waits for a restart.
";

/// The whole page.
pub fn manual() -> String {
    let mut page = String::from(HEAD);
    for section in SECTIONS {
        let _ = write!(page, "\n## [{}]\n\n{}\n", section.name, section.about.trim());
        for key in section.keys {
            describe(key, &mut page);
        }
    }
    for list in LISTS {
        let live = if list.is_live { ", **live**" } else { "" };
        let _ = write!(page, "\n## [[{}]]{live}\n\n{}\n", list.name, list.about.trim());
        for key in list.keys {
            describe_in_row(key, key.path == list.needed, &mut page);
        }
    }
    page
}

fn describe_in_row(key: &Key, is_needed: bool, page: &mut String) {
    let needed = if is_needed { ", needed" } else { "" };
    let _ = write!(page, "\n### {}{needed}\n\n{}\n\n", key.path, key.help.trim());
    let _ = writeln!(page, "- takes {}; for example `{}`", key.spec.allowed, key.example());
}

// Writing to a string does not fail.
fn describe(key: &Key, page: &mut String) {
    let spec = &key.spec;
    let live = if spec.is_live { ", **live**" } else { "" };
    let secret = if spec.is_secret { ", secret" } else { "" };
    let _ = write!(page, "\n### {}{live}{secret}\n\n{}\n\n", key.path, key.help.trim());
    let allowed = match &spec.allowed {
        Allowed::Text { what, example, .. } if !example.is_empty() => format!("{what}, such as `\"{example}\"`"),
        allowed => allowed.to_string(),
    };
    let _ = writeln!(page, "- takes {allowed}");
    match spec.is_secret {
        true => page.push_str("- default: none\n"),
        false => {
            let _ = writeln!(page, "- default: `{}`", spec.default.value());
        }
    }
    let _ = write!(page, "- environment: `RINGROOM_{}`", key.in_environment());
    if let Some(short) = spec.short {
        let _ = write!(page, " or `RINGROOM_{short}`");
    }
    page.push('\n');
}

const SAMPLE_HEAD: &str = "\
# The configuration of ringroom: every key with its default, commented out.
#
# Try changes with `ringroom config check`, load them with `systemctl reload ringroom`; keys marked
# live change at once, others with a restart. docs/configuration.md has more about each.
# Secrets are better kept in /etc/ringroom/environment.
";

/// A file to begin with: it changes nothing until a # is taken away.
pub fn sample() -> String {
    let mut file = String::from(SAMPLE_HEAD);
    for section in SECTIONS {
        let _ = write!(file, "\n#{}\n[{}]\n", commented(section.about), section.name);
        for key in section.keys {
            let spec = &key.spec;
            let live = if spec.is_live { " (live)" } else { "" };
            let value = if spec.is_secret { "\"\"".into() } else { spec.default.value().to_string() };
            let _ = write!(file, "\n#{}{live}\n#{} = {value}\n", commented(key.help), key.name());
        }
    }
    file
}

/// The lines of a text behind marks of comments, but for the first mark.
fn commented(text: &str) -> String {
    text.trim_end().replace('\n', "\n#")
}

#[cfg(test)]
mod tests {
    use super::super::file;

    #[test]
    fn the_sample_that_is_installed_is_the_one_that_the_tree_makes() {
        let written = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/debian/ringroom.toml"));
        let is_equal = written.is_ok_and(|written| written == super::sample());
        assert!(is_equal, "write it anew: cargo run -- config sample > debian/ringroom.toml");
    }

    #[test]
    fn the_sample_changes_nothing_and_each_of_its_lines_is_allowed() {
        let sample = super::sample();
        let read = file::parse("sample", &sample);
        assert!(read.problems.is_empty() && read.entries.is_empty(), "{:?}", read.problems);
        let is_key = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.contains(" = ");
        let keys = sample.lines().filter(is_key).count();
        assert_eq!(keys, super::super::tree::keys().count());
        let open: String = sample
            .lines()
            .filter(|line| !line.starts_with("#secret ="))
            .map(|line| if is_key(&line) { &line[1..] } else { line })
            .flat_map(|line| [line, "\n"])
            .collect();
        let read = file::parse("sample", &open);
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        assert_eq!(read.entries.len(), keys - 1);
    }

    #[test]
    fn the_manual_in_docs_is_the_one_that_the_tree_makes() {
        let written = include_str!("../../../docs/configuration.md");
        assert!(written == super::manual(), "write it anew: cargo run -- config docs > docs/configuration.md");
    }
}
