//! The ops port: plain HTTP on the service thread, for operators and their tools.
//! Invariant: nothing here waits for a shard longer than its patience, and nothing changes one.

use crate::io::gateway::Gateway;
use crate::observe::stats;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What the routes know.
#[derive(Clone)]
pub struct Ops {
    pub gateway: Arc<Gateway>,
    pub started: Instant,
    /// Set once the process goes away.
    pub draining: Arc<AtomicBool>,
}

pub fn router(ops: Ops) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/stats", get(statistics))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(ops)
}

async fn health(State(ops): State<Ops>) -> Json<Value> {
    let status = if ops.draining.load(Ordering::Relaxed) { "draining" } else { "ok" };
    Json(json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": ops.started.elapsed().as_millis() as u64,
        "shards": ops.gateway.shards(),
    }))
}

async fn statistics(State(ops): State<Ops>) -> Json<Value> {
    let reports = stats::reports(&ops.gateway).await;
    let (shards, driver) = (ops.gateway.shards(), ops.gateway.driver().name());
    Json(stats::body(&reports, shards, driver, ops.started.elapsed()))
}

async fn not_found() -> (StatusCode, Json<Value>) {
    refuse(StatusCode::NOT_FOUND, "not_found", "nothing is served at this path; see /health and /stats")
}

async fn not_allowed() -> (StatusCode, Json<Value>) {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "bad_request", "this path is read with GET")
}

fn refuse(status: StatusCode, code: &str, message: &str) -> (StatusCode, Json<Value>) {
    (status, Json(json!({"error": {"code": code, "message": message}})))
}
