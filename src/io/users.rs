//! How many connections each user has in this process, exactly, where that is limited; where it is
//! not, nobody is here and nothing is paid. Users are told apart by 64 bits of a keyed hash.
//! Invariant: a user is here while it has a connection that was counted.

use crate::base::hash::Keyed;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shards rarely want the same part at the same time.
const PARTS: usize = 64;

type Part = HashMap<u64, u32, Keyed>;

pub struct Users {
    parts: Box<[Mutex<Part>]>,
    keyed: Keyed,
}

/// One connection. Dropping it takes it off.
pub struct Counted {
    users: Arc<Users>,
    user: u64,
}

impl Users {
    pub fn new(key: [u64; 2]) -> Users {
        let keyed = Keyed::new(key);
        Users { parts: (0..PARTS).map(|_| Mutex::new(HashMap::with_hasher(keyed))).collect(), keyed }
    }

    /// Counts a connection; `None`: the user has `max` already.
    pub fn enter(self: &Arc<Self>, tenant: &str, user: &str, max: u32) -> Option<Counted> {
        let user = self.keyed.hash_one((tenant, user));
        let mut part = self.part(user);
        let count = part.entry(user).or_default();
        if *count < max {
            *count += 1;
            return Some(Counted { users: Arc::clone(self), user });
        }
        None
    }

    fn part(&self, user: u64) -> MutexGuard<'_, Part> {
        // Nothing is done to a part that could fail half-way.
        self.parts[user as usize % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut part = self.users.part(self.user);
        let Entry::Occupied(mut count) = part.entry(self.user) else { return };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
        if part.capacity() > 4 * part.len() + 64 {
            part.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn len(users: &Users) -> usize {
        (0..PARTS as u64).map(|part| users.part(part).len()).sum()
    }

    #[test]
    fn a_user_has_as_many_connections_as_it_may_and_no_more() {
        let users = Arc::new(Users::new([1, 2]));
        let first = users.enter("t", "alice", 2).unwrap();
        let second = users.enter("t", "alice", 2).unwrap();
        assert!(users.enter("t", "alice", 2).is_none());
        assert!(users.enter("t", "bob", 2).is_some() && users.enter("u", "alice", 2).is_some());
        drop(first);
        let third = users.enter("t", "alice", 2);
        assert!(third.is_some() && users.enter("t", "alice", 2).is_none());
        drop((second, third));
        assert_eq!(len(&users), 0, "who has left is forgotten");
    }

    #[test]
    fn shards_that_count_at_once_agree() {
        let users = Arc::new(Users::new([1, 2]));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let users = Arc::clone(&users);
                std::thread::spawn(move || {
                    let all: Vec<_> = (0..5_000).filter_map(|_| users.enter("t", "alice", 1_000)).collect();
                    // A quarter of them leave.
                    all.into_iter().skip(1).step_by(4).for_each(drop);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(len(&users), 0);
    }
}
