//! Loads: the eight that the rule was tuned on, and others that it never saw.

use judgement::autoscale::PodModel;

use super::super::arrivals::{self, Request};
use super::super::random::{Random, stream};
use super::super::trace::{Service, Traces};

/// A load of about an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// 5 conversations per second.
    Steady,
    /// The hour of conversations.
    Conv,
    /// The hour of code completion: bursts out of nothing.
    Code,
    /// Two waves between 1 and 8 conversations per second.
    Diurnal,
    /// Slowly more.
    Ramp,
    /// From 1 to 8 conversations per second at once, and back after 25 minutes.
    Step,
    /// Switches between a calm and a busy state.
    Mmpp,
    /// Independent gaps with a coefficient of variation of 3.
    Bursty,
    /// A crowd of 90 s every 20 min.
    Flash90,
    /// A crowd of 60 s every 20 min.
    Flash60,
    /// A crowd of 180 s every 20 min.
    Flash180,
    /// Crowds of 90 s at random times, 20 min apart on average.
    FlashPoisson,
    /// One crowd of 90 s.
    FlashOnce,
    /// From 2 to 6 conversations per second.
    StepSmall,
    /// From 1 to 12 conversations per second.
    StepLarge,
    /// From 8 to 2 conversations per second.
    StepDown,
    /// A wave with a random rate on top.
    NoisyDiurnal,
    /// Conversations that begin elsewhere in the hour.
    ConvOffset,
    /// Code completion that begins elsewhere in the hour.
    CodeOffset,
    /// Up and down in straight lines of 10 min.
    Saw,
    /// A rate that wanders.
    Drift,
    /// A morning: quiet, a rise, a plateau with a break.
    Weekday,
    /// Conversations that come and go, with pauses of minutes: for scaling to zero.
    OnOff,
}

/// The eight scenarios that the published figures are means of.
pub const TUNING: [Scenario; 8] = [
    Scenario::Steady,
    Scenario::Conv,
    Scenario::Code,
    Scenario::Diurnal,
    Scenario::Ramp,
    Scenario::Step,
    Scenario::Mmpp,
    Scenario::Bursty,
];

/// Thirteen loads that the rule was not tuned on; the last four are flash crowds.
pub const HELD_OUT: [Scenario; 13] = [
    Scenario::StepSmall,
    Scenario::StepLarge,
    Scenario::StepDown,
    Scenario::NoisyDiurnal,
    Scenario::ConvOffset,
    Scenario::CodeOffset,
    Scenario::Saw,
    Scenario::Drift,
    Scenario::Weekday,
    Scenario::Flash60,
    Scenario::Flash90,
    Scenario::Flash180,
    Scenario::FlashPoisson,
];

/// Seconds of load of the synthetic scenarios.
pub const HOUR_S: f64 = 3_600.0;

/// When the steps come and go, seconds.
pub const STEP_S: (f64, f64) = (1_200.0, 2_700.0);

/// What an hour asks for.
#[derive(Debug, Clone)]
pub struct Load {
    /// The requests in order.
    pub requests: Vec<Request>,
    /// When the load ends, seconds.
    pub end_s: f64,
}

impl Load {
    /// Pods that the first five minutes need at 80 %: where every rule starts.
    pub fn initial_replicas(&self, pod: &PodModel) -> u32 {
        let first = self.requests.iter().take_while(|request| request.at_s < 300.0);
        let work: f64 = first.map(|request| pod.request(request.prompt_tokens, request.output_tokens)).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful of pods")]
        let pods = (work / 300.0 / 0.8).ceil() as u32;
        pods.max(1)
    }
}

impl Scenario {
    /// Its load under `seed`.
    pub fn load(self, traces: &Traces, seed: u64) -> Load {
        let random = &mut stream(seed, &format!("load of {self:?}"));
        match self {
            Self::Conv => replay(traces, Service::Conversation, 0.0, random),
            Self::Code => replay(traces, Service::Code, 0.0, random),
            Self::ConvOffset => offset(traces, Service::Conversation, random),
            Self::CodeOffset => offset(traces, Service::Code, random),
            _ => {
                let times = self.times(random);
                Load { requests: traces.conversation.sizes.fill(&times, random), end_s: HOUR_S }
            }
        }
    }

