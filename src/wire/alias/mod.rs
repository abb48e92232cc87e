//! Aliases: other spellings of what clients ask and are told, as data. A row says how a client writes an event,
//! which request it means, and what that request's fields are made of (`template`); another what a push is called
//! for clients, and what its data is made of.
//! Invariants: rows are checked when they are read, so nothing of them can fail later but by what a client sent;
//! who has no row for an event reads and writes it as it is.
//!
//! ```toml
//! [[alias]]
//! event = "join:chat"                     # emit("join:chat", 7), emit("join:chat", {chatId: 7})
//! request = "room:join"
//! arguments = "chatId"
//! fields = "room = chat:{chatId}"
//! reply_push = "chat:joined"              # the reply's data is pushed too, beside the acknowledgement
//! reply_fields = "chatId = {room after chat:}"
//!
//! [[push]]
//! event = "message:new"
//! name = "NEW_MESSAGE"
//! fields = "chatId = {room after chat:}, senderId = {from}"
//! ```

mod template;
#[cfg(test)]
mod tests;

use crate::base::limits::{ALIAS_FIELDS_MAX, ALIASES_MAX};
use crate::wire::codes::{ErrorCode, Limit, WireError};
use crate::wire::envelope::{Data, RequestId, is_event_name};
use crate::wire::json::{self, Spans};
use crate::wire::socketio::{Arguments, is_reserved};
use smallvec::SmallVec;
use std::borrow::Cow;
use template::{Template, Unfit};

/// A row of `[[alias]]`: what is empty says nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DeclaredAlias {
    /// What clients emit. Needed, and in one row only.
    pub event: String,
    /// The request that it is here. Without it, the event's own name.
    pub request: String,
    /// Names for what clients emit bare or one behind the other, with commas between: with `"w, z"`,
    /// `emit(event, 1, 2)` is `{"w":1,"z":2}`. One object alone is taken for the data itself.
    pub arguments: String,
    /// What fields of the request are made of, with commas between: `"room = chat:{chatId}, typing = true"`.
    /// Fields in braces are the client's and do not come along themselves; all others do. A field is not made
    /// where one in its braces is missing: the client's own of that name is taken then.
    pub fields: String,
    /// As what the reply's data is pushed too; clients that ask without an acknowledgement hear it alone.
    pub reply_push: String,
    /// Like [`DeclaredAlias::fields`]: what fields of the reply's data are made of, pushed or not.
    pub reply_fields: String,
}

/// A row of `[[push]]`: what is empty says nothing. Several rows of one event push it as often.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DeclaredPush {
    /// The event as it is called here. Needed.
    pub event: String,
    /// What clients hear it as. Without it, the event's own name.
    pub name: String,
    /// Like [`DeclaredAlias::fields`]: what fields of its data are made of. Braces name a field of the data, or
    /// `room`, `seq`, `mid`, `ts` or `from` of the push where the data has no such field.
    pub fields: String,
}

/// What is wrong with a row, and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// `alias` or `push`.
    pub list: &'static str,
    /// Counted from zero.
    pub row: usize,
    /// The field of the declaration.
    pub key: &'static str,
    pub what: String,
}

/// All rows of a namespace, or none.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Aliases {
    /// By event.
    requests: Box<[Alias]>,
    /// By event, and in the order of the rows where that is the same.
    pushes: Box<[PushAlias]>,
}

#[derive(Clone, PartialEq, Debug)]
struct Alias {
    event: Box<str>,
    request: Box<str>,
    /// With their quotes.
    arguments: Box<[Box<str>]>,
    fields: Mapping,
    reply: Option<Reply>,
}

/// What becomes of a reply.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::wire) struct Reply {
    /// As clients asked for it: JSON.
    pub(in crate::wire) event: Box<str>,
    /// As what its data is pushed: JSON.
    pub(in crate::wire) push: Option<Box<str>>,
    pub(in crate::wire) fields: Mapping,
}

#[derive(Clone, PartialEq, Debug)]
pub(in crate::wire) struct PushAlias {
    event: Box<str>,
    /// JSON.
    pub(in crate::wire) name: Box<str>,
    pub(in crate::wire) fields: Mapping,
}

/// A request as it is here.
#[derive(Clone, PartialEq, Debug)]
pub struct Request<'a> {
    pub event: &'a str,
    /// JSON.
    pub data: Cow<'a, str>,
    /// Where the first fields of `data` lie.
    pub spans: &'a Spans,
    /// Which alias has something to say about the reply.
    reply: Option<u16>,
}

