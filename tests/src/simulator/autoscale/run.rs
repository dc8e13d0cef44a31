//! One run: a load, a fleet, and whoever decides how large it is.

use judgement::autoscale::{Decision, PodModel, Policy};

use super::super::arrivals::Request;
use super::fleet::{Fleet, LoadTime};
use super::others::{Clairvoyant, Hpa, Kpa, KubeAi, Static, WvaSpare, WvaTokens};
use super::ours::{Checks, Faults, LOOK_S, Ours, REPORT_S};
use super::pod::Served;
use super::rule::Rule;
use super::scenario::{Load, STEP_S};

/// After the load so much longer is run and paid, seconds: time for the last answers.
const AFTER_S: f64 = 120.0;

/// The goals: first token, and mean time between tokens, seconds.
const FIRST_TOKEN_S: f64 = 2.0;
const BETWEEN_TOKENS_S: f64 = 0.060;

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decider {
    /// Our rule, with a policy and what goes wrong.
    Ours(Policy, Faults),
    /// Kubernetes with so many requests per pod.
    Hpa(u32),
    /// Knative.
    Kpa,
    /// `KubeAI`.
    KubeAi,
    /// llm-d's first analyzer.
    WvaSpare,
    /// llm-d's second analyzer.
    WvaTokens,
    /// Always so many.
    Static(u32),
    /// Knows the step, and orders so many at once.
    Clairvoyant(u32),
}

impl Decider {
    /// Its name in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Ours(..) => "Replay (ours)".to_owned(),
            Self::Hpa(target) => format!("HPA-{target}"),
            Self::Kpa => "KPA".to_owned(),
            Self::KubeAi => "KubeAI".to_owned(),
            Self::WvaSpare => "WVA v1".to_owned(),
            Self::WvaTokens => "WVA v2".to_owned(),
            Self::Static(pods) => format!("static {pods}"),
            Self::Clairvoyant(pods) => format!("clairvoyant {pods}"),
        }
    }
}

/// Where it happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// What pods do.
    pub pod: PodModel,
    /// How long they load.
    pub load_time: LoadTime,
    /// The most pods there may be.
    pub max: u32,
    /// The fewest.
    pub min: u32,
}

/// What is watched on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// Every decision of ours is replayed, which doubles the time it takes.
    pub replays: bool,
    /// The course is kept.
    pub course: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Outcome {
    /// Requests that came.
    pub requests: usize,
    /// Requests that met both goals.
    pub in_time: usize,
    /// Requests that were not answered although they came more than 300 s before the end.
    pub lost: usize,
    /// Pods from their order to their end, hours.
    pub gpu_hours: f64,
    /// The most pods that served or loaded.
    pub pods_max: u32,
    /// Changes of direction per hour.
    pub turns: f64,
    /// Pods ordered per hour.
    pub starts: f64,
    /// The most pods ordered at once in the first 20 s after there were none.
    pub orders_from_zero: Vec<u32>,
    /// What our rule was watched for; empty for others.
    pub checks: Checks,
    /// Our last decision.
    #[serde(skip)]
    pub last: Option<Decision>,
    /// Every 10 s: seconds, pods that serve, pods that serve or load, requests that wait.
    pub course: Vec<(f64, u32, u32, u32)>,
}

impl Outcome {
    /// Requests in time, percent.
    pub fn attainment(&self) -> f64 {
        100.0 * self.in_time as f64 / self.requests.max(1) as f64
    }
}

/// Whether there is plenty of time to answer it.
fn is_early(load: &Load, request: &Request) -> bool {
    request.at_s < load.end_s - 300.0
}

enum Mind {
    Ours(Box<Ours>),
    Other(Box<dyn Rule>),
}

/// Runs `load` at `place` under `decider`.
pub fn run(load: &Load, place: &Place, decider: Decider, seed: u64, watch: Watch) -> Outcome {
    let initial = load.initial_replicas(&place.pod).min(place.max);
    let initial = if place.min == 0 { 0 } else { initial };
    let fleet = Fleet::new(place.pod, place.load_time, initial, seed);
    let mind = mind(load, place, decider, initial, seed, watch.replays);
    let mut course = Course {
        load,
        place,
        fleet,
        mind,
        served: Vec::new(),
        in_time: 0,
        keeps_points: watch.course,
        unanswered: load.requests.iter().filter(|request| is_early(load, request)).count(),
        pods_max: initial,
        direction: 0,
        turns: 0,
        woken_s: 0.0,
        orders_from_zero: Vec::new(),
        points: Vec::new(),
    };
    course.go();
    course.outcome()
}

fn mind(load: &Load, place: &Place, decider: Decider, initial: u32, seed: u64, replays_each: bool) -> Mind {
    let (slots, max) = (place.pod.slots, place.max);
    let mean = |size: fn(&Request) -> u32| {
        load.requests.iter().map(|request| f64::from(size(request))).sum::<f64>()
            / load.requests.len().max(1) as f64
    };
    let (prompt, output) = (mean(|request| request.prompt_tokens), mean(|request| request.output_tokens));
    // A cache that holds twice what the slots need on average: it seldom binds, as with 8 slots on common cards.
    let kv_tokens = 2.0 * f64::from(slots) * (prompt + output);
    Mind::Other(match decider {
        Decider::Ours(policy, faults) => {
            let policy = Policy { min_replicas: place.min, max_replicas: max, ..policy };
            let ours = Ours::new(policy, place.pod, place.load_time, faults, seed, replays_each);
            return Mind::Ours(Box::new(ours));
        }
        Decider::Hpa(target) => Box::new(Hpa::new(f64::from(target), max, initial)),
        Decider::Kpa => Box::new(Kpa::new(slots, max)),
        Decider::KubeAi => Box::new(KubeAi::new(slots, max)),
        Decider::WvaSpare => Box::new(WvaSpare::new(slots, kv_tokens, max, initial)),
        Decider::WvaTokens => Box::new(WvaTokens::new(slots, prompt, output, max, initial)),
        Decider::Static(pods) => Box::new(Static(pods)),
        Decider::Clairvoyant(pods) => Box::new(Clairvoyant {
            from_s: STEP_S.0,
            to_s: STEP_S.1,
            base: initial,
            pods,
            after: pods.min(11),
            is_drained: false,
        }),
    })
}

