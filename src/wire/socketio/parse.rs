//! Packets of clients. Invariants: the JSON of a packet has been checked throughout, in one walk; the
//! placeholders of a binary packet each name one of its attachments, no two the same.

use super::binary;
use crate::base::limits::{ARGUMENTS_MAX, NAMESPACE_BYTES_MAX};
use crate::wire::engine::Malformed;
use crate::wire::json::{self, JsonError, Spans};
use std::borrow::Cow;

/// One packet of a client.
#[derive(Clone, PartialEq, Debug)]
pub enum Packet<'a> {
    /// `auth` is a JSON object, `{}` where there was none.
    Connect {
        namespace: &'a str,
        auth: &'a str,
    },
    Disconnect {
        namespace: &'a str,
    },
    /// So many attachments follow, each a binary message.
    Event {
        namespace: &'a str,
        ack: Option<u64>,
        event: Cow<'a, str>,
        arguments: Arguments<'a>,
        attachments: usize,
    },
    /// So many attachments follow, each a binary message.
    Ack {
        namespace: &'a str,
        ack: u64,
        arguments: Arguments<'a>,
        attachments: usize,
    },
}

/// What an event or an acknowledgement carries.
#[derive(Clone, PartialEq, Debug)]
pub struct Arguments<'a> {
    /// JSON, as it stands between the brackets; an event's name is cut off.
    pub json: &'a str,
    /// At most `ARGUMENTS_MAX`.
    pub count: usize,
    pub first: Option<&'a str>,
    /// Where the fields of the first one lie.
    pub spans: Spans,
}

impl Arguments<'_> {
    pub const NONE: Arguments<'static> = Arguments { json: "", count: 0, first: None, spans: Spans::NONE };
}

/// Events that clients and servers of Socket.IO raise themselves.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Whether events are not to be called so: who gets one of this name takes the packet for malformed.
pub fn is_reserved(event: &str) -> bool {
    RESERVED.contains(&event)
}

/// Digits of an acknowledgement's number, which is at most 2^53 - 1: what clients can count to.
const ACK_DIGITS_MAX: usize = 16;
const ACK_MAX: u64 = (1 << 53) - 1;

/// Reads a packet, which is the text of an Engine.IO message. One that announces more than `attachments_max`
/// attachments is malformed.
pub fn parse(text: &str, attachments_max: usize) -> Result<Packet<'_>, Malformed> {
    let Some((kind, rest)) = text.split_at_checked(1) else { return malformed("a packet begins with its type") };
    match kind {
        "0" => {
            let (namespace, auth) = namespace(rest)?;
            match auth {
                "" => Ok(Packet::Connect { namespace, auth: "{}" }),
                auth if auth.starts_with('{') => {
                    json::walk_items(auth, |_, _| {}).map_err(no_json)?;
                    Ok(Packet::Connect { namespace, auth: auth.trim_end() })
                }
                _ => malformed("what comes with a CONNECT is an object"),
            }
        }
        "1" => match namespace(rest)? {
            (namespace, "") => Ok(Packet::Disconnect { namespace }),
            _ => malformed("a DISCONNECT carries nothing"),
        },
        "2" => event(rest, 0),
        "3" => acknowledgement(rest, 0),
        "5" => attachments(rest, attachments_max).and_then(|(attachments, rest)| event(rest, attachments)),
        "6" => attachments(rest, attachments_max).and_then(|(attachments, rest)| acknowledgement(rest, attachments)),
        "4" => malformed("a CONNECT_ERROR is the server's to send"),
        _ => malformed("no such type of packet"),
    }
}

fn malformed<T>(reason: &'static str) -> Result<T, Malformed> {
    Err(Malformed::new(reason))
}

fn no_json(error: JsonError) -> Malformed {
    Malformed::new(match error {
        JsonError::TooDeep { .. } => "the packet is nested too deep",
        _ => "the packet holds no JSON",
    })
}

/// The number of attachments, and what is behind its dash.
fn attachments(text: &str, attachments_max: usize) -> Result<(usize, &str), Malformed> {
    let (digits, rest) = split_digits(text);
    let Some(rest) = rest.strip_prefix('-').filter(|_| !digits.is_empty()) else {
        return malformed("a binary packet begins with the number of its attachments");
    };
    match digits.parse() {
        Ok(count) if count <= attachments_max => Ok((count, rest)),
        _ => malformed("the packet announces more attachments than are taken"),
    }
}

