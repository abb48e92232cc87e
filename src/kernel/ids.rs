//! Names of things, none of which can be taken for another.

pub use crate::admission::names::RoomRef;

use crate::base::base32;
use crate::base::table::Key;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u8);

impl ShardId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A connection, on the shard that holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub Key);

/// A connection, from anywhere in the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnAt {
    pub shard: ShardId,
    pub conn: ConnId,
}

/// A room in its home's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RoomId(pub Key);

/// A room in the table of a shard that has members of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LocalRoomId(pub Key);

/// A request that waits for its answer, on the connection's shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub Key);

/// A place in the order of a room: dense, the first message has 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

impl Seq {
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// One incarnation of a room's order: a room that was freed and made again has another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(pub u64);

impl Epoch {
    pub const TEXT_BYTES: usize = 13;

    pub fn text(self) -> [u8; Epoch::TEXT_BYTES] {
        base32::encode(self.0 as u128)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("base32 is ASCII"))
    }
}

/// A message, unique over hosts and ordered by time: 48 bits of milliseconds, 24 of origin, 8 of
/// shard, 48 of the shard's counter. 26 characters of base32; opaque to clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mid(pub u128);

impl Mid {
    pub const TEXT_BYTES: usize = 26;

    pub fn text(self) -> [u8; Mid::TEXT_BYTES] {
        base32::encode(self.0)
    }

    pub fn parse(text: &str) -> Option<Mid> {
        if text.len() != Mid::TEXT_BYTES {
            return None;
        }
        base32::decode(text.as_bytes()).map(Mid)
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("base32 is ASCII"))
    }
}

/// Where a message stands: its name and its number in its room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub mid: Mid,
    pub seq: Seq,
}

/// A place in one incarnation of a room's order, as clients hold it: `<epoch>-<seq>`, opaque.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pos {
    pub epoch: Epoch,
    pub seq: Seq,
}

impl Pos {
    /// Appends what `Display` writes, without the formatting machinery: streams are told with each message.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.text());
        out.push(b'-');
        out.extend_from_slice(itoa::Buffer::new().format(self.seq.0).as_bytes());
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq.0)
    }
}

/// What a client may give to say where it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cursor {
    Pos(Pos),
    Mid(Mid),
}

impl Cursor {
    /// `None` for anything that this server never gave out.
    pub fn parse(text: &str) -> Option<Cursor> {
        if let Some(mid) = Mid::parse(text) {
            return Some(Cursor::Mid(mid));
        }
        let (epoch, seq) = text.split_once('-')?;
        if epoch.len() != Epoch::TEXT_BYTES || seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let epoch = u64::try_from(base32::decode(epoch.as_bytes())?).ok()?;
        Some(Cursor::Pos(Pos { epoch: Epoch(epoch), seq: Seq(seq.parse().ok()?) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_are_read_back_as_written(epoch: u64, seq: u64, mid: u128) {
            let pos = Pos { epoch: Epoch(epoch), seq: Seq(seq) };
            prop_assert_eq!(Cursor::parse(&pos.to_string()), Some(Cursor::Pos(pos)));
            let mut put = Vec::new();
            pos.put(&mut put);
            prop_assert_eq!(String::from_utf8(put), Ok(pos.to_string()));
            prop_assert_eq!(Cursor::parse(&Mid(mid).to_string()), Some(Cursor::Mid(Mid(mid))));
        }

        #[test]
        fn no_text_breaks_the_cursor_parser(text: String) {
            let _ = Cursor::parse(&text);
        }
    }

    #[test]
    fn cursors_of_strangers_are_refused() {
        for text in
            ["", "-", "0000000000000-", "0000000000000-+1", "ZZZZZZZZZZZZZ-1", "0000000000000-99999999999999999999"]
        {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
