//! Every bound of the core, with the relations between them checked at compile time.

use std::time::Duration;

/// One message of a client, assembled and unmasked, bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Fragments of one message (`RFC 6455` section 5.4).
pub const FRAGMENTS_MAX: u32 = 16_384;
/// An HTTP request head, bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
pub const HEADERS_MAX: usize = 64;
/// From the first byte of a connection to the end of its head.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Messages below this are sent uncompressed, bytes: most of a small one is its header on the wire anyway.
pub const DEFLATE_BYTES_MIN: usize = 1_024;
/// What a shard keeps of the memory that inflated and deflated messages took.
pub const INFLATED_BYTES_KEPT: usize = 64 * 1024;
/// Nesting of JSON that a client sends.
pub const JSON_DEPTH_MAX: usize = 64;
/// Fields of a request's data that are noted as the message is checked; who reads more walks on.
pub const JSON_SPANS_MAX: usize = 6;
/// Endpoints of an application, and what it may allow a message at one of them, bytes.
pub const ENDPOINTS_MAX: usize = 6;
pub const ENDPOINT_MESSAGE_BYTES_MAX: usize = 1 << 26;
/// Paths at which Engine.IO is spoken, and namespaces of all of them together.
pub const MOUNTS_MAX: usize = 3;
pub const NAMESPACES_MAX: usize = 10;
/// Packets of one Engine.IO payload: clients in use drop connections that bring more.
pub const POLL_PACKETS_MAX: usize = 16;
/// Requests of one stream of server-sent events that wait for their replies.
pub const EMITS_MAX: usize = 64;
/// Bytes of those, of all streams of a shard, that cannot go on yet. One stream holds no more than it leaves free.
pub const EMITS_HELD_BYTES_MAX: usize = 16 << 20;
/// Name of a namespace, bytes.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// Arguments of one Socket.IO event, its name not counted.
pub const ARGUMENTS_MAX: usize = 256;
/// From a packet of Socket.IO to the last of its attachments.
pub const ATTACHMENTS_TIME_MAX: Duration = Duration::from_secs(10);
/// Binary attachments of one Socket.IO packet, unless an operator says otherwise.
pub const ATTACHMENTS_MAX: usize = 10;
/// Rows of aliases and of pushes, fields that one makes, fields that it makes them of, and what a text that is
/// put into another may have, bytes.
pub const ALIASES_MAX: usize = 256;
pub const ALIAS_FIELDS_MAX: usize = 16;
pub const ALIAS_SOURCES_MAX: usize = 16;
pub const ALIAS_TEXT_BYTES_MAX: usize = 256;
/// Bytes read from one connection in one turn, where a profile says nothing else, and what it may say.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;
pub const READ_BYTES_PER_TURN_MIN: usize = 4 * 1024;
pub const READ_BYTES_PER_TURN_MAX: usize = 1 << 20;
/// `id` of a request, bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Name of an event, bytes.
pub const EVENT_BYTES_MAX: usize = 64;
/// `cid` of a publish, bytes.
pub const CID_BYTES_MAX: usize = 128;
/// Rooms that one request may name.
pub const ROOMS_PER_REQUEST_MAX: usize = 100;
/// Rooms of its sender among which a request's room is looked for before it is placed by its name.
pub const ROOMS_LOOKED_THROUGH_MAX: usize = 8;
/// Rooms that one connection may be in.
pub const ROOMS_PER_CONN_MAX: usize = 1_000;
/// Connections of one shard, and rooms that have their home there.
pub const CONNS_PER_SHARD_MAX: usize = 1 << 20;
pub const ROOMS_PER_SHARD_MAX: usize = 1 << 20;
/// Automatic pongs queued for one connection.
pub const PONGS_PENDING_MAX: u32 = 60;

/// Tokens of a bucket, and that flow in during one period, unless an operator says otherwise; and the most
/// that one may say of either, and of a period.
pub const CONN_BURST: u32 = 100;
pub const CONN_PER_SECOND: u32 = 10;
pub const BURST_MAX: u32 = 1_000_000;
pub const RATE_PERIOD_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Rules for rates of events.
pub const EVENT_RATES_MAX: usize = 32;
/// Buckets of users, and of connections that were refused, that one shard keeps because they are not full;
/// beyond it the next that is looked at begins full again. Looked at with each new one, and with each tick.
pub const BUCKETS_MAX: usize = 1 << 18;
pub const BUCKETS_PER_INSERT: usize = 4;
pub const BUCKETS_PER_TICK: usize = 256;
/// Refusals by a rate that a connection may have in this time; who goes on is closed.
pub const REFUSALS_MAX: u32 = 500;
pub const REFUSALS_TIME: Duration = Duration::from_secs(10);

