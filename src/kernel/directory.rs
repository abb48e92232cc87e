//! Who is in a room, at its home: connections one by one (a lost or repeated leave must not count
//! twice), users with how many connections each.
//! Invariant: a user is listed while one of its connections is in; `conns` and `users` change
//! together, in [`Directory::add`] and [`Directory::remove`].

use crate::base::hash::Keyed;
use crate::base::index::Index;
use crate::base::pages::push_small;
use crate::kernel::ids::ConnAt;
use crate::wire::dialect::DialectId;
use std::sync::Arc;

struct Conn {
    at: ConnAt,
    user: u32,
    dialect: DialectId,
}

struct User {
    id: Arc<str>,
    conns: u32,
}

/// Rows from which on they are found by index instead of by looking at each.
const INDEXED_FROM: usize = 9;

#[derive(Default)]
pub struct Directory {
    /// Rows never move while taken, so a row's number is a cursor for paging.
    users: Vec<Option<User>>,
    users_free: Vec<u32>,
    conns: Vec<Conn>,
    /// None in a small room, and most rooms are small: an inbox holds one user's devices.
    indexes: Option<Box<Indexes>>,
}

struct Indexes {
    users: Index<u32>,
    conns: Index<u32>,
}

/// Whom a connection of a room speaks for, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub user: Arc<str>,
    pub dialect: DialectId,
}

/// What a join or a leave changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The connection was there already.
    Nothing,
    /// One more or less connection of a user who stays listed.
    Conn,
    /// The user's first connection came, or the last one went.
    User,
}

impl Directory {
    pub fn conns(&self) -> usize {
        self.conns.len()
    }

    pub fn users(&self) -> usize {
        self.users.len() - self.users_free.len()
    }

    pub fn contains(&self, at: ConnAt) -> bool {
        self.place_of(at).is_some()
    }

    fn place_of(&self, at: ConnAt) -> Option<u32> {
        let is_it = |place: u32| self.conns[place as usize].at == at;
        match &self.indexes {
            Some(indexes) => indexes.conns.find(&at, is_it),
            None => (0..self.conns.len() as u32).find(|place| is_it(*place)),
        }
    }

    fn user_of(&self, id: &str) -> Option<u32> {
        let is_it = |place: u32| self.users[place as usize].as_ref().is_some_and(|user| &*user.id == id);
        match &self.indexes {
            Some(indexes) => indexes.users.find(id, is_it),
            None => (0..self.users.len() as u32).find(|place| is_it(*place)),
        }
    }

    /// Adds a connection of user `id`. `keyed`: the hasher of the index, should the room grow one.
    pub fn add(&mut self, at: ConnAt, id: &Arc<str>, dialect: DialectId, keyed: Keyed) -> Change {
        if self.contains(at) {
            return Change::Nothing;
        }
        let known = self.user_of(id);
        let user = known.unwrap_or_else(|| self.add_user(id));
        self.users[user as usize].as_mut().expect("a connection's user is listed").conns += 1;
        push_small(&mut self.conns, Conn { at, user, dialect });
        let conns = &self.conns;
        if let Some(indexes) = &mut self.indexes {
            indexes.conns.insert(&at, (conns.len() - 1) as u32, |place| conns[place as usize].at);
        } else if conns.len() == INDEXED_FROM {
            self.index(keyed);
        }
        if known.is_some() { Change::Conn } else { Change::User }
    }

    fn add_user(&mut self, id: &Arc<str>) -> u32 {
        let row = Some(User { id: id.clone(), conns: 0 });
        let place = match self.users_free.pop() {
            Some(place) => {
                self.users[place as usize] = row;
                place
            }
            None => {
                push_small(&mut self.users, row);
                (self.users.len() - 1) as u32
            }
        };
        let users = &self.users;
        if let Some(indexes) = &mut self.indexes {
            indexes.users.insert(&&**id, place, |place| name_at(users, place));
        }
        place
    }

    /// Builds the indexes of a room that is no longer small; it keeps them.
    fn index(&mut self, keyed: Keyed) {
        let mut indexes = Indexes { users: Index::new(keyed), conns: Index::new(keyed) };
        let (users, conns) = (&self.users, &self.conns);
        for (place, conn) in conns.iter().enumerate() {
            indexes.conns.insert(&conn.at, place as u32, |place| conns[place as usize].at);
        }
        for (place, user) in users.iter().enumerate() {
            if let Some(user) = user {
                indexes.users.insert(&&*user.id, place as u32, |place| name_at(users, place));
            }
        }
        self.indexes = Some(Box::new(indexes));
    }

