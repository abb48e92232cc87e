//! The configuration tree: every key, once. To add one, add it here and read its field in `settle`
//! (the compiler complains about a field that nobody reads), then write the manual anew with
//! `cargo run -- config docs > docs/configuration.md`.

use super::declare::{
    Key, List, Section, Typed, flag, lists, number, number_or, number_unless, one_of, sections, text,
};
use super::file::Row;
use super::value::Value;
use crate::admission::names::check_tenant;
use crate::admission::pattern::{Pattern, RulePattern};
use crate::admission::policies::{Who, WhoRefused};
use crate::admission::policy::NAME_DEFAULT;
use crate::admission::rates::EventRate;
use crate::admission::{networks, origins};
use crate::base::limits;
use crate::host::jwks::Place;
use std::collections::BTreeSet;
use std::time::Duration;

pub const PROFILE_DEFAULT: &str = "default";
/// Milliseconds of one day: longer than anybody waits for a network.
const DAY_MS: u64 = 24 * 3_600_000;
const LANE_ENTRIES_MIN: u64 = 8;
/// The least in which a token fits that a client names itself with.
const PAYLOAD_BYTES_MIN: u64 = 1_024;
/// A token of an `auth:refresh` must fit.
const MESSAGE_BYTES_MIN: u64 = 16 * 1_024;
const UNLIMITED: &str = "unlimited";
/// More than a process can hold.
const COUNT_MAX: u64 = 1 << 24;

