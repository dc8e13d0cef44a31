//! What others do, written anew from their public descriptions, with their defaults, on our pods. They see the fleet
//! exactly and at once, which is more than they have in a cluster.

use std::collections::VecDeque;

use super::rule::{Rule, View};

/// Kubernetes' `HorizontalPodAutoscaler` on requests in slots and waiting, per pod.
#[derive(Debug, Clone)]
pub struct Hpa {
    target: f64,
    max: u32,
    /// Recommendations of the last 300 s.
    recent: VecDeque<(f64, u32)>,
    /// Replicas at the looks of the last 15 s, for the limit on growth.
    before: u32,
}

impl Hpa {
    /// `target` requests per pod, at most `max` pods, from `initial` pods.
    pub fn new(target: f64, max: u32, initial: u32) -> Self {
        Self { target, max, recent: VecDeque::from([(0.0, initial)]), before: initial }
    }

    /// Stabilization and the limit on growth, which other rules put behind their own recommendation.
    fn settle(&mut self, now_s: f64, replicas: u32, recommended: u32) -> u32 {
        self.recent.push_back((now_s, recommended));
        self.recent.retain(|(at_s, _)| now_s - at_s <= 300.0);
        let highest = self.recent.iter().map(|(_, count)| *count).max().unwrap_or(recommended);
        let stabilized = if recommended < replicas { highest.min(replicas) } else { recommended };
        // Up to twice or four more in 15 s, one look.
        self.before = replicas;
        stabilized.min((2 * replicas).max(replicas + 4)).clamp(1, self.max)
    }
}

impl Rule for Hpa {
    fn period_s(&self) -> f64 {
        15.0
    }

    fn replicas(&mut self, view: &View) -> u32 {
        let replicas = view.replicas();
        let total = f64::from(view.requests());
        let mut ratio = total / f64::from(view.ready.max(1)) / self.target;
        if view.pending > 0 && ratio > 1.0 {
            // Pods that are not ready count as having nothing when the answer would be more.
            ratio = (total / f64::from(replicas) / self.target).max(1.0);
        }
        let recommended = if (ratio - 1.0).abs() <= 0.1 {
            replicas
        } else if view.pending > 0 && ratio <= 1.0 {
            ceil(f64::from(view.ready) * ratio)
        } else {
            ceil(f64::from(replicas) * ratio)
        };
        self.settle(view.now_s, replicas, recommended.clamp(1, self.max))
    }
}

/// Knative's pod autoscaler on concurrency: 70 % of the slots, stable 60 s, panic 6 s.
#[derive(Debug, Clone)]
pub struct Kpa {
    target: f64,
    max: u32,
    seen: VecDeque<(f64, f64)>,
    panic_since_s: Option<f64>,
    panic_max: u32,
}

impl Kpa {
    /// For pods of `slots`, at most `max` of them.
    pub fn new(slots: u32, max: u32) -> Self {
        Self { target: 0.7 * f64::from(slots), max, seen: VecDeque::new(), panic_since_s: None, panic_max: 0 }
    }

    fn mean(&self, now_s: f64, window_s: f64) -> f64 {
        let recent = self.seen.iter().filter(|(at_s, _)| now_s - at_s < window_s);
        let (count, sum) = recent.fold((0.0, 0.0), |(count, sum), (_, value)| (count + 1.0, sum + value));
        if count > 0.0 { sum / count } else { 0.0 }
    }
}

impl Rule for Kpa {
    fn period_s(&self) -> f64 {
        2.0
    }

    fn replicas(&mut self, view: &View) -> u32 {
        self.seen.push_back((view.now_s, f64::from(view.requests())));
        self.seen.retain(|(at_s, _)| view.now_s - at_s < 60.0);
        let ready = view.ready.max(1);
        let bounded = |mean: f64| ceil(mean / self.target).clamp(ready / 2, 1_000 * ready);
        let (stable, panic) = (bounded(self.mean(view.now_s, 60.0)), bounded(self.mean(view.now_s, 6.0)));
        if f64::from(panic) / f64::from(ready) >= 2.0 {
            if self.panic_since_s.is_none() {
                self.panic_max = 0;
            }
            self.panic_since_s = Some(view.now_s);
        } else if self.panic_since_s.is_some_and(|since_s| view.now_s - since_s > 60.0) {
            self.panic_since_s = None;
        }
        let wanted = if self.panic_since_s.is_some() {
            self.panic_max = self.panic_max.max(panic).max(ready);
            self.panic_max
        } else {
            stable
        };
        wanted.clamp(1, self.max)
    }
}

/// `KubeAI`: the mean of active requests over ten minutes, looked at every 10 s; a scale-down must be asked for three
/// times in a row.
#[derive(Debug, Clone)]
pub struct KubeAi {
    target: f64,
    max: u32,
    seen: VecDeque<f64>,
    downs: u32,
}

impl KubeAi {
    /// For pods of `slots` with a target of all of them, at most `max` pods.
    pub fn new(slots: u32, max: u32) -> Self {
        Self { target: f64::from(slots), max, seen: VecDeque::new(), downs: 0 }
    }
}

impl Rule for KubeAi {
    fn period_s(&self) -> f64 {
        10.0
    }

