//! What all requests share: the board (a view with its endpoints' state), the hold room, figures and the stage.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crds::report::ShadowCounts;
use tokio::sync::{Semaphore, watch};

use super::ask::Ask;
use super::draw::tally::Tally;
use super::endpoints::Fleet;
use super::hold::HoldRoom;
use super::metrics::{Metrics, Now};
use super::view::{DrawView, HoldLimits, ModelView, Strategy, View};
use crate::lifecycle::{Lifecycle, Stage};

/// KiB of all bodies that are being read or may be sent again: some dozens of the largest, tens of thousands of usual
/// ones, in memory that a gateway has.
const BODIES_KIB_MAX: usize = 256 << 10;

/// Copies of requests under way at once; more are not made, because nobody waits for them.
const SHADOWS_MAX: usize = 64;

/// An outage of the view's source repeats its error sooner than this; after as long without one it is over.
const OUTAGE_OVER_AFTER: Duration = Duration::from_secs(15);

/// A view with the state of its endpoints; replaced as a whole.
#[derive(Default)]
pub struct Board {
    /// How endpoints are chosen.
    pub strategy: Strategy,
    /// What may wait for models that do not say it themselves.
    pub hold: HoldLimits,
    /// The models.
    pub models: Vec<Arc<ModelBoard>>,
    names: HashMap<String, usize>,
}

/// One model with its revisions.
pub struct ModelBoard {
    /// As the view has it.
    pub view: ModelView,
    /// Its revisions.
    pub arms: Vec<Arc<Arm>>,
    /// What arrived.
    pub arrivals: Arc<Arrivals>,
    /// The figures of each of the view's draws, in their order.
    pub tallies: Vec<Arc<Tally>>,
}

/// What arrived for a model, whatever became of it; sums since the gateway knows the model.
#[derive(Debug, Default)]
pub struct Arrivals {
    requests: AtomicU64,
    prompt_tokens: AtomicU64,
    output_tokens: AtomicU64,
}

/// One revision; lives from view to view.
pub struct Arm {
    /// Its model's name.
    pub model: String,
    /// Its name.
    pub revision: String,
    /// Its endpoints.
    pub fleet: Fleet,
    /// Requests that were sent to it.
    pub requests: AtomicU64,
    /// Those of them that begin a conversation.
    pub new_conversations: AtomicU64,
    /// Those of them that failed by its fault.
    pub failures: AtomicU64,
    /// What came of copies that it got.
    pub(super) shadow: Mutex<ShadowCounts>,
}

/// The handlers' state.
pub struct App {
    /// Requests that wait for a replica.
    pub room: HoldRoom,
    /// Figures.
    pub metrics: Metrics,
    /// Where the process stands.
    pub lifecycle: Lifecycle,
    /// Room for bodies, in KiB.
    pub bodies: Arc<Semaphore>,
    /// Room for copies of requests.
    pub shadows: Arc<Semaphore>,
    boards: watch::Sender<Arc<Board>>,
    outage: Mutex<Option<Outage>>,
}

/// Since when the view's source has been away.
#[derive(Debug, Clone, Copy)]
struct Outage {
    began: Instant,
    last: Instant,
}

// === impl Board ===

impl Board {
    /// The model that clients know by `name`.
    pub fn find(&self, name: &str) -> Option<&Arc<ModelBoard>> {
        self.names.get(name).map(|index| &self.models[*index])
    }

    /// The only model, when there is one.
    pub fn sole(&self) -> Option<&Arc<ModelBoard>> {
        if let [model] = self.models.as_slice() { Some(model) } else { None }
    }

    /// The model with this object's name.
    pub fn named(&self, object: &str) -> Option<&Arc<ModelBoard>> {
        self.models.iter().find(|model| model.view.name == object)
    }

    /// What may wait for a replica of this model.
    pub fn hold_of(&self, model: &ModelView) -> HoldLimits {
        model.hold.unwrap_or(self.hold)
    }

    /// The view that it was made from.
    pub fn view(&self) -> View {
        let models = self.models.iter().map(|model| model.view.clone()).collect();
        View { strategy: self.strategy, hold: self.hold, models }
    }

    /// The board after `view`; endpoints that stay keep their state.
    fn after(&self, view: View, now: Instant) -> Self {
        let mut names = HashMap::new();
        let mut models = Vec::with_capacity(view.models.len());
        for model in view.models {
            for name in [&model.served_name].into_iter().chain(&model.aliases) {
                // Of two models with one name the first has it, as in the view.
                names.entry(name.clone()).or_insert(models.len());
            }
            models.push(Arc::new(self.model_after(model, view.strategy, now)));
        }
        Self { strategy: view.strategy, hold: view.hold, models, names }
    }

    fn model_after(&self, view: ModelView, strategy: Strategy, now: Instant) -> ModelBoard {
        let before = self.named(&view.name);
        let arms = view.revisions.iter().map(|revision| {
            let known = before.and_then(|model| model.arm(&revision.name)).cloned();
            let arm = known.unwrap_or_else(|| Arc::new(Arm::new(&view.name, &revision.name)));
            arm.fleet.update(strategy, revision, now);
            arm
        });
        let tallies = view.draws.iter().map(|draw| tally(before, draw)).collect();
        ModelBoard {
            arms: arms.collect(),
            tallies,
            arrivals: before.map(|model| model.arrivals.clone()).unwrap_or_default(),
            view,
        }
    }
}

