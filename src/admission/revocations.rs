//! What was taken back before its time: users' tokens up to a moment, and single tokens.
//! Invariant: at most `REVOCATIONS_MAX` marks are kept, each until the tokens that it voids have
//! expired by themselves; the one that would end first makes room for one too many.

use super::identity::Identity;
use crate::base::limits::REVOCATIONS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whose tokens are void.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    User {
        tenant: Arc<str>,
        user: Arc<str>,
    },
    /// By its `jti`.
    Token(Arc<str>),
}

#[derive(Clone, Debug)]
pub struct Revocation {
    pub target: Target,
    /// Of a user: tokens issued up to and including this second are void, and those that do not
    /// say when. Nothing to a single token.
    pub issued_upto_unix_s: u64,
    /// No token that it voids lives longer than this; forgotten then.
    pub until_unix_s: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    issued_upto_unix_s: u64,
    until_unix_s: u64,
}

#[derive(Default, Debug)]
pub struct Revocations {
    /// By tenant and user.
    users: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Mark>>,
    tokens: BTreeMap<Arc<str>, Mark>,
    ends: BTreeSet<(u64, Target)>,
    evicted: u64,
}

impl Revocations {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Marks that had to go before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// A target that is marked already stays marked for the longer of both.
    pub fn add(&mut self, revocation: Revocation, unix_s: u64) {
        self.forget(unix_s);
        let Revocation { target, mut issued_upto_unix_s, mut until_unix_s } = revocation;
        if let Some(before) = self.take(&target) {
            issued_upto_unix_s = issued_upto_unix_s.max(before.issued_upto_unix_s);
            until_unix_s = until_unix_s.max(before.until_unix_s);
        }
        if self.len() >= REVOCATIONS_MAX
            && let Some((_, first)) = self.ends.first().cloned()
        {
            self.take(&first);
            self.evicted += 1;
        }
        self.ends.insert((until_unix_s, target.clone()));
        let mark = Mark { issued_upto_unix_s, until_unix_s };
        match target {
            Target::User { tenant, user } => drop(self.users.entry(tenant).or_default().insert(user, mark)),
            Target::Token(token) => drop(self.tokens.insert(token, mark)),
        }
    }

    fn take(&mut self, target: &Target) -> Option<Mark> {
        let mark = match target {
            Target::User { tenant, user } => {
                let of_tenant = self.users.get_mut(tenant)?;
                let mark = of_tenant.remove(user)?;
                if of_tenant.is_empty() {
                    self.users.remove(tenant);
                }
                mark
            }
            Target::Token(token) => self.tokens.remove(token)?,
        };
        self.ends.remove(&(mark.until_unix_s, target.clone()));
        Some(mark)
    }

    /// Drops what voids no living token any more.
    fn forget(&mut self, unix_s: u64) {
        while let Some((_, target)) = self.ends.first().filter(|(until, _)| *until <= unix_s).cloned() {
            self.take(&target);
        }
    }

