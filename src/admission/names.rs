//! Names that clients choose: rooms, events, users, tenants.
//! Invariant: a [`RoomName`] was checked when it was made, so nothing behind the gate checks again.

use crate::base::limits::{EVENT_BYTES_MAX, ROOM_NAME_BYTES_MAX, TENANT_BYTES_MAX, USER_BYTES_MAX};
use smol_str::{SmolStr, format_smolstr};
use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// What separates the segments of a name. `.` and `:` make different names; policies compare
/// segments.
pub const SEPARATORS: [char; 2] = ['.', ':'];

/// What names of inboxes start with.
const INBOX: &str = "user:";

/// The name of a room inside its tenant: 1 to 128 bytes of `[A-Za-z0-9_.:@-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(SmolStr);

impl RoomName {
    pub fn parse(name: &str) -> Result<RoomName, NameRefused> {
        check_bytes(What::Room, name, ROOM_NAME_BYTES_MAX, is_name_byte)?;
        Ok(RoomName(name.into()))
    }

    /// The inbox of `user`, whose id [`check_user`] has accepted. Ids may hold bytes that names of
    /// rooms may not, and then only the server can name this room.
    pub fn inbox_of(user: &str) -> RoomName {
        RoomName(format_smolstr!("{INBOX}{user}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name in memory of its own.
    pub fn copied(&self) -> RoomName {
        RoomName(SmolStr::new(&*self.0))
    }

    /// At least one; a segment may be empty (`chat:` has two).
    pub fn segments(&self) -> Segments<'_> {
        Segments::of(&self.0)
    }

    /// Whose room this is by its name alone.
    pub fn form(&self) -> Form<'_> {
        // The whole rest is the id: ids may hold separators, and `user:a.b` is the inbox of `a.b`.
        if let Some(user) = self.0.strip_prefix(INBOX) {
            return Form::UserInbox(user);
        }
        let mut segments = self.segments();
        let first = segments.next().unwrap_or_default();
        // A missing second segment reads as the empty id, which nobody has.
        let mut owner = || segments.next().unwrap_or_default();
        match first {
            "user" => Form::UserSpace(owner()),
            "tenant" => Form::Tenant(owner()),
            "platform" => Form::Platform,
            _ => Form::Plain,
        }
    }
}

/// What stands between separators, one after the other. Of std's ways to split, the one that fits
/// costs four times as much, and rooms are matched at every request.
#[derive(Clone)]
pub struct Segments<'a> {
    rest: Option<&'a str>,
}

impl<'a> Segments<'a> {
    pub fn of(name: &'a str) -> Segments<'a> {
        Segments { rest: Some(name) }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let is_separator = |byte: u8| byte == b'.' || byte == b':';
        match rest.bytes().position(is_separator) {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                Some(&rest[..end])
            }
            None => self.rest.take(),
        }
    }
}

/// A room of a tenant: names of different tenants never meet. One pointer, and one memory for all
/// who name the room.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RoomRef(Arc<Named>);

#[derive(PartialEq, Eq, Hash, Debug)]
pub struct Named {
    pub tenant: Arc<str>,
    pub name: RoomName,
}

impl RoomRef {
    pub fn new(tenant: Arc<str>, name: RoomName) -> RoomRef {
        RoomRef(Arc::new(Named { tenant, name }))
    }

    /// The same name in memory of its own.
    pub fn copied(&self) -> RoomRef {
        RoomRef::new(Arc::from(&*self.tenant), self.name.copied())
    }
}

impl Deref for RoomRef {
    type Target = Named;
    fn deref(&self) -> &Named {
        &self.0
    }
}

/// A user of a tenant, kept as its inbox: nearly every user has one, and the two share their
/// memory. Reads as the user's id.
#[derive(Clone, PartialEq, Eq)]
pub struct User(RoomRef);

impl User {
    /// `id` was accepted by [`check_user`].
    pub fn new(tenant: Arc<str>, id: &str) -> User {
        User(RoomRef::new(tenant, RoomName::inbox_of(id)))
    }

    pub fn tenant(&self) -> &Arc<str> {
        &self.0.tenant
    }

    pub fn inbox(&self) -> &RoomRef {
        &self.0
    }
}

impl Deref for User {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0.name.as_str()[INBOX.len()..]
    }
}

impl Hash for User {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (**self).hash(hasher);
    }
}

impl fmt::Debug for User {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, out)
    }
}

