//! A rollout as the operator drives it: the verdict moves the weight, through the operator's own state machine.

use judgement::rollout::{
    Analysis, Arm, Capacity, Evidence, Facts, KillSwitch, Phase, Plan, Reason, State, Verdict, advance, judge,
};

use super::fleet::{Fleet, TICK_MS, WARM_UP_S};
use super::ramp::{END_S, LOAD_S, Misses};
use super::telemetry::{NODE_CLASS, Telemetry, milliseconds};
use super::world::{Material, World};

/// The judge learns from control since then.
const LEARN_FROM_S: f64 = -300.0;
/// When the new revision is asked for: its pods load for a minute and warm up for half of one, so that the canary has
/// its first traffic at about 0.
const ASKED_S: f64 = -90.0;

/// Pods' worth of work that one request per second is: ten of them keep 14 pods busy at seven tenths.
const PODS_PER_RATE: f64 = 0.98;

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// Minutes from the first traffic until all of it was promised to the canary.
    pub promoted_minutes: Option<f64>,
    /// Minutes until it was taken back.
    pub rollback_minutes: Option<f64>,
    /// Minutes until a person was asked.
    pub asked_minutes: Option<f64>,
    /// Canary requests until then.
    pub exposure: u64,
    /// Why it was taken back.
    pub reason: Option<Reason>,
    /// Canary pods that were added on suspicion or by a hold.
    pub extra_pods: u32,
    /// Steps back by holds.
    pub steps_back: u8,
    /// Canary users who missed an objective, and stable ones, as shares.
    pub misses: (f64, f64),
    /// The last verdict and what it was made from, for replay.
    pub verdict: Option<Verdict>,
    /// See `verdict`.
    pub evidence: Evidence,
}

impl Ending {
    /// Drops what only a replay needs: a thousand rollouts would fill the memory with it.
    #[must_use]
    pub fn without_evidence(self) -> Self {
        Self { verdict: None, evidence: Evidence::new(Analysis::default(), NODE_CLASS), ..self }
    }
}

/// Runs `world` with `seed` until it is promoted, rolled back, a person is asked, or half an hour is over.
pub fn run(world: &World, material: &Material, seed: u64, analysis: &Analysis) -> Ending {
    let mut loops = Loop::new(world, material, seed, analysis);
    let mut at_s = -WARM_UP_S;
    while at_s < END_S && !loops.is_over() {
        at_s += TICK_MS / 1_000.0;
        loops.tick(at_s);
    }
    loops.end()
}

struct Loop<'world> {
    world: &'world World,
    plan: Plan,
    fleet: Fleet<'world>,
    telemetry: Telemetry,
    state: State,
    ends_step: bool,
    misses: Misses,
    ending: Ending,
}

impl<'world> Loop<'world> {
    fn new(world: &'world World, material: &'world Material, seed: u64, analysis: &Analysis) -> Self {
        Self {
            world,
            plan: Plan { analysis: analysis.clone(), ..Plan::default() },
            fleet: Fleet::new(world, material, seed, END_S),
            telemetry: Telemetry::new(world, seed),
            state: State::new("stable", 0),
            ends_step: false,
            misses: Misses::default(),
            ending: Ending {
                promoted_minutes: None,
                rollback_minutes: None,
                asked_minutes: None,
                exposure: 0,
                reason: None,
                extra_pods: 0,
                steps_back: 0,
                misses: (0.0, 0.0),
                verdict: None,
                evidence: Evidence::new(analysis.clone(), NODE_CLASS),
            },
        }
    }

    fn is_over(&self) -> bool {
        let Ending { promoted_minutes, rollback_minutes, asked_minutes, .. } = self.ending;
        promoted_minutes.or(rollback_minutes).or(asked_minutes).is_some()
    }

    fn tick(&mut self, at_s: f64) {
        self.fleet.run_until(1_000.0 * at_s);
        self.fleet.tick();
        let weight = self.fleet.weight_basis_points;
        let mut observation = self.telemetry.collect(self.world, &mut self.fleet, weight);
        if at_s <= LEARN_FROM_S {
            return;
        }
        observation.ends_step = std::mem::take(&mut self.ends_step);
        self.misses.count(&observation);
        let evidence = &mut self.ending.evidence;
        evidence.observe(&observation);
        self.ending.verdict = evidence.exposed_ms().is_some().then(|| judge(evidence));
        if at_s >= ASKED_S {
            self.advance(at_s);
        }
    }

    fn advance(&mut self, at_s: f64) {
        let facts = facts(self.world, &self.fleet, self.ending.verdict.as_ref());
        let next = advance(self.state.clone(), &self.plan, &facts, milliseconds(self.fleet.now_ms));
        self.ends_step = next.ends_step;
        self.fleet.weight_basis_points = next.split.weight_basis_points;
        self.ending.extra_pods = self.ending.extra_pods.max(next.state.extra_pods);
        while canary_pods(&self.fleet) < next.canary_pods as usize {
            self.fleet.start(Arm::Canary, 1_000.0 * (at_s + LOAD_S));
        }
        let minutes = Some(at_s / 60.0);
        match next.state.phase {
            Phase::Promoting | Phase::Completed => self.ending.promoted_minutes = minutes,
            Phase::RollingBack | Phase::RolledBack | Phase::Aborted => self.ending.rollback_minutes = minutes,
            Phase::Paused | Phase::Inconclusive => self.ending.asked_minutes = minutes,
            _ => {}
        }
        self.state = next.state;
    }

    fn end(mut self) -> Ending {
        self.ending.exposure = self.fleet.canary_requests;
        self.ending.reason = self.state.verdict.as_ref().map(|verdict| verdict.reason);
        self.ending.steps_back = self.state.steps_back;
        self.ending.misses = self.misses.shares();
        self.ending
    }
}

fn canary_pods(fleet: &Fleet<'_>) -> usize {
    fleet.pods.iter().filter(|pod| pod.arm == Arm::Canary).count()
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
            spare_pods: world.room,
            fleet_pods: world.pods,
            demand_pods: PODS_PER_RATE * world.rate,
            fits_beside: false,
            allows_recreate: false,
        },
        canary_ready: count(canary().filter(|pod| pod.is_up).count()),
        canary_pods: count(canary_pods(fleet)),
        canary_refusal: None,
        verdict: verdict.map(|verdict| ("canary".to_owned(), verdict.clone())),
    }
}
