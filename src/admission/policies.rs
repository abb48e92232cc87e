//! Rules of the operator: which of them decides about a room, and who has the right by it.
//! Invariant: rules stand in their order. The first that matches the room and names the right
//! decides, and what is asked at every request was worked out when they were made.

use super::identity::Identity;
use super::names::{RoomName, User};
use super::pattern::{Pattern, RulePattern};
use super::rights::Right;
use crate::base::limits::{CLAIM_VALUE_BYTES_MAX, CLAIMS_MAX, LABEL_BYTES_MAX, POLICIES_MAX, ROLE_BYTES_MAX};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What rules speak of, in the order of a rule's `who`.
pub const RIGHTS: [Right; 5] = [Right::Join, Right::Publish, Right::Direct, Right::Presence, Right::Manage];

#[derive(Debug)]
pub struct Rule {
    /// What `room:info` tells.
    pub name: Box<str>,
    pub rooms: RulePattern,
    /// For each of [`RIGHTS`], who has it; `None`: not decided here.
    pub who: [Option<Who>; RIGHTS.len()],
}

impl Rule {
    fn who(&self, right: Right) -> Option<&Who> {
        self.who[nth(right)?].as_ref()
    }

    pub fn decides(&self, right: Right) -> bool {
        self.who(right).is_some()
    }
}

fn nth(right: Right) -> Option<usize> {
    RIGHTS.iter().position(|own| *own == right)
}

/// Who has a right: whoever one of these holds for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Who {
    anybody: bool,
    /// Whose token names the room itself.
    token: bool,
    /// Whoever an outside allows it when asked.
    ask: bool,
    roles: Box<[Box<str>]>,
    claims: Box<[Claim]>,
}

/// A claim by its path, and the value that it must have.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Claim {
    path: Box<str>,
    value: Box<str>,
}

/// What [`Who::holds`] comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    Yes,
    No,
    /// Only an outside can tell.
    Ask,
}

impl Who {
    /// Words with commas between: see [`WhoRefused`].
    pub fn parse(text: &str) -> Result<Who, WhoRefused> {
        let mut who = Who::default();
        let (mut roles, mut claims): (Vec<Box<str>>, Vec<Claim>) = (Vec::new(), Vec::new());
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        for word in &words {
            match *word {
                "anybody" => who.anybody = true,
                "nobody" => {}
                "token" => who.token = true,
                "ask" => who.ask = true,
                word => match (word.strip_prefix("role:"), word.strip_prefix("claim:")) {
                    (Some(role), _) if (1..=ROLE_BYTES_MAX).contains(&role.len()) => roles.push(role.into()),
                    (_, Some(claim)) => claims.push(Claim::parse(claim).ok_or(WhoRefused)?),
                    _ => return Err(WhoRefused),
                },
            }
        }
        // Beside others these two would say nothing, or the contrary of what somebody meant.
        if words.len() > 1 && words.iter().any(|word| ["anybody", "nobody"].contains(word)) {
            return Err(WhoRefused);
        }
        Ok(Who { roles: roles.into(), claims: claims.into(), ..who })
    }

    /// Whether somebody outside may have to be asked.
    pub fn asks(&self) -> bool {
        self.ask
    }

    /// `named`: the patterns of the identity's token for the right in question.
    pub fn holds(&self, identity: &Identity, named: Option<&[Pattern]>, room: &RoomName) -> Holds {
        let by_token = || named.is_some_and(|patterns| patterns.iter().any(|pattern| pattern.matches(room)));
        let by_claim = |claim: &Claim| identity.has_claim(&claim.path, &claim.value);
        let is_yes = self.anybody
            || identity.has_any_role(&self.roles)
            || self.claims.iter().any(by_claim)
            || self.token && by_token();
        match (is_yes, self.ask) {
            (true, _) => Holds::Yes,
            (false, true) => Holds::Ask,
            (false, false) => Holds::No,
        }
    }
}

impl Claim {
    fn parse(text: &str) -> Option<Claim> {
        let (path, value) = text.split_once('=')?;
        let fits = (1..=LABEL_BYTES_MAX).contains(&path.len()) && (1..=CLAIM_VALUE_BYTES_MAX).contains(&value.len());
        fits.then(|| Claim { path: path.into(), value: value.into() })
    }
}

/// As it was written.
impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.anybody, "anybody"), (self.token, "token"), (self.ask, "ask")];
        let mut words: Vec<String> = words.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).into()).collect();
        words.extend(self.roles.iter().map(|role| format!("role:{role}")));
        words.extend(self.claims.iter().map(|Claim { path, value }| format!("claim:{path}={value}")));
        out.write_str(if words.is_empty() { "nobody" } else { "" })?;
        out.write_str(&words.join(", "))
    }
}

/// The text names nobody that there could be. Whoever writes the configuration has to mend it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WhoRefused;

impl WhoRefused {
    /// What would be taken.
    pub const ALLOWED: &str =
        "anybody or nobody alone, or words with commas between: role:NAME, claim:PATH=VALUE, token, ask";
}

