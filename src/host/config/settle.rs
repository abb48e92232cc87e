//! From the tree to what the gateway runs with: relations between keys, names looked up, units.
//! Invariant: all that needs more than one key, or this machine, to be judged is judged here.

use super::origin::Problem;
use super::profiles::BENCH;
use super::sources::Effective;
use super::tree::{self, Tree, cpu_numbers, items};
use super::value::Quoted;
use crate::admission::networks::Network;
use crate::admission::origins::{self, Origins};
use crate::admission::pattern::{Pattern, RulePattern};
use crate::admission::policies::{RIGHTS, Rule, Rules, Who};
use crate::admission::policy::{Policy, Roles};
use crate::admission::rates::{Allowance, EventRate, Rates};
use crate::admission::rights::Right;
use crate::admission::token::{Anonymous, ClaimPaths, TokenSettings};
use crate::base::limits::{ASK_TIME_OUT, BURST_MAX, SHARDS_MAX};
use crate::host::drain::DrainSettings;
use crate::host::journal::Format;
use crate::host::jwks::{KeySettings, Material, NamedKey, Place, Source};
use crate::host::tls::{ClientFiles, PairFiles, TlsFiles};
use crate::io::callers::Rate;
use crate::io::entrance::Entrance;
use crate::io::process;
use crate::io::runtime::Choice;
use crate::io::socket::SocketOptions;
use crate::io::tls::settings::Oldest;
use crate::io::tuning::Tuning;
use crate::kernel::Limits;
use crate::kernel::audited::Auditing;
use crate::kernel::mounts::EngineSettings;
use crate::kernel::outbox::OutboxBounds;
use crate::wire::alias::{Aliases, DeclaredAlias, DeclaredPush, Wrong};
use crate::wire::forwarded::Written;
use log::LevelFilter;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const BEAT: &str = "limits.heartbeat_ms";
const TIME_OUT: &str = "limits.heartbeat_time_out_ms";
const WRITES: &str = "turn.writes_per_turn";
const STALL: &str = "limits.stall_ms";
const SLOW: &str = "limits.slow_ms";
const ROOMS: &str = "limits.rooms_per_shard";
const CONNS: &str = "limits.conns_per_shard";
const OUTBOX: &str = "limits.outbox_bytes";
const BUDGET: &str = "memory.budget_bytes";
/// So many readers at least hold what a shard has for them.
const OUTBOX_SHARE: u64 = 8;
const TLS_LISTEN: &str = "tls.listen";
const CROWD_WRITES: &str = "turn.crowd_writes_per_turn";

pub struct Config {
    pub listen: SocketAddr,
    pub ops: SocketAddr,
    /// Where TLS is spoken.
    pub tls_listen: Vec<SocketAddr>,
    /// `None`: there is no certificate to speak it with.
    pub tls: Option<TlsFiles>,
    pub shards: usize,
    pub cpus: Vec<usize>,
    pub io: Choice,
    pub tuning: Tuning,
    pub handshake_time: Duration,
    /// Who may come in.
    pub entrance: Arc<Entrance>,
    pub limits: Limits,
    /// `None`: clients of Socket.IO are not served.
    pub socketio: Option<SocketIo>,
    pub drain: DrainSettings,
    /// `None`: only this machine is served, with a secret that is made up.
    pub secret: Option<Vec<u8>>,
    /// What tokens are checked with and against, but for the secret.
    pub keys: KeySettings,
    pub policy: Arc<Policy>,
    pub development: bool,
    pub log: LevelFilter,
    pub log_format: Format,
    /// Where the audit log is written, if anywhere.
    pub audit_file: Option<PathBuf>,
}

/// The gateway's own path of Socket.IO.
#[derive(Clone, PartialEq, Debug)]
pub struct SocketIo {
    pub settings: EngineSettings,
    /// From 1 to `NAMESPACES_MAX` different names, each a `/` and what may be behind it.
    pub namespaces: Vec<Box<str>>,
    /// What clients call things, in all of these namespaces.
    pub aliases: Arc<Aliases>,
}

pub struct Settled {
    /// `None`: there are problems.
    pub config: Option<Config>,
    pub problems: Vec<Problem>,
    /// Strangers are to be served and there is no secret.
    pub secret_missing: Option<Problem>,
}

