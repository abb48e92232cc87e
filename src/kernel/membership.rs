//! Which of this shard's connections are in which rooms, wherever those have their homes.
//! Invariant: `members` of a room and `rooms_of` a connection mirror each other; each knows its
//! place in the other, so joining and leaving take constant time. A connection whose replay is
//! under way is in a room without being among its members: what is live waits in the history.

use crate::base::few::Few;
use crate::base::hash::Keyed;
use crate::base::index::Index;
use crate::base::pages::Pages;
use crate::base::table::Table;
use crate::base::u48::U48;
use crate::kernel::ids::{LocalRoomId, RoomId, RoomRef, ShardId};
use smallvec::SmallVec;

/// A connection by its slot: callers know that it is alive.
pub type ConnSlot = u32;

const NOT_LIVE: u32 = u32::MAX;

pub struct LocalRoom {
    pub home: ShardId,
    pub id: RoomId,
    pub name: RoomRef,
    members: Few<Member>,
    /// Connections in the room, live or not.
    attached: u32,
    /// Logged entries that went to all members since this row exists.
    pub delivered: u64,
}

// One per room, and nearly every connection brings a room of its own.
const _: () = assert!(Table::<LocalRoom>::slot_bytes() <= 56);

#[derive(Clone, Copy)]
pub struct Member {
    pub slot: ConnSlot,
    /// Where the connection's `rooms_of` names this room.
    nth_room: u32,
}

impl LocalRoom {
    pub fn members(&self) -> &Few<Member> {
        &self.members
    }
}

/// A room that a connection is in.
#[derive(Clone, Copy)]
pub struct Joined {
    /// The room's slot: the room stays where it is while somebody is in.
    room: u32,
    nth_member: u32,
    /// Transient pushes that this connection was too slow for.
    pub dropped: u32,
    since_unix_ms: U48,
    /// The room's count of deliveries when this one joined, less its own replayed entries.
    delivered_before: U48,
}

const _: () = assert!(size_of::<Joined>() == 24);

/// The user's own room and one more lie in the row itself.
type RoomsOf = SmallVec<[Joined; 2]>;

const _: () = assert!(size_of::<RoomsOf>() == 56);

impl Joined {
    pub fn since_unix_ms(&self) -> u64 {
        self.since_unix_ms.get()
    }

    pub fn is_live(&self) -> bool {
        self.nth_member != NOT_LIVE
    }
}

pub struct Membership {
    rooms: Table<LocalRoom>,
    by_home: Index,
    rooms_of: Pages<RoomsOf>,
}

impl Membership {
    pub fn new(keyed: Keyed) -> Self {
        Membership { rooms: Table::default(), by_home: Index::new(keyed), rooms_of: Pages::default() }
    }

