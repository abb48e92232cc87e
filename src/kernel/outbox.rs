//! Outboxes: bytes accepted for a connection and not yet written.
//! Invariants: `bytes` is the sum of what is queued; it exceeds the bound in force by one message at
//! most, and only where there was little before ([`Outbox::has_little`]), so one slow phone
//! never costs more, nor delays a room; the front frame, once partly written, is never dropped nor
//! replaced; the places of what spills are charged to the shard's account (see `budget`).

use crate::base::limits::{OUTBOX_BYTES_LARGEST, OUTBOX_BYTES_LEAST, PAGE_BYTES_MAX};
use crate::kernel::budget::Queue;
use crate::kernel::entry::{Class, Frame, Shared};
use crate::kernel::reasons::Dropped;
use std::sync::Arc;

/// So many messages may always wait, too: a few large ones that come at once close nobody who reads.
const INLINE: usize = 4;

/// How much may wait for one connection, bytes: an operator's number and its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutboxBounds {
    /// An outbox with little in it takes one message of any size, so what is held is at most this and one
    /// message, or [`INLINE`] of the largest.
    pub max: usize,
    /// Above this, a connection whose socket takes bytes is behind all the same: no replay alone brings as
    /// much.
    pub behind: usize,
    /// Above this, transient pushes to the connection are dropped.
    pub slow: usize,
    /// A replay takes its next page once the outbox is below this.
    pub resume: usize,
}

impl OutboxBounds {
    /// `max` is kept within what the rest of the core can hold.
    pub const fn of(max: usize) -> OutboxBounds {
        let max = if max < OUTBOX_BYTES_LEAST { OUTBOX_BYTES_LEAST } else { max };
        let max = if max > OUTBOX_BYTES_LARGEST { OUTBOX_BYTES_LARGEST } else { max };
        let (half, resume) = (max / 2, max / 8);
        // A page may come on top of what a replay goes on from.
        let replayed = resume + PAGE_BYTES_MAX + 1;
        OutboxBounds { max, behind: if half > replayed { half } else { replayed }, slow: max / 4, resume }
    }
}

const _: () = {
    let least = OutboxBounds::of(0);
    assert!(least.resume + PAGE_BYTES_MAX < least.behind && least.behind < least.max);
    assert!(least.resume < least.slow && least.slow < least.behind);
    assert!(OutboxBounds::of(usize::MAX).max <= u32::MAX as usize / 2);
};

/// Four frames inline, because most outboxes are empty or hold what one turn brought; more spill
/// into a queue of their own.
#[derive(Default, Debug)]
pub struct Outbox {
    inline: [Option<Shared>; INLINE],
    /// Frames behind the inline ones. None unless all inline places are taken.
    #[allow(clippy::box_collection, reason = "a pointer where four would not fit the row's cache line")]
    spill: Option<Box<Queue<Shared>>>,
    /// Bytes queued and not written.
    bytes: u32,
    /// Bytes of the front frame that are written.
    written: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    Queued,
    /// Queued at the place of an older value.
    Replaced,
    /// Queued, after so many transient frames gave way.
    Shed(u32),
    /// Not queued, by its class: the receiver is slow.
    Dropped(Dropped),
    /// A logged frame that does not fit, though so many transient frames gave way: the receiver must
    /// be closed.
    Overflow(u32),
}

impl Outbox {
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    pub fn is_empty(&self) -> bool {
        self.inline[0].is_none()
    }

    /// Queues `frame`. `slow`: the connection has not taken a byte for too long.
    #[inline]
    pub fn push(&mut self, frame: &Shared, slow: bool, bounds: &OutboxBounds) -> Pushed {
        match frame.class() {
            Class::Logged => {}
            Class::Transient if slow => return Pushed::Dropped(Dropped::TransientSlow),
            Class::Transient if self.bytes() + frame.len() > bounds.slow => {
                return Pushed::Dropped(Dropped::TransientFull);
            }
            Class::Transient => {}
            Class::Latest { key } => {
                if self.replace(key, frame) {
                    return Pushed::Replaced;
                }
                if self.bytes() + frame.len() > bounds.max {
                    return Pushed::Dropped(Dropped::LatestFull);
                }
            }
        }
        if self.bytes() + frame.len() > bounds.max {
            return self.push_beyond(frame, bounds);
        }
        self.append(frame.clone());
        Pushed::Queued
    }