/// `dev`: development mode was asked for.
pub fn settle(effective: &Effective, dev: bool) -> Settled {
    let tree = effective.tree();
    let mut problems = Vec::new();
    let mut secret_missing = None;
    let listen = address(effective, "server.listen", &tree.server.listen, &mut problems);
    let ops = address(effective, "server.ops", &tree.server.ops, &mut problems);
    let secret = (!tree.jwt.secret.is_empty()).then(|| tree.jwt.secret.clone().into_bytes());
    let rules = rules(effective, &mut problems);
    let keys = keys(&tree, &rules);
    let aliases = aliases(effective, &mut problems);
    let tls_listen: Vec<_> =
        items(&tree.tls.listen).filter_map(|text| address(effective, TLS_LISTEN, text, &mut problems)).collect();
    let tls = tls(effective, &tree.tls, &mut problems);

    let listens = listen.map(|listen| (listen, "server.listen"));
    let listens = listens.into_iter().chain(tls_listen.iter().map(|listen| (*listen, TLS_LISTEN)));
    if let Some((listen, path)) = listens.into_iter().find(|(listen, _)| !listen.ip().is_loopback()) {
        let place = effective.origin(path);
        if tree.server.profile == BENCH {
            problems.push(Problem::new(
                effective.origin("server.profile"),
                format!("the profile bench switches limits off and serves this machine only, not {listen}; use --listen 127.0.0.1:3001"),
            ));
        }
        if dev {
            problems.push(Problem::new(
                place,
                format!("{listen} can be reached from other machines, where development mode is refused; listen on 127.0.0.1, or leave --dev out"),
            ));
        }
        if secret.is_none() && !keys.has_keys() && effective.is_known("jwt.secret") {
            secret_missing = Some(Problem::new(
                place,
                format!(
                    "{listen} can be reached from other machines, and there a secret is needed to check tokens with; \
                     export RINGROOM_JWT_SECRET=$(head -c 32 /dev/urandom | base64), or listen on 127.0.0.1"
                ),
            ));
        }
    }
    let (beat, time_out) = (tree.limits.heartbeat_ms, tree.limits.heartbeat_time_out_ms);
    let are_known = effective.is_known(BEAT) && effective.is_known(TIME_OUT);
    if are_known && beat * 2 > time_out {
        problems.push(Problem::new(
            effective.origin_of_any([TIME_OUT, BEAT]),
            format!(
                "{TIME_OUT} is {time_out} and must be at least twice {BEAT}, which is {beat}, \
                 or one late answer closes a connection; set it to {} or more",
                beat * 2
            ),
        ));
    }
    let (crowd, writes) = (tree.turn.crowd_writes_per_turn, tree.turn.writes_per_turn);
    let are_known = effective.is_known(CROWD_WRITES) && effective.is_known(WRITES);
    if are_known && crowd >= writes {
        problems.push(Problem::new(
            effective.origin_of_any([CROWD_WRITES, WRITES]),
            format!(
                "{CROWD_WRITES} is {crowd} and must be less than {WRITES}, which is {writes}, or a large room \
                 leaves nothing of a turn to others; set it to {} or less",
                writes - 1
            ),
        ));
    }
    problems.extend(wrong_limits(effective, &tree));
    let allowed = process::allowed_cpus().unwrap_or_default();
    let named = cpu_numbers(&tree.server.cpus);
    if let Some(stranger) = named.iter().flatten().find(|cpu| !allowed.is_empty() && !allowed.contains(cpu)) {
        problems.push(Problem::new(
            effective.origin("server.cpus"),
            format!(
                "server.cpus names processor {stranger}, which this process may not use; it may use {}",
                list(&allowed)
            ),
        ));
    }
    let shards = match (tree.server.shards, &named) {
        (Some(shards), _) => shards as usize,
        // Who names processors has left some over already.
        (None, Some(named)) => named.len().clamp(1, SHARDS_MAX),
        (None, None) => shards_for(allowed.len()),
    };
    let cpus = match named {
        Some(named) => named,
        None if tree.server.cpus == "none" => Vec::new(),
        None => allowed,
    };
    let development = dev || secret.is_none() && !keys.has_keys();
    let config = listen.zip(ops).filter(|_| problems.is_empty()).map(|(listen, ops)| Config {
        listen,
        ops,
        tls_listen,
        tls,
        shards,
        cpus,
        io: match &*tree.server.io {
            "io_uring" => Choice::IoUring,
            "epoll" => Choice::Epoll,
            _ => Choice::Auto,
        },
        tuning: tuning(&tree.turn, &tree.sockets),
        handshake_time: Duration::from_millis(tree.limits.handshake_ms),
        entrance: Arc::new(entrance(&tree.network, &tree.limits, development)),
        limits: limits(&tree),
        socketio: tree.socketio.enabled.then(|| socketio(&tree.socketio, aliases)),
        drain: DrainSettings {
            conns_per_s: tree.drain.conns_per_s as u32,
            time_out: Duration::from_millis(tree.drain.time_out_ms),
            retry: Duration::from_millis(tree.drain.retry_ms),
        },
        development,
        secret,
        keys,
        policy: Arc::new(Policy::new(roles(&tree.roles), rules)),
        log: tree.log.level.parse().expect("the tree allows the names of levels only"),
        log_format: if tree.log.format == "json" { Format::Json } else { Format::Text },
        audit_file: given(&tree.audit.file).map(PathBuf::from),
    });
    Settled { config, problems, secret_missing }
}

