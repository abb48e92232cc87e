//! The `[system]` part of a profile. Invariant: what is wanted is something that its setting takes,
//! and every line that asks for nothing is a problem with its place.

use super::setting::{SETTINGS, Setting, Takes};
use toml::de::{DeTable, DeValue};

/// What one line of a profile asks for.
#[derive(Clone)]
pub struct Wanted {
    pub setting: &'static Setting,
    pub value: Value,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// What the connections need.
    Auto,
    Number(u64),
    Word(&'static str),
}

/// What the profile `name` asks for, or all that is wrong with it. What is no `[system]` is left to
/// the configuration, which has read it before.
pub fn parse(name: &str, text: &str) -> Result<Vec<Wanted>, Vec<String>> {
    let (table, _) = DeTable::parse_recoverable(text);
    let (mut wanted, mut problems) = (Vec::new(), Vec::new());
    if let Some(system) = table.get_ref().get("system") {
        let place = |at: usize| format!("{name}:{}", 1 + text[..at].matches('\n').count());
        walk("", system.span().start, system.get_ref(), &mut |path, at, value| match line(path, value) {
            Ok(line) => wanted.push(line),
            Err(what) => problems.push(format!("{}: {what}", place(at))),
        });
    }
    if problems.is_empty() { Ok(wanted) } else { Err(problems) }
}

/// Calls `found` with each value below `value` and the names that lead there, joined by dots.
fn walk(path: &str, at: usize, value: &DeValue<'_>, found: &mut impl FnMut(&str, usize, &DeValue<'_>)) {
    let DeValue::Table(table) = value else { return found(path, at, value) };
    for (name, value) in table {
        let name_at = name.span().start;
        let path = if path.is_empty() { name.get_ref().to_string() } else { format!("{path}.{}", name.get_ref()) };
        walk(&path, name_at, value.get_ref(), found);
    }
}

fn line(path: &str, value: &DeValue<'_>) -> Result<Wanted, String> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.name == path) else {
        let what = if path.is_empty() {
            "system is a section; write [system] on a line of its own".into()
        } else {
            format!("there is no key {path:?} in [system]; docs/tuning.md names all that there are")
        };
        return Err(what);
    };
    let number = match value {
        DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
        _ => None,
    };
    let text = match value {
        DeValue::String(text) => Some(text.as_ref()),
        _ => None,
    };
    let value = match (&setting.takes, number, text) {
        (Takes::AtLeast(Some(_)) | Takes::PagesAtLeast(_), None, Some("auto")) => Some(Value::Auto),
        (Takes::AtLeast(_) | Takes::AtMost | Takes::PagesAtLeast(_), Some(number), None) if number > 0 => {
            Some(Value::Number(number))
        }
        (Takes::OneOf(words), ..) => {
            let given = number.map(|number| number.to_string()).or(text.map(str::to_owned));
            words.iter().find(|word| given.as_deref() == Some(word)).map(|word| Value::Word(word))
        }
        _ => None,
    };
    match value {
        Some(value) => Ok(Wanted { setting, value }),
        None => Err(format!("{path} in [system] takes {}", setting.takes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [&str; 5] = ["default", "latency", "throughput", "density", "bench"];

    fn ours(name: &str) -> String {
        std::fs::read_to_string(format!("{}/tuning/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn every_profile_of_ours_asks_for_what_the_system_knows() {
        for name in OURS {
            let wanted = parse(name, &ours(name)).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert!(!wanted.is_empty(), "{name} asks the system for nothing");
        }
    }

    #[test]
    fn every_setting_is_asked_for_by_one_of_our_profiles() {
        let texts: Vec<Wanted> = OURS.iter().flat_map(|name| parse(name, &ours(name)).unwrap()).collect();
        for setting in SETTINGS {
            assert!(texts.iter().any(|wanted| wanted.setting.name == setting.name), "nobody asks for {}", setting.name);
        }
    }

    #[test]
    fn keys_with_dots_are_read_however_they_are_written() {
        for text in [
            "[system]\nnet.core.somaxconn = 1000\n",
            "[system.net.core]\nsomaxconn = 1000\n",
            "[system]\nnet = { core = { somaxconn = 1000 } }\n",
        ] {
            let wanted = parse("f", text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!((wanted[0].setting.name, &wanted[0].value), ("net.core.somaxconn", &Value::Number(1_000)));
        }
        assert!(parse("f", "[limits]\nidle_ms = 1").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_line_is_told_with_its_place_and_what_it_takes() {
        for (text, expected) in [
            (
                "[system]\nnet.core.somaxcon = 1",
                "f:2: there is no key \"net.core.somaxcon\" in [system]; docs/tuning.md",
            ),
            ("\n[system]\nnet.core.somaxconn = \"many\"", "f:3: net.core.somaxconn in [system] takes a whole number"),
            ("[system]\nnet.core.somaxconn = 0", "takes a whole number"),
            ("[system]\nnet.core.somaxconn = -1", "takes a whole number"),
            ("[system]\nnet.core.somaxconn = \"auto\"", "takes a whole number"),
            ("[system]\nnet.core.somaxconn = [1]", "takes a whole number"),
            ("[system]\nfs.nr_open = \"Auto\"", "or \"auto\""),
            ("[system]\nnet.ipv4.tcp_slow_start_after_idle = 7", "takes 0"),
            ("system = 5", "system is a section"),
        ] {
            let problems = parse("f", text).err().unwrap_or_default();
            assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "([a-z\"'\\[\\]{}=.,#0-9é\n]|\\[system\\]|net\\.core|somaxconn=){0,40}") {
            let _ = parse("f", &text);
        }
    }
}
