//! What the measurements are held against, and how they are shown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::router::Kind;
use super::samples::millis;
use super::scenario::{CROWD, Measured};
use super::stub::TOKENS;

/// One of the gateway's goals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// What was asked for.
    pub goal: &'static str,
    /// What was seen.
    pub figure: String,
    /// Whether that is good enough.
    pub is_met: bool,
}

/// Milliseconds at the 95th percentile that the gateway may add at 500 requests per second.
const ADDED_P95_MS_MAX: f64 = 1.0;
/// Cores that it may use meanwhile.
const PACED_CORES_MAX: f64 = 0.5;
/// Cores that it may use while nothing happens.
const IDLE_CORES_MAX: f64 = 0.05;
/// By how much the third wave of streams may need more memory than the second: noise of the allocator.
const GROWTH_MAX: f64 = 1.1;
/// From here on a router on one core counts as saturated; below, the load generator on the other was the limit.
const SATURATED_CORES: f64 = 0.85;

/// Holds the measurements against the goals. What was not measured gives no goal.
pub fn goals(measured: &[Measured]) -> Vec<Goal> {
    let ours: Vec<&Measured> = measured.iter().filter(|one| one.router == Kind::Inferno).collect();
    let mut goals = Vec::new();
    for one in ours.iter().filter(|one| one.scenario.starts_with("500 rps")) {
        let p95 = millis(added(one).p95);
        goals.push(Goal {
            goal: "500 rps: added latency P95 < 1 ms at < 0.5 core, 0 errors",
            figure: format!(
                "{p95:.2} ms at {:.2} core, {} errors ({})",
                one.outcome.cores.router, one.outcome.errors.count, one.scenario
            ),
            is_met: p95 < ADDED_P95_MS_MAX
                && one.outcome.cores.router < PACED_CORES_MAX
                && one.outcome.errors.count == 0,
        });
    }
    let waves: Vec<&&Measured> = ours.iter().filter(|one| one.scenario.starts_with("5,000")).collect();
    if let [.., second, third] = waves.as_slice() {
        let growth = third.outcome.resident_kib as f64 / second.outcome.resident_kib as f64;
        let errors: u64 = waves.iter().map(|wave| wave.outcome.errors.count).sum();
        let peak = waves.iter().map(|wave| wave.outcome.peak).min().unwrap_or_default();
        goals.push(Goal {
            goal: "5,000 concurrent streams: memory bounded, 0 errors",
            figure: format!(
                "{peak} at once, {} MiB in the second wave, {} MiB in the third; {errors} errors",
                second.outcome.resident_kib / 1024,
                third.outcome.resident_kib / 1024
            ),
            is_met: errors == 0 && peak == CROWD && growth <= GROWTH_MAX,
        });
    }
    for one in ours.iter().filter(|one| one.scenario.starts_with("idle")) {
        goals.push(Goal {
            goal: "idle with 100 endpoints: < 0.05 core",
            figure: format!("{:.3} core", one.outcome.cores.router),
            is_met: one.outcome.cores.router < IDLE_CORES_MAX,
        });
    }
    for one in ours.iter().filter(|one| one.scenario.starts_with("saturated")) {
        let peers =
            measured.iter().filter(|peer| peer.scenario == one.scenario && peer.router != Kind::Inferno);
        let Some(best) = peers.max_by_key(|peer| peer.outcome.finished) else { continue };
        goals.push(Goal {
            goal: "saturated: at least the better peer's throughput",
            figure: format!(
                "{:.0} streams/s, {} {:.0} ({})",
                per_second(one),
                best.router.name(),
                per_second(best),
                one.scenario
            ),
            is_met: one.outcome.finished >= best.outcome.finished && one.outcome.errors.count == 0,
        });
    }
    goals
}

fn added(one: &Measured) -> super::samples::Percentiles {
    one.outcome.routed.percentiles().added_to(one.outcome.direct.percentiles())
}

fn per_second(one: &Measured) -> f64 {
    one.outcome.finished as f64 / one.outcome.seconds
}

/// Processor time of the router per stream, in microseconds.
fn micros_per_stream(one: &Measured) -> f64 {
    one.outcome.cores.router * one.outcome.seconds * 1e6 / one.outcome.finished.max(1) as f64
}

