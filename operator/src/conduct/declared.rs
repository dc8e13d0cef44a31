//! What the spec says of a rollout, in the words of the judgement. Pure.

use crds::model::{
    InconclusivePolicy, InferenceModelSpec, RolloutPolicy, RolloutStep, StepGate, UnderpoweredPolicy,
};
use judgement::rollout::{self, Gate, Plan, Step};

use super::is_enforced;
use crate::rollout::ALL;
use crate::trial;

/// How the rollout goes that stands at `step`. A gate that a person opens stays shut also when a step ends without a proof.
pub fn declared(spec: &InferenceModelSpec, step: usize) -> Plan {
    let policy = spec.rollout.clone().unwrap_or_default();
    let defaults = Plan::default();
    let steps = steps(&policy);
    let is_manual = steps.get(step).is_some_and(|step| step.gate == Gate::Manual);
    Plan {
        analysis: trial::analysis(spec),
        inconclusive: inconclusive(&policy),
        underpowered: if is_manual {
            rollout::UnderpoweredPolicy::Pause
        } else {
            underpowered(spec, &policy)
        },
        capacity_deadline_ms: ms(policy.capacity_deadline_seconds, defaults.capacity_deadline_ms),
        load_deadline_ms: ms(policy.load_deadline_seconds, defaults.load_deadline_ms),
        warmup_ms: ms(policy.warmup_seconds, defaults.warmup_ms),
        progress_deadline_ms: ms(policy.progress_deadline_seconds, defaults.progress_deadline_ms),
        steps,
    }
}

/// The steps, or the usual ones.
pub fn steps(policy: &RolloutPolicy) -> Vec<Step> {
    if policy.steps.is_empty() {
        return Plan::default().steps;
    }
    policy.steps.iter().map(declared_step).collect()
}

fn declared_step(step: &RolloutStep) -> Step {
    let defaults = Step::default();
    let percent = step.weight_percent.map(|percent| percent.clamp(0, 100) * 100);
    let weight = step.weight_basis_points.or(percent).unwrap_or(0).clamp(0, ALL);
    Step {
        weight_basis_points: u16::try_from(weight).unwrap_or(0),
        min_duration_ms: ms(step.min_duration_seconds, defaults.min_duration_ms),
        max_duration_ms: ms(step.max_duration_seconds, defaults.max_duration_ms),
        gate: match step.gate.unwrap_or_default() {
            StepGate::Auto => Gate::Auto,
            StepGate::Manual => Gate::Manual,
        },
    }
}

fn inconclusive(policy: &RolloutPolicy) -> rollout::InconclusivePolicy {
    let declared = policy.analysis.as_ref().and_then(|analysis| analysis.inconclusive_policy);
    match declared.unwrap_or_default() {
        InconclusivePolicy::Pause => rollout::InconclusivePolicy::Pause,
        InconclusivePolicy::Promote => rollout::InconclusivePolicy::Promote,
        InconclusivePolicy::Rollback => rollout::InconclusivePolicy::Rollback,
    }
}

/// Who only observes proves nothing on purpose.
fn underpowered(spec: &InferenceModelSpec, policy: &RolloutPolicy) -> rollout::UnderpoweredPolicy {
    let declared = policy.analysis.as_ref().and_then(|analysis| analysis.underpowered_policy);
    match declared.filter(|_| is_enforced(spec)).unwrap_or_default() {
        UnderpoweredPolicy::Promote => rollout::UnderpoweredPolicy::Promote,
        UnderpoweredPolicy::Pause => rollout::UnderpoweredPolicy::Pause,
    }
}

fn ms(seconds: Option<i32>, default_ms: u64) -> u64 {
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(default_ms, |seconds| seconds * 1_000)
}