impl Request<'_> {
    pub fn data(&self) -> Data<'_> {
        Data { json: &self.data, spans: self.spans }
    }

    /// What the request goes by, so that its reply finds the client's acknowledgement, and what its alias says of
    /// it. `None`: a reply would tell nobody anything.
    pub fn id(&self, ack: Option<u64>) -> Option<RequestId> {
        match (ack, self.reply) {
            (None, None) => None,
            (Some(ack), None) => Some(RequestId::Integer(ack as i64)),
            (ack, Some(alias)) => {
                let ack = ack.map(|ack| ack.to_string()).unwrap_or_default();
                Some(RequestId::Text(format!("{ack}:{alias}").into()))
            }
        }
    }
}

const _: () = assert!(ALIASES_MAX <= u16::MAX as usize);

impl Aliases {
    /// Compiles rows; all that is wrong is told at once.
    pub fn new(aliases: &[DeclaredAlias], pushes: &[DeclaredPush]) -> Result<Aliases, Vec<Wrong>> {
        let mut wrong = Vec::new();
        for (list, rows) in [("alias", aliases.len()), ("push", pushes.len())] {
            if rows > ALIASES_MAX {
                let what = format!("there are {rows} rows; {ALIASES_MAX} is the most");
                wrong.push(Wrong { list, row: ALIASES_MAX, key: "event", what });
            }
        }
        let mut requests: Vec<Alias> = Vec::new();
        for (row, declared) in aliases.iter().enumerate() {
            if aliases[..row].iter().any(|other| other.event == declared.event) {
                let what = format!("`{}` has a row already; put both into one", declared.event);
                wrong.push(Wrong { list: "alias", row, key: "event", what });
            }
            requests.push(declared.compile(row, &mut wrong));
        }
        let mut pushes: Vec<PushAlias> =
            pushes.iter().enumerate().map(|(row, declared)| declared.compile(row, &mut wrong)).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        requests.sort_by(|one, other| one.event.cmp(&other.event));
        pushes.sort_by(|one, other| one.event.cmp(&other.event));
        Ok(Aliases { requests: requests.into(), pushes: pushes.into() })
    }

    /// What a client asks for with this event. An event that has no row is its own request; its data is the first
    /// argument, `{}` where there is none.
    pub fn request<'a>(&'a self, event: &'a str, arguments: &'a Arguments<'a>) -> Result<Request<'a>, WireError> {
        let row = self.requests.binary_search_by(|alias| (*alias.event).cmp(event));
        let data = arguments.first.unwrap_or("{}");
        let as_it_is = Request { event, data: Cow::Borrowed(data), spans: &arguments.spans, reply: None };
        let Ok(nth) = row else {
            return match is_event_name(event) {
                true => Ok(as_it_is),
                false => Err(bad_request("an event is named by 1 to 64 letters, digits and `_` `.` `:` `-`".into())),
            };
        };
        let alias = &self.requests[nth];
        let reply = alias.reply.is_some().then_some(nth as u16);
        let as_it_is = Request { event: &alias.request, reply, ..as_it_is };
        let fields = json::fields(data, &arguments.spans);
        let is_object = fields.is_some() && arguments.count <= 1;
        let mapped = if !alias.arguments.is_empty() && !is_object {
            let names = alias.arguments.iter().map(|name| (Cow::Borrowed(unquoted(name).as_bytes()), &**name));
            alias
                .fields
                .map(names.zip(json::items(arguments.json)).map(|((name, quoted), value)| (name, quoted, value)))
        } else {
            match fields {
                Some(fields) if !alias.fields.is_empty() => alias.fields.map(fields.map(named)),
                _ => return Ok(as_it_is),
            }
        };
        match mapped {
            Ok(data) => Ok(Request { data: Cow::Owned(data), spans: &Spans::NONE, ..as_it_is }),
            Err(unfit) => Err(alias.fields.error(unfit)),
        }
    }

    /// What the alias that a request's id names says of its reply.
    pub(in crate::wire) fn reply(&self, nth: usize) -> Option<&Reply> {
        self.requests.get(nth)?.reply.as_ref()
    }

    /// What clients hear a push as; nothing: as what it is.
    pub(in crate::wire) fn pushes(&self, event: &str) -> &[PushAlias] {
        let start = self.pushes.partition_point(|push| *push.event < *event);
        let len = self.pushes[start..].partition_point(|push| *push.event == *event);
        &self.pushes[start..start + len]
    }
}

