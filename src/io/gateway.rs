//! The shards of a process: starts one thread for each and speaks to them.
//! Invariant: either all shards run or none is left running, and a shard that panics takes the
//! process with it: half a server would lose messages in silence.

use crate::admission::policy::Policy;
use crate::admission::revocations::Revocation;
use crate::admission::token::Verifier;
use crate::base::limits::{REVOCATIONS_PER_ORDER_MAX, SHARDS_MAX};
use crate::features;
use crate::io::audit::Teller;
use crate::io::bell::Bell;
use crate::io::callers::Callers;
use crate::io::clock::{Clock, Origin};
use crate::io::control::{Control, Controls, Door, door};
use crate::io::counters::Report;
use crate::io::crowd::Crowd;
use crate::io::edge::{Edge, KeysWanted, Parts};
use crate::io::entrance::Entrance;
use crate::io::lanes::{Lanes, weave};
use crate::io::process::Descriptors;
use crate::io::pulse::{Pulses, Silent};
use crate::io::readiness::Readiness;
use crate::io::runtime::{self, Choice, Driver};
use crate::io::socket::{self, SocketOptions};
use crate::io::tls::Served;
use crate::io::tuning::Tuning;
use crate::io::users::Users;
use crate::io::{arrivals, flusher, inherited, listener, polling, process, reader, tick};
use crate::kernel::Limits;
use crate::kernel::ids::ShardId;
use crate::kernel::mail::Mail;
use crate::kernel::paths::Paths;
use crate::kernel::placement::Placement;
use crate::shard::{DrainPace, Shard, ShardConfig};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a shard may take to end, and how often to look whether it has.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
const STOP_LOOK: Duration = Duration::from_millis(1);

pub struct Settings {
    /// Port 0 picks a free one. Not looked at where listeners are `inherited`.
    pub listen: SocketAddr,
    /// Listeners that are open already.
    pub inherited: Vec<TcpListener>,
    /// Where clients speak TLS, if anywhere.
    pub tls: Option<Secured>,
    /// Shard `i` is bound to `cpus[i % cpus.len()]`; empty: not bound.
    pub cpus: Vec<usize>,
    pub shards: usize,
    pub io: Choice,
    /// Has passed [`Tuning::check`].
    pub tuning: Tuning,
    pub handshake_time: Duration,
    pub entrance: Arc<Entrance>,
    pub limits: Limits,
    pub verifier: Arc<Verifier>,
    pub policy: Arc<Policy>,
    /// What is served besides the native protocol.
    pub paths: Paths,
    /// Called when a token names a key that is not there.
    pub keys_wanted: KeysWanted,
}

#[cfg(test)]
impl Settings {
    /// Two shards with the native protocol and no key.
    pub fn sample() -> Settings {
        Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            inherited: Vec::new(),
            tls: None,
            cpus: Vec::new(),
            shards: 2,
            io: Choice::Epoll,
            tuning: Tuning::default(),
            handshake_time: Duration::from_secs(60),
            entrance: Arc::default(),
            limits: Limits::default(),
            verifier: Arc::default(),
            policy: Arc::default(),
            paths: Paths::default(),
            keys_wanted: Arc::new(|| {}),
        }
    }
}

/// Ports for TLS.
pub struct Secured {
    /// Not looked at where listeners are `inherited`.
    pub listen: Vec<SocketAddr>,
    pub inherited: Vec<TcpListener>,
    pub served: Served,
}

/// Why the gateway does not run.
#[derive(Debug)]
pub enum StartFailed {
    /// The configuration asks for what this machine does not allow.
    Driver(runtime::Refused),
    /// The address is taken or not ours.
    Listen {
        address: SocketAddr,
        /// What says where to listen.
        by: &'static str,
        error: io::Error,
    },
    Thread {
        shard: usize,
        error: io::Error,
    },
}

impl std::fmt::Display for StartFailed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartFailed::Driver(refused) => write!(out, "{}", refused.message),
            StartFailed::Listen { address, by, error } => {
                write!(out, "cannot listen on {address}: {error}; choose another with {by}")
            }
            StartFailed::Thread { shard, error } => write!(out, "shard {shard} cannot start: {error}"),
        }
    }
}

