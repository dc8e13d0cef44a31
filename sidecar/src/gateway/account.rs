//! What is noted of one request: its lease, its times, how it ended. Counted once, when it is dropped; a request that is
//! dropped before it ended was left by its client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hyper::{Response, StatusCode};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::app::{App, Arm};
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
    status: StatusCode,
    end: End,
    _in_flight: TaskTrackerToken,
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
    }

    /// Content has come from the pod. Cheap after the first time.
    pub fn has_content(&mut self) {
        let Some(served) = self.served.as_mut().filter(|served| !served.has_begun) else { return };
        served.has_begun = true;
        let labels = [self.model.as_str(), served.arm.revision.as_str()];
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
    pub fn told<B>(mut self, response: Response<B>) -> Response<B> {
        self.end = End::Answered(response.status());
        response
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let revision = self.served.as_ref().map_or("", |served| served.arm.revision.as_str());
        let code = match &self.end {
            End::Left => "499",
            End::Answered(status) => status.as_str(),
            End::Broken => "broken",
        };
        self.app.metrics.requests.with_label_values(&[self.model.as_str(), revision, code]).inc();
    }
}
