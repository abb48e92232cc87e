//! `room:publish`: any event of the application to a room, to several, or to a user.
//! Promise: what is answered with a `mid` was delivered once, in one order, to every member that
//! stays; a retry with the same `cid` gets the first answer.

use crate::admission::gate::Admitted;
use crate::admission::names;
use crate::admission::rights::{Rate, Right};
use crate::kernel::feature::{Answer, Declaration, Declared, Feature, Home, RoomAnswer};
use crate::kernel::ids::{Place, Pos};
use crate::kernel::mail::Request;
use crate::kernel::scope::RoomScope;
use crate::kernel::sequencer::Draft;
use crate::wire::codes::{ErrorCode, WireError};
use crate::wire::encode;
use crate::wire::envelope;
use crate::wire::json;

const DECLARATION: Declaration = Declaration {
    name: "publish",
    requests: &[Declared { event: "room:publish", home: Home::Target, needs: Right::Publish, rate: Rate::Heavy }],
};

pub struct Publish;

impl Feature for Publish {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn on_room_request(&mut self, scope: &mut RoomScope<'_>, request: &Admitted<Request>, raw: &[u8]) -> Answer {
        let fields = envelope::publish_fields(raw)?;
        if names::is_reserved_event(&fields.event) {
            let message = format!("the event `{}` is the server's own; choose another name", fields.event);
            return Err(WireError::new(ErrorCode::Forbidden, message));
        }
        let place = scope.publish(Draft {
            event: &fields.event,
            data: fields.data,
            from: Some(request.user.clone()),
            cid: fields.cid.as_deref().map(Into::into),
            excluded: fields.exclude_self.then_some(request.from),
        })?;
        Ok(receipt(place, Pos { epoch: scope.room().epoch, seq: place.seq }))
    }

    fn on_answers(&mut self, _event: &'static str, answers: Vec<RoomAnswer>) -> Answer {
        let mut out = br#"{"results":["#.to_vec();
        for (nth, RoomAnswer { room, answer }) in answers.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"room":"#);
            json::write_string(&mut out, room);
            out.push(b',');
            match answer {
                // The receipt's fields, without its opening brace.
                Ok(receipt) => out.extend_from_slice(&receipt[1..]),
                Err(error) => {
                    out.extend_from_slice(br#""error":"#);
                    encode::error_object(&mut out, error);
                    out.push(b'}');
                }
            }
        }
        out.extend_from_slice(b"]}");
        Ok(out)
    }
}

/// `{mid, seq, pos}`; `pos` is where the message stands.
fn receipt(place: Place, pos: Pos) -> Vec<u8> {
    // By hand: each publish of the process comes by here.
    let mut seq = itoa::Buffer::new();
    let seq = seq.format(place.seq.0).as_bytes();
    let (mid, epoch) = (place.mid.text(), pos.epoch.text());
    [br#"{"mid":""#, &mid[..], br#"","seq":"#, seq, br#","pos":""#, &epoch[..], b"-", seq, br#""}"#].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::{Cursor, Epoch, Mid, Seq};

    #[test]
    fn a_receipt_is_json_whose_cursors_are_read_back() {
        let place = Place { mid: Mid(0x0123_4567_89ab_cdef << 32), seq: Seq(1_234_567) };
        let pos = Pos { epoch: Epoch(u64::MAX), seq: place.seq };
        let receipt: serde_json::Value = serde_json::from_slice(&receipt(place, pos)).expect("JSON");
        assert_eq!(receipt["seq"], 1_234_567);
        assert_eq!(Cursor::parse(receipt["mid"].as_str().expect("text")), Some(Cursor::Mid(place.mid)));
        assert_eq!(Cursor::parse(receipt["pos"].as_str().expect("text")), Some(Cursor::Pos(pos)));
    }
}
