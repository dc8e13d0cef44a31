//! What a client is told when there is no answer: the only place that knows statuses, types and codes. The body has
//! all four keys of OpenAI's error object.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::generate::Interrupted;
use crate::metrics::Outcome;
use crate::openai::{Complaint, Refusal};
use crate::queue::waiting::RETRY_AFTER_MAX;
use crate::queue::{Expired, Full};

/// When a pod that starts, restarts or drains is worth another try.
const RETRY_SOON: Duration = Duration::from_secs(2);

/// No answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// The request is wrong.
    Refused(Refusal),
    /// The body is longer than [`super::BODY_BYTES_MAX`].
    BodyTooLarge,
    /// The body could not be read to its end.
    BodyUnreadable,
    /// The body did not come in time.
    BodyTooSlow,
    /// No model by this name here.
    ModelNotFound(String),
    /// No such path.
    NoSuchRoute,
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// The queue is full.
    QueueFull {
        /// Which limit was met.
        which: &'static str,
        /// When there will probably be room.
        retry_after: Duration,
    },
    /// It waited too long.
    Expired(Expired),
    /// The model is not loaded yet.
    Loading,
    /// The process is about to end.
    Draining,
    /// The engine was lost.
    EngineLost,
    /// The client did not read its stream.
    ClientTooSlow,
    /// Nobody can answer now, and why. Said by a gateway.
    Unavailable {
        /// Of a closed list.
        code: &'static str,
        /// The cause, for people.
        message: String,
        /// When another try is worth it.
        retry_after: Duration,
    },
    /// As many requests wait for a replica as may. Said by a gateway.
    HoldFull {
        /// Which limit was met, in words.
        which: String,
        /// When there will probably be room.
        retry_after: Duration,
    },
    /// No pod was ready before the deadline. Said by a gateway.
    HeldTooLong,
    /// The pod was lost while it worked on the request. Said by a gateway.
    PodLost,
}

/// The parts of an error that depend on its kind.
struct Parts {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    retry_after: Option<Duration>,
    /// Whether the SDKs should try again, where their own rule would be wrong.
    should_retry: Option<bool>,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        Self::QueueFull { which: full.which.name(), retry_after: full.retry_after }
    }
}

impl From<Interrupted> for ApiError {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Expired(why) => Self::Expired(why),
            Interrupted::EngineLost => Self::EngineLost,
            Interrupted::Rejected(message) => {
                Self::Refused(Refusal { complaint: Complaint::InvalidValue, param: None, message })
            }
            Interrupted::ClientTooSlow => Self::ClientTooSlow,
        }
    }
}

impl ApiError {
    /// The error object.
    pub fn body(&self) -> Value {
        let parts = self.parts();
        let param = match self {
            Self::Refused(refusal) => refusal.param.as_deref(),
            Self::ModelNotFound(_) => Some("model"),
            _ => None,
        };
        json!({"error": {"message": self.message(), "type": parts.kind, "param": param, "code": parts.code}})
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.parts().status
    }