    /// Whether what proved `identity` was taken back.
    pub fn void(&self, identity: &Identity, unix_s: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let is_standing = |mark: &&Mark| unix_s < mark.until_unix_s;
        let is_old = |mark: &Mark| identity.issued_unix_s().is_none_or(|issued| issued <= mark.issued_upto_unix_s);
        let of_user = self.users.get(&**identity.tenant()).and_then(|users| users.get(&*identity.user));
        let of_token = identity.token().and_then(|token| self.tokens.get(token));
        of_user.filter(is_standing).is_some_and(is_old) || of_token.filter(is_standing).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::identity::Particulars;
    use crate::admission::names::User;
    use proptest::prelude::*;

    const NOW: u64 = 1_763_690_000;

    fn alice(issued: Option<u64>, token: Option<&str>) -> Identity {
        let said = Particulars { token: token.map(Box::from), ..Particulars::default() };
        Identity::new(User::new("acme".into(), "alice"), None, said).issued(issued)
    }

    fn user(user: &str) -> Target {
        Target::User { tenant: "acme".into(), user: user.into() }
    }

    fn revocations(target: Target) -> Revocations {
        let mut revocations = Revocations::default();
        revocations.add(Revocation { target, issued_upto_unix_s: NOW, until_unix_s: NOW + 60 }, NOW);
        revocations
    }

    #[test]
    fn a_users_tokens_up_to_the_moment_are_void_and_newer_ones_are_not() {
        let revocations = revocations(user("alice"));
        assert!(revocations.void(&alice(Some(NOW), None), NOW));
        assert!(revocations.void(&alice(None, None), NOW), "it does not say that it is newer");
        assert!(!revocations.void(&alice(Some(NOW + 1), None), NOW + 1));
        assert!(!revocations.void(&Identity::of("acme", "bob"), NOW));
        assert!(!revocations.void(&Identity::of("other", "alice"), NOW), "another tenant's alice");
        assert!(!revocations.void(&alice(Some(NOW), None), NOW + 60), "by then it has expired");
    }

    #[test]
    fn a_single_token_is_void_whenever_it_was_issued() {
        let revocations = revocations(Target::Token("t1".into()));
        assert!(revocations.void(&alice(Some(NOW + 5), Some("t1")), NOW));
        assert!(!revocations.void(&alice(Some(NOW), Some("t2")), NOW));
        assert!(!revocations.void(&alice(None, None), NOW));
    }

    #[test]
    fn the_longer_of_two_marks_on_one_target_counts() {
        let mut revocations = revocations(user("alice"));
        let again = Revocation { target: user("alice"), issued_upto_unix_s: NOW - 10, until_unix_s: NOW + 10 };
        revocations.add(again, NOW);
        assert_eq!(revocations.len(), 1);
        assert!(revocations.void(&alice(Some(NOW), None), NOW + 59));
    }

    #[test]
    fn one_too_many_pushes_out_the_one_that_would_end_first() {
        let mut revocations = Revocations::default();
        for nth in 0..=REVOCATIONS_MAX as u64 {
            let target = user(&format!("user{nth}"));
            revocations.add(Revocation { target, issued_upto_unix_s: NOW, until_unix_s: NOW + 100 + nth }, NOW);
        }
        assert_eq!((revocations.len(), revocations.evicted()), (REVOCATIONS_MAX, 1));
        assert!(!revocations.void(&Identity::of("acme", "user0"), NOW));
        assert!(revocations.void(&Identity::of("acme", "user1"), NOW));
    }

    proptest! {
        #[test]
        fn marks_agree_with_a_plain_list(moves in proptest::collection::vec((0u8..4, 0u64..50, 1u64..50, 0u64..10), 1..60)) {
            let mut revocations = Revocations::default();
            let mut model: Vec<(u8, u64, u64)> = Vec::new();
            let mut now = NOW;
            for (who, upto, lasts, pause) in moves {
                let (issued_upto_unix_s, until_unix_s) = (NOW + upto, now + lasts);
                revocations.add(Revocation { target: user(&who.to_string()), issued_upto_unix_s, until_unix_s }, now);
                // A mark that is still there is joined with.
                let before = model.iter().position(|(other, _, until)| *other == who && *until > now);
                let joined = before.map(|at| model.remove(at)).map_or((who, issued_upto_unix_s, until_unix_s), |(_, a, b)| {
                    (who, a.max(issued_upto_unix_s), b.max(until_unix_s))
                });
                model.push(joined);
                now += pause;
                for who in 0u8..4 {
                    let identity = Identity::of("acme", &who.to_string()).issued(Some(now));
                    let expected = model.iter().any(|(other, upto, until)| *other == who && now < *until && now <= *upto);
                    prop_assert_eq!(revocations.void(&identity, now), expected);
                }
            }
        }
    }
}
