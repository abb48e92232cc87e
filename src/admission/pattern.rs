//! Patterns over names of rooms: `*` is one segment, a trailing `*` one or more, `**` any number.
//! Segments are compared, separators are not: `chat:*` covers `chat.1` too, so nobody slips past
//! a policy by writing the other separator.
//! Invariant: matching takes at most (segments of the pattern) x (segments of the name) steps.

use super::names::{RoomName, SEPARATORS};
use crate::base::limits::ROOM_NAME_BYTES_MAX;
use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The text of a room name in which whole segments may be `*` or `**`.
    pub fn parse(text: &str) -> Result<Pattern, PatternRefused> {
        if text.is_empty() || text.len() > ROOM_NAME_BYTES_MAX {
            return Err(PatternRefused::Length { bytes: text.len() });
        }
        for segment in text.split(SEPARATORS) {
            let literal = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_@-".contains(&byte));
            if !literal && segment != "*" && segment != "**" {
                return Err(PatternRefused::Segment);
            }
        }
        Ok(Pattern(text.into()))
    }

    pub fn matches(&self, room: &RoomName) -> bool {
        let mut steps = self.steps();
        let mut segments = room.segments();
        // Where the last `**` stood: what follows it, and the segments it has not taken yet. To
        // lengthen an earlier `**` instead can never help, hence no recursion.
        let mut longer = None;
        loop {
            let (mut steps_ahead, mut segments_ahead) = (steps.clone(), segments.clone());
            let fits = match (steps_ahead.next(), segments_ahead.next()) {
                (Some(Step::Any), _) => {
                    steps = steps_ahead;
                    longer = Some((steps.clone(), segments.clone()));
                    continue;
                }
                (None, None) => return true,
                (Some(Step::One), Some(_)) => true,
                (Some(Step::Literal(literal)), Some(segment)) => literal == segment,
                (None, Some(_)) | (Some(_), None) => false,
            };
            if fits {
                (steps, segments) = (steps_ahead, segments_ahead);
                continue;
            }
            let Some((after, untaken)) = &mut longer else { return false };
            if untaken.next().is_none() {
                return false;
            }
            (steps, segments) = (after.clone(), untaken.clone());
        }
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> + Clone {
        let segments = self.0.split(SEPARATORS);
        let one_or_more = segments.clone().next_back() == Some("*");
        segments.map(Step::of).chain(one_or_more.then_some(Step::Any))
    }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Literal(&'a str),
    One,
    Any,
}

impl<'a> Step<'a> {
    fn of(segment: &'a str) -> Self {
        match segment {
            "*" => Step::One,
            "**" => Step::Any,
            literal => Step::Literal(literal),
        }
    }
}

/// Why a pattern is refused. Whoever issues tokens or writes the configuration has to mend it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatternRefused {
    Length { bytes: usize },
    Segment,
}

impl fmt::Display for PatternRefused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternRefused::Length { bytes } => {
                write!(out, "a room pattern has {bytes} bytes; 1 to {ROOM_NAME_BYTES_MAX} are allowed")
            }
            PatternRefused::Segment => {
                out.write_str("a segment of a room pattern must be `*`, `**` or letters, digits and _ @ -")
            }
        }
    }
}

impl std::error::Error for PatternRefused {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&RoomName::parse(name).unwrap())
    }

    #[test]
    fn a_star_is_one_segment_and_a_trailing_star_one_or_more() {
        assert!(covers("zone:*:a", "zone:7:a"));
        assert!(!covers("zone:*:a", "zone:a"));
        assert!(!covers("zone:*:a", "zone:7:8:a"));
        assert!(covers("chat:*", "chat:1"));
        assert!(covers("chat:*", "chat:1.b"));
        assert!(!covers("chat:*", "chat"));
        assert!(covers("*", "a.b.c"));
    }

    #[test]
    fn two_stars_are_any_number_of_segments() {
        assert!(covers("a.**.z", "a.z"));
        assert!(covers("a.**.z", "a.b.z.c.z"));
        assert!(!covers("a.**.z", "a.b"));
        assert!(covers("**", "anything:at.all"));
        assert!(covers("a.**", "a"));
    }

    #[test]
    fn a_literal_covers_whole_segments_only_whatever_separates_them() {
        assert!(covers("chat:1", "chat:1"));
        assert!(covers("chat:1", "chat.1"));
        assert!(!covers("chat:1", "chat:12"));
        assert!(!covers("chat", "chats"));
        assert!(!covers("Chat:1", "chat:1"));
    }

    #[test]
    fn half_starred_segments_and_foreign_characters_are_refused() {
        for text in ["chat:1*", "***", "a.b*c", "a b", "{sub}", "é"] {
            assert_eq!(Pattern::parse(text), Err(PatternRefused::Segment), "{text}");
        }
        assert_eq!(Pattern::parse(""), Err(PatternRefused::Length { bytes: 0 }));
        assert_eq!(Pattern::parse(&"a".repeat(129)), Err(PatternRefused::Length { bytes: 129 }));
    }

    #[test]
    fn the_worst_pattern_for_backtracking_ends_at_once() {
        // Many `**.a` against many `a` and no final `b`: exponential when done naively.
        let pattern = format!("{}.b", ["**.a"; 25].join("."));
        let name = ["a"; 64].join(".");
        assert!(!covers(&pattern, &name));
    }

    /// The definition, word for word: slow, and obviously right.
    fn naive(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (["**", rest @ ..], _) => naive(rest, name) || (!name.is_empty() && naive(pattern, &name[1..])),
            (["*"], [_, ..]) => true,
            (["*", rest @ ..], [_, after @ ..]) => naive(rest, after),
            ([literal, rest @ ..], [segment, after @ ..]) => literal == segment && naive(rest, after),
            _ => false,
        }
    }

    fn joined(part: &'static str, parts_max: usize) -> impl Strategy<Value = String> {
        (part, prop::collection::vec(("[.:]", part), 0..parts_max))
            .prop_map(|(first, rest)| rest.into_iter().fold(first, |text, (mark, part)| text + &mark + &part))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn matching_agrees_with_the_definition(pattern in joined("a|b|\\*|\\*\\*", 6), name in joined("a|b", 8)) {
            let steps: Vec<_> = pattern.split(SEPARATORS).collect();
            let segments: Vec<_> = name.split(SEPARATORS).collect();
            let expected = naive(&steps, &segments);
            prop_assert_eq!(covers(&pattern, &name), expected, "{} over {}", pattern, name);
        }
    }
}
