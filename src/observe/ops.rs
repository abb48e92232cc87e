//! The ops port: plain HTTP on the service thread, for operators and their tools.
//! Invariant: nothing here waits for a shard longer than its patience, and nothing changes one.

use crate::io::process;
use crate::observe::audit::Audit;
use crate::observe::certificates::Certificates;
use crate::observe::collector::{Collector, Seen};
use crate::observe::exposition::Style;
use crate::observe::metrics::{self, Process};
use crate::observe::readiness::{self, Lack};
use crate::observe::stats;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use log::LevelFilter;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What the routes know.
#[derive(Clone)]
pub struct Ops {
    pub collector: Arc<Collector>,
    pub started: Instant,
    /// Set once the process goes away.
    pub draining: Arc<AtomicBool>,
    /// There is a key to check tokens with, or none is needed.
    pub admits: Arc<AtomicBool>,
    /// Lines that the service log left out.
    pub log_left_out: fn() -> u64,
    pub audit: Audit,
    pub certificates: Certificates,
}

pub fn router(ops: Ops) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/stats", get(statistics))
        .route("/log", get(log_level).put(set_log_level))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(ops)
}

impl Ops {
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn lacks(&self, seen: &Seen) -> Vec<Lack> {
        let mut lacks = readiness::lacks(seen, self.is_draining(), self.admits.load(Ordering::Relaxed));
        if self.certificates.have_expired(SystemTime::now()) {
            lacks.push(Lack::Expired);
        }
        lacks
    }

    fn process(&self, seen: &Seen) -> Process {
        let gateway = self.collector.gateway();
        let usage = process::usage();
        let tls = self.certificates.known();
        let (tls_taken, tls_refused, tls_stale) = (tls.taken, tls.refused, tls.is_stale.into());
        drop(tls);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Process {
            build: vec![(format!("{}_{}", env!("CARGO_PKG_VERSION"), gateway.driver().name()), 1)],
            shards: gateway.shards() as u64,
            silent: seen.silent().len() as u64,
            ready: self.lacks(seen).is_empty().into(),
            draining: self.is_draining().into(),
            log_left_out: (self.log_left_out)(),
            audit_written: self.audit.written(),
            audit_lost: self.audit.lost(),
            tls_ends: self.certificates.ends(),
            tls_taken,
            tls_refused,
            tls_stale,
            // To the second: both clocks are read one after the other.
            started: unix.saturating_sub(self.started.elapsed()).as_secs_f64().round(),
            cpu: usage.cpu.as_secs_f64(),
            resident: usage.resident_bytes,
            files: usage.files,
            files_max: usage.files_max,
        }
    }
}

/// Fails only where a restart helps.
async fn health(State(ops): State<Ops>) -> (StatusCode, Json<Value>) {
    let hung = ops.collector.seen().hung();
    let (status, word) = match (hung.is_empty(), ops.is_draining()) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "hung"),
        (true, true) => (StatusCode::OK, "draining"),
        (true, false) => (StatusCode::OK, "ok"),
    };
    let mut body = json!({
        "status": word,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": ops.started.elapsed().as_millis() as u64,
        "shards": ops.collector.gateway().shards(),
    });
    if !hung.is_empty() {
        body["hung"] = json!(hung);
        body["advice"] = json!(
            "these shards do not answer; restart the process, and report what ringroom_step_longest_seconds and the log last said"
        );
    }
    (status, Json(body))
}

async fn ready(State(ops): State<Ops>) -> (StatusCode, Json<Value>) {
    let lacks = ops.lacks(&ops.collector.seen());
    let status = if lacks.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = readiness::body(&lacks);
    if let Some(tls) = ops.certificates.body(SystemTime::now()) {
        body["tls"] = tls;
    }
    (status, Json(body))
}

async fn metrics(State(ops): State<Ops>, headers: HeaderMap) -> Response {
    let style = Style::wanted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    let seen = ops.collector.ask().await;
    let page = metrics::page(&seen, &ops.process(&seen), style);
    ([(header::CONTENT_TYPE, style.content_type())], page).into_response()
}

async fn statistics(State(ops): State<Ops>) -> Json<Value> {
    let seen = ops.collector.ask().await;
    Json(stats::body(&seen, ops.collector.gateway().driver().name(), ops.started.elapsed()))
}

async fn log_level() -> Json<Value> {
    Json(json!({"level": log::max_level().as_str().to_lowercase()}))
}

/// Holds until the next reload, which brings back what is configured.
async fn set_log_level(RawQuery(query): RawQuery) -> Response {
    let wanted = query.as_deref().and_then(|query| query.strip_prefix("level="));
    let Some(level) = wanted.and_then(|level| level.parse::<LevelFilter>().ok()) else {
        let message = "say which level: PUT /log?level=debug; there are off, error, warn, info, debug, trace";
        return refuse(StatusCode::BAD_REQUEST, "bad_request", message).into_response();
    };
    let before = log::max_level();
    // Told at the level that tells more.
    log::set_max_level(level.max(before));
    let (name, name_before) = (level.as_str().to_lowercase(), before.as_str().to_lowercase());
    log::info!("the level of this log is {name}, was {name_before}, until the next reload: asked for on the ops port");
    log::set_max_level(level);
    log_level().await.into_response()
}

async fn not_found() -> (StatusCode, Json<Value>) {
    let message = "nothing is served at this path; see /health, /ready, /metrics, /stats and /log";
    refuse(StatusCode::NOT_FOUND, "not_found", message)
}

async fn not_allowed() -> (StatusCode, Json<Value>) {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "bad_request", "this path is read with GET; only /log takes PUT")
}

fn refuse(status: StatusCode, code: &str, message: &str) -> (StatusCode, Json<Value>) {
    (status, Json(json!({"error": {"code": code, "message": message}})))
}
