//! What every answer carries: the request's id, the revision, the time it took; and, when the process is about to
//! leave, the wish to be asked over a new connection.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::app::App;
use crate::lifecycle::Stage;

/// The request's id, echoed when sane.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Which revision answered.
pub const REVISION: HeaderName = HeaderName::from_static("x-inferno-revision");
/// Urgency: asked for in a request, counted as in an answer under [`QUEUE_TIER`].
pub const PRIORITY: HeaderName = HeaderName::from_static("x-inferno-priority");
/// Whose request it is.
pub const TENANT: HeaderName = HeaderName::from_static("x-inferno-tenant");
/// The tier that the request counted as.
pub const QUEUE_TIER: HeaderName = HeaderName::from_static("x-queue-tier");
/// How long it waited, once it has a slot.
pub const QUEUE_WAIT_MS: HeaderName = HeaderName::from_static("x-queue-wait-ms");
/// How many go first, while it waits.
pub const QUEUE_POSITION: HeaderName = HeaderName::from_static("x-queue-position");
/// Milliseconds to this answer's first byte.
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
/// Tokens of an answer in one piece.
pub const OUTPUT_TOKENS: HeaderName = HeaderName::from_static("x-inferno-output-tokens");
/// Said by our gateway when it keeps figures of the answer: a stream then says in a comment how many tokens it had.
pub const MEASURED: HeaderName = HeaderName::from_static("x-inferno-measured");
/// Which attempt this is, said by our gateway when it asks again; 1 is the first.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-inferno-attempt");
/// How often the official SDKs have tried before.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
/// How long the official SDKs wait for a byte.
pub const READ_TIMEOUT: HeaderName = HeaderName::from_static("x-stainless-read-timeout");

/// Longest id that is echoed.
const ID_BYTES_MAX: usize = 128;

/// Puts the headers on.
pub async fn decorate(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let span =
        tracing::info_span!("request", id = %id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span.clone()).await;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(revision) = app.settings.revision.as_ref().and_then(|name| HeaderValue::from_str(name).ok()) {
        headers.insert(REVISION, revision);
    }
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_MS, HeaderValue::from(took_ms));
    if app.lifecycle.stage() >= Stage::Leaving {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), took_ms, "answered"));
    response
}

/// The id that the client gave, or a new one.
pub fn request_id(headers: &HeaderMap) -> String {
    let inbound = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_sane = |id: &&str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(allowed)
    };
    inbound.filter(is_sane).map_or_else(|| random_id("req-"), str::to_owned)
}

/// Which attempt at its answer a request is, by whichever header says more; what is no number says nothing.
pub fn attempt(headers: &HeaderMap) -> u8 {
    let number = |name| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let by_gateway = number(ATTEMPT).unwrap_or(1);
    let by_client = number(RETRY_COUNT).map_or(1, |retries| retries.saturating_add(1));
    u8::try_from(by_gateway.max(by_client)).unwrap_or(u8::MAX)
}

/// An id that does not come twice.
pub fn random_id(prefix: &str) -> String {
    format!("{prefix}{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(inbound: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_str(inbound).unwrap());
        request_id(&headers)
    }

    #[test]
    fn the_attempt_is_the_larger_of_what_gateway_and_client_say() {
        let check = |by_gateway: Option<&str>, retries: Option<&str>| {
            let said = [(ATTEMPT, by_gateway), (RETRY_COUNT, retries)];
            let said = said.into_iter().filter_map(|(name, value)| Some((name, value?.parse().unwrap())));
            attempt(&said.collect())
        };
        assert_eq!(check(None, None), 1);
        assert_eq!(check(Some("2"), None), 2);
        assert_eq!(check(None, Some("2")), 3);
        assert_eq!(check(Some("4"), Some("1")), 4);
        assert_eq!(check(Some("1"), Some("18446744073709551615")), 255);
        for garbage in ["0", "-3", "two", "", "1.5", "99999999999999999999999"] {
            assert_eq!(check(Some(garbage), Some("x")), 1, "{garbage}");
        }
    }

    #[test]
    fn sane_ids_are_echoed_and_others_replaced() {
        assert_eq!(check("abc.DEF-1_2"), "abc.DEF-1_2");
        for bad in ["", "a b", "a\u{e9}", &"x".repeat(129)] {
            assert!(check(bad).starts_with("req-"), "{bad}");
        }
    }
}