/// A field as [`Mapping::map`] takes it: what it is called, how that was written, and what it is.
pub(in crate::wire) fn named<'a>((key, value): (json::Key<'a>, &'a str)) -> (Cow<'a, [u8]>, &'a str, &'a str) {
    (key.name(), std::str::from_utf8(key.quoted()).expect("a key of checked JSON is text"), value)
}

fn unquoted(name: &str) -> &str {
    &name[1..name.len() - 1]
}

fn quoted(text: &str) -> Box<str> {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::write_string(&mut out, text);
    String::from_utf8(out).expect("a string is text").into()
}

fn bad_request(message: String) -> WireError {
    WireError::new(ErrorCode::BadRequest, message)
}

/// Fields that are made of others.
#[derive(Clone, PartialEq, Default, Debug)]
pub(in crate::wire) struct Mapping {
    made: Box<[Made]>,
    /// Names that stand in braces.
    sources: Box<[Box<str>]>,
}

#[derive(Clone, PartialEq, Debug)]
struct Made {
    /// With its quotes.
    name: Box<str>,
    template: Template,
}

impl Mapping {
    fn parse(written: &str) -> Result<Mapping, String> {
        let (mut made, mut sources) = (Vec::<Made>::new(), Vec::new());
        for field in split_fields(written) {
            let Some((name, template)) = field.split_once('=') else {
                return Err(format!("`{}` makes no field; write `name = {{field}}`", field.trim()));
            };
            let name = quoted_name(name)?;
            if made.iter().any(|known| known.name == name) {
                return Err(format!("{name} is made twice"));
            }
            if made.len() == ALIAS_FIELDS_MAX {
                return Err(format!("more than {ALIAS_FIELDS_MAX} fields are made"));
            }
            made.push(Made { name, template: Template::parse(template, &mut sources)? });
        }
        // What a client sends grows by no more than the row is long.
        for (nth, source) in sources.iter().enumerate() {
            if made.iter().map(|made| made.template.copies_of(nth)).sum::<usize>() > 1 {
                return Err(format!("`{{{source}}}` is copied twice; copy it once"));
            }
        }
        Ok(Mapping { made: made.into(), sources: sources.into() })
    }

    pub(in crate::wire) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// The object that these fields become.
    fn map<'a>(&self, fields: impl Iterator<Item = (Cow<'a, [u8]>, &'a str, &'a str)>) -> Result<String, Unfit> {
        let mut filled = Filled::new(self);
        fields.for_each(|(name, quoted, value)| filled.take(&name, quoted, value));
        filled.finish()
    }

    /// The object that the data of a push or a reply becomes, if it is one; what does not fit is not made.
    pub(in crate::wire) fn told(&self, data: &str, meta: &str) -> Option<String> {
        let mut filled = Filled::new(self);
        filled.is_lenient = true;
        json::object(data)?.map(named).for_each(|(name, quoted, value)| filled.take(&name, quoted, value));
        for (key, value) in json::object(meta).into_iter().flatten() {
            filled.lend(&key.name(), value);
        }
        filled.finish().ok()
    }

    fn error(&self, unfit: Unfit) -> WireError {
        match unfit {
            Unfit::Type(nth) => bad_request(format!("`{}` must be a string or a number", self.sources[nth])),
            Unfit::TooLong(nth) => bad_request(format!("`{}` is too long", self.sources[nth])),
            Unfit::TooMany(nth) => {
                let message = format!("`{}` holds too many items; send several requests", self.sources[nth]);
                WireError::too_many(Limit::RoomsPerRequest, message)
            }
        }
    }
}

