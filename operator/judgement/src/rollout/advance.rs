//! From where a rollout stands and what is true now to where it stands next. Pure; called whenever a fact changes.
//!
//! Order of precedence: kill switch, edits of the spec, a command, a bad verdict, a deadline, and only then progress.
//! Whatever goes back goes to weight 0 at once and can only end there.

use super::capacity::{Strategy, canary_pods, choose, in_place_weight, weight_for};
use super::policy::{Gate, InconclusivePolicy, Plan, Step, UnderpoweredPolicy};
use super::state::{Command, Facts, Failed, KillSwitch, Next, Phase, Split, State};
use super::verdict::{Outcome, Reason, Verdict};

/// While a canary has traffic, as often as counts arrive.
const WHILE_ANALYSING_MS: u64 = 2_000;
/// While something else moves.
const WHILE_MOVING_MS: u64 = 5_000;
/// While nothing does.
const WHILE_STILL_MS: u64 = 60_000;
/// Failed revisions remembered; older ones were replaced by ten others since.
const FAILED_MAX: usize = 10;
/// Blocks without a complaint about the revision itself, after which a hold goes one step back: the five minutes over
/// which misses are looked at. Sooner, they are still those from before the pod that was added; with three blocks
/// four of five holds of a busy fleet ended with a person, however much the pods had helped.
const HOLD_BLOCKS: u64 = 10;
/// Canary pods beyond what a step needs, however often a hold asks for one more: with more, the canary would no longer
/// be a small fleet, which was the reason for adding them.
const EXTRA_PODS_MAX: u32 = 3;
/// Steps back after which the pods are not the problem.
const STEPS_BACK_MAX: u8 = 2;

/// What follows from `state` and `facts` at `now_ms`.
pub fn advance(state: State, plan: &Plan, facts: &Facts, now_ms: u64) -> Next {
    let mut rollout = Rollout { state, plan, facts, now_ms, ends_step: false };
    rollout.advance();
    rollout.next()
}

struct Rollout<'facts> {
    state: State,
    plan: &'facts Plan,
    facts: &'facts Facts,
    now_ms: u64,
    ends_step: bool,
}

