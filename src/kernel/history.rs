//! The last messages of a room, for those who come back and for shards that fell behind.
//! Invariants: entries are dense and in order; entries, bytes and age stay within their bounds; the
//! frames that are kept are those of the home's own outboxes, so both together are charged once.

use crate::base::limits::{HISTORY_AGE_MAX, HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX};
use crate::base::time::Instant;
use crate::kernel::budget::{Account, Queue};
use crate::kernel::entry::{Entry, Frames};
use crate::kernel::ids::{Mid, Place, Seq};
use std::rc::Rc;
use std::sync::Arc;

#[derive(Default)]
pub struct History {
    entries: Queue<Kept>,
    bytes: usize,
}

/// An entry with its frames at home.
#[derive(Debug)]
pub struct Kept {
    entry: Arc<Entry>,
    frames: Frames,
}

impl Kept {
    fn new(entry: Arc<Entry>, account: &Rc<Account>) -> Kept {
        let kept = Kept { frames: Frames::of(account, &entry), entry };
        account.take_kept(kept.entry.overhead_bytes(), kept.frames_charge());
        kept
    }

    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    fn frames_charge(&self) -> usize {
        self.frames.iter().map(|frame| frame.charge()).sum()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let account = self.frames.first().account();
        account.give_kept_back(self.entry.overhead_bytes(), self.frames_charge());
    }
}

/// What came after a position is not all there any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap;

impl History {
    pub const fn new() -> History {
        History { entries: Queue::new(), bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps `entry` ([`Entry::kept`]), which must be the next in order, and lets go of what is too old or too
    /// much.
    pub fn push(&mut self, entry: &Arc<Entry>, account: &Rc<Account>) {
        let entry = entry.kept();
        let seq = place(&entry).seq;
        if let Some(last) = self.last() {
            assert_eq!(seq, last.next(), "a history is dense");
        }
        let now = entry.at;
        self.bytes += entry.bytes();
        self.entries.make_room(account);
        self.entries.push_back(Kept::new(entry, account));
        self.expire(now);
    }

    /// Lets go of what is too old or too much.
    pub fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.entries.front() {
            let too_much =
                self.entries.len() > HISTORY_ENTRIES_MAX || (self.bytes > HISTORY_BYTES_MAX && self.entries.len() > 1);
            if !too_much && now.since(oldest.entry.at) <= HISTORY_AGE_MAX {
                break;
            }
            self.forget_oldest();
        }
        self.entries.shrink();
    }

    /// Lets go of the oldest entry, if there is one.
    pub fn forget_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.bytes -= oldest.entry.bytes();
        }
    }

    /// The birth of the oldest frame.
    pub fn oldest_birth(&self) -> Option<u64> {
        Some(self.entries.front()?.frames.first().birth())
    }

    /// What the list of entries takes, bytes.
    pub fn places_bytes(&self) -> usize {
        self.entries.places_bytes()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.entries.iter()
    }

    fn first(&self) -> Option<Seq> {
        self.entries.front().map(|kept| place(&kept.entry).seq)
    }

    fn last(&self) -> Option<Seq> {
        self.entries.back().map(|kept| place(&kept.entry).seq)
    }

    pub fn get(&self, seq: Seq) -> Option<&Arc<Entry>> {
        self.kept(seq).map(Kept::entry)
    }

    fn kept(&self, seq: Seq) -> Option<&Kept> {
        let nth = seq.0.checked_sub(self.first()?.0)?;
        self.entries.get(usize::try_from(nth).ok()?)
    }

    /// The frames that are kept of `entry`, a message of this room, while any are.
    pub fn frames_of(&self, entry: &Entry) -> Option<&Frames> {
        let kept = self.kept(entry.place?.seq)?;
        (kept.entry.place == entry.place).then_some(&kept.frames)
    }

    /// The entries after `after`, oldest first. `head` is the room's last seq: what lies between
    /// must all be here, or it is a gap. A position after `head` was never given out: a gap too.
    pub fn after(&self, after: Seq, head: Seq) -> Result<impl DoubleEndedIterator<Item = &Arc<Entry>> + use<'_>, Gap> {
        if after > head || (after < head && self.get(after.next()).is_none()) {
            return Err(Gap);
        }
        let skipped = match self.first() {
            Some(first) => (after.0 + 1).saturating_sub(first.0) as usize,
            None => 0,
        };
        Ok(self.entries.range(skipped.min(self.entries.len())..).map(Kept::entry))
    }

    /// The entries before `end` that are kept, oldest first.
    pub fn kept_before(&self, end: Seq) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        let first = self.first().unwrap_or(end);
        let count = end.0.saturating_sub(first.0).min(self.entries.len() as u64);
        self.entries.range(..count as usize).map(Kept::entry)
    }

    /// Where `mid` stands. Mids of a room grow with its order.
    pub fn find(&self, mid: Mid) -> Option<Seq> {
        let found = self.entries.binary_search_by_key(&mid, |kept| place(&kept.entry).mid)?;
        Some(place(self.entries.get(found)?.entry()).seq)
    }
}

