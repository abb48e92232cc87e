//! Socket.IO: packets of a session's client become connections to namespaces, requests to the gateway's
//! features, and what applications hear.
//! Invariant: what a client sends is handled in the order in which it came; a packet that breaks the protocol
//! ends the session.

use crate::admission::identity::Identity;
use crate::admission::names::User;
use crate::admission::token::TokenRefused;
use crate::base::limits::ATTACHMENTS_TIME_MAX;
use crate::base::time::Now;
use crate::base::wheel::TICK;
use crate::kernel::Timer;
use crate::kernel::carriers::{Assembling, Entering, Entrant};
use crate::kernel::conns::{Flags, seconds};
use crate::kernel::effects::Effects;
use crate::kernel::entry::{Class, Frame};
use crate::kernel::ids::ConnId;
use crate::kernel::mail::Ask;
use crate::kernel::mounts::By;
use crate::kernel::namespace::{Ack, Arguments, Namespace, Socket};
use crate::kernel::rates::Price;
use crate::kernel::reasons::CloseReason;
use crate::shard::Shard;
use crate::wire::codes::{CloseCode, ErrorCode, WireError};
use crate::wire::dialect::DialectId;
use crate::wire::envelope::{Envelope, RequestId};
use crate::wire::json::Spans;
use crate::wire::socketio::{self, Packet};
use crate::wire::{encode, json};
use std::borrow::Cow;

const NO_ATTACHMENTS: &[Vec<u8>] = &[];
const NOT_IN: &str = "not in this namespace";
/// What clients with auth fields of their own may put before a token.
const BEARER: &str = "Bearer ";

impl Shard {
    /// A message of a session.
    pub(super) fn on_socketio(&mut self, now: Now, conn: ConnId, text: &str, effects: &mut Effects) {
        let Some(nth) = self.mount_of(conn) else { return };
        self.greet_entrant(now, conn, effects);
        let attachments_max = self.served.mounts[nth].settings.attachments_max;
        if self.carrier(conn).is_some_and(|carrier| carrier.assembling.is_some()) {
            return self.fail(now, conn, "attachments were expected", effects);
        }
        match socketio::parse(text, attachments_max) {
            Ok(
                Packet::Event { namespace, attachments: missing @ 1.., .. }
                | Packet::Ack { namespace, attachments: missing @ 1.., .. },
            ) => {
                if self.rider_in(conn, namespace).is_none() {
                    return self.fail(now, conn, NOT_IN, effects);
                }
                let until = now.at.after(ATTACHMENTS_TIME_MAX);
                let assembling =
                    Assembling { packet: text.into(), missing, attachments: Vec::new(), bytes: text.len(), until };
                if let Some(carrier) = self.carrier_mut(conn) {
                    carrier.assembling = Some(Box::new(assembling));
                }
                self.kernel.wheel.set(until, Timer::Session(conn));
            }
            Ok(packet) => self.on_socketio_packet(now, conn, packet, NO_ATTACHMENTS, effects),
            Err(malformed) => self.fail(now, conn, malformed.reason, effects),
        }
    }

    /// A binary message of a session.
    pub(super) fn on_attachment(&mut self, now: Now, conn: ConnId, bytes: &[u8], effects: &mut Effects) {
        let Some(nth) = self.mount_of(conn) else { return };
        let payload_bytes = self.served.mounts[nth].settings.payload_bytes;
        let attachments_max = self.served.mounts[nth].settings.attachments_max;
        let Some(assembling) = self.carrier_mut(conn).and_then(|carrier| carrier.assembling.as_mut()) else {
            return self.fail(now, conn, "an attachment of nothing", effects);
        };
        assembling.bytes += bytes.len();
        if assembling.bytes > payload_bytes {
            return self.kernel.close(now, conn, CloseCode::TooLarge, "attachments are too large together", effects);
        }
        assembling.attachments.push(bytes.to_vec());
        assembling.missing -= 1;
        if assembling.missing > 0 {
            return;
        }
        let Some(whole) = self.carrier_mut(conn).and_then(|carrier| carrier.assembling.take()) else { return };
        let packet = socketio::parse(&whole.packet, attachments_max).expect("it was read before its attachments");
        self.on_socketio_packet(now, conn, packet, &whole.attachments, effects);
    }

