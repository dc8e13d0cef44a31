//! The four situations in which routers are measured. Each starts its routers anew.

use std::time::Duration;

use anyhow::Result;

use super::load::{OpenLoop, Outcome};
use super::process::Clocks;
use super::router::{Kind, Programs, Router};
use super::stub::{Pace, Stubs};

/// Backends in every scenario but [`idle`].
pub const BACKENDS: usize = 8;

/// Endpoints of an idle router.
pub const IDLE_ENDPOINTS: usize = 100;

/// Requests per second of [`paced`].
pub const PACED_RATE: f64 = 500.0;

/// Streams at once in [`crowd`].
pub const CROWD: usize = 5000;

/// Streams at once in [`saturated`]: more than any router needs to be busy all the time.
const SATURATING_STREAMS: usize = 128;

/// Rounds of [`saturated`]: each router gets its turn in each, so that a neighbour's load meets all of them.
const ROUNDS: usize = 3;

/// A named measurement of one router.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The scenario.
    pub scenario: String,
    /// The router.
    pub router: Kind,
    /// What was seen.
    pub outcome: Outcome,
    /// Work waiting for the machine's cores before it began; above their number, others disturbed the measurement.
    pub machine_load: f64,
}

/// 500 requests per second of 200 tokens in and 100 out, at 100 tokens per second and stream, for ten seconds; one
/// request in six goes past the router, for the difference.
///
/// # Errors
/// The router does not start.
pub async fn paced(
    kind: Kind,
    programs: &Programs,
    stubs: &Stubs,
    tokens_per_event: usize,
) -> Result<Measured> {
    let pace = Pace { tokens_per_event, gap: Duration::from_millis(10) * u32::try_from(tokens_per_event)? };
    let router = Router::start(kind, programs, stubs, pace, None).await?;
    let plan = OpenLoop {
        routed_per_second: PACED_RATE,
        direct_per_second: PACED_RATE / 5.0,
        warm_up: Duration::from_secs(2),
        window: Duration::from_secs(10),
    };
    let machine_load = machine_load();
    let outcome = router.load.open_loop(plan, router.before(stubs)).await;
    let scenario = format!("500 rps, {tokens_per_event} tokens per event");
    Ok(Measured { scenario, router: kind, outcome, machine_load })
}

/// 5,000 streams at once, three times: an allocator keeps some of what the first two waves needed, but what the third
/// needs beyond the second is a leak.
///
/// # Errors
/// The router does not start.
pub async fn crowd(kind: Kind, programs: &Programs, stubs: &Stubs) -> Result<Vec<Measured>> {
    // Each lasts 10 s in 20 events, so all 5,000 are there for 6 s after a ramp of 4 s.
    let pace = Pace { tokens_per_event: 5, gap: Duration::from_millis(500) };
    let router = Router::start(kind, programs, stubs, pace, None).await?;
    let mut measured = Vec::new();
    for wave in ["first", "second", "third"] {
        let machine_load = machine_load();
        let outcome = router.load.burst(CROWD, Duration::from_secs(4), router.before(stubs)).await;
        let scenario = format!("5,000 streams, {wave} wave");
        measured.push(Measured { scenario, router: kind, outcome, machine_load });
    }
    Ok(measured)
}

/// Ten seconds of nothing, with 100 endpoints; all routers at the same time.
///
/// # Errors
/// A router does not start.
pub async fn idle(kinds: &[Kind], programs: &Programs, stubs: &Stubs) -> Result<Vec<Measured>> {
    let pace = Pace { tokens_per_event: 5, gap: Duration::ZERO };
    let mut routers = Vec::new();
    for kind in kinds {
        routers.push(Router::start(*kind, programs, stubs, pace, None).await?);
    }
    // What a start has left to do is not idleness.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let machine_load = machine_load();
    let first: Vec<Clocks> = routers.iter().map(|router| router.before(stubs).clocks()).collect();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let measure = |(router, first): (&Router, &Clocks)| {
        let under_test = router.before(stubs);
        let cores = under_test.clocks().since(first);
        let resident_kib = under_test.process.resident_kib();
        let outcome = Outcome { cores, resident_kib, seconds: 10.0, ..Outcome::default() };
        Measured { scenario: "idle, 100 endpoints".into(), router: router.kind, outcome, machine_load }
    };
    Ok(routers.iter().zip(&first).map(measure).collect())
}

/// As many streams as a router gets through on one core of its own, with everything else on the other; the median of
/// three rounds.
///
/// # Errors
/// A router does not start.
pub async fn saturated(
    kinds: &[Kind],
    programs: &Programs,
    stubs: &Stubs,
    tokens_per_event: usize,
    core: usize,
) -> Result<Vec<Measured>> {
    let pace = Pace { tokens_per_event, gap: Duration::from_millis(1) };
    let (warm_up, window) = (Duration::from_secs(1), Duration::from_secs(4));
    let mut routers = Vec::new();
    for kind in kinds {
        routers.push(Router::start(*kind, programs, stubs, pace, Some(core)).await?);
    }
    let mut rounds: Vec<Vec<Measured>> = vec![Vec::new(); routers.len()];
    for _ in 0..ROUNDS {
        for (router, round) in routers.iter().zip(&mut rounds) {
            let machine_load = machine_load();
            let under_test = router.before(stubs);
            let outcome = router.load.closed_loop(SATURATING_STREAMS, warm_up, window, under_test).await;
            let scenario = format!("saturated, {tokens_per_event} tokens per event");
            round.push(Measured { scenario, router: router.kind, outcome, machine_load });
        }
    }
    Ok(rounds.into_iter().map(median).collect())
}

/// The round in the middle, by streams; the errors of all.
fn median(mut rounds: Vec<Measured>) -> Measured {
    rounds.sort_by_key(|round| round.outcome.finished);
    let errors = rounds.iter().map(|round| round.outcome.errors.count).sum();
    let first = rounds.iter().flat_map(|round| round.outcome.errors.first.clone()).take(5).collect();
    let mut middle = rounds.swap_remove(rounds.len() / 2);
    middle.outcome.errors.count = errors;
    middle.outcome.errors.first = first;
    middle
}

fn machine_load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
