//! Dialects: the forms in which a push can be written. A push is encoded once for each dialect
//! that its receivers speak, never once for each receiver. Invariants: a process has at most
//! `DIALECTS_MAX`, so a set of them is one word; whoever speaks a compressed dialect also reads its
//! plain one (`RFC 7692` section 6: each message says by itself whether it is compressed).

use super::deflate::Window;
use super::socketio::Forms;
use super::{frame, msgpack, sse};
use crate::base::limits::{DIALECTS_MAX, ENDPOINTS_MAX, MOUNTS_MAX, NAMESPACES_MAX};

const _: () = assert!(DIALECTS_MAX <= u64::BITS as usize);
const _: () = assert!(OF_NAMESPACES.0 as usize + NAMESPACES_MAX * VARIANTS as usize <= SSE.0 as usize);
const _: () = assert!((SSE.0 as usize) < DIALECTS_MAX && SSE.0.is_multiple_of(VARIANTS));

/// One form of encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct DialectId(pub(crate) u8);

/// The protocol's own envelope as a JSON text frame.
pub const NATIVE_JSON: DialectId = DialectId(0);

/// The same envelope in MessagePack, as a binary frame.
pub const NATIVE_MSGPACK: DialectId = DialectId(VARIANTS);

/// From here on: messages of an application's endpoints as they are, without envelope.
const OF_ENDPOINTS: DialectId = DialectId(2 * VARIANTS);

/// From here on: Engine.IO packets, of each path where they are spoken. What carries namespaces is in no room.
const OF_MOUNTS: DialectId = DialectId(OF_ENDPOINTS.0 + ENDPOINTS_MAX as u8 * VARIANTS);

/// From here on: Socket.IO packets of each namespace.
const OF_NAMESPACES: DialectId = DialectId(OF_MOUNTS.0 + MOUNTS_MAX as u8 * VARIANTS);

/// The protocol's own envelope as a server-sent event. Never compressed, so it needs no other places: it has the last.
pub const SSE: DialectId = DialectId(63);

/// Each form comes plain and compressed for each window, in this order.
const VARIANTS: u8 = 3;

impl DialectId {
    /// The plain dialect of an application's endpoint, counted from zero.
    pub const fn of_endpoint(nth: usize) -> DialectId {
        assert!(nth < ENDPOINTS_MAX);
        DialectId(OF_ENDPOINTS.0 + nth as u8 * VARIANTS)
    }

    /// The plain dialect of a path where Engine.IO is spoken, counted from zero.
    pub const fn of_mount(nth: usize) -> DialectId {
        assert!(nth < MOUNTS_MAX);
        DialectId(OF_MOUNTS.0 + nth as u8 * VARIANTS)
    }

    /// The plain dialect of a Socket.IO namespace, counted from zero over all paths.
    pub const fn of_namespace(nth: usize) -> DialectId {
        assert!(nth < NAMESPACES_MAX);
        DialectId(OF_NAMESPACES.0 + nth as u8 * VARIANTS)
    }

    /// Whose endpoint's messages these are.
    pub const fn endpoint(self) -> Option<usize> {
        self.between(OF_ENDPOINTS, OF_MOUNTS)
    }

    /// At which path these packets are spoken.
    pub const fn mount(self) -> Option<usize> {
        self.between(OF_MOUNTS, OF_NAMESPACES)
    }

    /// Whose packets these are.
    pub const fn namespace(self) -> Option<usize> {
        self.between(OF_NAMESPACES, SSE)
    }

    const fn between(self, first: DialectId, end: DialectId) -> Option<usize> {
        if self.0 < first.0 || self.0 >= end.0 { None } else { Some(((self.0 - first.0) / VARIANTS) as usize) }
    }

    /// Whether who speaks this is told things in envelopes, or what stands for them.
    pub const fn has_envelopes(self) -> bool {
        self.0 < OF_ENDPOINTS.0 || self.0 >= OF_NAMESPACES.0
    }

    /// The place in a table of dialects.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The same form, compressed where it pays.
    pub const fn compressed(self, window: Window) -> DialectId {
        match window {
            Window::Full => DialectId(self.plain().0 + 1),
            Window::Small => DialectId(self.plain().0 + 2),
        }
    }

    /// The same form, never compressed.
    pub const fn plain(self) -> DialectId {
        DialectId(self.0 - self.0 % VARIANTS)
    }