/// Which files TLS is served with; `None`: there is no certificate.
fn tls(effective: &Effective, tls: &tree::Tls, problems: &mut Vec<Problem>) -> Option<TlsFiles> {
    let mut wrong = |path, what: &str| problems.push(Problem::new(effective.origin(path), what));
    let mut pairs = Vec::new();
    match (given(&tls.certificate_file), given(&tls.key_file)) {
        (Some(certificate), key) => {
            pairs.push(PairFiles { certificate: certificate.into(), key: key.unwrap_or(certificate).into() })
        }
        (None, Some(_)) => wrong("tls.key_file", "tls.key_file is the key of nothing; set tls.certificate_file too"),
        (None, None) => {}
    }
    if effective.is_known("certificate") {
        for tree::Certificate { certificate_file, key_file } in effective.lists().certificate {
            let certificate = certificate_file.unwrap_or_default();
            pairs.push(PairFiles {
                key: key_file.as_ref().unwrap_or(&certificate).into(),
                certificate: certificate.into(),
            });
        }
    }
    if !tls.listen.is_empty() && pairs.is_empty() {
        wrong(TLS_LISTEN, "tls.listen has no certificate to serve TLS with; set tls.certificate_file and tls.key_file");
    }
    let authorities = given(&tls.client_ca_file).map(PathBuf::from);
    let clients = match (&*tls.client_auth, authorities) {
        ("none", _) => ClientFiles::Unknown,
        ("optional", Some(authorities)) => ClientFiles::MayShow(authorities),
        (_, Some(authorities)) => ClientFiles::MustShow(authorities),
        (_, None) => {
            wrong(
                "tls.client_auth",
                "tls.client_auth needs authorities that vouch for clients; set tls.client_ca_file",
            );
            ClientFiles::Unknown
        }
    };
    let oldest = if tls.min_version == "1.3" { Oldest::Tls13 } else { Oldest::Tls12 };
    (!pairs.is_empty()).then_some(TlsFiles { pairs, oldest, clients })
}

fn entrance(network: &tree::Network, limits: &tree::Limits, development: bool) -> Entrance {
    let networks = |text: &str| items(text).filter_map(Network::parse).collect();
    let rate = |number: Option<u64>, ms: u64| {
        number.map(|number| Rate { number: number as u32, per: Duration::from_millis(ms) })
    };
    let number = |number: Option<u64>| number.map(|number| number as u32);
    let is_named = |word: &str| items(&network.origins).any(|item| item == word);
    Entrance {
        allowed: networks(&network.allow),
        denied: networks(&network.deny),
        proxies: networks(&network.trusted_proxies),
        proxy_protocol: network.proxy_protocol,
        forwarded: match network.forwarded_header == tree::FORWARDED {
            true => Written::AsInRfc7239,
            false => Written::Loosely,
        },
        unlimited: networks(&network.unlimited),
        origins: Origins {
            listed: items(&network.origins).filter_map(origins::Pattern::parse).collect(),
            same_host: is_named(tree::SAME_HOST),
            local: development,
            any: is_named(tree::ANY),
        },
        attempts: rate(network.attempts, network.attempts_ms),
        attempts_per_user: rate(limits.attempts_per_user, limits.attempts_per_user_ms),
        failures: rate(network.failures, network.failures_ms),
        half_open_max: number(network.half_open),
        conns_per_address: number(network.conns_per_address),
        conns_per_user: number(limits.conns_per_user),
    }
}

