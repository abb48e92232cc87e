//! The memory that a shard may hold for what is to be sent, or asked for again: frames, each once
//! however many outboxes and the history refer to it, what a history keeps with them, and the
//! places of the queues that refer to them.
//! Invariant: [`Account::used`] is the sum over what lives. Whatever is charged holds the account
//! and gives itself back when it is dropped, so no path can forget to; and nothing is charged for
//! a receiver, but for its queue when that grows.

use std::cell::Cell;
use std::collections::{VecDeque, vec_deque};
use std::ops::RangeBounds;
use std::rc::Rc;

/// What an `Rc` or an `Arc` keeps beside its value, bytes.
pub const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// What one shard holds, in bytes. Shared by all that is charged; plain cells, because a shard is
/// one thread.
#[derive(Default, Debug)]
pub struct Account {
    used: Cell<usize>,
    frames: Cell<usize>,
    places: Cell<usize>,
    history: Cell<usize>,
    births: Cell<u64>,
}

impl Account {
    /// All of it.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// How many frames live.
    pub fn frames(&self) -> usize {
        self.frames.get()
    }

    /// Bytes of queues' places, part of [`Account::used`].
    pub fn places(&self) -> usize {
        self.places.get()
    }

    /// Bytes that histories keep, frames included whether or not outboxes hold them too.
    pub fn history(&self) -> usize {
        self.history.get()
    }

    /// Charges a frame and says the how manieth of this shard it is.
    pub(super) fn take_frame(&self, bytes: usize) -> u64 {
        self.used.set(self.used.get() + bytes);
        self.frames.set(self.frames.get() + 1);
        self.births.set(self.births.get() + 1);
        self.births.get()
    }

    pub(super) fn give_frame_back(&self, bytes: usize) {
        self.used.set(self.used.get() - bytes);
        self.frames.set(self.frames.get() - 1);
    }

    /// Charges what a history keeps of an entry: `own` beside the frames, which are charged already.
    pub(super) fn take_kept(&self, own: usize, frames: usize) {
        self.used.set(self.used.get() + own);
        self.history.set(self.history.get() + own + frames);
    }

    pub(super) fn give_kept_back(&self, own: usize, frames: usize) {
        self.used.set(self.used.get() - own);
        self.history.set(self.history.get() - own - frames);
    }

    fn resize_places(&self, before: usize, after: usize) {
        self.used.set(self.used.get() - before + after);
        self.places.set(self.places.get() - before + after);
    }
}

/// A queue whose places are charged, as many as it has taken from the allocator.
#[derive(Debug)]
pub struct Queue<T> {
    items: VecDeque<T>,
    /// Known from the first item on.
    account: Option<Rc<Account>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue::new()
    }
}

impl<T> Queue<T> {
    pub const fn new() -> Self {
        Queue { items: VecDeque::new(), account: None }
    }

    /// What the places cost, bytes.
    pub fn places_bytes(&self) -> usize {
        self.items.capacity() * size_of::<T>()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Appends; [`Queue::make_room`] goes before.
    pub fn push_back(&mut self, item: T) {
        debug_assert!(self.items.len() < self.items.capacity(), "places are charged before they are taken");
        self.items.push_back(item);
    }

    /// Sees to it that there is a place for one more. `account`: the same for all of a queue's life.
    #[inline]
    pub fn make_room(&mut self, account: &Rc<Account>) {
        if self.items.len() == self.items.capacity() {
            self.grow(account);
        }
    }

    #[cold]
    fn grow(&mut self, account: &Rc<Account>) {
        let before = self.places_bytes();
        self.items.reserve(1);
        let after = self.places_bytes();
        self.account.get_or_insert_with(|| Rc::clone(account)).resize_places(before, after);
    }

    pub fn pop_front(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// Gives back places of a queue that was much longer once.
    pub fn shrink(&mut self) {
        let before = self.places_bytes();
        match self.items.len() {
            0 => self.items = VecDeque::new(),
            len if self.items.capacity() / 4 > len => self.items.shrink_to(len * 2),
            _ => return,
        }
        if let Some(account) = &self.account {
            account.resize_places(before, self.places_bytes());
        }
    }

    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    pub fn back(&self) -> Option<&T> {
        self.items.back()
    }

    pub fn get(&self, nth: usize) -> Option<&T> {
        self.items.get(nth)
    }

    pub fn iter(&self) -> vec_deque::Iter<'_, T> {
        self.items.iter()
    }

    pub fn iter_mut(&mut self) -> vec_deque::IterMut<'_, T> {
        self.items.iter_mut()
    }

    pub fn range(&self, range: impl RangeBounds<usize>) -> vec_deque::Iter<'_, T> {
        self.items.range(range)
    }

    /// The place of the item whose key is `key`, in a queue that is sorted by keys.
    pub fn binary_search_by_key<K: Ord>(&self, key: &K, key_of: impl FnMut(&T) -> K) -> Option<usize> {
        self.items.binary_search_by_key(key, key_of).ok()
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.resize_places(self.places_bytes(), 0);
        }
    }
}