sections! {
    /// Where the gateway listens and what it runs on.
    server: Server {
        /// Where clients connect. Port 0 picks a free one; the `ready` line says which.
        listen: String = text(ADDRESS, "127.0.0.1:3001", is_address, "127.0.0.1:3001").short("LISTEN");
        /// Where operators look: `/health`, `/ready`, `/metrics` and `/stats`. Keep it away from strangers.
        ops: String = text(ADDRESS, "127.0.0.1:9091", is_address, "127.0.0.1:9091").short("OPS");
        /// Shards, each a thread with its own listener. `auto`: one per processor; of four or more
        /// one is left for everything else.
        shards: Option<u64> = number_or("auto", "shards", 1, limits::SHARDS_MAX as u64).short("SHARDS");
        /// Processors that shards are bound to, one after the other. `auto`: all that the process
        /// may use; `none`: the system places the threads.
        cpus: String = text(CPUS, "0-3,6", is_cpus, "auto");
        /// How the system is asked. `auto`: io_uring where it is allowed, else epoll.
        io: String = one_of(&["auto", "io_uring", "epoll"], "auto").short("IO");
        /// Values for a purpose, taken where nothing else says otherwise: `default`, `latency`,
        /// `throughput`, `density`, `bench`, or a file of your own.
        profile: String = text(PROFILE, "latency", is_profile, PROFILE_DEFAULT).live().short("PROFILE");
    }

    /// Tokens: who may connect.
    jwt: Jwt {
        /// What tokens are signed with (HS256). Without it only this machine is served, with a
        /// secret made up at the start. Better in the environment than in a file.
        secret: String = text("32 bytes or more", "", is_secret, "").live().secret().short("JWT_SECRET");
        /// How far clocks may differ when times of a token are checked.
        leeway_s: u64 = number("seconds", 0, 300, 5).live();
        /// What the secret serves.
        secret_algorithms: String = text("HS256, HS384 and HS512, with commas between", "HS256,HS512", is_secret_algorithms, "HS256").live();
        /// A file with a public key in PEM: RSA, P-256, P-384 or Ed25519.
        public_key_file: String = text(PATH, "/etc/ringroom/issuer.pem", is_anything, "").live();
        /// A file with a set of keys (JWKS). Followed: a change counts within seconds.
        jwks_file: String = text(PATH, "/etc/ringroom/jwks.json", is_anything, "").live();
        /// Where the issuer publishes its keys (JWKS). Whoever can answer in its place can let anybody
        /// in, so use https.
        jwks_url: String = text("an http or https address, or nothing", "https://id.example/jwks.json", is_url, "").live();
        /// The issuer (`iss`) that the keys of `jwks_file` and `jwks_url` speak for. Empty: any that
        /// `issuers` allows.
        jwks_issuer: String = text("an issuer, or nothing", "https://id.example", is_anything, "").live();
        /// How old keys of `jwks_url` become before they are fetched again.
        refresh_ms: u64 = number("milliseconds", 1_000, DAY_MS, 600_000).live();
        /// A token with an unknown key has them fetched at once, but not sooner after the last time.
        refresh_min_ms: u64 = number("milliseconds", 10, DAY_MS, 10_000).live();
        /// Issuers (`iss`) whose tokens are taken. Empty: whoever has a key.
        issuers: String = text(LIST, "https://id.example,https://login.example", is_anything, "").live();
        /// Audiences (`aud`) of which a token names one. Empty: not looked at.
        audiences: String = text(LIST, "chat", is_anything, "").live();
        /// What a token's header may call itself (`typ`). `JWT` stands for no name too.
        header_types: String = text(LIST, "at+jwt", is_something, "JWT,at+jwt").live();
        /// What a token's type claim may be, where there is one.
        types: String = text(LIST, "access,Bearer", is_something, "access").live();
        /// Whether a token has to say when it ends (`exp`).
        expiry: String = one_of(&["optional", "required"], "optional").live();
        /// How long before its token ends a client is told, to refresh it.
        expiring_ms: u64 = number("milliseconds", 0, DAY_MS, ms(limits::TOKEN_EXPIRING)).live();
    }

    /// Where tokens say what: a claim, or claims in claims with dots between.
    claims: Claims {
        /// The user.
        user: String = text(CLAIM, "preferred_username", is_something, "sub").live();
        /// The tenant.
        tenant: String = text(CLAIM, "org.id", is_something, "tenant").live();
        /// Roles: a list, or one text with spaces between.
        roles: String = text(CLAIM, "realm_access.roles", is_something, "roles").live();
        /// The name for showing to people.
        name: String = text(CLAIM, "given_name", is_something, "name").live();
        /// The device for showing to people.
        device: String = text(CLAIM, "client_id", is_something, "device").live();
        /// The type of the token.
        kind: String = text(CLAIM, "token_use", is_something, "typ").live();
        /// Patterns of rooms that may be joined.
        join: String = text(CLAIM, "chat.join", is_something, "rooms.join").live();
        /// Patterns of rooms that may be published to.
        publish: String = text(CLAIM, "chat.publish", is_something, "rooms.publish").live();
    }

    /// Roles that open what no `[[policy]]` opens, and the role that managing takes where no rule
    /// says otherwise. Any of the named is enough.
    roles: Roles {
        /// For `platform.*`.
        platform: String = text(ROLES, "platform_admin", is_some_roles, "platform_admin,service").live();
        /// For `performance.dashboard`.
        dashboard: String = text(ROLES, "admin", is_some_roles, "admin,platform_admin,service").live();
        /// To manage rooms, besides the right to join them.
        manage: String = text(ROLES, "moderator", is_some_roles, "admin,moderator,platform_admin,service").live();
    }

    /// Clients that send no token.
    anonymous: Anonymous {
        /// Whether they are let in, each as a new user.
        access: String = one_of(&["refused", "allowed"], "refused").live();
        /// Their tenant.
        tenant: String = text("letters, digits and _ . : @ -", "public", is_tenant, "default").live();
        /// Their role, for policies.
        role: String = text("1 to 64 bytes", "guest", is_role, "anonymous").live();
        /// Patterns of rooms that they may join, as far as policies allow; empty: none.
        join: String = text(PATTERNS, "public:*", is_patterns, "**").live();
        /// Patterns of rooms that they may publish to, as far as policies allow; empty: none.
        publish: String = text(PATTERNS, "public:lobby", is_patterns, "").live();
    }

    /// Who may come to the port of clients, from where, and how often. Addresses of IPv6 count by their /64.
    network: Network {
        /// Networks that are served; empty: all.
        allow: String = text(NETWORKS, "10.0.0.0/8,2001:db8::/32", is_networks, "").live();
        /// Networks that are not, though they be allowed. Their sockets are closed before a byte is
        /// read; behind a proxy they get 403.
        deny: String = text(NETWORKS, "192.0.2.0/24", is_networks, "").live();
        /// Proxies of yours. Of requests that come from them `X-Forwarded-For` says whose they are (the
        /// rightmost address that is no proxy) and `X-Forwarded-Proto` how they came; from everybody
        /// else both are ignored.
        trusted_proxies: String = text(NETWORKS, "10.0.0.7,10.1.0.0/16", is_networks, "").live();
        /// Where these proxies write whose a request is: `x-forwarded-for`, or `forwarded` (RFC 7239), which
        /// says both. The other one is ignored, for proxies let through what clients wrote there.
        forwarded_header: String = one_of(&["x-forwarded-for", FORWARDED], "x-forwarded-for").live();
        /// Every connection of these proxies begins with a header of the PROXY protocol, version 1 or 2, that
        /// says whose it is; without one it is refused. Connections of others never have one. Who is
        /// named is asked and counted as one that comes by itself.
        proxy_protocol: bool = flag(false).live();
        /// Networks to which no limit of addresses applies. A proxy on this machine has to be among
        /// `trusted_proxies`, or nobody behind it is limited.
        unlimited: String = text(NETWORKS, "127.0.0.0/8,::1", is_networks, "127.0.0.0/8,::1").live();
        /// Pages that may connect: origins, `https://*.app.example` for all hosts below one,
        /// `same-host` for pages of the host that the request names, `any`. A cookie never counts for a
        /// page that only `any` lets in. Clients that are no browsers name no page and may connect. In
        /// development mode pages of this machine may connect too.
        origins: String = text(ORIGINS, "same-host,https://app.example", is_origins, "same-host").live();
        /// Attempts of one address to connect within `attempts_ms`: all at once, then evenly.
        attempts: Option<u64> =
            number_unless(UNLIMITED, "attempts", 1, COUNT_MAX, limits::ATTEMPTS_PER_ADDRESS as u64).live();
        /// The time for `attempts`.
        attempts_ms: u64 = number("milliseconds", 100, DAY_MS, ms(limits::CALLER_TIME)).live();
        /// Bad tokens from one address within `failures_ms`; then it is refused before the next is
        /// looked at. Good tokens are not counted.
        failures: Option<u64> =
            number_unless(UNLIMITED, "bad tokens", 1, COUNT_MAX, limits::FAILURES_PER_ADDRESS as u64).live();
        /// The time for `failures`.
        failures_ms: u64 = number("milliseconds", 100, DAY_MS, ms(limits::CALLER_TIME)).live();
        /// Sockets of one address whose requests have not ended. With more, the one of them that waits
        /// longest is closed.
        half_open: Option<u64> =
            number_unless(UNLIMITED, "sockets", 1, COUNT_MAX, limits::HALF_OPEN_PER_ADDRESS as u64).live();
        /// Open connections of one address, of those that come from now on.
        conns_per_address: Option<u64> = number_or(UNLIMITED, "connections", 1, COUNT_MAX).live();
    }

    /// TLS for clients, on ports of its own: `wss://` and `https://` (`docs/tls.md`). Files are followed: a
    /// change counts within seconds, and what is wrong with it is said in the log while the former goes on.
    tls: Tls {
        /// Where clients connect with TLS. Empty: nowhere. Port 0 picks a free one; the `ready` line says which.
        listen: String = text(ADDRESSES, "0.0.0.0:443,[::]:443", is_addresses, "");
        /// A file with the certificate in PEM, the host's own first and then those between it and its
        /// authority. It is shown to whoever names no host, or one that no `[[certificate]]` is for.
        certificate_file: String = text(PATH, "/etc/ringroom/fullchain.pem", is_anything, "").live();
        /// A file with its private key in PEM.
        key_file: String = text(PATH, "/etc/ringroom/privkey.pem", is_anything, "").live();
        /// The oldest version that is spoken.
        min_version: String = one_of(&["1.2", "1.3"], "1.2").live();
        /// Whether clients show certificates of their own, besides their tokens.
        client_auth: String = one_of(&["none", "optional", "required"], "none").live();
        /// A file with the authorities in PEM that vouch for clients.
        client_ca_file: String = text(PATH, "/etc/ringroom/clients.pem", is_anything, "").live();
    }

    /// How much is allowed, and for how long.
    limits: Limits {
        /// From the first byte of a connection to the end of its request.
        handshake_ms: u64 = number("milliseconds", 1, DAY_MS, ms(limits::HANDSHAKE_TIME_MAX));
        /// Interval of heartbeats. A change holds from each connection's next one on; do not raise it
        /// to more than twice its value at once, for clients reckon with what they were told.
        heartbeat_ms: u64 = number("milliseconds", 1, DAY_MS, ms(limits::HEARTBEAT)).live();
        /// How long a silent peer is kept; at least twice `heartbeat_ms`.
        heartbeat_time_out_ms: u64 = number("milliseconds", 1, 4 * DAY_MS, ms(limits::HEARTBEAT_TIME_OUT)).live();
        /// A connection without a request and without a delivery is closed after this.
        idle_ms: Option<u64> = number_unless("never", "milliseconds", 1, 365 * DAY_MS, ms(limits::IDLE_TIME_MAX)).live();
        /// Connections of one shard; later ones are refused.
        conns_per_shard: u64 =
            number("connections", 1, limits::CONNS_PER_SHARD_MAX as u64, limits::CONNS_PER_SHARD_MAX as u64).live();
        /// Messages under way from one shard to another before the sender waits.
        lane_entries: u64 =
            number("messages", LANE_ENTRIES_MIN, limits::LANE_ENTRIES_MAX as u64, limits::LANE_ENTRIES_MAX as u64);
        /// What a connection may ask at once, in tokens: a publish costs one for each room, a request about
        /// a room half of one, any other a quarter, and what is no request one. Beyond it requests are
        /// refused with `rate_limited`. A change begins with full buckets, on open connections too.
        conn_burst: Option<u64> =
            number_unless(UNLIMITED, "tokens", 1, limits::BURST_MAX as u64, limits::CONN_BURST as u64).live();
        /// How many of these tokens come back each second.
        conn_per_s: Option<u64> =
            number_unless(UNLIMITED, "tokens", 1, limits::BURST_MAX as u64, limits::CONN_PER_SECOND as u64).live();
        /// Requests of each user, over all its connections on one shard: so many at once, and as many again
        /// in each `user_events_ms`. One counts as often as it names rooms, whatever it costs its
        /// connection. Not limited unless you say so: connections are, and one user may well be a whole
        /// machine.
        user_events: Option<u64> = number_or(UNLIMITED, "requests", 1, limits::BURST_MAX as u64).live();
        /// The time in which so many come back.
        user_events_ms: u64 = number("milliseconds", 1, ms(limits::RATE_PERIOD_MAX), 60_000).live();
        /// The same for single events of each user, or with a `*` at the end for all that begin so: a count
        /// and a time of `ms`, `s`, `m` or `h`. The first that covers an event counts, beside the limits
        /// above.
        events: String = text(EVENT_RATES, "room:publish 50/1s, room:join* 20/10s", is_event_rates, "").live();
        /// Roles that may ask as much as they like.
        unlimited_roles: String = text("roles with commas between", "service,platform_admin", is_roles, "service").live();
        /// One message of a client. A change holds from each connection's next message on; do not lower it
        /// without need, for clients reckon with what they were told.
        message_bytes: u64 =
            number("bytes", MESSAGE_BYTES_MIN, limits::MESSAGE_BYTES_MAX as u64, limits::MESSAGE_BYTES_MAX as u64).live();
        /// Rooms that a connection may be in, its user's own included. Who is in more stays there.
        rooms_per_conn: u64 =
            number("rooms", 2, limits::ROOMS_PER_CONN_MAX as u64, limits::ROOMS_PER_CONN_MAX as u64).live();
        /// Rooms that one request may name.
        rooms_per_request: u64 =
            number("rooms", 1, limits::ROOMS_PER_REQUEST_MAX as u64, limits::ROOMS_PER_REQUEST_MAX as u64).live();
        /// Rooms that have their home on one shard, those of users included: no fewer than
        /// `conns_per_shard`, since each connection brings its user's.
        rooms_per_shard: u64 =
            number("rooms", 1, limits::ROOMS_PER_SHARD_MAX as u64, limits::ROOMS_PER_SHARD_MAX as u64).live();
        /// What may wait for one connection that reads too slowly, before it is closed with 4410; at most an
        /// eighth of `memory.budget_bytes`. Four messages may wait whatever their sizes. Transient pushes are
        /// dropped from a quarter of it on.
        outbox_bytes: u64 = number(
            "bytes",
            limits::OUTBOX_BYTES_LEAST as u64,
            limits::OUTBOX_BYTES_LARGEST as u64,
            limits::OUTBOX_BYTES_MAX as u64,
        ).live();
        /// A connection that took no byte for this long is slow: transient pushes to it are dropped.
        slow_ms: u64 = number("milliseconds", 100, ms(limits::STALL_TIME_LONGEST), ms(limits::STALL_TIME_SLOW)).live();
        /// And after this long it is closed with 4410; more than `slow_ms`.
        stall_ms: u64 = number("milliseconds", 100, ms(limits::STALL_TIME_LONGEST), ms(limits::STALL_TIME_MAX)).live();
        /// Open connections of one user, of those that come from now on; later ones are closed with 4429.
        conns_per_user: Option<u64> = number_or(UNLIMITED, "connections", 1, COUNT_MAX).live();
        /// Attempts of one user to connect within `attempts_per_user_ms`: all at once, then evenly.
        /// Later ones are closed with 4429.
        attempts_per_user: Option<u64> = number_or(UNLIMITED, "attempts", 1, COUNT_MAX).live();
        /// The time for `attempts_per_user`.
        attempts_per_user_ms: u64 = number("milliseconds", 100, DAY_MS, ms(limits::CALLER_TIME)).live();
    }

    /// What the system is asked for each client's socket.
    sockets: Sockets {
        /// Connections that wait to be accepted, per shard. The system allows up to
        /// `net.core.somaxconn`.
        backlog: u64 = number("connections", 1, 65_535, 4_096);
        /// Bytes that the system queues unsent for one client before it calls the socket full.
        /// Small: slow readers are noticed early and cost little. Large: fewer wake-ups.
        notsent_lowat_bytes: u64 = number("bytes", 1_024, 64 << 20, 64 * 1_024);
        /// Small messages leave at once, and do not wait until earlier ones are acknowledged.
        nodelay: bool = flag(true);
        /// Send buffer of a socket; the system doubles it. `auto`: the system sizes it as it goes.
        send_buffer_bytes: Option<u64> = number_or("auto", "bytes", 2_048, 64 << 20);
        /// Receive buffer of a socket; the system doubles it. `auto`: the system sizes it as it goes.
        receive_buffer_bytes: Option<u64> = number_or("auto", "bytes", 1_024, 64 << 20);
    }

    /// One turn of a shard: how long it looks, and how much it does before it looks again.
    turn: Turn {
        /// How long a shard goes on looking for work, without sleeping, after the last that it had.
        /// Costs a processor for that long, and spares messages the way through the scheduler.
        busy_poll_us: u64 = number("microseconds", 0, us(limits::BUSY_POLL_MAX), 0);
        /// Connections that are read from before others have their turn, each once.
        reads_per_turn: u64 =
            number("connections", 1, limits::READS_PER_TURN_MAX as u64, limits::READS_PER_TURN as u64);
        /// Connections that are written to before others have their turn.
        writes_per_turn: u64 =
            number("connections", 2, limits::WRITES_PER_TURN_MAX as u64, limits::WRITES_PER_TURN as u64);
        /// How many of these may be members of a large room; fewer than `writes_per_turn`. Smaller:
        /// others wait less for a large room. Larger: fewer looks.
        crowd_writes_per_turn: u64 =
            number("connections", 1, limits::WRITES_PER_TURN_MAX as u64 - 1, limits::CROWD_WRITES_PER_TURN as u64);
        /// What one read takes of a connection at most: the size of a shard's one buffer.
        read_bytes: u64 = number(
            "bytes",
            limits::READ_BYTES_PER_TURN_MIN as u64,
            limits::READ_BYTES_PER_TURN_MAX as u64,
            limits::READ_BYTES_PER_TURN as u64,
        );
        /// How long the writes to a large room wait for more messages that could leave with them.
        /// Small rooms, and replies, never wait. Whole milliseconds while the shard is otherwise idle.
        coalesce_us: u64 = number("microseconds", 0, us(limits::COALESCE_MAX), 0);
    }

    /// Clients of Socket.IO 4, at `/socket.io/`, over polling and WebSocket (`docs/socketio.md`). What is
    /// named here in the words of their own server means the same as there.
    socketio: SocketIo {
        /// Whether they are served.
        enabled: bool = flag(true);
        /// Namespaces that there are; what all of them are for is the same. Others are refused with
        /// `Invalid namespace`.
        namespaces: String = text(NAMESPACES, "/,/chat", is_namespaces, "/,/realtime,/notifications,/ws");
        /// Between two pings of the server: told to clients. Whatever stands between them and the gateway
        /// has to bear that much silence.
        ping_interval_ms: u64 = number("milliseconds", 10, DAY_MS, 25_000);
        /// For the answer to a ping: told to clients. Either side gives up when both times are over.
        ping_timeout_ms: u64 = number("milliseconds", 10, DAY_MS, 20_000);
        /// How long a client may stay without being in a namespace.
        connect_timeout_ms: u64 = number("milliseconds", 10, DAY_MS, 45_000);
        /// From the first packet of a WebSocket that is to take over from polling to its last.
        upgrade_timeout_ms: u64 = number("milliseconds", 10, DAY_MS, 10_000);
        /// One packet of a client, and one request's worth of packets: told to clients as `maxPayload`.
        payload_bytes: u64 = number("bytes", PAYLOAD_BYTES_MIN, 16 << 20, 1_000_000);
        /// Binary attachments of one packet of a client. The clients in JavaScript take no more than 10
        /// themselves.
        attachments_max: u64 =
            number("attachments", 0, limits::ARGUMENTS_MAX as u64, limits::ATTACHMENTS_MAX as u64);
        /// Whether compression is agreed on with clients that offer it (`[compression]`): off, as on their
        /// own server. With it on, clients on Node send the last packet of an upgrade late.
        compression: bool = flag(false);
        /// The name of a cookie that holds the session's id, for balancers that keep clients at one of
        /// several servers by it. Empty: none is sent.
        cookie: String = text("the name of a cookie, or nothing", "io", is_cookie_name, "");
    }

    /// permessage-deflate (RFC 7692), for clients that offer it.
    compression: Compression {
        /// Messages of as many bytes are compressed, once for all their receivers, where that makes
        /// them smaller. `never`: no offer is taken, from new connections on.
        min_bytes: Option<u64> =
            number_unless("never", "bytes", 64, limits::MESSAGE_BYTES_MAX as u64, limits::DEFLATE_BYTES_MIN as u64).live();
    }

    /// What a shard may hold.
    memory: Memory {
        /// What one shard holds for readers at most, each frame counted once: frames that wait to be
        /// written, and what rooms keep. Beyond it the connections that hold up the oldest are closed.
        budget_bytes: u64 =
            number("bytes", limits::MEMORY_BYTES_MIN as u64, 1 << 40, limits::MEMORY_BYTES as u64);
    }

    /// Going away: SIGTERM asks every client to come back (1012), one after the other.
    drain: Drain {
        /// Clients that are asked to come back a second, from all shards together. Who is not asked
        /// when the time is nearly over is asked then, and told to wait until its turn would have come.
        conns_per_s: u64 = number("connections", 1, 1_000_000, 2_000).live();
        /// When the process ends, whatever clients do. Long where other servers take them in; short
        /// where they wait for this one to start again.
        time_out_ms: u64 = number("milliseconds", 0, 3_600_000, 30_000).live();
        /// What every client is told to wait at least before it comes back, and up to as much again, at
        /// random.
        retry_ms: u64 = number("milliseconds", 0, 3_600_000, 1_000).live();
    }

    /// The service log, on standard error.
    log: Log {
        /// What is worth a line.
        level: String = one_of(&["off", "error", "warn", "info", "debug", "trace"], "info").live().short("LOG");
        /// How a line is written: for people, or as a JSON object with `ts`, `level`, `message` and,
        /// where one said it, `shard`.
        format: String = one_of(&["text", "json"], "text").live();
    }

    /// The audit log: who connected, from where, who was refused and why, what operators did.
    audit: Audit {
        /// Where it is written, as JSON lines. Empty: nowhere. SIGHUP opens it anew, for logrotate.
        file: String = text(PATH, "/var/log/ringroom/audit.log", is_anything, "");
        /// Requests of clients that are told besides: events, or beginnings of events with a `*`
        /// behind. Who, which rooms and what became of it; never what was said.
        events: String = text("events with commas between", "room:publish,auth:*", is_events, "").live();
    }
}