fn limits(tree: &Tree) -> Limits {
    let (limits, audit) = (&tree.limits, &tree.audit);
    let audit = Auditing { is_on: !audit.file.is_empty(), events: items(&audit.events).map(Box::from).collect() };
    Limits {
        audit,
        conns_max: limits.conns_per_shard as usize,
        heartbeat: Duration::from_millis(limits.heartbeat_ms),
        heartbeat_time_out: Duration::from_millis(limits.heartbeat_time_out_ms),
        idle_time_max: limits.idle_ms.map_or(Duration::MAX, Duration::from_millis),
        lane_entries: limits.lane_entries as u32,
        memory_bytes: tree.memory.budget_bytes as usize,
        deflate_bytes_min: tree.compression.min_bytes.map(|bytes| bytes as usize),
        ask_time_out: ASK_TIME_OUT,
        rates: rates(limits),
        message_bytes: limits.message_bytes as usize,
        rooms_per_conn: limits.rooms_per_conn as usize,
        rooms_per_request: limits.rooms_per_request as usize,
        rooms_max: limits.rooms_per_shard as usize,
        outbox: OutboxBounds::of(limits.outbox_bytes as usize),
        slow_time: Duration::from_millis(limits.slow_ms),
        stall_time: Duration::from_millis(limits.stall_ms),
    }
}

fn socketio(socketio: &tree::SocketIo, aliases: Aliases) -> SocketIo {
    let settings = EngineSettings {
        ping_interval: Duration::from_millis(socketio.ping_interval_ms),
        ping_timeout: Duration::from_millis(socketio.ping_timeout_ms),
        upgrade_timeout: Duration::from_millis(socketio.upgrade_timeout_ms),
        connect_timeout: Duration::from_millis(socketio.connect_timeout_ms),
        payload_bytes: socketio.payload_bytes as usize,
        attachments_max: socketio.attachments_max as usize,
        compression: socketio.compression,
        cookie: given(&socketio.cookie).map(|name| name.as_str().into()),
        ..EngineSettings::default()
    };
    let namespaces = items(&socketio.namespaces).map(Box::from).collect();
    SocketIo { settings, namespaces, aliases: Arc::new(aliases) }
}

fn rates(limits: &tree::Limits) -> Rates {
    // The tree allows what fits.
    let tokens = |number: u64| u32::try_from(number).unwrap_or(BURST_MAX);
    let conn = limits.conn_burst.zip(limits.conn_per_s).map(|(burst, per_s)| Allowance {
        burst: tokens(burst),
        tokens: tokens(per_s),
        period: Duration::from_secs(1),
    });
    let user = limits.user_events.map(|events| Allowance {
        burst: tokens(events),
        tokens: tokens(events),
        period: Duration::from_millis(limits.user_events_ms),
    });
    Rates {
        conn,
        user,
        events: items(&limits.events).filter_map(EventRate::parse).collect(),
        unlimited_roles: items(&limits.unlimited_roles).map(Box::from).collect(),
    }
}

/// Limits that contradict each other.
fn wrong_limits(effective: &Effective, tree: &Tree) -> Vec<Problem> {
    let (limits, budget) = (&tree.limits, tree.memory.budget_bytes);
    let (slow, stall) = (limits.slow_ms, limits.stall_ms);
    let (rooms, conns) = (limits.rooms_per_shard, limits.conns_per_shard);
    let share = budget / OUTBOX_SHARE;
    let relations = [
        (
            slow >= stall,
            [STALL, SLOW],
            format!("{STALL} is {stall} and must be more than {SLOW}, which is {slow}; set it to {} or more", slow + 1),
        ),
        (
            rooms < conns,
            [ROOMS, CONNS],
            format!(
                "{ROOMS} is {rooms} and must be at least {CONNS}, which is {conns}: each connection brings its \
                 user's own room; raise the one or lower the other"
            ),
        ),
        (
            limits.outbox_bytes > share,
            [OUTBOX, BUDGET],
            format!(
                "{OUTBOX} is {} and must be at most an eighth of {BUDGET}, which is {budget}, or a few slow readers \
                 use up the memory of all; set it to {share} or less",
                limits.outbox_bytes
            ),
        ),
    ];
    let wrong = relations
        .into_iter()
        .filter(|(is_wrong, paths, _)| *is_wrong && paths.iter().all(|path| effective.is_known(path)));
    wrong.map(|(_, paths, what)| Problem::new(effective.origin_of_any(paths), what)).collect()
}

