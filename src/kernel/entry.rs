//! One push, encoded once at the room's home and immutable from then on, and the frames that
//! outboxes hold of it.
//! Invariants: every receiver of an entry, on any shard, now or in a replay, gets the same bytes
//! per dialect; a frame is charged to its shard's account for as long as it lives.

use crate::base::limits::INFLATED_BYTES_KEPT;
use crate::base::time::Instant;
use crate::kernel::Limits;
use crate::kernel::budget::{Account, COUNTS_BYTES};
use crate::kernel::ids::{ConnAt, Place};
use crate::wire::deflate::{Deflater, Window};
use crate::wire::dialect::{self, DialectId, DialectSet};
use crate::wire::encode::{self, Push};
use crate::wire::frame;
use crate::wire::socketio::Forms;
use std::rc::Rc;
use std::sync::Arc;

/// What may be shed when a receiver is slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Never dropped silently: a receiver that cannot take it is closed with 4410.
    Logged,
    /// Dropped first, and counted.
    Transient,
    /// A newer value of the same key takes the place of a queued one.
    Latest { key: u64 },
}

/// What is known of an entry besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub place: Option<Place>,
    pub class: Class,
    pub excluded: Option<ConnAt>,
    pub at: Instant,
}

/// A room's push as it travels between shards.
#[derive(Debug)]
pub struct Entry {
    /// `None`: not in the room's order, not in its history.
    pub place: Option<Place>,
    pub class: Class,
    /// This connection does not get it.
    pub excluded: Option<ConnAt>,
    pub at: Instant,
    /// What its receivers spoke when it was made.
    wanted: DialectSet,
    forms: Box<[Form]>,
}

/// What entries are encoded with: reused from one to the next.
#[derive(Default)]
pub struct Encoder {
    json: Vec<u8>,
    scratch: Vec<u8>,
    deflater: Deflater,
    /// How namespaces are written for.
    forms: Arc<Forms>,
}

impl Encoder {
    pub fn new(limits: &Limits) -> Encoder {
        let mut encoder = Encoder::default();
        encoder.set_limits(limits);
        encoder
    }

    pub fn set_limits(&mut self, limits: &Limits) {
        self.deflater.set_bytes_min(limits.deflate_bytes_min);
    }

    /// How pushes are written for namespaces.
    pub fn set_forms(&mut self, forms: Arc<Forms>) {
        self.forms = forms;
    }

    pub fn forms(&self) -> &Arc<Forms> {
        &self.forms
    }

    /// A native JSON frame as one receiver reads it best that speaks `dialect`.
    pub fn one<'a>(&'a mut self, dialect: DialectId, json_frame: &'a [u8]) -> &'a [u8] {
        let plain = match dialect.plain() {
            dialect::NATIVE_JSON => json_frame,
            other => {
                self.scratch.clear();
                dialect::translate(other, &self.forms, &mut self.scratch, json_frame);
                &self.scratch
            }
        };
        dialect.window().and_then(|window| self.deflater.frame(plain, window)).unwrap_or(plain)
    }

    /// Frames that `write` appends, as one receiver reads them best.
    pub fn frames(&mut self, dialect: DialectId, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.scratch.clear();
        self.scratch.shrink_to(INFLATED_BYTES_KEPT);
        write(&mut self.scratch);
        let plain = &self.scratch;
        dialect.window().and_then(|window| self.deflater.frame(plain, window)).unwrap_or(plain)
    }

    /// A message as it is, framed as one receiver reads it best.
    pub fn message(&mut self, dialect: DialectId, opcode: u8, payload: &[u8]) -> &[u8] {
        self.frames(dialect, |out| {
            frame::header(out, opcode, payload.len());
            out.extend_from_slice(payload);
        })
    }
}

#[derive(Clone, Debug)]
struct Form {
    dialect: DialectId,
    bytes: Arc<[u8]>,
}

