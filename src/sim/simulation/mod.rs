//! A run: clients of all kinds act at random while the world's small steps happen at random, then
//! all becomes quiet and every promise is checked, then all go and nothing may be left.

mod checks;
mod shape;

use crate::base::limits::{ASK_TIME_OUT, CID_AGE_MAX, LINGER, ROOM_CHECK};
use crate::base::random::Random;
use crate::kernel::asked::{Outside, Question, Ticket};
use crate::kernel::ids::ShardId;
use crate::kernel::lanes::Waiting;
use crate::shard::{DrainPace, Snapshot};
use crate::sim::client::{Client, Pace};
use crate::sim::decoder::Received;
use crate::sim::fault::Fault;
use crate::sim::oracle::{Check, DENIAL, Failure, Ledger, Plenty, View};
use crate::sim::world::{FromClient, Link, World, identity};
use crate::wire::codes::CloseCode;
use shape::{CALM, GREEDY, MODERATOR, Shape, policy_that_asks};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub failure: Option<Failure>,
    /// Of all shards, at the end.
    pub snapshot: Snapshot,
}

pub struct Simulation<'t> {
    shape: Shape,
    random: Random,
    world: World,
    clients: Vec<Client>,
    ledger: Ledger,
    /// Views of connections that are over.
    past: Vec<View>,
    conns: u32,
    /// Lanes that bring nothing, and until which turn.
    stalled: BTreeMap<(ShardId, ShardId), u64>,
    turn: u64,
    /// Questions that nobody has answered, and tickets that may be answered once more, or too late.
    asked: Vec<(ShardId, Question)>,
    used: Vec<(ShardId, Ticket)>,
    /// All that can flow does, at once.
    is_quiet: bool,
    /// What homes say now is compared with what there is.
    is_final: bool,
    /// Shards that send their clients back.
    draining: BTreeSet<ShardId>,
    /// Members that there should be, by room, once all is quiet.
    users_in: BTreeMap<String, BTreeSet<String>>,
    trace: Option<&'t mut dyn FnMut(&str)>,
}

type Kept = Result<(), Failure>;

