//! A rollout as the operator drives it: the verdict moves the weight, through the operator's own state machine.

use judgement::rollout::{
    Analysis, Arm, Capacity, Evidence, Facts, KillSwitch, Phase, Plan, Reason, State, Verdict, advance, judge,
};

use super::fleet::{Fleet, TICK_MS, WARM_UP_S};
use super::ramp::{END_S, LOAD_S};
use super::telemetry::{NODE_CLASS, Telemetry, milliseconds};
use super::world::{Material, World};

/// The judge learns from control since then.
const LEARN_FROM_S: f64 = -300.0;
/// When the new revision is asked for: its pods load for a minute and warm up for half of one, so that the canary has
/// its first traffic at about 0.
const ASKED_S: f64 = -90.0;

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// Minutes from the first traffic until all of it was promised to the canary.
    pub promoted_minutes: Option<f64>,
    /// Minutes until it was taken back.
    pub rollback_minutes: Option<f64>,
    /// Canary requests until then.
    pub exposure: u64,
    /// Why it was taken back.
    pub reason: Option<Reason>,
    /// The last verdict and what it was made from, for replay.
    pub verdict: Option<Verdict>,
    /// See `verdict`.
    pub evidence: Evidence,
}

/// Runs `world` with `seed` until it is promoted, rolled back, or half an hour is over.
pub fn run(world: &World, material: &Material, seed: u64, analysis: &Analysis) -> Ending {
    let plan = Plan { analysis: analysis.clone(), ..Plan::default() };
    let mut fleet = Fleet::new(world, material, seed, END_S);
    let mut telemetry = Telemetry::new(world, seed);
    let mut state = State::new("stable", 0);
    let mut ends_step = false;
    let mut ending = Ending {
        promoted_minutes: None,
        rollback_minutes: None,
        exposure: 0,
        reason: None,
        verdict: None,
        evidence: Evidence::new(analysis.clone(), NODE_CLASS),
    };
    let mut at_s = -WARM_UP_S;
    while at_s < END_S {
        at_s += TICK_MS / 1_000.0;
        fleet.run_until(1_000.0 * at_s);
        fleet.tick();
        let weight = fleet.weight_basis_points;
        let mut observation = telemetry.collect(world, &mut fleet, weight);
        if at_s <= LEARN_FROM_S {
            continue;
        }
        observation.ends_step = std::mem::take(&mut ends_step);
        ending.evidence.observe(&observation);
        ending.verdict = ending.evidence.exposed_ms().is_some().then(|| judge(&ending.evidence));
        if at_s < ASKED_S {
            continue;
        }
        let facts = facts(world, &fleet, ending.verdict.as_ref());
        let next = advance(state, &plan, &facts, milliseconds(fleet.now_ms));
        state = next.state;
        ends_step = next.ends_step;
        fleet.weight_basis_points = next.split.weight_basis_points;
        let canary = |fleet: &Fleet<'_>| fleet.pods.iter().filter(|pod| pod.arm == Arm::Canary).count();
        while canary(&fleet) < next.canary_pods as usize {
            fleet.start(Arm::Canary, 1_000.0 * (at_s + LOAD_S));
        }
        match state.phase {
            Phase::Promoting | Phase::Completed => ending.promoted_minutes = Some(at_s / 60.0),
            Phase::RollingBack | Phase::RolledBack | Phase::Aborted => {
                ending.rollback_minutes = Some(at_s / 60.0);
                ending.reason = state.verdict.as_ref().map(|verdict| verdict.reason);
            }
            _ => continue,
        }
        break;
    }
    ending.exposure = fleet.canary_requests;
    ending
}

fn facts(world: &World, fleet: &Fleet<'_>, verdict: Option<&Verdict>) -> Facts {
    let canary = || fleet.pods.iter().filter(|pod| pod.arm == Arm::Canary);
    let count = |pods: usize| u32::try_from(pods).unwrap_or(u32::MAX);
    Facts {
        wanted: "canary".to_owned(),
        retry_token: String::new(),
        action: None,
        kill_switch: KillSwitch::Off,
        capacity: Capacity {
            spare_pods: None,
            fleet_pods: world.pods,
            demand_pods: 0.7 * f64::from(world.pods),
            fits_beside: false,
            allows_recreate: false,
        },
        canary_ready: count(canary().filter(|pod| pod.is_up).count()),
        canary_pods: count(canary().count()),
        canary_refusal: None,
        verdict: verdict.map(|verdict| ("canary".to_owned(), verdict.clone())),
    }
}
