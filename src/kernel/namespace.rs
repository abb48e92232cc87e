//! What a Socket.IO namespace of an application's own is to the kernel: handlers for what its clients send,
//! and what these may do. Sessions, transports, heartbeats, acknowledgements and rooms are the gateway's.
//! Invariant: a namespace hears of a socket from [`Namespace::on_connect`] to [`Namespace::on_disconnect`],
//! each once and in this order, and of nobody whom it did not admit.

use crate::admission::gate;
use crate::admission::names::{NameRefused, RoomName};
use crate::admission::rights::Right;
use crate::base::time::Now;
use crate::kernel::Kernel;
use crate::kernel::calls::Asker;
use crate::kernel::conns::Flags;
use crate::kernel::effects::Effects;
use crate::kernel::entry::Class;
use crate::kernel::ids::{ConnAt, ConnId, RoomRef};
use crate::kernel::mail::{Ask, Request};
use crate::wire::codes::CloseCode;
use crate::wire::{json, socketio};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// What an application does in one namespace. One instance a shard, on that shard's thread: what it keeps
/// is that shard's part, and what takes long holds up everybody there.
pub trait Namespace {
    /// Somebody wants to come in; `auth` is what its client was given as such, a JSON object.
    fn admit(&mut self, _auth: &str) -> Result<(), ConnectRefused> {
        Ok(())
    }

    /// It is in, and was told so.
    fn on_connect(&mut self, _socket: &mut Socket<'_>, _auth: &str) {}

    /// A client emitted an event. `ack`: it waits for an acknowledgement, now or later.
    fn on_event(&mut self, socket: &mut Socket<'_>, event: &str, arguments: &Arguments<'_>, ack: Option<Ack>);

    /// What came of [`Socket::ask`]; `None`: nothing in time.
    fn on_answer(&mut self, _socket: &mut Socket<'_>, _question: u64, _answer: Option<&Arguments<'_>>) {}

    /// The socket is out, whoever ended it.
    fn on_disconnect(&mut self, _socket: ConnId) {}
}

/// Why somebody may not come in: its client's `connect_error` has both.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectRefused {
    pub message: String,
    pub data: Option<serde_json::Value>,
}

/// What an event or an acknowledgement brings: JSON values, in which `{"_placeholder":true,"num":0}` stands
/// for the first of the attachments.
#[derive(Clone, PartialEq, Debug)]
pub struct Arguments<'a> {
    /// Between the brackets of the list.
    json: Cow<'a, str>,
    attachments: &'a [Vec<u8>],
}

impl<'a> Arguments<'a> {
    pub const NONE: Arguments<'static> = Arguments { json: Cow::Borrowed(""), attachments: &[] };

    /// `canonical`: the same as all clients write them, where these did not ([`socketio::canonical`]).
    pub(crate) fn of_packet(
        json: &'a str,
        attachments: &'a [Vec<u8>],
        canonical: &'a Option<(String, Vec<Vec<u8>>)>,
    ) -> Arguments<'a> {
        match canonical {
            None => Arguments { json: Cow::Borrowed(json), attachments },
            Some((json, attachments)) => Arguments { json: Cow::Borrowed(json), attachments },
        }
    }

    /// The fields of a tuple, or the items of a list, as so many arguments; anything else as one. Panics on
    /// what JSON has no word for, such as a map whose keys are no strings.
    pub fn of(values: &impl Serialize) -> Arguments<'static> {
        let json = serde_json::to_string(values).expect("arguments are JSON values");
        let between = json.strip_prefix('[').and_then(|json| json.strip_suffix(']'));
        Arguments { json: Cow::Owned(between.unwrap_or(&json).to_owned()), attachments: &[] }
    }

    /// The JSON text of one value as the only argument: [`Namespace::on_connect`]'s `auth`, for instance.
    pub fn one(json: &'a str) -> Arguments<'a> {
        Arguments { json: Cow::Borrowed(json), attachments: &[] }
    }

    /// With binary attachments, which placeholders among the values name.
    pub fn with(self, attachments: &'a [Vec<u8>]) -> Arguments<'a> {
        Arguments { attachments, ..self }
    }

    /// The values as a list or tuple of this type; `None` where they are none. Types that ignore what they do
    /// not know read only the beginning: see [`Arguments::items`].
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&self.list()).ok()
    }

    /// Each argument's JSON text.
    pub fn items(&self) -> Vec<String> {
        let list = self.list();
        json::array(&list).into_iter().flatten().map(str::to_owned).collect()
    }

    /// The first argument where it is a string, and all that follow it: what many events look like.
    pub fn after_string(&self) -> Option<(String, Arguments<'_>)> {
        let list = self.list();
        let first = json::array(&list)?.next()?;
        let text = json::string(first)?.into_owned();
        let end = first.as_ptr() as usize - list.as_ptr() as usize + first.len();
        let rest = list[end..list.len() - 1].trim_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        Some((text, Arguments { json: Cow::Owned(rest.to_owned()), attachments: self.attachments }))
    }

    pub fn attachments(&self) -> &[Vec<u8>] {
        self.attachments
    }

    fn list(&self) -> String {
        format!("[{}]", self.json)
    }
}