lists! {
    /// Who may do what, by the names of rooms. The first `[[policy]]` that matches a room and names the
    /// right decides; what none decides is as `docs/protocol.md` says under *Who may do what*. No
    /// policy opens another user's room, another tenant's, or what `[roles]` guards, and a token's own
    /// lists only narrow. Who is in a room stays when policies change; what is asked from then on is
    /// decided anew. A claim that no policy named before is known of connections that come, or
    /// refresh their token, after the reload. A right that `join` limits is not limited for `publish`
    /// thereby: name each. The word `ask` is for a later release, and refused in this one.
    policy: Policy needs rooms is_live true {
        /// What refusals and `room:info` call it. Without a name it is called by its rooms.
        name: String = text("1 to 64 letters, digits and _ . : @ - and spaces, but not default", "editors", is_policy_name, "");
        /// The rooms: a pattern, in which a whole segment may be `{sub}` or `{tenant}` too, the id of
        /// the user who asks or of its tenant. An id that holds a separator fits nowhere.
        rooms: String = text("a pattern of rooms", "chat:{tenant}.*", is_rule_pattern, "");
        /// Who may join, ask for information and history.
        join: String = text(WhoRefused::ALLOWED, "role:staff, claim:plan=pro", is_who, "");
        /// Who may publish.
        publish: String = text(WhoRefused::ALLOWED, "role:editor, token", is_who, "");
        /// Who may write to a user by name. Here the room is the user's own, `user:{id}`.
        direct: String = text(WhoRefused::ALLOWED, "role:agent", is_who, "");
        /// Who may see who is there. Where no policy says so: who may join.
        presence: String = text(WhoRefused::ALLOWED, "anybody", is_who, "");
        /// Who may manage the room. Where no policy says so: who may join and has a role of `roles.manage`.
        manage: String = text(WhoRefused::ALLOWED, "role:moderator", is_who, "");
    }

    /// More certificates, for hosts that clients name (SNI): each for the names in it, `*.` before a name for
    /// any one label. Of several for one host the first counts whose kind of key the client knows.
    certificate: Certificate needs certificate_file is_live true {
        /// As `tls.certificate_file`.
        certificate_file: String = text(PATH, "/etc/ringroom/other.pem", is_something, "");
        /// As `tls.key_file`. Where none is named it is in the file of the certificate.
        key_file: String = text(PATH, "/etc/ringroom/other.key", is_something, "");
    }

    /// Names that clients of Socket.IO have for what they ask: an event of theirs, the request that it is, and
    /// what that request's fields are made of. Holds in all namespaces; an event without a row is its own
    /// request. `docs/socketio.md` has examples under *Names of your own*.
    alias: Alias needs event is_live false {
        /// What clients emit, in one row only.
        event: String = text("the name of an event", "join:chat", is_something, "");
        /// The request that it is. Without it: the one of the event's own name.
        request: String = text("the name of a request", "room:join", is_something, "");
        /// Names for what clients emit bare, or one behind the other: with `warehouse, zone`,
        /// `emit(event, 1, 2)` has the data `{"warehouse":1,"zone":2}`. One object alone is taken for the data
        /// itself.
        arguments: String = text("names of fields with commas between", "chatId", is_something, "");
        /// What fields of the request are made of: `{chatId}` is what that field of the client's is, `chat:{chatId}`
        /// a text with it, `{room after chat:}` what follows there, `[a:{x}, b:{y}]` a list of what can be made,
        /// and anything else itself. Fields in braces do not come along themselves; all others do. Where one in
        /// braces is missing, the client's own field of that name is taken.
        fields: String = text(FIELDS, "room = chat:{chatId}", is_something, "");
        /// As what the reply's data is pushed too, to who asked.
        reply_push: String = text("the name of an event", "chat:joined", is_something, "");
        /// The same as `fields` for the reply's data, be it pushed or not.
        reply_fields: String = text(FIELDS, "chatId = {room after chat:}", is_something, "");
    }

    /// Names that clients of Socket.IO have for what they are told. Holds in all namespaces; a push without a
    /// row comes under its own name, one with several once under each.
    push: Push needs event is_live false {
        /// The push, as it is called here.
        event: String = text("the name of an event", "message:new", is_something, "");
        /// What clients hear it as. Without it: its own name.
        name: String = text("the name of an event", "NEW_MESSAGE", is_something, "");
        /// The same as `alias.fields` for the push's data. Braces may name `room`, `seq`, `mid`, `ts` and `from`
        /// too, which stay where they are.
        fields: String = text(FIELDS, "chatId = {room after chat:}, senderId = {from}", is_something, "");
    }
}

const fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

const fn us(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// All keys, in the order of the tree.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

pub fn key(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

const ADDRESS: &str = "an address with a port";
const ADDRESSES: &str = "addresses with ports, with commas between, or nothing";
const CPUS: &str = "\"auto\", \"none\", or numbers of processors";
const PATH: &str = "the path of a file, or nothing";
const NAMESPACES: &str =
    "1 to 10 different names with commas between, each a / and up to 63 bytes behind it, without spaces, quotes and ?";
const LIST: &str = "texts with commas between";
const FIELDS: &str = "fields and what they are made of, `name = template`, with commas between";
const CLAIM: &str = "the name of a claim, or names with dots between";
const PATTERNS: &str = "patterns of rooms with commas between";
const EVENT_RATES: &str = "events, each with a count and a time, with commas between";
const NETWORKS: &str = "networks or addresses with commas between, or nothing";
const ORIGINS: &str = "\"same-host\", \"any\" and origins, with commas between, or nothing";
const PROFILE: &str = "the name of a profile, or the path of a file that ends with .toml";

pub fn list(name: &str) -> Option<&'static List> {
    LISTS.iter().find(|list| list.name == name)
}

const ROLES: &str = "roles with commas between";

/// Whether there is such an address is found out when it is looked up.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn is_addresses(text: &str) -> bool {
    items(text).all(is_address)
}

