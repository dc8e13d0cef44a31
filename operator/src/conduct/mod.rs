//! A canary that the operator drives. `judgement::rollout::advance` decides; here is what it is told, and what its
//! answer means for the pods of both revisions. Pure.
//!
//! In reading order: `declared` (what the spec says of a rollout), `stored` (where it stands, to and from the status),
//! `facts` (what is true now), `bounds` and `room` (who gets which pods), `hindrance` (why it has less than it should),
//! `foresight` (what it will be able to tell), `former` (whose pods stay after a promotion), and here the next stand of it.
//!
//! A model without pods has nothing to compare with: its rollout waits, and begins anew when the model serves again. A
//! stable revision that cannot start is nothing to compare with either: then the new one takes over as with `BlueGreen`.

mod bounds;
mod declared;
mod facts;
mod foresight;
mod former;
mod hindrance;
mod room;
mod stored;

use crds::model::{
    AnalysisMode, FailedRevision, InferenceModel, InferenceModelSpec, RolloutAction, RolloutStrategy,
};
use judgement::rollout::{Foresight, Phase, Plan, State, Strategy, advance};
use k8s_openapi::jiff::Timestamp;

use crate::golden;
use crate::plan::Proof;
use crate::pod::Reading;
use crate::revision::Revision;
use crate::rollout::{self, ALL, Roles, Standing};
use crate::trial;
use bounds::Bounds;

pub use declared::{declared, steps};
pub use former::Former;
pub use stored::{state, store};

/// What is known of a model when its rollout is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'seen> {
    /// The revision that the spec asks for.
    pub target: &'seen str,
    /// All revisions that exist.
    pub revisions: &'seen [Revision],
    /// Pods that the stable revision is to have.
    pub fleet: i32,
    /// Pods that the pool still has room for, if it has a limit.
    pub spare: Option<i32>,
    /// The limit.
    pub replicas_max: Option<i32>,
    /// Pods that nodes still take, if that is known.
    pub fitting: Option<u32>,
    /// Pods' worth of work that arrives, if that is known.
    pub demand: Option<f64>,
    /// What a start takes, if that was measured.
    pub start_seconds: Option<i32>,
    /// Whether the target has given a token and still does.
    pub is_proven: bool,
    /// What came of asking one of the target's pods for a token.
    pub proof: Option<&'seen Proof>,
    /// What came of its golden prompts, if it has any.
    pub golden: Option<&'seen golden::standing::Standing>,
    /// The target's pods.
    pub readings: &'seen [Reading],
    /// Pods of the stable revision, those that leave included.
    pub stable_pods: usize,
    /// Whether a pod of the stable revision says that it cannot start.
    pub is_stable_failing: bool,
    /// Pods of the canary that stands in the status, those that leave included.
    pub canary_pods: usize,
    /// The last verdict.
    pub verdict: Option<&'seen trial::tell::Seen>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Conducted {
    /// Where the rollout stands now.
    pub state: State,
    /// What was declared of it.
    pub declared: Plan,
    /// Pods that the target is to have; none if it waits or has failed.
    pub target_pods: i32,
    /// Pods that the stable revision is to have.
    pub stable_pods: i32,
    /// Why there is no room for the target, while there is none.
    pub obstacle: Option<String>,
    /// Why the target has less than its step says, while it has.
    pub hindrance: Option<String>,
    /// What the canary's pods can tell, while there are some or will be.
    pub foresight: Option<Foresight>,
    /// The revision that it was before, while its pods stay.
    pub former: Option<Former>,
    /// What a return to the revision before takes: 0 while its pods run.
    pub rollback_seconds: Option<i32>,
    /// Revisions that are not tried again, with the reasons.
    pub failed: Vec<FailedRevision>,
    /// What lets a revision be tried again.
    pub retry_token: String,
    /// The last command that was looked at.
    pub acknowledged: Option<RolloutAction>,
    /// When to look again.
    pub requeue_ms: u64,
    /// The moment of all this.
    pub now_ms: u64,
}

/// Whether the operator drives the canaries of a model. Strategy Recreate is a canary without anything to compare with.
pub fn conducts(spec: &InferenceModelSpec) -> bool {
    let traffic = spec.rollout.as_ref().and_then(|rollout| rollout.traffic.as_ref());
    let is_by_hand = traffic.is_some_and(|traffic| traffic.canary_percent.is_some());
    match rollout::strategy(spec) {
        RolloutStrategy::BlueGreen => false,
        RolloutStrategy::Canary => !is_by_hand,
        RolloutStrategy::Recreate => true,
    }
}

