//! Policy: who may do what in a room, by its name, the sender's roles and claims.
//! Invariant: walls stand whatever rules say, and the token's own lists only narrow: neither a rule
//! nor a claim opens a room that a wall keeps closed.
//!
//! | walls: rooms | who |
//! | --- | --- |
//! | `user:{id}`, `user.{id}.*` | that user |
//! | `tenant.{id}.*` | users of that tenant |
//! | `platform.*` | the platform's roles |
//! | `performance.dashboard` | the dashboard's roles |
//!
//! Inside them the first rule that matches decides (`policies`). What no rule decides is the
//! default's: every user of the tenant joins and publishes, and writes to any user by name; who may
//! join may see who is there; to manage a room one must be allowed to join it and have one of the
//! managing roles.

use super::identity::Identity;
use super::names::{Form, RoomName, User};
use super::pattern::Pattern;
use super::policies::{Holds, Rule, Rules, Who};
use super::rights::Right;
use crate::wire::codes::{ErrorCode, WireError};
use std::fmt;

/// What `room:info` calls the default.
pub const NAME_DEFAULT: &str = "default";

/// Shared by all shards, and replaced as a whole.
#[derive(Default, Debug)]
pub struct Policy {
    roles: Roles,
    rules: Rules,
}

/// Roles that the policy knows by name.
#[derive(Clone, Debug)]
pub struct Roles {
    pub platform: Box<[Box<str>]>,
    pub dashboard: Box<[Box<str>]>,
    pub manage: Box<[Box<str>]>,
}

impl Default for Roles {
    fn default() -> Self {
        let roles = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
        Roles {
            platform: roles(&["platform_admin", "service"]),
            dashboard: roles(&["admin", "platform_admin", "service"]),
            manage: roles(&["admin", "moderator", "platform_admin", "service"]),
        }
    }
}

/// What a decision is where it is no refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    Allowed,
    /// Only somebody outside can tell.
    Ask,
}

impl Policy {
    pub fn new(roles: Roles, rules: Rules) -> Policy {
        Policy { roles, rules }
    }

    /// Whether `identity` has `right` in `room`, a room of its own tenant.
    pub fn decide(&self, identity: &Identity, right: Right, room: &RoomName) -> Result<Decision, Denied<'_>> {
        let narrowing = match right {
            Right::None => return Ok(Decision::Allowed),
            Right::Publish | Right::Direct => identity.publish(),
            // Who may not enter a room learns nothing about it and manages nothing in it.
            Right::Join | Right::Presence | Right::Manage => identity.join(),
        };
        if right != Right::Direct {
            self.wall(identity, room)?;
        }
        let decision = self.inside(identity, right, room, narrowing)?;
        let covered = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(room));
        if narrowing.is_some_and(|patterns| !covered(patterns)) {
            return Err(Denied::NotInToken);
        }
        Ok(decision)
    }

    /// What no rule opens.
    fn wall(&self, identity: &Identity, room: &RoomName) -> Result<(), Denied<'_>> {
        match room.form() {
            Form::UserInbox(user) | Form::UserSpace(user) if user != &*identity.user => Err(Denied::OtherUser),
            Form::Tenant(tenant) if tenant != &**identity.tenant() => Err(Denied::OtherTenant),
            Form::Platform => needs_role(identity, &self.roles.platform),
            Form::Plain if is_dashboard(room) => needs_role(identity, &self.roles.dashboard),
            Form::UserInbox(_) | Form::UserSpace(_) | Form::Tenant(_) | Form::Plain => Ok(()),
        }
    }

    /// What rules say, or the default.
    fn inside(
        &self,
        identity: &Identity,
        right: Right,
        room: &RoomName,
        named: Option<&[Pattern]>,
    ) -> Result<Decision, Denied<'_>> {
        let found = if self.rules.is_empty() { None } else { self.rules.find(right, room, &identity.user) };
        match (found, right) {
            (Some((rule, who)), _) => match who.holds(identity, named, room) {
                Holds::Yes => Ok(Decision::Allowed),
                Holds::Ask => Ok(Decision::Ask),
                Holds::No => Err(Denied::ByRule { rule, right, who }),
            },
            (None, Right::Presence) => self.inside(identity, Right::Join, room, named),
            (None, Right::Manage) => {
                needs_role(identity, &self.roles.manage)?;
                self.inside(identity, Right::Join, room, named)
            }
            (None, Right::None | Right::Join | Right::Publish | Right::Direct) => Ok(Decision::Allowed),
        }
    }

    /// What the policy for `room` is called.
    pub fn name(&self, user: &User, room: &RoomName) -> &str {
        self.rules.first(room, user).map_or(NAME_DEFAULT, |rule| &rule.name)
    }
}