impl Entry {
    /// Encodes `push` in native JSON, which is what is kept for later, and in every dialect of
    /// `wanted`, compressed where that pays.
    pub fn encode(push: &Push<'_>, label: Label, wanted: DialectSet, encoder: &mut Encoder) -> Entry {
        let Label { place, class, excluded, at } = label;
        let Encoder { json, scratch, deflater, forms } = encoder;
        json.clear();
        encode::push(json, push);
        let mut plain = DialectSet::EMPTY;
        plain.insert(dialect::NATIVE_JSON);
        wanted.iter().for_each(|dialect| plain.insert(dialect.plain()));
        // One of each plain form, and no more where nobody reads compressed ones.
        let mut encoded = Vec::with_capacity(plain.union(wanted).iter().count());
        for dialect in plain.iter() {
            let frame = match dialect {
                dialect::NATIVE_JSON => &*json,
                other => {
                    scratch.clear();
                    dialect::translate(other, forms, scratch, json);
                    &*scratch
                }
            };
            encoded.push(Form { dialect, bytes: Arc::from(frame.as_slice()) });
            for window in [Window::Full, Window::Small] {
                let dialect = dialect.compressed(window);
                if wanted.contains(dialect)
                    && let Some(frame) = deflater.frame(frame, window)
                {
                    encoded.push(Form { dialect, bytes: Arc::from(frame) });
                }
            }
        }
        Entry { place, class, excluded, at, wanted, forms: encoded.into() }
    }

    /// What is kept of it for later: not the plain forms that are made of the native one in no time, or a room
    /// whose members speak them would keep everything twice.
    pub fn kept(self: &Arc<Entry>) -> Arc<Entry> {
        let is_kept = |form: &&Form| form.dialect == dialect::NATIVE_JSON || form.dialect.window().is_some();
        if self.forms.iter().all(|form| is_kept(&form)) {
            return Arc::clone(self);
        }
        Arc::new(Entry { forms: self.forms.iter().filter(is_kept).cloned().collect(), ..**self })
    }

    /// With what was not kept of the forms that its receivers read.
    pub fn completed(self: &Arc<Entry>, encoder: &mut Encoder) -> Arc<Entry> {
        if self.wanted.iter().all(|dialect| self.form(dialect).is_some()) {
            return Arc::clone(self);
        }
        let mut forms = self.forms.to_vec();
        for plain in self.wanted.iter().map(DialectId::plain) {
            if forms.iter().all(|form| form.dialect != plain) {
                forms.push(Form { dialect: plain, bytes: Arc::from(encoder.one(plain, self.json_frame())) });
            }
        }
        Arc::new(Entry { forms: forms.into(), ..**self })
    }

    /// The frame for receivers of `dialect`, if the home knew that there are any.
    pub fn form(&self, dialect: DialectId) -> Option<&Arc<[u8]>> {
        let form = |dialect| self.forms.iter().find(|form| form.dialect == dialect).map(|form| &form.bytes);
        form(dialect).or_else(|| form(dialect.plain()))
    }

    /// The push in native JSON, as a frame.
    pub fn json_frame(&self) -> &[u8] {
        self.form(dialect::NATIVE_JSON).expect("every entry is encoded in native JSON")
    }

    /// The push as a JSON object, without its frame header.
    pub fn json(&self) -> &[u8] {
        frame::parts(self.json_frame()).1
    }

    /// What it weighs in a history or a page, bytes.
    pub fn bytes(&self) -> usize {
        self.forms.iter().map(|form| form.bytes.len()).sum()
    }

    /// What it takes beside its bytes.
    pub fn overhead_bytes(&self) -> usize {
        size_of::<Entry>() + COUNTS_BYTES + self.forms.len() * size_of::<Form>()
    }
}

/// Bytes in outboxes: an entry's form or something for one connection, shared without atomics.
pub type Shared = Rc<Frame>;

#[derive(Debug)]
pub struct Frame {
    bytes: Arc<[u8]>,
    class: Class,
    birth: u64,
    account: Rc<Account>,
}

/// What a frame takes beside its bytes: itself and both counts.
const FRAME_BYTES: usize = size_of::<Frame>() + 2 * COUNTS_BYTES;
const _: () = assert!(FRAME_BYTES <= 80);

