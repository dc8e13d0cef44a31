//! The fleet: one queue, pods that load, serve and drain, and an ideal router that gives a request to a pod only when a
//! slot is free there.

use std::collections::VecDeque;

use judgement::autoscale::PodModel;
use rand_distr::{Distribution as _, StandardNormal};

use super::super::arrivals::Request;
use super::super::random::{Random, stream};
use super::pod::{Pod, Served};
use super::rule::View;

/// How long pods load.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct LoadTime {
    /// Half of the loads take at most this, seconds.
    pub median_s: f64,
    /// Spread: the standard deviation of the logarithm; 0 is always the same.
    pub sigma: f64,
}

impl LoadTime {
    /// Always `seconds`.
    pub const fn constant(seconds: f64) -> Self {
        Self { median_s: seconds, sigma: 0.0 }
    }

    /// 90 % of loads take at most this, seconds.
    pub fn p90_s(self) -> f64 {
        self.median_s * (1.2816 * self.sigma).exp()
    }

    fn draw(self, random: &mut Random) -> f64 {
        let normal: f64 = StandardNormal.sample(random);
        self.median_s * (self.sigma * normal).exp()
    }
}

/// All pods and the queue before them.
#[derive(Debug)]
pub struct Fleet {
    model: PodModel,
    load_time: LoadTime,
    random: Random,
    units: Vec<Unit>,
    queue: VecDeque<usize>,
    /// Tokens done by pods that are gone.
    gone: (f64, f64),
    /// Pod-seconds paid so far.
    pub pod_seconds: f64,
    /// Seconds in which nobody waited.
    pub no_queue_s: f64,
    /// When a pod last became ready, seconds.
    pub last_ready_s: Option<f64>,
    /// Pods ordered so far.
    pub orders: u32,
}

#[derive(Debug)]
struct Unit {
    pod: Pod,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Next: ready.
    Loading { expected_s: f64, ready_s: f64 },
    /// Next: draining.
    Ready,
    /// Next: ready again, or gone.
    Draining,
}

impl Fleet {
    /// `ready` pods at time 0.
    pub fn new(model: PodModel, load_time: LoadTime, ready: u32, seed: u64) -> Self {
        let unit = || Unit { pod: Pod::new(model, 0.0), stage: Stage::Ready };
        Self {
            model,
            load_time,
            random: stream(seed, "load times"),
            units: (0..ready).map(|_| unit()).collect(),
            queue: VecDeque::new(),
            gone: (0.0, 0.0),
            pod_seconds: 0.0,
            no_queue_s: 0.0,
            last_ready_s: None,
            orders: 0,
        }
    }

    /// When something changes by itself next, seconds.
    pub fn next_s(&self) -> f64 {
        let next = |unit: &Unit| match unit.stage {
            Stage::Loading { ready_s, .. } => ready_s,
            Stage::Ready | Stage::Draining => unit.pod.next_s(),
        };
        self.units.iter().map(next).fold(f64::INFINITY, f64::min)
    }

    /// Lets time pass from `from_s` to `to_s`, which must not be beyond [`Self::next_s`].
    pub fn advance(&mut self, from_s: f64, to_s: f64, served: &mut Vec<Served>) {
        self.pod_seconds += self.units.len() as f64 * (to_s - from_s);
        if self.queue.is_empty() {
            self.no_queue_s += to_s - from_s;
        }
        for unit in &mut self.units {
            match unit.stage {
                Stage::Loading { ready_s, .. } if ready_s <= to_s => {
                    *unit = Unit { pod: Pod::new(self.model, to_s), stage: Stage::Ready };
                    self.last_ready_s = Some(to_s);
                }
                Stage::Loading { .. } => {}
                Stage::Ready | Stage::Draining => unit.pod.advance(to_s, served),
            }
        }
        self.leave();
    }

