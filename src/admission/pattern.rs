//! Patterns over names of rooms: `*` is one segment, a trailing `*` one or more, `**` any number.
//! Segments are compared, separators are not: `chat:*` covers `chat.1` too, so nobody slips past
//! a policy by writing the other separator.
//! Invariant: matching takes at most (segments of the pattern) x (segments of the name) steps.

use super::names::{RoomName, SEPARATORS, Segments, User};
use crate::base::limits::ROOM_NAME_BYTES_MAX;
use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The text of a room name in which whole segments may be `*` or `**`.
    pub fn parse(text: &str) -> Result<Pattern, PatternRefused> {
        check(text, &["*", "**"])?;
        Ok(Pattern(text.into()))
    }

    pub fn matches(&self, room: &RoomName) -> bool {
        covers(steps(&self.0), room.segments(), |step, segment| match step {
            Step::Literal(literal) => literal == segment,
            Step::One => true,
            Step::Any | Step::Sub | Step::Tenant => false,
        })
    }
}

/// A pattern of a rule: besides, a whole segment may stand for whoever asks. `{sub}` and `{tenant}`
/// are one segment equal to the id as it is, so an id that holds a separator fits nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RulePattern {
    text: Box<str>,
    /// Taken apart once: rules are tried at every request.
    steps: Box<[OwnStep]>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum OwnStep {
    Literal(Box<str>),
    Other(Step<'static>),
}

impl RulePattern {
    pub fn parse(text: &str) -> Result<RulePattern, PatternRefused> {
        check(text, &["*", "**", "{sub}", "{tenant}"])?;
        let own = |step| match step {
            Step::Literal(literal) => OwnStep::Literal(literal.into()),
            Step::One => OwnStep::Other(Step::One),
            Step::Any => OwnStep::Other(Step::Any),
            Step::Sub => OwnStep::Other(Step::Sub),
            Step::Tenant => OwnStep::Other(Step::Tenant),
        };
        Ok(RulePattern { text: text.into(), steps: steps(text).map(own).collect() })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first segment of all rooms that match, where there is only one.
    pub fn first(&self) -> Option<&str> {
        match &self.steps[0] {
            OwnStep::Literal(literal) => Some(literal),
            OwnStep::Other(_) => None,
        }
    }

    /// Whether `room` matches when `user` asks.
    pub fn matches(&self, room: &RoomName, user: &User) -> bool {
        covers(self.steps(), room.segments(), |step, segment| match step {
            Step::Literal(literal) => literal == segment,
            Step::One => true,
            Step::Sub => **user == *segment,
            Step::Tenant => **user.tenant() == *segment,
            Step::Any => false,
        })
    }

    /// True only when every room that matches `other` matches this too, whoever asks.
    pub fn covers(&self, other: &RulePattern) -> bool {
        covers(self.steps(), other.steps(), |step, covered| match step {
            Step::One => covered != Step::Any,
            step => step == covered,
        })
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> + Clone {
        self.steps.iter().map(|step| match step {
            OwnStep::Literal(literal) => Step::Literal(literal),
            OwnStep::Other(step) => *step,
        })
    }
}

/// Whether `text` is a room's name in which whole segments may be one of `words`.
fn check(text: &str, words: &[&str]) -> Result<(), PatternRefused> {
    if text.is_empty() || text.len() > ROOM_NAME_BYTES_MAX {
        return Err(PatternRefused::Length { bytes: text.len() });
    }
    for segment in text.split(SEPARATORS) {
        let literal = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_@-".contains(&byte));
        if !literal && !words.contains(&segment) {
            return Err(PatternRefused::Segment);
        }
    }
    Ok(())
}

fn steps(text: &str) -> impl Iterator<Item = Step<'_>> + Clone {
    let one_or_more = text.rsplit(SEPARATORS).next() == Some("*");
    Segments::of(text).map(Step::of).chain(one_or_more.then_some(Step::Any))
}

/// Whether `segments` can be laid along `steps`; `fits` is asked about one of each.
fn covers<'a, T: Copy>(
    mut steps: impl Iterator<Item = Step<'a>> + Clone,
    mut segments: impl Iterator<Item = T> + Clone,
    fits: impl Fn(Step<'a>, T) -> bool,
) -> bool {
    // Where the last `**` stood: what follows it, and the segments it has not taken yet. To
    // lengthen an earlier `**` instead can never help, hence no recursion.
    let mut longer = None;
    loop {
        let (mut steps_ahead, mut segments_ahead) = (steps.clone(), segments.clone());
        let is_fit = match (steps_ahead.next(), segments_ahead.next()) {
            (Some(Step::Any), _) => {
                steps = steps_ahead;
                longer = Some((steps.clone(), segments.clone()));
                continue;
            }
            (None, None) => return true,
            (Some(step), Some(segment)) => fits(step, segment),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if is_fit {
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step<'a> {
    Literal(&'a str),
    One,
    Any,
    /// The user who asks.
    Sub,
    /// Its tenant.
    Tenant,
}

impl<'a> Step<'a> {
    fn of(segment: &'a str) -> Self {
        match segment {
            "*" => Step::One,
            "**" => Step::Any,
            "{sub}" => Step::Sub,
            "{tenant}" => Step::Tenant,
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

    fn rule_covers(pattern: &str, tenant: &str, user: &str, name: &str) -> bool {
        let user = User::new(tenant.into(), user);
        RulePattern::parse(pattern).unwrap().matches(&RoomName::parse(name).unwrap(), &user)
    }

    #[test]
    fn a_rule_names_whoever_asks_by_whole_segments() {
        assert!(rule_covers("desk:{tenant}.{sub}:*", "acme", "alice", "desk:acme:alice:1"));
        assert!(!rule_covers("desk:{tenant}.{sub}:*", "acme", "alice", "desk:alice:acme:1"));
        assert!(!rule_covers("desk:{sub}:*", "acme", "alice:1", "desk:alice:1:2"));
        assert!(!rule_covers("{sub}", "acme", "alice.1", "alice.1"));
        for text in ["desk:{sub}1", "{user}", "{}", "desk:{sub", "{SUB}"] {
            assert_eq!(RulePattern::parse(text), Err(PatternRefused::Segment), "{text}");
        }
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
            prop_assert_eq!(rule_covers(&pattern, "t", "u", &name), expected, "{} over {}", pattern, name);
        }

        #[test]
        fn a_pattern_that_covers_another_matches_whatever_that_matches(
            wide in joined("a|b|\\*|\\*\\*|\\{sub\\}", 5),
            narrow in joined("a|b|\\*|\\*\\*|\\{sub\\}", 5),
            names in prop::collection::vec(joined("a|b", 6), 1..20),
        ) {
            let pattern = |text: &str| RulePattern::parse(text).unwrap();
            if pattern(&wide).covers(&pattern(&narrow)) {
                for name in names.iter().filter(|name| rule_covers(&narrow, "t", "a", name)) {
                    prop_assert!(rule_covers(&wide, "t", "a", name), "{} covers {}, but not {}", wide, narrow, name);
                }
            }
        }
    }
}