impl fmt::Display for WhoRefused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "who has a right is {}", WhoRefused::ALLOWED)
    }
}

impl std::error::Error for WhoRefused {}

/// All rules, found by the first segment of a room's name.
#[derive(Default, Debug)]
pub struct Rules {
    rules: Box<[Rule]>,
    by_right: [Index; RIGHTS.len()],
}

/// Which rules may match, by the first segment of a name; each list in the order of the rules.
#[derive(Default, Debug)]
struct Index {
    /// Sorted by length, then text: nearly all are told apart by their length.
    firsts: Box<[First]>,
    /// Those for any first segment.
    others: Box<[u16]>,
}

/// A first segment, and the rules that may match a name which begins with it.
#[derive(Debug)]
struct First {
    segment: Box<str>,
    rules: Box<[u16]>,
}

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Result<Rules, RulesRefused> {
        if rules.len() > POLICIES_MAX {
            return Err(RulesRefused::TooMany { rules: rules.len() });
        }
        let rules: Box<[Rule]> = rules.into();
        let by_right = RIGHTS.map(|right| Index::of(&rules, right));
        let rules = Rules { rules, by_right };
        let claims = rules.claims().len();
        if claims > CLAIMS_MAX { Err(RulesRefused::TooManyClaims { claims }) } else { Ok(rules) }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule that decides when `user` asks for `right` in `room`.
    pub fn find(&self, right: Right, room: &RoomName, user: &User) -> Option<(&Rule, &Who)> {
        let index = self.by_right.get(nth(right)?)?;
        let rules = index.candidates(room).iter().map(|nth| &self.rules[usize::from(*nth)]);
        let rule = rules.into_iter().find(|rule| rule.rooms.matches(room, user))?;
        Some((rule, rule.who(right)?))
    }

    /// The first rule for a room, whatever it decides.
    pub fn first(&self, room: &RoomName, user: &User) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.rooms.matches(room, user))
    }

    /// Paths of claims that rules compare, each once.
    pub fn claims(&self) -> Vec<Arc<str>> {
        let who = self.rules.iter().flat_map(|rule| rule.who.iter().flatten());
        let mut paths: Vec<&str> = who.flat_map(|who| who.claims.iter().map(|claim| &*claim.path)).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.into_iter().map(Arc::from).collect()
    }

    /// Rights that a rule names and never decides, for an earlier rule decides them in all its rooms:
    /// both rules by their place, and the right.
    pub fn unreachable(&self) -> Vec<(usize, Right, usize)> {
        let mut found = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            for right in RIGHTS.into_iter().filter(|right| rule.decides(*right)) {
                let earlier = self.rules[..at].iter();
                let hides = |earlier: &Rule| earlier.decides(right) && earlier.rooms.covers(&rule.rooms);
                found.extend(earlier.enumerate().find(|(_, earlier)| hides(earlier)).map(|(by, _)| (at, right, by)));
            }
        }
        found
    }
}

impl Index {
    fn of(rules: &[Rule], right: Right) -> Index {
        let deciding = || (0u16..).zip(rules).filter(|(_, rule)| rule.decides(right));
        let mut firsts: BTreeMap<(usize, &str), Vec<u16>> = BTreeMap::new();
        for first in deciding().filter_map(|(_, rule)| rule.rooms.first()) {
            let may_match = |rule: &Rule| rule.rooms.first().is_none_or(|own| own == first);
            let list = deciding().filter(|(_, rule)| may_match(rule)).map(|(nth, _)| nth).collect();
            firsts.insert((first.len(), first), list);
        }
        Index {
            firsts: firsts
                .into_iter()
                .map(|((_, first), list)| First { segment: first.into(), rules: list.into() })
                .collect(),
            others: deciding().filter(|(_, rule)| rule.rooms.first().is_none()).map(|(nth, _)| nth).collect(),
        }
    }

    fn candidates(&self, room: &RoomName) -> &[u16] {
        if self.firsts.is_empty() {
            return &self.others;
        }
        let first = room.segments().next().unwrap_or_default();
        let found = self.firsts.binary_search_by(|First { segment, .. }| {
            segment.len().cmp(&first.len()).then_with(|| (**segment).cmp(first))
        });
        found.map_or(&self.others, |at| &self.firsts[at].rules)
    }
}

/// Why rules cannot stand together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RulesRefused {
    TooMany { rules: usize },
    TooManyClaims { claims: usize },
}

impl fmt::Display for RulesRefused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RulesRefused::TooMany { rules } => {
                write!(out, "there are {rules} policies, and {POLICIES_MAX} at most; join some by wider patterns")
            }
            RulesRefused::TooManyClaims { claims } => {
                write!(out, "policies compare {claims} different claims, and {CLAIMS_MAX} at most; use roles instead")
            }
        }
    }
}