/// An acknowledgement that a client waits for: good for one [`Socket::acknowledge`], [`Socket::join`] or
/// [`Socket::leave`]. Dropped, the client waits in vain.
#[derive(PartialEq, Eq, Debug)]
pub struct Ack(pub(crate) u64);

/// A client in a namespace, for as long as the namespace is called.
pub struct Socket<'a> {
    kernel: &'a mut Kernel,
    effects: &'a mut Effects,
    now: Now,
    conn: ConnId,
}

impl<'a> Socket<'a> {
    pub(crate) fn new(kernel: &'a mut Kernel, effects: &'a mut Effects, now: Now, conn: ConnId) -> Socket<'a> {
        Socket { kernel, effects, now, conn }
    }

    /// Names the socket among those of its shard, for as long as it is in.
    pub fn id(&self) -> ConnId {
        self.conn
    }

    /// Sends it an event. One that does not read is closed once more than `limits.outbox_bytes` waits for it.
    pub fn emit(&mut self, event: &str, arguments: &Arguments<'_>) {
        self.send(Class::Logged, |out, name| {
            socketio::event(out, name, None, event, &arguments.json, arguments.attachments);
        });
    }

    /// The same for what is not worth waiting for: dropped where the socket is slow.
    pub fn emit_volatile(&mut self, event: &str, arguments: &Arguments<'_>) {
        self.send(Class::Transient, |out, name| {
            socketio::event(out, name, None, event, &arguments.json, arguments.attachments);
        });
    }

    /// Sends it an event that it is to acknowledge `within` a time: [`Namespace::on_answer`] is told under the
    /// number of the question.
    pub fn ask(&mut self, event: &str, arguments: &Arguments<'_>, within: Duration, question: u64) {
        let Some(ack) = self.kernel.expect_answer(self.now, self.conn, within, question) else { return };
        self.send(Class::Logged, |out, name| {
            socketio::event(out, name, Some(ack), event, &arguments.json, arguments.attachments);
        });
    }

    pub fn acknowledge(&mut self, ack: Ack, arguments: &Arguments<'_>) {
        self.send(Class::Logged, |out, name| {
            socketio::ack(out, name, ack.0, &arguments.json, arguments.attachments);
        });
    }

    /// Joins a room of the namespace, which is one over all shards. `ack` is acknowledged, with nothing, once
    /// whatever is sent to the room reaches the socket.
    pub fn join(&mut self, room: &str, ack: Option<Ack>) -> Result<(), NameRefused> {
        let room = self.room(room)?;
        self.kernel.ask_as_application(self.conn, room, Ask::Enter { since: None }, ack, self.effects);
        Ok(())
    }

    /// Leaves a room; nothing of it comes behind the acknowledgement.
    pub fn leave(&mut self, room: &str, ack: Option<Ack>) -> Result<(), NameRefused> {
        let room = self.room(room)?;
        self.kernel.ask_as_application(self.conn, room, Ask::Exit, ack, self.effects);
        Ok(())
    }

    /// Sends an event to all others in a room, on whatever shard, in the room's one order.
    pub fn to_room(&mut self, room: &str, event: &str, arguments: &Arguments<'_>) -> Result<(), NameRefused> {
        let room = self.room(room)?;
        self.say(room, event, arguments, true);
        Ok(())
    }

    /// Sends an event to all in the namespace, on whatever shard, this one included.
    pub fn broadcast(&mut self, event: &str, arguments: &Arguments<'_>) {
        let Some(all) = self.kernel.conns.cold(self.conn).map(|cold| cold.identity.user.inbox().clone()) else {
            return;
        };
        self.say(all, event, arguments, false);
    }

    /// Puts it out of the namespace; the session, and other namespaces of it, stay. Clients do not come back by
    /// themselves.
    pub fn disconnect(&mut self) {
        self.kernel.put_out(self.now, self.conn, self.effects);
    }

    /// Puts it out of this and all namespaces, and ends the session: clients come back by themselves.
    pub fn close(&mut self) {
        let Some(carrier) = self.kernel.carriers.carrier_of(self.conn) else { return };
        self.kernel.put_out_all(self.now, carrier, self.effects);
        self.kernel.close(self.now, carrier, CloseCode::Normal, "", self.effects);
    }

    fn send(&mut self, class: Class, write: impl FnOnce(&mut Vec<u8>, &str)) {
        self.kernel.send_packet(self.now, self.conn, class, write, self.effects);
    }

    fn room(&self, name: &str) -> Result<RoomRef, NameRefused> {
        let name = RoomName::parse(name)?;
        let tenant = self.kernel.conns.cold(self.conn).map(|cold| cold.identity.tenant().clone());
        // Those of names that applications choose are another's than that of all its sockets.
        let tenant = format!("{}#", tenant.as_deref().unwrap_or_default());
        Ok(RoomRef::new(tenant.into(), name))
    }

    fn say(&mut self, room: RoomRef, event: &str, arguments: &Arguments<'_>, is_for_others: bool) {
        let mut list = String::with_capacity(arguments.json.len() + 2);
        list.push('[');
        match arguments.attachments.is_empty() {
            true => list.push_str(&arguments.json),
            false => socketio::embed(&mut list, &arguments.json, arguments.attachments),
        }
        list.push(']');
        let ask = Ask::Say { event: event.into(), arguments: list.into(), is_for_others };
        self.kernel.ask_as_application(self.conn, room, ask, None, self.effects);
    }
}