impl Frame {
    pub fn new(account: &Rc<Account>, bytes: Arc<[u8]>, class: Class) -> Shared {
        let birth = account.take_frame(FRAME_BYTES + bytes.len());
        Rc::new(Frame { bytes, class, birth, account: Rc::clone(account) })
    }

    pub fn logged(account: &Rc<Account>, bytes: &[u8]) -> Shared {
        Frame::new(account, Arc::from(bytes), Class::Logged)
    }

    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    pub fn class(&self) -> Class {
        self.class
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Frames of a shard are numbered as they are made: the smaller, the older.
    pub fn birth(&self) -> u64 {
        self.birth
    }

    pub fn account(&self) -> &Rc<Account> {
        &self.account
    }

    /// What it is charged with, bytes.
    pub fn charge(&self) -> usize {
        FRAME_BYTES + self.bytes.len()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.account.give_frame_back(self.charge());
    }
}

/// An entry's forms as frames of one shard: one of each, whoever holds it.
#[derive(Debug)]
pub struct Frames {
    /// Nearly every entry has one form.
    first: (DialectId, Shared),
    rest: Box<[(DialectId, Shared)]>,
}

impl Frames {
    pub fn of(account: &Rc<Account>, entry: &Entry) -> Frames {
        let frame = |form: &Form| (form.dialect, Frame::new(account, form.bytes.clone(), entry.class));
        let (first, rest) = entry.forms.split_first().expect("every entry is encoded in native JSON");
        Frames { first: frame(first), rest: rest.iter().map(frame).collect() }
    }

    /// Whether there is one of each form of `entry`, of which these are kept.
    #[inline]
    pub fn are_all_of(&self, entry: &Entry) -> bool {
        entry.forms.len() == 1 + self.rest.len()
    }

    /// Those of `entry`, of which these are kept.
    pub fn completed(&self, account: &Rc<Account>, entry: &Entry) -> Frames {
        let kept = |dialect| std::iter::once(&self.first).chain(&self.rest).find(|(spoken, _)| *spoken == dialect);
        let frame = |form: &Form| match kept(form.dialect) {
            Some((dialect, frame)) => (*dialect, frame.clone()),
            None => (form.dialect, Frame::new(account, form.bytes.clone(), entry.class)),
        };
        let (first, rest) = entry.forms.split_first().expect("every entry is encoded in native JSON");
        Frames { first: frame(first), rest: rest.iter().map(frame).collect() }
    }

    #[inline]
    pub fn form(&self, dialect: DialectId) -> Option<&Shared> {
        if self.first.0 == dialect {
            return Some(&self.first.1);
        }
        self.find(dialect).or_else(|| self.find(dialect.plain()))
    }

    fn find(&self, dialect: DialectId) -> Option<&Shared> {
        std::iter::once(&self.first).chain(&self.rest).find(|(spoken, _)| *spoken == dialect).map(|(_, frame)| frame)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Shared> {
        std::iter::once(&self.first).chain(&self.rest).map(|(_, frame)| frame)
    }

    /// The oldest of them.
    pub fn first(&self) -> &Shared {
        &self.first.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_an_entry_is_its_frame_without_the_header() {
        for size in [0usize, 1, 50, 60, 70, 80, 90, 100, 110, 120, 200, 65_400, 65_450, 65_500, 65_530, 70_000] {
            let data = format!("\"{}\"", "x".repeat(size));
            let push = Push {
                event: "e",
                room: Some("r"),
                seq: Some(1),
                mid: None,
                ts: None,
                from: None,
                data: data.as_bytes(),
            };
            let label = Label { place: None, class: Class::Logged, excluded: None, at: Instant::ZERO };
            let entry = Entry::encode(&push, label, DialectSet::default(), &mut Encoder::default());
            let json = format!("{{\"event\":\"e\",\"room\":\"r\",\"seq\":1,\"data\":{data}}}");
            assert_eq!(std::str::from_utf8(entry.json()), Ok(json.as_str()));
        }
    }
}
