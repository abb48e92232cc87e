//! Tokens of connections that are open.

use crate::house::{House, Name};
use ringroom::admission::identity::Identity;
use ringroom::admission::revocations::{Revocation, Target};
use ringroom::admission::token::{Claims, Verifier, sign_hs256};
use ringroom::base::limits::HEARTBEAT;
use ringroom::kernel::ids::ShardId;
use serde_json::{Value, json};
use std::time::Duration;

const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";

impl House {
    /// A house whose shards check tokens.
    fn with_keys() -> House {
        let mut house = House::new();
        house.world.set_verifier(Verifier::hs256(SECRET, 0).expect("a long secret"));
        house
    }

    fn unix_s(&self) -> u64 {
        self.world.now.unix_ms / 1_000
    }

    /// A token of this moment that lasts `lasts_s`.
    fn token(&self, user: &str, lasts_s: u64) -> String {
        let (iat, exp) = (Some(self.unix_s()), Some(self.unix_s() + lasts_s));
        let tenant = Some("acme".into());
        sign_hs256(SECRET, &Claims { sub: user.into(), tenant, iat, exp, ..Claims::default() })
    }

    fn identity_by(&self, token: &str) -> Identity {
        self.world.shard(ShardId(0)).verify(self.world.now, token).expect("a good token")
    }

    fn enter_for(&mut self, shard: u8, user: &str, lasts_s: u64) -> Name {
        let identity = self.identity_by(&self.token(user, lasts_s));
        self.enter_as(shard, identity)
    }

    fn refresh(&mut self, guest: Name, token: &str) -> Value {
        self.request(guest, "auth:refresh", json!({ "token": token }))
    }

    fn revoke(&mut self, target: Target) {
        let now = self.unix_s();
        let revocation = Revocation { target, issued_upto_unix_s: now, until_unix_s: now + 900 };
        for shard in self.world.shards() {
            self.world.revoke(shard, std::slice::from_ref(&revocation));
        }
        self.settle();
    }
}

fn user(tenant: &str, user: &str) -> Target {
    Target::User { tenant: tenant.into(), user: user.into() }
}

#[test]
fn a_connection_is_told_a_minute_before_its_token_ends_and_closed_when_it_does() {
    let mut house = House::with_keys();
    let end_s = house.unix_s() + 300;
    let alice = house.enter_for(0, "alice", 300);
    house.live(Duration::from_secs(235));
    assert_eq!(house.pushes(alice, "auth:expiring"), Vec::<Value>::new());
    house.live(Duration::from_secs(10));
    let told = house.pushes(alice, "auth:expiring");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["data"], json!({ "expires_at": end_s * 1_000 }));
    house.live(Duration::from_secs(50));
    assert_eq!(house.closed(alice), None);
    house.live(Duration::from_secs(10));
    assert_eq!(house.closed(alice), Some(4401));
    assert!(house.pushes(alice, "auth:expiring").is_empty(), "it is told once");
}

#[test]
fn a_token_that_never_ends_never_ends_a_connection() {
    let mut house = House::with_keys();
    let token = sign_hs256(SECRET, &Claims { sub: "alice".into(), ..Claims::default() });
    let identity = house.identity_by(&token);
    let alice = house.enter_as(0, identity);
    house.live(Duration::from_secs(600));
    assert_eq!((house.closed(alice), house.pushes(alice, "auth:expiring").len()), (None, 0));
}

#[test]
fn who_comes_with_less_than_a_minute_left_is_told_at_once_but_after_the_welcome() {
    let mut house = House::with_keys();
    for shard in 0..2 {
        let identity = house.identity_by(&house.token("alice", 30));
        let guest = house.knock(shard, identity);
        house.pass(Duration::from_millis(100));
        let events: Vec<_> = house.guests[guest].texts.iter().map(|text| &text["event"]).collect();
        assert_eq!(events, ["connected", "auth:expiring"]);
    }
}

#[test]
fn a_connection_that_refreshes_stays_and_is_told_again_before_the_new_end() {
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 90);
    house.join(alice, "chat:1");
    house.live(Duration::from_secs(35));
    assert_eq!(house.pushes(alice, "auth:expiring").len(), 1);
    let (token, end_s) = (house.token("alice", 200), house.unix_s() + 200);
    assert_eq!(house.refresh(alice, &token)["data"], json!({ "expires_at": end_s * 1_000 }));
    house.live(Duration::from_secs(130));
    assert_eq!((house.closed(alice), house.pushes(alice, "auth:expiring").len()), (None, 0));
    house.live(Duration::from_secs(20));
    assert_eq!(house.pushes(alice, "auth:expiring").len(), 1);
    house.publish(alice, "chat:1", json!("still here"));
    assert_eq!(house.heard(alice), [json!("still here")]);
    house.live(Duration::from_secs(60));
    assert_eq!(house.closed(alice), Some(4401));
}

