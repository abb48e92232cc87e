//! The default policy: who may do what in a room, by its name, the sender's roles and claims.
//! Invariant: claims only narrow; no claim opens a room that the policy keeps closed.
//!
//! | rooms | who |
//! | --- | --- |
//! | `user:{id}`, `user.{id}.*` | that user |
//! | `tenant.{id}.*` | users of that tenant |
//! | `platform.*` | roles `platform_admin`, `service` |
//! | `performance.dashboard` | roles `admin`, `platform_admin`, `service` |
//! | any other | every user of the tenant that the room is in |
//!
//! Every user of a tenant may write to any user of it by name (`room:publish` with `user`).
//! To manage a room one needs a role besides: `admin`, `moderator`, `platform_admin` or `service`.

use super::identity::Identity;
use super::names::{Form, RoomName};
use super::pattern::Pattern;
use super::rights::Right;
use crate::wire::codes::{ErrorCode, WireError};
use std::fmt;

const ROLES_PLATFORM: &[&str] = &["platform_admin", "service"];
const ROLES_DASHBOARD: &[&str] = &["admin", "platform_admin", "service"];
const ROLES_MANAGE: &[&str] = &["admin", "moderator", "platform_admin", "service"];

/// Whether `identity` has `right` in `room`, a room of its own tenant.
pub fn decide(identity: &Identity, right: Right, room: &RoomName) -> Result<(), Denied> {
    let narrowing = match right {
        Right::None => return Ok(()),
        Right::Publish | Right::Direct => identity.publish(),
        // Who may not enter a room learns nothing about it and manages nothing in it.
        Right::Join | Right::Presence | Right::Manage => identity.join(),
    };
    if right != Right::Direct {
        decide_by_name(identity, room)?;
    }
    if right == Right::Manage {
        needs_role(identity, ROLES_MANAGE)?;
    }
    let covered = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(room));
    if narrowing.is_some_and(|patterns| !covered(patterns)) {
        return Err(Denied::NotInToken);
    }
    Ok(())
}

fn decide_by_name(identity: &Identity, room: &RoomName) -> Result<(), Denied> {
    match room.form() {
        Form::UserInbox(user) | Form::UserSpace(user) if user != &*identity.user => Err(Denied::OtherUser),
        Form::Tenant(tenant) if tenant != &**identity.tenant() => Err(Denied::OtherTenant),
        Form::Platform => needs_role(identity, ROLES_PLATFORM),
        Form::Plain if is_dashboard(room) => needs_role(identity, ROLES_DASHBOARD),
        Form::UserInbox(_) | Form::UserSpace(_) | Form::Tenant(_) | Form::Plain => Ok(()),
    }
}

fn is_dashboard(room: &RoomName) -> bool {
    // Nearly every room begins otherwise.
    room.as_str().starts_with("performance") && room.segments().eq(["performance", "dashboard"])
}

fn needs_role(identity: &Identity, roles: &'static [&'static str]) -> Result<(), Denied> {
    if identity.has_any_role(roles) { Ok(()) } else { Err(Denied::NeedsRole { roles }) }
}

/// Why a right is denied: `forbidden` for the client. Retrying with the same token cannot help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    OtherUser,
    OtherTenant,
    NeedsRole { roles: &'static [&'static str] },
    NotInToken,
}

impl fmt::Display for Denied {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::OtherUser => out.write_str("this room belongs to another user alone"),
            Denied::OtherTenant => out.write_str("this room belongs to another tenant"),
            Denied::NeedsRole { roles } => {
                write!(out, "this needs a token with one of the roles {}", roles.join(", "))
            }
            Denied::NotInToken => {
                out.write_str("your token is limited to other rooms; ask for one whose rooms claim covers this one")
            }
        }
    }
}

impl std::error::Error for Denied {}

impl From<Denied> for WireError {
    fn from(denied: Denied) -> WireError {
        WireError::new(ErrorCode::Forbidden, denied.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::identity::Particulars;
    use crate::admission::names::User;

    #[test]
    fn users_write_to_each_other_by_name_unless_their_token_is_limited() {
        let inbox = RoomName::inbox_of("bob");
        let alice = identity("alice", &[]);
        assert_eq!(decide(&alice, Right::Direct, &inbox), Ok(()));
        assert_eq!(decide(&alice, Right::Publish, &inbox), Err(Denied::OtherUser));
        let alice = narrowed("alice", &[], None, patterns(&["chat:*"]));
        assert_eq!(decide(&alice, Right::Direct, &inbox), Err(Denied::NotInToken));
        let alice = narrowed("alice", &[], None, patterns(&["user:*"]));
        assert_eq!(decide(&alice, Right::Direct, &inbox), Ok(()));
    }

    const RIGHTS: [Right; 3] = [Right::Join, Right::Publish, Right::Presence];

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
        decide(identity, right, &RoomName::parse(room).unwrap()).is_ok()
    }

    fn may_use(identity: &Identity, room: &str) -> bool {
        let answers = RIGHTS.map(|right| may(identity, right, room));
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
        let denied = decide(&identity("alice", &[]), Right::Join, &room).unwrap_err();
        assert_eq!(denied.to_string(), "this needs a token with one of the roles platform_admin, service");
    }
}