/// Bytes accepted for a connection and not yet written, unless an operator says otherwise, and the least and
/// the most that one may say. The marks below it are parts of it (`kernel::outbox`).
pub const OUTBOX_BYTES_MAX: usize = 1 << 20;
pub const OUTBOX_BYTES_LEAST: usize = 1 << 19;
pub const OUTBOX_BYTES_LARGEST: usize = 1 << 26;
/// What one shard holds for readers unless it is told otherwise, and the least that it may be told: queued
/// frames, each once, what histories keep, and the queues' places.
pub const MEMORY_BYTES: usize = 512 << 20;
pub const MEMORY_BYTES_MIN: usize = 16 << 20;
/// When a publish that was refused for want of memory may be tried again.
pub const FULL_RETRY: Duration = Duration::from_secs(1);
/// A ping, pong or close frame of ours, header included (`RFC 6455` section 5.5).
pub const CONTROL_FRAME_BYTES_MAX: usize = 2 + 125;
/// A connection that took no byte for this long is slow: transient pushes to it are dropped.
pub const STALL_TIME_SLOW: Duration = Duration::from_secs(1);
/// A connection that took no byte for this long is closed.
pub const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest that an operator may make either.
pub const STALL_TIME_LONGEST: Duration = Duration::from_secs(300);
/// Between the close frame and the reset of a connection that does not answer it.
pub const LINGER: Duration = Duration::from_secs(5);
/// Connections that one step closes or resets of the shard's own accord (timers, memory, the drain);
/// the rest goes with the next ticks, so that thousands that fall due together are no long turn.
pub const CLOSES_PER_STEP: usize = 256;
/// Slots that a drain looks through in one step, and how much time that it lost it makes up for.
pub const DRAIN_LOOKS_PER_STEP: usize = 8_192;
pub const DRAIN_CATCH_UP: Duration = Duration::from_millis(20);

/// Messages kept per room: entries, bytes, age.
pub const HISTORY_ENTRIES_MAX: usize = 512;
pub const HISTORY_BYTES_MAX: usize = 4 << 20;
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(600);
/// How often an unused room is looked at.
pub const ROOM_CHECK: Duration = Duration::from_secs(60);
/// Answers kept for repeated client ids, per room; the oldest goes first.
pub const CIDS_PER_ROOM_MAX: usize = 65_536;
/// How long a client id is remembered.
pub const CID_AGE_MAX: Duration = Duration::from_secs(600);
/// One page of a replay or of `room:history`, entries and bytes.
pub const PAGE_ENTRIES_MAX: usize = 100;
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
/// One page of `room:online`, users.
pub const ONLINE_PAGE_MAX: usize = 1_000;
/// Rooms larger than this do not tell of members that come and go.
pub const MEMBER_EVENTS_MAX: usize = 100;
/// `room:update` data, bytes.
pub const ROOM_DETAILS_BYTES_MAX: usize = 16 * 1024;

/// Other names that clients choose, bytes: a room, a user's id, a tenant's id.
pub const ROOM_NAME_BYTES_MAX: usize = 128;
pub const USER_BYTES_MAX: usize = 128;
pub const TENANT_BYTES_MAX: usize = 64;
/// A token, bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// A token's own id (`jti`), bytes.
pub const TOKEN_ID_BYTES_MAX: usize = 128;
/// How long before its token ends a client is told.
pub const TOKEN_EXPIRING: Duration = Duration::from_secs(60);
/// A shared secret, bytes.
pub const SECRET_BYTES_MIN: usize = 32;
/// Keys that tokens are checked with, and how many of them are tried for one token.
pub const KEYS_MAX: usize = 64;
pub const KEYS_TRIED_MAX: usize = 4;
/// The id of a key, and a set of keys as it is fetched, bytes.
pub const KEY_ID_BYTES_MAX: usize = 256;
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Revoked users and tokens that one shard remembers; the one that would end first goes first.
pub const REVOCATIONS_MAX: usize = 65_536;
/// Revocations that one order names.
pub const REVOCATIONS_PER_ORDER_MAX: usize = 1_024;
/// Roles of one token, and bytes of one role.
pub const ROLES_MAX: usize = 32;
pub const ROLE_BYTES_MAX: usize = 64;
/// Room patterns of one token, for each right.
pub const PATTERNS_MAX: usize = 64;
/// Rules of the policy.
pub const POLICIES_MAX: usize = 1_024;
/// Claims that the rules compare, values of them that are kept of one token, and bytes of one value.
pub const CLAIMS_MAX: usize = 16;
pub const CLAIM_VALUES_MAX: usize = 32;
pub const CLAIM_VALUE_BYTES_MAX: usize = 128;
/// `name` and `device` of a token, bytes each.
pub const LABEL_BYTES_MAX: usize = 128;