fn roles(roles: &tree::Roles) -> Roles {
    let names = |text: &str| items(text).map(Box::from).collect();
    Roles { platform: names(&roles.platform), dashboard: names(&roles.dashboard), manage: names(&roles.manage) }
}

const POLICY: &str = "policy";
const ALIAS: &str = "alias";
const PUSH: &str = "push";

/// What the list of policies says.
fn rules(effective: &Effective, problems: &mut Vec<Problem>) -> Rules {
    if !effective.is_known(POLICY) {
        return Rules::default();
    }
    let rows = effective.rows(POLICY);
    let path = |right: Right| format!("{POLICY}.{}", right.as_str());
    let mut rules = Vec::new();
    for (row, policy) in rows.iter().zip(effective.lists().policy) {
        let tree::Policy { name, rooms, join, publish, direct, presence, manage } = policy;
        // In the order of `RIGHTS`.
        let who = [join, publish, direct, presence, manage].map(|text| Who::parse(&text?).ok());
        let rooms = rooms.and_then(|rooms| RulePattern::parse(&rooms).ok()).expect("no row comes here without");
        if who.iter().all(Option::is_none) {
            let names = RIGHTS.map(Right::as_str).join(", ");
            problems.push(Problem::new(&row.origin, format!("this [[{POLICY}]] decides nothing; add one of {names}")));
        }
        for (right, who) in RIGHTS.iter().zip(&who) {
            if let Some(entry) = row.entry(&path(*right)).filter(|_| who.as_ref().is_some_and(Who::asks)) {
                let path = entry.key.path;
                let what = format!("{path} says ask, and this release has nobody to ask; name roles or claims instead");
                problems.push(Problem::new(&entry.origin, what));
            }
        }
        rules.push(Rule { name: name.unwrap_or_else(|| rooms.as_str().into()).into(), rooms, who });
    }
    let rules = match Rules::new(rules) {
        Ok(rules) => rules,
        Err(refused) => {
            let last = rows.last().map(|row| &row.origin);
            problems.extend(last.map(|origin| Problem::new(origin, refused.to_string())));
            return Rules::default();
        }
    };
    for (at, right, by) in rules.unreachable() {
        let path = path(right);
        let place = rows[at].entry(&path).map_or(&rows[at].origin, |entry| &entry.origin);
        let earlier = &rows[by].origin;
        let what = format!(
            "{path} never decides here: the [[{POLICY}]] at {earlier} comes first and decides {} in all these rooms; \
             move this one before it, or leave {} out",
            right.as_str(),
            right.as_str()
        );
        problems.push(Problem::new(place, what));
    }
    rules
}

/// What the lists of aliases and pushes say.
fn aliases(effective: &Effective, problems: &mut Vec<Problem>) -> Aliases {
    if !effective.is_known(ALIAS) || !effective.is_known(PUSH) {
        return Aliases::default();
    }
    let tree::Lists { alias, push, .. } = effective.lists();
    let aliases: Vec<_> = alias
        .into_iter()
        .map(|tree::Alias { event, request, arguments, fields, reply_push, reply_fields }| DeclaredAlias {
            event: event.unwrap_or_default(),
            request: request.unwrap_or_default(),
            arguments: arguments.unwrap_or_default(),
            fields: fields.unwrap_or_default(),
            reply_push: reply_push.unwrap_or_default(),
            reply_fields: reply_fields.unwrap_or_default(),
        })
        .collect();
    let pushes: Vec<_> = push
        .into_iter()
        .map(|tree::Push { event, name, fields }| DeclaredPush {
            event: event.unwrap_or_default(),
            name: name.unwrap_or_default(),
            fields: fields.unwrap_or_default(),
        })
        .collect();
    Aliases::new(&aliases, &pushes).unwrap_or_else(|wrong| {
        problems.extend(wrong.into_iter().map(|Wrong { list, row, key, what }| {
            let row = &effective.rows(list)[row];
            let path = format!("{list}.{key}");
            // What is not written is wrong where the row begins.
            let origin = row.entry(&path).map_or(&row.origin, |entry| &entry.origin);
            Problem::new(origin, format!("{path} cannot be taken: {what}"))
        }));
        Aliases::default()
    })
}

