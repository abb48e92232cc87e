//! The one gate. Only what passed it is an [`Admitted`], so no feature can forget to ask.
//!
//! It has three answers: admitted, refused, or asked, where only somebody outside can tell. An
//! [`Asked`] waits for that answer, and then passes the gate once more.

use crate::admission::identity::Identity;
use crate::admission::names::RoomName;
use crate::admission::policy::{Decision, Policy};
use crate::admission::rates::Paid;
use crate::admission::rights::Right;
use crate::wire::codes::{ErrorCode, WireError};
use std::ops::Deref;

/// What a request asks for, as far as the gate needs to know.
pub trait Asks {
    fn right(&self) -> Right;
    /// The room that the right is needed in.
    fn room(&self) -> Option<&RoomName>;
}

/// What the sender is and has, gathered by the caller: admission knows no tables.
pub struct Standing<'a> {
    pub identity: &'a Identity,
    pub policy: &'a Policy,
    /// It was counted against what the sender may ask for.
    pub paid: Paid,
}

/// A request that passed the gate.
#[derive(Debug)]
pub struct Admitted<T>(T);

impl<T> Deref for Admitted<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A request that waits for an answer from outside.
#[derive(Debug)]
pub struct Asked<T>(T);

impl<T> Deref for Asked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Asks> Asked<T> {
    /// Lets the request pass, or says why not: by the answer from outside, and by what the sender is
    /// and has by now. What the sender lost meanwhile an answer does not give back.
    pub fn answered(self, answer: Result<(), WireError>, standing: &Standing<'_>) -> Result<Admitted<T>, WireError> {
        match admit(self.0, standing) {
            Verdict::Admitted(admitted) => Ok(admitted),
            Verdict::Asked(Asked(request)) => answer.map(|()| Admitted(request)),
            Verdict::Refused(error) => Err(error),
        }
    }
}

/// What the gate says.
#[derive(Debug)]
pub enum Verdict<T> {
    Admitted(Admitted<T>),
    Refused(WireError),
    Asked(Asked<T>),
}

impl<T> Verdict<T> {
    /// For what is answered at once: who would have to be asked is refused.
    pub fn at_once(self) -> Result<Admitted<T>, WireError> {
        match self {
            Verdict::Admitted(admitted) => Ok(admitted),
            Verdict::Refused(error) => Err(error),
            Verdict::Asked(_) => Err(WireError::new(ErrorCode::Unavailable, "nobody can be asked about this")),
        }
    }
}

/// Lets `request` pass, or says why not, or that somebody else must be asked.
// Inline, so that a request of some hundred bytes is not moved about with its verdict.
#[inline]
pub fn admit<T: Asks>(request: T, standing: &Standing<'_>) -> Verdict<T> {
    match decide(request.right(), request.room(), standing) {
        Ok(Decision::Allowed) => Verdict::Admitted(Admitted(request)),
        Ok(Decision::Ask) => Verdict::Asked(Asked(request)),
        Err(error) => Verdict::Refused(error),
    }
}

fn decide(right: Right, room: Option<&RoomName>, standing: &Standing<'_>) -> Result<Decision, WireError> {
    let Some(room) = room else { return Ok(Decision::Allowed) };
    Ok(standing.policy.decide(standing.identity, right, room)?)
}

/// What the server itself asks for in a user's name, such as the join of the user's own inbox.
pub fn admit_own<T>(request: T) -> Admitted<T> {
    Admitted(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::pattern::RulePattern;
    use crate::admission::policies::{RIGHTS, Rule, Rules, Who};
    use crate::admission::policy::Roles;

    #[derive(Debug)]
    struct Join(RoomName);

    impl Asks for Join {
        fn right(&self) -> Right {
            Right::Join
        }
        fn room(&self) -> Option<&RoomName> {
            Some(&self.0)
        }
    }

    fn join_by(who: &str) -> Policy {
        let who = RIGHTS.map(|_| Who::parse(who).ok());
        let rule = Rule { name: "all".into(), rooms: RulePattern::parse("**").unwrap(), who };
        Policy::new(Roles::default(), Rules::new(vec![rule]).unwrap())
    }

    fn asked(identity: &Identity) -> Asked<Join> {
        let standing = Standing { identity, policy: &join_by("ask"), paid: Paid::unlimited() };
        match admit(Join(RoomName::parse("chat:1").unwrap()), &standing) {
            Verdict::Asked(asked) => asked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_asked_passes_by_a_good_answer_alone() {
        let alice = Identity::of("acme", "alice");
        let policy = join_by("ask");
        let standing = Standing { identity: &alice, policy: &policy, paid: Paid::unlimited() };
        assert!(asked(&alice).answered(Ok(()), &standing).is_ok());
        let denied = WireError::new(ErrorCode::Forbidden, "not today");
        assert_eq!(asked(&alice).answered(Err(denied.clone()), &standing).unwrap_err(), denied);
    }

    #[test]
    fn an_answer_counts_only_as_far_as_the_rules_of_its_own_time_leave_it_open() {
        let alice = Identity::of("acme", "alice");
        let (shut, open) = (join_by("nobody"), join_by("anybody"));
        let shut = Standing { identity: &alice, policy: &shut, paid: Paid::unlimited() };
        assert_eq!(asked(&alice).answered(Ok(()), &shut).unwrap_err().code, ErrorCode::Forbidden);
        let open = Standing { identity: &alice, policy: &open, paid: Paid::unlimited() };
        let denied = WireError::new(ErrorCode::Forbidden, "not today");
        assert!(asked(&alice).answered(Err(denied), &open).is_ok(), "nobody need be asked any more");
    }
}
