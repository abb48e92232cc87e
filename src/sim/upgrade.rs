//! The change from polling to a WebSocket as a race: one client of Socket.IO whose requests, answers and
//! frames travel each as slowly as the seed says, probes that break off, and messages both ways meanwhile.
//! The model knows what was said; whoever hears must have heard all of it, once and in order.

use crate::admission::identity::Identity;
use crate::base::random::Random;
use crate::base::time::{Instant, Now};
use crate::base::wheel::TICK;
use crate::features;
use crate::kernel::Limits;
use crate::kernel::carriers::{PollAnswer, PollId, Transport};
use crate::kernel::effects::Effects;
use crate::kernel::ids::{ConnId, ShardId};
use crate::kernel::mounts::{EngineSettings, Mounts, SocketIo};
use crate::kernel::namespace::{Ack, Arguments, Namespace, Socket};
use crate::kernel::paths::Paths;
use crate::shard::{EngineOpening, Input, Shard, ShardConfig};
use crate::wire::frame;
use std::collections::VecDeque;
use std::time::Duration;

const PATH: &str = "/socket.io/";
/// Messages each way.
const MESSAGES: u32 = 60;
/// A run ends by itself long before.
const STEPS_MAX: usize = 200_000;
const PACKETS_MAX: usize = 16;

/// Bugs planted where the edge stands, each of which a run must show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpgradeFault {
    /// What came in one segment with the upgrade is thrown away.
    LostBehindUpgrade,
    /// What a GET took goes to the WebSocket too.
    Doubled,
    /// A GET that is under way when the probe comes is answered with nothing, and what it was to bring is gone.
    LostAnswer,
    /// The frames of a flush leave the other way round.
    Reversed,
}

impl UpgradeFault {
    pub const ALL: [UpgradeFault; 4] =
        [UpgradeFault::LostBehindUpgrade, UpgradeFault::Doubled, UpgradeFault::LostAnswer, UpgradeFault::Reversed];
}

/// What a run came to.
#[derive(Clone, Default, Debug)]
pub struct UpgradeOutcome {
    /// What was promised and not kept.
    pub failure: Option<String>,
    pub upgraded: bool,
    /// Probes that broke off.
    pub broken: u32,
    /// Messages of the server that came by GETs, and by the WebSocket.
    pub polled: u32,
    pub pushed: u32,
    /// GETs that were answered with nothing because a probe was under way.
    pub noops: u32,
}

/// Remembers what the client said, and tells who asks.
#[derive(Default)]
struct Hub(Vec<u32>);