impl std::error::Error for RulesRefused {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(rooms: &str, who: &[(Right, &str)]) -> Rule {
        let of = |right| who.iter().find(|(own, _)| *own == right).map(|(_, words)| Who::parse(words).unwrap());
        Rule { name: rooms.into(), rooms: RulePattern::parse(rooms).unwrap(), who: RIGHTS.map(of) }
    }

    #[test]
    fn who_has_a_right_is_words_with_commas_between() {
        for text in ["anybody", "nobody", "token", "role:a b", "role:x, claim:realm.plan=pro=1 x, token, ask"] {
            assert!(Who::parse(text).is_ok(), "{text}");
        }
        let long = format!("claim:plan={}", "x".repeat(CLAIM_VALUE_BYTES_MAX + 1));
        for text in [
            "",
            ",",
            "role:",
            "claim:plan",
            "claim:=pro",
            "claim:plan=",
            "admin",
            "Anybody",
            "role:a,,role:b",
            "anybody, role:a",
            "role:a, nobody",
            "sub",
            &long,
        ] {
            assert_eq!(Who::parse(text), Err(WhoRefused), "{text}");
        }
    }

    #[test]
    fn who_has_a_right_is_shown_so_that_it_reads_the_same_again() {
        for text in ["nobody", "anybody", "token, ask, role:b, role:a, claim:plan=pro"] {
            let who = Who::parse(text).unwrap();
            assert_eq!(who.to_string(), text);
            assert_eq!(Who::parse(&who.to_string()), Ok(who));
        }
    }

    #[test]
    fn a_right_that_an_earlier_rule_decides_everywhere_is_unreachable() {
        let (join, publish) = ((Right::Join, "anybody"), (Right::Publish, "nobody"));
        let found = |rules: Vec<Rule>| Rules::new(rules).unwrap().unreachable();
        assert_eq!(found(vec![rule("**", &[join]), rule("chat:*", &[join, publish])]), [(1, Right::Join, 0)]);
        assert_eq!(found(vec![rule("chat:*", &[join]), rule("**", &[join])]), []);
        assert_eq!(found(vec![rule("chat:*", &[join]), rule("chat.{sub}", &[join])]), [(1, Right::Join, 0)]);
        assert_eq!(
            found(vec![rule("a:{sub}", &[join]), rule("a:*", &[join]), rule("a.{sub}", &[join])]),
            [(2, Right::Join, 0)]
        );
    }

    #[test]
    fn too_many_rules_and_too_many_claims_are_refused() {
        let rules = (0..=POLICIES_MAX).map(|nth| rule(&format!("r{nth}"), &[])).collect();
        assert_eq!(Rules::new(rules).err(), Some(RulesRefused::TooMany { rules: POLICIES_MAX + 1 }));
        let of_claim = |nth| rule(&format!("r{nth}"), &[(Right::Join, &*format!("claim:c{nth}=1, claim:c{nth}=2"))]);
        assert!(Rules::new((0..CLAIMS_MAX).map(of_claim).collect()).is_ok(), "two values of one claim are one");
        let refused = Rules::new((0..=CLAIMS_MAX).map(of_claim).collect()).err();
        assert_eq!(refused, Some(RulesRefused::TooManyClaims { claims: CLAIMS_MAX + 1 }));
    }

    fn some_name(part: &'static str, parts_max: usize) -> impl Strategy<Value = String> {
        (part, prop::collection::vec(("[.:]", part), 0..parts_max))
            .prop_map(|(first, rest)| rest.into_iter().fold(first, |text, (mark, part)| text + &mark + &part))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn the_rule_that_is_found_is_the_first_that_matches_in_a_plain_list(
            rules in prop::collection::vec((some_name("a|bb|cc|\\*|\\*\\*|\\{sub\\}|\\{tenant\\}", 3), 0usize..32), 0..12),
            rooms in prop::collection::vec(some_name("a|bb|cc|d|", 4), 1..8),
            user in "a|bb|a\\.bb",
        ) {
            // Who has which right tells which rule it is.
            let word = |nth: usize| format!("role:{nth}");
            let rules: Vec<Rule> = rules.iter().enumerate().map(|(nth, (rooms, rights))| {
                let words = word(nth);
                let named: Vec<_> = RIGHTS.into_iter().enumerate()
                    .filter(|(bit, _)| rights & (1 << bit) != 0).map(|(_, right)| (right, &*words)).collect();
                rule(rooms, &named)
            }).collect();
            let rules = Rules::new(rules).unwrap();
            let user = User::new("cc".into(), &user);
            for room in rooms.iter().filter_map(|room| RoomName::parse(room).ok()) {
                for right in RIGHTS {
                    let expected = rules.rules.iter()
                        .find(|rule| rule.decides(right) && rule.rooms.matches(&room, &user)).and_then(|rule| rule.who(right));
                    let found = rules.find(right, &room, &user).map(|(_, who)| who);
                    prop_assert_eq!(found, expected, "{} in {:?}", right.as_str(), room);
                }
            }
        }
    }
}