fn is_cpus(text: &str) -> bool {
    matches!(text, "auto" | "none") || cpu_numbers(text).is_some()
}

/// `0-3,6` as numbers.
pub fn cpu_numbers(text: &str) -> Option<Vec<usize>> {
    const CPUS_MAX: usize = 1_024;
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn is_profile(text: &str) -> bool {
    !text.is_empty()
}

fn is_secret(text: &str) -> bool {
    text.len() >= limits::SECRET_BYTES_MIN
}

/// What stands between commas; an empty text is an empty list.
pub fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn is_anything(_: &str) -> bool {
    true
}

/// Names of events, in which a `*` may stand for the rest.
fn is_events(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
    items(text).all(|item| item.strip_suffix('*').unwrap_or(item).bytes().all(is_name))
}

fn is_something(text: &str) -> bool {
    items(text).next().is_some()
}

fn is_secret_algorithms(text: &str) -> bool {
    is_something(text) && items(text).all(|name| ["HS256", "HS384", "HS512"].contains(&name))
}

fn is_url(text: &str) -> bool {
    text.is_empty() || Place::url(text).is_ok()
}

fn is_namespaces(text: &str) -> bool {
    let names: BTreeSet<&str> = items(text).collect();
    let count = items(text).count();
    (1..=limits::NAMESPACES_MAX).contains(&count) && names.len() == count && items(text).all(is_namespace)
}

/// Whether packets can name it, and nothing in it ends the name.
fn is_namespace(name: &str) -> bool {
    let is_letter = |char: char| !char.is_whitespace() && !char.is_control() && !"?,\"\\".contains(char);
    name.starts_with('/') && name.len() <= limits::NAMESPACE_BYTES_MAX && name.chars().all(is_letter)
}

/// A token (RFC 6265, section 4.1.1).
fn is_cookie_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    text.len() <= 64 && text.bytes().all(is_letter)
}