fn keys(tree: &Tree, rules: &Rules) -> KeySettings {
    let (jwt, claims) = (&tree.jwt, &tree.claims);
    let list = |text: &str| items(text).map(Box::from).collect();
    let patterns = |text: &str| Some(items(text).filter_map(|item| Pattern::parse(item).ok()).collect());
    let anonymous = Anonymous {
        tenant: tree.anonymous.tenant.as_str().into(),
        role: tree.anonymous.role.as_str().into(),
        join: patterns(&tree.anonymous.join),
        publish: patterns(&tree.anonymous.publish),
    };
    let tokens = TokenSettings {
        leeway_s: jwt.leeway_s,
        issuers: list(&jwt.issuers),
        audiences: list(&jwt.audiences),
        header_types: list(&jwt.header_types),
        types: list(&jwt.types),
        expiry_required: jwt.expiry == "required",
        expiring: Duration::from_millis(jwt.expiring_ms),
        claims: ClaimPaths {
            user: claims.user.as_str().into(),
            tenant: claims.tenant.as_str().into(),
            roles: claims.roles.as_str().into(),
            name: claims.name.as_str().into(),
            device: claims.device.as_str().into(),
            kind: claims.kind.as_str().into(),
            join: claims.join.as_str().into(),
            publish: claims.publish.as_str().into(),
        },
        compared: rules.claims(),
        anonymous: (tree.anonymous.access == "allowed").then_some(anonymous),
    };
    let public_key = |path: &String| {
        let material = Material::PemFile(path.into());
        NamedKey { material, id: None, issuer: None, algorithms: None }
    };
    let issuer = Some(&jwt.jwks_issuer).filter(|issuer| !issuer.is_empty());
    let source = |place| Source { place, issuer: issuer.cloned(), algorithms: None };
    let file = given(&jwt.jwks_file).map(|path| Place::File(path.into()));
    let url = given(&jwt.jwks_url).and_then(|url| Place::url(url).ok());
    KeySettings {
        tokens,
        secret_algorithms: items(&jwt.secret_algorithms).filter_map(|name| name.parse().ok()).collect(),
        keys: given(&jwt.public_key_file).map(public_key).into_iter().collect(),
        sources: file.into_iter().chain(url).map(source).collect(),
        refresh: Duration::from_millis(jwt.refresh_ms),
        refresh_min: Duration::from_millis(jwt.refresh_min_ms),
    }
}

fn given(text: &String) -> Option<&String> {
    Some(text).filter(|text| !text.is_empty())
}

fn tuning(turn: &tree::Turn, sockets: &tree::Sockets) -> Tuning {
    Tuning {
        busy_poll: Duration::from_micros(turn.busy_poll_us),
        reads_per_turn: turn.reads_per_turn as usize,
        writes_per_turn: turn.writes_per_turn as usize,
        crowd_writes_per_turn: turn.crowd_writes_per_turn as usize,
        read_bytes_per_turn: turn.read_bytes as usize,
        coalesce: Duration::from_micros(turn.coalesce_us),
        sockets: self::sockets(sockets),
    }
}

fn sockets(sockets: &tree::Sockets) -> SocketOptions {
    SocketOptions {
        backlog: sockets.backlog as i32,
        notsent_lowat: sockets.notsent_lowat_bytes as u32,
        nodelay: sockets.nodelay,
        send_buffer_bytes: sockets.send_buffer_bytes.map(|bytes| bytes as usize),
        receive_buffer_bytes: sockets.receive_buffer_bytes.map(|bytes| bytes as usize),
    }
}

/// One shard per CPU; of four or more one is left for everything else.
fn shards_for(cpus: usize) -> usize {
    match cpus {
        0 => 1,
        1..=3 => cpus,
        _ => (cpus - 1).min(SHARDS_MAX),
    }
}

/// Names such as `localhost` are looked up once, at the start.
fn address(effective: &Effective, path: &str, text: &str, problems: &mut Vec<Problem>) -> Option<SocketAddr> {
    let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    if found.is_none() {
        let what = format!(
            "{path} is {}, whose host is not found; write its address, such as \"127.0.0.1:3001\"",
            Quoted(text)
        );
        problems.push(Problem::new(effective.origin(path), what));
    }
    found
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_cpus_leave_one_over() {
        assert_eq!([0, 1, 2, 3, 4, 8, 1_000].map(shards_for), [1, 1, 2, 3, 3, 7, SHARDS_MAX]);
    }
}