/// Requests of one connection about rooms that wait for an answer from outside: rooms, requests behind
/// them, and bytes of all.
pub const ASKED_PER_CONN_MAX: usize = 100;
pub const ASKED_BEHIND_MAX: usize = 32;
pub const ASKED_BYTES_PER_CONN_MAX: usize = 4 << 20;
/// The same of one shard.
pub const ASKED_PER_SHARD_MAX: usize = 4_096;
pub const ASKED_BYTES_PER_SHARD_MAX: usize = 64 << 20;
/// How long an answer is waited for, and bytes of what it may tell the client.
pub const ASK_TIME_OUT: Duration = Duration::from_secs(5);
pub const ANSWER_BYTES_MAX: usize = 256;
/// Mails under way between two shards, one direction.
pub const LANE_ENTRIES_MAX: usize = 4_096;
/// Requests of one shard that another has not answered.
pub const CALLS_PER_PEER_MAX: usize = 1_024;
/// Shards of one process: `mid` has eight bits for them.
pub const SHARDS_MAX: usize = 64;
/// Dialects of one process: a set of them is one word.
pub const DIALECTS_MAX: usize = 64;
/// Connections of one user that are moved to the user's home; later ones stay where they were accepted.
pub const USER_CONNS_MOVED_MAX: u32 = 64;

/// Sockets of one shard whose request head has not ended, and bytes of such heads that came in pieces. Beyond
/// them the socket that waits longest goes.
pub const HANDSHAKES_MAX: usize = 16_384;
pub const HEADS_BYTES_MAX: usize = 16 << 20;
/// Such sockets that are heard before others have their turn.
pub const HANDSHAKES_PER_TURN: usize = 64;
/// And of those that speak TLS, the ones that keys are agreed on with and signed for: each takes up to a
/// millisecond.
pub const TLS_HANDSHAKES_PER_TURN: usize = 2;
/// Ciphertext that one read takes, and reads in a row that bring nothing but TLS's own messages.
pub const TLS_READ_BYTES: usize = 32 * 1024;
pub const TLS_READS_MAX: usize = 4;
/// Ciphertext of one connection that is kept until the rest of its record or message has come: a record has
/// up to 18 KiB, a message of the handshake may have several.
pub const TLS_HELD_BYTES_MAX: usize = 64 * 1024;
/// What is encrypted at once for one connection, and so what may wait for its socket besides its outbox.
pub const TLS_SEALED_BYTES_MAX: usize = 16 * 1024;
/// Sockets of one address at most, whose heads have not ended, and how many of the longest waiting are looked
/// through for one of it.
pub const HALF_OPEN_PER_ADDRESS: u32 = 512;
pub const HALF_OPEN_LOOKED_THROUGH_MAX: usize = 1_024;
/// Attempts of one address to connect, and bad tokens of it, in a time. An office behind one address comes
/// back at once after a restart, and nobody guesses a token.
pub const ATTEMPTS_PER_ADDRESS: u32 = 600;
pub const FAILURES_PER_ADDRESS: u32 = 120;
pub const CALLER_TIME: Duration = Duration::from_secs(60);
/// Callers (addresses and users) that a process remembers, and how many places one may have.
pub const CALLERS_MAX: usize = 65_536;
pub const CALLER_PLACES: usize = 8;
/// Sockets of one shard that ask over HTTP again and again and do not wait for packets now, and what all such
/// sockets hold of requests and answers, bytes. Beyond them whoever is idle longest goes, or is slowest.
pub const REGULARS_MAX: usize = 16_384;
pub const REGULARS_BYTES_MAX: usize = 64 << 20;
/// How long such a socket may be idle: longer than proxies keep theirs (nginx 60 s), so that it is they who end it.
pub const KEEP_ALIVE_TIME: Duration = Duration::from_secs(75);
/// Packets of one POST that the core takes before others have their turn.
pub const POSTED_PER_TURN: usize = 64;
/// Headers that a page may ask leave for, and bytes of their names.
pub const CORS_HEADERS_MAX: usize = 32;
pub const CORS_HEADERS_BYTES_MAX: usize = 1_024;
/// Bytes that are read and thrown away from a peer that was answered and does not close.
pub const DISCARD_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// Sockets accepted, mails taken from one lane, connections read from and written to: each at most so often
/// before the edge looks at what else is ready.
pub const ACCEPTS_PER_TURN: usize = 64;
pub const MAILS_PER_TURN: usize = 256;
/// Mails taken from one lane before each read of a client.
pub const MAILS_PER_READ: usize = 32;
/// Mails to one shard after which its bell is rung before the turn ends.
pub const MAILS_PER_RING: u32 = 64;
pub const READS_PER_TURN: usize = 256;
pub const READS_PER_TURN_MAX: usize = 4_096;
pub const WRITES_PER_TURN: usize = 256;
pub const WRITES_PER_TURN_MAX: usize = 4_096;
/// Members of a room on one shard from which on they are a crowd, and how many of a crowd are
/// written to before the edge looks at who else has something to read or write: what it finds for
/// the same crowd joins the writes that are still to come.
pub const CROWD_MIN: usize = 64;
pub const CROWD_WRITES_PER_TURN: usize = 32;
/// Who has more than this to write waits with the crowds, bytes: a write costs the same up to about here.
pub const BULKY_BYTES: usize = 4_096;
/// How long a shard may look for work without sleeping, and a crowd's writes wait for more to join.
pub const BUSY_POLL_MAX: Duration = Duration::from_millis(10);
pub const COALESCE_MAX: Duration = Duration::from_millis(20);
/// Bytes that one gathered write names, the frame that passes the bound included whole.
pub const WRITE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of frames that are joined for several connections in one turn.
pub const JOINED_BYTES_MAX: usize = 256 * 1024;
/// Controls (connections handed over, drain, statistics) that wait for one shard.
pub const CONTROLS_MAX: usize = 1_024;