    fn on_socketio_packet(
        &mut self,
        now: Now,
        carrier: ConnId,
        packet: Packet<'_>,
        attachments: &[Vec<u8>],
        effects: &mut Effects,
    ) {
        match packet {
            Packet::Connect { namespace, auth } => self.on_connect(now, carrier, namespace, auth, effects),
            Packet::Disconnect { namespace } => match self.rider_in(carrier, namespace) {
                Some(conn) => {
                    let why = (CloseCode::Normal.as_u16(), "disconnected");
                    self.kernel.end_rider(now, conn, why, effects);
                }
                None => self.fail(now, carrier, NOT_IN, effects),
            },
            Packet::Event { namespace, ack, event, arguments, .. } => match self.rider_in(carrier, namespace) {
                Some(conn) => self.on_event(now, (carrier, conn), ack, event, arguments, attachments, effects),
                None => self.fail(now, carrier, NOT_IN, effects),
            },
            Packet::Ack { namespace, ack, arguments, .. } => match self.rider_in(carrier, namespace) {
                Some(conn) => {
                    if !self.pay_for_message(now, carrier, conn, effects) {
                        return;
                    }
                    // Of what was answered already, or never asked, nobody hears.
                    let Some(question) = self.kernel.answered(conn, ack) else { return };
                    let canonical = socketio::canonical(arguments.json, attachments);
                    let answer = Arguments::of_packet(arguments.json, attachments, &canonical);
                    self.with_application(now, conn, effects, |application, socket| {
                        application.on_answer(socket, question, Some(&answer));
                    });
                }
                None => self.fail(now, carrier, NOT_IN, effects),
            },
        }
    }

    fn rider_in(&self, carrier: ConnId, namespace: &str) -> Option<ConnId> {
        let is_in = |conn: &&ConnId| {
            let nth = self.kernel.conns.row(**conn).and_then(|row| row.dialect.namespace());
            nth.is_some_and(|nth| &*self.served.namespaces[nth].name == namespace)
        };
        self.carrier(carrier)?.riders.iter().find(is_in).copied()
    }