    fn replicas(&mut self, view: &View) -> u32 {
        self.seen.push_back(f64::from(view.requests()));
        if self.seen.len() > 60 {
            self.seen.pop_front();
        }
        let mean = self.seen.iter().sum::<f64>() / self.seen.len() as f64;
        let wanted = ceil(mean / self.target).clamp(1, self.max);
        if wanted >= view.replicas() {
            self.downs = 0;
            return wanted;
        }
        self.downs += 1;
        if self.downs > 3 { wanted } else { view.replicas() }
    }
}

/// llm-d's workload variant autoscaler, first analyzer: one more while the mean spare queue or cache of unsaturated pods
/// is below its trigger, one fewer if the rest would stay above it. Nothing while pods are pending.
#[derive(Debug, Clone)]
pub struct WvaSpare {
    slots: f64,
    kv_tokens: f64,
    behind: Hpa,
}

/// The second analyzer: tokens in use and waiting against tokens that pods hold at their slots; more above 85 %, fewer
/// below 70 %; pending pods count as supply.
#[derive(Debug, Clone)]
pub struct WvaTokens {
    capacity: f64,
    mean_tokens: f64,
    behind: Hpa,
}

impl WvaSpare {
    /// For pods of `slots` whose caches hold `kv_tokens`.
    pub fn new(slots: u32, kv_tokens: f64, max: u32, initial: u32) -> Self {
        Self { slots: f64::from(slots), kv_tokens, behind: Hpa::new(1.0, max, initial) }
    }
}

impl Rule for WvaSpare {
    fn period_s(&self) -> f64 {
        30.0
    }

    fn replicas(&mut self, view: &View) -> u32 {
        let ready = f64::from(view.ready.max(1));
        // What waits for a slot stands in the queues of the pods, evenly.
        let queue = f64::from(view.queued) / ready;
        let cache = view.resident_tokens / ready / self.kv_tokens;
        let busy = f64::from(view.in_flight) / ready / self.slots;
        let replicas = view.replicas();
        let spare = |pods: f64| (0.8 - cache * ready / pods, 5.0 - queue * ready / pods);
        let (spare_cache, spare_queue) = spare(ready);
        let recommended = if view.pending > 0 {
            replicas
        } else if spare_cache < 0.1 || spare_queue < 3.0 {
            replicas + 1
        } else if view.ready > 1 && busy * ready / (ready - 1.0) < 1.0 {
            let (cache_after, queue_after) = spare(ready - 1.0);
            if cache_after >= 0.1 && queue_after >= 3.0 { replicas - 1 } else { replicas }
        } else {
            replicas
        };
        self.behind.settle(view.now_s, replicas, recommended)
    }
}

impl WvaTokens {
    /// For pods of `slots` and requests of `mean_prompt` and `mean_output` tokens.
    pub fn new(slots: u32, mean_prompt: f64, mean_output: f64, max: u32, initial: u32) -> Self {
        let mean_tokens = mean_prompt + mean_output;
        // What a pod holds at full slots, a request having generated half of its answer on average.
        let capacity = f64::from(slots) * (mean_prompt + 0.5 * mean_output);
        Self { capacity, mean_tokens, behind: Hpa::new(1.0, max, initial) }
    }
}

impl Rule for WvaTokens {
    fn period_s(&self) -> f64 {
        15.0
    }

    fn replicas(&mut self, view: &View) -> u32 {
        let demand = view.resident_tokens + f64::from(view.queued) * self.mean_tokens;
        let replicas = view.replicas();
        let supply = f64::from(replicas) * self.capacity;
        let missing = demand / 0.85 - supply;
        let spare = supply - demand / 0.70;
        let recommended = if missing > 0.0 {
            replicas + ceil(missing / self.capacity)
        } else if spare > 0.0 {
            replicas - floor(spare / self.capacity).min(replicas)
        } else {
            replicas
        };
        self.behind.settle(view.now_s, replicas, recommended.max(1))
    }
}

/// The same number always.
#[derive(Debug, Clone, Copy)]
pub struct Static(pub u32);

impl Rule for Static {
    fn period_s(&self) -> f64 {
        60.0
    }

    fn replicas(&mut self, _view: &View) -> u32 {
        self.0
    }
}

/// Knows when the step comes and how large it is: orders at once, keeps `pods` until the queue is empty, then goes on
/// with `after`. A bound for every rule, not a rule.
#[derive(Debug, Clone, Copy)]
pub struct Clairvoyant {
    /// When the step comes, seconds.
    pub from_s: f64,
    /// When it ends, seconds.
    pub to_s: f64,
    /// Pods outside of the step.
    pub base: u32,
    /// Pods from its beginning.
    pub pods: u32,
    /// Pods once nobody waits any more.
    pub after: u32,
    /// Whether the queue has been worked off.
    pub is_drained: bool,
}

impl Rule for Clairvoyant {
    fn period_s(&self) -> f64 {
        4.0
    }

    fn replicas(&mut self, view: &View) -> u32 {
        if view.now_s < self.from_s || view.now_s >= self.to_s {
            return self.base;
        }
        self.is_drained |= view.ready >= self.pods && view.queued == 0;
        if self.is_drained { self.after } else { self.pods }
    }
}

fn ceil(count: f64) -> u32 {
    floor(count.ceil())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped at zero; the cast saturates"
)]
fn floor(count: f64) -> u32 {
    count.max(0.0) as u32
}
