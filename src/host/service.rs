//! The service thread: boots the shards, serves the ops port, waits for signals and drains.
//! Invariant: standard output gets the one `ready` line, and only once clients can connect.

use crate::host::config::{self, Config, Loaded, Sources};
use crate::host::drain::drain;
use crate::host::jwks::{KeyRing, KeySettings};
use crate::host::reload::Reload;
use crate::host::systemd::{Handed, Notifier};
use crate::host::tls::{TlsFiles, TlsKeeper};
use crate::host::{Failed, development, journal, watch};
use crate::io::audit::Teller;
use crate::io::gateway::{Gateway, Secured, Settings, StartFailed};
use crate::io::process;
use crate::kernel::mounts::{SOCKET_IO_PATH, SocketIo};
use crate::kernel::paths::Paths;
use crate::observe::audit::Audit;
use crate::observe::certificates::Certificates;
use crate::observe::collector::Collector;
use crate::observe::ops;
use serde_json::json;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

pub fn run(sources: Sources, loaded: Loaded, paths: Paths, handed: Handed, notifier: Notifier) -> Result<(), Failed> {
    let started = Instant::now();
    match process::raise_descriptors() {
        Ok(limit) => process::widen_descriptors(limit)
            .unwrap_or_else(|error| log::warn!("the table of open files grows while clients come: {error}")),
        Err(error) => log::warn!("the limit on open files stays as it is: {error}"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::failure(format!("the service thread cannot start: {error}")))?;
    let reload = Reload::new(sources, loaded.effective);
    runtime.block_on(serve(loaded.config, paths, reload, handed, Arc::new(notifier), started))
}

async fn serve(
    config: Config,
    mut paths: Paths,
    mut reload: Reload,
    handed: Handed,
    notifier: Arc<Notifier>,
    started: Instant,
) -> Result<(), Failed> {
    // Before anything can be seen from outside, so that no signal finds us unprepared.
    let mut signals = Signals::new().map_err(|error| Failed::failure(format!("signals cannot be taken: {error}")))?;
    let listener = match handed.ops {
        Some(listener) => tokio::net::TcpListener::from_std(listener),
        None => tokio::net::TcpListener::bind(config.ops).await,
    };
    let listener = listener.map_err(|error| {
        Failed::failure(format!("cannot listen on {} for operators: {error}; choose another with --ops", config.ops))
    })?;
    let ops_address = listener.local_addr().map_err(|error| Failed::failure(error.to_string()))?;
    // Kept over reloads, so that tokens which were printed stay good.
    let made_up = development::secret().ok_or_else(|| Failed::failure("the system has no random bytes"))?;
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| Failed::failure("the system has no random bytes"))?;
    let (audit, tellers) = open_audit(&config)?;
    let keys = keys_of(config.keys, &config.secret, config.development, &made_up);
    let ring = KeyRing::open(keys, u64::from_ne_bytes(seed)).await.map_err(Failed::configuration)?;
    let verifier = ring.verifier().map_err(|refused| Failed::configuration(refused.to_string()))?;
    let admits = Arc::new(AtomicBool::new(verifier.admits_anybody()));
    reload.audited(&audit);
    let keys_wanted = Arc::new(Notify::new());
    if let Some(config::SocketIo { settings, namespaces, aliases }) = config.socketio
        && paths.mounts.paths().all(|path| path != SOCKET_IO_PATH)
    {
        // A program that speaks Socket.IO there itself stands in place of the gateway's features.
        let own = SocketIo::of_gateway(namespaces, aliases);
        paths.mounts.socket_io(SOCKET_IO_PATH, settings, own);
    }
    // Both together may be too much.
    paths.check().map_err(Failed::configuration)?;
    let certificates = Certificates::default();
    let (tls, tls_keeper) = tls_of(config.tls, config.tls_listen, handed.tls, &certificates)?;
    let settings = Settings {
        listen: config.listen,
        inherited: handed.data,
        tls,
        cpus: config.cpus,
        shards: config.shards,
        io: config.io,
        tuning: config.tuning,
        handshake_time: config.handshake_time,
        entrance: config.entrance,
        limits: config.limits,
        verifier,
        policy: config.policy,
        paths,
        keys_wanted: {
            let wanted = Arc::clone(&keys_wanted);
            Arc::new(move || wanted.notify_one())
        },
    };
    let gateway = Gateway::start(settings, tellers).map_err(|failed| match failed {
        StartFailed::Driver(_) => Failed::configuration(failed.to_string()),
        _ => Failed::failure(failed.to_string()),
    })?;
    let gateway = Arc::new(gateway);
    // After the shards, whose threads would inherit it.
    if let Err(error) = process::step_back() {
        log::warn!("the service thread keeps the priority of the shards: {error}");
    }
    let told = Arc::clone(&gateway);
    let (key_orders, orders) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(ring.keep(keys_wanted, orders, {
        let admits = Arc::clone(&admits);
        move |verifier| {
            admits.store(verifier.admits_anybody(), Ordering::Relaxed);
            told.set_verifier(verifier) == 0
        }
    }));
    let (tls_orders, orders) = tokio::sync::mpsc::unbounded_channel();
    if let Some(keeper) = tls_keeper {
        tokio::spawn(keeper.keep(Arc::clone(&gateway), orders));
    }
    let draining = Arc::new(AtomicBool::new(false));
    let collector = Arc::new(Collector::new(Arc::clone(&gateway)));
    // Before anybody can ask whether it is ready.
    collector.ask().await;
    tokio::spawn(Arc::clone(&collector).keep());
    tokio::spawn(journal::keep());
    let state = ops::Ops {
        collector,
        started,
        draining: Arc::clone(&draining),
        admits,
        log_left_out: journal::left_out,
        audit: audit.clone(),
        certificates,
    };
    let serving = axum::serve(listener, ops::router(state)).into_future();
    // Ends only with the runtime.
    tokio::spawn(async move { drop(serving.await) });

    tokio::spawn(watch::run(Arc::clone(&gateway), Arc::clone(&notifier), Arc::clone(&draining)));

    let data = gateway.address();
    if config.development {
        // As it was called: `cargo run` calls it by a path that the next terminal can use too.
        let secret = config.secret.as_ref().unwrap_or(&made_up);
        let program = std::env::args_os().next().unwrap_or_else(|| "ringroom".into());
        let welcome = development::welcome(&program.to_string_lossy(), secret, data, ops_address);
        eprint!("{welcome}");
    }
    let (shards, io) = (gateway.shards(), gateway.driver().name());
    audit.note(
        "started",
        json!({"version": env!("CARGO_PKG_VERSION"), "data": data, "ops": ops_address, "shards": shards}),
    );
    let mut out = io::stdout().lock();
    // Nobody may be listening; that is no reason not to serve.
    let secured: Vec<String> = gateway.secured().iter().map(SocketAddr::to_string).collect();
    let tls = if secured.is_empty() { String::new() } else { format!(" tls={}", secured.join(",")) };
    let _ =
        writeln!(out, "ready data={data} ops={ops_address} shards={shards} io={io}{tls}").and_then(|()| out.flush());
    drop(out);
    notifier.ready(&format!("serving on {data}"));

    let mut drain_settings = config.drain;
    let ending = loop {
        match signals.next().await {
            Wish::End(name) => break name,
            Wish::Reload => {
                notifier.reloading();
                let read = reload.read();
                let status = if read.is_some() { "reloaded" } else { "not reloaded, see the log; runs as before" };
                if let Some(config) = read {
                    drain_settings = config.drain;
                    // It ends only with the runtime.
                    let _ = key_orders.send(keys_of(config.keys, &config.secret, config.development, &made_up));
                    gateway.set_limits(&config.limits);
                    let untold = gateway.set_policy(&config.policy);
                    if untold > 0 {
                        log::error!("{untold} shards were too busy to take the policies; send SIGHUP again");
                    }
                    gateway.set_entrance(&config.entrance);
                    if let Some(files) = config.tls {
                        // Nobody follows them where there is no port for TLS.
                        let _ = tls_orders.send(files);
                    }
                }
                notifier.ready(status);
            }
        }
    };
    log::info!("{ending} came: draining");
    audit.note("draining", json!({"signal": ending}));
    draining.store(true, Ordering::Relaxed);
    tokio::select! {
        left = drain(&gateway, drain_settings, &notifier) => {
            audit.note("drained", json!({"left": left}));
            match left {
            Some(0) => log::info!("drained: all connections have gone"),
            Some(left) => log::warn!("drained: {left} connections did not go in time and are cut"),
            None => log::error!("not drained: a shard does not answer"),
            }
        }
        again = signals.end() => {
            log::warn!("{again} came again: leaving at once");
            audit.note("stopped", json!({"signal": again, "outcome": "at once"}));
            audit.close();
            std::process::exit(1);
        }
    }
    let hung = gateway.stop();
    audit.note("stopped", json!({"shards_hung": hung}));
    audit.close();
    match hung {
        0 => Ok(()),
        hung => Err(Failed::failure(format!("{hung} shards did not end; please report it with what they last did"))),
    }
}

