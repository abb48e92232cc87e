//! What a field is made of: text with the values of other fields in it.
//!
//! | written | makes |
//! | --- | --- |
//! | `{payload}` | what the field is, whatever that is |
//! | `chat:{chatId}` | a text; of a list, one text for each of its items |
//! | `{room after chat:}` | what follows `chat:` there, and nothing where it does not begin so |
//! | `[warehouse:{w}, zone:{w}:{z}]` | a list of what can be made |
//! | `audio`, `true`, `7` | itself: numbers, `true`, `false`, `null` and `"quoted"` as in JSON, else a text |
//!
//! Invariant: what is made is JSON, and no longer than its template and what stands in it.

use crate::base::limits::{
    ALIAS_FIELDS_MAX, ALIAS_SOURCES_MAX, ALIAS_TEXT_BYTES_MAX, EVENT_BYTES_MAX, ROOMS_PER_REQUEST_MAX,
};
use crate::wire::json;
use std::borrow::Cow;

/// What one field is made of. Sources are places in a table of names.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Template {
    /// JSON, written as it is.
    Constant(Box<str>),
    /// The value itself.
    Whole(usize),
    Text(Box<[Piece]>),
    List(Box<[Template]>),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Piece {
    Literal(Box<str>),
    Source {
        nth: usize,
        /// What the value begins with, and the text does not.
        after: Box<str>,
    },
}

/// The values of the sources, as JSON; a `null` is none.
pub(super) type Values<'v> = [Option<&'v str>];

/// Why a template does not fit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Unfit {
    /// The source is no text and no number.
    Type(usize),
    TooLong(usize),
    TooMany(usize),
}

/// Whether fields of clients may be called so in rows: what needs no quotes there, and no escapes in JSON.
pub(super) fn is_field_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"{}[],=\"\\".contains(&byte);
    (1..=EVENT_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

impl Template {
    /// Reads one. `sources` are the names so far; new ones are added.
    pub(super) fn parse(written: &str, sources: &mut Vec<Box<str>>) -> Result<Template, String> {
        let written = written.trim();
        match written.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
            Some(Some(inner)) => {
                let items = inner.split(',').map(|item| Template::parse_text(item, sources));
                let items: Vec<Template> = items.collect::<Result<_, _>>()?;
                match items.len() <= ALIAS_FIELDS_MAX {
                    true => Ok(Template::List(items.into())),
                    false => Err(format!("`{written}` is a list of more than {ALIAS_FIELDS_MAX} items")),
                }
            }
            Some(None) => Err(format!("`{written}` has no closing bracket")),
            None => Template::parse_text(written, sources),
        }
    }

    fn parse_text(written: &str, sources: &mut Vec<Box<str>>) -> Result<Template, String> {
        let written = written.trim();
        if written.is_empty() {
            return Err("a field is made of nothing; write a `{field}`, a text, or both".to_owned());
        }
        if written.len() > ALIAS_TEXT_BYTES_MAX {
            return Err(format!("`{written}` is longer than {ALIAS_TEXT_BYTES_MAX} bytes"));
        }
        if written.contains(['[', ']']) {
            return Err(format!("`{written}` has a bracket inside; lists are written `[a, b]`, one level deep"));
        }
        let mut pieces = Vec::new();
        let mut rest = written;
        while let Some((literal, behind)) = rest.split_once('{') {
            let Some((inside, behind)) = behind.split_once('}') else {
                return Err(format!("`{written}` has no closing brace"));
            };
            push_literal(&mut pieces, literal)?;
            let (name, after) = inside.split_once(" after ").unwrap_or((inside, ""));
            let (name, after) = (name.trim(), after.trim());
            if !is_field_name(name) {
                return Err(format!("`{{{inside}}}` is no field; write `{{name}}` or `{{name after text}}`"));
            }
            pieces.push(Piece::Source { nth: source(name, sources)?, after: after.into() });
            rest = behind;
        }
        push_literal(&mut pieces, rest)?;
        match &*pieces {
            [Piece::Literal(text)] => Ok(Template::Constant(constant(text))),
            [Piece::Source { nth, after }] if after.is_empty() => Ok(Template::Whole(*nth)),
            _ => Ok(Template::Text(pieces.into())),
        }
    }

    /// How often the value of a source is copied whole.
    pub(super) fn copies_of(&self, source: usize) -> usize {
        match self {
            Template::Whole(nth) => usize::from(*nth == source),
            Template::List(templates) => templates.iter().map(|template| template.copies_of(source)).sum(),
            Template::Constant(_) | Template::Text(_) => 0,
        }
    }

    /// Appends what is made, and says whether anything was: nothing is where a source is not there.
    pub(super) fn fill(&self, values: &Values<'_>, out: &mut String) -> Result<bool, Unfit> {
        let start = out.len();
        let is_made = match self {
            Template::Constant(json) => {
                out.push_str(json);
                true
            }
            Template::Whole(nth) => match values[*nth] {
                Some(value) => {
                    out.push_str(value);
                    true
                }
                None => false,
            },
            Template::Text(pieces) => match list_in(pieces, values) {
                Some((nth, items)) => {
                    out.push('[');
                    fill_each(pieces, values, nth, items, out)?;
                    out.push(']');
                    true
                }
                None => fill_text(pieces, values, out)?,
            },
            Template::List(templates) => {
                out.push('[');
                let first = out.len();
                for template in templates {
                    let before = out.len();
                    if before > first {
                        out.push(',');
                    }
                    let is_made = match template {
                        Template::Text(pieces) => match list_in(pieces, values) {
                            Some((nth, items)) => fill_each(pieces, values, nth, items, out)?,
                            None => fill_text(pieces, values, out)?,
                        },
                        other => other.fill(values, out)?,
                    };
                    if !is_made {
                        out.truncate(before);
                    }
                }
                let is_made = out.len() > first;
                out.push(']');
                is_made
            }
        };
        if !is_made {
            out.truncate(start);
        }
        Ok(is_made)
    }
}