/// The measurements as a table for a terminal.
pub fn table(measured: &[Measured]) -> String {
    let mut text = format!(
        "{:<34} {:<16} {:>9} {:>23} {:>7} {:>8} {:>6} {:>7} {:>11}\n",
        "scenario",
        "router",
        "streams/s",
        "added ms P50/P95/P99",
        "cores",
        "µs/strm",
        "MiB",
        "errors",
        "load+stubs"
    );
    for one in measured {
        let outcome = &one.outcome;
        let added = added(one);
        let latency = if outcome.direct.count() == 0 {
            "-".to_owned()
        } else {
            format!("{:.2}/{:.2}/{:.2}", millis(added.p50), millis(added.p95), millis(added.p99))
        };
        let _ = writeln!(
            text,
            "{:<34} {:<16} {:>9.0} {latency:>23} {:>7.3} {:>8.0} {:>6} {:>7} {:>11}",
            one.scenario,
            one.router.name(),
            per_second(one),
            outcome.cores.router,
            micros_per_stream(one),
            outcome.resident_kib / 1024,
            outcome.errors.count,
            format!("{:.2}+{:.2}", outcome.cores.load, outcome.cores.stubs),
        );
        for error in &outcome.errors.first {
            let _ = writeln!(text, "    error: {error}");
        }
        if one.scenario.starts_with("saturated") && outcome.cores.router < SATURATED_CORES {
            let _ = writeln!(
                text,
                "    not saturated: the load, the backends or others on the machine were the limit"
            );
        }
    }
    text
}

/// The measurements and goals for a program to read.
pub fn json(measured: &[Measured], goals: &[Goal]) -> Value {
    let rows: Vec<Value> = measured.iter().map(row).collect();
    let goals: Vec<Value> = goals
        .iter()
        .map(|goal| json!({"goal": goal.goal, "figure": goal.figure, "met": goal.is_met}))
        .collect();
    json!({"measured": rows, "goals": goals, "tokensPerStream": TOKENS})
}

fn row(one: &Measured) -> Value {
    let outcome = &one.outcome;
    json!({
        "scenario": one.scenario, "router": one.router.name(), "machineLoad": one.machine_load,
        "streamsPerSecond": per_second(one), "seconds": outcome.seconds,
        "addedLatency": added(one).json(), "throughRouter": outcome.routed.percentiles().json(),
        "direct": outcome.direct.percentiles().json(), "sentLate": outcome.late.percentiles().json(),
        "samples": {"throughRouter": outcome.routed.count(), "direct": outcome.direct.count()},
        "cores": {"router": outcome.cores.router, "load": outcome.cores.load, "stubs": outcome.cores.stubs},
        "routerMicrosPerStream": micros_per_stream(one),
        "residentMiB": outcome.resident_kib / 1024, "concurrentPeak": outcome.peak,
        "errors": outcome.errors.count, "firstErrors": outcome.errors.first,
    })
}

#[cfg(test)]
mod tests {
    use super::super::load::Outcome;
    use super::*;

    fn measured(scenario: &str, router: Kind, change: impl Fn(&mut Outcome)) -> Measured {
        let mut outcome = Outcome { seconds: 1.0, ..Outcome::default() };
        change(&mut outcome);
        Measured { scenario: scenario.into(), router, outcome, machine_load: 0.0 }
    }

    #[test]
    fn a_goal_is_met_by_figures_and_missed_by_errors() {
        let paced = |cores, errors| {
            measured("500 rps, 1", Kind::Inferno, |outcome| {
                outcome.cores.router = cores;
                outcome.errors.count = errors;
                outcome.direct.add(100);
                outcome.routed.add(1000);
            })
        };
        let is_met = |one| goals(&[one])[0].is_met;
        assert!(is_met(paced(0.4, 0)));
        assert!(!is_met(paced(0.6, 0)));
        assert!(!is_met(paced(0.4, 1)));
    }

    #[test]
    fn memory_is_bounded_when_the_last_wave_needs_no_more_than_the_one_before() {
        let wave = |number, kib| {
            measured(&format!("5,000 streams, {number}"), Kind::Inferno, |outcome| {
                outcome.resident_kib = kib;
                outcome.peak = CROWD;
            })
        };
        let is_met = |kib: [u64; 3]| goals(&[wave(1, kib[0]), wave(2, kib[1]), wave(3, kib[2])])[0].is_met;
        assert!(is_met([100, 130, 131]));
        assert!(!is_met([100, 130, 160]));
    }

    #[test]
    fn the_better_peer_is_the_measure() {
        let row = |router, finished| measured("saturated", router, |outcome| outcome.finished = finished);
        let rows = [row(Kind::Inferno, 10), row(Kind::Smg, 9), row(Kind::VllmRouter, 11)];
        assert!(!goals(&rows)[0].is_met);
        assert!(goals(&rows[..2])[0].is_met);
        assert_eq!(goals(&rows[..1]), []);
    }
}
