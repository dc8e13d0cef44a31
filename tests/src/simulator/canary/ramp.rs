//! A rollout on rails: 10, 25 and 50 % at 0, 10 and 20 minutes whatever anybody thinks of it, so that all judges see
//! the same data. Whoever would have rolled back is noted once.

use judgement::rollout::{Analysis, Arm, Evidence, Objectives, Observation, Outcome, Reason, judge};

use super::fleet::{Fleet, TICK_MS, WARM_UP_S};
use super::others::{self, Other};
use super::telemetry::{NODE_CLASS, Telemetry};
use super::world::{Layout, Material, World};

/// When each step begins, in seconds, and its share.
const STEPS: [(f64, f64); 3] = [(0.0, 0.10), (600.0, 0.25), (1_200.0, 0.50)];
/// When it is over.
pub const END_S: f64 = 1_800.0;
/// The judge learns from control since then.
const LEARN_FROM_S: f64 = -300.0;
/// How long a pod loads.
pub const LOAD_S: f64 = 60.0;
/// How long before the first traffic the first canary pods are ready.
const WARM_S: f64 = 30.0;
/// When a pod restarts, where one does.
const RESTART_S: f64 = 300.0;

/// What one judge said.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Said {
    /// Minutes until it would have rolled back.
    pub rollback_minutes: Option<f64>,
    /// Canary requests until then.
    pub exposure: u64,
    /// Minutes until it was proven that the revision is not slower. Whether its users wait longer, which holds a step, is
    /// another question: on rails the weight does not wait for the pods.
    pub pass_minutes: Option<f64>,
    /// Minutes until it said pause or hold.
    pub pause_minutes: Option<f64>,
    /// Why it rolled back.
    #[serde(skip)]
    pub reason: Option<Reason>,
}

/// What all judges said of one rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Ours.
    pub ours: Said,
    /// Ours with nodes whose speed is known.
    pub with_nodes: Option<Said>,
    /// Others, in the order of [`others::NAMES`].
    pub others: Vec<Said>,
    /// Canary users who missed an objective, and stable ones, as shares over the half hour.
    pub misses: (f64, f64),
}

/// Requests that ended while the canary had traffic, and those of them that missed an objective, by arm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Misses([(u64, u64); 2]);

impl Misses {
    /// Takes in what ended.
    pub fn count(&mut self, observation: &Observation) {
        if observation.weight_basis_points == 0 {
            return;
        }
        let goals = Objectives::default();
        for report in &observation.pods {
            let (all, missed) = &mut self.0[report.arm as usize];
            for row in report.requests.iter().filter(|row| row.has_ended()) {
                *all += 1;
                let is_late = row.was_cancelled
                    || row.ttft_micros > goals.ttft_micros
                    || row.inter_token_micros.unwrap_or(0) > goals.inter_token_micros;
                *missed += u64::from(is_late);
            }
        }
    }

    /// Of the canary and of stable, as shares.
    pub fn shares(&self) -> (f64, f64) {
        let share = |(all, missed): (u64, u64)| missed as f64 / all.max(1) as f64;
        (share(self.0[1]), share(self.0[0]))
    }
}

/// Who judges.
#[derive(Debug, Clone, PartialEq)]
pub struct Bench {
    /// Settings of ours.
    pub analysis: Analysis,
    /// Whether ours judges a second time with known nodes.
    pub with_nodes: bool,
    /// Whether the others judge too.
    pub with_others: bool,
    /// Whether to go on when ours has rolled back (others may not have).
    pub to_the_end: bool,
}

/// Runs `world` with `seed` on rails.
pub fn run(world: &World, material: &Material, seed: u64, bench: &Bench) -> Run {
    let mut rails = Rails::new(world, material, seed, bench);
    let mut at_s = -WARM_UP_S;
    while at_s < END_S {
        at_s += TICK_MS / 1_000.0;
        rails.tick(at_s);
        if rails.is_decided() {
            break;
        }
    }
    rails.run
}

struct Rails<'world> {
    world: &'world World,
    bench: &'world Bench,
    fleet: Fleet<'world>,
    telemetry: Telemetry,
    informed: Telemetry,
    evidence: Evidence,
    informed_evidence: Evidence,
    others: Vec<Box<dyn Other>>,
    step: usize,
    misses: Misses,
    run: Run,
}

impl<'world> Rails<'world> {
    fn new(world: &'world World, material: &'world Material, seed: u64, bench: &'world Bench) -> Self {
        let informed = Analysis { pod_sd: 0.01, ..bench.analysis.clone() };
        Self {
            world,
            bench,
            fleet: Fleet::new(world, material, seed, END_S),
            telemetry: Telemetry::new(world, seed),
            informed: Telemetry::new(world, seed),
            evidence: Evidence::new(bench.analysis.clone(), NODE_CLASS),
            informed_evidence: Evidence::new(informed, NODE_CLASS),
            others: if bench.with_others { others::all() } else { Vec::new() },
            step: 0,
            misses: Misses::default(),
            run: Run {
                ours: Said::default(),
                with_nodes: bench.with_nodes.then(Said::default),
                others: if bench.with_others {
                    vec![Said::default(); others::NAMES.len()]
                } else {
                    Vec::new()
                },
                misses: (0.0, 0.0),
            },
        }
    }

