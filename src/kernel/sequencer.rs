//! The home of a room gives each message its place, keeps it and mails it to every shard with
//! members.
//! Invariants: `seq` is dense; a repeated client id gets its first place; an entry is encoded
//! once, here, in the dialects that its receivers speak; a shard whose memory is full takes no
//! message in.

use crate::admission::names::User;
use crate::base::limits::{FULL_RETRY, ROOM_CHECK};
use crate::base::time::Now;
use crate::kernel::effects::Effects;
use crate::kernel::entry::{Class, Entry, Label};
use crate::kernel::ids::{ConnAt, Epoch, Place, RoomId, RoomRef, ShardId};
use crate::kernel::mail::{Mail, Reply};
use crate::kernel::reasons::Dropped;
use crate::kernel::{Kernel, Timer, lanes::Held};
use crate::wire::codes::{ErrorCode, Limit, WireError};
use crate::wire::encode::Push;
use std::sync::Arc;

/// A message that has no place yet.
pub struct Draft<'a> {
    pub event: &'a str,
    /// JSON, byte for byte as the sender wrote it.
    pub data: &'a [u8],
    /// The authenticated sender.
    pub from: Option<User>,
    /// The sender's own name for the message, to tell a retry.
    pub cid: Option<Arc<str>>,
    pub excluded: Option<ConnAt>,
}

impl Kernel {
    /// The room of that name, and whether it had to be made. `known`: where the asker saw it last.
    pub fn room_at_home(
        &mut self,
        now: Now,
        name: &RoomRef,
        known: Option<RoomId>,
    ) -> Result<(RoomId, bool), WireError> {
        // It may have been freed since, and made again under the same name.
        let still_there = known.filter(|room| self.rooms.get(*room).is_some_and(|row| row.name == *name));
        if let Some(room) = still_there.or_else(|| self.rooms.find(name)) {
            return Ok((room, false));
        }
        // Once for each room: those that are here belong here.
        assert_eq!(self.placement.of(name), self.id, "a room is asked for at its home");
        if self.rooms.len() >= self.limits.rooms_max {
            let error =
                WireError::too_many(Limit::RoomsPerShard, "this server has no place for another room; try later");
            // When rooms that nobody is in are looked at.
            return Err(WireError { retry_after_ms: Some(ROOM_CHECK.as_millis() as u64), ..error });
        }
        Ok((self.rooms.create(name.clone(), Epoch(self.random.next()), now.unix_ms), true))
    }

    /// Gives a message its place, or finds the place that its retry has already.
    pub fn publish(
        &mut self,
        now: Now,
        room: RoomId,
        draft: Draft<'_>,
        effects: &mut Effects,
    ) -> Result<Place, WireError> {
        let row = self.rooms.get_mut(room).expect("a room is published to while it exists");
        let name = draft.from.as_ref().zip(draft.cid.as_ref());
        if let Some((user, cid)) = name
            && let Some(place) = row.find_cid(user, cid)
        {
            self.counters.repeated += 1;
            return Ok(place);
        }
        if self.memory.is_full() {
            self.counters.refused_full += 1;
            let message = "this server's memory is full of what others have still to read; try later";
            let retry_after_ms = Some(FULL_RETRY.as_millis() as u64);
            return Err(WireError { retry_after_ms, ..WireError::new(ErrorCode::Unavailable, message) });
        }
        let place = Place { mid: self.mids.next(now.unix_ms), seq: row.head.next() };
        let push = Push {
            event: draft.event,
            room: Some(row.name.name.as_str()),
            seq: Some(place.seq.0),
            mid: Some(&place.mid.text()),
            ts: Some(now.unix_ms),
            from: draft.from.as_deref(),
            data: draft.data,
        };
        let label = Label { place: Some(place), class: Class::Logged, excluded: draft.excluded, at: now.at };
        let entry = Arc::new(Entry::encode(&push, label, row.audience.dialects(), &mut self.encoder));
        row.head = place.seq;
        row.history_mut().push(&entry, &self.memory.account);
        if let Some((user, cid)) = draft.from.zip(draft.cid) {
            row.remember_cid(self.keyed, now.at, user, cid, place);
        }
        self.counters.publishes += 1;
        self.send_entry(room, &entry, effects);
        Ok(place)
    }

    /// Tells the members something that has no place in the order: transient, dropped first.
    pub fn announce(
        &mut self,
        now: Now,
        room: RoomId,
        event: &str,
        data: &[u8],
        excluded: Option<ConnAt>,
        effects: &mut Effects,
    ) {
        if self.memory.is_full() {
            return self.counters.drop(Dropped::TransientMemory, 1);
        }
        let row = self.rooms.get_mut(room).expect("a room is told of while it exists");
        let push = Push {
            event,
            room: Some(row.name.name.as_str()),
            seq: None,
            mid: None,
            ts: Some(now.unix_ms),
            from: None,
            data,
        };
        let label = Label { place: None, class: Class::Transient, excluded, at: now.at };
        let entry = Arc::new(Entry::encode(&push, label, row.audience.dialects(), &mut self.encoder));
        self.send_entry(room, &entry, effects);
    }