/// Whether something follows from a verdict.
pub fn is_enforced(spec: &InferenceModelSpec) -> bool {
    let analysis = spec.rollout.as_ref().and_then(|rollout| rollout.analysis.as_ref());
    let mode = analysis.and_then(|analysis| analysis.mode).unwrap_or_default();
    conducts(spec) && mode == AnalysisMode::Enforce
}

/// The next stand of a rollout that the operator drives, if it does.
pub fn conduct(model: &InferenceModel, scene: &Scene<'_>, now: Timestamp) -> Option<Conducted> {
    let status = model.status.as_ref().filter(|_| conducts(&model.spec))?;
    let now_ms = stored::millis(now);
    let before = state(status, now_ms)?;
    let before = former::returned(before, &model.spec, status, scene, now_ms);
    if !has_control(&before, scene) {
        return None;
    }
    let acknowledged = status.rollout.as_ref().and_then(|rollout| rollout.acknowledged_action.clone());
    let command = facts::new_command(&model.spec, acknowledged.as_ref());
    let known = before.strategy;
    let bounds = Bounds::of(&model.spec, scene.fleet);
    let before = room::reconsidered(before, room::wish(&model.spec), scene, bounds);
    let facts = facts::facts(model, scene, &before, command);
    let declared = declared(&model.spec, before.step);
    let is_asleep = scene.fleet == 0 && before.phase != Phase::RollingBack;
    let (mut state, canary_pods, requeue_ms) = if is_asleep {
        (asleep(before.clone(), now_ms), 0, u64::MAX)
    } else {
        let next = advance(before.clone(), &declared, &facts, now_ms);
        (settled(next.state, now_ms), next.canary_pods, next.requeue_ms)
    };
    let obstacle = (state.phase == Phase::CapacityCheck).then(|| room::obstacle(model, scene));
    if before.phase != Phase::RollingBack && state.phase == Phase::RollingBack {
        let has_no_room = before.phase == Phase::CapacityCheck;
        facts::name_cause(&mut state, scene, has_no_room.then(|| room::obstacle(model, scene)));
    }
    if state.phase == Phase::Loading && (before.phase != Phase::Loading || before.strategy != known) {
        warn(&mut state, scene);
    }
    let acknowledged = match command {
        Some(command) if state.acknowledged > before.acknowledged => Some(command.clone()),
        _ => acknowledged,
    };
    let (target_pods, stable_pods) =
        room::pods((&before, &state), &facts.capacity, scene, (canary_pods, bounds));
    let hindrance =
        hindrance::hindrance(&state, &declared, &facts.capacity, scene, (bounds, canary_pods, target_pods));
    // What it found room for is known from the next look on.
    let has_begun = before.strategy == state.strategy;
    let foresight = foresight::foresight(&declared, &state, &facts.capacity, trial::known_variation(model))
        .filter(|_| has_begun);
    let failed = stored::failed(status, &state);
    let former = former::former(&model.spec, status, (&before, &state), scene, now_ms);
    let rollback_seconds = match &former {
        Some(_) => Some(0),
        None => rollback_seconds(&state, scene, stable_pods),
    };
    let until = former.as_ref().map_or(u64::MAX, |former| former.until_ms);
    Some(Conducted {
        state,
        declared,
        target_pods,
        stable_pods,
        obstacle,
        hindrance,
        foresight,
        former,
        rollback_seconds,
        failed,
        retry_token: facts.retry_token,
        acknowledged,
        requeue_ms: requeue_ms.min(until - now_ms),
        now_ms,
    })
}

/// What the way back costs is told before anybody has to wait for it.
fn warn(state: &mut State, scene: &Scene<'_>) {
    if let Some(warning) = state.strategy.and_then(|strategy| room::warning(strategy, scene)) {
        state.message = warning;
    }
}

/// What a return to the revision before takes: nothing while it has all its pods, else a start.
fn rollback_seconds(state: &State, scene: &Scene<'_>, stable_pods: i32) -> Option<i32> {
    match state.phase {
        Phase::Completed => scene.start_seconds,
        Phase::CapacityCheck => None,
        phase if phase.is_running() && stable_pods >= scene.fleet => Some(0),
        phase if phase.is_running() => scene.start_seconds,
        _ => None,
    }
}

/// Whether there is, or was when the canary began, a stable revision to compare with.
fn has_control(before: &State, scene: &Scene<'_>) -> bool {
    let Some(stable) = find(scene, &before.stable) else { return false };
    let is_dead = stable.replicas_told > 0 && stable.ready == 0 && scene.is_stable_failing;
    let is_known = before.stable == scene.target
        || before.canary.is_some()
        || before.failed.iter().any(|failed| failed.revision == scene.target);
    is_known || !is_dead
}