impl<'t> Simulation<'t> {
    pub fn new(seed: u64, fault: Option<Fault>) -> Simulation<'t> {
        let mut random = Random::new(seed);
        // Not drawn, so that other seeds stay what they were.
        let is_greedy = fault.is_none() && seed % 4 == 1;
        let shape = Shape::draw(&mut random, fault, is_greedy);
        let tenants = if fault.is_none() && random.one_in(3) { 2 } else { 1 };
        let client = |name| {
            let tenant = format!("t{}", random.below(tenants));
            let user = format!("u{}", random.below(shape.habits.users));
            let pace = match random.below(10) {
                0..6 => Pace::Fast,
                6..8 => Pace::Slow,
                _ => Pace::Stuck,
            };
            Client::new(name as usize, tenant, user, random.one_in(3), pace)
        };
        let mut clients: Vec<Client> = (0..shape.clients).map(client).collect();
        if shape.is_greedy {
            // Its roles would let it ask as much as it likes.
            clients[GREEDY].is_moderator = false;
        }
        let babel = shape.world.babel;
        let mut world = World::new(&shape.world);
        if shape.asks {
            world.set_policy(policy_that_asks());
        }
        Simulation {
            shape,
            random,
            world,
            clients,
            ledger: Ledger::new(babel),
            past: Vec::new(),
            conns: 0,
            stalled: BTreeMap::new(),
            asked: Vec::new(),
            used: Vec::new(),
            turn: 0,
            is_quiet: false,
            is_final: false,
            draining: BTreeSet::new(),
            users_in: BTreeMap::new(),
            trace: None,
        }
    }

    /// Tells `trace` what happens, line by line.
    pub fn with_trace(mut self, trace: &'t mut dyn FnMut(&str)) -> Simulation<'t> {
        self.trace = Some(trace);
        self
    }

    pub fn run(mut self) -> Outcome {
        let shape = format!("{:?}", self.shape);
        self.say(|| shape);
        let failure = self.all().err();
        let mut snapshot = Snapshot::default();
        for shard in self.world.shards() {
            snapshot.add(&self.world.shard(shard).snapshot());
        }
        if let Some(failure) = &failure {
            let line = format!("BROKEN {:?}: {}", failure.check, failure.saw);
            self.say(|| line);
        }
        Outcome { failure, snapshot }
    }

    fn all(&mut self) -> Kept {
        for turn in 0..self.shape.turns {
            self.turn = turn;
            self.act()?;
            self.answer_some();
            self.check_bounds()?;
            if self.shape.is_flood && turn == self.shape.turns / 4 {
                let deaf = self.pick_shard();
                let until = turn + self.shape.turns / 2;
                self.say(|| format!("nothing reaches shard {}", deaf.0));
                self.stalled
                    .extend(self.world.pairs().into_iter().filter(|pair| pair.1 == deaf).map(|pair| (pair, until)));
            }
            if self.shape.has_drain && turn == self.shape.turns / 3 {
                let shard = self.pick_shard();
                self.drain(shard);
            }
            if self.shape.has_lull && turn == self.shape.turns / 2 {
                self.lull()?;
            }
        }
        self.say(|| "all comes back and becomes quiet".into());
        self.settle_everything()?;
        self.check_promises()?;
        self.say(|| "all go".into());
        self.see_all_off()?;
        self.check_freed()
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let at = self.world.now.at.as_nanos() / 1_000_000;
            trace(&format!("{:>6} {:>9} ms  {}", self.turn, at, line()));
        }
    }

    fn plenty(&self) -> Plenty {
        match &self.shape {
            shape if shape.is_scarce => Plenty::Scarce,
            shape if shape.is_heavy => Plenty::Heavy,
            _ => Plenty::Enough,
        }
    }

    fn pick_client(&mut self) -> usize {
        self.random.below(self.clients.len() as u64) as usize
    }

    fn pick_shard(&mut self) -> ShardId {
        ShardId(self.random.below(self.shape.world.shards.into()) as u8)
    }

    /// One that takes connections, while there is one.
    fn pick_open_shard(&mut self) -> ShardId {
        let drawn = self.pick_shard();
        let next = self.world.shards().find(|shard| !self.draining.contains(shard));
        if self.draining.contains(&drawn) { next.unwrap_or(drawn) } else { drawn }
    }

    fn drain(&mut self, shard: ShardId) {
        let conns_per_s = 1 + self.random.below(100) as u32;
        let over = Duration::from_millis(self.random.below(10_000));
        self.draining.insert(shard);
        self.say(|| format!("shard {} sends its clients back, {conns_per_s} a second for {over:?}", shard.0));
        self.world.drain(shard, DrainPace { conns_per_s, over, retry: Duration::from_secs(1) });
    }

    fn pick_pair(&mut self) -> Option<(ShardId, ShardId)> {
        let pairs = self.world.pairs();
        let nth = self.random.below(pairs.len() as u64) as usize;
        let pair = *pairs.get(nth)?;
        let is_stalled = self.stalled.get(&pair).is_some_and(|until| *until > self.turn);
        (!is_stalled).then_some(pair)
    }

    /// Something happens.
    fn act(&mut self) -> Kept {
        match self.random.below(100) {
            0..25 => {
                let count = 1 + self.random.below(6);
                if let Some((from, to)) = self.pick_pair() {
                    let brought = (0..count).take_while(|_| self.world.deliver(from, to)).count();
                    self.say(|| format!("{brought} mails from {} to {}", from.0, to.0));
                }
            }
            25..37 => {
                if let Some((shard, peer)) = self.pick_pair()
                    && self.world.credit(shard, peer)
                {
                    self.say(|| format!("credit for {} to {}", shard.0, peer.0));
                }
            }
            37..52 => {
                let shard = self.pick_shard();
                let count = 1 + self.random.below(8);
                let wrote = (0..count).take_while(|_| self.world.flush(shard)).count();
                self.say(|| format!("shard {} writes to {wrote}", shard.0));
            }
            52..66 => {
                let client = self.pick_client();
                self.read(client)?;
            }
            66..76 => {
                let client = self.pick_client();
                let count = 1 + self.random.below(if self.shape.is_flood { 300 } else { 10 });
                if let Some(link) = self.clients[client].link {
                    let took = (0..count).take_while(|_| self.world.feed(link)).count();
                    self.say(|| format!("the server takes {took} from {client}"));
                }
            }
            76..91 => {
                let client = self.pick_client();
                let most = self.shape.habits.pipeline as u64;
                let count = if most > 5 { 1 + self.random.below(most / 2) } else { 1 };
                for _ in 0..count {
                    self.speak(client)?;
                }
            }
            91..95 => {
                let wait = Duration::from_millis(self.random.below(60));
                self.pass(wait);
            }
            95 => {
                let wait = Duration::from_millis(self.random.below(4_000));
                self.pass(wait);
            }
            96 => {
                // The server notices that some sockets have ended.
                for link in self.world.links() {
                    if self.world.is_deserted(link) && self.random.one_in(2) && self.world.end(link) {
                        self.say(|| format!("socket {} has ended", link.0));
                    }
                }
            }
            97 if self.shape.stalls => {
                let turns = self.turn + self.random.below(200);
                if let Some(pair) = self.pick_pair() {
                    self.say(|| format!("the lane from {} to {} stalls", pair.0.0, pair.1.0));
                    self.stalled.insert(pair, turns);
                }
            }
            98 => {
                let client = self.pick_client();
                self.vanish(client);
            }
            99 if self.random.one_in(3) => {
                let client = self.pick_client();
                if let Some(link) = self.clients[client].link {
                    let bad = match self.random.below(3) {
                        0 => FromClient::Binary,
                        1 => FromClient::Garbage,
                        _ => FromClient::Close(CloseCode::Normal.as_u16()),
                    };
                    self.say(|| format!("{client} sends {bad:?}"));
                    self.clients[client].misbehaved = true;
                    self.world.send(link, bad);
                }
            }
            _ => {
                let client = self.pick_client();
                if let Some(link) = self.clients[client].link {
                    let payload = vec![b'p'; self.random.below(20) as usize];
                    self.world.send(link, FromClient::Ping(payload));
                }
            }
        }
        self.world.failure().map_or(Ok(()), Err)
    }

    /// The outside answers now and then, in any order, late, twice or never.
    fn answer_some(&mut self) {
        self.asked.extend(self.world.take_questions());
        while !self.asked.is_empty() && self.random.one_in(3) {
            let nth = self.random.below(self.asked.len() as u64) as usize;
            let (shard, Question { ticket, room, user, .. }) = self.asked.swap_remove(nth);
            if !self.random.one_in(8) {
                let outside = self.judgement();
                let room = room.name.as_str();
                self.say(|| format!("the outside says of {} in {room}: {outside:?}", &*user));
                self.world.answer(shard, ticket, outside);
            }
            self.used.push((shard, ticket));
        }
        if !self.used.is_empty() && self.random.one_in(6) {
            let nth = self.random.below(self.used.len() as u64) as usize;
            let ((shard, ticket), outside) = (self.used[nth], self.judgement());
            self.say(|| format!("the outside says once more, or at last: {outside:?}"));
            self.world.answer(shard, ticket, outside);
        }
    }

    fn judgement(&mut self) -> Outside {
        match self.random.below(10) {
            0..7 => Outside::Allows,
            7..9 => Outside::Denies { message: DENIAL.into() },
            _ => Outside::Fails,
        }
    }

    /// Says whether there was anything to answer.
    fn answer_all(&mut self) -> bool {
        self.asked.extend(self.world.take_questions());
        let did = !self.asked.is_empty();
        for (shard, question) in std::mem::take(&mut self.asked) {
            self.world.answer(shard, question.ticket, Outside::Allows);
        }
        did
    }

    fn pass(&mut self, wait: Duration) {
        self.world.pass(wait);
        for shard in self.world.shards() {
            self.world.tick(shard);
        }
    }

    /// A client says something, or comes back if it is away.
    fn speak(&mut self, client: usize) -> Kept {
        let now = self.world.now.at;
        let Some(link) = self.clients[client].link else {
            self.connect(client);
            return Ok(());
        };
        let row = &mut self.clients[client];
        if let Some(said) = row.speak(&self.shape.habits, &mut self.random, now, &mut self.ledger) {
            self.send(client, link, said);
        }
        Ok(())
    }

    fn send(&mut self, client: usize, link: Link, said: String) {
        self.say(|| format!("{client} -> {}", cut(&said)));
        self.world.send(link, FromClient::Text(said));
    }

    fn connect(&mut self, client: usize) {
        let (shard, plenty, asks) = (self.pick_open_shard(), self.plenty(), self.shape.asks);
        let row = &mut self.clients[client];
        let is_limited = self.shape.is_greedy && client == GREEDY;
        let role = match row.is_moderator {
            true => MODERATOR,
            false if is_limited => "",
            false => CALM,
        };
        let Some(link) = self.world.open(shard, identity(&row.tenant, &row.user, role)) else { return };
        self.conns += 1;
        row.link = Some(link);
        row.looked = self.world.now.at;
        row.unread_max = Duration::ZERO;
        row.misbehaved = false;
        let view = View::new(self.conns, &row.tenant, &row.user, plenty).limited(is_limited).asked_about(asks);
        row.view = Some(view);
        let (conn, user) = (self.conns, row.user.clone());
        self.say(|| format!("{client}, user {user}, connects to shard {} as connection {conn}", shard.0));
        let now = self.world.now.at;
        let row = &mut self.clients[client];
        for said in row.come_back(&mut self.random, now, &mut self.ledger) {
            self.send(client, link, said);
        }
    }

    fn vanish(&mut self, client: usize) {
        let Some(link) = self.clients[client].link else { return };
        let kept = self.random.below(self.world.unsent(link) as u64 + 1) as usize;
        self.world.desert(link, kept);
        self.say(|| format!("{client} vanishes"));
        self.lose(client);
    }

    fn lose(&mut self, client: usize) {
        let view = self.clients[client].lose();
        self.past.extend(view);
    }

    /// A client reads as its pace is.
    fn read(&mut self, client: usize) -> Kept {
        let bytes = match self.clients[client].pace {
            _ if self.is_quiet => usize::MAX,
            Pace::Fast => usize::MAX,
            Pace::Slow => self.random.below(self.shape.world.window as u64) as usize,
            Pace::Stuck if self.random.one_in(20) => usize::MAX,
            Pace::Stuck => return Ok(()),
        };
        self.read_bytes(client, bytes).map(drop)
    }

    /// Says whether anything was read.
    fn read_bytes(&mut self, client: usize, bytes: usize) -> Result<bool, Failure> {
        let Some(link) = self.clients[client].link else { return Ok(false) };
        if self.world.is_gone(link) {
            self.say(|| format!("{client} finds its socket reset"));
            self.lose(client);
            return Ok(true);
        }
        let row = &mut self.clients[client];
        row.unread_max = row.unread_max.max(self.world.now.at.since(row.looked));
        if bytes > 0 {
            row.looked = self.world.now.at;
        }
        let mut received = Vec::new();
        let mut did = self.world.read(link, bytes, &mut received);
        did |= self.world.relieve(link);
        for frame in received {
            self.on_frame(client, link, frame)?;
        }
        Ok(did)
    }

    fn on_frame(&mut self, client: usize, link: Link, frame: Received) -> Kept {
        let now = self.world.now.at;
        match frame {
            Received::Text(text) => {
                self.say(|| format!("{client} <- {}", cut(&text)));
                let Some(view) = &mut self.clients[client].view else { return Ok(()) };
                let info = if self.is_final { view.info_of(&text) } else { None };
                if let Some((room, data)) = info {
                    view.assert_complete(&room, &data, &self.ledger)?;
                    self.check_members(client, &room, &data)?;
                }
                let Some(view) = &mut self.clients[client].view else { return Ok(()) };
                view.on_text(&text, &mut self.ledger, now)
            }
            Received::Ping(_) => {
                self.world.send(link, FromClient::Pong);
                Ok(())
            }
            Received::Pong(_) => Ok(()),
            Received::Close { code, reason } => {
                self.say(|| format!("{client} is closed with {code} {reason}"));
                self.check_close(client, code, &reason)?;
                self.lose(client);
                self.world.end(link);
                Ok(())
            }
        }
    }

    /// Nothing is said for so long that histories are too old, and client ids forgotten.
    fn lull(&mut self) -> Kept {
        self.say(|| "a lull".into());
        let end = self.world.now.at.after(CID_AGE_MAX + ROOM_CHECK);
        self.is_quiet = true;
        while self.world.now.at < end {
            self.flow()?;
            let next = self.world.next_deadline().since(self.world.now.at);
            self.pass(next.clamp(Duration::from_millis(100), Duration::from_secs(10)));
        }
        self.is_quiet = false;
        Ok(())
    }

    /// Lets everything flow until nothing does.
    fn flow(&mut self) -> Kept {
        loop {
            let mut did = self.world.settle();
            did |= self.answer_all();
            for client in 0..self.clients.len() {
                did |= self.read_bytes(client, usize::MAX)?;
            }
            if let Some(failure) = self.world.failure() {
                return Err(failure);
            }
            if !did {
                return Ok(());
            }
        }
    }

    fn settle_everything(&mut self) -> Kept {
        self.is_quiet = true;
        self.stalled.clear();
        if self.shape.asks {
            // What the outside kept silent about.
            self.flow()?;
            self.pass(ASK_TIME_OUT);
        }
        for link in self.world.links() {
            if self.world.is_deserted(link) {
                self.world.end(link);
            }
        }
        // Whoever is closed meanwhile comes back, and somebody may be closed for what waited.
        for _ in 0..20 {
            self.flow()?;
            for client in 0..self.clients.len() {
                if self.clients[client].link.is_none() {
                    self.connect(client);
                }
            }
            self.flow()?;
            // A shard turns once a second at least.
            self.pass(Duration::from_secs(1));
            self.flow()?;
            if self.clients.iter().all(|client| client.link.is_some()) {
                break;
            }
        }
        self.check_bounds()?;
        for client in &self.clients {
            if let Some(view) = &client.view
                && let Err(failure) = view.assert_answered()
            {
                let census: Vec<_> = self.world.shards().map(|shard| self.world.shard(shard).census()).collect();
                return Err(Failure { saw: format!("{}; {census:?}", failure.saw), ..failure });
            }
        }
        for shard in self.world.shards() {
            let census = self.world.shard(shard).census();
            let waits = census.waiting.iter().any(|(_, waiting)| *waiting != Waiting::default());
            if census.calls > 0 || census.replays > 0 || census.asked > 0 || waits {
                let saw = format!("shard {} all quiet: {census:?}", shard.0);
                return Err(Failure { check: Check::AllIsDone, saw });
            }
        }
        Ok(())
    }

    fn see_all_off(&mut self) -> Kept {
        match self.random.below(3) {
            0 => {
                for shard in self.world.shards() {
                    self.drain(shard);
                }
            }
            1 => {
                for client in 0..self.clients.len() {
                    if let Some(link) = self.clients[client].link {
                        self.clients[client].misbehaved = true;
                        self.world.send(link, FromClient::Close(CloseCode::Normal.as_u16()));
                    }
                }
            }
            // They neither read nor answer: the server has to notice by itself.
            _ => {
                for client in 0..self.clients.len() {
                    self.vanish(client);
                }
            }
        }
        self.flow()?;
        for _ in 0..8 {
            self.pass(LINGER);
            self.flow()?;
        }
        Ok(())
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(240) {
        None => text.to_string(),
        Some((at, _)) => format!("{}... {} bytes", &text[..at], text.len()),
    }
}
