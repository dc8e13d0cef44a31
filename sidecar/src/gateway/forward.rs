//! One request on its way to a pod: it finds one, at once or after waiting, and when the pod is lost before anything of
//! the answer has reached the client, another one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::app::{App, Arm, Board, ModelBoard};
use super::ask::Ask;
use super::endpoints::Lease;
use super::envelope::Envelope;
use super::hold::held::HeldRequest;
use super::hold::{HoldRefusal, Ticket, Turn};
use super::outlook::{Unavailable, admit, outlook};
use super::pods::{Lost, Pods};
use super::route::{Routed, route};
use super::shadow::{self, Ear};
use super::trouble::{Failure, Opened, Trouble, judge};
use super::view::KillSwitch;
use crate::http::ApiError;

/// When a full room is worth another try, if nobody knows better.
const RETRY_SOON: Duration = Duration::from_secs(2);

/// A request that looks for an answer.
pub struct Exchange {
    /// What all requests share.
    pub app: Arc<App>,
    /// The facts.
    pub ask: Ask,
    /// Name of the `InferenceModel`.
    pub model: String,
    pods: Pods,
    envelope: Envelope,
    detour: Option<Detour>,
    began: Instant,
    deadline: Instant,
    place: Place,
    avoid: Vec<SocketAddr>,
    attempts: u32,
    has_retried: bool,
    may_repeat: bool,
    /// The revision that it counts for.
    counted: Option<Arc<Arm>>,
    /// Whether it waits now; made when somebody wants to know.
    held: Option<watch::Sender<bool>>,
    /// Listens to what the client gets, if there is a copy of the request.
    pub ear: Option<Box<Ear>>,
    _room: Option<OwnedSemaphorePermit>,
}

/// The way to a model that a variant names. It is tried once: whatever goes wrong there before there is an answer, the
/// client's own model answers.
pub struct Detour {
    /// Name of that `InferenceModel`.
    pub model: String,
    /// The request as that model is asked.
    pub envelope: Envelope,
}

/// Where it stands in the hold room.
#[derive(Default)]
struct Place {
    ticket: Option<Ticket>,
    has_turn: bool,
    outcome: Option<&'static str>,
}

/// An endpoint for a request.
pub struct Chosen {
    lease: Lease,
    arm: Arc<Arm>,
    mirror: Option<Arc<Arm>>,
    /// Whether that is on the detour.
    detour: Option<Detour>,
}

impl From<Unavailable> for ApiError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable {
            code: unavailable.cause.code(),
            message: unavailable.to_string(),
            retry_after: unavailable.retry_after,
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// A request to this model of this board, with the room that its body takes.
    pub fn new(
        (app, pods): (&Arc<App>, &Pods),
        (board, model): (&Board, &ModelBoard),
        ask: Ask,
        (envelope, room): (Envelope, Option<OwnedSemaphorePermit>),
        arrived: Instant,
    ) -> Self {
        Self {
            app: app.clone(),
            model: model.view.name.clone(),
            pods: pods.clone(),
            envelope,
            detour: None,
            began: Instant::now(),
            deadline: arrived + ask.time_limit(&model.view, &board.hold_of(&model.view)),
            ask,
            place: Place::default(),
            avoid: Vec::new(),
            attempts: 0,
            has_retried: false,
            may_repeat: false,
            counted: None,
            held: None,
            ear: None,
            _room: room,
        }
    }

    /// It is to be answered by another model, if that can do so at once.
    pub fn goes_by(&mut self, detour: Option<Detour>) {
        self.detour = detour;
    }

    /// Whether its client may be told something while it waits.
    pub fn streams(&self) -> bool {
        self.ask.is_stream && !self.envelope.is_upgrade()
    }

    /// Whether it waits for a replica now.
    pub fn is_held(&mut self) -> watch::Receiver<bool> {
        self.held.get_or_insert_with(|| watch::Sender::new(false)).subscribe()
    }