    /// Puts on the headers that tell clients when to try again.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        let parts = self.parts();
        if let Some(retry_after) = parts.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(jittered(retry_after, fastrand::f64())));
        }
        if let Some(should_retry) = parts.should_retry {
            let value = if should_retry { "true" } else { "false" };
            headers.insert("x-should-retry", HeaderValue::from_static(value));
        }
    }

    /// How it is counted.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::QueueFull { .. } | Self::HoldFull { .. } => Outcome::QueueFull,
            Self::Expired(_) | Self::HeldTooLong => Outcome::Expired,
            Self::Loading | Self::Draining | Self::Unavailable { .. } => Outcome::Unavailable,
            Self::EngineLost | Self::PodLost => Outcome::Failed,
            Self::ClientTooSlow => Outcome::Cancelled,
            _ => Outcome::Refused,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.message.clone(),
            Self::BodyTooLarge => format!("the body is longer than {} bytes", super::BODY_BYTES_MAX),
            Self::BodyUnreadable => "the body could not be read".into(),
            Self::BodyTooSlow => "the body did not come in time".into(),
            Self::ModelNotFound(name) => format!("the model '{name}' does not exist here"),
            Self::NoSuchRoute => "there is nothing at this path".into(),
            Self::MethodNotAllowed => "this path does not have this method".into(),
            Self::QueueFull { which, .. } => {
                format!("the queue is full (limit on {which}); try again after the time in retry-after")
            }
            Self::Expired(Expired::Deadline) => {
                "the request's deadline passed while it waited for a free slot".into()
            }
            Self::Expired(Expired::Age) => {
                "the request waited as long as any may and found no free slot".into()
            }
            Self::Loading => "the model is being loaded".into(),
            Self::Draining => "this server is shutting down".into(),
            Self::EngineLost => "the engine was lost while it worked on this request".into(),
            Self::ClientTooSlow => "the answer was not read fast enough".into(),
            Self::Unavailable { message, .. } => message.clone(),
            Self::HoldFull { which, .. } => which.clone(),
            Self::HeldTooLong => "the request's deadline passed while it waited for a replica".into(),
            Self::PodLost => "the pod was lost while it worked on this request".into(),
        }
    }

    fn parts(&self) -> Parts {
        let parts = |status, kind, code| Parts { status, kind, code, retry_after: None, should_retry: None };
        let invalid = |status, code| parts(status, "invalid_request_error", code);
        match self {
            Self::Refused(refusal) => invalid(StatusCode::BAD_REQUEST, complaint_code(refusal.complaint)),
            Self::BodyTooLarge => invalid(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyUnreadable => invalid(StatusCode::BAD_REQUEST, "invalid_body"),
            Self::BodyTooSlow => invalid(StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
            Self::ModelNotFound(_) => invalid(StatusCode::NOT_FOUND, "model_not_found"),
            Self::NoSuchRoute => invalid(StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => invalid(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::QueueFull { retry_after, .. } | Self::HoldFull { retry_after, .. } => Parts {
                retry_after: Some(*retry_after),
                ..parts(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full")
            },
            Self::Expired(_) | Self::HeldTooLong => Parts {
                retry_after: Some(RETRY_SOON),
                should_retry: Some(false),
                ..parts(StatusCode::GATEWAY_TIMEOUT, "server_error", "deadline_exceeded")
            },
            Self::Loading => unavailable("model_loading"),
            Self::Draining => unavailable("draining"),
            Self::EngineLost => unavailable("engine_lost"),
            Self::Unavailable { code, retry_after, .. } => {
                Parts { retry_after: Some(*retry_after), ..unavailable(code) }
            }
            Self::PodLost => unavailable("pod_lost"),
            Self::ClientTooSlow => {
                parts(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "client_too_slow")
            }
        }
    }
}

fn unavailable(code: &'static str) -> Parts {
    Parts {
        status: StatusCode::SERVICE_UNAVAILABLE,
        kind: "server_error",
        code,
        retry_after: Some(RETRY_SOON),
        should_retry: None,
    }
}

const fn complaint_code(complaint: Complaint) -> &'static str {
    match complaint {
        Complaint::InvalidJson => "invalid_json",
        Complaint::MissingParameter => "missing_required_parameter",
        Complaint::InvalidType => "invalid_type",
        Complaint::InvalidValue => "invalid_value",
        Complaint::UnsupportedParameter => "unsupported_parameter",
        Complaint::ContextLengthExceeded => "context_length_exceeded",
        Complaint::InvalidMessages => "invalid_messages",
    }
}

/// Whole seconds, up to a quarter later so that those who are turned away together do not come back together.
fn jittered(retry_after: Duration, jitter: f64) -> u64 {
    let seconds = retry_after.as_secs_f64() * (1.0 + 0.25 * jitter);
    Duration::from_secs_f64(seconds.ceil()).min(RETRY_AFTER_MAX).as_secs()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), axum::Json(self.body())).into_response();
        self.add_headers(response.headers_mut());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_four_keys() {
        for error in [
            ApiError::from(Refusal::unsupported("tools", "no")),
            ApiError::Draining,
            ApiError::ModelNotFound("x".into()),
        ] {
            let body = error.body();
            let keys: Vec<_> = body["error"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["code", "message", "param", "type"]);
        }
    }

    #[test]
    fn retry_after_is_spread_and_bounded() {
        assert_eq!(jittered(Duration::from_secs(8), 0.0), 8);
        assert_eq!(jittered(Duration::from_secs(8), 1.0), 10);
        assert_eq!(jittered(Duration::from_secs(500), 1.0), 120);
    }

    #[test]
    fn a_passed_deadline_is_not_worth_a_retry() {
        let response = ApiError::Expired(Expired::Deadline).into_response();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert!(response.headers().contains_key("retry-after"));
    }
}
