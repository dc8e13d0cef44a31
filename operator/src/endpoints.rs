//! The operator's own HTTP endpoints: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use k8s_openapi::jiff::Timestamp;

use crate::metrics::Metrics;

/// The leader loop turns every 2 s and gives up after 10 s without the API server; if it has not turned for this
/// long, the process hangs.
const HANGS_AFTER_SECONDS: i64 = 30;

/// Signs of life that the parts of the process give. A handle.
#[derive(Clone, Default)]
pub struct Health(Arc<Signs>);

#[derive(Default)]
struct Signs {
    has_seen_api_server: AtomicBool,
    last_turn_second: AtomicI64,
}

impl Health {
    /// The leader loop has turned.
    pub fn turned(&self, now: Timestamp) {
        self.0.last_turn_second.store(now.as_second(), Ordering::Relaxed);
    }

    /// The API server has answered.
    pub fn saw_api_server(&self) {
        self.0.has_seen_api_server.store(true, Ordering::Relaxed);
    }

    fn is_alive(&self, now: Timestamp) -> bool {
        now.as_second() - self.0.last_turn_second.load(Ordering::Relaxed) <= HANGS_AFTER_SECONDS
    }

    fn is_ready(&self) -> bool {
        self.0.has_seen_api_server.load(Ordering::Relaxed)
    }
}

/// The endpoints as a service, for the port and for tests.
pub fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|State((_, metrics)): State<(Health, Metrics)>| async move { metrics.render() }),
        )
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state((health, metrics))
}

async fn healthz(State((health, _)): State<(Health, Metrics)>) -> (StatusCode, &'static str) {
    if health.is_alive(Timestamp::now()) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the leader loop hangs\n")
    }
}

async fn readyz(State((health, _)): State<(Health, Metrics)>) -> (StatusCode, &'static str) {
    if health.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server has not answered yet\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_a_turning_loop_and_readiness_an_api_server() {
        let health = Health::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(!health.is_ready());
        health.saw_api_server();
        assert!(health.is_ready());
        health.turned(at(1_000));
        assert!(health.is_alive(at(1_030)));
        assert!(!health.is_alive(at(1_031)));
    }
}