    fn times(self, random: &mut Random) -> Vec<f64> {
        let wave = |at: f64, period_s: f64| (2.0 * std::f64::consts::PI * at / period_s).cos();
        let between = |at: f64, from: f64, to: f64| at >= from && at < to;
        let step = |at: f64| between(at, STEP_S.0, STEP_S.1);
        let mut poisson = |rate: &dyn Fn(f64) -> f64| {
            let highest = (0..3_600).map(|second| rate(f64::from(second))).fold(0.1, f64::max);
            arrivals::poisson(rate, 1.05 * highest, HOUR_S, random)
        };
        let crowd =
            |at: f64, from: f64, length: f64| if between(at, from, from + length) { 10.0 } else { 2.0 };
        let periodic = |at: f64, length: f64| crowd(at % 1_200.0, 600.0, length);
        match self {
            Self::Diurnal => poisson(&|at| 4.5 - 3.5 * wave(at, 1_800.0)),
            Self::Ramp => poisson(&|at| 1.0 + 8.0 * at / HOUR_S),
            Self::Step => poisson(&|at| if step(at) { 8.0 } else { 1.0 }),
            Self::StepSmall => poisson(&|at| if step(at) { 6.0 } else { 2.0 }),
            Self::StepLarge => poisson(&|at| if step(at) { 12.0 } else { 1.0 }),
            Self::StepDown => poisson(&|at| if at < 1_200.0 { 8.0 } else { 2.0 }),
            Self::Flash60 => poisson(&|at| periodic(at, 60.0)),
            Self::Flash90 => poisson(&|at| periodic(at, 90.0)),
            Self::Flash180 => poisson(&|at| periodic(at, 180.0)),
            Self::FlashOnce => poisson(&|at| crowd(at, 1_500.0, 90.0)),
            Self::Saw => poisson(&|at| 2.0 + 6.0 * (1.0 - (at % 1_200.0 - 600.0).abs() / 600.0)),
            Self::Weekday => poisson(&|at| match at {
                at if at < 600.0 => 1.0,
                at if at < 1_200.0 => 1.0 + 7.0 * (at - 600.0) / 600.0,
                at if between(at, 2_100.0, 2_400.0) => 4.0,
                _ => 8.0,
            }),
            Self::Mmpp => arrivals::switching(&[(2.0, 240.0), (8.0, 120.0)], HOUR_S, random),
            Self::OnOff => arrivals::switching(&[(0.0, 500.0), (3.0, 180.0)], HOUR_S, random),
            Self::FlashPoisson => {
                let starts = arrivals::poisson(|_| 1.0 / 1_200.0, 1.0 / 1_200.0, HOUR_S, random);
                let rate = |at: f64| {
                    if starts.iter().any(|start| between(at, *start, start + 90.0)) { 10.0 } else { 2.0 }
                };
                arrivals::poisson(rate, 10.0, HOUR_S, random)
            }
            Self::Bursty => arrivals::gamma(4.3, 3.0, HOUR_S, random),
            Self::NoisyDiurnal => {
                let noisy = arrivals::autoregressive(10.0, 0.25, 0.63, 60.0, HOUR_S, random);
                thin(noisy, |at| 0.55 - 0.4 * wave(at, HOUR_S), random)
            }
            Self::Drift => arrivals::autoregressive(5.0, 0.4, 0.97, 20.0, HOUR_S, random),
            // Steady, and the traces, which never come here.
            _ => poisson(&|_| 5.0),
        }
    }
}

/// Keeps each time with probability `share(t)`.
fn thin(times: Vec<f64>, share: impl Fn(f64) -> f64, random: &mut Random) -> Vec<f64> {
    use rand::RngExt as _;
    times.into_iter().filter(|at| random.random::<f64>() < share(*at)).collect()
}

/// The hour of a trace, beginning `offset_s` into it and going round.
fn replay(traces: &Traces, service: Service, offset_s: f64, random: &mut Random) -> Load {
    let trace = traces.of(service);
    let end_s = trace.seconds();
    let mut requests = trace.requests(random);
    for request in &mut requests {
        request.at_s = (request.at_s - offset_s).rem_euclid(end_s);
    }
    requests.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
    Load { requests, end_s }
}

fn offset(traces: &Traces, service: Service, random: &mut Random) -> Load {
    use rand::RngExt as _;
    let offset_s = random.random::<f64>() * traces.of(service).seconds();
    replay(traces, service, offset_s, random)
}
