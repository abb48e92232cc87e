//! Packets as the server writes them: whole WebSocket frames, a text frame with its Engine.IO type and the binary
//! frames of the attachments right behind it.

use crate::wire::frame;
use crate::wire::json;
use std::borrow::Cow;

/// Appends the answer to a CONNECT: the client is in the namespace.
pub fn connected(out: &mut Vec<u8>, namespace: &str, sid: &str) {
    let (namespace, comma) = prefix(namespace);
    frame::text_of(out, &["40", namespace, comma, r#"{"sid":"#, &quoted(sid), "}"]);
}

/// Appends the refusal of a CONNECT; `data` is JSON.
pub fn connect_error(out: &mut Vec<u8>, namespace: &str, message: &str, data: Option<&str>) {
    let (namespace, comma) = prefix(namespace);
    let message = quoted(message);
    let (key, data) = data.map_or(("", ""), |data| (r#","data":"#, data));
    frame::text_of(out, &["44", namespace, comma, r#"{"message":"#, &message, key, data, "}"]);
}

/// Appends what tells a client that it is no longer in the namespace.
pub fn disconnect(out: &mut Vec<u8>, namespace: &str) {
    let (namespace, comma) = prefix(namespace);
    frame::text_of(out, &["41", namespace, comma]);
}

/// Appends an event. `arguments` is JSON as it stands between the brackets, behind the name, and may be empty;
/// its placeholders name the attachments.
pub fn event(
    out: &mut Vec<u8>,
    namespace: &str,
    ack: Option<u64>,
    event: &str,
    arguments: &str,
    attachments: &[impl AsRef<[u8]>],
) {
    let comma = if arguments.is_empty() { "" } else { "," };
    packet(out, ["42", "45"], namespace, ack, &["[", &quoted(event), comma, arguments, "]"], attachments);
}

/// Appends the answer to the event that the client sent under this number.
pub fn ack(out: &mut Vec<u8>, namespace: &str, ack: u64, arguments: &str, attachments: &[impl AsRef<[u8]>]) {
    packet(out, ["43", "46"], namespace, Some(ack), &["[", arguments, "]"], attachments);
}

/// Appends a packet of the first type, or of the second if there are attachments. `array` is at most nine pieces.
pub(super) fn packet(
    out: &mut Vec<u8>,
    types: [&str; 2],
    namespace: &str,
    ack: Option<u64>,
    array: &[&str],
    attachments: &[impl AsRef<[u8]>],
) {
    let (mut count, mut number) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (namespace, comma) = prefix(namespace);
    let (kind, count, dash) = match attachments.len() {
        0 => (types[0], "", ""),
        len => (types[1], count.format(len), "-"),
    };
    let number = ack.map_or("", |ack| number.format(ack));
    let mut pieces = [""; 15];
    pieces[..6].copy_from_slice(&[kind, count, dash, namespace, comma, number]);
    pieces[6..6 + array.len()].copy_from_slice(array);
    frame::text_of(out, &pieces);
    for attachment in attachments {
        let bytes = attachment.as_ref();
        frame::header(out, frame::BINARY, bytes.len());
        out.extend_from_slice(bytes);
    }
}

/// How a packet says its namespace: not at all where it is the first one.
fn prefix(namespace: &str) -> (&str, &str) {
    match namespace {
        "/" => ("", ""),
        other => (other, ","),
    }
}

/// The text as a JSON string.
fn quoted(text: &str) -> Cow<'static, str> {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::write_string(&mut out, text);
    Cow::Owned(String::from_utf8(out).expect("a string is text"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::socketio::{Arguments, Packet, parse};
    use proptest::prelude::*;

    /// The packet's text, without its Engine.IO type, and the attachments.
    pub(in crate::wire::socketio) fn taken_apart(mut frames: &[u8]) -> (String, Vec<Vec<u8>>) {
        let (opcode, text, bytes) = frame::first(frames).expect("a whole frame");
        assert_eq!((opcode, text[0]), (frame::TEXT, b'4'));
        frames = &frames[bytes..];
        let mut attachments = Vec::new();
        while let Some((opcode, payload, bytes)) = frame::first(frames) {
            assert_eq!(opcode, frame::BINARY);
            attachments.push(payload.to_vec());
            frames = &frames[bytes..];
        }
        assert!(frames.is_empty());
        (String::from_utf8(text[1..].to_vec()).expect("text"), attachments)
    }

    const NOTHING: [&[u8]; 0] = [];

    #[test]
    fn packets_are_as_the_protocol_shows_them() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            taken_apart(&out).0
        };
        assert_eq!(written(&|out| connected(out, "/", "a-1")), r#"0{"sid":"a-1"}"#);
        assert_eq!(written(&|out| connected(out, "/custom", "a-1")), r#"0/custom,{"sid":"a-1"}"#);
        assert_eq!(written(&|out| disconnect(out, "/")), "1");
        assert_eq!(written(&|out| disconnect(out, "/custom")), "1/custom,");
        assert_eq!(
            written(&|out| connect_error(out, "/custom", "Invalid namespace", None)),
            r#"4/custom,{"message":"Invalid namespace"}"#
        );
        assert_eq!(
            written(&|out| connect_error(out, "/", "no \"way\"", Some(r#"{"code":"unauthorized"}"#))),
            r#"4{"message":"no \"way\"","data":{"code":"unauthorized"}}"#
        );
        assert_eq!(written(&|out| event(out, "/", None, "a\n", "", &NOTHING)), r#"2["a\n"]"#);
        assert_eq!(written(&|out| event(out, "/b", Some(7), "a", "1,{}", &NOTHING)), r#"2/b,7["a",1,{}]"#);
        assert_eq!(written(&|out| ack(out, "/", 0, "", &NOTHING)), "30[]");
        assert_eq!(written(&|out| ack(out, "/b", 12, "1", &NOTHING)), "3/b,12[1]");
        let placeholder = r#"{"_placeholder":true,"num":0}"#;
        assert_eq!(
            written(&|out| event(out, "/b", Some(7), "a", placeholder, &[b"x"])),
            format!("51-/b,7[\"a\",{placeholder}]")
        );
        assert_eq!(written(&|out| ack(out, "/", 1, placeholder, &[b"x"])), format!("61-1[{placeholder}]"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            namespace in "/[a-zé\"]{0,12}", ack_number in proptest::option::of(0u64..1 << 53), name in "a\\PC{0,80}",
            text in "\\PC{0,200}", len in 0usize..4,
            attachments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..3),
            before in 0usize..4,
        ) {
            let placeholders = (0..attachments.len()).map(|num| format!(r#"{{"_placeholder":true,"num":{num}}}"#));
            let texts = (0..len).map(|_| serde_json::Value::from(&*text).to_string());
            let items: Vec<String> = texts.chain(placeholders).collect();
            let json = items.join(",");
            let mut out = vec![7; before];
            event(&mut out, &namespace, ack_number, &name, &json, &attachments);
            let (packet, binary) = taken_apart(&out[before..]);
            prop_assert_eq!(&binary, &attachments);
            let is_same = |arguments: &Arguments<'_>| arguments.json == json && arguments.count == items.len();
            match parse(&packet, 3) {
                Ok(Packet::Event { namespace: read, ack, event, arguments, attachments: count }) => {
                    prop_assert_eq!((read, ack, &*event, count), (&*namespace, ack_number, &*name, attachments.len()));
                    prop_assert!(is_same(&arguments));
                }
                other => prop_assert!(false, "{}: {:?}", packet, other),
            }
            let Some(number) = ack_number else { return Ok(()) };
            out.truncate(before);
            ack(&mut out, &namespace, number, &json, &attachments);
            let (packet, binary) = taken_apart(&out[before..]);
            prop_assert_eq!(&binary, &attachments);
            match parse(&packet, 3) {
                Ok(Packet::Ack { namespace: read, ack, arguments, attachments: count }) => {
                    prop_assert_eq!((read, ack, count), (&*namespace, number, attachments.len()));
                    prop_assert!(is_same(&arguments));
                }
                other => prop_assert!(false, "{}: {:?}", packet, other),
            }
        }
    }
}