impl Kernel {
    /// Asks a room something in an application's name. Where no credit is left for that, the client is not read
    /// until there is.
    pub fn ask_as_application(
        &mut self,
        conn: ConnId,
        room: RoomRef,
        ask: Ask,
        ack: Option<Ack>,
        effects: &mut Effects,
    ) {
        let Some(row) = self.conns.row(conn).filter(|row| row.is_open()) else { return };
        let dialect = row.dialect;
        let joined = self.membership.rooms_of(conn.0.slot).len() as u32;
        let call = self.calls.open(conn, Asker::Application { ack: ack.map(|ack| ack.0) });
        let Some(cold) = self.conns.cold_mut(conn) else { return };
        cold.pending += 1;
        let request = Request {
            call,
            part: 0,
            room,
            known: None,
            needs: Right::None,
            from: ConnAt { shard: self.id, conn },
            user: cold.identity.user.clone(),
            dialect,
            rooms: joined + u32::from(cold.pending),
            ask,
        };
        let home = self.placement.of(&request.room);
        let mut requests = vec![(home, Box::new(gate::admit_own(request)))];
        if !self.lanes.request(conn, &mut requests, effects) {
            self.pause(conn);
        }
    }

    /// Has a client read no further until what it asked for could be sent.
    pub fn pause(&mut self, conn: ConnId) {
        self.counters.parked += 1;
        let heard = self.carriers.transport_of(conn);
        if let Some(row) = self.conns.row_mut(heard) {
            row.flags.set(Flags::PAUSED);
        }
    }
}

/// Makes a namespace's instance for a shard.
pub type MakeNamespace = Arc<dyn Fn() -> Box<dyn Namespace> + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_apart_and_put_together() {
        let of = |json| Arguments::of_packet(json, &[], &None);
        assert_eq!(of(r#""a" , 1,{"b":[2]}"#).items(), [r#""a""#, "1", r#"{"b":[2]}"#]);
        assert_eq!(of("").items(), Vec::<String>::new());
        assert_eq!(of(r#""room",7"#).read::<(String, u32)>(), Some(("room".into(), 7)));
        assert_eq!(of(r#""room","7""#).read::<(String, u32)>(), None);
        let arguments = of(r#" "ro\"om" , 1, [2] "#);
        let (room, rest) = arguments.after_string().expect("a string");
        assert_eq!((room.as_str(), rest.items()), ("ro\"om", vec!["1".to_owned(), "[2]".to_owned()]));
        let alone = of(r#""room""#);
        assert_eq!(alone.after_string().map(|(room, rest)| (room, rest.items())), Some(("room".into(), vec![])));
        assert_eq!(of("1").after_string(), None);
        assert_eq!(Arguments::of(&(1, "a")).json, r#"1,"a""#);
        assert_eq!(Arguments::of(&"a").json, r#""a""#);
        assert_eq!(Arguments::of(&()).json, "null");
    }
}