    fn send_entry(&mut self, room: RoomId, entry: &Arc<Entry>, effects: &mut Effects) {
        let row = self.rooms.get_mut(room).expect("an entry's room exists");
        for listener in row.audience.shards_mut() {
            let mail = Mail::Entry { room, entry: entry.clone() };
            match entry.place {
                Some(place) => {
                    let behind = listener.open_run;
                    self.lanes.send_entry(listener.shard, (room, place.seq), &mut listener.open_run, mail, effects);
                    self.counters.behind += u64::from(behind != listener.open_run);
                }
                None if self.lanes.try_send(listener.shard, mail, effects) => {}
                None => self.counters.drop(Dropped::TransientBehind, 1),
            }
        }
    }

    /// Answers a request about `room`, behind every entry that the room sent so far.
    pub fn reply(&mut self, to: ShardId, room: Option<RoomId>, reply: Reply, effects: &mut Effects) {
        self.lanes.send(to, Mail::Reply(Box::new(reply)), effects);
        // Later entries must not slip into a run that stands before this reply.
        let listener = room.and_then(|room| self.rooms.get_mut(room)).and_then(|row| row.audience.shard_mut(to));
        if let Some(listener) = listener {
            listener.open_run = None;
        }
    }

    /// Sends what waits for credit to `peer`: what is held, in its order, then word of gone
    /// connections. Parked requests are the caller's to try again.
    pub fn catch_up(&mut self, peer: ShardId, effects: &mut Effects) {
        while let Some(held) = self.lanes.next_held(peer) {
            let Held::Run { room, from, to } = held else {
                if let Some(Held::Mail(mail)) = self.lanes.skip(peer) {
                    self.lanes.release(peer, mail, effects);
                }
                continue;
            };
            let (room, seq, is_last) = (*room, *from, from == to);
            *from = from.next();
            // Whether or not somebody is left there: a leave whose result waits behind this run must
            // not come before what was said before it.
            let entry = self.rooms.get(room).map(|row| {
                let entry = row.history().get(seq)?;
                Some(entry.completed(&mut self.encoder))
            });
            if is_last || !matches!(entry, Some(Some(_))) {
                self.lanes.skip(peer);
            }
            match entry {
                Some(Some(entry)) => self.lanes.release(peer, Mail::Entry { room, entry }, effects),
                Some(None) => {
                    self.counters.lost += 1;
                    self.lanes.release(peer, Mail::Lost { room }, effects);
                }
                // The room is free: nobody has been there for long.
                None => {}
            }
        }
        self.lanes.release_gone(peer, effects);
    }

    /// Looks later whether `room` can be freed or keeps what is too old. A room with members and
    /// without messages needs no look: most rooms are inboxes that nobody has written to.
    pub fn watch_room(&mut self, now: Now, room: RoomId) {
        let Some(row) = self.rooms.get_mut(room) else { return };
        if !row.is_watched && row.needs_watch() {
            row.is_watched = true;
            self.wheel.set(now.at.after(ROOM_CHECK), Timer::Room(room));
        }
    }

    /// Frees a room that has neither members nor anything that somebody may come back for.
    pub fn check_room(&mut self, now: Now, room: RoomId) {
        let Some(row) = self.rooms.get_mut(room) else { return };
        row.is_watched = false;
        if row.expire(now.at) {
            self.rooms.free(room);
        } else {
            self.watch_room(now, room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::names::RoomName;
    use crate::base::time::Instant;
    use crate::kernel::{Limits, ShardConfig};

    #[test]
    fn a_room_is_found_by_its_name_once_it_is_not_where_its_asker_saw_it() {
        let now = Now { at: Instant::ZERO, unix_ms: 0 };
        let id = ShardId(0);
        let config = ShardConfig { id, shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits: Limits::default() };
        let mut kernel = Kernel::new(config, now);
        let named = |name| RoomRef::new("t".into(), RoomName::parse(name).expect("a good name"));
        let (here, other) = (named("here"), named("other"));

        let (seen, is_new) = kernel.room_at_home(now, &here, None).expect("a place");
        assert!(is_new);
        assert_eq!(kernel.room_at_home(now, &here, Some(seen)), Ok((seen, false)));

        kernel.rooms.free(seen);
        let (in_its_slot, _) = kernel.room_at_home(now, &other, None).expect("a place");
        assert_eq!(in_its_slot.0.slot, seen.0.slot);
        let (again, is_new) = kernel.room_at_home(now, &here, Some(seen)).expect("a place");
        assert!(is_new && again != seen);
        assert_eq!(kernel.room_at_home(now, &here, Some(seen)), Ok((again, false)));
        // Nor is a room taken for another by its place alone.
        assert_eq!(kernel.room_at_home(now, &here, Some(in_its_slot)), Ok((again, false)));
    }
}
