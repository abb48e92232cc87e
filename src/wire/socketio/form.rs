//! How pushes and replies are written for who is in a namespace: made of the native JSON frame, once for all of
//! them. Invariants: the frame is ours, so its fields stand in the order that `wire::encode` gives them and `data`
//! is never walked over; what a client of Socket.IO cannot be told closes no connection.

use super::binary::string_end;
use super::write::packet;
use super::{extract, is_reserved};
use crate::base::limits::NAMESPACES_MAX;
use crate::wire::alias::Aliases;
use crate::wire::frame;
use crate::wire::json;
use std::borrow::Cow;
use std::sync::Arc;

/// What the packets of a namespace are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// The gateway's: `[event, data, meta]`.
    Gateway,
    /// An application's: the data is a list of arguments, `[event, ...data]`.
    Application,
}

/// How one namespace is written for.
#[derive(Clone, Debug)]
pub struct Form {
    pub namespace: Box<str>,
    pub style: Style,
    pub aliases: Arc<Aliases>,
}

/// Those of all namespaces, in the order of their dialects.
#[derive(Clone, Default, Debug)]
pub struct Forms(Box<[Form]>);

impl Forms {
    /// At most `NAMESPACES_MAX`; panics beyond.
    pub fn new(forms: Vec<Form>) -> Forms {
        assert!(forms.len() <= NAMESPACES_MAX, "{} namespaces", forms.len());
        Forms(forms.into())
    }

    /// That of a namespace, counted as its dialect is.
    pub fn get(&self, nth: usize) -> Option<&Form> {
        self.0.get(nth)
    }
}

impl Form {
    /// Appends what the native JSON frame tells, as whole WebSocket frames.
    pub fn translate(&self, out: &mut Vec<u8>, json_frame: &[u8]) {
        let (_, json) = frame::parts(json_frame);
        let json = std::str::from_utf8(json).expect("what we wrote is text");
        match (json.strip_prefix(EVENT), json.strip_prefix(ID)) {
            (Some(push), _) => self.push(out, push),
            (_, Some(reply)) => self.reply(out, reply),
            _ => unreachable!("a frame of ours is a push or a reply"),
        }
    }

    /// `push`: from the event's name on.
    fn push(&self, out: &mut Vec<u8>, push: &str) {
        let (name, rest) = push.split_at(string_end(push.as_bytes(), 0));
        // A string holds no quote without a backslash before it, so this is where the data begins.
        let mut commas = memchr::memchr_iter(b',', rest.as_bytes());
        let at = commas.find(|at| rest[*at..].starts_with(DATA)).expect("a push has data");
        let data = &rest[at + DATA.len()..rest.len() - 1];
        let meta = rest[..at].strip_prefix(',').unwrap_or_default();
        if self.style == Style::Application {
            return self.arguments(out, name, data);
        }
        let pushes = self.aliases.pushes(&name[1..name.len() - 1]);
        if pushes.is_empty() {
            return self.told(out, name, data, meta);
        }
        for push in pushes {
            let mapped = push.fields.told(data, &format!("{{{meta}}}"));
            self.told(out, &push.name, mapped.as_deref().unwrap_or(data), meta);
        }
    }

    /// Appends an event of the gateway: its data, and the fields of what else is known of it.
    fn told(&self, out: &mut Vec<u8>, name: &str, data: &str, meta: &str) {
        let (data, attachments) = with_placeholders(data);
        let array = ["[", &allowed(name), ",", &data, ",{", meta, "}]"];
        packet(out, ["42", "45"], &self.namespace, None, &array, &attachments);
    }

    /// Appends an event of an application, whose data is the list of its arguments.
    fn arguments(&self, out: &mut Vec<u8>, name: &str, data: &str) {
        let inner = data.strip_prefix('[').and_then(|data| data.strip_suffix(']')).unwrap_or(data).trim();
        let (inner, attachments) = with_placeholders(inner);
        let comma = if inner.is_empty() { "" } else { "," };
        packet(out, ["42", "45"], &self.namespace, None, &["[", &allowed(name), comma, &inner, "]"], &attachments);
    }