    /// Queues what passes the bound, if there is little, or what does no longer after others gave way.
    #[cold]
    fn push_beyond(&mut self, frame: &Shared, bounds: &OutboxBounds) -> Pushed {
        if self.has_little(bounds) {
            self.append(frame.clone());
            return Pushed::Queued;
        }
        let shed = self.shed();
        if self.bytes() + frame.len() > bounds.max && !self.has_little(bounds) {
            return Pushed::Overflow(shed);
        }
        self.append(frame.clone());
        Pushed::Shed(shed)
    }

    /// Then there is room for one message of any size: the largest ones must get past a reply that waits,
    /// through a replay, which goes on from here, and to whoever is still at the one before.
    fn has_little(&self, bounds: &OutboxBounds) -> bool {
        self.bytes() <= bounds.resume || self.inline[INLINE - 1].is_none()
    }

    /// Queues `frame` whatever the bound says: the close frame, one a connection.
    pub fn push_last(&mut self, frame: &Shared) {
        self.append(frame.clone());
    }

    fn append(&mut self, frame: Shared) {
        self.bytes += frame.len() as u32;
        for place in &mut self.inline {
            if place.is_none() {
                *place = Some(frame);
                return;
            }
        }
        let spill = self.spill.get_or_insert_default();
        spill.make_room(frame.account());
        spill.push_back(frame);
    }

    /// Has all of `later` go behind what is queued here. Of its front frame nothing may have been written: see
    /// [`Outbox::cut_written`].
    pub fn go_before(&mut self, mut later: Outbox) {
        assert_eq!(later.written, 0, "a frame that is begun goes first");
        later.take_all().into_iter().for_each(|frame| self.append(frame));
    }

    /// Makes what is left of a front frame that is partly written a frame of its own.
    pub fn cut_written(&mut self) {
        let written = std::mem::take(&mut self.written) as usize;
        if let Some(front) = self.inline[0].as_mut().filter(|_| written > 0) {
            *front = Frame::new(front.account(), Arc::from(&front.bytes()[written..]), front.class());
        }
    }

    pub fn frames(&self) -> impl Iterator<Item = &Shared> {
        self.inline.iter().flatten().chain(self.spill.iter().flat_map(|spill| spill.iter()))
    }

    /// What may still be changed: everything but a front frame that is partly written.
    fn unwritten(&mut self) -> impl Iterator<Item = &mut Shared> {
        let started = usize::from(self.written > 0);
        let spill = self.spill.iter_mut().flat_map(|spill| spill.iter_mut());
        self.inline.iter_mut().flatten().chain(spill).skip(started)
    }

    fn replace(&mut self, key: u64, frame: &Shared) -> bool {
        let is_older = |queued: &&mut Shared| queued.class() == Class::Latest { key };
        let Some(older) = self.unwritten().find(is_older) else {
            return false;
        };
        let before = older.len() as u32;
        *older = frame.clone();
        self.bytes = self.bytes - before + frame.len() as u32;
        true
    }

    /// Drops what may be dropped to make room for what may not. Says how much that was.
    fn shed(&mut self) -> u32 {
        let (started, written) = (self.written > 0, self.written);
        let mut shed = 0;
        for (place, frame) in self.take_all().into_iter().enumerate() {
            if frame.class() != Class::Transient || (started && place == 0) {
                self.append(frame);
            } else {
                shed += 1;
            }
        }
        self.bytes -= written;
        shed
    }

    /// Drops everything but a front frame that is partly written: half a frame would end the
    /// stream as surely as a lost one. `dropped` is told of each.
    pub fn cut(&mut self, mut dropped: impl FnMut(&Frame)) {
        let (started, written) = (self.written > 0, self.written);
        for (place, frame) in self.take_all().into_iter().enumerate() {
            if started && place == 0 {
                self.append(frame);
            } else {
                dropped(&frame);
            }
        }
        self.bytes -= written;
    }

    /// Empties the queue; `written` stays.
    fn take_all(&mut self) -> Vec<Shared> {
        self.bytes = 0;
        let mut spill = self.spill.take();
        let spilled = spill.iter_mut().flat_map(|spill| std::iter::from_fn(|| spill.pop_front()));
        self.inline.iter_mut().filter_map(Option::take).chain(spilled).collect()
    }