/// Ports for TLS with what is served there, and who follows its files.
fn tls_of(
    files: Option<TlsFiles>,
    listen: Vec<SocketAddr>,
    inherited: Vec<TcpListener>,
    certificates: &Certificates,
) -> Result<(Option<Secured>, Option<TlsKeeper>), Failed> {
    let Some(files) = files else {
        return match inherited.is_empty() {
            true => Ok((None, None)),
            false => Err(Failed::configuration(
                "a socket for TLS was handed over and there is no certificate to speak it with; \
                 set tls.certificate_file and tls.key_file",
            )),
        };
    };
    // Judged whether or not somebody is served with it: who names files wants to know.
    let (keeper, served) =
        TlsKeeper::open(files, certificates).map_err(|refused| Failed::configuration(refused.to_string()))?;
    if listen.is_empty() && inherited.is_empty() {
        certificates.known().expiries = Arc::default();
        return Ok((None, None));
    }
    Ok((Some(Secured { listen, inherited, served }), Some(keeper)))
}

/// The audit log and each shard's end of it, if one is kept.
fn open_audit(config: &Config) -> Result<(Audit, Vec<Teller>), Failed> {
    let Some(path) = &config.audit_file else { return Ok((Audit::default(), Vec::new())) };
    Audit::open(path.clone(), config.shards).map_err(|error| {
        let path = path.display();
        Failed::configuration(format!(
            "the audit log {path} cannot be opened: {error}; let this user write there, or change audit.file"
        ))
    })
}

/// What checks tokens, the shared secret among it. `made_up`: the secret of development mode where
/// none is configured.
fn keys_of(keys: KeySettings, secret: &Option<Vec<u8>>, development: bool, made_up: &[u8]) -> KeySettings {
    match secret {
        Some(secret) => keys.with_secret(secret),
        None if development => keys.with_secret(made_up),
        None => keys,
    }
}

/// What a signal asks for.
enum Wish {
    /// The signal's name.
    End(&'static str),
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        poll_fn(|context| {
            if self.terminate.poll_recv(context).is_ready() {
                return Poll::Ready(Wish::End("SIGTERM"));
            }
            if self.interrupt.poll_recv(context).is_ready() {
                return Poll::Ready(Wish::End("SIGINT"));
            }
            self.hang_up.poll_recv(context).map(|_| Wish::Reload)
        })
        .await
    }

    /// The next that ends the process.
    async fn end(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Wish::End(name) => return name,
                Wish::Reload => log::warn!("not reloaded: the gateway is going away"),
            }
        }
    }
}