    /// An endpoint if there is one now; `None`: it would have to wait.
    pub fn turn_at_once(&mut self) -> Result<Option<Chosen>, ApiError> {
        let board = self.app.board();
        if let Some(chosen) = self.set_out(&board) {
            return Ok(Some(chosen));
        }
        self.count_arrival(&board);
        let model = self.permitted(&board)?;
        Ok(if self.may_pass(model) { self.choose(model) } else { None })
    }

    /// An endpoint on the detour, if there is one and nobody waits there. An arrival counts for the model that works on it.
    fn set_out(&mut self, board: &Board) -> Option<Chosen> {
        let detour = self.detour.take()?;
        let model = board.named(&detour.model).filter(|_| !self.app.room.has_waiting(&detour.model))?;
        let chosen = if model.view.kill_switch == KillSwitch::Model { None } else { self.choose(model) }?;
        model.arrivals.count(&self.ask);
        Some(Chosen { detour: Some(detour), ..chosen })
    }

    fn count_arrival(&self, board: &Board) {
        if let Some(model) = board.named(&self.model) {
            model.arrivals.count(&self.ask);
        }
    }

    /// The answer of a pod, after waiting for one.
    pub async fn open(&mut self) -> Result<Opened, Failure> {
        let chosen = self.turn().await?;
        match self.attempt(chosen).await {
            Ok(opened) => Ok(opened),
            Err(trouble) => self.open_after(trouble).await,
        }
    }

    /// The answer of another pod after this trouble with one.
    pub async fn open_after(&mut self, mut trouble: Trouble) -> Result<Opened, Failure> {
        loop {
            let chosen = match self.another(&trouble)? {
                Some(chosen) => chosen,
                None if trouble.was_not_taken() => {
                    self.step_back();
                    self.turn().await?
                }
                None => return Err(self.fail(trouble)),
            };
            self.app.metrics.retries.with_label_values(&[self.model.as_str(), trouble.cause()]).inc();
            trouble = match self.attempt(chosen).await {
                Ok(opened) => return Ok(opened),
                Err(trouble) => trouble,
            };
        }
    }

    /// The pod at this address was lost over the request.
    pub fn avoid(&mut self, address: Option<SocketAddr>) {
        self.avoid.extend(address);
    }

    fn fail(&mut self, trouble: Trouble) -> Failure {
        let failure = trouble.into_failure();
        if let Some(ear) = self.ear.take() {
            ear.end(None);
        }
        if self.place.ticket.is_some() {
            self.place.outcome = Some("failed");
        }
        // What a pod says of itself is counted with its answer.
        if let (Failure::Ours(_), Some(arm)) = (&failure, &self.counted) {
            arm.failures.fetch_add(1, Ordering::Relaxed);
        }
        failure
    }

    /// An endpoint for the one retry that a request has.
    fn another(&mut self, trouble: &Trouble) -> Result<Option<Chosen>, ApiError> {
        if matches!(trouble, Trouble::Detour) {
            return self.turn_at_once();
        }
        if std::mem::replace(&mut self.has_retried, true) {
            return Ok(None);
        }
        let board = self.app.board();
        let model = self.permitted(&board)?;
        self.may_repeat = matches!(trouble, Trouble::Unreached | Trouble::Reset);
        let chosen = self.choose(model);
        self.may_repeat = false;
        Ok(chosen)
    }

    /// An endpoint, after waiting for one. Cancel-safe.
    async fn turn(&mut self) -> Result<Chosen, ApiError> {
        let app = self.app.clone();
        let mut boards = app.boards();
        loop {
            let board = boards.borrow_and_update().clone();
            let model = self.permitted(&board)?;
            let may_choose =
                if self.place.ticket.is_some() { self.place.has_turn } else { self.may_pass(model) };
            if may_choose && let Some(chosen) = self.choose(model) {
                self.tell_held(false);
                return Ok(chosen);
            }
            if let Err(error) = self.queue(&board, model) {
                // A full room is no reason to turn anybody away whom a pod's own queue would take.
                let may_overtake = matches!(error, ApiError::HoldFull { .. });
                let chosen = if may_overtake { self.choose(model) } else { None };
                return chosen.inspect(|_| self.place.outcome = None).ok_or(error);
            }
            let Some(ticket) = &mut self.place.ticket else { continue };
            tokio::select! {
                turn = ticket.wait() => match turn {
                    Turn::Go => self.place.has_turn = true,
                    Turn::Expired => return Err(self.refuse("expired", ApiError::HeldTooLong)),
                },
                // What it waits for may be off now; the ticket knows whether it is there.
                _ = boards.changed() => {}
            }
        }
    }

