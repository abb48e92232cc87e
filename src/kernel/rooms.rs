//! Rooms at their home: order, history, who is in, who is to be told.
//! Invariants: `seq` is dense and starts at 1 with each epoch; directory and audience change
//! together, in [`Room::add`] and [`Room::remove`].

use crate::admission::names::User;
use crate::base::hash::Keyed;
use crate::base::index::Index;
use crate::base::table::Table;
use crate::base::time::Instant;
use crate::base::u48::U48;
use crate::kernel::audience::Audience;
use crate::kernel::cids::Cids;
use crate::kernel::directory::{Change, Directory, Member};
use crate::kernel::history::History;
use crate::kernel::ids::{ConnAt, Epoch, Place, Pos, RoomId, RoomRef, Seq};
use crate::wire::dialect::DialectId;
use std::sync::Arc;

pub struct Room {
    pub name: RoomRef,
    pub epoch: Epoch,
    /// The last message's number, 0 before the first.
    pub head: Seq,
    pub audience: Audience,
    directory: Directory,
    /// What most rooms never have: nobody writes to them.
    kept: Option<Box<Kept>>,
    created_unix_ms: U48,
    /// A timer looks after this room.
    pub is_watched: bool,
}

// One per room, and nearly every connection brings a room of its own.
const _: () = assert!(size_of::<Room>() <= 96);
const _: () = assert!(Table::<Room>::slot_bytes() <= 104);

#[derive(Default)]
struct Kept {
    history: History,
    /// What `room:update` last set, JSON.
    details: Option<Box<[u8]>>,
    cids: Option<Box<Cids>>,
}

impl Room {
    pub fn pos(&self) -> Pos {
        Pos { epoch: self.epoch, seq: self.head }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// `keyed`: the hasher of the directory's index, should the room grow one.
    pub fn add(&mut self, at: ConnAt, user: &User, dialect: DialectId, keyed: Keyed) -> Change {
        let change = self.directory.add(at, user, dialect, keyed);
        if change != Change::Nothing {
            self.audience.add(at.shard, dialect);
        }
        change
    }

    pub fn remove(&mut self, at: ConnAt) -> Option<(Member, Change)> {
        let (member, change) = self.directory.remove(at)?;
        self.audience.remove(at.shard, member.dialect);
        Some((member, change))
    }

    pub fn created_unix_ms(&self) -> u64 {
        self.created_unix_ms.get()
    }

    pub fn history(&self) -> &History {
        const NOTHING: &History = &History::new();
        self.kept.as_ref().map_or(NOTHING, |kept| &kept.history)
    }

    pub fn history_mut(&mut self) -> &mut History {
        &mut self.kept.get_or_insert_default().history
    }

    pub fn details(&self) -> Option<&[u8]> {
        self.kept.as_ref()?.details.as_deref()
    }

    pub fn set_details(&mut self, details: &[u8]) {
        self.kept.get_or_insert_default().details = Some(details.into());
    }

    pub fn find_cid(&self, user: &User, cid: &Arc<str>) -> Option<Place> {
        self.kept.as_ref()?.cids.as_ref()?.find(user, cid)
    }

    pub fn remember_cid(&mut self, keyed: Keyed, now: Instant, user: User, cid: Arc<str>, place: Place) {
        let kept = self.kept.get_or_insert_default();
        let cids = kept.cids.get_or_insert_with(|| Box::new(Cids::new(keyed)));
        cids.remember(now, user, cid, place);
    }

    /// Something is kept that somebody may come back for.
    fn needs_memory(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.history.is_empty() || kept.cids.is_some())
    }

    /// Something is kept that grows old, or nobody is in.
    pub fn needs_watch(&self) -> bool {
        self.audience.is_empty() || self.needs_memory()
    }

    /// Lets go of what is too old; true when nothing is left to keep the room for.
    pub fn expire(&mut self, now: Instant) -> bool {
        if let Some(kept) = &mut self.kept {
            kept.history.expire(now);
            if let Some(cids) = &mut kept.cids {
                cids.expire(now);
                if cids.is_empty() {
                    kept.cids = None;
                }
            }
            if kept.history.is_empty() && kept.cids.is_none() && kept.details.is_none() {
                self.kept = None;
            }
        }
        self.audience.is_empty() && !self.needs_memory()
    }
}

pub struct Rooms {
    table: Table<Room>,
    index: Index,
}

type Name<'a> = (&'a str, &'a str);

fn name_of(room: &RoomRef) -> Name<'_> {
    (&room.tenant, room.name.as_str())
}

impl Rooms {
    pub fn new(keyed: Keyed) -> Self {
        Rooms { table: Table::default(), index: Index::new(keyed) }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Room> {
        self.table.iter().map(|(_, room)| room)
    }

    pub fn iter_with_ids(&self) -> impl Iterator<Item = (RoomId, &Room)> {
        self.table.iter().map(|(key, room)| (RoomId(key), room))
    }

    pub fn find(&self, name: &RoomRef) -> Option<RoomId> {
        let mut found = None;
        self.index.find(&name_of(name), |slot| {
            found = self.table.at(slot).filter(|(_, room)| name_of(&room.name) == name_of(name));
            found.is_some()
        })?;
        found.map(|(key, _)| RoomId(key))
    }

    /// Makes a room, which must not exist.
    pub fn create(&mut self, name: RoomRef, epoch: Epoch, now_unix_ms: u64) -> RoomId {
        debug_assert!(self.find(&name).is_none(), "a room is made once");
        let key = self.table.insert(Room {
            name: name.clone(),
            epoch,
            head: Seq(0),
            audience: Audience::default(),
            directory: Directory::default(),
            kept: None,
            created_unix_ms: U48::new(now_unix_ms),
            is_watched: false,
        });
        let table = &self.table;
        let name_at = |slot| table.at(slot).map_or(("", ""), |(_, room)| name_of(&room.name));
        self.index.insert(&name_of(&name), key.slot, name_at);
        RoomId(key)
    }

    pub fn get(&self, id: RoomId) -> Option<&Room> {
        self.table.get(id.0)
    }

    pub fn get_mut(&mut self, id: RoomId) -> Option<&mut Room> {
        self.table.get_mut(id.0)
    }

    /// Nobody is in, nothing is kept.
    pub fn is_unused(&self, id: RoomId) -> bool {
        self.get(id).is_some_and(|room| room.audience.is_empty() && !room.needs_memory())
    }

    pub fn free(&mut self, id: RoomId) {
        let room = self.table.remove(id.0).expect("a room is freed once");
        assert!(room.audience.is_empty(), "a room with members is not freed");
        self.index.remove(&name_of(&room.name), id.0.slot);
    }
}