    fn tick(&mut self, at_s: f64) {
        self.fleet.run_until(1_000.0 * at_s);
        self.fleet.tick();
        let weight = self.fleet.weight_basis_points;
        let mut observation = self.telemetry.collect(self.world, &mut self.fleet, weight);
        if at_s > LEARN_FROM_S {
            let (exposure, minutes) = (self.fleet.canary_requests, at_s / 60.0);
            self.evidence.observe(&observation);
            let is_suspect = note(&mut self.run.ours, &self.evidence, minutes, exposure);
            for (other, said) in self.others.iter_mut().zip(&mut self.run.others) {
                let is_against = other.observe(&observation);
                if is_against && said.rollback_minutes.is_none() && weight > 0 {
                    (said.rollback_minutes, said.exposure) = (Some(minutes), exposure);
                }
            }
            self.misses.count(&observation);
            self.run.misses = self.misses.shares();
            if let Some(said) = &mut self.run.with_nodes {
                for (at, report) in observation.pods.iter_mut().enumerate() {
                    let index = report.pod[4..].parse().unwrap_or(at);
                    report.known_slowness = self.informed.known_of(&self.fleet, index);
                }
                self.informed_evidence.observe(&observation);
                note(said, &self.informed_evidence, minutes, exposure);
            }
            if is_suspect && self.world.confirms && self.canary_pods() == 1 {
                self.fleet.start(Arm::Canary, 1_000.0 * (at_s + LOAD_S));
            }
        }
        self.move_on(at_s);
    }

    fn canary_pods(&self) -> u32 {
        u32::try_from(self.fleet.pods.iter().filter(|pod| pod.arm == Arm::Canary).count()).unwrap_or(u32::MAX)
    }

    /// Pods and weight by the timetable.
    fn move_on(&mut self, at_s: f64) {
        let Some(&(begins_s, share)) = STEPS.get(self.step) else { return };
        let wanted = self.world.canary_pods_for(share);
        // The first pods load before there is any traffic; later ones when their step begins.
        let starts_s = if self.step == 0 { begins_s - LOAD_S - WARM_S } else { begins_s };
        if at_s < starts_s {
            return;
        }
        let is_late = self.world.layout == Layout::LatePods;
        while self.canary_pods() < wanted {
            // Late pods: only one is there in time for the first step.
            let is_behind = is_late && self.step == 0 && self.canary_pods() > 0;
            let ready_s = if is_behind { begins_s + LOAD_S } else { at_s + LOAD_S };
            self.fleet.start(Arm::Canary, 1_000.0 * ready_s);
            self.make_room();
        }
        let ready = self.fleet.pods.iter().filter(|pod| pod.arm == Arm::Canary && pod.is_up).count();
        if at_s >= begins_s && (is_late || ready >= wanted as usize || self.has_restarting()) {
            self.fleet.weight_basis_points = basis_points(share);
            self.step += 1;
        }
        let is_time = self.world.restarts && (at_s - RESTART_S).abs() < 1.0;
        if is_time {
            self.restart(at_s);
        }
    }

    fn has_restarting(&self) -> bool {
        self.fleet.pods.iter().any(|pod| pod.incarnation > 0 && !pod.is_up)
    }

    fn restart(&mut self, at_s: f64) {
        if let Some(at) = self.fleet.pods.iter().position(|pod| pod.arm == Arm::Canary) {
            self.fleet.crash(at, 1_000.0 * (at_s + LOAD_S));
        }
    }

    /// A stable pod leaves for each canary pod, where the layout says so.
    fn make_room(&mut self) {
        if matches!(self.world.layout, Layout::Matched | Layout::InPlace) {
            let leaves = |pod: &&mut super::pod::Pod| pod.arm == Arm::Control && !pod.is_draining;
            if let Some(pod) = self.fleet.pods.iter_mut().rev().find(leaves) {
                pod.is_draining = true;
            }
        }
    }

    /// Nobody who still matters is undecided.
    fn is_decided(&self) -> bool {
        let is_over = |said: &Said| said.rollback_minutes.is_some();
        !self.bench.to_the_end
            && is_over(&self.run.ours)
            && self.run.with_nodes.as_ref().is_none_or(is_over)
            && self.run.others.iter().all(is_over)
    }
}

/// Notes what the evidence amounts to; whether the only pod is suspect.
fn note(said: &mut Said, evidence: &Evidence, minutes: f64, exposure: u64) -> bool {
    if evidence.exposed_ms().is_none() || said.rollback_minutes.is_some() {
        return false;
    }
    let verdict = judge(evidence);
    if said.pass_minutes.is_none() && verdict.is_speed_proven() {
        said.pass_minutes = Some(minutes);
    }
    match verdict.outcome {
        Outcome::Rollback => {
            said.rollback_minutes = Some(minutes);
            said.exposure = exposure;
            said.reason = Some(verdict.reason);
        }
        Outcome::Pause if said.pause_minutes.is_none() => said.pause_minutes = Some(minutes),
        _ => {}
    }
    verdict.outcome == Outcome::Suspect
}

/// A share as the gateways are told.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
fn basis_points(share: f64) -> u16 {
    (10_000.0 * share).round() as u16
}