#[test]
fn what_a_refreshed_token_says_counts_from_then_on() {
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 90);
    assert_eq!(house.error(alice, "room:update", json!({ "room": "a", "data": {} })), "forbidden");
    let claims = Claims { sub: "alice".into(), tenant: Some("acme".into()), ..Claims::default() };
    let admin = sign_hs256(SECRET, &Claims { roles: vec!["admin".into()], ..claims });
    assert_eq!(house.refresh(alice, &admin)["data"], json!({ "expires_at": null }));
    house.join(alice, "a");
    house.ok(alice, "room:update", json!({ "room": "a", "data": {} }));
    house.live(Duration::from_secs(200));
    assert_eq!(house.closed(alice), None, "that token never ends");
}

#[test]
fn a_refresh_that_is_refused_changes_nothing() {
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 90);
    let other_tenant = sign_hs256(SECRET, &Claims { sub: "alice".into(), ..Claims::default() });
    for (token, code) in [
        (house.token("bob", 900), "forbidden"),
        (other_tenant, "forbidden"),
        (house.token("alice", 0), "token_expired"),
        (house.token("alice", 900) + "x", "unauthorized"),
        (String::new(), "unauthorized"),
    ] {
        assert_eq!(house.refresh(alice, &token)["error"]["code"], code);
    }
    assert_eq!(house.error(alice, "auth:refresh", json!({})), "bad_request");
    assert_eq!(house.closed(alice), None);
    house.live(Duration::from_secs(95));
    assert_eq!(house.closed(alice), Some(4401));
}

#[test]
fn a_wall_clock_that_jumps_past_the_end_is_noticed_with_the_next_heartbeat() {
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 7_200);
    house.live(Duration::from_secs(60));
    house.world.now.unix_ms += 7_200_000;
    house.live(HEARTBEAT + Duration::from_secs(10));
    assert_eq!(house.closed(alice), Some(4401));
}

#[test]
fn a_revoked_user_is_closed_everywhere_and_comes_back_only_with_a_newer_token() {
    let mut house = House::with_keys();
    let (here, there) = (house.enter_for(0, "alice", 900), house.enter_for(1, "alice", 900));
    let bob = house.enter_for(0, "bob", 900);
    let of_another_tenant = house.enter_as(0, Identity::of("other", "alice"));
    let old = house.token("alice", 900);
    let on_its_way = house.identity_by(&old);
    house.revoke(user("acme", "alice"));
    assert_eq!((house.closed(here), house.closed(there)), (Some(4409), Some(4409)));
    assert_eq!((house.closed(bob), house.closed(of_another_tenant)), (None, None));
    for shard in house.world.shards() {
        let refused = house.world.shard(shard).verify(house.world.now, &old).expect_err("revoked");
        assert_eq!(refused.reason(), "token_revoked");
    }
    let late = house.knock(1, on_its_way);
    assert_eq!((house.closed(late), house.guests[late].texts.len()), (Some(4401), 0), "it was let in elsewhere before");
    house.pass(Duration::from_secs(1));
    let again = house.enter_for(0, "alice", 900);
    house.revoke(user("acme", "carol"));
    assert_eq!(house.closed(again), None, "another's revocation is not hers");
}

#[test]
fn a_revoked_token_is_closed_and_refused_and_its_users_others_are_not() {
    let mut house = House::with_keys();
    let claims = |jti: &str| Claims { sub: "alice".into(), jti: Some(jti.into()), ..Claims::default() };
    let (lost, kept) = (sign_hs256(SECRET, &claims("lost")), sign_hs256(SECRET, &claims("kept")));
    let (on_lost, on_kept) = (house.identity_by(&lost), house.identity_by(&kept));
    let (on_lost, on_kept) = (house.enter_as(0, on_lost), house.enter_as(0, on_kept));
    house.revoke(Target::Token("lost".into()));
    assert_eq!((house.closed(on_lost), house.closed(on_kept)), (Some(4409), None));
    assert_eq!(house.refresh(on_kept, &lost)["error"]["code"], "unauthorized");
    assert_eq!(house.refresh(on_kept, &kept)["ok"], true);
    house.live(Duration::from_secs(905));
    assert_eq!(house.refresh(on_kept, &lost)["ok"], true, "no longer than was asked for");
}

#[test]
fn new_keys_count_from_then_on_and_leave_who_is_in() {
    const NEW: &[u8] = b"another secret of at least 32 bytes, for tests only";
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 900);
    house.world.set_verifier(Verifier::hs256(NEW, 0).expect("a long secret"));
    let old = house.token("alice", 900);
    assert_eq!(house.refresh(alice, &old)["error"]["code"], "unauthorized");
    assert_eq!(house.closed(alice), None);
    let claims = Claims { sub: "alice".into(), tenant: Some("acme".into()), ..Claims::default() };
    assert_eq!(house.refresh(alice, &sign_hs256(NEW, &claims))["ok"], true);
}
