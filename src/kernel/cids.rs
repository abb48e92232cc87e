//! Client ids of publishes, so that a retry is answered and not delivered again.
//! Invariant: a (user, cid) is remembered for [`CID_AGE_MAX`] or until [`CIDS_PER_ROOM_MAX`] later
//! ones have come.

use crate::admission::names::User;
use crate::base::hash::Keyed;
use crate::base::index::Index;
use crate::base::limits::{CID_AGE_MAX, CIDS_PER_ROOM_MAX};
use crate::base::table::{Key, Table};
use crate::base::time::Instant;
use crate::kernel::ids::Place;
use std::sync::Arc;

struct Row {
    at: Instant,
    user: User,
    cid: Arc<str>,
    place: Place,
    /// The one that was remembered next.
    next: Option<Key>,
}

/// A table with an index, both of which grow a little at a time: a busy room has tens of thousands.
pub struct Cids {
    rows: Table<Row>,
    index: Index,
    /// The first and the last of those that [`Row::next`] leads through.
    ends: Option<(Key, Key)>,
}

fn name_at(rows: &Table<Row>, slot: u32) -> (&User, &str) {
    let (_, row) = rows.at(slot).expect("an indexed row is there");
    (&row.user, &row.cid)
}

impl Cids {
    pub fn new(keyed: Keyed) -> Self {
        Cids { rows: Table::default(), index: Index::new(keyed), ends: None }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn find(&self, user: &User, cid: &str) -> Option<Place> {
        let slot = self.index.find(&(user, cid), |slot| name_at(&self.rows, slot) == (user, cid))?;
        self.rows.at(slot).map(|(_, row)| row.place)
    }

    pub fn remember(&mut self, now: Instant, user: User, cid: Arc<str>, place: Place) {
        self.expire(now);
        if self.rows.len() == CIDS_PER_ROOM_MAX {
            self.forget_oldest();
        }
        debug_assert!(self.find(&user, &cid).is_none(), "a client id is sequenced once");
        let new = self.rows.insert(Row { at: now, user, cid, place, next: None });
        let rows = &self.rows;
        self.index.insert(&name_at(rows, new.slot), new.slot, |slot| name_at(rows, slot));
        self.ends = match self.ends {
            None => Some((new, new)),
            Some((oldest, newest)) => {
                self.rows.get_mut(newest).expect("the newest is there").next = Some(new);
                Some((oldest, new))
            }
        };
    }

    pub fn expire(&mut self, now: Instant) {
        let is_old = |row: &Row| now.since(row.at) > CID_AGE_MAX;
        while let Some((oldest, _)) = self.ends
            && self.rows.get(oldest).is_some_and(is_old)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((oldest, newest)) = self.ends else { return };
        self.index.remove(&name_at(&self.rows, oldest.slot), oldest.slot);
        let row = self.rows.remove(oldest).expect("the oldest is there");
        self.ends = row.next.map(|next| (next, newest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::{Mid, Seq};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_cid_is_remembered_for_its_user_until_it_is_old() {
        let mut cids = Cids::new(Keyed::new([1, 2]));
        let place = Place { mid: Mid(1), seq: Seq(1) };
        let user = |id| User::new("t".into(), id);
        let (alice, bob, cid): (User, User, Arc<str>) = (user("alice"), user("bob"), "c".into());
        cids.remember(Instant::ZERO, alice.clone(), cid.clone(), place);
        assert_eq!(cids.find(&alice, &cid), Some(place));
        assert_eq!(cids.find(&bob, &cid), None);
        cids.expire(Instant::ZERO.after(CID_AGE_MAX));
        assert_eq!(cids.find(&alice, &cid), Some(place));
        cids.expire(Instant::ZERO.after(CID_AGE_MAX + Duration::from_nanos(1)));
        assert_eq!(cids.find(&alice, &cid), None);
        assert!(cids.is_empty());
    }

    #[test]
    fn the_window_is_bounded_and_the_oldest_goes_first() {
        let mut cids = Cids::new(Keyed::new([1, 2]));
        let user = User::new("t".into(), "u");
        for n in 0..=CIDS_PER_ROOM_MAX as u64 {
            let place = Place { mid: Mid(n as u128), seq: Seq(n) };
            cids.remember(Instant::ZERO, user.clone(), n.to_string().into(), place);
        }
        assert_eq!(cids.find(&user, "0"), None);
        assert_eq!(cids.find(&user, "1").map(|place| place.seq), Some(Seq(1)));
        assert_eq!(cids.rows.len(), CIDS_PER_ROOM_MAX);
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_plain_list(moves in proptest::collection::vec((0u64..200, 0usize..3, 0u32..12), 1..200)) {
            let mut cids = Cids::new(Keyed::new([1, 2]));
            let users = ["a", "b", "c"].map(|id| User::new("t".into(), id));
            let mut model: Vec<(Instant, usize, String, Place)> = Vec::new();
            let mut now = Instant::ZERO;
            for (nth, (seconds, user, cid)) in moves.into_iter().enumerate() {
                now = now.after(Duration::from_secs(seconds));
                cids.expire(now);
                model.retain(|row| now.since(row.0) <= CID_AGE_MAX);
                let cid = cid.to_string();
                let known = model.iter().find(|row| (row.1, &row.2) == (user, &cid)).map(|row| row.3);
                prop_assert_eq!(cids.find(&users[user], &cid), known);
                if known.is_none() {
                    let place = Place { mid: Mid(nth as u128), seq: Seq(nth as u64) };
                    cids.remember(now, users[user].clone(), cid.as_str().into(), place);
                    model.push((now, user, cid, place));
                }
                prop_assert_eq!(cids.rows.len(), model.len());
            }
        }
    }
}
