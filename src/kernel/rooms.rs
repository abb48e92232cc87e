//! Rooms at their home: order, history, who is in, who is to be told.
//! Invariants: `seq` is dense and starts at 1 with each epoch; directory and audience change
//! together, in [`Room::add`] and [`Room::remove`].

use crate::base::hash::Keyed;
use crate::base::index::Index;
use crate::base::table::{Key, Table};
use crate::base::time::Instant;
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
    pub created_unix_ms: u64,
    pub history: History,
    pub audience: Audience,
    /// What `room:update` last set, JSON.
    pub details: Option<Box<[u8]>>,
    directory: Directory,
    cids: Option<Box<Cids>>,
    /// A timer looks after this room.
    pub is_watched: bool,
}

impl Room {
    pub fn pos(&self) -> Pos {
        Pos { epoch: self.epoch, seq: self.head }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// `keyed`: the hasher of the directory's index, should the room grow one.
    pub fn add(&mut self, at: ConnAt, user: &Arc<str>, dialect: DialectId, keyed: Keyed) -> Change {
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

    pub fn find_cid(&self, user: &Arc<str>, cid: &Arc<str>) -> Option<Place> {
        self.cids.as_ref()?.find(user, cid)
    }

    pub fn remember_cid(&mut self, keyed: Keyed, now: Instant, user: Arc<str>, cid: Arc<str>, place: Place) {
        let cids = self.cids.get_or_insert_with(|| Box::new(Cids::new(keyed)));
        cids.remember(now, user, cid, place);
    }

    /// Something is kept that somebody may come back for.
    fn needs_memory(&self) -> bool {
        !self.history.is_empty() || self.cids.is_some()
    }

    /// Something is kept that grows old, or nobody is in.
    pub fn needs_watch(&self) -> bool {
        self.audience.is_empty() || self.needs_memory()
    }

    /// Lets go of what is too old; true when nothing is left to keep the room for.
    pub fn expire(&mut self, now: Instant) -> bool {
        self.history.expire(now);
        if let Some(cids) = &mut self.cids {
            cids.expire(now);
            if cids.is_empty() {
                self.cids = None;
            }
        }
        self.audience.is_empty() && !self.needs_memory()
    }
}

pub struct Rooms {
    table: Table<Room>,
    index: Index<Key>,
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
        let is_it = |key| self.table.get(key).is_some_and(|room| name_of(&room.name) == name_of(name));
        self.index.find(&name_of(name), is_it).map(RoomId)
    }

    /// Makes a room, which must not exist.
    pub fn create(&mut self, name: RoomRef, epoch: Epoch, now_unix_ms: u64) -> RoomId {
        debug_assert!(self.find(&name).is_none(), "a room is made once");
        let key = self.table.insert(Room {
            name: name.clone(),
            epoch,
            head: Seq(0),
            created_unix_ms: now_unix_ms,
            history: History::default(),
            audience: Audience::default(),
            details: None,
            directory: Directory::default(),
            cids: None,
            is_watched: false,
        });
        let table = &self.table;
        let key_of = |key| table.get(key).map_or(("", ""), |room| name_of(&room.name));
        self.index.insert(&name_of(&name), key, key_of);
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
        self.index.remove(&name_of(&room.name), id.0);
    }
}