/// Audited events of one shard that wait to be written; later ones are lost, and counted.
pub const AUDIT_ENTRIES_MAX: usize = 16_384;
/// Rooms of one request that the audit log names, and bytes of an `Origin` that it keeps.
pub const AUDITED_ROOMS_MAX: usize = 8;
pub const ORIGIN_BYTES_AUDITED: usize = 256;
/// Kinds of refused requests (by address, reason and origin) that are told apart in one second.
pub const AUDITED_REFUSALS_MAX: usize = 4_096;
/// The text of a close frame (`RFC 6455` section 5.5).
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Lines of the service log that one place in the code may write in a second, where strangers cause them.
pub const LOG_LINES_PER_SECOND: u32 = 5;

/// Interval of heartbeats, and how long a silent peer is kept.
pub const HEARTBEAT: Duration = Duration::from_secs(25);
pub const HEARTBEAT_TIME_OUT: Duration = Duration::from_secs(60);
/// A connection without a request and without a delivery is closed after this.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(30 * 60);

const _: () = assert!(TOKEN_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX * 64 < HEADS_BYTES_MAX);
const _: () = assert!(CALLERS_MAX.is_multiple_of(CALLER_PLACES) && CALLERS_MAX <= u32::MAX as usize);
const _: () = assert!(KEYS_TRIED_MAX <= KEYS_MAX && REVOCATIONS_PER_ORDER_MAX <= REVOCATIONS_MAX);
const _: () = assert!(POLICIES_MAX <= u16::MAX as usize && CLAIMS_MAX <= CLAIM_VALUES_MAX);
// One request names so many rooms, and one message is less than what may wait.
const _: () = assert!(ROOMS_PER_REQUEST_MAX <= ASKED_PER_CONN_MAX && ASKED_PER_CONN_MAX < ASKED_PER_SHARD_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX < ASKED_BYTES_PER_CONN_MAX);
const _: () = assert!(ASKED_BYTES_PER_CONN_MAX < ASKED_BYTES_PER_SHARD_MAX);
const _: () = assert!(OUTBOX_BYTES_LEAST <= OUTBOX_BYTES_MAX && OUTBOX_BYTES_MAX <= OUTBOX_BYTES_LARGEST);
const _: () = assert!(OUTBOX_BYTES_MAX <= MEMORY_BYTES_MIN / 8);
// An eighth of the budget, which relief works in, is more than one message; the rest holds a history.
const _: () = assert!(MESSAGE_BYTES_MAX < MEMORY_BYTES_MIN / 8 && HISTORY_BYTES_MAX < MEMORY_BYTES_MIN / 2);
const _: () = assert!(MEMORY_BYTES_MIN <= MEMORY_BYTES);
const _: () = assert!(CALLS_PER_PEER_MAX < LANE_ENTRIES_MAX);
const _: () = assert!(CONN_BURST <= BURST_MAX && CONN_PER_SECOND <= BURST_MAX && REFUSALS_MAX <= BURST_MAX);
const _: () = assert!(MAILS_PER_TURN <= LANE_ENTRIES_MAX);
const _: () = assert!(CROWD_WRITES_PER_TURN < WRITES_PER_TURN && WRITES_PER_TURN <= WRITES_PER_TURN_MAX);
const _: () = assert!(READS_PER_TURN <= READS_PER_TURN_MAX);
const _: () = assert!(STALL_TIME_SLOW.as_millis() < STALL_TIME_MAX.as_millis());
const _: () = assert!(STALL_TIME_MAX.as_millis() <= STALL_TIME_LONGEST.as_millis());
const _: () = assert!(CLOSES_PER_STEP <= DRAIN_LOOKS_PER_STEP);
const _: () = assert!(HEARTBEAT.as_secs() * 2 < HEARTBEAT_TIME_OUT.as_secs());