/// The reserved forms of room names. Ids are compared as they stand, so a user or tenant whose id
/// holds a separator owns no `user.{id}.*` or `tenant.{id}.*`; nobody else owns it either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form<'a> {
    /// `user:{id}`
    UserInbox(&'a str),
    /// `user.{id}` and everything below it.
    UserSpace(&'a str),
    /// `tenant.{id}` and everything below it.
    Tenant(&'a str),
    /// `platform` and everything below it.
    Platform,
    Plain,
}

/// Checks the name of an event: 1 to 64 bytes of `[A-Za-z0-9_.:-]`.
pub fn check_event(event: &str) -> Result<(), NameRefused> {
    check_bytes(What::Event, event, EVENT_BYTES_MAX, |byte| is_name_byte(byte) && byte != b'@')
}

/// Events that only the server says: clients cannot publish them, so a receiver can trust them.
pub fn is_reserved_event(event: &str) -> bool {
    const NAMES: [&str; 3] = ["connected", "error", "heartbeat"];
    const PREFIXES: [&str; 15] = [
        "message:",
        "reaction:",
        "room:",
        "presence:",
        "activity:",
        "notification:",
        "call:",
        "connection:",
        "inbox:",
        "session:",
        "auth:",
        "bus:",
        "monitoring:",
        "document:",
        "platform.",
    ];
    NAMES.contains(&event) || PREFIXES.iter().any(|prefix| event.starts_with(prefix))
}

/// Checks a user's id: 1 to 128 bytes without control characters.
pub fn check_user(user: &str) -> Result<(), NameRefused> {
    check_length(What::User, user, USER_BYTES_MAX)?;
    match user.char_indices().find(|(_, char)| char.is_control()) {
        Some((at, _)) => Err(NameRefused::Character { what: What::User, at }),
        None => Ok(()),
    }
}

/// Checks a tenant's id: 1 to 64 bytes of `[A-Za-z0-9_.:@-]`.
pub fn check_tenant(tenant: &str) -> Result<(), NameRefused> {
    check_bytes(What::Tenant, tenant, TENANT_BYTES_MAX, is_name_byte)
}

/// Why a name is refused: `bad_request` for the client. The message never repeats the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameRefused {
    Empty { what: What },
    TooLong { what: What, bytes: usize, bytes_max: usize },
    Character { what: What, at: usize },
}

/// What kind of name is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Room,
    Event,
    User,
    Tenant,
}

impl What {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            What::Room => ("a room name", "letters, digits and _ . : @ -"),
            What::Event => ("an event name", "letters, digits and _ . : -"),
            What::User => ("a user id", "any character but control characters"),
            What::Tenant => ("a tenant id", "letters, digits and _ . : @ -"),
        }
    }
}

impl fmt::Display for NameRefused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            NameRefused::Empty { what } => write!(out, "{} is empty; give at least one character", what.words().0),
            NameRefused::TooLong { what, bytes, bytes_max } => {
                write!(out, "{} has {bytes} bytes; at most {bytes_max} are allowed", what.words().0)
            }
            NameRefused::Character { what, at } => {
                let (name, allowed) = what.words();
                write!(out, "{name} has a forbidden character at byte {at}; allowed are {allowed}")
            }
        }
    }
}

impl std::error::Error for NameRefused {}

impl fmt::Debug for RoomName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for RoomName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'@' | b'-')
}

fn check_bytes(what: What, name: &str, bytes_max: usize, allowed: impl Fn(u8) -> bool) -> Result<(), NameRefused> {
    check_length(what, name, bytes_max)?;
    match name.bytes().position(|byte| !allowed(byte)) {
        Some(at) => Err(NameRefused::Character { what, at }),
        None => Ok(()),
    }
}

