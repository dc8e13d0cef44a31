//! Every order of events up to depth 8 through the state machine of a rollout, with states that are alike walked once.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use judgement::rollout::{
    Action, Analysis, Capacity, Command, Evidence, Facts, Gate, InconclusivePolicy, KillSwitch, Next,
    Outcome, Phase, Plan, Reason, State, UnderpoweredPolicy, Verdict, advance, judge,
};

const DEPTH: usize = 8;
const MINUTE_MS: u64 = 60_000;
/// Longer than any deadline of the plans.
const LONG_MS: u64 = 120 * MINUTE_MS;
/// A revision that no spec asks for.
const NEVER_ON_TRIAL: &str = "z";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Event {
    /// A minute passes.
    Minute,
    /// Two hours pass.
    Long,
    Ready,
    NotReady,
    Gone,
    Say(Outcome, bool),
    /// A verdict about a revision that is not on trial.
    SayOfAnother,
    Do(Command),
    /// A command for a revision that is not on trial.
    DoToAnother,
    Want(&'static str),
    Kill(KillSwitch),
    Retry,
    Refused,
}

const EVENTS: [Event; 26] = [
    Event::Minute,
    Event::Long,
    Event::Ready,
    Event::NotReady,
    Event::Gone,
    Event::Say(Outcome::Continue, false),
    Event::Say(Outcome::Pass, false),
    Event::Say(Outcome::Pass, true),
    Event::Say(Outcome::Rollback, false),
    Event::Say(Outcome::Suspect, false),
    Event::Say(Outcome::Hold, false),
    Event::Say(Outcome::Pause, false),
    Event::Say(Outcome::Inconclusive, false),
    Event::SayOfAnother,
    Event::Do(Command::Promote),
    Event::Do(Command::PromoteFull),
    Event::Do(Command::Pause),
    Event::Do(Command::Abort),
    Event::DoToAnother,
    Event::Want("a"),
    Event::Want("b"),
    Event::Want("c"),
    Event::Kill(KillSwitch::Off),
    Event::Kill(KillSwitch::Rollout),
    Event::Retry,
    Event::Refused,
];

#[derive(Clone)]
struct World {
    state: State,
    facts: Facts,
    now_ms: u64,
    pods_told: u32,
}

fn verdict(outcome: Outcome, is_error_rate_proven: bool) -> Verdict {
    let reason = match outcome {
        Outcome::Rollback => Reason::DecodeSlower,
        Outcome::Suspect => Reason::ConfirmingPod,
        Outcome::Hold => Reason::UnequalExperience,
        Outcome::Pause => Reason::OutputLengthChanged,
        Outcome::Inconclusive => Reason::TrafficSkew,
        Outcome::Pass => Reason::WithinTolerance,
        Outcome::Continue => Reason::Watching,
    };
    Verdict { outcome, reason, is_error_rate_proven, ..NOTHING_SEEN.clone() }
}

/// What other figures a verdict has does not matter here.
static NOTHING_SEEN: LazyLock<Verdict> = LazyLock::new(|| {
    let verdict = judge(&Evidence::new(Analysis::default(), "a"));
    Verdict { metrics: Vec::new(), sentence: String::new(), ..verdict }
});

fn capacity(pods: u32) -> Capacity {
    Capacity {
        spare_pods: Some(pods),
        fleet_pods: pods,
        demand_pods: 0.5,
        fits_beside: false,
        allows_recreate: false,
    }
}

impl World {
    fn new() -> Self {
        let facts = Facts {
            wanted: "b".to_owned(),
            retry_token: "1".to_owned(),
            action: None,
            kill_switch: KillSwitch::Off,
            capacity: capacity(4),
            canary_ready: 0,
            canary_pods: 0,
            canary_refusal: None,
            verdict: None,
        };
        Self { state: State::new("a", 0), facts, now_ms: 0, pods_told: 0 }
    }

    /// What `event` changes, and what the machine makes of it.
    fn after(&self, event: Event, plan: &Plan) -> (Self, Next) {
        let mut world = self.clone();
        let canary = world.state.canary.clone().unwrap_or_else(|| "b".to_owned());
        let generation = world.state.acknowledged + 1;
        world.now_ms += MINUTE_MS;
        let facts = &mut world.facts;
        match event {
            Event::Minute => {}
            Event::Long => world.now_ms += LONG_MS,
            Event::Ready => (facts.canary_ready, facts.canary_pods) = (world.pods_told, world.pods_told),
            Event::NotReady => facts.canary_ready = 0,
            Event::Gone => (facts.canary_ready, facts.canary_pods) = (0, 0),
            Event::Say(outcome, is_proven) => facts.verdict = Some((canary, verdict(outcome, is_proven))),
            Event::SayOfAnother => {
                facts.verdict = Some((NEVER_ON_TRIAL.to_owned(), verdict(Outcome::Pass, true)));
            }
            Event::Do(command) => facts.action = Some(Action { command, revision: canary, generation }),
            Event::DoToAnother => {
                facts.action = Some(Action {
                    command: Command::PromoteFull,
                    revision: NEVER_ON_TRIAL.to_owned(),
                    generation,
                });
            }
            Event::Want(revision) => revision.clone_into(&mut facts.wanted),
            Event::Kill(switch) => facts.kill_switch = switch,
            Event::Retry => facts.retry_token = format!("{}+", facts.retry_token.len() % 2),
            Event::Refused => facts.canary_refusal = Some("DoesNotFit".to_owned()),
        }
        let next = advance(world.state.clone(), plan, &world.facts, world.now_ms);
        world.facts.canary_refusal = None;
        world.state = next.state.clone();
        world.pods_told = next.canary_pods;
        (world, next)
    }

    /// Alike are worlds that differ only in what time it is: no duration of the plans lies between two minutes and the
    /// deadlines, and so few events without [`Event::Long`] do not reach these, so that ages in between need not be told
    /// apart; nor need which token a revision failed with, as long as it is the present one or not.
    fn key(&self) -> u64 {
        let (state, facts) = (&self.state, &self.facts);
        let age = |since: u64| {
            ((self.now_ms - since) / MINUTE_MS).min(2) + u64::from(self.now_ms - since > 100 * MINUTE_MS)
        };
        let since = [state.step_since_ms, state.hold_since_ms, state.suspect_since_ms];
        let ages = (age(state.since_ms), since.map(|since| since.map(age)));
        let ended_by = state.verdict.as_ref().map(|found| found.outcome);
        let failed: BTreeSet<(&str, bool)> = state
            .failed
            .iter()
            .map(|failed| (failed.revision.as_str(), failed.retry_token == facts.retry_token))
            .collect();
        let said = facts.verdict.as_ref().filter(|(of, _)| of != NEVER_ON_TRIAL);
        let said = said.map(|(of, found)| (of, found.outcome, found.is_error_rate_proven));
        let pending = facts.action.as_ref().filter(|action| action.generation > state.acknowledged);
        let pending = pending.map(|action| (action.command, &action.revision));
        let mut hasher = DefaultHasher::new();
        (state.phase, &state.stable, &state.canary, state.step, state.weight_basis_points).hash(&mut hasher);
        (state.strategy, state.extra_pods, state.steps_back, &state.accepted).hash(&mut hasher);
        (state.ending, state.is_underpowered, ages, ended_by, failed).hash(&mut hasher);
        (&facts.wanted, facts.kill_switch, facts.canary_ready, facts.canary_pods, self.pods_told)
            .hash(&mut hasher);
        (said, pending).hash(&mut hasher);
        hasher.finish()
    }
}

/// On the way back, or already there because there was no pod to wait for.
fn is_going_back(phase: Phase) -> bool {
    matches!(phase, Phase::RollingBack | Phase::RolledBack | Phase::Aborted | Phase::Killed | Phase::Stable)
}

/// What must hold of every single transition.
fn check(before: &World, event: Event, after: &World, next: &Next) {
    let (from, to) = (&before.state, &after.state);
    let context = || format!("{event:?}: {from:?} -> {to:?}");
    let has_traffic = next.split.weight_basis_points > 0;
    assert_eq!(next.split.canary.is_some(), has_traffic, "{}", context());
    if !to.phase.is_running() {
        assert!(!has_traffic, "traffic without a rollout; {}", context());
    }
    if matches!(to.phase, Phase::CapacityCheck | Phase::Loading | Phase::Warmup) {
        assert!(!has_traffic, "traffic before the canary is warm; {}", context());
    }
    let is_for_it = after.facts.kill_switch == KillSwitch::Off && after.facts.wanted != from.stable;
    if event == Event::Do(Command::Abort) && from.phase.is_running() {
        assert!(is_going_back(to.phase), "{}", context());
    }
    if after.facts.kill_switch != KillSwitch::Off {
        assert!(!has_traffic, "the kill switch is on; {}", context());
    }
    if to.stable != from.stable {
        assert_eq!((from.phase, to.phase), (Phase::Promoting, Phase::Completed), "{}", context());
        assert_eq!(
            Some(&to.stable),
            from.canary.as_ref(),
            "another than the canary was promoted; {}",
            context()
        );
        assert!(is_for_it && to.stable == after.facts.wanted, "{}", context());
    }
    if from.phase == Phase::RollingBack {
        let ends = [Phase::RollingBack, Phase::RolledBack, Phase::Aborted, Phase::Killed, Phase::Stable];
        assert!(ends.contains(&to.phase), "a way back was left; {}", context());
        assert!(to.phase == Phase::RollingBack || to.phase == from.ending, "{}", context());
    }
    if from.phase == Phase::RolledBack && after.facts.wanted != from.stable {
        let is_known = from.failed.iter().any(|failed| {
            failed.revision == after.facts.wanted && failed.retry_token == after.facts.retry_token
        });
        assert!(!is_known || to.phase == Phase::RolledBack, "a failed revision began again; {}", context());
        assert!(!is_known || to.verdict == from.verdict, "a verdict changed; {}", context());
    }
    let judged = after.facts.verdict.as_ref().filter(|(of, _)| Some(of) == from.canary.as_ref());
    let is_bad = judged.is_some_and(|(_, found)| found.outcome == Outcome::Rollback);
    let is_suspect = judged.is_some_and(|(_, found)| found.outcome == Outcome::Suspect);
    if let (true, Phase::Analysing, Some(since)) = (is_suspect, to.phase, to.suspect_since_ms) {
        assert!(after.now_ms - since < LONG_MS, "suspect for ever; {}", context());
    }
    if (judged, from.phase, to.phase) == (None, Phase::Analysing, Phase::Analysing) {
        assert!(after.now_ms - to.since_ms < LONG_MS, "a step without a verdict for ever; {}", context());
    }
    if is_bad && from.phase.is_running() {
        assert!(is_going_back(to.phase), "{}", context());
    }
    if (from.phase, to.phase) == (Phase::Promoting, Phase::Promoting) {
        assert!(to.weight_basis_points >= from.weight_basis_points, "taken back; {}", context());
    }
    if to.weight_basis_points > from.weight_basis_points && to.phase == Phase::Analysing {
        assert!(after.facts.canary_ready >= 2, "weight without pods; {}", context());
    }
    let is_told = matches!(event, Event::Do(Command::Promote | Command::PromoteFull));
    if to.phase == Phase::Promoting && from.phase == Phase::Analysing && !is_told && !to.is_underpowered {
        let is_proven =
            judged.is_some_and(|(_, found)| found.outcome == Outcome::Pass && found.is_error_rate_proven);
        assert!(is_proven, "promoted without proof; {}", context());
    }
}

fn walk(plan: &Plan) -> usize {
    let mut frontier = vec![World::new()];
    let mut seen: HashSet<u64> = HashSet::new();
    for _ in 0..DEPTH {
        let mut reached = Vec::new();
        for world in &frontier {
            for event in EVENTS {
                let (after, next) = world.after(event, plan);
                check(world, event, &after, &next);
                if seen.insert(after.key()) {
                    reached.push(after);
                }
            }
        }
        frontier = reached;
    }
    seen.len()
}

fn short_plan() -> Plan {
    let mut plan = Plan::default();
    plan.steps.remove(1);
    plan.steps[0].min_duration_ms = MINUTE_MS;
    plan.steps[1].min_duration_ms = MINUTE_MS;
    // A hold lasts ten blocks.
    plan.analysis.block_ms = MINUTE_MS / 10;
    plan
}

#[test]
fn all_orders_of_events_to_depth_eight_keep_the_promises() {
    assert!(walk(&short_plan()) > 2_000);
}

#[test]
fn they_hold_with_manual_gates_and_the_other_policies() {
    let mut plan = short_plan();
    plan.steps[0].gate = Gate::Manual;
    (plan.inconclusive, plan.underpowered) = (InconclusivePolicy::Rollback, UnderpoweredPolicy::Pause);
    assert!(walk(&plan) > 2_000);
}

/// Drives a rollout by named events.
fn drive(plan: &Plan, events: &[Event]) -> World {
    events.iter().fold(World::new(), |world, &event| world.after(event, plan).0)
}

#[test]
fn an_abort_ends_at_weight_zero_from_wherever_it_comes() {
    let plan = short_plan();
    let pass = Event::Say(Outcome::Pass, true);
    let path =
        [Event::Minute, Event::Ready, Event::Minute, pass, Event::Minute, Event::Ready, Event::Minute, pass];
    for length in 1..=path.len() {
        let world = drive(&plan, &path[..length]);
        if !world.state.phase.is_running() {
            continue;
        }
        let (world, next) = world.after(Event::Do(Command::Abort), &plan);
        assert_eq!(next.split.weight_basis_points, 0);
        assert!(is_going_back(world.state.phase));
        let (world, next) = world.after(Event::Gone, &plan);
        assert_eq!((next.split.weight_basis_points, world.state.phase), (0, Phase::Aborted));
        assert_eq!(world.state.stable, "a");
    }
}

#[test]
fn a_proven_canary_is_promoted_step_by_step() {
    let plan = short_plan();
    let pass = Event::Say(Outcome::Pass, true);
    let mut world = drive(&plan, &[Event::Minute, Event::Ready, Event::Minute]);
    assert_eq!((world.state.phase, world.state.weight_basis_points), (Phase::Analysing, 1_000));
    world = world.after(pass, &plan).0;
    assert_eq!(
        (world.state.step, world.state.weight_basis_points),
        (1, 1_000),
        "half of the traffic waits for pods"
    );
    world = world.after(Event::Ready, &plan).0;
    assert_eq!(world.state.weight_basis_points, 5_000);
    world = world.after(Event::Minute, &plan).0;
    assert_eq!(world.state.phase, Phase::Promoting);
    world = world.after(Event::Ready, &plan).0;
    assert_eq!((world.state.phase, world.state.stable.as_str()), (Phase::Completed, "b"));
}

#[test]
fn two_holds_and_it_is_not_the_pods() {
    let hold = Event::Say(Outcome::Hold, false);
    let world = drive(&short_plan(), &[Event::Minute, Event::Ready, Event::Minute, hold]);
    assert_eq!((world.state.extra_pods, world.state.phase), (1, Phase::Analysing));
    let waiting = world.after(Event::Minute, &short_plan()).0.after(Event::Minute, &short_plan()).0;
    assert_eq!(waiting.state.steps_back, 0, "the pod that was asked for has not come yet");
    let mut world = waiting;
    for _ in 0..4 {
        world = world.after(Event::Ready, &short_plan()).0;
        world = world.after(Event::Minute, &short_plan()).0;
    }
    assert_eq!(world.state.phase, Phase::Inconclusive);
    assert_eq!(world.state.weight_basis_points, 1_000, "nobody was moved to blame the revision");
}

#[test]
fn a_step_that_nobody_can_judge_ends_with_a_person() {
    let plan = short_plan();
    let mut world = drive(&plan, &[Event::Minute, Event::Ready, Event::Minute, Event::Minute]);
    world.now_ms = world.state.since_ms + plan.progress_deadline_ms - 2 * MINUTE_MS;
    world = world.after(Event::Minute, &plan).0;
    assert_eq!(world.state.phase, Phase::Analysing, "a minute is left");
    world = world.after(Event::Minute, &plan).0;
    assert_eq!((world.state.phase, world.state.weight_basis_points), (Phase::Inconclusive, 1_000));
    assert!(world.state.message.contains("nothing was reported"), "{}", world.state.message);
}

#[test]
fn a_failed_revision_is_tried_again_for_another_token_only() {
    let plan = short_plan();
    let bad = Event::Say(Outcome::Rollback, false);
    let mut world = drive(&plan, &[Event::Minute, Event::Ready, Event::Minute, bad, Event::Gone]);
    assert_eq!(world.state.phase, Phase::RolledBack);
    world = world.after(Event::Long, &plan).0;
    assert_eq!(world.state.phase, Phase::RolledBack);
    world = world.after(Event::Retry, &plan).0;
    assert_ne!(world.state.phase, Phase::RolledBack);
}

#[test]
fn an_edit_in_the_middle_goes_back_first_and_then_on_to_the_third() {
    let plan = short_plan();
    let mut world = drive(&plan, &[Event::Minute, Event::Ready, Event::Minute, Event::Want("c")]);
    assert_eq!((world.state.phase, world.state.weight_basis_points), (Phase::RollingBack, 0));
    world = world.after(Event::Gone, &plan).0;
    world = world.after(Event::Minute, &plan).0;
    assert_eq!(world.state.canary.as_deref(), Some("c"));
    let failed: Vec<&str> = world.state.failed.iter().map(|failed| failed.revision.as_str()).collect();
    assert!(failed.is_empty(), "what was replaced has not failed: {failed:?}");
}

#[test]
fn a_state_goes_on_after_it_was_stored() {
    let plan = short_plan();
    let world = drive(&plan, &[Event::Minute, Event::Ready, Event::Minute, Event::Say(Outcome::Hold, false)]);
    let stored: State = serde_json::from_str(&serde_json::to_string(&world.state).unwrap()).unwrap();
    let now = world.now_ms + MINUTE_MS;
    assert_eq!(advance(stored, &plan, &world.facts, now), advance(world.state, &plan, &world.facts, now));
}