fn place(entry: &Entry) -> Place {
    entry.place.expect("only sequenced entries are kept")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernel::entry::Encoder;
    use crate::kernel::entry::{Class, Label};
    use crate::wire::dialect::DialectSet;
    use crate::wire::encode::Push;
    use proptest::prelude::*;
    use std::time::Duration;

    pub fn entry(seq: u64, size: usize, at: Instant) -> Arc<Entry> {
        let data = format!("\"{}\"", "x".repeat(size));
        let push = Push {
            event: "e",
            room: Some("r"),
            seq: Some(seq),
            mid: None,
            ts: None,
            from: None,
            data: data.as_bytes(),
        };
        let place = Some(Place { mid: Mid(seq as u128 * 3), seq: Seq(seq) });
        let label = Label { place, class: Class::Logged, excluded: None, at };
        Arc::new(Entry::encode(&push, label, DialectSet::default(), &mut Encoder::default()))
    }

    #[derive(Clone, Debug)]
    enum Move {
        Push { size: usize },
        Wait { seconds: u64 },
        After { back: u64 },
        Find { back: u64 },
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            6 => prop_oneof![Just(10usize), Just(1_000), Just(600_000)].prop_map(|size| Move::Push { size }),
            1 => (0u64..400).prop_map(|seconds| Move::Wait { seconds }),
            2 => (0u64..30).prop_map(|back| Move::After { back }),
            1 => (0u64..30).prop_map(|back| Move::Find { back }),
        ];
        proptest::collection::vec(one, 1..80)
    }

    proptest! {
        #[test]
        fn a_history_agrees_with_a_plain_list(moves in moves()) {
            let account = Rc::new(Account::default());
            let mut history = History::default();
            let mut model: Vec<(u64, usize, Instant)> = Vec::new();
            let mut now = Instant::ZERO;
            let mut head = 0u64;
            for step in moves {
                match step {
                    Move::Push { size } => {
                        head += 1;
                        let entry = entry(head, size, now);
                        model.push((head, entry.bytes(), now));
                        history.push(&entry, &account);
                    }
                    Move::Wait { seconds } => {
                        now = now.after(Duration::from_secs(seconds));
                        history.expire(now);
                    }
                    Move::After { back } => {
                        let after = head.saturating_sub(back);
                        let want: Vec<u64> = model.iter().map(|row| row.0).filter(|seq| *seq > after).collect();
                        let complete = want.len() as u64 == head - after;
                        match history.after(Seq(after), Seq(head)) {
                            Ok(got) => {
                                prop_assert!(complete);
                                let got: Vec<u64> = got.map(|entry| super::place(entry).seq.0).collect();
                                prop_assert_eq!(got, want);
                            }
                            Err(Gap) => prop_assert!(!complete),
                        }
                        prop_assert!(history.after(Seq(head + 1), Seq(head)).is_err());
                    }
                    Move::Find { back } => {
                        let seq = head.saturating_sub(back);
                        let want = model.iter().any(|row| row.0 == seq).then_some(Seq(seq));
                        prop_assert_eq!(history.find(Mid(seq as u128 * 3)), want);
                        prop_assert_eq!(history.find(Mid(seq as u128 * 3 + 1)), None);
                    }
                }
                while let Some(oldest) = model.first() {
                    let bytes: usize = model.iter().map(|row| row.1).sum();
                    let too_much = model.len() > HISTORY_ENTRIES_MAX || (bytes > HISTORY_BYTES_MAX && model.len() > 1);
                    if !too_much && now.since(oldest.2) <= HISTORY_AGE_MAX {
                        break;
                    }
                    model.remove(0);
                }
                prop_assert_eq!(history.len(), model.len());
                prop_assert_eq!(history.bytes(), model.iter().map(|row| row.1).sum::<usize>());
                let frames: usize = history.iter().flat_map(|kept| kept.frames().iter()).map(|frame| frame.charge()).sum();
                let entries: usize = history.iter().map(|kept| kept.entry().overhead_bytes()).sum();
                prop_assert_eq!(account.history(), frames + entries);
                prop_assert_eq!(account.used(), frames + entries + history.places_bytes());
            }
            drop(history);
            prop_assert_eq!((account.used(), account.history(), account.frames()), (0, 0, 0));
        }
    }
}