fn check_length(what: What, name: &str, bytes_max: usize) -> Result<(), NameRefused> {
    match name.len() {
        0 => Err(NameRefused::Empty { what }),
        bytes if bytes > bytes_max => Err(NameRefused::TooLong { what, bytes, bytes_max }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    #[test]
    fn every_allowed_character_makes_a_room_name() {
        let name = "azAZ09_.:@-";
        assert_eq!(room(name).as_str(), name);
        assert_eq!(room(&"r".repeat(128)).as_str().len(), 128);
    }

    #[test]
    fn a_room_name_out_of_bounds_is_refused_and_the_message_says_what_is_allowed() {
        let long = RoomName::parse(&"r".repeat(129)).unwrap_err();
        assert_eq!(long.to_string(), "a room name has 129 bytes; at most 128 are allowed");
        assert_eq!(RoomName::parse("").unwrap_err(), NameRefused::Empty { what: What::Room });
        let foreign = RoomName::parse("chat 1").unwrap_err();
        assert_eq!(foreign, NameRefused::Character { what: What::Room, at: 4 });
        assert!(foreign.to_string().contains("letters, digits and _ . : @ -"));
    }

    #[test]
    fn a_refusal_never_repeats_the_name() {
        for name in ["<script>", "\u{202e}secret", "a\nb"] {
            assert!(!RoomName::parse(name).unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn segments_are_split_at_dots_and_colons() {
        assert_eq!(room("zone:7:a.b").segments().collect::<Vec<_>>(), ["zone", "7", "a", "b"]);
        for name in ["", ".", "a", "a.", ":a", "a..b", "é:ü"] {
            assert!(Segments::of(name).eq(name.split(SEPARATORS)), "{name}");
        }
        assert_eq!(room("chat:").segments().collect::<Vec<_>>(), ["chat", ""]);
    }

    #[test]
    fn reserved_forms_name_their_owner() {
        assert_eq!(room("user:alice").form(), Form::UserInbox("alice"));
        assert_eq!(room("user.alice.notes").form(), Form::UserSpace("alice"));
        assert_eq!(room("user.alice").form(), Form::UserSpace("alice"));
        assert_eq!(room("tenant.acme.news").form(), Form::Tenant("acme"));
        assert_eq!(room("tenant:acme:news").form(), Form::Tenant("acme"));
        assert_eq!(room("platform.security").form(), Form::Platform);
        assert_eq!(room("platform").form(), Form::Platform);
        assert_eq!(room("chat:1").form(), Form::Plain);
        assert_eq!(room("users.alice").form(), Form::Plain);
    }

    #[test]
    fn a_form_without_an_owner_belongs_to_the_empty_id_that_nobody_has() {
        for name in ["user", "user.", "user.."] {
            assert_eq!(room(name).form(), Form::UserSpace(""));
        }
        assert_eq!(room("user:").form(), Form::UserInbox(""));
        assert_eq!(room("tenant").form(), Form::Tenant(""));
        assert!(check_user("").is_err());
        assert!(check_tenant("").is_err());
    }

    #[test]
    fn the_inbox_of_an_id_with_separators_is_that_of_the_whole_id() {
        assert_eq!(room("user:alice.notes").form(), Form::UserInbox("alice.notes"));
        let spaced = RoomName::inbox_of("Ada Lovelace");
        assert_eq!(spaced.form(), Form::UserInbox("Ada Lovelace"));
    }

    #[test]
    fn a_user_is_its_inbox_and_reads_as_its_id() {
        for id in ["alice", "a.b", "Zoë Ångström <zoe@example.org>"] {
            let user = User::new("acme".into(), id);
            assert_eq!((&*user, &**user.tenant()), (id, "acme"));
            assert_eq!(user.inbox(), &RoomRef::new("acme".into(), RoomName::inbox_of(id)));
            assert_ne!(user, User::new("other".into(), id), "users of different tenants are not the same");
        }
    }

    #[test]
    fn event_names_take_no_at_sign_and_at_most_64_bytes() {
        assert_eq!(check_event("chat.sent-v1_a:b"), Ok(()));
        assert_eq!(check_event("a@b"), Err(NameRefused::Character { what: What::Event, at: 1 }));
        assert_eq!(check_event(&"e".repeat(64)), Ok(()));
        assert!(check_event(&"e".repeat(65)).is_err());
        assert!(check_event("").is_err());
    }

    #[test]
    fn reserved_events_are_known_by_name_and_by_prefix() {
        for event in ["connected", "error", "heartbeat", "message:new", "room:", "platform.security.alert"] {
            assert!(is_reserved_event(event), "{event}");
        }
        for event in ["connected2", "chat", "message", "platform:x", "Message:new", "heartbeats"] {
            assert!(!is_reserved_event(event), "{event}");
        }
    }

    #[test]
    fn user_ids_may_be_any_text_without_control_characters() {
        assert_eq!(check_user("Zoë Ångström <zoe@example.org>"), Ok(()));
        assert_eq!(check_user("a\u{85}b"), Err(NameRefused::Character { what: What::User, at: 1 }));
        assert_eq!(check_user(&"u".repeat(128)), Ok(()));
        assert!(check_user(&"u".repeat(129)).is_err());
    }

    proptest! {
        #[test]
        fn a_room_name_is_accepted_exactly_when_it_fits_the_grammar(name in "\\PC{0,140}|[A-Za-z0-9_.:@-]{0,140}") {
            let fits = (1..=128).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.:@-".contains(c));
            prop_assert_eq!(RoomName::parse(&name).is_ok(), fits);
        }
    }
}