fn is_tenant(text: &str) -> bool {
    check_tenant(text).is_ok()
}

fn is_networks(text: &str) -> bool {
    items(text).all(|item| networks::Network::parse(item).is_some())
}

/// What stands for pages without naming them.
pub const FORWARDED: &str = "forwarded";
pub const SAME_HOST: &str = "same-host";
pub const ANY: &str = "any";

fn is_origins(text: &str) -> bool {
    items(text).all(|item| [SAME_HOST, ANY].contains(&item) || origins::Pattern::parse(item).is_some())
}

fn is_role(text: &str) -> bool {
    (1..=limits::ROLE_BYTES_MAX).contains(&text.len())
}

fn is_roles(text: &str) -> bool {
    items(text).count() <= limits::ROLES_MAX && items(text).all(is_role)
}

fn is_some_roles(text: &str) -> bool {
    is_something(text) && is_roles(text)
}

fn is_policy_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@- ".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_letter) && text != NAME_DEFAULT
}

fn is_rule_pattern(text: &str) -> bool {
    RulePattern::parse(text).is_ok()
}

fn is_who(text: &str) -> bool {
    Who::parse(text).is_ok()
}

fn is_event_rates(text: &str) -> bool {
    items(text).count() <= limits::EVENT_RATES_MAX && items(text).all(|item| EventRate::parse(item).is_some())
}

