//! What the core tells of its connections for the audit log, where one is kept.
//! Invariant: without an audit nothing is made for it, and what is made has a bound.

use crate::admission::names::User;
use crate::base::limits::{AUDITED_ROOMS_MAX, CLOSE_REASON_BYTES_MAX, ROOM_NAME_BYTES_MAX};
use crate::kernel::ids::ConnId;
use std::sync::Arc;

/// What is worth telling.
#[derive(Clone, Default, Debug)]
pub struct Auditing {
    /// Whether anything is.
    pub is_on: bool,
    /// Requests of clients, beside what connections do. Names of events; one that ends with `*` means
    /// all that begin so.
    pub events: Arc<[Box<str>]>,
}

impl Auditing {
    /// Whether a request for `event` is worth telling.
    pub fn wants(&self, event: &str) -> bool {
        let covers = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => event.starts_with(start),
            None => event == pattern,
        };
        self.is_on && self.events.iter().any(|pattern| covers(pattern))
    }
}

#[derive(Debug)]
pub enum Audited {
    /// No more messages go to this connection or come from it.
    Closed { conn: ConnId, user: User, code: u16, reason: Box<str> },
    /// A client asked for something and has its answer.
    Request {
        conn: ConnId,
        user: User,
        event: &'static str,
        rooms: Rooms,
        /// The code of the refusal; `None`: it was done.
        refused: Option<&'static str>,
    },
}

/// The rooms that a request named: the first of them, and how many there were.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Rooms {
    pub first: Box<[Box<str>]>,
    pub count: usize,
}

impl Rooms {
    pub fn of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Rooms {
        let count = names.len();
        let first = names.take(AUDITED_ROOMS_MAX).map(|name| cut(name, ROOM_NAME_BYTES_MAX).into());
        Rooms { first: first.collect(), count }
    }
}

/// Why a connection was closed. An empty text is a client's own close.
pub fn reason(text: &str) -> Box<str> {
    match text {
        "" => "closed by the client".into(),
        text => cut(text, CLOSE_REASON_BYTES_MAX).into(),
    }
}

/// As much of a text as `bytes_max` hold.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=text.len().min(bytes_max)).rfind(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_wanted_by_name_or_by_their_beginning() {
        let auditing = |is_on, events: &[&str]| Auditing { is_on, events: events.iter().map(|&e| e.into()).collect() };
        let some = auditing(true, &["room:*", "ping"]);
        assert!(some.wants("room:join") && some.wants("ping"));
        assert!(!some.wants("pin") && !some.wants("ping:pong") && !some.wants("auth:refresh"));
        assert!(auditing(true, &["*"]).wants("anything"));
        assert!(!auditing(true, &[]).wants("ping") && !auditing(false, &["*"]).wants("ping"));
    }

    #[test]
    fn what_is_told_is_bounded() {
        let names: Vec<String> = (0..100).map(|nth| format!("room-{nth}")).collect();
        let rooms = Rooms::of(names.iter().map(String::as_str));
        assert_eq!((rooms.first.len(), rooms.count), (AUDITED_ROOMS_MAX, 100));
        assert!(reason(&"é".repeat(100)).len() <= CLOSE_REASON_BYTES_MAX);
        assert_eq!(&*reason(""), "closed by the client");
    }
}