/// The place of a name among the sources.
fn source(name: &str, sources: &mut Vec<Box<str>>) -> Result<usize, String> {
    if let Some(nth) = sources.iter().position(|known| **known == *name) {
        return Ok(nth);
    }
    if sources.len() == ALIAS_SOURCES_MAX {
        return Err(format!("more than {ALIAS_SOURCES_MAX} fields are named in braces"));
    }
    sources.push(name.into());
    Ok(sources.len() - 1)
}

fn push_literal(pieces: &mut Vec<Piece>, literal: &str) -> Result<(), String> {
    if literal.contains('}') {
        return Err(format!("`{literal}` has a closing brace without an opening one"));
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(())
}

/// A text as JSON: itself where it is a value already.
fn constant(text: &str) -> Box<str> {
    match json::check(text.as_bytes()) {
        Ok(()) => text.into(),
        Err(_) => {
            let mut out = Vec::new();
            json::write_string(&mut out, text);
            String::from_utf8(out).expect("a string is text").into()
        }
    }
}

/// The first source that is a list, and its items.
fn list_in<'v>(pieces: &[Piece], values: &Values<'v>) -> Option<(usize, json::Items<'v>)> {
    pieces.iter().find_map(|piece| match piece {
        Piece::Source { nth, .. } => Some((*nth, json::array(values[*nth]?)?)),
        Piece::Literal(_) => None,
    })
}

/// Appends one text for each item of a list, commas between; says whether there was one.
fn fill_each(
    pieces: &[Piece],
    values: &Values<'_>,
    nth: usize,
    items: json::Items<'_>,
    out: &mut String,
) -> Result<bool, Unfit> {
    let mut one: smallvec::SmallVec<[Option<&str>; ALIAS_SOURCES_MAX]> = values.into();
    let start = out.len();
    for (count, item) in items.enumerate() {
        if count == ROOMS_PER_REQUEST_MAX {
            return Err(Unfit::TooMany(nth));
        }
        let before = out.len();
        if before > start {
            out.push(',');
        }
        one[nth] = Some(item);
        if !fill_text(pieces, &one, out)? {
            out.truncate(before);
        }
    }
    Ok(out.len() > start)
}

/// Appends one text as JSON; says whether all that stands in it is there.
fn fill_text(pieces: &[Piece], values: &Values<'_>, out: &mut String) -> Result<bool, Unfit> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => text.push_str(literal),
            Piece::Source { nth, after } => {
                let Some(value) = values[*nth] else { return Ok(false) };
                let value = word(value).ok_or(Unfit::Type(*nth))?;
                if value.len() > ALIAS_TEXT_BYTES_MAX {
                    return Err(Unfit::TooLong(*nth));
                }
                let Some(value) = value.strip_prefix(&**after) else { return Ok(false) };
                text.push_str(value);
            }
        }
    }
    let mut quoted = Vec::with_capacity(text.len() + 2);
    json::write_string(&mut quoted, &text);
    out.push_str(std::str::from_utf8(&quoted).expect("a string is text"));
    Ok(true)
}

/// A string, or a number as it is written.
fn word(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => json::string(value),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value)),
        _ => None,
    }
}
