//! What clients of an application's own paths send, and how they are kept from sending more than is
//! taken back from them.
//! Invariant: while more than `outbox.resume` bytes wait for such a client, nothing more is read of it, so
//! an answer as large as any message always has room.

use crate::base::time::Now;
use crate::kernel::conns::{Flags, seconds};
use crate::kernel::effects::Effects;
use crate::kernel::endpoint::{Client, Message};
use crate::kernel::ids::ConnId;
use crate::kernel::rates::Price;
use crate::kernel::reasons::CloseReason;
use crate::shard::Shard;
use crate::wire::dialect::DialectId;

impl Shard {
    /// Who is served at `path`, if an application is.
    pub fn endpoint_at(&self, path: &str) -> Option<DialectId> {
        self.endpoints.iter().position(|served| served.path == path).map(DialectId::of_endpoint)
    }

    pub(super) fn endpoint_of(&self, conn: ConnId) -> Option<usize> {
        self.kernel.conns.row(conn)?.dialect.endpoint()
    }

    pub(super) fn open_endpoint(&mut self, now: Now, conn: ConnId, nth: usize, effects: &mut Effects) {
        self.kernel.watch_expiry(now, conn);
        if let Some(row) = self.kernel.conns.row_mut(conn) {
            row.flags.set(Flags::SERVED);
        }
        let mut client = Client::new(&mut self.kernel, effects, now, conn);
        self.endpoints[nth].endpoint.on_open(&mut client);
        self.pause_sender(conn);
    }

    pub(super) fn on_message(
        &mut self,
        now: Now,
        conn: ConnId,
        nth: usize,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        let served = &mut self.endpoints[nth];
        self.doing = served.path;
        let Some(row) = self.kernel.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        row.heard_s = seconds(now.at);
        row.active_s = row.heard_s;
        self.kernel.counters.requests += 1;
        if let Some(rate) = served.limits.rate
            && self.kernel.pay(now, conn, Price { event: None, rate, rooms: 1 }).is_err()
        {
            // There is no reply that could say how long to wait.
            return self.kernel.close_for(now, conn, CloseReason::AskedOn, effects);
        }
        served.endpoint.on_message(&mut Client::new(&mut self.kernel, effects, now, conn), message);
        self.pause_sender(conn);
    }

    pub(super) fn on_socket_gone(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        self.end_session(now, conn, effects);
        // Who was sent away at once never was its client.
        if let Some(row) = self.kernel.conns.row(conn).filter(|row| row.flags.has(Flags::SERVED))
            && let Some(nth) = row.dialect.endpoint()
        {
            self.endpoints[nth].endpoint.on_close(conn);
        }
        self.kernel.gone(now, conn, effects);
    }

    pub(super) fn pause_sender(&mut self, conn: ConnId) {
        let resume = self.kernel.limits.outbox.resume;
        let is_upgrading = self.is_upgrading(conn);
        if let Some(row) = self.kernel.conns.row_mut(conn)
            && row.outbox.bytes() > resume
            && !is_upgrading
        {
            row.flags.set(Flags::FULL);
        }
    }