fn is_dashboard(room: &RoomName) -> bool {
    // Nearly every room begins otherwise.
    room.as_str().starts_with("performance") && room.segments().eq(["performance", "dashboard"])
}

fn needs_role<'a>(identity: &Identity, roles: &'a [Box<str>]) -> Result<(), Denied<'a>> {
    if identity.has_any_role(roles) { Ok(()) } else { Err(Denied::NeedsRole { roles }) }
}

/// Why a right is denied: `forbidden` for the client. Retrying with the same token cannot help.
#[derive(Clone, Copy, Debug)]
pub enum Denied<'a> {
    OtherUser,
    OtherTenant,
    NeedsRole { roles: &'a [Box<str>] },
    ByRule { rule: &'a Rule, right: Right, who: &'a Who },
    NotInToken,
}

impl fmt::Display for Denied<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::OtherUser => out.write_str("this room belongs to another user alone"),
            Denied::OtherTenant => out.write_str("this room belongs to another tenant"),
            Denied::NeedsRole { roles } => {
                write!(out, "this needs a token with one of the roles {}", roles.join(", "))
            }
            Denied::ByRule { rule, right, who } => {
                write!(out, "the policy `{}` gives the right `{}` here to {who} only", rule.name, right.as_str())
            }
            Denied::NotInToken => {
                out.write_str("your token is limited to other rooms; ask for one whose rooms claim covers this one")
            }
        }
    }
}

impl std::error::Error for Denied<'_> {}

