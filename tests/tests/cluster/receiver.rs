//! A webhook of a user's own: it checks each message's signature as docs/notifications.md says, and keeps it.

use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tests::release::{RECEIVER_PORT, SIGNING_KEY};

use crate::scene::READY_LIMIT;

/// A running receiver; it ends with this value.
pub(crate) struct Receiver {
    received: Arc<Received>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Received {
    messages: Mutex<Vec<Value>>,
    changed: Condvar,
}

impl Receiver {
    /// Listens where the installation's receiver sends to.
    pub(crate) fn listen() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let received = Arc::<Received>::default();
        let router = Router::new().route("/", post(receive)).with_state(received.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("0.0.0.0", RECEIVER_PORT))).unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { received, _runtime: runtime }
    }

    /// All messages in the order in which they came, once one with this reason is among them.
    pub(crate) fn messages_until(&self, reason: &str) -> Vec<Value> {
        let messages = self.received.messages.lock().unwrap();
        let is_missing =
            |messages: &mut Vec<Value>| messages.iter().all(|message| message["reason"] != reason);
        let (messages, timeout) =
            self.received.changed.wait_timeout_while(messages, READY_LIMIT, is_missing).unwrap();
        assert!(!timeout.timed_out(), "no message with the reason {reason} came: {messages:#?}");
        messages.clone()
    }
}

async fn receive(State(received): State<Arc<Received>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if !is_signed(&headers, &body) {
        return StatusCode::FORBIDDEN;
    }
    received.messages.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
    received.changed.notify_all();
    StatusCode::NO_CONTENT
}

fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut mac = Hmac::<Sha256>::new_from_slice(SIGNING_KEY.as_bytes()).unwrap();
    mac.update(format!("{}.", text("x-inferno-timestamp")).as_bytes());
    mac.update(body);
    let mut expected = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        write!(expected, "{byte:02x}").unwrap();
    }
    text("x-inferno-signature") == expected
}
