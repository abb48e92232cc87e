//! What is checked on the way, when all is quiet, and when all have gone; the oracle checks what each client is
//! told.

use super::shape::GREEDY;
use super::{Kept, Simulation};
use crate::base::limits::{
    ASKED_BEHIND_MAX, ASKED_PER_CONN_MAX, CID_AGE_MAX, HEARTBEAT, HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX,
    OUTBOX_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, ROOM_CHECK, STALL_TIME_MAX,
};
use crate::kernel::ids::ShardId;
use crate::kernel::lanes::Waiting;
use crate::shard::{Census, Held};
use crate::sim::client::Pace;
use crate::sim::oracle::{Asked, Check, Failure};
use crate::wire::codes::CloseCode;

impl Simulation<'_> {
    pub(super) fn check_close(&self, client: usize, code: u16, reason: &str) -> Kept {
        let row = &self.clients[client];
        let is_slow = row.pace != Pace::Fast || self.shape.is_heavy || self.shape.is_flood;
        let unread = row.unread_max;
        let has_long_room = self.ledger.longest() >= HISTORY_ENTRIES_MAX;
        let is_known = match CloseCode::ALL.into_iter().find(|known| known.as_u16() == code) {
            Some(CloseCode::SlowConsumer) if reason.contains("memory") => self.shape.is_scarce,
            Some(CloseCode::SlowConsumer) if reason.starts_with("took nothing") => unread >= STALL_TIME_MAX,
            Some(CloseCode::SlowConsumer) if reason.starts_with("read too slowly") => is_slow,
            Some(CloseCode::SlowConsumer) => {
                self.shape.is_heavy || self.shape.is_flood || self.shape.is_scarce || has_long_room
            }
            // A connection whose request waits for credit is not heard either.
            Some(CloseCode::Idle) => unread > HEARTBEAT || self.shape.stalls,
            Some(CloseCode::RateLimited) => self.shape.is_greedy && client == GREEDY,
            Some(CloseCode::Restart) => !self.draining.is_empty() && reason.starts_with("{\"retry_ms\":"),
            Some(CloseCode::Normal | CloseCode::Protocol | CloseCode::Unsupported) => row.misbehaved,
            _ => false,
        };
        match is_known {
            true => Ok(()),
            false => {
                let saw = format!("client {client}, {:?}, was closed with {code} {reason}", row.pace);
                Err(Failure { check: Check::NoNeedlessClose, saw })
            }
        }
    }

    /// All have what was promised: asked of the server once more, room by room.
    pub(super) fn check_promises(&mut self) -> Kept {
        self.users_in.clear();
        for client in &self.clients {
            for room in client.view.iter().flat_map(|view| view.stays.keys()) {
                let users = self.users_in.entry(format!("{}/{room}", client.tenant)).or_default();
                users.insert(client.user.clone());
            }
        }
        for client in 0..self.clients.len() {
            let (Some(link), Some(view)) = (self.clients[client].link, &mut self.clients[client].view) else {
                continue;
            };
            let rooms: Vec<String> = view.stays.keys().cloned().collect();
            let ask = |room: String| {
                let id = view.ask(Asked::Info { room: room.clone() });
                format!(r#"{{"id":{id},"event":"room:info","data":{{"room":"{room}"}}}}"#)
            };
            let said: Vec<String> = rooms.into_iter().map(ask).collect();
            for said in said {
                self.send(client, link, said);
            }
        }
        self.is_final = true;
        self.flow()?;
        self.is_final = false;
        self.ledger.assert_refused_is_not_done()?;
        let views = self.clients.iter().filter_map(|client| client.view.as_ref());
        for view in views.chain(&self.past) {
            view.explain_holes(&self.ledger)?;
        }
        for view in self.clients.iter().filter_map(|client| client.view.as_ref()) {
            view.assert_answered()?;
        }
        Ok(())
    }

    pub(super) fn check_members(&self, client: usize, room: &str, data: &serde_json::Value) -> Kept {
        let key = format!("{}/{room}", self.clients[client].tenant);
        let Some(want) = self.users_in.get(&key) else { return Ok(()) };
        if data["members"] == want.len() {
            return Ok(());
        }
        let saw = format!("{key} has {} members by its home, and in truth {want:?}", data["members"]);
        Err(Failure { check: Check::MembersConverge, saw })
    }

    pub(super) fn check_freed(&mut self) -> Kept {
        let wait = CID_AGE_MAX + ROOM_CHECK * 3;
        let end = self.world.now.at.after(wait);
        while self.world.now.at < end {
            self.pass(ROOM_CHECK / 4);
            self.flow()?;
        }
        let none = |shards: u8, me: ShardId| Census {
            conns: 0,
            calls: 0,
            asked: 0,
            rooms: 0,
            rooms_joined: 0,
            replays: 0,
            timers: 0,
            history_entries: 0,
            history_bytes: 0,
            memory: Held::default(),
            account: Held::default(),
            buckets: 0,
            waiting: (0..shards).map(ShardId).filter(|id| *id != me).map(|id| (id, Waiting::default())).collect(),
        };
        for shard in self.world.shards() {
            let census = self.world.shard(shard).census();
            let connections = self.world.shard(shard).snapshot().connections;
            if census != none(self.shape.world.shards, shard) || connections != 0 {
                let saw = format!("shard {} at the end, {connections} connections: {census:?}", shard.0);
                return Err(Failure { check: Check::AllIsFreed, saw });
            }
        }
        Ok(())
    }

    pub(super) fn check_bounds(&mut self) -> Kept {
        // One of the largest may go over it, and a few may wait whatever their sizes.
        let longest = self.world.frame_bytes_max();
        let bound = (OUTBOX_BYTES_MAX + longest).max(4 * longest);
        for (nth, client) in self.clients.iter().enumerate() {
            let Some(link) = client.link else { continue };
            let queued = self.world.queued(link);
            if queued > bound {
                let saw = format!("{queued} bytes wait for client {nth}, {bound} are allowed");
                return Err(Failure { check: Check::OutboxBound, saw });
            }
        }
        // A step adds a page at most, or one message to a connection, and each may be one of the
        // largest. What was given up and has not gone is a close frame for each connection.
        let page = PAGE_BYTES_MAX.min(longest * PAGE_ENTRIES_MAX) + longest + PAGE_ENTRIES_MAX * 100;
        let bound = self.shape.world.memory_bytes + page + self.world.links_now() * 1_000;
        for shard in self.world.shards() {
            let used = self.world.shard(shard).memory_used();
            if used > bound {
                let saw = format!("shard {} holds {used} bytes, {bound} are allowed", shard.0);
                return Err(Failure { check: Check::MemoryBound, saw });
            }
        }
        if !self.turn.is_multiple_of(if self.shape.is_scarce { 4 } else { 32 }) {
            return Ok(());
        }
        let census: Vec<Census> = self.world.shards().map(|shard| self.world.shard(shard).census()).collect();
        for (me, census_of_me) in census.iter().enumerate() {
            let Census { history_entries, history_bytes, memory, account, .. } = *census_of_me;
            if memory != account {
                let saw = format!("shard {me} holds {memory:?} and believes {account:?}");
                return Err(Failure { check: Check::MemoryCounted, saw });
            }
            if history_entries > HISTORY_ENTRIES_MAX || (history_bytes > HISTORY_BYTES_MAX && history_entries > 1) {
                let saw = format!("a history of shard {me} has {history_entries} entries, {history_bytes} bytes");
                return Err(Failure { check: Check::HistoryBound, saw });
            }
            let may_wait = self.world.links_now() * (ASKED_PER_CONN_MAX + ASKED_BEHIND_MAX);
            if census_of_me.asked > may_wait {
                let saw = format!("{} requests wait at shard {me} for the outside", census_of_me.asked);
                return Err(Failure { check: Check::WaitingBound, saw });
            }
            for (peer, waiting) in &census_of_me.waiting {
                let back = census[peer.index()].waiting.iter().find(|(id, _)| id.index() == me);
                let calls = back.map_or(0, |(_, waiting)| waiting.calls);
                // A reply for each call at most, and a run for each room and for each reply.
                if waiting.mails > calls || waiting.runs > census_of_me.rooms + waiting.mails {
                    let saw = format!("shard {me} keeps for {}, which waits for {calls}: {waiting:?}", peer.0);
                    return Err(Failure { check: Check::WaitingBound, saw });
                }
            }
        }
        Ok(())
    }
}