pub struct Gateway {
    address: SocketAddr,
    /// For TLS.
    secured: Vec<SocketAddr>,
    driver: Driver,
    doors: Arc<[Door]>,
    draining: Arc<AtomicBool>,
    pulses: Arc<Pulses>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Gateway {
    /// Listens and serves on threads of its own; returns once all shards take connections. `audit`:
    /// one end for each shard, or none.
    pub fn start(mut settings: Settings, audit: Vec<Teller>) -> Result<Gateway, StartFailed> {
        let shards = settings.shards;
        assert!((1..=SHARDS_MAX).contains(&shards), "the configuration bounds the shards");
        assert_eq!(settings.tuning.check(), Ok(()), "the configuration keeps the tuning within bounds");
        let (driver, line) = runtime::probe(settings.io).map_err(StartFailed::Driver)?;
        if let Some(line) = line {
            log::warn!("{line}");
        }
        let listen_failed = |error| StartFailed::Listen { address: settings.listen, by: "--listen", error };
        let (inherited, sockets) = (std::mem::take(&mut settings.inherited), &settings.tuning.sockets);
        let listeners = match inherited.is_empty() {
            true => listen(settings.listen, shards, sockets),
            false => inherited::deal(inherited, shards, sockets),
        };
        let listeners = listeners.map_err(listen_failed)?;
        let address = listeners[0][0].local_addr().map_err(listen_failed)?;
        let mut listeners: Vec<Vec<(TcpListener, bool)>> = listeners.into_iter().map(|own| named(own, false)).collect();
        let mut secured = Vec::new();
        if let Some(tls) = &mut settings.tls {
            for own in listen_secured(tls, shards, sockets)? {
                secured.extend(own.iter().flatten().next().and_then(|listener| listener.local_addr().ok()));
                listeners.iter_mut().zip(own).for_each(|(all, own)| all.extend(named(own, true)));
            }
        }
        let bell = |shard| Bell::new().map(Arc::new).map_err(|error| StartFailed::Thread { shard, error });
        let bells = (0..shards).map(bell).collect::<Result<Vec<_>, _>>()?;
        let (doors, controls): (Vec<Door>, Vec<Controls>) = bells.iter().map(|bell| door(Arc::clone(bell))).unzip();
        let cpus = match settings.cpus.is_empty() {
            false => settings.cpus.clone(),
            // Where the system does not say, there are enough.
            true => process::allowed_cpus().unwrap_or_else(|_| (0..shards).collect()),
        };
        let clock = Origin::now();
        let mut tellers = audit.into_iter();
        let common = Common {
            driver,
            sharers: sharers(shards, cpus),
            settings,
            doors: doors.into(),
            draining: Arc::default(),
            crowd: Crowd::default(),
            pulses: Arc::new(Pulses::new(clock.clone(), shards)),
            callers: Arc::new(Callers::new([random_u64()?, random_u64()?])),
            users: Arc::new(Users::new([random_u64()?, random_u64()?])),
            descriptors: Descriptors::of_this_process(shards).unwrap_or(Descriptors::of(u64::MAX, shards)),
            clock,
            origin: random_u64()? as u32 & 0xff_ffff,
            map_key: [random_u64()?, random_u64()?],
        };
        let doors = Arc::clone(&common.doors);
        let (draining, pulses) = (Arc::clone(&common.draining), Arc::clone(&common.pulses));
        let gateway = Gateway { address, secured, driver, doors, draining, pulses, threads: Mutex::default() };
        let common = Arc::new(common);
        let lanes = weave(shards, common.settings.limits.lane_entries as usize);
        let (started, starting) = mpsc::channel();
        for (index, (((lanes, listeners), controls), bell)) in
            lanes.into_iter().zip(listeners).zip(controls).zip(bells).enumerate()
        {
            let audit = tellers.next().unwrap_or_default();
            let started = started.clone();
            let own = Own { index, seed: random_u64()?, lanes, listeners, controls, audit, bell, started };
            let common = Arc::clone(&common);
            let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(move || run_or_exit(&common, own));
            match thread {
                Ok(thread) => gateway.threads().push(thread),
                Err(error) => return gateway.give_up(StartFailed::Thread { shard: index, error }),
            }
        }
        drop(started);
        for _ in 0..shards {
            match starting.recv() {
                Ok((_, Ok(()))) => {}
                Ok((shard, Err(error))) => return gateway.give_up(StartFailed::Thread { shard, error }),
                Err(_) => unreachable!("every shard says how it started, or ends the process"),
            }
        }
        Ok(gateway)
    }

    fn give_up(self, failed: StartFailed) -> Result<Gateway, StartFailed> {
        self.stop();
        Err(failed)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for TLS.
    pub fn secured(&self) -> &[SocketAddr] {
        &self.secured
    }

    pub fn driver(&self) -> Driver {
        self.driver
    }

    pub fn shards(&self) -> usize {
        self.doors.len()
    }

    /// Takes no new connections and has the core send the old ones back.
    pub fn drain(&self, pace: DrainPace) {
        // Before the first is sent back: who comes again at once must not be taken in by a shard that was not
        // told yet, only to be sent back by it as well.
        self.draining.store(true, Ordering::Release);
        self.tell_all(|| Control::Drain(pace));
    }

    /// The shards that have done nothing for longer than `bound`; an idle one looks at the time at
    /// least once a second. Asks none of them, and so does not wait for one that hangs.
    pub fn silent(&self, bound: Duration) -> Vec<Silent> {
        self.pulses.silent(bound)
    }

    /// Has all shards check tokens with `verifier` from now on. Gives back how many could not be
    /// told and go on with what they have.
    pub fn set_verifier(&self, verifier: &Arc<Verifier>) -> usize {
        self.tell_all(|| Control::Verifier(Arc::clone(verifier)))
    }

    /// Has all shards decide by `policy` from now on; who is in a room stays. Gives back how many could
    /// not be told and go on with what they have.
    pub fn set_policy(&self, policy: &Arc<Policy>) -> usize {
        self.tell_all(|| Control::Policy(Arc::clone(policy)))
    }

    /// Closes what lives on these tokens, on all shards, and refuses them from now on. Gives back
    /// how many shards could not be told: the order stands with the others and is to be repeated.
    /// At most `REVOCATIONS_PER_ORDER_MAX` at once.
    pub fn revoke(&self, revocations: Vec<Revocation>) -> usize {
        assert!(revocations.len() <= REVOCATIONS_PER_ORDER_MAX, "whoever takes orders bounds them");
        let revocations: Arc<[Revocation]> = revocations.into();
        self.tell_all(|| Control::Revoke(Arc::clone(&revocations)))
    }

    /// Has all shards keep to `limits` from now on; who is connected stays.
    pub fn set_limits(&self, limits: &Limits) {
        self.tell_all(|| Control::Limits(Box::new(limits.clone())));
    }

    /// Has all shards let in by `entrance` from now on; who is connected stays.
    pub fn set_entrance(&self, entrance: &Arc<Entrance>) {
        self.tell_all(|| Control::Entrance(Arc::clone(entrance)));
    }

    /// Has all shards speak TLS with `served` to those that come from now on. Gives back how many could not be
    /// told and go on with what they have.
    pub fn set_tls(&self, served: &Served) -> usize {
        self.tell_all(|| Control::Tls(served.clone()))
    }

    /// Has every shard report, each with one call of `reply` on its own thread. A shard that has
    /// ended or has too much waiting drops its copy instead.
    pub fn report(&self, reply: impl Fn(Report) + Clone + Send + 'static) {
        for door in self.doors.iter() {
            // Never waits: whoever looks at a shard that hangs must not hang with it.
            let _ = door.try_leave(Control::Report(Box::new(reply.clone())));
        }
    }

    /// Ends the shards, and with them what is still open. Returns how many did not end: those hang,
    /// and only the end of the process ends them.
    pub fn stop(&self) -> usize {
        let mut threads = std::mem::take(&mut *self.threads());
        if threads.is_empty() {
            return 0;
        }
        self.tell_all(|| Control::Stop);
        let until = Instant::now() + STOP_PATIENCE;
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
            thread::sleep(STOP_LOOK);
        }
        threads.retain(|thread| !thread.is_finished());
        for thread in &threads {
            log::error!("{} does not end", thread.thread().name().unwrap_or("a shard"));
        }
        threads.len()
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back how many were not told: a shard that has ended needs no telling, and one that
    /// hangs cannot be told.
    fn tell_all(&self, control: impl Fn() -> Control) -> usize {
        self.doors.iter().filter(|door| door.leave(control()).is_err()).count()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What all shards are given.
struct Common {
    driver: Driver,
    sharers: usize,
    settings: Settings,
    doors: Arc<[Door]>,
    draining: Arc<AtomicBool>,
    crowd: Crowd,
    pulses: Arc<Pulses>,
    callers: Arc<Callers>,
    users: Arc<Users>,
    descriptors: Descriptors,
    clock: Origin,
    origin: u32,
    map_key: [u64; 2],
}

/// What one shard is given.
struct Own {
    index: usize,
    seed: u64,
    lanes: Lanes<Mail>,
    /// With whether TLS is spoken there.
    listeners: Vec<(TcpListener, bool)>,
    controls: Controls,
    audit: Teller,
    bell: Arc<Bell>,
    started: mpsc::Sender<(usize, io::Result<()>)>,
}

fn run_or_exit(common: &Common, own: Own) {
    let index = own.index;
    let started = own.started.clone();
    match catch_unwind(AssertUnwindSafe(|| run(common, own))) {
        Ok(Ok(())) => {}
        // Before the start is confirmed somebody listens to this; afterwards it is the end.
        Ok(Err(error)) if started.send((index, Err(io::Error::from(error.kind())))).is_ok() => {
            log::error!("shard {index}: {error}");
        }
        Ok(Err(error)) => {
            log::error!("shard {index} cannot go on: {error}; the process ends");
            std::process::exit(1);
        }
        Err(_) => {
            log::error!("shard {index} has panicked; the process ends, since half a server would lose messages");
            std::process::exit(1);
        }
    }
}

fn run(common: &Common, own: Own) -> io::Result<()> {
    let settings = &common.settings;
    if !settings.cpus.is_empty() {
        let cpu = settings.cpus[own.index % settings.cpus.len()];
        if let Err(error) = process::pin(cpu) {
            log::warn!("shard {} is not bound to CPU {cpu}: {error}", own.index);
        }
    }
    runtime::block_on(common.driver, serve(common, own))?
}

/// One shard from its first turn to its last.
async fn serve(common: &Common, own: Own) -> io::Result<()> {
    let settings = &common.settings;
    let id = ShardId(own.index as u8);
    let clock = Clock::new(common.clock.clone());
    let config = ShardConfig {
        id,
        shards: settings.shards as u8,
        origin: common.origin,
        seed: own.seed,
        map_key: common.map_key,
        limits: settings.limits.clone(),
    };
    let edge = Edge::new(Parts {
        id,
        driver: common.driver,
        shard: Shard::new(config, features::all(), clock.now()).with_paths(&settings.paths),
        clock,
        placement: Placement::new(settings.shards as u8),
        doors: Arc::clone(&common.doors),
        draining: Arc::clone(&common.draining),
        crowd: common.crowd.clone(),
        callers: Arc::clone(&common.callers),
        users: Arc::clone(&common.users),
        entrance: Arc::clone(&settings.entrance),
        tls: settings.tls.as_ref().map(|tls| tls.served.clone()),
        descriptors: common.descriptors,
        verifier: Arc::clone(&settings.verifier),
        policy: Arc::clone(&settings.policy),
        keys_wanted: Arc::clone(&settings.keys_wanted),
        handshake_time: settings.handshake_time,
        controls: own.controls,
        pulses: Arc::clone(&common.pulses),
        readiness: Readiness::new(settings.tuning.reads_per_turn)?,
        tuning: settings.tuning.clone(),
        sharers: common.sharers,
        lanes: own.lanes,
        audit: own.audit,
    });
    // A task of the shard that fails ends the shard, and with it the process: see `run_or_exit`.
    let (edge_of_turn, edge_of_bell) = (Rc::clone(&edge), Rc::clone(&edge));
    essential(async move { edge_of_turn.turn.keep(edge_of_turn.driver).await });
    essential(async move { arrivals::run(edge_of_bell, &own.bell).await });
    for (listener, is_secured) in own.listeners {
        essential(listener::run(Rc::clone(&edge), listener, is_secured));
    }
    essential(reader::watch(Rc::clone(&edge)));
    monoio::spawn(reader::run(Rc::clone(&edge)));
    monoio::spawn(flusher::run(Rc::clone(&edge)));
    monoio::spawn(flusher::release(Rc::clone(&edge)));
    monoio::spawn(polling::run(Rc::clone(&edge)));
    monoio::spawn(tick::run(Rc::clone(&edge)));
    let _ = own.started.send((own.index, Ok(())));
    drop(own.started);
    edge.run().await;
    Ok(())
}

/// How many of `shards` run on one processor, at most.
fn sharers(shards: usize, mut cpus: Vec<usize>) -> usize {
    cpus.sort_unstable();
    cpus.dedup();
    shards.div_ceil(cpus.len().max(1))
}

/// Spawns a task without which the shard is worth nothing.
fn essential(task: impl Future<Output = io::Result<()>> + 'static) {
    monoio::spawn(async move {
        if let Err(error) = task.await {
            panic!("the driver fails: {error}");
        }
    });
}

/// One listener per shard on one port.
fn listen(address: SocketAddr, shards: usize, options: &SocketOptions) -> io::Result<Vec<Vec<TcpListener>>> {
    // Listeners with SO_REUSEPORT share a port with any other process of this user. A second
    // gateway by mistake must fail, not take every other connection: a listener that shares
    // nothing finds out.
    drop(socket2_probe(address)?);
    let first = socket::listen(address, options)?;
    let address = first.local_addr()?;
    let rest = (1..shards).map(|_| socket::listen(address, options));
    std::iter::once(Ok(first)).chain(rest).map(|listener| Ok(vec![listener?])).collect()
}

/// The listeners of each port for TLS, by shard.
fn listen_secured(
    tls: &mut Secured,
    shards: usize,
    options: &SocketOptions,
) -> Result<Vec<Vec<Vec<TcpListener>>>, StartFailed> {
    const BY: &str = "tls.listen";
    if tls.inherited.is_empty() {
        let listen = |address: &SocketAddr| {
            let failed = |error| StartFailed::Listen { address: *address, by: BY, error };
            listen(*address, shards, options).map_err(failed)
        };
        return tls.listen.iter().map(listen).collect();
    }
    // What is dealt out together is told apart by nobody, and so by its first address.
    let dealt = inherited::deal(std::mem::take(&mut tls.inherited), shards, options);
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    Ok(vec![dealt.map_err(|error| StartFailed::Listen { address, by: BY, error })?])
}

fn named(listeners: Vec<TcpListener>, is_secured: bool) -> Vec<(TcpListener, bool)> {
    listeners.into_iter().map(|listener| (listener, is_secured)).collect()
}

fn socket2_probe(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    Ok(socket)
}

fn random_u64() -> Result<u64, StartFailed> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StartFailed::Thread { shard: 0, error: io::Error::other("the system has no random bytes") })?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn shards_share_a_processor_only_where_there_are_too_few() {
        assert_eq!(sharers(2, vec![0, 1]), 1);
        assert_eq!(sharers(2, vec![3]), 2);
        assert_eq!(sharers(3, vec![4, 5, 4]), 2, "a processor named twice is one");
        assert_eq!(sharers(1, vec![0, 1, 2]), 1);
    }

    #[test]
    fn a_drain_is_known_to_all_shards_before_the_first_is_told() {
        const COME: u64 = 8;
        let gateway = Gateway::start(Settings::sample(), Vec::new()).unwrap_or_else(|failed| panic!("{failed}"));
        let come: Vec<_> = (0..COME).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
        let taken = || {
            let (sender, reports) = mpsc::channel();
            gateway.report(move |report| sender.send(report.edge.handshakes_now).expect("somebody listens"));
            reports.iter().sum::<u64>()
        };
        let all_are_in = (0..60_000).any(|_| {
            thread::sleep(Duration::from_millis(1));
            taken() == COME
        });
        assert!(all_are_in, "{} of {COME}", taken());
        gateway.drain(DrainPace { conns_per_s: 1_000, over: Duration::ZERO, retry: Duration::ZERO });
        for mut socket in come {
            let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
            let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
            write!(socket, "GET /ws HTTP/1.1\r\nHost: h\r\n{upgrade}\r\n{key}\r\n\r\n").unwrap();
            let mut answer = [0; 12];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 503");
        }
    }

    #[test]
    fn a_shard_that_hangs_does_not_hang_the_process() {
        let (door, controls) = door(Arc::new(Bell::new().unwrap()));
        let (release, hang) = mpsc::channel::<()>();
        let hanging = thread::spawn(move || {
            let _ = hang.recv();
            drop(controls);
        });
        let threads = Mutex::new(vec![thread::spawn(|| {}), hanging]);
        let address = "127.0.0.1:1".parse().unwrap();
        let pulses = Arc::new(Pulses::new(Origin::now(), 1));
        let gateway = Gateway {
            address,
            secured: Vec::new(),
            driver: Driver::Epoll,
            doors: Arc::new([door]),
            draining: Arc::default(),
            pulses,
            threads,
        };
        assert_eq!(gateway.stop(), 1);
        assert_eq!(gateway.stop(), 0, "nobody is waited for twice");
        release.send(()).unwrap();
    }
}