    fn on_connect(&mut self, now: Now, carrier: ConnId, namespace: &str, auth: &str, effects: &mut Effects) {
        if self.rider_in(carrier, namespace).is_some() {
            return self.fail(now, carrier, "in this namespace already", effects);
        }
        // Whoever tries token after token, or namespace after namespace, is at its end soon.
        if self.kernel.pay(now, carrier, Price::RUBBISH).is_err() {
            return self.kernel.close_for(now, carrier, CloseReason::AskedOn, effects);
        }
        if self.is_draining() {
            return self.send_back(now, carrier, effects);
        }
        let Some(By::Namespaces { first, end }) = self.mount_of(carrier).map(|nth| &self.served.mounts[nth].by) else {
            return;
        };
        let served = *first..*end;
        let Some(nth) = served.into_iter().find(|nth| &*self.served.namespaces[*nth].name == namespace) else {
            return self.refuse_namespace(now, carrier, namespace, "Invalid namespace", None, effects);
        };
        let application = self.served.namespaces[nth].application.as_mut();
        if let Some(Err(refused)) = application.map(|application| application.admit(auth)) {
            let data = refused.data.map(|data| data.to_string());
            return self.refuse_namespace(now, carrier, namespace, &refused.message, data.as_deref(), effects);
        }
        let is_of_application = self.served.namespaces[nth].application.is_some();
        let identity = if is_of_application {
            // One user for all, whose own room is that of the whole namespace.
            Identity::of_user(User::new(self.served.namespaces[nth].tenant.clone(), ""))
        } else {
            match self.identity_of(now, carrier, auth) {
                Ok(identity) => identity,
                Err(refused) => {
                    effects.failures.push(carrier);
                    effects.keys_wanted |= refused == TokenRefused::UnknownKey;
                    let data = format!(r#"{{"code":"{}"}}"#, refused.code().as_str());
                    return self.refuse_namespace(now, carrier, namespace, &refused.to_string(), Some(&data), effects);
                }
            }
        };
        let Some(conn) = self.reserve() else {
            let data = format!(r#"{{"code":"{}"}}"#, ErrorCode::Unavailable.as_str());
            let message = "this server holds as many connections as it may; try again later";
            return self.refuse_namespace(now, carrier, namespace, message, Some(&data), effects);
        };
        if is_of_application {
            return self.come_in(now, carrier, Entering { conn, namespace: nth, identity }, auth, effects);
        }
        effects.entrants.push(Entrant { conn, carrier, identity: identity.clone() });
        if let Some(row) = self.kernel.conns.row_mut(carrier) {
            row.flags.set(Flags::PAUSED);
        }
        if let Some(carrier) = self.carrier_mut(carrier) {
            carrier.entering = Some(Box::new(Entering { conn, namespace: nth, identity }));
        }
    }

    /// Who the token of a namespace's `auth` names; where there is none, that of the session's first request.
    fn identity_of(&self, now: Now, carrier: ConnId, auth: &str) -> Result<Identity, TokenRefused> {
        let tokens = json::object(auth).into_iter().flatten();
        let token = tokens.filter(|(key, _)| &*key.name() == b"token").find_map(|(_, value)| json::string(value));
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            return self.kernel.verify(now, token.strip_prefix(BEARER).unwrap_or(&token));
        }
        if let Some(refused) = self.carrier(carrier).and_then(|carrier| carrier.refused) {
            return Err(refused);
        }
        let identity = self.kernel.conns.cold(carrier).map(|cold| cold.identity.clone());
        let identity = identity.filter(|identity| !identity.is_guest()).ok_or(TokenRefused::Missing)?;
        if self.kernel.is_void(now, &identity) {
            return Err(TokenRefused::Revoked);
        }
        match identity.expires_unix_s() {
            Some(end) if end <= now.unix_ms / 1_000 => Err(TokenRefused::Expired),
            _ => Ok(identity),
        }
    }

    fn refuse_namespace(
        &mut self,
        now: Now,
        carrier: ConnId,
        namespace: &str,
        message: &str,
        data: Option<&str>,
        effects: &mut Effects,
    ) {
        let Some(dialect) = self.kernel.conns.row(carrier).map(|row| row.dialect) else { return };
        let refusal = |out: &mut Vec<u8>| socketio::connect_error(out, namespace, message, data);
        let frame = self.kernel.encoder.frames(dialect.plain(), refusal);
        let frame = Frame::logged(&self.kernel.memory.account, frame);
        self.kernel.push_to(now, carrier, &frame, effects);
    }

    /// The edge has looked at the limits of who asked to come in.
    pub(super) fn on_entered(
        &mut self,
        now: Now,
        conn: ConnId,
        carrier: ConnId,
        refused: Option<WireError>,
        effects: &mut Effects,
    ) {
        let Some(entering) = self.carrier_mut(carrier).and_then(|carrier| carrier.entering.take()) else {
            // The session ended meanwhile, and with it the slot.
            return effects.left.push(conn);
        };
        self.resume(carrier, effects);
        let Some(error) = refused else {
            return self.come_in(now, carrier, *entering, "{}", effects);
        };
        self.kernel.conns.free(entering.conn);
        let name = self.served.namespaces[entering.namespace].name.clone();
        self.kernel.counters.error(&error);
        let mut data = Vec::new();
        encode::error_object(&mut data, &error);
        let data = String::from_utf8(data).expect("JSON is UTF-8");
        self.refuse_namespace(now, carrier, &name, &error.message, Some(&data), effects);
    }

    /// Somebody is in a namespace from now on.
    fn come_in(&mut self, now: Now, carrier: ConnId, entering: Entering, auth: &str, effects: &mut Effects) {
        let Entering { conn, namespace, identity } = entering;
        let window = self.kernel.conns.row(carrier).and_then(|row| row.dialect.window());
        let plain = DialectId::of_namespace(namespace);
        let dialect = window.map_or(plain, |window| plain.compressed(window));
        let inbox = identity.user.inbox().clone();
        let bucket = self.kernel.meters.full(now.at);
        self.kernel.conns.open(conn, dialect, identity, bucket, now.at);
        self.kernel.ride(carrier, conn);
        let sid = self.kernel.mids.next(now.unix_ms).text();
        let sid = std::str::from_utf8(&sid).expect("base32 is ASCII");
        self.kernel.send_packet(now, conn, Class::Logged, |out, name| socketio::connected(out, name, sid), effects);
        if self.served.namespaces[namespace].application.is_none() {
            return self.enter_inbox(conn, inbox, None, effects);
        }
        // What is said to the whole namespace, before anything that it asks for itself.
        self.kernel.ask_as_application(conn, inbox, Ask::Enter { since: None }, None, effects);
        // An application's first words come in a segment of their own: who listens for one message after the
        // other, as the protocol's own test suite does, hears but the first of those that come together. Who
        // goes on without listening has them at once.
        if let Some(carrier) = self.carrier_mut(carrier) {
            carrier.ungreeted = Some(Box::new((conn, auth.into())));
        }
        self.kernel.wheel.set(now.at.after(TICK), Timer::Session(carrier));
        effects.is_soon = true;
    }

    /// Tells an application of somebody who has come in, before anything that it says.
    pub(super) fn greet_entrant(&mut self, now: Now, carrier: ConnId, effects: &mut Effects) {
        let Some(ungreeted) = self.carrier_mut(carrier).and_then(|carrier| carrier.ungreeted.take()) else { return };
        let (conn, auth) = *ungreeted;
        if let Some(row) = self.kernel.conns.row_mut(conn) {
            row.flags.set(Flags::SERVED);
        }
        self.with_application(now, conn, effects, |application, socket| application.on_connect(socket, &auth));
    }

    #[allow(clippy::too_many_arguments, reason = "what a packet has, and where it came from")]
    fn on_event(
        &mut self,
        now: Now,
        (carrier, conn): (ConnId, ConnId),
        ack: Option<u64>,
        event: Cow<'_, str>,
        arguments: socketio::Arguments<'_>,
        attachments: &[Vec<u8>],
        effects: &mut Effects,
    ) {
        let Some(nth) = self.kernel.conns.row(conn).and_then(|row| row.dialect.namespace()) else { return };
        if self.served.namespaces[nth].application.is_some() {
            if self.pay_for_message(now, carrier, conn, effects) {
                let canonical = socketio::canonical(arguments.json, attachments);
                let arguments = Arguments::of_packet(arguments.json, attachments, &canonical);
                self.with_application(now, conn, effects, |application, socket| {
                    application.on_event(socket, &event, &arguments, ack.map(Ack));
                });
            }
            return;
        }
        if let Some(row) = self.kernel.conns.row_mut(carrier) {
            row.active_s = seconds(now.at);
        }
        self.kernel.counters.requests += 1;
        let aliases = self.served.namespaces[nth].aliases.clone();
        let request = match aliases.request(&event, &arguments) {
            Ok(request) => request,
            Err(error) => {
                let id = ack.map(|ack| RequestId::Integer(ack as i64));
                return self.refuse_rubbish(now, conn, id.as_ref(), Some(&event), error, effects);
            }
        };
        let (id, event) = (request.id(ack), Cow::Borrowed(request.event));
        if attachments.is_empty() {
            let envelope = Envelope { id, event, data: &request.data, spans: request.spans.clone() };
            return self.answer(now, conn, envelope, effects);
        }
        let mut data = String::new();
        socketio::embed(&mut data, &request.data, attachments);
        if data.len() > self.kernel.limits.message_bytes {
            let error = WireError::new(ErrorCode::TooLarge, "attachments make the message too large");
            return self.refuse_rubbish(now, conn, id.as_ref(), Some(&event), error, effects);
        }
        self.answer(now, conn, Envelope { id, event, data: &data, spans: Spans::NONE }, effects);
    }

    /// Lets an application do something about a socket of its own.
    fn with_application(
        &mut self,
        now: Now,
        conn: ConnId,
        effects: &mut Effects,
        work: impl FnOnce(&mut dyn Namespace, &mut Socket<'_>),
    ) {
        let Some(nth) = self.kernel.conns.row(conn).and_then(|row| row.dialect.namespace()) else { return };
        let carrier = self.kernel.carriers.transport_of(conn);
        if let Some(application) = &mut self.served.namespaces[nth].application {
            work(&mut **application, &mut Socket::new(&mut self.kernel, effects, now, conn));
        }
        self.pause_sender(carrier);
    }

    /// What came of an application's join or leave.
    pub(super) fn acknowledge_application(
        &mut self,
        now: Now,
        conn: ConnId,
        ack: u64,
        refused: Option<&WireError>,
        effects: &mut Effects,
    ) {
        let mut error = Vec::new();
        if let Some(refused) = refused {
            self.kernel.counters.error(refused);
            error.extend_from_slice(br#"{"error":"#);
            encode::error_object(&mut error, refused);
            error.push(b'}');
        }
        let arguments = std::str::from_utf8(&error).expect("JSON is UTF-8");
        let acknowledge = |out: &mut Vec<u8>, name: &str| socketio::ack(out, name, ack, arguments, NO_ATTACHMENTS);
        self.kernel.send_packet(now, conn, Class::Logged, acknowledge, effects);
    }

    /// Some of what an application asked may have had no answer in time.
    pub(super) fn on_unanswered(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        for question in self.kernel.unanswered(now, conn) {
            self.with_application(now, conn, effects, |application, socket| {
                application.on_answer(socket, question, None);
            });
        }
    }

    pub(super) fn on_left(&mut self, nth: usize, conn: ConnId) {
        if let Some(application) = &mut self.served.namespaces[nth].application {
            application.on_disconnect(conn);
        }
    }
}