    /// Enters the room, or goes back to its place there. An error says why waiting is in vain.
    fn queue(&mut self, board: &Board, model: &ModelBoard) -> Result<(), ApiError> {
        let now = Instant::now();
        let expected = outlook(&model.view, now_ms());
        if self.place.has_turn {
            self.step_back();
        } else if self.place.ticket.is_none() {
            // While pods are ready the time at which more will be is no reason to turn anybody away.
            let time_left = if model.view.is_ready() {
                Duration::MAX
            } else {
                self.deadline.saturating_duration_since(now)
            };
            admit(&expected, time_left).map_err(|error| self.refuse("refused", error.into()))?;
            let request = HeldRequest {
                tier: self.ask.tier_at(&model.view),
                bytes: self.envelope.bytes() as u64,
                prompt_tokens: self.ask.prompt_tokens,
                output_tokens: self.ask.answer_tokens(),
                arrived: now,
                deadline: self.deadline,
            };
            let hold = board.hold_of(&model.view);
            let entered = self.app.room.enter(&self.model, request, &hold, now);
            let refused = |why: HoldRefusal| {
                let retry_after = expected.eta.unwrap_or(RETRY_SOON);
                ApiError::HoldFull { which: why.to_string(), retry_after }
            };
            self.place.ticket = Some(entered.map_err(|why| self.refuse("refused", refused(why)))?);
        } else if expected.obstacle.is_some() {
            admit(&expected, Duration::MAX).map_err(|error| self.refuse("refused", error.into()))?;
        }
        self.tell_held(true);
        Ok(())
    }

    fn tell_held(&self, is_held: bool) {
        if let Some(held) = &self.held {
            held.send_if_modified(|held| std::mem::replace(held, is_held) != is_held);
        }
    }

    /// Gives its turn to others, and will be told when to look again; by then the pods that were lost may be back.
    fn step_back(&mut self) {
        if std::mem::take(&mut self.place.has_turn)
            && let Some(ticket) = &mut self.place.ticket
        {
            ticket.back(Instant::now());
            self.avoid.clear();
        }
    }

    fn refuse(&mut self, outcome: &'static str, error: ApiError) -> ApiError {
        self.place.outcome = Some(outcome);
        error
    }