fn is_patterns(text: &str) -> bool {
    items(text).count() <= limits::PATTERNS_MAX && items(text).all(|item| Pattern::parse(item).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_named_one_by_one_or_from_to() {
        assert_eq!(cpu_numbers("0-3,6"), Some(vec![0, 1, 2, 3, 6]));
        assert_eq!(cpu_numbers("2, 0"), Some(vec![2, 0]));
        for wrong in ["", "a", "3-0", "0-", "-1", "0-99999999999", "1024"] {
            assert_eq!(cpu_numbers(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn namespaces_are_names_that_a_packet_can_hold_each_once() {
        let many = |count| (0..count).map(|nth| format!("/{nth}")).collect::<Vec<_>>().join(",");
        let long = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        for right in ["/", "/,/a", " /a , /b ", "/a/b", "/chat-é", &many(limits::NAMESPACES_MAX), &long(64)] {
            assert!(is_namespaces(right), "{right}");
        }
        let wrong = ["", ",", "chat", "/,chat", "/a,/a", "/,/", "/a?b", "/a b", "/a\nb", "/a\"", "/a\\"];
        for wrong in wrong.into_iter().chain([&*many(limits::NAMESPACES_MAX + 1), &long(65)]) {
            assert!(!is_namespaces(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_cookie_is_named_by_a_token() {
        assert!(["", "io", "__Host-io"].iter().all(|name| is_cookie_name(name)));
        assert!(["a b", "a=b", "a;", "é", "\"a\"", &"x".repeat(65)].iter().all(|name| !is_cookie_name(name)));
    }

    #[test]
    fn no_two_keys_share_a_name_in_the_environment() {
        let mut names: Vec<String> =
            keys().flat_map(|key| [Some(key.in_environment()), key.spec.short.map(str::to_owned)]).flatten().collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