impl Namespace for Hub {
    fn on_event(&mut self, socket: &mut Socket<'_>, event: &str, arguments: &Arguments<'_>, _: Option<Ack>) {
        match event {
            "tell" => socket.broadcast("told", arguments),
            "report" => socket.emit("report", &Arguments::of(&(&self.0,))),
            _ => self.0.extend(arguments.read::<(u32,)>().map(|(number,)| number)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Polling,
    /// Its WebSocket is open, and `2probe` under way.
    Probing,
    /// It has its answer and waits for its requests under way.
    Pausing,
    Upgraded,
}

/// One client, and the ways to it.
struct Client {
    session: ConnId,
    probe: Option<ConnId>,
    phase: Phase,
    is_connected: bool,
    /// Packets that it has not sent.
    out: VecDeque<String>,
    said: u32,
    heard: Vec<u32>,
    get: Way<(), PollAnswer>,
    post: Way<Vec<String>, ()>,
    /// Frames of its WebSocket, each way.
    up: VecDeque<String>,
    down: VecDeque<String>,
}

/// A request that may be under way.
struct Way<Up, Down> {
    up: Option<Up>,
    is_there: bool,
    down: Option<Down>,
}

impl<Up, Down> Way<Up, Down> {
    const FREE: Way<Up, Down> = Way { up: None, is_there: false, down: None };

    fn is_free(&self) -> bool {
        self.up.is_none() && !self.is_there && self.down.is_none()
    }
}

struct Race {
    shard: Shard,
    effects: Effects,
    now: Now,
    random: Random,
    fault: Option<UpgradeFault>,
    /// Somebody else, who has the server tell things.
    driver: ConnId,
    /// The last that it heard.
    report: String,
    told: u32,
    client: Client,
    polls: u64,
    /// Nothing breaks off and nobody says anything new any more.
    is_ending: bool,
    outcome: UpgradeOutcome,
}

/// Runs one race; the same seed brings the same run.
pub fn race(seed: u64, fault: Option<UpgradeFault>) -> UpgradeOutcome {
    let mut mounts = Mounts::default();
    let settings = EngineSettings {
        ping_interval: Duration::from_secs(2),
        ping_timeout: Duration::from_secs(600),
        upgrade_timeout: Duration::from_secs(600),
        rate: None,
        ..EngineSettings::default()
    };
    mounts.socket_io(PATH, settings, SocketIo::new().namespace("/", Hub::default));
    let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed, map_key: [1, 2], limits: Limits::default() };
    let now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };
    let mut shard = Shard::new(config, features::all(), now).with_paths(&Paths { mounts, ..Paths::default() });
    let mut effects = Effects::default();
    let driver = open(&mut shard, now, Transport::WebSocket, &mut effects);
    shard.step(now, Input::Text { conn: driver, message: b"40" }, &mut effects);
    let session = open(&mut shard, now, Transport::Polling, &mut effects);
    let client = Client {
        session,
        probe: None,
        phase: Phase::Polling,
        is_connected: false,
        out: VecDeque::from(["40".to_owned()]),
        said: 0,
        heard: Vec::new(),
        get: Way::FREE,
        post: Way::FREE,
        up: VecDeque::new(),
        down: VecDeque::new(),
    };
    let (random, outcome) = (Random::new(seed), UpgradeOutcome::default());
    let report = String::new();
    let mut race = Race {
        shard,
        effects,
        now,
        random,
        fault,
        driver,
        report,
        told: 0,
        client,
        polls: 0,
        is_ending: false,
        outcome,
    };
    race.run();
    let failure = race.outcome.failure.take();
    race.outcome.failure = failure.or_else(|| race.judge());
    race.outcome
}

fn open(shard: &mut Shard, now: Now, transport: Transport, effects: &mut Effects) -> ConnId {
    let conn = shard.reserve().expect("there is room");
    let dialect = shard.mount_at(PATH).expect("it is served");
    let (identity, greeting) = (Identity::guest(), Box::default());
    let opening = EngineOpening { conn, dialect, transport, secret: [0; 12], identity, refused: None, greeting };
    shard.step(now, Input::OpenEngine(Box::new(opening)), effects);
    conn
}

impl Race {
    fn run(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.outcome.failure.is_some() {
                return;
            }
            let may = self.may_happen();
            if may.is_empty() {
                if !self.is_ending {
                    self.is_ending = true;
                    continue;
                }
                return;
            }
            let next = may[self.random.below(may.len() as u64) as usize];
            next(self);
            self.carry_out();
        }
        self.outcome.failure.get_or_insert("the run does not end".into());
    }

    /// Everything that could be next.
    fn may_happen(&self) -> Vec<fn(&mut Race)> {
        let client = &self.client;
        let mut may: Vec<fn(&mut Race)> = Vec::new();
        let is_by_requests = matches!(client.phase, Phase::Polling | Phase::Probing);
        let mut add = |when: bool, what: fn(&mut Race)| may.extend(when.then_some(what));
        let is_done = client.said == MESSAGES && self.told == MESSAGES;
        add(client.is_connected && client.said < MESSAGES, Race::say);
        add(client.is_connected && self.told < MESSAGES, Race::tell);
        // In the end a GET is sent only where it has something to bring.
        let is_worth_it = !self.is_ending || self.shard.queued(client.session) > 0 || !client.is_connected;
        add(is_by_requests && client.get.is_free() && is_worth_it, |race| race.client.get.up = Some(()));
        add(client.get.up.is_some(), Race::get_arrives);
        add(client.get.down.is_some(), Race::get_is_answered);
        add(is_by_requests && client.post.is_free() && !client.out.is_empty(), Race::post);
        add(client.post.up.is_some(), Race::post_arrives);
        add(client.post.down.is_some(), |race| race.client.post.down = None);
        add(client.phase == Phase::Polling && client.is_connected && !self.is_ending, Race::open_probe);
        let speaks = client.probe.unwrap_or(client.session);
        add(!client.up.is_empty() && self.shard.is_reading(speaks), Race::frame_arrives);
        add(!client.down.is_empty(), Race::frame_is_heard);
        let is_quiet = client.get.is_free() && client.post.is_free();
        add(client.phase == Phase::Pausing && is_quiet, Race::upgrade);
        add(client.phase == Phase::Upgraded && !client.out.is_empty(), Race::send_out);
        let may_break = matches!(client.phase, Phase::Probing | Phase::Pausing) && !self.is_ending;
        add(may_break && self.outcome.broken < 3, Race::break_probe);
        add(!is_done, Race::pass);
        may
    }