impl From<Denied<'_>> for WireError {
    fn from(denied: Denied<'_>) -> WireError {
        WireError::new(ErrorCode::Forbidden, denied.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::identity::Particulars;
    use crate::admission::pattern::RulePattern;
    use crate::admission::policies::RIGHTS;
    use std::sync::Arc;

    #[test]
    fn users_write_to_each_other_by_name_unless_their_token_is_limited() {
        let inbox = RoomName::inbox_of("bob");
        let alice = identity("alice", &[]);
        let policy = Policy::default();
        let decide = |identity: &Identity, right| policy.decide(identity, right, &inbox);
        assert!(matches!(decide(&alice, Right::Direct), Ok(Decision::Allowed)));
        assert!(matches!(decide(&alice, Right::Publish), Err(Denied::OtherUser)));
        let alice = narrowed("alice", &[], None, patterns(&["chat:*"]));
        assert!(matches!(decide(&alice, Right::Direct), Err(Denied::NotInToken)));
        let alice = narrowed("alice", &[], None, patterns(&["user:*"]));
        assert!(matches!(decide(&alice, Right::Direct), Ok(Decision::Allowed)));
    }

    const USES: [Right; 3] = [Right::Join, Right::Publish, Right::Presence];

    fn narrowed(user: &str, roles: &[&str], join: Patterns, publish: Patterns) -> Identity {
        let roles = roles.iter().map(|role| Box::from(*role)).collect();
        let said = Particulars { roles, join, publish, ..Particulars::default() };
        Identity::new(User::new("acme".into(), user), None, said)
    }

    fn identity(user: &str, roles: &[&str]) -> Identity {
        narrowed(user, roles, None, None)
    }

    type Patterns = Option<Box<[Pattern]>>;

    fn patterns(texts: &[&str]) -> Option<Box<[Pattern]>> {
        Some(texts.iter().map(|text| Pattern::parse(text).unwrap()).collect())
    }

    fn may(identity: &Identity, right: Right, room: &str) -> bool {
        Policy::default().decide(identity, right, &RoomName::parse(room).unwrap()).is_ok()
    }

    fn may_use(identity: &Identity, room: &str) -> bool {
        let answers = USES.map(|right| may(identity, right, room));
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{room}: {answers:?}");
        answers[0]
    }

    #[test]
    fn any_user_joins_and_publishes_in_plain_rooms() {
        let alice = identity("alice", &[]);
        for room in ["chat:1", "global.general", "users", "performance.metrics", "document.7.collaboration"] {
            assert!(may_use(&alice, room), "{room}");
        }
    }

    #[test]
    fn the_rooms_of_a_user_are_closed_to_everybody_else_whatever_their_role() {
        let (alice, root) = (identity("alice", &[]), identity("root", &["platform_admin", "service", "admin"]));
        for room in ["user:alice", "user.alice", "user.alice.notes", "user.alice:notes"] {
            assert!(may_use(&alice, room), "{room}");
            assert!(!may_use(&root, room), "{room}");
        }
        for room in ["user:bob", "user.bob.notes", "user:alice.notes", "user:alice:notes", "user", "user.", "user:"] {
            assert!(!may_use(&alice, room), "{room}");
        }
    }

    #[test]
    fn nobody_gets_into_the_space_of_a_user_whose_id_holds_a_separator() {
        assert!(!may_use(&identity("alice.b", &[]), "user.alice.b.notes"));
        assert!(may_use(&identity("alice.b", &[]), "user:alice.b"));
        assert!(!may_use(&identity("alice", &[]), "user:alice.b"));
    }

    #[test]
    fn the_rooms_of_a_tenant_are_closed_to_other_tenants() {
        let alice = identity("alice", &["platform_admin"]);
        assert!(may_use(&alice, "tenant.acme.news"));
        assert!(may_use(&alice, "tenant:acme"));
        assert!(!may_use(&alice, "tenant.other.news"));
        assert!(!may_use(&alice, "tenant"));
    }

    #[test]
    fn the_platform_needs_a_role_of_the_platform() {
        for room in ["platform", "platform.security", "platform:security"] {
            assert!(!may_use(&identity("alice", &["admin"]), room));
            assert!(may_use(&identity("alice", &["platform_admin"]), room));
            assert!(may_use(&identity("robot", &["service"]), room));
        }
    }

    #[test]
    fn the_dashboard_needs_an_administrator_under_either_spelling() {
        for room in ["performance.dashboard", "performance:dashboard"] {
            assert!(!may_use(&identity("alice", &["moderator"]), room));
            assert!(may_use(&identity("alice", &["admin"]), room));
        }
    }

    #[test]
    fn to_manage_a_room_needs_a_role_and_access_to_the_room() {
        assert!(!may(&identity("alice", &[]), Right::Manage, "chat:1"));
        for role in ["admin", "moderator", "platform_admin", "service"] {
            assert!(may(&identity("alice", &[role]), Right::Manage, "chat:1"));
        }
        assert!(!may(&identity("alice", &["moderator"]), Right::Manage, "platform.security"));
        assert!(!may(&identity("alice", &["admin"]), Right::Manage, "user:bob"));
        let narrowed = narrowed("alice", &["admin"], patterns(&["chat:2"]), None);
        assert!(!may(&narrowed, Right::Manage, "chat:1"));
    }

    #[test]
    fn claims_narrow_each_right_by_itself() {
        let alice = narrowed("alice", &[], patterns(&["chat:*", "news"]), None);
        assert!(may(&alice, Right::Join, "chat:1") && may(&alice, Right::Join, "news"));
        assert!(!may(&alice, Right::Join, "zone:1") && !may(&alice, Right::Presence, "zone:1"));
        assert!(may(&alice, Right::Publish, "zone:1"));
        let mute = narrowed("alice", &[], None, patterns(&[]));
        assert!(may(&mute, Right::Join, "zone:1") && !may(&mute, Right::Publish, "zone:1"));
    }

    #[test]
    fn claims_open_nothing_that_the_policy_keeps_closed() {
        let everything = || patterns(&["**"]);
        let alice = narrowed("alice", &[], everything(), everything());
        for room in ["user:bob", "tenant.other.news", "platform.security", "performance.dashboard"] {
            assert!(!may_use(&alice, room), "{room}");
        }
        assert!(may_use(&alice, "chat:1"));
    }

    #[test]
    fn no_right_is_needed_for_requests_that_declare_none() {
        assert!(may(&identity("alice", &[]), Right::None, "user:bob"));
    }

    #[test]
    fn a_denial_says_what_would_be_needed() {
        let room = RoomName::parse("platform.security").unwrap();
        let policy = Policy::default();
        let denied = policy.decide(&identity("alice", &[]), Right::Join, &room).unwrap_err();
        assert_eq!(denied.to_string(), "this needs a token with one of the roles platform_admin, service");
    }

    /// `name | rooms | right = who | ...`
    fn rules(texts: &[&str]) -> Policy {
        let rule = |text: &&str| {
            let mut parts = text.split(" | ");
            let (name, rooms) = (parts.next().unwrap(), parts.next().unwrap());
            let mut who: [Option<Who>; RIGHTS.len()] = Default::default();
            for part in parts {
                let (right, words) = part.split_once(" = ").unwrap();
                let nth = RIGHTS.iter().position(|own| own.as_str() == right).unwrap();
                who[nth] = Some(Who::parse(words).unwrap());
            }
            Rule { name: name.into(), rooms: RulePattern::parse(rooms).unwrap(), who }
        };
        Policy::new(Roles::default(), Rules::new(texts.iter().map(rule).collect()).unwrap())
    }

    fn with_claims(user: &str, claims: &[(&str, &str)]) -> Identity {
        let claims = claims.iter().map(|(path, value)| (Arc::from(*path), Box::from(*value))).collect();
        Identity::new(User::new("acme".into(), user), None, Particulars { claims, ..Particulars::default() })
    }

    fn is_allowed(policy: &Policy, identity: &Identity, right: Right, room: &str) -> bool {
        let room = RoomName::parse(room).unwrap();
        matches!(policy.decide(identity, right, &room), Ok(Decision::Allowed))
    }

    #[test]
    fn the_first_rule_that_matches_and_names_the_right_decides() {
        let policy = rules(&[
            "read | news:* | publish = role:editor",
            "vip | news:vip | join = claim:plan=pro | publish = anybody",
            "rest | ** | publish = nobody",
        ]);
        let (alice, editor) = (identity("alice", &[]), identity("eve", &["editor"]));
        assert!(!is_allowed(&policy, &alice, Right::Publish, "news:1"));
        assert!(is_allowed(&policy, &editor, Right::Publish, "news:1"));
        assert!(!is_allowed(&policy, &alice, Right::Publish, "news:vip"), "an earlier rule has decided");
        assert!(!is_allowed(&policy, &editor, Right::Join, "news:vip"), "a rule that names another right is passed by");
        assert!(is_allowed(&policy, &with_claims("a", &[("plan", "pro")]), Right::Join, "news:vip"));
        assert!(!is_allowed(
            &policy,
            &with_claims("a", &[("plan", "prof"), ("plans", "pro")]),
            Right::Join,
            "news:vip"
        ));
        assert!(is_allowed(&policy, &alice, Right::Join, "news:1"), "what no rule decides is the default's");
        assert!(!is_allowed(&policy, &editor, Right::Publish, "chat:1"));
        let name = |room: &str| policy.name(&alice.user, &RoomName::parse(room).unwrap()).to_owned();
        assert_eq!([name("news:vip"), name("chat:1")], ["read", "rest"]);
        assert_eq!(Policy::default().name(&alice.user, &RoomName::parse("a").unwrap()), NAME_DEFAULT);
    }

    #[test]
    fn a_segment_may_stand_for_whoever_asks_and_an_id_with_a_separator_fits_nowhere() {
        let policy = rules(&["own | desk:{tenant}:{sub}:* | join = anybody", "rest | desk:** | join = nobody"]);
        assert!(is_allowed(&policy, &identity("alice", &[]), Right::Join, "desk:acme:alice:1"));
        assert!(!is_allowed(&policy, &identity("alice", &[]), Right::Join, "desk:acme:bob:1"));
        assert!(!is_allowed(&policy, &identity("alice", &[]), Right::Join, "desk:other:alice:1"));
        for user in ["alice:b", "alice.b", "alice:b:c", "b", "a b"] {
            assert!(!is_allowed(&policy, &identity(user, &[]), Right::Join, "desk:acme:alice:b:c"), "{user}");
        }
        let dotted = Identity::of("acme.eu", "alice");
        assert!(!is_allowed(&policy, &dotted, Right::Join, "desk:acme.eu:alice:1"));
    }

    #[test]
    fn no_rule_opens_a_wall_and_a_rule_may_close_more() {
        let open = "all | ** | join = anybody | publish = anybody | presence = anybody | manage = anybody";
        let policy = rules(&["mine | user.{sub}.sealed | publish = nobody", open]);
        let alice = identity("alice", &[]);
        for right in [Right::Join, Right::Publish, Right::Presence, Right::Manage] {
            for room in ["user:bob", "user.bob.notes", "tenant.other.news", "platform.x", "performance.dashboard"] {
                assert!(!is_allowed(&policy, &alice, right, room), "{right:?} {room}");
            }
            assert!(is_allowed(&policy, &alice, right, "chat:1"));
        }
        assert!(is_allowed(&policy, &alice, Right::Publish, "user.alice.notes"));
        assert!(!is_allowed(&policy, &alice, Right::Publish, "user.alice.sealed"));
    }

    #[test]
    fn the_word_token_is_for_those_whose_token_names_the_room() {
        let policy = rules(&["game | game:* | join = token | publish = role:admin, token"]);
        let named = narrowed("alice", &[], patterns(&["game:7"]), patterns(&["game:*"]));
        assert!(is_allowed(&policy, &named, Right::Join, "game:7"));
        assert!(!is_allowed(&policy, &named, Right::Join, "game:8"));
        assert!(is_allowed(&policy, &named, Right::Publish, "game:8"));
        assert!(!is_allowed(&policy, &identity("bob", &[]), Right::Join, "game:7"), "no list is no name");
        assert!(is_allowed(&policy, &identity("root", &["admin"]), Right::Publish, "game:7"));
        let elsewhere = narrowed("root", &["admin"], None, patterns(&["chat:*"]));
        assert!(!is_allowed(&policy, &elsewhere, Right::Publish, "game:7"), "the token narrows what a role gives");
    }

    #[test]
    fn customers_write_to_agents_and_not_to_each_other_where_rules_say_so() {
        let policy = rules(&["desk | user:agent:* | direct = anybody", "people | user:* | direct = role:agent"]);
        let (alice, agent) = (identity("alice", &[]), identity("agent:7", &["agent"]));
        let direct = |identity, to: &str| {
            matches!(policy.decide(identity, Right::Direct, &RoomName::inbox_of(to)), Ok(Decision::Allowed))
        };
        assert!(direct(&alice, "agent:7") && !direct(&alice, "bob") && direct(&agent, "bob"));
        assert!(!direct(&alice, "bob smith"), "an id that no room could be called by is a user's all the same");
    }

    #[test]
    fn who_is_there_and_what_is_managed_follow_the_right_to_join_unless_a_rule_names_them() {
        let policy = rules(&["staff | staff:* | join = role:staff", "lobby | staff:lobby | presence = anybody"]);
        let (alice, staff) = (identity("alice", &["admin"]), identity("sam", &["staff"]));
        assert!(!is_allowed(&policy, &alice, Right::Presence, "staff:1"));
        assert!(!is_allowed(&policy, &alice, Right::Manage, "staff:1"));
        assert!(is_allowed(&policy, &staff, Right::Presence, "staff:1"));
        assert!(!is_allowed(&policy, &staff, Right::Manage, "staff:1"), "managing takes a role besides");
        assert!(is_allowed(&policy, &alice, Right::Presence, "staff:lobby"));
    }

    #[test]
    fn who_must_be_asked_is_neither_allowed_nor_denied() {
        let policy = rules(&["paid | paid:* | join = role:staff, ask"]);
        let decide =
            |identity: &Identity, right| policy.decide(identity, right, &RoomName::parse("paid:1").unwrap()).ok();
        assert_eq!(decide(&identity("alice", &[]), Right::Join), Some(Decision::Ask));
        assert_eq!(decide(&identity("alice", &[]), Right::Presence), Some(Decision::Ask));
        assert_eq!(decide(&identity("alice", &["staff"]), Right::Join), Some(Decision::Allowed));
        let elsewhere = narrowed("alice", &[], patterns(&["chat:*"]), None);
        assert_eq!(decide(&elsewhere, Right::Join), None, "nobody is asked about what the token forbids anyway");
    }

    #[test]
    fn a_denial_by_a_rule_names_the_rule_and_who_has_the_right() {
        let policy = rules(&["news | news:* | publish = role:editor, claim:plan=pro | join = nobody"]);
        let (alice, room) = (identity("alice", &[]), RoomName::parse("news:1").unwrap());
        let said = |right| policy.decide(&alice, right, &room).unwrap_err().to_string();
        assert_eq!(
            said(Right::Publish),
            "the policy `news` gives the right `publish` here to role:editor, claim:plan=pro only"
        );
        assert_eq!(said(Right::Join), "the policy `news` gives the right `join` here to nobody only");
    }
}