/// The figures of this draw, which go on as long as its definition stays.
fn tally(before: Option<&Arc<ModelBoard>>, draw: &DrawView) -> Arc<Tally> {
    let known = before.and_then(|model| model.tallies.iter().find(|tally| tally.is_of(draw)));
    known.cloned().unwrap_or_else(|| Arc::new(Tally::new(draw)))
}

// === impl ModelBoard ===

impl ModelBoard {
    /// The revision with this name.
    pub fn arm(&self, revision: &str) -> Option<&Arc<Arm>> {
        self.arms.iter().find(|arm| arm.revision == revision)
    }

    /// Requests that the revisions which get traffic work on at once; 0 while none of their pods is ready.
    fn places(&self) -> usize {
        let table = &self.view.traffic.table;
        let weighted = table.others.iter().filter(|other| other.weight_basis_points > 0);
        let serving =
            [table.stable.as_str()].into_iter().chain(weighted.map(|other| other.revision.as_str()));
        let serving: HashSet<&str> = serving.collect();
        serving.into_iter().filter_map(|revision| self.arm(revision)).map(|arm| arm.fleet.places()).sum()
    }
}

// === impl Arrivals ===

impl Arrivals {
    /// A request arrived.
    pub fn count(&self, ask: &Ask) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.prompt_tokens.fetch_add(ask.prompt_tokens.into(), Ordering::Relaxed);
        self.output_tokens.fetch_add(ask.answer_tokens().into(), Ordering::Relaxed);
    }

    /// Requests, estimated tokens of their prompts, and tokens that they may generate.
    pub fn sums(&self) -> [u64; 3] {
        [&self.requests, &self.prompt_tokens, &self.output_tokens].map(|sum| sum.load(Ordering::Relaxed))
    }
}

// === impl Arm ===

impl Arm {
    fn new(model: &str, revision: &str) -> Self {
        Self {
            model: model.to_owned(),
            revision: revision.to_owned(),
            fleet: Fleet::new(),
            requests: AtomicU64::new(0),
            new_conversations: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            shadow: Mutex::default(),
        }
    }

    /// A request is sent to it.
    pub fn count(&self, is_new_conversation: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if is_new_conversation {
            self.new_conversations.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl App ===

impl App {
    /// Without a view; nothing is served before the first.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            room: HoldRoom::new(),
            metrics: Metrics::new()?,
            lifecycle: Lifecycle::default(),
            bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            shadows: Arc::new(Semaphore::new(SHADOWS_MAX)),
            boards: watch::Sender::new(Arc::default()),
            outage: Mutex::new(None),
        })
    }

    /// The board now.
    pub fn board(&self) -> Arc<Board> {
        self.boards.borrow().clone()
    }

    /// The board now and its successors.
    pub fn boards(&self) -> watch::Receiver<Arc<Board>> {
        self.boards.subscribe()
    }

    /// Serves from this view on.
    pub fn take(&self, view: View) {
        let now = Instant::now();
        let before = self.board();
        let board = Arc::new(before.after(view, now));
        self.boards.send_replace(board.clone());
        self.lifecycle.advance(Stage::Serving);
        for model in &board.models {
            match model.places() {
                0 => self.room.rest(&model.view.name, now),
                places => self.room.wake(&model.view.name, places, now),
            }
        }
        self.forget_gone(&before, &board, now);
    }

    fn forget_gone(&self, before: &Board, after: &Board, now: Instant) {
        for model in &before.models {
            let name = &model.view.name;
            let left = after.named(name);
            if left.is_none() {
                self.room.rest(name, now);
            }
            let is_gone = |arm: &&Arc<Arm>| left.is_none_or(|left| left.arm(&arm.revision).is_none());
            model.arms.iter().filter(is_gone).for_each(|arm| self.metrics.forget(name, &arm.revision));
        }
    }

    /// The view's source gave an error.
    pub fn lost_source(&self, now: Instant) {
        let mut outage = self.outage.lock().expect("nobody panics with this lock");
        let ongoing = outage.filter(|outage| now.saturating_duration_since(outage.last) < OUTAGE_OVER_AFTER);
        *outage = Some(Outage { began: ongoing.map_or(now, |outage| outage.began), last: now });
    }

    /// For how long the view has had no source.
    pub fn view_age(&self, now: Instant) -> Duration {
        let outage = *self.outage.lock().expect("nobody panics with this lock");
        outage
            .filter(|outage| now.saturating_duration_since(outage.last) < OUTAGE_OVER_AFTER)
            .map_or(Duration::ZERO, |outage| now.saturating_duration_since(outage.began))
    }

    /// The text that Prometheus reads.
    pub fn render(&self, now: Instant) -> Result<String, prometheus::Error> {
        let board = self.board();
        let held = board.models.iter().map(|model| {
            let name = model.view.name.as_str();
            (name, self.room.counts(name, now))
        });
        self.metrics.render(&Now {
            board: &board,
            held: held.collect(),
            in_flight: self.lifecycle.in_flight(),
            view_age: self.view_age(now),
            at: now,
        })
    }
}