    /// `reply`: from the request's id on.
    fn reply(&self, out: &mut Vec<u8>, reply: &str) {
        let id_end = match reply.as_bytes()[0] {
            b'"' => string_end(reply.as_bytes(), 0),
            _ => memchr::memchr(b',', reply.as_bytes()).expect("something follows an id"),
        };
        let (id, rest) = reply.split_at(id_end);
        let (ack, alias) = asked_by(id);
        let told = &rest[1..rest.len() - 1];
        let alias = alias.and_then(|nth| self.aliases.reply(nth));
        match (told.strip_prefix(OK), told.strip_prefix(NOT_OK)) {
            (Some(data), _) => {
                let mapped = alias.and_then(|alias| alias.fields.told(data, "{}"));
                let data = mapped.as_deref().unwrap_or(data);
                if let Some(ack) = ack {
                    let (data, attachments) = with_placeholders(data);
                    self.answer(out, ack, &["[{", OK, &data, "}]"], &attachments);
                }
                if let Some(push) = alias.and_then(|alias| alias.push.as_deref()) {
                    self.told(out, push, data, "");
                }
            }
            (_, Some(error)) => match (ack, alias) {
                (Some(ack), _) => self.answer(out, ack, &["[{", NOT_OK, error, "}]"], NOTHING),
                // Nobody waits for it, so it is told as failures of requests without an id are.
                (None, Some(alias)) => {
                    let fields = error.strip_prefix('{').expect("an error is an object");
                    let array = [r#"["error",{"event":"#, &alias.event, ",", fields, ",{}]"];
                    packet(out, ["42", "45"], &self.namespace, None, &array, NOTHING);
                }
                (None, None) => {}
            },
            _ => unreachable!("a reply says whether it is one of success"),
        }
    }

    fn answer(&self, out: &mut Vec<u8>, ack: u64, array: &[&str], attachments: &[Vec<u8>]) {
        packet(out, ["43", "46"], &self.namespace, Some(ack), array, attachments);
    }
}

const EVENT: &str = r#"{"event":"#;
const DATA: &str = r#","data":"#;
const ID: &str = r#"{"id":"#;
const OK: &str = r#""ok":true,"data":"#;
const NOT_OK: &str = r#""ok":false,"error":"#;
const NOTHING: &[Vec<u8>] = &[];

/// The acknowledgement and the alias that a request goes by (`Request::id`).
fn asked_by(id: &str) -> (Option<u64>, Option<usize>) {
    let Some(both) = json::string(id) else { return (json::unsigned(id), None) };
    let (ack, alias) = both.split_once(':').unwrap_or((&both, ""));
    (json::unsigned(ack), alias.parse().ok())
}

/// JSON with its bytes taken out.
fn with_placeholders(json: &str) -> (Cow<'_, str>, Vec<Vec<u8>>) {
    let mut attachments = Vec::new();
    let json = extract(json, &mut attachments).map_or(Cow::Borrowed(json), Cow::Owned);
    (json, attachments)
}

/// The name of an event, a JSON string, under which clients take it: those that they raise themselves would end
/// their connections, so somebody who publishes one under such a name is heard as `event:connect`.
fn allowed(name: &str) -> Cow<'_, str> {
    match is_reserved(&name[1..name.len() - 1]) {
        false => Cow::Borrowed(name),
        true => Cow::Owned(format!("\"event:{}", &name[1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::alias::{DeclaredAlias, DeclaredPush};
    use crate::wire::codes::{ErrorCode, WireError};
    use crate::wire::dialect::{self, DialectId};
    use crate::wire::encode::{self, Push};
    use crate::wire::envelope::RequestId;
    use crate::wire::socketio::values;
    use crate::wire::socketio::write::tests::taken_apart;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn forms(style: Style, aliases: Aliases) -> Forms {
        let form = |namespace: &str, aliases| Form { namespace: namespace.into(), style, aliases };
        Forms::new(vec![form("/", Arc::default()), form("/chat", Arc::new(aliases))])
    }

    /// The frames that a native JSON frame becomes for who is in `/chat`, taken apart.
    fn in_chat(forms: &Forms, json_frame: &[u8]) -> Vec<(String, Vec<Vec<u8>>)> {
        let mut out = vec![7];
        dialect::translate(DialectId::of_namespace(1), forms, &mut out, json_frame);
        let mut packets = Vec::new();
        let mut rest = &out[1..];
        while !rest.is_empty() {
            let (_, _, mut end) = frame::first(rest).expect("a whole frame");
            while let Some((frame::BINARY, _, bytes)) = frame::first(&rest[end..]) {
                end += bytes;
            }
            packets.push(taken_apart(&rest[..end]));
            rest = &rest[end..];
        }
        packets
    }

    fn texts(packets: Vec<(String, Vec<Vec<u8>>)>) -> Vec<String> {
        packets.into_iter().map(|(text, _)| text).collect()
    }

    const PUSH: Push<'_> = Push {
        event: "message:new",
        room: Some("chat:1"),
        seq: Some(41),
        mid: Some(b"01J0000000000000000000000Z"),
        ts: Some(1_763_690_000_123),
        from: Some("alice"),
        data: br#"{"a":[1]}"#,
    };
    const BARE: Push<'_> =
        Push { event: "heartbeat", room: None, seq: None, mid: None, ts: None, from: None, data: b"{\"ts\":1}" };

    fn pushed(push: &Push<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode::push(&mut out, push);
        out
    }

    #[test]
    fn a_push_is_an_event_its_data_and_what_else_is_known() {
        let forms = forms(Style::Gateway, Aliases::default());
        assert_eq!(
            texts(in_chat(&forms, &pushed(&PUSH))),
            [
                r#"2/chat,["message:new",{"a":[1]},{"room":"chat:1","seq":41,"mid":"01J0000000000000000000000Z","ts":1763690000123,"from":"alice"}]"#
            ]
        );
        assert_eq!(texts(in_chat(&forms, &pushed(&BARE))), [r#"2/chat,["heartbeat",{"ts":1},{}]"#]);
        let mut out = Vec::new();
        dialect::translate(DialectId::of_namespace(0), &forms, &mut out, &pushed(&BARE));
        assert_eq!(taken_apart(&out).0, r#"2["heartbeat",{"ts":1},{}]"#);
        let mut error = Vec::new();
        encode::error_push(&mut error, Some("room:join"), &WireError::new(ErrorCode::Forbidden, "no"));
        let expected = r#"2/chat,["error",{"event":"room:join","code":"forbidden","message":"no"},{}]"#;
        assert_eq!(texts(in_chat(&forms, &error)), [expected]);
    }

    #[test]
    fn an_application_emits_its_arguments() {
        let forms = forms(Style::Application, Aliases::default());
        for (data, arguments) in [
            ("[]", ""),
            ("[ ]", ""),
            ("[1, {\"a\":[2]} ]", ",1, {\"a\":[2]}"),
            (r#"["a",{"$bin":"YWI="}]"#, r#","a",{"_placeholder":true,"num":0}"#),
        ] {
            let push = Push { event: "a \"b\"", data: data.as_bytes(), ..PUSH };
            let packets = in_chat(&forms, &pushed(&push));
            let kind = if packets[0].1.is_empty() { "2" } else { "51-" };
            assert_eq!(texts(packets), [format!(r#"{kind}/chat,["a \"b\""{arguments}]"#)]);
        }
    }

    #[test]
    fn a_reply_is_an_acknowledgement() {
        let forms = forms(Style::Gateway, Aliases::default());
        let mut out = Vec::new();
        encode::reply_ok(&mut out, &RequestId::Integer(12), br#"{"pos":"1"}"#);
        assert_eq!(texts(in_chat(&forms, &out)), [r#"3/chat,12[{"ok":true,"data":{"pos":"1"}}]"#]);
        out.clear();
        encode::reply_error(&mut out, &RequestId::Integer(0), &WireError::new(ErrorCode::Forbidden, "\"no\""));
        assert_eq!(
            texts(in_chat(&forms, &out)),
            [r#"3/chat,0[{"ok":false,"error":{"code":"forbidden","message":"\"no\""}}]"#]
        );
        out.clear();
        encode::reply_ok(&mut out, &RequestId::Integer(3), br#"[{"$bin":"YWI="}]"#);
        let (text, attachments) = in_chat(&forms, &out).remove(0);
        assert_eq!(text, r#"61-/chat,3[{"ok":true,"data":[{"_placeholder":true,"num":0}]}]"#);
        assert_eq!(attachments, [b"ab"]);
    }

    #[test]
    fn who_publishes_what_clients_raise_themselves_closes_no_connection() {
        let forms = forms(Style::Gateway, Aliases::default());
        let push = Push { event: "disconnect", ..BARE };
        assert_eq!(texts(in_chat(&forms, &pushed(&push))), [r#"2/chat,["event:disconnect",{"ts":1},{}]"#]);
    }

    fn aliases() -> Aliases {
        let push = |event: &str, name: &str, fields: &str| DeclaredPush {
            event: event.into(),
            name: name.into(),
            fields: fields.into(),
        };
        let alias = |event: &str, request: &str, reply_push: &str, reply_fields: &str| DeclaredAlias {
            event: event.into(),
            request: request.into(),
            reply_push: reply_push.into(),
            reply_fields: reply_fields.into(),
            ..DeclaredAlias::default()
        };
        let rows = [
            alias("join_room", "room:join", "room_joined", "chatId = {room after chat:}"),
            alias("stats", "room:info", "", "online = {members}"),
        ];
        let pushes = [
            push("message:new", "NEW_MESSAGE", "chatId = {room after chat:}, senderId = {from}, room = {room}"),
            push("connected", "", ""),
            push("connected", "connection.confirmed", ""),
        ];
        Aliases::new(&rows, &pushes).expect("well declared")
    }

    #[test]
    fn pushes_are_heard_under_the_names_of_their_rows() {
        let forms = forms(Style::Gateway, aliases());
        let packets = texts(in_chat(&forms, &pushed(&PUSH)));
        let start = r#"2/chat,["NEW_MESSAGE",{"a":[1],"chatId":"1","senderId":"alice","room":"chat:1"},{"room":"#;
        assert!(packets[0].starts_with(start), "{packets:?}");
        // Data that is no object, and fields that cannot be made.
        let bare = Push { data: b"[1]", ..PUSH };
        assert!(texts(in_chat(&forms, &pushed(&bare)))[0].starts_with(r#"2/chat,["NEW_MESSAGE",[1],{"#));
        let odd = Push { data: br#"{"room":{},"from":null}"#, ..BARE };
        let odd = Push { event: "message:new", ..odd };
        assert_eq!(texts(in_chat(&forms, &pushed(&odd))), [r#"2/chat,["NEW_MESSAGE",{"room":{}},{}]"#]);
        let connected = Push { event: "connected", ..BARE };
        assert_eq!(
            texts(in_chat(&forms, &pushed(&connected))),
            [r#"2/chat,["connected",{"ts":1},{}]"#, r#"2/chat,["connection.confirmed",{"ts":1},{}]"#]
        );
        assert_eq!(texts(in_chat(&forms, &pushed(&BARE))), [r#"2/chat,["heartbeat",{"ts":1},{}]"#]);
    }

    #[test]
    fn a_reply_is_pushed_too_where_its_alias_says_so() {
        let aliases = aliases();
        let arguments = crate::wire::socketio::Arguments::NONE;
        let id = |event: &'static str, ack| aliases.request(event, &arguments).expect("an alias").id(ack);
        let (both, push_alone, fields) = (id("join_room", Some(4)), id("join_room", None), id("stats", Some(5)));
        let forms = forms(Style::Gateway, aliases.clone());
        let done = |id: &Option<RequestId>, data: &str| {
            let mut out = Vec::new();
            encode::reply_ok(&mut out, id.as_ref().expect("an id"), data.as_bytes());
            texts(in_chat(&forms, &out))
        };
        let (answer, push) = (
            r#"3/chat,4[{"ok":true,"data":{"pos":"1","chatId":"7"}}]"#,
            r#"2/chat,["room_joined",{"pos":"1","chatId":"7"},{}]"#,
        );
        assert_eq!(done(&both, r#"{"room":"chat:7","pos":"1"}"#), [answer, push]);
        assert_eq!(done(&push_alone, r#"{"room":"chat:7","pos":"1"}"#), [push]);
        assert_eq!(done(&fields, r#"{"members":3}"#), [r#"3/chat,5[{"ok":true,"data":{"online":3}}]"#]);
        let failed = |id: &Option<RequestId>| {
            let mut out = Vec::new();
            let error = WireError::new(ErrorCode::Forbidden, "no");
            encode::reply_error(&mut out, id.as_ref().expect("an id"), &error);
            texts(in_chat(&forms, &out))
        };
        let refused = r#"{"code":"forbidden","message":"no"}"#;
        assert_eq!(failed(&both), [format!(r#"3/chat,4[{{"ok":false,"error":{refused}}}]"#)]);
        let told = r#"2/chat,["error",{"event":"join_room","code":"forbidden","message":"no"},{}]"#;
        assert_eq!(failed(&push_alone), [told]);
        assert_eq!(id("room:join", Some(9)), Some(RequestId::Integer(9)));
        assert_eq!(id("room:join", None), None);
    }

    /// Placeholders back to what they stand for.
    fn with_bytes(tree: Value, attachments: &[Vec<u8>]) -> Value {
        match tree {
            Value::Array(items) => items.into_iter().map(|item| with_bytes(item, attachments)).collect(),
            Value::Object(fields) if fields.contains_key("_placeholder") => {
                json!({"$bin": STANDARD.encode(&attachments[fields["num"].as_u64().expect("a number") as usize])})
            }
            Value::Object(fields) => {
                fields.into_iter().map(|(key, value)| (key, with_bytes(value, attachments))).collect()
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn pushes_of_any_content_arrive_with_it(
            event in "[A-Za-z0-9_.:-]{1,64}|\\PC{1,12}",
            room: Option<String>, seq: Option<u64>, ts: Option<u64>, from: Option<String>,
            tree in values(), bytes in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
        ) {
            prop_assume!(!is_reserved(&event));
            let data = match &bytes {
                Some(bytes) => json!({"x": tree, "bytes": {"$bin": STANDARD.encode(bytes)}}),
                None => tree,
            };
            let raw = data.to_string();
            let frame = pushed(&Push {
                event: &event, room: room.as_deref(), seq, mid: None, ts, from: from.as_deref(), data: raw.as_bytes(),
            });
            let mut meta = json!({});
            for (key, text) in [("room", room), ("from", from)] {
                if let Some(text) = text { meta[key] = text.into(); }
            }
            for (key, number) in [("seq", seq), ("ts", ts)] {
                if let Some(number) = number { meta[key] = number.into(); }
            }
            let (text, attachments) = in_chat(&forms(Style::Gateway, Aliases::default()), &frame).remove(0);
            let start = if bytes.is_some() { "51-/chat," } else { "2/chat," };
            let array = text.strip_prefix(start);
            prop_assert!(array.is_some(), "{}", text);
            let array: Value = serde_json::from_str(array.unwrap_or_default()).expect("JSON");
            prop_assert_eq!(with_bytes(array, &attachments), json!([event, data, meta]));
            let frame = pushed(&Push { data: format!("[{raw}]").as_bytes(), event: &event, ..PUSH });
            let (text, attachments) = in_chat(&forms(Style::Application, Aliases::default()), &frame).remove(0);
            let array: Value = serde_json::from_str(&text[start.len()..]).expect("JSON");
            prop_assert_eq!(with_bytes(array, &attachments), json!([event, data]));
        }
    }
}