    /// What the connection was in the room as, and what its leaving changed. `None`: it was not.
    pub fn remove(&mut self, at: ConnAt) -> Option<(Member, Change)> {
        let place = self.place_of(at)?;
        let gone = self.conns.swap_remove(place as usize);
        if let Some(indexes) = &mut self.indexes {
            indexes.conns.remove(&at, place);
            if let Some(moved) = self.conns.get(place as usize) {
                let (moved, from) = (moved.at, self.conns.len() as u32);
                indexes.conns.remove(&moved, from);
                let conns = &self.conns;
                indexes.conns.insert(&moved, place, |place| conns[place as usize].at);
            }
        }
        let row = self.users[gone.user as usize].as_mut().expect("a connection's user is listed");
        row.conns -= 1;
        let member = Member { user: row.id.clone(), dialect: gone.dialect };
        if row.conns > 0 {
            return Some((member, Change::Conn));
        }
        if let Some(indexes) = &mut self.indexes {
            indexes.users.remove(&*member.user, gone.user);
        }
        self.users[gone.user as usize] = None;
        self.users_free.push(gone.user);
        Some((member, Change::User))
    }

    /// Users from row `from` on, at most `limit`, and the row to go on from. A user who is in the
    /// room all the while is seen exactly once.
    pub fn page(&self, from: u32, limit: usize) -> (Vec<Arc<str>>, Option<u32>) {
        let mut page = Vec::new();
        for (place, row) in self.users.iter().enumerate().skip(from as usize) {
            let Some(user) = row else { continue };
            if page.len() == limit {
                return (page, Some(place as u32));
            }
            page.push(user.id.clone());
        }
        (page, None)
    }
}

fn name_at(users: &[Option<User>], place: u32) -> &str {
    users[place as usize].as_ref().map_or("", |user| &*user.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::table::Key;
    use crate::kernel::ids::{ConnId, ShardId};
    use crate::wire::dialect::NATIVE_JSON;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn conn(n: u32) -> ConnAt {
        ConnAt { shard: ShardId((n % 3) as u8), conn: ConnId(Key { slot: n, generation: 0 }) }
    }

    proptest! {
        #[test]
        fn a_directory_agrees_with_a_plain_map(moves in proptest::collection::vec((any::<bool>(), 0u32..30, 0u8..6), 1..200)) {
            let mut directory = Directory::default();
            let mut model: BTreeMap<ConnAt, Arc<str>> = BTreeMap::new();
            for (add, n, user) in moves {
                let id: Arc<str> = format!("u{user}").into();
                let listed = |model: &BTreeMap<ConnAt, Arc<str>>, id: &Arc<str>| model.values().any(|user| user == id);
                if add {
                    let want = match (model.contains_key(&conn(n)), listed(&model, &id)) {
                        (true, _) => Change::Nothing,
                        (false, true) => Change::Conn,
                        (false, false) => Change::User,
                    };
                    prop_assert_eq!(directory.add(conn(n), &id, NATIVE_JSON, Keyed::new([3, 4])), want);
                    model.entry(conn(n)).or_insert(id);
                } else {
                    let gone = model.remove(&conn(n));
                    let want = gone.map(|user| {
                        let change = if listed(&model, &user) { Change::Conn } else { Change::User };
                        (Member { user, dialect: NATIVE_JSON }, change)
                    });
                    prop_assert_eq!(directory.remove(conn(n)), want);
                }
                let users: BTreeSet<Arc<str>> = model.values().cloned().collect();
                prop_assert_eq!((directory.conns(), directory.users()), (model.len(), users.len()));
                let (mut seen, mut from) = (Vec::new(), Some(0));
                while let Some(place) = from {
                    let (page, next) = directory.page(place, 2);
                    prop_assert!(page.len() <= 2);
                    seen.extend(page);
                    from = next;
                }
                prop_assert_eq!(seen.len(), users.len());
                prop_assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), users);
            }
        }
    }
}
