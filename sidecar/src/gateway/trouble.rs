//! What a pod's response means: an answer, or a reason to ask another pod.

use std::sync::Arc;
use std::time::Instant;

use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::http::response::Parts;
use hyper::{Response, StatusCode};

use super::app::Arm;
use super::endpoints::Lease;
use super::pods::PodBody;
use crate::http::ApiError;

/// What a pod says with an error is shorter than this, or it is no error of ours.
pub const ERROR_BYTES_MAX: usize = 64 << 10;

/// A pod's answer.
pub struct Opened {
    /// Its head.
    pub parts: Parts,
    /// Its body.
    pub body: Answer,
    /// The revision that gives it.
    pub arm: Arc<Arm>,
    /// The pod.
    pub lease: Lease,
    /// When the request was sent.
    pub sent: Instant,
}

/// The body of a pod's answer.
pub enum Answer {
    /// As it comes.
    Coming(PodBody),
    /// Read already, because it is about an error.
    Read(Bytes),
}

/// No answer.
pub enum Failure {
    /// In our words.
    Ours(ApiError),
    /// In a pod's.
    Pods(Box<Opened>),
}

/// Why an attempt gave no answer.
pub enum Trouble {
    /// There was no connection: the pod knows nothing of the request.
    Unreached,
    /// The connection broke before the answer's content.
    Reset,
    /// The pod does not take requests.
    NotTaken(Box<Opened>),
    /// The pod lost its engine over it.
    EngineLost(Box<Opened>),
    /// The pod's queue is full.
    Busy(Box<Opened>),
    /// The model that a variant names gave no answer; the client's own is asked as if there were no experiment.
    Detour,
}

// === impl Trouble ===

impl Trouble {
    /// In one word, for figures.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Unreached => "connect",
            Self::Reset => "reset",
            Self::NotTaken(_) => "not_taken",
            Self::EngineLost(_) => "engine_lost",
            Self::Busy(_) => "busy",
            Self::Detour => "detour",
        }
    }

    /// Whether no pod has begun to work on it, so that asking again cannot double work.
    pub fn was_not_taken(&self) -> bool {
        matches!(self, Self::Unreached | Self::NotTaken(_) | Self::Detour)
    }

    /// What the client is told when no other pod is asked.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Unreached | Self::Reset | Self::Detour => Failure::Ours(ApiError::PodLost),
            Self::NotTaken(opened) | Self::EngineLost(opened) | Self::Busy(opened) => Failure::Pods(opened),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Ours(error)
    }
}

/// Whether this is the answer, or another pod should be asked.
pub async fn judge(
    response: Response<PodBody>,
    mut lease: Lease,
    arm: Arc<Arm>,
    sent: Instant,
) -> Result<Opened, Trouble> {
    let (parts, body) = response.into_parts();
    let is_short = body.size_hint().exact().is_some_and(|length| length <= ERROR_BYTES_MAX as u64);
    if !(is_short && speaks_of_pod(parts.status)) {
        return Ok(Opened { parts, body: Answer::Coming(body), arm, lease, sent });
    }
    let Ok(body) = body.collect().await else {
        lease.failed(Instant::now());
        return Err(Trouble::Reset);
    };
    let bytes = body.to_bytes();
    let code = error_code(&bytes);
    let mut opened = Box::new(Opened { parts, body: Answer::Read(bytes), arm, lease, sent });
    match (opened.parts.status, code.as_deref()) {
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            opened.lease.answered(Instant::now());
            Err(Trouble::Busy(opened))
        }
        (_, Some("draining" | "model_loading")) => {
            opened.lease.failed(Instant::now());
            Err(Trouble::NotTaken(opened))
        }
        (_, Some("engine_lost")) => {
            opened.lease.failed(Instant::now());
            Err(Trouble::EngineLost(opened))
        }
        _ => Ok(*opened),
    }
}

/// Statuses by which a pod may say that another one should be asked.
fn speaks_of_pod(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// The code of an error in OpenAI's form.
pub fn error_code(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body.get("error")?.get("code")?.as_str().map(str::to_owned)
}