struct Course<'a> {
    load: &'a Load,
    place: &'a Place,
    fleet: Fleet,
    mind: Mind,
    served: Vec<Served>,
    in_time: usize,
    keeps_points: bool,
    /// Early requests that are not answered yet.
    unanswered: usize,
    pods_max: u32,
    direction: i8,
    turns: u32,
    woken_s: f64,
    orders_from_zero: Vec<u32>,
    points: Vec<(f64, u32, u32, u32)>,
}

impl Course<'_> {
    fn go(&mut self) {
        let end_s = self.load.end_s + AFTER_S;
        let (mut now_s, mut coming, mut report_s, mut look_s, mut point_s) = (0.0, 0, 0.0, 0.0, 0.0);
        if let Mind::Other(rule) = &self.mind {
            (report_s, look_s) = (f64::INFINITY, rule.period_s());
        }
        while now_s < end_s {
            let arrival_s = self.load.requests.get(coming).map_or(f64::INFINITY, |request| request.at_s);
            let next_s =
                [arrival_s, report_s, look_s, point_s, self.fleet.next_s()].into_iter().fold(end_s, f64::min);
            self.fleet.advance(now_s, next_s, &mut self.served);
            now_s = next_s;
            self.book();
            if arrival_s <= now_s {
                self.arrive(coming, now_s);
                coming += 1;
            }
            self.fleet.dispatch(&self.load.requests);
            if report_s <= now_s {
                report_s += REPORT_S;
                self.report(now_s);
            }
            if look_s <= now_s {
                look_s += self.look(now_s);
                self.fleet.dispatch(&self.load.requests);
            }
            if point_s <= now_s {
                point_s += 10.0;
                if self.keeps_points {
                    let view = self.fleet.view(now_s);
                    self.points.push((now_s, view.ready, view.replicas(), view.queued));
                }
            }
        }
    }

    fn arrive(&mut self, index: usize, now_s: f64) {
        self.fleet.submit(index);
        if let Mind::Ours(ours) = &mut self.mind {
            ours.arrived(&self.load.requests[index]);
        }
        // A request that finds nobody is looked at at once.
        if self.fleet.replicas() == 0 {
            self.report(now_s);
            self.look(now_s);
        }
    }

    fn report(&mut self, now_s: f64) {
        if let Mind::Ours(ours) = &mut self.mind {
            ours.report(now_s, &self.fleet, &self.load.requests);
        }
    }

    /// Decides and acts; returns the seconds until the next look.
    fn look(&mut self, now_s: f64) -> f64 {
        let before = self.fleet.replicas();
        let (wanted, period_s) = match &mut self.mind {
            Mind::Ours(ours) => (ours.look(now_s, &self.fleet), LOOK_S),
            Mind::Other(rule) => (rule.replicas(&self.fleet.view(now_s)), rule.period_s()),
        };
        let wanted = wanted.min(self.place.max);
        self.count_from_zero(now_s, before, wanted);
        let direction = match wanted.cmp(&before) {
            std::cmp::Ordering::Greater => 1,
            std::cmp::Ordering::Less => -1,
            std::cmp::Ordering::Equal => 0,
        };
        if direction != 0 {
            self.turns += u32::from(direction == -self.direction);
            self.direction = direction;
        }
        self.fleet.scale(now_s, wanted);
        self.pods_max = self.pods_max.max(wanted);
        period_s
    }

    fn count_from_zero(&mut self, now_s: f64, before: u32, wanted: u32) {
        if before == 0 && wanted > 0 {
            self.woken_s = now_s;
            self.orders_from_zero.push(0);
        }
        if let Some(most) = self.orders_from_zero.last_mut()
            && now_s - self.woken_s <= 20.0
        {
            *most = wanted.saturating_sub(before).max(*most);
        }
    }

    /// Counts what was served in time.
    fn book(&mut self) {
        for served in self.served.drain(..) {
            let request = &self.load.requests[served.index];
            let gaps = f64::from(request.output_tokens.saturating_sub(1).max(1));
            let first_s = served.first_token_s - request.at_s;
            let between_s = (served.end_s - served.first_token_s) / gaps;
            self.unanswered -= usize::from(is_early(self.load, request));
            self.in_time += usize::from(first_s <= FIRST_TOKEN_S && between_s <= BETWEEN_TOKENS_S);
            if let Mind::Ours(ours) = &mut self.mind {
                ours.finished(request);
            }
        }
    }

    fn outcome(self) -> Outcome {
        let hours = self.load.end_s / 3_600.0;
        let (checks, last) = match self.mind {
            Mind::Ours(ours) => (ours.checks, ours.last),
            Mind::Other(_) => (Checks::default(), None),
        };
        Outcome {
            requests: self.load.requests.len(),
            in_time: self.in_time,
            lost: self.unanswered,
            gpu_hours: self.fleet.pod_seconds / 3_600.0,
            pods_max: self.pods_max,
            turns: f64::from(self.turns) / hours,
            starts: f64::from(self.fleet.orders) / hours,
            orders_from_zero: self.orders_from_zero,
            checks,
            last,
            course: self.points,
        }
    }
}
