//! `room:publish`: any event of the application to a room, to several, or to a user.
//! Promise: what is answered with a `mid` was delivered once, in one order, to every member that
//! stays; a retry with the same `cid` gets the first answer.

use crate::admission::gate::Admitted;
use crate::admission::names;
use crate::admission::rights::{Rate, Right};
use crate::kernel::feature::{Answer, Declaration, Declared, Feature, Home, RoomAnswer, Told};
use crate::kernel::mail::Request;
use crate::kernel::scope::RoomScope;
use crate::kernel::sequencer::Draft;
use crate::wire::codes::{ErrorCode, WireError};
use crate::wire::encode;
use crate::wire::envelope::{self, Data};
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

    fn on_room_request(&mut self, scope: &mut RoomScope<'_>, request: &Admitted<Request>, data: Data<'_>) -> Answer {
        let fields = envelope::publish_fields(data)?;
        if names::is_reserved_event(&fields.event) {
            let message = format!("the event `{}` is the server's own; choose another name", fields.event);
            return Err(WireError::new(ErrorCode::Forbidden, message));
        }
        let place = scope.publish(Draft {
            event: &fields.event,
            data: fields.data.as_bytes(),
            from: Some(request.user.clone()),
            cid: fields.cid.as_deref().map(Into::into),
            excluded: fields.exclude_self.then_some(request.from),
        })?;
        Ok(Told::Receipt { place, epoch: scope.room().epoch })
    }

    fn on_answers(&mut self, _event: &'static str, answers: Vec<RoomAnswer>) -> Answer {
        let mut out = br#"{"results":["#.to_vec();
        let mut scratch = Vec::new();
        for (nth, RoomAnswer { room, answer }) in answers.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"room":"#);
            json::write_string(&mut out, room);
            out.push(b',');
            match answer {
                // The receipt's fields, without its opening brace.
                Ok(receipt) => out.extend_from_slice(&receipt.json(&mut scratch)[1..]),
                Err(error) => {
                    out.extend_from_slice(br#""error":"#);
                    encode::error_object(&mut out, error);
                    out.push(b'}');
                }
            }
        }
        out.extend_from_slice(b"]}");
        Ok(Told::Json(out))
    }
}