    /// The model, unless it has gone or was switched off.
    fn permitted<'board>(&self, board: &'board Board) -> Result<&'board Arc<ModelBoard>, ApiError> {
        let Some(model) = board.named(&self.model) else {
            return Err(ApiError::ModelNotFound(
                self.ask.model.clone().unwrap_or_else(|| self.model.clone()),
            ));
        };
        if model.view.kill_switch == KillSwitch::Model {
            admit(&outlook(&model.view, now_ms()), Duration::MAX)?;
        }
        Ok(model)
    }

    /// Whether it may be sent without a place in the room: nobody waits, or it asks for a revision of its own.
    fn may_pass(&self, model: &ModelBoard) -> bool {
        self.ask.revision.is_some() || !self.app.room.has_waiting(&model.view.name)
    }

    fn choose(&mut self, model: &ModelBoard) -> Option<Chosen> {
        let routed = route(&model.view, &self.ask);
        let (arm, lease) = self.lease(model, &routed)?;
        if self.counted.is_none() {
            arm.count(self.ask.is_new_conversation);
            self.counted = Some(arm.clone());
        }
        let mirror = routed.mirror.as_deref().and_then(|revision| model.arm(revision)).cloned();
        Some(Chosen { lease, arm, mirror, detour: None })
    }

    /// Of the revision; else, if that is not the stable one, of the stable one; else the same pod again. What a canary has
    /// failed once goes to the stable revision first: whatever ails one of its pods may ail them all.
    fn lease(&self, model: &ModelBoard, routed: &Routed) -> Option<(Arc<Arm>, Lease)> {
        let now = Instant::now();
        let choose = |revision: &str, avoid: &[SocketAddr]| {
            let arm = model.arm(revision)?;
            let lease = arm.fleet.choose(&self.ask, avoid, now, fastrand::u64(..))?;
            Some((arm.clone(), lease))
        };
        let mut revisions = [routed.revision.as_str(), model.view.traffic.table.stable.as_str()];
        if self.has_retried && self.ask.revision.is_none() {
            revisions.reverse();
        }
        revisions
            .into_iter()
            .find_map(|revision| choose(revision, &self.avoid))
            .or_else(|| self.may_repeat.then(|| choose(&routed.revision, &[])).flatten())
    }

    /// The answer of this pod.
    pub async fn attempt(&mut self, chosen: Chosen) -> Result<Opened, Trouble> {
        if let Some(detour) = chosen.detour {
            return self.attempt_by(&detour, chosen.lease, chosen.arm).await;
        }
        self.attempts += 1;
        let Chosen { mut lease, arm, mirror, .. } = chosen;
        let request = self.envelope.to(lease.address(), self.attempts);
        let sent = Instant::now();
        if self.attempts == 1 {
            if self.place.ticket.is_none() {
                self.app.metrics.added_latency.observe(self.began.elapsed().as_secs_f64());
            }
            if let Some(mirror) = mirror {
                self.ear =
                    shadow::copy(&self.app, &self.pods, (&self.model, mirror), &self.ask, &self.envelope);
            }
        }
        let address = lease.address();
        let asked = if self.envelope.is_upgrade() {
            self.pods.ask_to_upgrade(address, request).await
        } else {
            self.pods.ask(address, request).await
        };
        let trouble = match asked {
            Ok(response) => match judge(response, lease, arm, sent).await {
                Ok(opened) => return Ok(opened),
                Err(trouble) => trouble,
            },
            Err(lost) => {
                tracing::debug!(pod = lease.pod(), %address, error = ?lost, "pod lost");
                lease.failed(Instant::now());
                match lost {
                    Lost::Unreached(_) => Trouble::Unreached,
                    Lost::Reset(_) => Trouble::Reset,
                }
            }
        };
        self.avoid.push(address);
        Err(trouble)
    }

    /// The answer of this pod of the model that a variant names. What is no success is no answer here.
    async fn attempt_by(
        &mut self,
        detour: &Detour,
        mut lease: Lease,
        arm: Arc<Arm>,
    ) -> Result<Opened, Trouble> {
        let sent = Instant::now();
        self.app.metrics.added_latency.observe(self.began.elapsed().as_secs_f64());
        let request = detour.envelope.to(lease.address(), 1);
        let judged = if let Ok(response) = self.pods.ask(lease.address(), request).await {
            judge(response, lease, arm.clone(), sent).await
        } else {
            lease.failed(Instant::now());
            Err(Trouble::Reset)
        };
        let has_failed = match judged {
            Ok(opened) if opened.parts.status.is_success() => return Ok(opened),
            Ok(mut opened) => {
                opened.lease.answered(Instant::now());
                opened.parts.status.is_server_error()
            }
            Err(trouble) => !matches!(trouble, Trouble::Busy(_)),
        };
        arm.failures.fetch_add(has_failed.into(), Ordering::Relaxed);
        tracing::debug!(model = detour.model, "a variant's model gave no answer; the client's own is asked");
        // As if it had just come, and had not been sent anywhere.
        (self.counted, self.began) = (None, Instant::now());
        Err(Trouble::Detour)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.place.ticket.is_some() || self.place.outcome.is_some() {
            let served = if self.place.has_turn { "served" } else { "left" };
            let outcome = self.place.outcome.unwrap_or(served);
            self.app.metrics.held_total.with_label_values(&[self.model.as_str(), outcome]).inc();
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
