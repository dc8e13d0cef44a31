//! What is true of a rollout now, in the words of the judgement. Pure.

use crds::model::{InferenceModel, InferenceModelSpec, RolloutAction, RolloutCommand};
use judgement::rollout::{
    Action, Command, Facts, KillSwitch, Outcome, Phase, Reason as Finding, State, Verdict,
};

use super::bounds::Bounds;
use super::{Scene, find, is_enforced, room};
use crate::golden::standing::Standing;
use crate::pod::Reading;
use crate::problem::{Problem, Reason};
use crate::status::PROBE_FAILURES_MAX;

/// Ends of a server in a row that are no accident of its node.
const RESTARTS_MIN: i32 = 2;

/// The spec's command, unless it has been looked at.
pub(super) fn new_command<'spec>(
    spec: &'spec InferenceModelSpec,
    acknowledged: Option<&RolloutAction>,
) -> Option<&'spec RolloutAction> {
    let command = spec.rollout.as_ref()?.action.as_ref()?;
    (acknowledged != Some(command)).then_some(command)
}

/// What is true now of the rollout that stands at `before`.
pub(super) fn facts(
    model: &InferenceModel,
    scene: &Scene<'_>,
    before: &State,
    command: Option<&RolloutAction>,
) -> Facts {
    let spec = &model.spec;
    let target = find(scene, scene.target);
    let count = |count: i32| u32::try_from(count).unwrap_or(0);
    let ready =
        target.filter(|_| scene.is_proven).map_or(0, |target| count(target.ready.min(target.replicas_told)));
    Facts {
        wanted: scene.target.to_owned(),
        retry_token: retry_token(spec),
        action: command.map(|command| Action {
            command: match command.command {
                RolloutCommand::Promote => Command::Promote,
                RolloutCommand::PromoteFull => Command::PromoteFull,
                RolloutCommand::Pause => Command::Pause,
                RolloutCommand::Abort => Command::Abort,
            },
            revision: command.revision.clone(),
            generation: before.acknowledged + 1,
        }),
        kill_switch: match spec.kill_switch.unwrap_or_default() {
            crds::model::KillSwitch::Off => KillSwitch::Off,
            crds::model::KillSwitch::Rollout => KillSwitch::Rollout,
            crds::model::KillSwitch::Model => KillSwitch::Model,
        },
        capacity: room::capacity(room::wish(spec), before, scene, Bounds::of(spec, scene.fleet)),
        canary_ready: ready,
        canary_pods: u32::try_from(scene.canary_pods).unwrap_or(u32::MAX),
        canary_refusal: refusal(scene, before),
        verdict: verdict(spec, scene, before),
    }
}

fn retry_token(spec: &InferenceModelSpec) -> String {
    spec.rollout.as_ref().and_then(|rollout| rollout.retry_token.clone()).unwrap_or_default()
}

/// What follows from a verdict that is only told is the end of the step's time.
fn verdict(spec: &InferenceModelSpec, scene: &Scene<'_>, before: &State) -> Option<(String, Verdict)> {
    if is_enforced(spec) {
        return scene.verdict.map(|seen| (seen.canary.clone(), seen.verdict.clone()));
    }
    let nothing = Verdict {
        outcome: Outcome::Continue,
        reason: Finding::Watching,
        sentence: String::new(),
        metrics: Vec::new(),
        is_error_rate_proven: false,
        budget_used: 0.0,
        pod_sd: None,
        pods_needed: None,
        outliers: Vec::new(),
    };
    Some((before.canary.clone()?, nothing))
}

/// Why the canary can never start: its pods say something that time does not cure, give no token, or answer golden
/// prompts wrongly.
fn refusal(scene: &Scene<'_>, before: &State) -> Option<String> {
    let is_young = matches!(before.phase, Phase::Loading | Phase::Warmup);
    let has_none_ready = find(scene, scene.target).is_none_or(|target| target.ready == 0);
    let final_problem = scene.readings.iter().find_map(lasting);
    let of_pods = final_problem.filter(|_| is_young && has_none_ready).map(|problem| problem.message.clone());
    if let Some(Standing::Failed(message)) = scene.golden {
        return Some(message.clone());
    }
    of_pods.or_else(|| {
        let proof =
            scene.proof.filter(|proof| proof.failures >= PROBE_FAILURES_MAX && !proof.is_unreached)?;
        let error = proof.error.as_deref().unwrap_or("unknown");
        Some(format!("its pods are ready and give no token: {error}"))
    })
}

/// A problem that waiting does not cure.
fn lasting(reading: &Reading) -> Option<&Problem> {
    reading.problem.as_ref().filter(|problem| match problem.reason {
        Reason::SourceNotFound
        | Reason::SourceForbidden
        | Reason::NotGGUF
        | Reason::ModelTruncated
        | Reason::ModelInvalid
        | Reason::DigestMismatch
        | Reason::DoesNotFit
        | Reason::StorageFull => true,
        Reason::EngineLost => reading.restarts >= RESTARTS_MIN,
        _ => false,
    })
}

/// A deadline says that something did not happen; what hindered the pods, or was in their place, says why.
pub(super) fn name_cause(state: &mut State, scene: &Scene<'_>, obstacle: Option<String>) {
    let problem = scene.readings.iter().find_map(|reading| reading.problem.as_ref());
    let refused = || find(scene, scene.target)?.refusal.clone();
    let cause = obstacle.or_else(|| problem.map(|problem| problem.message.clone())).or_else(refused);
    if let Some(cause) =
        cause.filter(|cause| state.ending == Phase::Aborted && !state.message.contains(cause))
    {
        state.message = format!("{}: {cause}", state.message);
    }
}