    fn say(&mut self) {
        let number = self.client.said;
        self.client.said += 1;
        self.client.out.push_back(format!(r#"42["say",{number}]"#));
    }

    fn tell(&mut self) {
        let message = format!(r#"42["tell",{}]"#, self.told);
        self.told += 1;
        self.step(Input::Text { conn: self.driver, message: message.as_bytes() });
    }

    fn pass(&mut self) {
        self.now.at = self.now.at.after(Duration::from_millis(self.random.below(200)));
        self.step(Input::Tick);
    }

    fn step(&mut self, input: Input<'_>) {
        self.shard.step(self.now, input, &mut self.effects);
    }

    fn get_arrives(&mut self) {
        self.client.get.up = None;
        self.client.get.is_there = true;
        self.polls += 1;
        let (conn, poll) = (self.client.session, PollId(self.polls));
        self.step(Input::Poll { conn, poll });
    }

    fn get_is_answered(&mut self) {
        match self.client.get.down.take() {
            Some(PollAnswer::Packets(packets)) => {
                let packets = String::from_utf8(packets).expect("text");
                if packets.split('\x1e').count() > PACKETS_MAX {
                    self.outcome.failure = Some("a payload of too many packets".into());
                }
                self.outcome.noops += u32::from(packets == "6");
                packets.split('\x1e').for_each(|packet| self.hear(packet, false));
            }
            _ => self.outcome.failure = Some("a GET was refused".into()),
        }
    }

    fn post(&mut self) {
        self.client.post.up = Some(self.client.out.drain(..).collect());
    }

    fn post_arrives(&mut self) {
        let packets = self.client.post.up.take().unwrap_or_default();
        for packet in packets {
            self.step(Input::Text { conn: self.client.session, message: packet.as_bytes() });
        }
        self.client.post.down = Some(());
    }

    fn open_probe(&mut self) {
        let transport = Transport::Probe { of: self.client.session };
        self.client.probe = Some(open(&mut self.shard, self.now, transport, &mut self.effects));
        self.client.phase = Phase::Probing;
        self.client.up.push_back("2probe".into());
    }

    fn break_probe(&mut self) {
        self.outcome.broken += 1;
        self.client.phase = Phase::Polling;
        self.client.up.clear();
        self.client.down.clear();
        if let Some(conn) = self.client.probe.take() {
            self.step(Input::Gone { conn });
        }
    }

    fn frame_arrives(&mut self) {
        let Some(packet) = self.client.up.pop_front() else { return };
        let conn = self.client.probe.unwrap_or(self.client.session);
        self.step(Input::Text { conn, message: packet.as_bytes() });
    }

    fn frame_is_heard(&mut self) {
        let Some(packet) = self.client.down.pop_front() else { return };
        match self.client.phase {
            Phase::Probing if packet == "3probe" => self.client.phase = Phase::Pausing,
            Phase::Upgraded => self.hear(&packet, true),
            _ => self.outcome.failure = Some(format!("{packet} before the upgrade")),
        }
    }

    fn upgrade(&mut self) {
        self.client.phase = Phase::Upgraded;
        self.client.up.push_back("5".into());
        self.send_out();
    }

    fn send_out(&mut self) {
        self.client.up.extend(self.client.out.drain(..));
    }

    fn hear(&mut self, packet: &str, is_by_websocket: bool) {
        match packet.as_bytes() {
            [b'0', ..] | b"6" => {}
            b"2" => self.client.out.push_back("3".into()),
            [b'4', b'0', ..] => self.client.is_connected = true,
            _ => match packet.strip_prefix(r#"42["told","#).and_then(|rest| rest.strip_suffix(']')) {
                Some(number) => {
                    self.client.heard.extend(number.parse::<u32>().ok());
                    *(if is_by_websocket { &mut self.outcome.pushed } else { &mut self.outcome.polled }) += 1;
                }
                None => self.outcome.failure = Some(format!("an unexpected packet: {packet}")),
            },
        }
    }

    fn carry_out(&mut self) {
        loop {
            let effects = std::mem::take(&mut self.effects);
            if effects.is_empty() {
                return;
            }
            if effects.is_soon {
                self.now.at = self.now.at.after(TICK);
                self.step(Input::Tick);
            }
            for (poll, answer) in effects.polls {
                let is_awaited = self.client.get.is_there && poll == PollId(self.polls);
                if !is_awaited {
                    self.outcome.failure = Some("a GET was answered twice".into());
                }
                self.client.get.is_there = false;
                self.client.get.down = Some(self.with_fault(answer));
            }
            for (probe, session) in effects.merged {
                if (Some(probe), session) != (self.client.probe, self.client.session) {
                    self.outcome.failure = Some("the wrong connections are merged".into());
                }
                self.client.probe = None;
                self.outcome.upgraded = true;
                if self.fault == Some(UpgradeFault::LostBehindUpgrade) {
                    self.client.up.clear();
                }
            }
            for conn in effects.dirty.into_iter().chain(effects.dirty_by_crowd) {
                self.flush(conn);
            }
            if !effects.closing.is_empty() || !effects.ended.is_empty() {
                self.outcome.failure = Some("a session ended that broke no rule".into());
            }
        }
    }

    fn with_fault(&mut self, answer: PollAnswer) -> PollAnswer {
        let PollAnswer::Packets(packets) = &answer else { return answer };
        let brings_any = packets.starts_with(b"42");
        match self.fault {
            Some(UpgradeFault::Doubled) if brings_any && self.client.probe.is_some() => {
                let text = String::from_utf8(packets.clone()).expect("text");
                let again = text.split('\x1e').filter(|packet| packet.starts_with("42")).map(str::to_owned);
                self.client.down.extend(again);
                answer
            }
            Some(UpgradeFault::LostAnswer) if brings_any && self.client.probe.is_some() => {
                PollAnswer::Packets(b"6".to_vec())
            }
            _ => answer,
        }
    }

    fn flush(&mut self, conn: ConnId) {
        let is_by_requests = conn == self.client.session && !self.outcome.upgraded;
        if is_by_requests {
            return self.step(Input::Deliver { conn });
        }
        let mut pieces = Vec::new();
        let bytes = self.shard.gather(conn, &mut pieces, 1 << 16);
        let frames = pieces.concat();
        let mut rest = &frames[..];
        let mut packets = VecDeque::new();
        while let Some((_, payload, len)) = frame::first(rest) {
            packets.push_back(String::from_utf8_lossy(payload).into_owned());
            rest = &rest[len..];
        }
        if self.fault == Some(UpgradeFault::Reversed) {
            packets = packets.into_iter().rev().collect();
        }
        if conn == self.driver {
            self.report = packets.pop_back().unwrap_or_default();
        } else {
            self.client.down.extend(packets);
        }
        if bytes > 0 {
            self.step(Input::Wrote { conn, bytes });
        }
    }

    fn judge(&mut self) -> Option<String> {
        let all: Vec<u32> = (0..MESSAGES).collect();
        if self.client.heard != all {
            return Some(format!("the client heard {:?}", self.client.heard));
        }
        self.step(Input::Text { conn: self.driver, message: br#"42["report"]"# });
        self.carry_out();
        let expected = format!(r#"42["report",{all:?}]"#).replace(' ', "");
        if self.report != expected {
            return Some(format!("the server heard {}", self.report));
        }
        for conn in [self.client.probe, Some(self.client.session), Some(self.driver)].into_iter().flatten() {
            self.step(Input::Gone { conn });
        }
        let census = self.shard.census();
        (census.conns != 0 || census.memory.used != census.account.used).then(|| format!("left behind: {census:?}"))
    }
}