/// An object under way.
struct Filled<'m, 'a> {
    mapping: &'m Mapping,
    values: SmallVec<[Option<&'a str>; 8]>,
    /// The fields' own of what is made.
    own: SmallVec<[Option<&'a str>; 8]>,
    out: String,
    /// Leaves out what does not fit.
    is_lenient: bool,
}

impl<'m, 'a> Filled<'m, 'a> {
    fn new(mapping: &'m Mapping) -> Filled<'m, 'a> {
        let values = smallvec::smallvec![None; mapping.sources.len()];
        let own = smallvec::smallvec![None; mapping.made.len()];
        Filled { mapping, values, own, out: String::from("{"), is_lenient: false }
    }

    /// Takes a field in, or along. Of two of one name the last counts, as in JavaScript.
    fn take(&mut self, name: &[u8], quoted: &str, value: &'a str) {
        let source = self.mapping.sources.iter().position(|source| source.as_bytes() == name);
        if let Some(nth) = source {
            self.values[nth] = Some(value).filter(|value| !json::is_null(value));
        }
        let made = self.mapping.made.iter().position(|made| unquoted(&made.name).as_bytes() == name);
        if let Some(nth) = made {
            self.own[nth] = Some(value);
        }
        if source.is_none() && made.is_none() {
            self.put(quoted, value);
        }
    }

    /// A field that does not come along, and gives way to one of its name that does.
    fn lend(&mut self, name: &[u8], value: &'a str) {
        if let Some(nth) = self.mapping.sources.iter().position(|source| source.as_bytes() == name) {
            self.values[nth].get_or_insert(value);
        }
    }

    fn put(&mut self, quoted: &str, value: &str) {
        self.key(quoted);
        self.out.push_str(value);
    }

    fn key(&mut self, quoted: &str) {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        self.out.push_str(quoted);
        self.out.push(':');
    }

    fn finish(mut self) -> Result<String, Unfit> {
        for (made, own) in self.mapping.made.iter().zip(std::mem::take(&mut self.own)) {
            let before = self.out.len();
            self.key(&made.name);
            let is_made = match made.template.fill(&self.values, &mut self.out) {
                Err(unfit) if !self.is_lenient => return Err(unfit),
                filled => filled.unwrap_or(false),
            };
            if !is_made {
                self.out.truncate(before);
                if let Some(own) = own {
                    self.put(&made.name, own);
                }
            }
        }
        self.out.push('}');
        Ok(self.out)
    }
}

/// The parts between commas that stand in no brackets; none of nothing.
fn split_fields(written: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    let parts = written.split(move |character| {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    });
    parts.filter(move |_| !written.trim().is_empty())
}

fn quoted_name(name: &str) -> Result<Box<str>, String> {
    let name = name.trim();
    match template::is_field_name(name) {
        true => Ok(format!("\"{name}\"").into()),
        false => {
            Err(format!("`{name}` is no name of a field: 1 to 64 characters without space, quotes, brackets or `=`"))
        }
    }
}

impl DeclaredAlias {
    fn compile(&self, row: usize, wrong: &mut Vec<Wrong>) -> Alias {
        let mut complain = |key, what| wrong.push(Wrong { list: "alias", row, key, what });
        if self.event.is_empty() || is_reserved(&self.event) {
            complain("event", format!("`{}` is no event that clients emit", self.event));
        }
        let request = if self.request.is_empty() { &self.event } else { &self.request };
        if !is_event_name(request) {
            complain("request", format!("`{request}` is no request: 1 to 64 letters, digits and `_` `.` `:` `-`"));
        }
        let names = split_fields(&self.arguments).map(quoted_name).collect::<Result<Vec<_>, _>>();
        let arguments = names.unwrap_or_else(|what| {
            complain("arguments", what);
            Vec::new()
        });
        let mut mapping = |key, written| {
            Mapping::parse(written).unwrap_or_else(|what| {
                complain(key, what);
                Mapping::default()
            })
        };
        let fields = mapping("fields", &self.fields);
        let reply_fields = mapping("reply_fields", &self.reply_fields);
        if is_reserved(&self.reply_push) {
            complain("reply_push", reserved(&self.reply_push));
        }
        let push = Some(&self.reply_push).filter(|push| !push.is_empty());
        let has_reply = push.is_some() || !reply_fields.is_empty();
        let reply = has_reply.then(|| Reply {
            event: quoted(&self.event),
            push: push.map(|push| quoted(push)),
            fields: reply_fields,
        });
        let event = self.event.as_str().into();
        Alias { event, request: request.as_str().into(), arguments: arguments.into(), fields, reply }
    }
}

impl DeclaredPush {
    fn compile(&self, row: usize, wrong: &mut Vec<Wrong>) -> PushAlias {
        let mut complain = |key, what| wrong.push(Wrong { list: "push", row, key, what });
        if !is_event_name(&self.event) {
            complain("event", format!("`{}` is no event: 1 to 64 letters, digits and `_` `.` `:` `-`", self.event));
        }
        let name = if self.name.is_empty() { &self.event } else { &self.name };
        if is_reserved(name) {
            complain("name", reserved(name));
        }
        let fields = Mapping::parse(&self.fields).unwrap_or_else(|what| {
            complain("fields", what);
            Mapping::default()
        });
        PushAlias { event: self.event.as_str().into(), name: quoted(name), fields }
    }
}

fn reserved(name: &str) -> String {
    format!("`{name}` is an event that clients raise themselves; they would close the connection")
}