/// Where a rollout stands while no pod is to run.
fn asleep(state: State, now_ms: u64) -> State {
    if state.phase.is_running() { alone(state, now_ms) } else { state }
}

/// Nothing of an earlier rollout is left where a revision serves alone, but what has failed.
fn settled(state: State, now_ms: u64) -> State {
    if state.phase == Phase::Stable { alone(state, now_ms) } else { state }
}

fn alone(state: State, now_ms: u64) -> State {
    let new = State::new(&state.stable, now_ms);
    State { failed: state.failed, acknowledged: state.acknowledged, ..new }
}

fn find<'seen>(scene: &Scene<'seen>, name: &str) -> Option<&'seen Revision> {
    scene.revisions.iter().find(|revision| revision.name == name)
}

impl Conducted {
    /// What the revisions are to each other.
    pub fn roles<'seen>(&self, scene: &Scene<'seen>, is_complete: bool) -> Roles<'seen> {
        let Scene { target, revisions, is_proven, .. } = *scene;
        if self.state.stable == target {
            let stable = Some(target);
            let standing = Standing { target, revisions, stable, share: ALL, is_complete, is_proven };
            let roles = rollout::roles(&standing);
            if !self.gives_places_back() {
                return self.with_former(roles, scene);
            }
            return Roles {
                keeper: None,
                leavers: revisions.iter().filter(|revision| revision.name != target).collect(),
                ..roles
            };
        }
        let runs = self.target_pods > 0;
        let stays =
            |revision: &Revision| revision.name == self.state.stable || (runs && revision.name == target);
        Roles {
            is_able: is_proven && find(scene, target).is_some_and(|target| target.ready > 0),
            is_stable: false,
            runs,
            keeper: find(scene, &self.state.stable),
            former: None,
            weight: i32::from(self.state.weight_basis_points),
            leavers: revisions.iter().filter(|revision| !stays(revision)).collect(),
        }
    }

    /// Whether the stable pods have ended or are about to, and the target does not serve yet.
    pub fn is_in_the_gap(&self) -> bool {
        self.state.phase == Phase::Loading && self.state.strategy == Some(Strategy::Recreate)
    }

    fn with_former<'seen>(&self, mut roles: Roles<'seen>, scene: &Scene<'seen>) -> Roles<'seen> {
        let former = self.former.as_ref().and_then(|former| find(scene, &former.revision));
        roles.former = former.filter(|former| roles.leavers.contains(former));
        roles.leavers.retain(|leaver| Some(*leaver) != roles.former);
        roles
    }

    /// Whether the canary has to go before the stable pods can begin again whose places it took.
    fn gives_places_back(&self) -> bool {
        let is_beside = matches!(self.state.strategy, None | Some(Strategy::Surge));
        self.state.phase == Phase::RollingBack && !is_beside
    }

    /// Whether canary pods run in the place of stable ones.
    pub fn is_in_place(&self) -> bool {
        self.state.phase.is_running() && self.state.strategy == Some(Strategy::InPlace)
    }

    /// Why `revision` is not tried again, if it is not.
    pub fn failure(&self, revision: &str) -> Option<&FailedRevision> {
        let found = self.failed.iter().rev().find(|failed| failed.revision == revision);
        found.filter(|failed| failed.retry_token == self.retry_token)
    }

    /// Steps from 1, and how many there are; while a canary goes through them.
    pub fn step(&self) -> Option<(i32, i32)> {
        let steps = self.declared.steps.len();
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        self.state.phase.is_running().then(|| (count((self.state.step + 1).min(steps)), count(steps)))
    }

    /// How long the present step lasts: at least, or, when that is over, at most; in milliseconds.
    pub fn left_ms(&self) -> Option<Left> {
        let since = self.state.step_since_ms.filter(|_| self.state.phase == Phase::Analysing)?;
        let step = self.declared.steps.get(self.state.step)?;
        let age = self.now_ms.saturating_sub(since);
        Some(match step.min_duration_ms.checked_sub(age).filter(|left| *left > 0) {
            Some(left) => Left::AtLeast(left),
            None => Left::AtMost(step.max_duration_ms.saturating_sub(age)),
        })
    }
}

/// How long a step still lasts, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Its shortest time is not over.
    AtLeast(u64),
    /// It ends with a proof, or then.
    AtMost(u64),
}