    /// Rooms that connections here are in.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    pub fn find(&self, home: ShardId, id: RoomId) -> Option<LocalRoomId> {
        let mut found = None;
        self.by_home.find(&(home, id), |slot| {
            found = self.rooms.at(slot).filter(|(_, row)| (row.home, row.id) == (home, id));
            found.is_some()
        })?;
        found.map(|(key, _)| LocalRoomId(key))
    }

    pub fn room(&self, id: LocalRoomId) -> Option<&LocalRoom> {
        self.rooms.get(id.0)
    }

    pub fn room_mut(&mut self, id: LocalRoomId) -> Option<&mut LocalRoom> {
        self.rooms.get_mut(id.0)
    }

    pub fn rooms_of(&self, slot: ConnSlot) -> &[Joined] {
        self.rooms_of.get(slot as usize).map_or(&[], SmallVec::as_slice)
    }

    /// The room that a connection is in.
    pub fn room_of(&self, joined: &Joined) -> Option<&LocalRoom> {
        self.rooms.at(joined.room).map(|(_, row)| row)
    }

    pub fn joined(&self, slot: ConnSlot, room: LocalRoomId) -> Option<&Joined> {
        self.rooms_of(slot).iter().find(|joined| joined.room == room.0.slot)
    }

    fn joined_mut(&mut self, slot: ConnSlot, room: LocalRoomId) -> Option<&mut Joined> {
        self.rooms_of.get_mut(slot as usize)?.iter_mut().find(|joined| joined.room == room.0.slot)
    }

    /// Logged pushes that the connection got in a room.
    pub fn delivered(&self, joined: &Joined) -> u64 {
        let live = match self.room_of(joined) {
            Some(room) if joined.is_live() => room.delivered,
            _ => 0,
        };
        U48::new(live.wrapping_sub(joined.delivered_before.get())).get()
    }

    pub fn note_dropped(&mut self, slot: ConnSlot, room: LocalRoomId) {
        if let Some(joined) = self.joined_mut(slot, room) {
            joined.dropped = joined.dropped.saturating_add(1);
        }
    }

    /// One logged push more, or one less, than the room's own count says.
    pub fn correct_delivered(&mut self, slot: ConnSlot, room: LocalRoomId, by: i64) {
        if let Some(joined) = self.joined_mut(slot, room) {
            joined.delivered_before = U48::new(joined.delivered_before.get().wrapping_sub(by as u64));
        }
    }

    /// Adds the connection to a room, not yet live. It must not be in it.
    pub fn attach(&mut self, slot: ConnSlot, home: ShardId, id: RoomId, name: RoomRef, unix_ms: u64) -> LocalRoomId {
        let room = self.find(home, id).unwrap_or_else(|| self.add_room(home, id, name));
        assert!(self.joined(slot, room).is_none(), "a connection joins a room once");
        self.rooms.get_mut(room.0).expect("an indexed room is there").attached += 1;
        while self.rooms_of.len() <= slot as usize {
            self.rooms_of.push(RoomsOf::new());
        }
        let joined = Joined {
            room: room.0.slot,
            nth_member: NOT_LIVE,
            dropped: 0,
            since_unix_ms: U48::new(unix_ms),
            delivered_before: U48::default(),
        };
        self.rooms_of[slot as usize].push(joined);
        room
    }

    fn add_room(&mut self, home: ShardId, id: RoomId, name: RoomRef) -> LocalRoomId {
        let row = LocalRoom { home, id, name, members: Few::default(), attached: 0, delivered: 0 };
        let key = self.rooms.insert(row);
        let rooms = &self.rooms;
        let home_at = |slot| rooms.at(slot).map(|(_, row)| (row.home, row.id)).expect("an indexed room is there");
        self.by_home.insert(&(home, id), key.slot, home_at);
        LocalRoomId(key)
    }

    /// From now on the connection gets the room's entries as they come.
    pub fn make_live(&mut self, slot: ConnSlot, room: LocalRoomId) {
        let Some(rooms) = self.rooms_of.get_mut(slot as usize) else { return };
        let Some(nth_room) = rooms.iter().position(|joined| joined.room == room.0.slot) else { return };
        let row = self.rooms.get_mut(room.0).expect("a joined room is there");
        let joined = &mut rooms[nth_room];
        assert!(!joined.is_live(), "a member goes live once");
        joined.nth_member = row.members.len() as u32;
        joined.delivered_before = U48::new(joined.delivered_before.get().wrapping_add(row.delivered));
        row.members.push(Member { slot, nth_room: nth_room as u32 });
    }

    /// Takes the connection out of a room; false when it was not in it.
    pub fn detach(&mut self, slot: ConnSlot, room: LocalRoomId) -> bool {
        match self.rooms_of(slot).iter().position(|joined| joined.room == room.0.slot) {
            Some(nth_room) => {
                self.detach_nth(slot, nth_room);
                true
            }
            None => false,
        }
    }

    /// The only place where the two sides come apart.
    fn detach_nth(&mut self, slot: ConnSlot, nth_room: usize) -> (ShardId, RoomId) {
        let rooms = &mut self.rooms_of[slot as usize];
        let gone = rooms.swap_remove(nth_room);
        // The connection's last room took the free place: that room's member must know.
        if let Some(moved) = rooms.get(nth_room)
            && moved.is_live()
        {
            let row = self.rooms.at_mut(moved.room).expect("a joined room is there");
            row.members[moved.nth_member as usize].nth_room = nth_room as u32;
        }
        let row = self.rooms.at_mut(gone.room).expect("a joined room is there");
        if gone.is_live() {
            row.members.swap_remove(gone.nth_member as usize);
            // The room's last member took the free place: that connection must know.
            if let Some(moved) = row.members.get(gone.nth_member as usize) {
                self.rooms_of[moved.slot as usize][moved.nth_room as usize].nth_member = gone.nth_member;
            }
        }
        row.attached -= 1;
        let key = (row.home, row.id);
        if row.attached == 0 {
            self.by_home.remove(&key, gone.room);
            let room = self.rooms.at(gone.room).map(|(room, _)| room);
            self.rooms.remove(room.expect("a joined room is there"));
        }
        key
    }

    /// Takes the connection out of all its rooms and says which they were.
    pub fn detach_all(&mut self, slot: ConnSlot) -> Vec<(ShardId, RoomId)> {
        let mut left = Vec::new();
        while let Some(last) = self.rooms_of(slot).len().checked_sub(1) {
            left.push(self.detach_nth(slot, last));
        }
        if let Some(rooms) = self.rooms_of.get_mut(slot as usize) {
            *rooms = RoomsOf::new();
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::names::RoomName;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn home(n: u32) -> (ShardId, RoomId) {
        (ShardId((n % 2) as u8), RoomId(crate::base::table::Key { slot: n / 2, generation: 0 }))
    }

    fn name(n: u32) -> RoomRef {
        RoomRef::new("t".into(), RoomName::parse(&format!("r{n}")).expect("a good name"))
    }

    #[derive(Clone, Debug)]
    enum Move {
        Attach { slot: u32, room: u32, live: bool },
        Detach { slot: u32, room: u32 },
        Close { slot: u32 },
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            5 => (0u32..8, 0u32..6, any::<bool>()).prop_map(|(slot, room, live)| Move::Attach { slot, room, live }),
            3 => (0u32..8, 0u32..6).prop_map(|(slot, room)| Move::Detach { slot, room }),
            1 => (0u32..8).prop_map(|slot| Move::Close { slot }),
        ];
        proptest::collection::vec(one, 0..200)
    }

    proptest! {
        #[test]
        fn membership_agrees_with_a_plain_set_of_pairs(moves in moves()) {
            let mut membership = Membership::new(Keyed::new([5, 6]));
            // (slot, room) -> live
            let mut model: BTreeMap<(u32, u32), bool> = BTreeMap::new();
            for step in moves {
                match step {
                    Move::Attach { slot, room, live } => {
                        let (shard, id) = home(room);
                        let was_live = model.get(&(slot, room)).copied();
                        let local = match was_live {
                            None => membership.attach(slot, shard, id, name(room), 0),
                            Some(_) => membership.find(shard, id).expect("known"),
                        };
                        if live && was_live != Some(true) {
                            membership.make_live(slot, local);
                        }
                        *model.entry((slot, room)).or_default() |= live;
                    }
                    Move::Detach { slot, room } => {
                        let (shard, id) = home(room);
                        let known = membership.find(shard, id);
                        let was_in = known.is_some_and(|local| membership.detach(slot, local));
                        prop_assert_eq!(was_in, model.remove(&(slot, room)).is_some());
                    }
                    Move::Close { slot } => {
                        let left: BTreeSet<_> = membership.detach_all(slot).into_iter().collect();
                        let want: BTreeSet<_> = model.keys().filter(|key| key.0 == slot).map(|key| home(key.1)).collect();
                        prop_assert_eq!(left, want);
                        model.retain(|key, _| key.0 != slot);
                    }
                }
                for room in 0..6 {
                    let (shard, id) = home(room);
                    let local = membership.find(shard, id);
                    prop_assert_eq!(local.is_some(), model.keys().any(|key| key.1 == room));
                    let members = local.and_then(|local| membership.room(local)).map(LocalRoom::members);
                    let got: Vec<u32> = members.into_iter().flatten().map(|member| member.slot).collect();
                    let number = got.len();
                    let got: BTreeSet<u32> = got.into_iter().collect();
                    let want: BTreeSet<u32> = model.iter().filter(|(key, live)| key.1 == room && **live).map(|(key, _)| key.0).collect();
                    prop_assert_eq!(number, got.len());
                    prop_assert_eq!(got, want);
                }
                for slot in 0..8 {
                    prop_assert_eq!(membership.rooms_of(slot).len(), model.keys().filter(|key| key.0 == slot).count());
                }
            }
        }
    }
}