    /// `None`: never compressed.
    pub const fn window(self) -> Option<Window> {
        match self.0 % VARIANTS {
            0 => None,
            1 => Some(Window::Full),
            _ => Some(Window::Small),
        }
    }
}

/// Dialects, for instance those that a room's members on one shard speak.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DialectSet(u64);

impl DialectSet {
    pub const EMPTY: DialectSet = DialectSet(0);

    pub fn insert(&mut self, dialect: DialectId) {
        self.0 |= 1 << dialect.0;
    }

    pub fn contains(self, dialect: DialectId) -> bool {
        // No set has a compressed form of what is never compressed, whose place is the last.
        self.0.checked_shr(dialect.0.into()).is_some_and(|rest| rest & 1 != 0)
    }

    pub fn union(self, other: DialectSet) -> DialectSet {
        DialectSet(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The dialects in the order of their ids.
    pub fn iter(self) -> impl Iterator<Item = DialectId> {
        let mut rest = self.0;
        // Counted ahead, so that who collects takes memory once.
        (0..rest.count_ones()).map(move |_| {
            let next = DialectId(rest.trailing_zeros() as u8);
            rest &= rest - 1;
            next
        })
    }
}

/// Appends a native JSON frame as who speaks `dialect` reads it, uncompressed: one WebSocket frame, several
/// where the dialect is a namespace's, of which `forms` says how it is written, or an event of a stream.
pub fn translate(dialect: DialectId, forms: &Forms, out: &mut Vec<u8>, json_frame: &[u8]) {
    if let Some(nth) = dialect.namespace() {
        return forms.get(nth).expect("each namespace has a form").translate(out, json_frame);
    }
    match dialect.plain() {
        NATIVE_JSON => out.extend_from_slice(json_frame),
        SSE => sse::translate(out, json_frame),
        NATIVE_MSGPACK => {
            let (_, json) = frame::parts(json_frame);
            let json = std::str::from_utf8(json).expect("what we wrote is text");
            let mut packed = Vec::with_capacity(json.len());
            msgpack::from_json(&mut packed, json);
            frame::header(out, frame::BINARY, packed.len());
            out.extend_from_slice(&packed);
        }
        DialectId(other) => unreachable!("dialect {other} has no envelopes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_dialect_says_whose_it_is_in_each_variant() {
        let mut seen = BTreeSet::new();
        let native = [NATIVE_JSON, NATIVE_MSGPACK].into_iter();
        let endpoints = (0..ENDPOINTS_MAX).map(DialectId::of_endpoint);
        let mounts = (0..MOUNTS_MAX).map(DialectId::of_mount);
        let namespaces = (0..NAMESPACES_MAX).map(DialectId::of_namespace);
        for plain in native.chain(endpoints).chain(mounts).chain(namespaces) {
            for dialect in [plain, plain.compressed(Window::Full), plain.compressed(Window::Small)] {
                assert!(seen.insert(dialect), "{dialect:?} is another's");
                assert_eq!(dialect.plain(), plain);
                assert_eq!(dialect.endpoint(), (0..ENDPOINTS_MAX).find(|nth| DialectId::of_endpoint(*nth) == plain));
                assert_eq!(dialect.mount(), (0..MOUNTS_MAX).find(|nth| DialectId::of_mount(*nth) == plain));
                assert_eq!(dialect.namespace(), (0..NAMESPACES_MAX).find(|nth| DialectId::of_namespace(*nth) == plain));
                assert_eq!(dialect.has_envelopes(), dialect.endpoint().is_none() && dialect.mount().is_none());
            }
        }
    }

    proptest! {
        #[test]
        fn a_set_of_dialects_agrees_with_a_plain_set(
            a: BTreeSet<u8>, b: BTreeSet<u8>,
        ) {
            let bounded = |ids: BTreeSet<u8>| -> BTreeSet<DialectId> {
                ids.into_iter().map(|id| DialectId(id % DIALECTS_MAX as u8)).collect()
            };
            let word = |ids: &BTreeSet<DialectId>| {
                let mut set = DialectSet::EMPTY;
                ids.iter().for_each(|id| set.insert(*id));
                set
            };
            let (a, b) = (bounded(a), bounded(b));
            let both: BTreeSet<DialectId> = a.union(&b).copied().collect();
            let set = word(&a).union(word(&b));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), both.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.is_empty(), both.is_empty());
            prop_assert!((0..DIALECTS_MAX as u8).all(|id| set.contains(DialectId(id)) == both.contains(&DialectId(id))));
        }
    }
}