impl Rollout<'_> {
    fn advance(&mut self) {
        if self.state.phase.is_running() {
            if self.has_to_go_back() {
                return;
            }
            let before = (self.state.phase, self.state.step);
            self.obey();
            // One phase per call, so that nobody who watches misses one.
            if before != (self.state.phase, self.state.step) {
                return;
            }
        }
        match self.state.phase {
            Phase::Stable | Phase::Completed | Phase::RolledBack | Phase::Aborted | Phase::Killed => {
                self.begin();
            }
            Phase::CapacityCheck => self.find_room(),
            Phase::Loading => self.load(),
            Phase::Warmup => self.warm_up(),
            Phase::Analysing => self.analyse(),
            Phase::Paused | Phase::Inconclusive => self.wait(),
            Phase::Promoting => self.promote(),
            Phase::RollingBack => self.drain(),
        }
    }

    /// The kill switch, an edit of the spec, or a verdict against the revision. → `RollingBack`
    fn has_to_go_back(&mut self) -> bool {
        if self.facts.kill_switch != KillSwitch::Off {
            self.go_back(Phase::Killed, "the kill switch is on");
        } else if Some(&self.facts.wanted) != self.state.canary.as_ref() {
            self.go_back(Phase::Stable, "the spec asks for another revision");
        } else if let Some(verdict) = self.verdict().filter(|verdict| verdict.outcome == Outcome::Rollback) {
            let verdict = verdict.clone();
            let message = verdict.sentence.clone();
            self.state.verdict = Some(verdict);
            self.go_back(Phase::RolledBack, &message);
        } else if let Some(refusal) = self.facts.canary_refusal.clone() {
            self.go_back(Phase::Aborted, &refusal);
        } else {
            return false;
        }
        true
    }

    /// A command, once, and only for the canary it was given for.
    fn obey(&mut self) {
        let Some(action) =
            self.facts.action.as_ref().filter(|action| action.generation > self.state.acknowledged)
        else {
            return;
        };
        self.state.acknowledged = action.generation;
        if Some(&action.revision) != self.state.canary.as_ref() {
            return;
        }
        let has_traffic = matches!(self.state.phase, Phase::Analysing | Phase::Paused | Phase::Inconclusive);
        match action.command {
            Command::Abort => self.go_back(Phase::Aborted, "a person ended the rollout"),
            Command::PromoteFull if has_traffic => {
                self.enter(Phase::Promoting, "a person promoted it to all traffic");
            }
            Command::Promote if has_traffic => {
                self.state.accepted.extend([Reason::OutputLengthChanged, Reason::TrafficSkew]);
                self.state.accepted.extend([Reason::UnequalExperience, Reason::NoComparableControl]);
                self.next_step("a person said go on");
            }
            Command::Pause if has_traffic => self.enter(Phase::Paused, "a person paused the rollout"),
            _ => {}
        }
    }

    /// Nothing is on trial. → `CapacityCheck`
    fn begin(&mut self) {
        let State { phase, stable, .. } = &self.state;
        if self.facts.wanted == *stable {
            // A spec that went back to stable has nothing more to say of the revision that failed.
            if matches!(phase, Phase::RolledBack | Phase::Aborted | Phase::Killed) {
                self.enter(Phase::Stable, "");
            }
            return;
        }
        if self.facts.kill_switch != KillSwitch::Off || self.has_failed(&self.facts.wanted) {
            return;
        }
        let mut state = State::new(stable, self.now_ms);
        state.canary = Some(self.facts.wanted.clone());
        state.failed = std::mem::take(&mut self.state.failed);
        state.acknowledged = self.state.acknowledged;
        self.state = state;
        self.enter(Phase::CapacityCheck, "looking for room");
        self.find_room();
    }

    /// → `Loading`, `RollingBack`
    fn find_room(&mut self) {
        if let Some(strategy) = choose(&self.facts.capacity) {
            self.state.strategy = Some(strategy);
            self.enter(Phase::Loading, "its pods start");
        } else if self.is_over(self.plan.capacity_deadline_ms) {
            self.go_back(Phase::Aborted, "no room for a canary pod before the capacity deadline");
        } else {
            "no room for a canary pod".clone_into(&mut self.state.message);
        }
    }

    /// → `Warmup`, `Promoting`, `RollingBack`
    fn load(&mut self) {
        let is_ready = self.facts.canary_ready >= self.pods_wanted();
        if is_ready && (self.strategy() == Strategy::Recreate || self.is_last_step()) {
            self.enter(Phase::Promoting, "there is nothing to compare with");
        } else if is_ready {
            self.enter(Phase::Warmup, "canary pods are ready");
        } else if self.is_over(self.plan.load_deadline_ms) {
            self.go_back(Phase::Aborted, "its pods were not ready before the load deadline");
        }
    }

    /// → `Analysing`, `RollingBack`
    fn warm_up(&mut self) {
        if self.is_over(self.plan.warmup_ms) && self.facts.canary_ready >= self.pods_wanted() {
            self.enter(Phase::Analysing, "");
            self.raise_weight();
        } else if self.is_over(self.plan.load_deadline_ms.max(self.plan.warmup_ms)) {
            self.go_back(Phase::Aborted, "canary pods did not stay ready");
        }
    }

    /// → `Analysing` (next step, or one back), `Paused`, `Inconclusive`, `Promoting`
    fn analyse(&mut self) {
        let Some(verdict) = self.verdict().cloned() else {
            self.unheard();
            return;
        };
        let is_accepted = self.state.accepted.contains(&verdict.reason);
        if verdict.outcome != Outcome::Suspect {
            self.state.suspect_since_ms = None;
        }
        match verdict.outcome {
            Outcome::Pause if !is_accepted => self.enter(Phase::Paused, &verdict.sentence),
            Outcome::Inconclusive if !is_accepted => self.inconclusive(&verdict.sentence),
            Outcome::Suspect => self.confirm(),
            Outcome::Hold if !is_accepted => self.hold(),
            _ => {
                self.state.hold_since_ms = None;
                self.raise_weight();
                self.end_step(&verdict);
            }
        }
    }

    /// No verdict: no pod is ready, or whoever judges has just begun. The latter has one in seconds, whatever the age of the
    /// step; so the limit is beyond a step that waits for its pods as long as it may, and is then judged as long as it may.
    fn unheard(&mut self) {
        self.raise_weight();
        let longest =
            self.step().max_duration_ms.saturating_mul(2).saturating_add(self.plan.load_deadline_ms);
        if self.is_over(self.plan.progress_deadline_ms.max(longest)) {
            self.inconclusive("nothing was reported that could be judged before the progress deadline");
        }
    }

    /// Raises the weight to the step's as soon as the pods for it are ready; the step's time begins then. Where room was
    /// short, it is raised again when there is more.
    fn raise_weight(&mut self) {
        let capacity = &self.facts.capacity;
        let wanted = self.step().weight_basis_points;
        if let Some(weight) = weight_for(self.facts.canary_ready, wanted, capacity, self.strategy()) {
            self.state.weight_basis_points = weight.max(self.state.weight_basis_points);
            self.state.step_since_ms.get_or_insert(self.now_ms);
        }
    }

    /// A lone pod looks slow: another one would tell whether it is its node. Where none comes, the doubt ends with a person.
    fn confirm(&mut self) {
        self.state.extra_pods = self.state.extra_pods.max(1);
        let since = *self.state.suspect_since_ms.get_or_insert(self.now_ms);
        let limit = self.step().max_duration_ms.max(self.plan.load_deadline_ms);
        if self.now_ms.saturating_sub(since) >= limit {
            self.inconclusive("the pod looks slow, or its node, and no other one came that would tell");
        }
    }

    /// Users of the canary wait longer: one more pod, then one step back, then a person.
    fn hold(&mut self) {
        let Some(since) = self.state.hold_since_ms else {
            self.state.hold_since_ms = Some(self.now_ms);
            self.state.extra_pods = (self.state.extra_pods + 1).min(EXTRA_PODS_MAX);
            return;
        };
        let age = self.now_ms.saturating_sub(since);
        let is_coming = self.facts.canary_ready < self.pods_wanted() && age < self.plan.load_deadline_ms;
        if is_coming || age < HOLD_BLOCKS * self.plan.analysis.block_ms {
            return;
        }
        self.state.hold_since_ms = None;
        self.state.steps_back += 1;
        if self.state.steps_back >= STEPS_BACK_MAX {
            self.inconclusive(
                "canary users keep missing more objectives although it got pods and less traffic",
            );
            return;
        }
        self.state.step = self.state.step.saturating_sub(1);
        self.state.step_since_ms = None;
        self.state.weight_basis_points = self.state.weight_basis_points.min(self.step().weight_basis_points);
    }

    /// A step ends by proof, or quietly by its time. → next step, `Paused`, `Inconclusive`, `Promoting`
    fn end_step(&mut self, verdict: &Verdict) {
        let Some(began) = self.state.step_since_ms else {
            // The step's weight waits for pods; that, too, has an end.
            if self.is_over(self.step().max_duration_ms.max(self.plan.load_deadline_ms)) {
                self.inconclusive("the pods for the next step did not become ready");
            }
            return;
        };
        let step = self.step();
        let age = self.now_ms.saturating_sub(began);
        let is_proven =
            verdict.outcome == Outcome::Pass && (!self.is_last_analysed() || verdict.is_error_rate_proven);
        if is_proven && age >= step.min_duration_ms {
            self.ends_step = true;
            // Evidence is that of the whole rollout, so the proof is, too.
            self.state.is_underpowered = false;
            match step.gate {
                Gate::Auto => self.next_step("within tolerance"),
                Gate::Manual => self.enter(Phase::Paused, "within tolerance; a person has to say go on"),
            }
        } else if age >= step.max_duration_ms.max(step.min_duration_ms) {
            self.ends_step = true;
            self.state.is_underpowered = true;
            match self.plan.underpowered {
                UnderpoweredPolicy::Promote => {
                    self.next_step("quiet, but with too few pods or too little time to prove it");
                }
                UnderpoweredPolicy::Pause => {
                    self.enter(Phase::Paused, "quiet, but with too few pods or too little time to prove it");
                }
            }
        }
    }

    /// → `Inconclusive`, next step, or `RollingBack`, as the owner chose
    fn inconclusive(&mut self, why: &str) {
        self.state.suspect_since_ms = None;
        match self.plan.inconclusive {
            InconclusivePolicy::Pause => self.enter(Phase::Inconclusive, why),
            InconclusivePolicy::Promote => self.next_step(why),
            InconclusivePolicy::Rollback => self.go_back(Phase::RolledBack, why),
        }
    }

    /// → `Analysing`, `Promoting`
    fn next_step(&mut self, why: &str) {
        (self.state.hold_since_ms, self.state.suspect_since_ms) = (None, None);
        self.state.step += 1;
        if self.is_last_step() {
            self.enter(Phase::Promoting, why);
        } else {
            self.enter(Phase::Analysing, why);
            self.state.step_since_ms = None;
            self.raise_weight();
        }
    }

    /// Nobody answers: a gate that a person asked for stays open, anything else ends. → `RollingBack`
    fn wait(&mut self) {
        let is_asked_for = self.state.phase == Phase::Paused && self.step().gate == Gate::Manual;
        if !is_asked_for && self.is_over(self.plan.progress_deadline_ms) {
            self.go_back(Phase::Aborted, "nobody decided before the progress deadline");
        }
    }

    /// → `Completed`, `RollingBack`
    fn promote(&mut self) {
        let fleet = self.facts.capacity.fleet_pods.max(1);
        if self.facts.canary_ready >= fleet {
            self.state.weight_basis_points = 0;
            self.state.stable = self.facts.wanted.clone();
            self.state.canary = None;
            self.state.verdict = self.verdict().cloned();
            self.enter(Phase::Completed, "");
        } else if self.is_over(self.plan.progress_deadline_ms) {
            self.go_back(Phase::Aborted, "promotion did not finish before the progress deadline");
        } else {
            let part = match self.strategy() {
                Strategy::InPlace => in_place_weight(self.facts.canary_ready, &self.facts.capacity),
                _ => u16::try_from(10_000 * self.facts.canary_ready / fleet).unwrap_or(10_000),
            };
            self.state.weight_basis_points = self.state.weight_basis_points.max(part);
        }
    }

    /// → `RolledBack`, `Aborted`, `Killed`, `Stable`
    fn drain(&mut self) {
        if self.facts.canary_pods == 0 || self.is_over(self.plan.progress_deadline_ms) {
            self.state.canary = None;
            let (ending, message) = (self.state.ending, self.state.message.clone());
            self.enter(ending, &message);
        }
    }

    /// All traffic to stable, now. What failed is remembered, or a spec that still asks for it would start it again.
    fn go_back(&mut self, ending: Phase, why: &str) {
        self.state.weight_basis_points = 0;
        (self.state.hold_since_ms, self.state.suspect_since_ms) = (None, None);
        self.state.ending = ending;
        if ending != Phase::Stable
            && let Some(revision) = self.state.canary.clone()
        {
            self.state.failed.retain(|failed| failed.revision != revision);
            self.state.failed.push(Failed { revision, retry_token: self.facts.retry_token.clone() });
            if self.state.failed.len() > FAILED_MAX {
                self.state.failed.remove(0);
            }
        }
        self.enter(Phase::RollingBack, why);
    }

    fn has_failed(&self, revision: &str) -> bool {
        let is_same =
            |failed: &Failed| failed.revision == revision && failed.retry_token == self.facts.retry_token;
        self.state.failed.iter().any(is_same)
    }

    fn enter(&mut self, phase: Phase, why: &str) {
        self.state.phase = phase;
        self.state.since_ms = self.now_ms;
        why.clone_into(&mut self.state.message);
    }

    /// The verdict, if it is about this canary.
    fn verdict(&self) -> Option<&Verdict> {
        let (revision, verdict) = self.facts.verdict.as_ref()?;
        (Some(revision) == self.state.canary.as_ref()).then_some(verdict)
    }

    fn strategy(&self) -> Strategy {
        self.state.strategy.unwrap_or(Strategy::Surge)
    }

    fn step(&self) -> Step {
        let last = || Step { weight_basis_points: 10_000, ..Step::default() };
        self.plan.steps.get(self.state.step).copied().unwrap_or_else(last)
    }

    /// Whether the step gives everything to the canary: that is promotion, and nothing is left to compare with.
    fn is_last_step(&self) -> bool {
        self.step().weight_basis_points >= 10_000
    }

    fn is_last_analysed(&self) -> bool {
        self.plan.steps.get(self.state.step + 1).is_none_or(|next| next.weight_basis_points >= 10_000)
    }

    fn is_over(&self, limit_ms: u64) -> bool {
        self.now_ms >= self.state.since_ms.saturating_add(limit_ms)
    }

    fn pods_wanted(&self) -> u32 {
        let capacity = &self.facts.capacity;
        match self.state.phase {
            Phase::Promoting => capacity.fleet_pods.max(1),
            phase if phase.is_running() && phase != Phase::CapacityCheck => {
                canary_pods(self.step().weight_basis_points, capacity, self.strategy())
                    + self.state.extra_pods
            }
            _ => 0,
        }
    }

    fn next(self) -> Next {
        let requeue_ms = match self.state.phase {
            Phase::Analysing => WHILE_ANALYSING_MS,
            phase if phase.is_running() || phase == Phase::RollingBack => WHILE_MOVING_MS,
            _ => WHILE_STILL_MS,
        };
        let canary_pods = self.pods_wanted();
        let split = Split {
            stable: self.state.stable.clone(),
            canary: self.state.canary.clone().filter(|_| self.state.weight_basis_points > 0),
            weight_basis_points: self.state.weight_basis_points,
            is_rejecting: self.facts.kill_switch == KillSwitch::Model,
        };
        Next { split, canary_pods, ends_step: self.ends_step, requeue_ms, state: self.state }
    }
}