/// The namespace without its query, `/` where none is written, and what is behind its comma.
fn namespace(text: &str) -> Result<(&str, &str), Malformed> {
    if !text.starts_with('/') {
        return Ok(("/", text));
    }
    let (written, rest) = text.split_once(',').unwrap_or((text, ""));
    let name = written.split_once('?').map_or(written, |(name, _)| name);
    if name.len() > NAMESPACE_BYTES_MAX {
        return malformed("the name of the namespace is too long");
    }
    // They would end a packet inside a payload.
    if name.bytes().any(|byte| byte.is_ascii_control()) {
        return malformed("the name of the namespace holds control characters");
    }
    Ok((name, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

/// The number that an acknowledgement goes by, if one is written, and the array behind it.
fn ack_and_array(text: &str) -> Result<(Option<u64>, &str), Malformed> {
    let (digits, array) = split_digits(text);
    if !array.starts_with('[') {
        return malformed("what the packet carries is no array");
    }
    if digits.is_empty() {
        return Ok((None, array));
    }
    let ack = digits.parse().ok().filter(|ack| digits.len() <= ACK_DIGITS_MAX && *ack <= ACK_MAX);
    match ack {
        Some(ack) => Ok((Some(ack), array)),
        None => malformed("the number of an acknowledgement is too large"),
    }
}

fn event(text: &str, attachments: usize) -> Result<Packet<'_>, Malformed> {
    let (namespace, rest) = namespace(text)?;
    let (ack, array) = ack_and_array(rest)?;
    let (name, arguments) = arguments(array, true)?;
    let Some(event) = name.and_then(json::string) else {
        return malformed("the name of an event is a string, and comes first");
    };
    if is_reserved(&event) {
        return malformed("an event of this name is raised by the library alone");
    }
    binary::check(arguments.json, attachments)?;
    Ok(Packet::Event { namespace, ack, event, arguments, attachments })
}

fn acknowledgement(text: &str, attachments: usize) -> Result<Packet<'_>, Malformed> {
    let (namespace, rest) = namespace(text)?;
    let (ack, array) = ack_and_array(rest)?;
    let Some(ack) = ack else { return malformed("an acknowledgement goes by a number") };
    let (_, arguments) = arguments(array, false)?;
    binary::check(arguments.json, attachments)?;
    Ok(Packet::Ack { namespace, ack, arguments, attachments })
}

/// The items of an array: the first as the name, if there is one, and the others.
fn arguments(array: &str, is_named: bool) -> Result<(Option<&str>, Arguments<'_>), Malformed> {
    let mut name = None;
    let mut arguments = Arguments::NONE;
    // From the first argument to the end of the last.
    let (mut start, mut end) = (0, 0);
    let place = |item: &str| item.as_ptr() as usize - array.as_ptr() as usize;
    let walked = json::walk_items(array, |item, spans| {
        if is_named && name.is_none() {
            name = Some(item);
            return;
        }
        if arguments.count == 0 {
            start = place(item);
            arguments.first = Some(item);
            arguments.spans.clone_from(spans);
        }
        arguments.count += 1;
        end = place(item) + item.len();
    });
    walked.map_err(no_json)?;
    if arguments.count > ARGUMENTS_MAX {
        return malformed("the packet carries too many arguments");
    }
    arguments.json = &array[start..end];
    Ok((name, arguments))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::limits::{ATTACHMENTS_MAX, JSON_DEPTH_MAX};
    use proptest::prelude::*;
    use serde_json::Value;
    use std::time::Instant;

    fn read(text: &str) -> Result<Packet<'_>, Malformed> {
        parse(text, ATTACHMENTS_MAX)
    }

    fn refused(text: &str) -> &'static str {
        read(text).expect_err(text).reason
    }

    /// The arguments of an event or an acknowledgement.
    fn arguments_of(text: &str) -> Arguments<'_> {
        match read(text) {
            Ok(Packet::Event { arguments, .. } | Packet::Ack { arguments, .. }) => arguments,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn namespaces_are_entered_and_left() {
        for (text, namespace, auth) in [
            ("0", "/", "{}"),
            ("0{}", "/", "{}"),
            (r#"0{"token":"a,b"}"#, "/", r#"{"token":"a,b"}"#),
            ("0/custom", "/custom", "{}"),
            ("0/custom,", "/custom", "{}"),
            (r#"0/custom,{"token":1} "#, "/custom", r#"{"token":1}"#),
            ("0/custom?token=abc,", "/custom", "{}"),
            ("0/custom?token=abc", "/custom", "{}"),
            ("0/,{}", "/", "{}"),
            ("0/?a=/b,{}", "/", "{}"),
        ] {
            assert_eq!(read(text), Ok(Packet::Connect { namespace, auth }), "{text}");
        }
        for (text, namespace) in [("1", "/"), ("1/custom", "/custom"), ("1/custom,", "/custom"), ("1/,", "/")] {
            assert_eq!(read(text), Ok(Packet::Disconnect { namespace }), "{text}");
        }
    }

    #[test]
    fn an_event_has_a_name_and_arguments() {
        let Ok(Packet::Event { namespace, ack, event, arguments, attachments }) =
            read(r#"2/custom,12[ "room:join" , {"room":"chat:1", "since":null} , [1,"]"] ]"#)
        else {
            panic!("an event");
        };
        assert_eq!((namespace, ack, &*event, attachments), ("/custom", Some(12), "room:join", 0));
        assert_eq!(arguments.json, r#"{"room":"chat:1", "since":null} , [1,"]"]"#);
        assert_eq!((arguments.count, arguments.first), (2, Some(r#"{"room":"chat:1", "since":null}"#)));
        let fields = json::fields(arguments.first.expect("one"), &arguments.spans).expect("an object");
        let fields: Vec<_> = fields.map(|(key, value)| (key.name(), value)).collect();
        assert_eq!(fields, [(Cow::from(&b"room"[..]), r#""chat:1""#), (Cow::from(&b"since"[..]), "null")]);
    }

    #[test]
    fn an_event_may_carry_nothing() {
        assert_eq!(arguments_of(r#"2["ping"]"#), Arguments::NONE);
        assert_eq!(arguments_of("37[]"), Arguments::NONE);
        let Ok(Packet::Event { event, ack: None, .. }) = read("2[\"\\u0070ing\"]\n") else { panic!("an event") };
        assert_eq!(event, "ping");
    }

    #[test]
    fn acknowledgements_go_by_numbers_that_clients_can_count_to() {
        for (digits, expected) in [("0", 0), ("00000007", 7), ("9007199254740991", 9_007_199_254_740_991)] {
            let ack = format!("3{digits}[1]");
            let Ok(Packet::Ack { ack, .. }) = read(&ack) else { panic!("{digits}") };
            assert_eq!(ack, expected);
        }
        let long = "1".repeat(100);
        for wrong in ["9007199254740992", "00000000000000001", "18446744073709551617", &*long] {
            assert!(refused(&format!("3{wrong}[1]")).contains("too large"));
            assert!(refused(&format!("2/a,{wrong}[\"a\"]")).contains("too large"));
        }
    }

    #[test]
    fn what_is_no_packet_is_malformed() {
        for text in [
            "",
            "abc",
            "7",
            "é",
            "2",
            "2{}",
            "2abc[\"a\"]",
            "2 [\"a\"]",
            "2 1[\"a\"]",
            "21 [\"a\"]",
            "2-1[\"a\"]",
            "2+1[\"a\"]",
            "21.0[\"a\"]",
            "2[]",
            "2[1]",
            "2[null]",
            "2[{}]",
            "2[\"a\"",
            "2[\"a\"]x",
            "2[\"a\",]",
            "2[\"\\ud800\"]",
            "2/custom[\"a\"]",
            "2/custom",
            "2\"a\"",
            "2null",
            "2[\"connect\"]",
            "2[\"connect_error\"]",
            "2[\"disconnect\"]",
            "2[\"disconnecting\"]",
            "2[\"newListener\"]",
            "2[\"removeListener\"]",
            "2[\"disc\\u006fnnect\",1]",
            "3",
            "3[]",
            "3[1]",
            "312",
            "312{}",
            "312[",
            "4{}",
            "4/a,{\"message\":1}",
            "0[]",
            "0null",
            "0\"a\"",
            "01",
            "0{",
            "0{}{}",
            "0{]",
            "0/a,[]",
            "0/a,1",
            "0/a\u{1e}b",
            "0/a\nb,",
            "1{}",
            "1[]",
            "1/a,1",
            "5[\"a\"]",
            "5-[\"a\"]",
            "5a-[\"a\"]",
            "5+1-[\"a\"]",
            "5 1-[\"a\"]",
            "51[\"a\"]",
            "51 -[\"a\"]",
            "5-1-[\"a\"]",
            "51.0-[\"a\"]",
            "511-[\"a\"]",
            "61-[1]",
            "5",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_binary_packet_says_how_many_attachments_come() {
        let text = r#"52-/custom,7["a",{"_placeholder":true,"num":1},[ { "num" : 0 , "_placeholder" : true } ]]"#;
        let Ok(Packet::Event { namespace: "/custom", ack: Some(7), attachments: 2, arguments, .. }) = read(text) else {
            panic!("{:?}", read(text));
        };
        assert_eq!(arguments.count, 2);
        assert!(matches!(read("60-3[]"), Ok(Packet::Ack { ack: 3, attachments: 0, .. })));
        assert!(matches!(read("510-[\"a\"]"), Ok(Packet::Event { attachments: 10, .. })));
        assert!(matches!(parse("511-[\"a\"]", 11), Ok(Packet::Event { attachments: 11, .. })));
        for wrong in [
            r#"[{"_placeholder":true,"num":1}]"#,
            r#"[{"_placeholder":true,"num":-1}]"#,
            r#"[{"_placeholder":true,"num":0.5}]"#,
            r#"[{"_placeholder":true,"num":"splice"}]"#,
            r#"[{"_placeholder":true}]"#,
            r#"[{"_placeholder":true,"num":0,"more":1}]"#,
            r#"[{"_placeholder":true,"num":18446744073709551616}]"#,
            r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
            r#"[[[{"a":{"num":1,"_placeholder":true}}]]]"#,
        ] {
            assert!(refused(&format!("61-1{wrong}")).contains("placeholder"), "{wrong}");
            assert!(refused(&format!("51-[\"a\",{wrong}]")).contains("placeholder"), "{wrong}");
            // No attachments, no placeholders.
            assert!(read(&format!("31{wrong}")).is_ok(), "{wrong}");
        }
        assert!(read(r#"51-["a",{"_placeholder":false,"num":7},"_placeholder",{"num":7}]"#).is_ok());
    }

    #[test]
    fn what_is_hostile_costs_its_bytes() {
        let deep = format!("2[\"a\",{}", "[".repeat(100_000));
        let deep_objects = format!("2[\"a\",{}", r#"{"a":"#.repeat(100_000));
        let deep_auth = format!("0{}", r#"{"a":"#.repeat(100_000));
        for text in [&deep, &deep_objects, &deep_auth] {
            assert_eq!(refused(text), "the packet is nested too deep");
        }
        let nested = |depth: usize| format!("2[\"a\",{}{}]", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(read(&nested(JSON_DEPTH_MAX)).is_ok());
        assert!(read(&nested(JSON_DEPTH_MAX + 1)).is_err());
        let many = |count: usize| format!("2[\"a\"{}]", ",1".repeat(count));
        assert_eq!(arguments_of(&many(ARGUMENTS_MAX)).count, ARGUMENTS_MAX);
        for count in [ARGUMENTS_MAX + 1, 300_000] {
            assert_eq!(refused(&many(count)), "the packet carries too many arguments");
        }
        let name = |len: usize| format!("0/{}", "n".repeat(len - 1));
        assert!(read(&name(NAMESPACE_BYTES_MAX)).is_ok());
        for len in [NAMESPACE_BYTES_MAX + 1, 1 << 20] {
            assert_eq!(refused(&name(len)), "the name of the namespace is too long");
        }
        for count in ["11", "1000000000", "18446744073709551616", &"9".repeat(100)] {
            assert!(refused(&format!("5{count}-[\"a\"]")).contains("more attachments"), "{count}");
        }
    }

    #[test]
    fn many_placeholders_are_looked_at_once_each() {
        // Quadratic ones would take minutes.
        let began = Instant::now();
        for item in [r#"{"num":1,"#, r#"{"_placeholder":true,"#, r#"{"num":"#, "{"] {
            let text = format!("51-[\"a\",{}", item.repeat((1 << 20) / item.len()));
            assert!(read(&text).is_err());
        }
        let item = r#",{"num":1,"x":{}}"#;
        let text = format!("51-[\"a\",[0{}]]", item.repeat((1 << 20) / item.len()));
        assert!(read(&text).is_ok());
        println!("five packets of a megabyte: {:?}", began.elapsed());
    }

    /// A packet as its sender has it.
    #[derive(Clone, Debug)]
    struct Sent {
        namespace: String,
        ack: Option<u64>,
        event: Option<String>,
        arguments: Vec<Value>,
    }

    impl Sent {
        fn text(&self) -> String {
            let kind = if self.event.is_some() { "2" } else { "3" };
            let namespace = if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) };
            let ack = self.ack.map(|ack| ack.to_string()).unwrap_or_default();
            let name = self.event.clone().map(Value::from);
            let items: Vec<Value> = name.into_iter().chain(self.arguments.clone()).collect();
            format!("{kind}{namespace}{ack}{}", Value::from(items))
        }
    }

    pub(in crate::wire) fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}|[\"\\\\/_placeholder$bin,{}:\\[\\]]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec(("[a-z\"\\\\]{0,4}", inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let event = "[A-Za-z:_.\\PC]{0,12}".prop_filter("reserved", |name| !RESERVED.contains(&&**name));
        let namespace = prop_oneof![Just("/".to_owned()), "/[a-z/é\"{\\[ -]{0,12}"];
        (
            namespace,
            proptest::option::of(0..=ACK_MAX),
            proptest::option::of(event),
            proptest::collection::vec(values(), 0..6),
        )
            .prop_map(|(namespace, ack, event, arguments)| Sent {
                namespace,
                ack: if event.is_none() { ack.or(Some(0)) } else { ack },
                event,
                arguments,
            })
    }

    proptest! {
        #[test]
        fn a_packet_is_read_as_it_was_sent(sent in sent()) {
            let text = sent.text();
            let (namespace, ack, event, arguments) = match read(&text) {
                Ok(Packet::Event { namespace, ack, event, arguments, attachments: 0 }) => {
                    (namespace, ack, Some(event.into_owned()), arguments)
                }
                Ok(Packet::Ack { namespace, ack, arguments, attachments: 0 }) => {
                    (namespace, Some(ack), None, arguments)
                }
                other => return Err(TestCaseError::fail(format!("{text}: {other:?}"))),
            };
            prop_assert_eq!(namespace, &sent.namespace);
            prop_assert_eq!(ack, sent.ack);
            prop_assert_eq!(event, sent.event);
            prop_assert_eq!(arguments.count, sent.arguments.len());
            let tree: Value = serde_json::from_str(&format!("[{}]", arguments.json)).expect("JSON");
            prop_assert_eq!(tree, Value::from(sent.arguments.clone()));
            let first = arguments.first.map(|first| serde_json::from_str::<Value>(first).expect("JSON"));
            prop_assert_eq!(first.as_ref(), sent.arguments.first());
            if let Some(Value::Object(object)) = first {
                let fields = json::fields(arguments.first.expect("one"), &arguments.spans).expect("an object");
                let read: serde_json::Map<String, Value> = fields
                    .map(|(key, value)| (
                        String::from_utf8(key.name().into_owned()).expect("text"),
                        serde_json::from_str(value).expect("JSON"),
                    ))
                    .collect();
                prop_assert_eq!(read, object);
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(
            text in "[0-9]{0,3}-?/?[a-z]{0,3},?[0-9]{0,3}[\\[\\]{}\",:a-z0-9_$]{0,40}",
            noise in "\\PC{0,20}",
        ) {
            let _ = read(&text);
            let _ = read(&noise);
            let _ = read(&format!("51-[\"a\",{{\"_placeholder\":true,{noise}"));
        }
    }
}
