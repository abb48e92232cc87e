//! Client ids of publishes, so that a retry is answered and not delivered again.
//! Invariant: a (user, cid) is remembered for [`CID_AGE_MAX`] or until [`CIDS_PER_ROOM_MAX`] later
//! ones have come.

use crate::admission::names::User;
use crate::base::hash::{Keyed, KeyedMap};
use crate::base::limits::{CID_AGE_MAX, CIDS_PER_ROOM_MAX};
use crate::base::time::Instant;
use crate::kernel::ids::Place;
use std::collections::VecDeque;
use std::sync::Arc;

type Name = (User, Arc<str>);

pub struct Cids {
    places: KeyedMap<Name, Place>,
    oldest_first: VecDeque<(Instant, Name)>,
}

impl Cids {
    pub fn new(keyed: Keyed) -> Self {
        Cids { places: KeyedMap::with_hasher(keyed), oldest_first: VecDeque::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn find(&self, user: &User, cid: &Arc<str>) -> Option<Place> {
        self.places.get(&(user.clone(), cid.clone())).copied()
    }

    pub fn remember(&mut self, now: Instant, user: User, cid: Arc<str>, place: Place) {
        self.expire(now);
        if self.oldest_first.len() == CIDS_PER_ROOM_MAX {
            self.forget_oldest();
        }
        let name = (user, cid);
        let before = self.places.insert(name.clone(), place);
        assert!(before.is_none(), "a client id is sequenced once");
        self.oldest_first.push_back((now, name));
    }

    pub fn expire(&mut self, now: Instant) {
        while self.oldest_first.front().is_some_and(|(at, _)| now.since(*at) > CID_AGE_MAX) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, name)) = self.oldest_first.pop_front() {
            self.places.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::{Mid, Seq};
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
        assert_eq!(cids.find(&user, &"0".into()), None);
        assert_eq!(cids.find(&user, &"1".into()).map(|place| place.seq), Some(Seq(1)));
        assert_eq!(cids.oldest_first.len(), CIDS_PER_ROOM_MAX);
    }
}