    /// Drained pods go.
    fn leave(&mut self) {
        let gone = &mut self.gone;
        self.units.retain(|unit| {
            let stays = unit.stage != Stage::Draining || unit.pod.in_flight() > 0;
            if !stays {
                let (prompt, output) = unit.pod.done();
                *gone = (gone.0 + prompt, gone.1 + output);
            }
            stays
        });
    }

    /// A request comes.
    pub fn submit(&mut self, index: usize) {
        self.queue.push_back(index);
    }

    /// Gives what waits to pods with a free slot: the one with the fewest prompts, then the fewest requests.
    pub fn dispatch(&mut self, requests: &[Request]) {
        while let Some(&index) = self.queue.front() {
            let free = self.units.iter_mut().filter(|unit| unit.stage == Stage::Ready && unit.pod.has_room());
            let Some(unit) = free.min_by_key(|unit| (unit.pod.prompts(), unit.pod.in_flight())) else {
                return;
            };
            unit.pod.take(index, &requests[index]);
            self.queue.pop_front();
        }
    }

    /// Makes the fleet `replicas` large: draining pods come back first, then new ones load; the last orders are
    /// cancelled first, then the emptiest pods drain.
    pub fn scale(&mut self, now_s: f64, replicas: u32) {
        while self.replicas() < replicas {
            let draining = self.units.iter_mut().filter(|unit| unit.stage == Stage::Draining);
            if let Some(unit) = draining.max_by_key(|unit| unit.pod.in_flight()) {
                unit.stage = Stage::Ready;
            } else {
                let stage = Stage::Loading {
                    expected_s: now_s + self.load_time.median_s,
                    ready_s: now_s + self.load_time.draw(&mut self.random),
                };
                self.units.push(Unit { pod: Pod::new(self.model, now_s), stage });
                self.orders += 1;
            }
        }
        while self.replicas() > replicas {
            let loading = self.units.iter().rposition(|unit| matches!(unit.stage, Stage::Loading { .. }));
            if let Some(place) = loading {
                self.units.remove(place);
                continue;
            }
            let ready = self.units.iter_mut().filter(|unit| unit.stage == Stage::Ready);
            let Some(unit) = ready.min_by_key(|unit| unit.pod.in_flight()) else { return };
            unit.stage = Stage::Draining;
        }
        self.leave();
    }

    fn count(&self, stage: impl Fn(Stage) -> bool) -> u32 {
        u32::try_from(self.units.iter().filter(|unit| stage(unit.stage)).count()).unwrap_or(u32::MAX)
    }

    /// Pods that serve.
    pub fn ready(&self) -> u32 {
        self.count(|stage| stage == Stage::Ready)
    }

    /// Pods that serve or load.
    pub fn replicas(&self) -> u32 {
        self.count(|stage| stage != Stage::Draining)
    }

    /// When each loading pod is expected, seconds.
    pub fn expected_s(&self) -> Vec<f64> {
        let expected = |unit: &Unit| match unit.stage {
            Stage::Loading { expected_s, .. } => Some(expected_s),
            Stage::Ready | Stage::Draining => None,
        };
        self.units.iter().filter_map(expected).collect()
    }

    /// Places of the waiting requests.
    pub fn queue(&self) -> impl Iterator<Item = usize> {
        self.queue.iter().copied()
    }

    /// Requests in slots.
    pub fn in_flight(&self) -> u32 {
        let sum: usize = self.units.iter().map(|unit| unit.pod.in_flight()).sum();
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// Prompt and output tokens done since the start.
    pub fn done(&self) -> (f64, f64) {
        self.units
            .iter()
            .map(|unit| unit.pod.done())
            .fold(self.gone, |sum, done| (sum.0 + done.0, sum.1 + done.1))
    }

    /// What rules of others see.
    pub fn view(&self, now_s: f64) -> View {
        let ready = self.ready();
        View {
            now_s,
            ready,
            pending: self.replicas() - ready,
            in_flight: self.in_flight(),
            queued: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            resident_tokens: self.units.iter().map(|unit| unit.pod.resident_tokens()).sum(),
        }
    }
}