    pub(super) fn resume_sender(&mut self, conn: ConnId, effects: &mut Effects) {
        let resume = self.kernel.limits.outbox.resume;
        if let Some(row) = self.kernel.conns.row_mut(conn)
            && row.outbox.bytes() <= resume
        {
            row.flags.clear(Flags::FULL);
            effects.resumed.push(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::identity::{Identity, Particulars};
    use crate::admission::names::User;
    use crate::admission::rates::{Allowance, Rates};
    use crate::admission::revocations::{Revocation, Target};
    use crate::admission::rights::Rate;
    use crate::base::limits::{HEARTBEAT, OUTBOX_BYTES_LEAST};
    use crate::base::time::Instant;
    use crate::features;
    use crate::kernel::Limits;
    use crate::kernel::endpoint::{Endpoint, EndpointLimits, Endpoints};
    use crate::kernel::ids::ShardId;
    use crate::kernel::outbox::OutboxBounds;
    use crate::kernel::paths::Paths;
    use crate::shard::{DrainPace, Input, Opening, ShardConfig};
    use crate::wire::assembler::MessageLimits;
    use crate::wire::codes::CloseCode;
    use crate::wire::deflate::{Inflater, Window};
    use crate::wire::frame::{self, BINARY, CLOSE, COMPRESSED, PING, TEXT};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    type Log = Arc<Mutex<Vec<String>>>;

    /// Answers with what was said, and as often as is asked for; keeps a log.
    struct Parrot(Log);

    impl Endpoint for Parrot {
        fn on_open(&mut self, client: &mut Client<'_>) {
            let user = client.user().map(|(tenant, user)| format!("{tenant}/{user}"));
            self.0.lock().unwrap().push(format!("open {}", user.as_deref().unwrap_or("guest")));
        }

        fn on_message(&mut self, client: &mut Client<'_>, message: Message<'_>) {
            match message {
                Message::Text("go") => client.close(CloseCode::Policy, "as you wish"),
                Message::Text(text) if text.starts_with("often") => (0..5).for_each(|_| client.send(message)),
                message => client.send(message),
            }
        }

        fn on_close(&mut self, _: ConnId) {
            self.0.lock().unwrap().push("close".into());
        }
    }

    struct World {
        shard: Shard,
        effects: Effects,
        now: Now,
        log: Log,
    }

    /// Whatever `/parrot` is called within.
    const OUTBOX: usize = OUTBOX_BYTES_LEAST;

    impl World {
        fn new(rate: Option<Rate>) -> World {
            let conn = Some(Allowance { burst: 8, tokens: 8, period: Duration::from_secs(1) });
            let rates = Rates { conn, ..Rates::default() };
            let limits = Limits { rates, outbox: OutboxBounds::of(OUTBOX), ..Limits::default() };
            let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits };
            let log = Log::default();
            let mut endpoints = Endpoints::default();
            let limits = EndpointLimits { message_bytes: 2 * OUTBOX, fragments: 3, rate };
            for path in ["/other", "/parrot"] {
                let log = Arc::clone(&log);
                endpoints.add(path, limits, Arc::new(move || Box::new(Parrot(Arc::clone(&log)))));
            }
            let now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };
            let shard = Shard::new(config, features::all(), now).with_paths(&Paths { endpoints, ..Paths::default() });
            World { shard, effects: Effects::default(), now, log }
        }

        fn open_as(&mut self, identity: Identity, window: Option<Window>) -> ConnId {
            let plain = self.shard.endpoint_at("/parrot").expect("it is served");
            let dialect = window.map_or(plain, |window| plain.compressed(window));
            let conn = self.shard.reserve().expect("room for all");
            self.step(Input::Open(Box::new(Opening { conn, identity, dialect, greeting: Box::default() })));
            conn
        }

        fn open(&mut self) -> ConnId {
            self.open_as(Identity::guest(), None)
        }

        fn step(&mut self, input: Input<'_>) {
            self.shard.step(self.now, input, &mut self.effects);
        }

        fn text(&mut self, conn: ConnId, text: &str) {
            self.step(Input::Text { conn, message: text.as_bytes() });
        }

        fn tick_after(&mut self, time: Duration) {
            self.now.at = self.now.at.after(time);
            self.step(Input::Tick);
        }

        /// What is written to a socket that takes `bytes_max` of what is offered, as frames.
        fn written(&mut self, conn: ConnId) -> Vec<(u8, Vec<u8>)> {
            let mut frames = Vec::new();
            loop {
                let mut gathered = Vec::new();
                let bytes = self.shard.gather(conn, &mut gathered, 1);
                let Some(first) = gathered.first() else { return frames };
                let (_, payload) = frame::parts(first);
                frames.push((first[0] & !0x80, payload.to_vec()));
                self.step(Input::Wrote { conn, bytes });
            }
        }

        fn log(&self) -> Vec<String> {
            self.log.lock().unwrap().clone()
        }

        /// The code that a close frame at the end of `written` has.
        fn closed(&mut self, conn: ConnId) -> Option<u16> {
            let (opcode, payload) = self.written(conn).pop()?;
            (opcode == CLOSE).then(|| u16::from_be_bytes([payload[0], payload[1]]))
        }
    }

    #[test]
    fn messages_come_back_as_they_were_and_nothing_else_comes() {
        let mut world = World::new(None);
        let conn = world.open();
        world.text(conn, "grüezi 🦀");
        world.text(conn, "");
        world.step(Input::Binary { conn, message: &[0xC0, 0, 0xFF] });
        world.text(conn, "often");
        let often = || (TEXT, b"often".to_vec());
        let expected = [
            (TEXT, "grüezi 🦀".as_bytes().to_vec()),
            (TEXT, Vec::new()),
            (BINARY, vec![0xC0, 0, 0xFF]),
            often(),
            often(),
            often(),
            often(),
            often(),
        ];
        assert_eq!(world.written(conn), expected);
        for _ in 0..8 {
            world.tick_after(HEARTBEAT / 4);
            world.step(Input::Pong { conn });
        }
        let beats = world.written(conn);
        assert!(!beats.is_empty() && beats.iter().all(|(opcode, _)| *opcode == PING), "{beats:?}");
        assert_eq!(world.log(), ["open guest"]);
    }

    #[test]
    fn what_pays_goes_compressed_to_who_reads_that() {
        let mut world = World::new(None);
        let text = "the same again, ".repeat(200);
        for window in [Window::Full, Window::Small] {
            let conn = world.open_as(Identity::guest(), Some(window));
            world.text(conn, &text);
            world.text(conn, "short");
            let frames = world.written(conn);
            assert_eq!(frames[0].0, TEXT | COMPRESSED);
            assert!(frames[0].1.len() < text.len() / 10, "{} bytes", frames[0].1.len());
            assert_eq!(Inflater::default().message(&frames[0].1, 1 << 20).unwrap(), text.as_bytes());
            assert_eq!(frames[1], (TEXT, b"short".to_vec()));
        }
    }

    #[test]
    fn each_path_has_its_own_bounds_and_the_protocol_keeps_its() {
        let world = World::new(None);
        let parrot = world.shard.endpoint_at("/parrot").expect("it is served");
        assert_ne!(Some(parrot), world.shard.endpoint_at("/other"));
        assert_eq!(world.shard.endpoint_at("/parro"), None);
        let limits = world.shard.message_limits(parrot.compressed(Window::Full));
        assert_eq!(limits, MessageLimits { message_bytes: 2 * OUTBOX, fragments: 3, may_compress: true });
        let native = world.shard.message_limits(crate::wire::dialect::NATIVE_JSON);
        assert_eq!(native, MessageLimits::default());
    }

    #[test]
    fn a_sender_who_does_not_read_is_not_read_and_loses_nothing() {
        let mut world = World::new(None);
        let conn = world.open();
        let large = "x".repeat(2 * OUTBOX);
        let resume = OutboxBounds::of(OUTBOX).resume;
        let mut sent = 0;
        while world.shard.is_reading(conn) {
            world.text(conn, &large[..1_000]);
            sent += 1;
        }
        assert!(world.shard.queued(conn) > resume && world.shard.queued(conn) <= resume + 1_004);
        assert!(world.effects.resumed.is_empty());
        let written = world.written(conn);
        assert_eq!(written.len(), sent);
        assert!(world.shard.is_reading(conn));
        assert_eq!(world.effects.resumed, [conn], "told once, when there is room");
        // The largest message of all, after as much as may wait.
        world.text(conn, &large[..resume - 4]);
        assert!(world.shard.is_reading(conn));
        world.text(conn, &large);
        assert!(!world.shard.is_reading(conn));
        assert_eq!(
            world.written(conn).iter().map(|(_, payload)| payload.len()).sum::<usize>(),
            large.len() + resume - 4
        );
        assert!(world.shard.is_reading(conn));
    }

    #[test]
    fn an_application_that_says_more_than_its_client_takes_loses_the_client() {
        let mut world = World::new(None);
        let conn = world.open();
        // Five at once, where four have room.
        let most = format!("often{}", "x".repeat(OUTBOX / 4 - 20));
        world.text(conn, &most);
        assert_eq!(world.effects.closing, [conn]);
        assert_eq!(world.closed(conn), Some(4410));
    }

    #[test]
    fn messages_cost_what_is_declared() {
        let mut free = World::new(None);
        let conn = free.open();
        (0..1_000).for_each(|_| free.text(conn, ""));
        assert_eq!(free.written(conn).len(), 1_000);
        let mut world = World::new(Some(Rate::Light));
        let conn = world.open();
        let served = (0..1_000).take_while(|_| {
            world.text(conn, "");
            world.effects.closing.is_empty()
        });
        let served = served.count();
        assert!((8..1_000).contains(&served), "{served} were served");
        assert_eq!(world.closed(conn), Some(4429));
    }

    #[test]
    fn an_end_is_told_once_whoever_ended_it() {
        for ending in ["application", "peer", "socket", "failure"] {
            let mut world = World::new(None);
            let conn = world.open();
            match ending {
                "application" => world.text(conn, "go"),
                "peer" => world.step(Input::PeerClose { conn, code: Some(1000) }),
                "failure" => world.step(Input::Failed { conn, code: CloseCode::Protocol, reason: "" }),
                _ => {}
            }
            let expected = match ending {
                "application" => Some(1008),
                "peer" => Some(1000),
                "failure" => Some(1002),
                _ => None,
            };
            assert_eq!(world.closed(conn), expected, "{ending}");
            if expected.is_some() {
                world.text(conn, "after the end");
                assert_eq!(world.written(conn), []);
            }
            assert_eq!(world.log(), ["open guest"], "{ending}");
            world.step(Input::Gone { conn });
            assert_eq!(world.log(), ["open guest", "close"], "{ending}");
            assert_eq!(world.shard.snapshot().connections, 0);
        }
    }

    #[test]
    fn a_token_counts_at_an_endpoint_as_anywhere() {
        let mut world = World::new(None);
        let until_s = world.now.unix_ms / 1_000 + 60;
        let user = User::new("acme".into(), "ada");
        let named = Identity::new(user.clone(), Some(until_s), Particulars::default());
        let (expiring, guest) = (world.open_as(named.clone(), None), world.open());
        assert_eq!(world.log(), ["open acme/ada", "open guest"]);
        for _ in 0..62 {
            world.now.unix_ms += 1_000;
            world.tick_after(Duration::from_secs(1));
            world.step(Input::Pong { conn: expiring });
            world.step(Input::Pong { conn: guest });
        }
        let expected = world.written(expiring);
        assert!(expected.iter().all(|(opcode, _)| matches!(*opcode, PING | CLOSE)), "no envelope: {expected:?}");
        assert_eq!(expected.last().map(|(_, payload)| &payload[..2]), Some(&4401u16.to_be_bytes()[..]));
        let revoked = world.open_as(Identity::new(user, None, Particulars::default()), None);
        let target = Target::User { tenant: "acme".into(), user: "ada".into() };
        let order = Revocation { target, issued_upto_unix_s: until_s, until_unix_s: until_s + 3_600 };
        world.step(Input::Revoke { revocations: &[order] });
        assert_eq!(world.closed(revoked), Some(4409));
        assert_eq!(world.effects.closing.len(), 2, "the guest stays");
        world.step(Input::Drain(DrainPace { conns_per_s: 1_000, over: Duration::ZERO, retry: Duration::ZERO }));
        assert_eq!(world.closed(guest), Some(1012));
    }

    #[test]
    fn who_is_sent_away_at_once_is_nobody_that_the_application_hears_of() {
        let mut world = World::new(None);
        world.step(Input::Drain(DrainPace { conns_per_s: 1_000, over: Duration::ZERO, retry: Duration::ZERO }));
        let late = world.open();
        assert_eq!(world.closed(late), Some(1012));
        world.step(Input::Gone { conn: late });
        assert!(world.log().is_empty(), "{:?}", world.log());
    }
}
