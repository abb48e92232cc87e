//! Stand-in until the aliases come.
use super::codes::WireError;
use super::json::Spans;
use super::socketio::Arguments;
use std::borrow::Cow;

#[derive(Default, Debug)]
pub struct Aliases;

pub struct Request<'a> {
    pub event: Cow<'a, str>,
    pub data: Cow<'a, str>,
    pub spans: Spans,
}

impl Aliases {
    pub fn request<'a>(&self, event: &'a str, arguments: &Arguments<'a>) -> Result<Request<'a>, WireError> {
        let data = arguments.first.unwrap_or("{}");
        Ok(Request { event: event.into(), data: data.into(), spans: arguments.spans.clone() })
    }
}