/// A shard's budget: when it is relieved (see `relief`), down to where, and when it takes no more.
#[derive(Debug)]
pub struct Memory {
    pub account: Rc<Account>,
    budget: usize,
    /// The next relief is due above this.
    relieve_above: usize,
    /// The last relief ended above [`Memory::low`]: nothing was left to let go of.
    is_full: bool,
    /// The last relief was too much for one step.
    is_unfinished: bool,
}

impl Memory {
    pub fn new(budget: usize) -> Memory {
        let (account, is_full, is_unfinished) = (Rc::default(), false, false);
        let mut memory = Memory { account, budget, relieve_above: 0, is_full, is_unfinished };
        memory.relieve_above = memory.high();
        memory
    }

    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Above this, a shard is relieved.
    pub fn high(&self) -> usize {
        self.budget / 8 * 7
    }

    /// A relief lets go until this is reached: what it frees pays for the walk over all rows.
    pub fn low(&self) -> usize {
        self.budget / 4 * 3
    }

    /// What readers may hold beyond the histories before it is theirs to let go of something.
    pub fn share(&self) -> usize {
        self.budget / 4
    }

    pub fn is_above_low(&self) -> bool {
        self.account.used() > self.low()
    }

    pub fn is_above_share(&self) -> bool {
        self.account.used() - self.account.history() > self.share()
    }

    pub fn is_over(&self) -> bool {
        self.account.used() > self.relieve_above
    }

    /// No relief helped, and it has not become less by itself since: nothing new is taken in.
    pub fn is_full(&mut self) -> bool {
        if self.is_full && !self.is_above_low() {
            self.is_full = false;
            self.relieve_above = self.high();
        }
        self.is_full
    }

    /// The same, for those who only look.
    pub fn refuses(&self) -> bool {
        self.is_full && self.is_above_low()
    }

    /// The last relief is to be gone on with at the next tick.
    pub fn is_unfinished(&self) -> bool {
        self.is_unfinished
    }

    /// A relief ends for now, and there is more to let go of. What comes until the next tick may be
    /// no more than what one that could not help is allowed.
    pub fn note_unfinished(&mut self) {
        self.note_relief();
        self.is_unfinished = true;
        self.is_full = false;
    }

    /// Decides when the next relief is due. One that could not help is not tried again before there
    /// is a sixteenth of the budget more, or the whole of it is used: a walk for nothing with every
    /// message would be worse than what it is to prevent.
    pub fn note_relief(&mut self) {
        let used = self.account.used();
        self.is_full = self.is_above_low();
        self.is_unfinished = false;
        let later = used + self.budget / 16;
        let end = if used < self.budget { later.min(self.budget) } else { later };
        self.relieve_above = if self.is_full { end.max(self.high()) } else { self.high() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_charged_for_its_places_and_gives_them_back() {
        let account = Rc::new(Account::default());
        let mut queue = Queue::default();
        assert_eq!((queue.places_bytes(), account.used()), (0, 0));
        for nth in 0..1_000u64 {
            queue.make_room(&account);
            queue.push_back(nth);
            assert_eq!(account.used(), queue.places_bytes());
            assert!(account.used() >= queue.len() * size_of::<u64>());
        }
        let most = account.used();
        for _ in 0..990 {
            queue.pop_front();
            queue.shrink();
            assert_eq!(account.used(), queue.places_bytes());
        }
        assert!(account.used() < most / 8, "{} of {most}", account.used());
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), (990..1_000).collect::<Vec<_>>());
        drop(queue);
        assert_eq!((account.used(), account.places()), (0, 0));
    }

    #[test]
    fn a_relief_that_helped_is_due_again_at_the_mark_and_one_that_did_not_after_a_while() {
        let mut memory = Memory::new(1_600);
        let account = Rc::clone(&memory.account);
        let grow_to = |bytes: usize| account.resize_places(account.used(), bytes);
        grow_to(1_400);
        assert!(!memory.is_over());
        grow_to(1_401);
        assert!(memory.is_over());
        grow_to(1_200);
        memory.note_relief();
        assert!(!memory.is_full() && !memory.is_over());
        grow_to(1_401);
        memory.note_relief();
        assert!(memory.is_full() && !memory.is_over(), "nothing was let go of");
        grow_to(1_502);
        assert!(memory.is_over(), "a sixteenth more");
        memory.note_relief();
        grow_to(1_601);
        assert!(memory.is_over(), "all of it");
        memory.note_relief();
        grow_to(1_650);
        assert!(!memory.is_over());
        grow_to(1_200);
        assert!(!memory.is_full());
        grow_to(1_401);
        assert!(memory.is_over());
    }
}