    /// The frame to be written first.
    pub fn front(&self) -> Option<&Shared> {
        self.inline[0].as_ref()
    }

    /// What the places of spilled frames take, bytes.
    pub fn places_bytes(&self) -> usize {
        self.spill.as_ref().map_or(0, |spill| spill.places_bytes())
    }

    /// Appends what to write next, front first, until `bytes_max` is reached. Returns the bytes.
    pub fn gather<'a>(&'a self, into: &mut Vec<&'a [u8]>, bytes_max: usize) -> usize {
        let mut bytes = 0;
        let mut skip = self.written as usize;
        for frame in self.frames() {
            if bytes >= bytes_max {
                break;
            }
            let rest = &frame.bytes()[skip..];
            skip = 0;
            bytes += rest.len();
            into.push(rest);
        }
        bytes
    }

    /// The socket took `bytes` of what [`Outbox::gather`] named.
    pub fn wrote(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes(), "no more is written than was queued");
        self.bytes -= bytes as u32;
        let mut done = self.written as usize + bytes;
        while let Some(front) = &self.inline[0] {
            if done < front.len() {
                break;
            }
            done -= front.len();
            self.pop_front();
        }
        self.written = done as u32;
    }

    fn pop_front(&mut self) {
        self.inline[0] = None;
        self.inline.rotate_left(1);
        if let Some(spill) = &mut self.spill {
            self.inline[INLINE - 1] = spill.pop_front();
            if spill.is_empty() {
                self.spill = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::OUTBOX_BYTES_MAX;
    use crate::kernel::budget::Account;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::rc::Rc;
    use std::sync::Arc;

    const BOUNDS: OutboxBounds = OutboxBounds::of(OUTBOX_BYTES_MAX);

    fn frame(class: Class, len: usize, tag: u8) -> Shared {
        Frame::new(&Rc::new(Account::default()), Arc::from(vec![tag; len]), class)
    }

    fn drain(outbox: &mut Outbox) -> Vec<u8> {
        let mut slices = Vec::new();
        let bytes = outbox.gather(&mut slices, usize::MAX);
        let all = slices.concat();
        outbox.wrote(bytes);
        all
    }

    #[test]
    fn a_newer_value_takes_the_place_of_the_queued_one() {
        let mut outbox = Outbox::default();
        outbox.push(&frame(Class::Latest { key: 7 }, 2, b'a'), false, &BOUNDS);
        outbox.push(&frame(Class::Logged, 1, b'-'), false, &BOUNDS);
        outbox.push(&frame(Class::Latest { key: 7 }, 3, b'b'), false, &BOUNDS);
        outbox.push(&frame(Class::Latest { key: 8 }, 1, b'c'), false, &BOUNDS);
        assert_eq!(outbox.bytes(), 5);
        assert_eq!(drain(&mut outbox), b"bbb-c");
    }

    #[test]
    fn a_frame_that_is_partly_written_is_finished() {
        let mut outbox = Outbox::default();
        outbox.push(&frame(Class::Latest { key: 7 }, 4, b'a'), false, &BOUNDS);
        outbox.wrote(1);
        outbox.push(&frame(Class::Latest { key: 7 }, 2, b'b'), false, &BOUNDS);
        outbox.push(&frame(Class::Logged, 2, b'c'), false, &BOUNDS);
        let mut dropped = Vec::new();
        outbox.cut(|frame| dropped.push(frame.class()));
        assert_eq!(dropped, [Class::Latest { key: 7 }, Class::Logged]);
        outbox.push_last(&frame(Class::Logged, 1, b'!'));
        assert_eq!(drain(&mut outbox), b"aaa!");
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn one_goes_before_another_whatever_was_written_of_either() {
        for (written_first, written_second) in [(0, 0), (1, 0), (0, 2), (2, 1)] {
            let (mut first, mut second) = (Outbox::default(), Outbox::default());
            for tag in b'a'..b'g' {
                first.push(&frame(Class::Logged, 3, tag), false, &BOUNDS);
                second.push(&frame(Class::Logged, 3, tag + 10), false, &BOUNDS);
            }
            first.wrote(written_first);
            second.wrote(written_second);
            second.cut_written();
            first.go_before(second);
            let all: Vec<u8> = (b'a'..b'g').chain(b'k'..b'q').flat_map(|tag| [tag; 3]).collect();
            let mut expected = all.clone();
            expected.drain(18..18 + written_second);
            expected.drain(..written_first);
            assert_eq!(first.bytes(), expected.len());
            assert_eq!(drain(&mut first), expected);
            assert!(first.is_empty());
        }
    }

    #[test]
    fn transient_frames_make_room_for_logged_ones() {
        let mut outbox = Outbox::default();
        for _ in 0..BOUNDS.slow / 1_000 {
            assert_eq!(outbox.push(&frame(Class::Transient, 1_000, b't'), false, &BOUNDS), Pushed::Queued);
        }
        assert_eq!(
            outbox.push(&frame(Class::Transient, 1_000, b't'), false, &BOUNDS),
            Pushed::Dropped(Dropped::TransientFull)
        );
        assert_eq!(outbox.push(&frame(Class::Logged, BOUNDS.max - 13, b'l'), false, &BOUNDS), Pushed::Shed(262));
        for _ in 1..INLINE {
            assert_eq!(outbox.push(&frame(Class::Logged, 1, b'l'), false, &BOUNDS), Pushed::Queued);
        }
        assert_eq!(outbox.bytes(), BOUNDS.max - 10);
        assert_eq!(outbox.push(&frame(Class::Logged, 11, b'l'), false, &BOUNDS), Pushed::Overflow(0));
        assert_eq!(outbox.bytes(), BOUNDS.max - 10);
    }

    #[test]
    fn an_outbox_with_little_in_it_takes_one_message_of_any_size() {
        let mut outbox = Outbox::default();
        let largest = frame(Class::Logged, BOUNDS.max + 100, b'l');
        for _ in 0..8 {
            outbox.push(&frame(Class::Logged, BOUNDS.resume / 8, b'l'), false, &BOUNDS);
        }
        assert_eq!(outbox.push(&largest, false, &BOUNDS), Pushed::Queued);
        assert_eq!(outbox.push(&frame(Class::Logged, 1, b'l'), false, &BOUNDS), Pushed::Overflow(0));
        // Few are little, too, and what one of them leaves is a place again.
        let mut outbox = Outbox::default();
        for _ in 0..INLINE {
            assert_eq!(outbox.push(&largest, false, &BOUNDS), Pushed::Queued);
        }
        assert_eq!(outbox.push(&frame(Class::Logged, 1, b'l'), false, &BOUNDS), Pushed::Overflow(0));
        outbox.wrote(largest.len() - 1);
        assert_eq!(outbox.push(&largest, false, &BOUNDS), Pushed::Overflow(0));
        outbox.wrote(1);
        assert_eq!(outbox.push(&largest, false, &BOUNDS), Pushed::Queued);
        assert_eq!(outbox.bytes(), INLINE * largest.len());
    }

    #[test]
    fn a_slow_connection_gets_no_transient_frames() {
        let mut outbox = Outbox::default();
        assert_eq!(
            outbox.push(&frame(Class::Transient, 1, b't'), true, &BOUNDS),
            Pushed::Dropped(Dropped::TransientSlow)
        );
        assert_eq!(outbox.push(&frame(Class::Logged, 1, b'l'), true, &BOUNDS), Pushed::Queued);
    }

    proptest! {
        #[test]
        fn bytes_leave_in_the_order_they_came(moves in proptest::collection::vec((1usize..40, 0usize..100), 1..200)) {
            let mut outbox = Outbox::default();
            let mut expected: VecDeque<u8> = VecDeque::new();
            for (tag, (len, taken)) in moves.into_iter().enumerate() {
                let tag = tag as u8;
                prop_assert_eq!(outbox.push(&frame(Class::Logged, len, tag), false, &BOUNDS), Pushed::Queued);
                expected.extend(std::iter::repeat_n(tag, len));
                prop_assert_eq!(outbox.bytes(), expected.len());
                let mut slices = Vec::new();
                let ready = outbox.gather(&mut slices, 64);
                let taken = taken.min(ready);
                let got: Vec<u8> = slices.concat().into_iter().take(taken).collect();
                let want: Vec<u8> = expected.drain(..taken).collect();
                prop_assert_eq!(got, want);
                outbox.wrote(taken);
                prop_assert_eq!(outbox.bytes(), expected.len());
                prop_assert_eq!(outbox.is_empty(), expected.is_empty());
            }
        }
    }
}
