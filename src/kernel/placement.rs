//! Where a user or a room lives. The same name has the same home in every shard and process.

use crate::base::hash;
use crate::kernel::ids::{RoomRef, ShardId};

#[derive(Clone, Copy, Debug)]
pub struct Placement {
    shards: u8,
}

impl Placement {
    pub fn new(shards: u8) -> Self {
        assert!(shards > 0, "a process has a shard");
        Placement { shards }
    }

    pub fn shards(&self) -> u8 {
        self.shards
    }

    pub fn of_user(&self, tenant: &str, user: &str) -> ShardId {
        self.place(&[b"user", tenant.as_bytes(), user.as_bytes()])
    }

    /// `user:{id}` lives with its user.
    pub fn of_room(&self, tenant: &str, name: &str) -> ShardId {
        match name.strip_prefix("user:") {
            Some(user) => self.of_user(tenant, user),
            None => self.place(&[b"room", tenant.as_bytes(), name.as_bytes()]),
        }
    }

    pub fn of(&self, room: &RoomRef) -> ShardId {
        self.of_room(&room.tenant, room.name.as_str())
    }

    fn place(&self, name: &[&[u8]]) -> ShardId {
        // Asked for each request, twice: a choice of one needs no hash.
        if self.shards == 1 {
            return ShardId(0);
        }
        ShardId(jump(hash::stable(name), self.shards as u32) as u8)
    }
}

/// Jump consistent hash (Lamping, Veach: "A fast, minimal memory, consistent hash algorithm",
/// 2014): with one bucket more, only the keys of the new bucket move.
fn jump(mut key: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (0i64, 0i64);
    while next < buckets as i64 {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    bucket as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_shard_takes_its_share_and_nobody_else_moves() {
        let (before, after) = (Placement::new(4), Placement::new(5));
        let mut moved = 0;
        for user in 0..10_000 {
            let user = format!("user{user}");
            let (old, new) = (before.of_user("t", &user), after.of_user("t", &user));
            if old != new {
                assert_eq!(new, ShardId(4), "keys move to the new shard only");
                moved += 1;
            }
        }
        assert!((1_700..2_300).contains(&moved), "a fifth moves: {moved}");
    }

    #[test]
    fn an_inbox_lives_with_its_user() {
        let placement = Placement::new(7);
        for user in ["alice", "bob", "a.b", "x:1"] {
            assert_eq!(placement.of_room("t", &format!("user:{user}")), placement.of_user("t", user));
        }
    }
}
