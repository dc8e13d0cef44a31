//! What is noted of one request: its lease, its times, how it ended. Counted once, when it is dropped; a request that is
//! dropped before it ended was left by its client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hyper::{HeaderMap, Response, StatusCode};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::app::{App, Arm};
use super::draw::part::{Part, Times, Told};
use super::draw::tally::Ended;
use super::endpoints::Lease;
use super::shadow::Ear;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client left.
    Left,
    /// With an answer of this status.
    Answered(StatusCode),
    /// Cut after its answer had begun.
    Broken,
}

/// The account of one request.
pub struct Account {
    app: Arc<App>,
    arrived: Instant,
    model: String,
    served: Option<Served>,
    ear: Option<Box<Ear>>,
    measured: Option<Box<Measured>>,
    status: StatusCode,
    end: End,
    _in_flight: TaskTrackerToken,
}

/// What is noted beside that of a request that takes part in flags or experiments.
struct Measured {
    part: Part,
    is_stream: bool,
    /// Its client has asked before.
    is_retry: bool,
    told: Told,
    first: Option<Instant>,
    ended: Option<Instant>,
}

/// By whom.
struct Served {
    arm: Arc<Arm>,
    lease: Lease,
    sent: Instant,
    has_begun: bool,
}

impl Account {
    /// Of a request that arrived now.
    pub fn open(app: &Arc<App>) -> Self {
        Self {
            arrived: Instant::now(),
            model: String::new(),
            served: None,
            ear: None,
            measured: None,
            status: StatusCode::OK,
            end: End::Left,
            _in_flight: app.lifecycle.enter(),
            app: app.clone(),
        }
    }

    /// When it arrived.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// It is for this model; without, it counts for none.
    pub fn is_for(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    /// It takes part in flags or experiments. A client's own retries do so too, but do not count.
    pub fn takes_part(&mut self, part: Part, is_stream: bool, is_retry: bool) {
        let told = Told::default();
        self.measured =
            Some(Box::new(Measured { part, is_stream, is_retry, told, first: None, ended: None }));
    }

    /// Says in the head of the response in what it takes part.
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some(measured) = &self.measured {
            measured.part.mark(headers, self.answering());
        }
    }

    /// The model that answers, once one does.
    fn answering(&self) -> Option<&str> {
        self.served.as_ref().map(|served| served.arm.model.as_str())
    }

    /// The head of a pod's answer.
    pub fn is_told(&mut self, headers: &HeaderMap) {
        if let Some(measured) = &mut self.measured {
            measured.told.head(headers);
        }
    }

    /// A pod answers, and the client sees this status.
    pub fn is_answered_by(&mut self, arm: Arc<Arm>, mut lease: Lease, sent: Instant, status: StatusCode) {
        lease.answered(Instant::now());
        self.served = Some(Served { arm, lease, sent, has_begun: false });
        self.status = status;
    }

    /// What the client gets is to be compared.
    pub fn is_heard_by(&mut self, ear: Option<Box<Ear>>) {
        self.ear = ear.or(self.ear.take());
    }

    /// The client gets this.
    pub fn passes(&mut self, data: &[u8]) {
        if let Some(ear) = &mut self.ear {
            ear.hear(data);
        }
        if let Some(measured) = &mut self.measured {
            measured.told.feed(data);
        }
    }

    /// Content has come from the pod. Cheap after the first time.
    pub fn has_content(&mut self) {
        let Some(served) = self.served.as_mut().filter(|served| !served.has_begun) else { return };
        served.has_begun = true;
        if let Some(measured) = &mut self.measured {
            measured.first = Some(Instant::now());
        }
        let labels = [served.arm.model.as_str(), served.arm.revision.as_str()];
        self.app.metrics.ttft.with_label_values(&labels).observe(self.arrived.elapsed().as_secs_f64());
    }

    /// The pod was lost; returns which it was. Another may answer.
    pub fn lose(&mut self) -> Option<SocketAddr> {
        let mut served = self.served.take()?;
        served.lease.failed(Instant::now());
        Some(served.lease.address())
    }

    /// The pod's answer is complete. The first time counts.
    pub fn completed(&mut self) {
        if self.end != End::Left {
            return;
        }
        self.end = End::Answered(self.status);
        if let Some(measured) = &mut self.measured {
            measured.ended = Some(Instant::now());
        }
        if let Some(ear) = self.ear.take() {
            ear.end(Some(self.status));
        }
        if let Some(served) = &mut self.served {
            if self.status.is_server_error() {
                served.arm.failures.fetch_add(1, Ordering::Relaxed);
            }
            served.lease.succeeded(Instant::now(), served.sent.elapsed());
        }
    }

    /// The pod's answer broke off.
    pub fn broke(&mut self) {
        self.end = End::Broken;
        if let Some(ear) = self.ear.take() {
            ear.end(None);
        }
        if let Some(served) = &mut self.served {
            served.arm.failures.fetch_add(1, Ordering::Relaxed);
            served.lease.failed(Instant::now());
        }
    }

    /// The gateway itself answers, with this response.
    pub fn told<B>(mut self, mut response: Response<B>) -> Response<B> {
        self.mark(response.headers_mut());
        self.end = End::Answered(response.status());
        response
    }
}

impl Measured {
    fn note(&self, arrived: Instant, end: End, answering: Option<&str>) {
        let first = self.first.filter(|_| self.is_stream);
        let times = Times { arrived, first, ended: self.ended };
        let ended = match end {
            End::Left => Ended::Left,
            End::Answered(status) => times.answered(status, self.told.tokens()),
            End::Broken => Ended::Failed,
        };
        self.part.note(ended, answering);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(measured) = self.measured.as_ref().filter(|measured| !measured.is_retry) {
            measured.note(self.arrived, self.end, self.answering());
        }
        let (model, revision) = match &self.served {
            // A variant's own model may answer.
            Some(served) => (served.arm.model.as_str(), served.arm.revision.as_str()),
            None => (self.model.as_str(), ""),
        };
        let code = match &self.end {
            End::Left => "499",
            End::Answered(status) => status.as_str(),
            End::Broken => "broken",
        };
        self.app.metrics.requests.with_label_values(&[model, revision, code]).inc();
    }
}
