//! What the pods of a canary will be able to tell, while it has them or is about to. Pure.

use judgement::rollout::{Analysis, Capacity, Foresight, Phase, Plan, State, Strategy, canary_pods, foresee};

use crate::rollout::ALL;

/// What `plan` can tell with the most pods that `state` leads to; `pod_sd` is how much they differ, if that was measured.
pub(super) fn foresight(
    plan: &Plan,
    state: &State,
    capacity: &Capacity,
    pod_sd: Option<f64>,
) -> Option<Foresight> {
    let phases = [Phase::Loading, Phase::Warmup, Phase::Analysing, Phase::Paused, Phase::Inconclusive];
    let strategy = state.strategy.filter(|_| phases.contains(&state.phase))?;
    let compared = plan.steps.iter().map(|step| step.weight_basis_points);
    let weight = compared.filter(|weight| i32::from(*weight) < ALL).max().filter(|weight| *weight > 0)?;
    let canary = canary_pods(weight, capacity, strategy);
    let stable = match strategy {
        Strategy::Surge => capacity.fleet_pods,
        Strategy::InPlace => capacity.fleet_pods.saturating_sub(canary),
        Strategy::HotSwap | Strategy::Recreate => return None,
    };
    let analysis = Analysis { pod_sd: pod_sd.unwrap_or(plan.analysis.pod_sd), ..plan.analysis.clone() };
    foresee(&analysis, canary, stable)
}
