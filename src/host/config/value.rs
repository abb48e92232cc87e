//! Values: from what a file or the environment says to what a key allows, and back to TOML.
//! Invariant: a [`Value`] that was made here is one that its key allows, and a complaint about a
//! secret holds no byte of it.

use super::declare::{Allowed, Key};
use super::file::of_type;
use std::fmt;
use toml::de::DeValue;

#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub enum Value {
    Flag(bool),
    Number(u64),
    Text(String),
}

/// What is wrong with a value, and what to do: `is "soon"; it takes ...`.
pub struct Wrong(pub String);

impl Key {
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// A value of a file.
    pub fn of_toml(&self, given: &DeValue<'_>) -> Result<Value, Wrong> {
        match given {
            DeValue::String(text) => self.of_string(text),
            DeValue::Boolean(flag) if matches!(self.spec.allowed, Allowed::Flag) => Ok(Value::Flag(*flag)),
            _ if self.spec.is_secret => Err(self.wrong(&"not a text in quotes")),
            DeValue::Integer(digits) => match i128::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => self.of_number(number),
                Err(_) => Err(self.wrong(digits)),
            },
            DeValue::Float(number) => Err(self.wrong(number)),
            other => {
                let (is, article) = of_type(other);
                Err(self.wrong(&format_args!("{article} {is}")))
            }
        }
    }

    /// A value of the environment or of an option, where all is text.
    pub fn of_text(&self, given: &str) -> Result<Value, Wrong> {
        match (&self.spec.allowed, given.parse(), given.parse()) {
            (Allowed::Number { .. }, Ok(number), _) => self.of_number(number),
            (Allowed::Flag, _, Ok(flag)) => Ok(Value::Flag(flag)),
            _ => self.of_string(given),
        }
    }

    fn of_number(&self, given: i128) -> Result<Value, Wrong> {
        match self.spec.allowed {
            Allowed::Number { least, most, .. } => match u64::try_from(given) {
                Ok(number) if (least..=most).contains(&number) => Ok(Value::Number(number)),
                _ => Err(self.wrong(&given)),
            },
            _ => Err(self.wrong(&format_args!("the number {given}"))),
        }
    }

    fn of_string(&self, given: &str) -> Result<Value, Wrong> {
        let is_allowed = match self.spec.allowed {
            Allowed::Flag => false,
            Allowed::Number { word, .. } => word == Some(given),
            Allowed::OneOf(words) => words.contains(&given),
            Allowed::Text { fits, .. } => fits(given),
        };
        match is_allowed {
            true => Ok(Value::Text(given.into())),
            false if self.spec.is_secret => Err(self.wrong(&format_args!("{} bytes long", given.len()))),
            false => Err(self.wrong(&Quoted(given))),
        }
    }

    /// A line that would be taken.
    pub fn example(&self) -> String {
        match &self.spec.allowed {
            Allowed::Flag | Allowed::Number { .. } | Allowed::OneOf(_) => {
                format!("{} = {}", self.name(), self.spec.default.value())
            }
            Allowed::Text { example, .. } => format!("{} = {}", self.name(), Quoted(example)),
        }
    }

    fn wrong(&self, is: &dyn fmt::Display) -> Wrong {
        let advice = match self.spec.is_secret {
            true => "make one with: head -c 32 /dev/urandom | base64".into(),
            false => format!("for example: {}", self.example()),
        };
        Wrong(format!("is {is}; it takes {}; {advice}", self.spec.allowed))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Flag => out.write_str("true or false"),
            Allowed::Number { unit, least, most, word } => {
                write!(out, "a whole number of {unit} from {least} to {most}")?;
                word.map_or(Ok(()), |word| write!(out, ", or {}", Quoted(word)))
            }
            Allowed::OneOf(words) => {
                for (at, word) in words.iter().enumerate() {
                    let between = if at == 0 {
                        ""
                    } else if at + 1 == words.len() {
                        " or "
                    } else {
                        ", "
                    };
                    write!(out, "{between}{}", Quoted(word))?;
                }
                Ok(())
            }
            Allowed::Text { what, .. } => out.write_str(what),
        }
    }
}

/// As TOML.
impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Flag(flag) => write!(out, "{flag}"),
            Value::Number(number) => write!(out, "{number}"),
            Value::Text(text) => write!(out, "{}", Quoted(text)),
        }
    }
}

/// A text as a basic string of TOML: on one line, and harmless to a terminal.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"")?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(out, "\\{char}")?,
                char if char.is_control() => write!(out, "\\u{:04X}", char as u32)?,
                char => write!(out, "{char}")?,
            }
        }
        out.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{key, keys};
    use super::*;

    #[test]
    fn every_default_and_every_example_is_allowed_by_its_own_key() {
        for key in keys() {
            let given = key.spec.default.value();
            let again = match &given {
                Value::Flag(_) => key.of_text(&given.to_string()),
                Value::Number(number) => key.of_number(i128::from(*number)),
                Value::Text(text) => key.of_string(text),
            };
            // No secret is the one default that nobody may write.
            assert!(key.spec.is_secret || again.is_ok_and(|again| again == given), "{}", key.path);
            if let Allowed::Text { example, fits, .. } = key.spec.allowed {
                assert!(key.spec.is_secret || fits(example), "{}", key.path);
            }
        }
    }

    #[test]
    fn a_number_is_bounded_and_may_have_a_word() {
        let idle = key("limits.idle_ms").unwrap();
        assert!(matches!(idle.of_text("never"), Ok(Value::Text(word)) if word == "never"));
        assert!(matches!(idle.of_text("1"), Ok(Value::Number(1))));
        for wrong in ["0", "-1", "1.5", "1h", "", "Never", "340282366920938463463374607431768211456"] {
            let Err(Wrong(message)) = idle.of_text(wrong) else { panic!("{wrong} was taken") };
            assert!(message.contains("a whole number of milliseconds from 1 to"), "{message}");
            assert!(message.contains("or \"never\""), "{message}");
        }
    }

    #[test]
    fn no_complaint_shows_a_secret() {
        let secret = key("jwt.secret").unwrap();
        let Err(Wrong(message)) = secret.of_text("hunter2 hunter2") else { panic!("15 bytes were taken") };
        assert!(message.contains("15 bytes") && !message.contains("hunter2"), "{message}");
        for number in ["12345678", "0.12345678", "[\"12345678\"]", "{ a = \"12345678\" }"] {
            let parsed = DeValue::parse(number).unwrap();
            let Err(Wrong(message)) = secret.of_toml(parsed.get_ref()) else { panic!("{number} was taken") };
            assert!(!message.contains("12345678"), "{message}");
        }
    }

    #[test]
    fn a_written_text_stays_on_its_line() {
        assert_eq!(Quoted("a \"b\" \\ c\nd\u{1b}[0m").to_string(), r#""a \"b\" \\ c\u000Ad\u001B[0m""#);
    }
}
