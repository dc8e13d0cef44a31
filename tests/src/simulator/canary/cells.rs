//! The situations that the claims are made about. "Same" means that the canary is the stable revision under another
//! name: whoever rolls it back is wrong.

use super::world::{Arrivals, Change, Layout, Loss, World};

/// A situation with what is claimed about it.
#[derive(Debug, Clone)]
pub struct Cell {
    /// What is simulated.
    pub world: World,
    /// The judge's belief about how much pods differ.
    pub pod_sd: f64,
    /// What is claimed.
    pub claim: Claim,
}

/// What is claimed about a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Claim {
    /// A healthy revision is rolled back in at most this share of rollouts (upper 95 % bound).
    FalseAlarms {
        /// The share.
        at_most: f64,
        /// Whether every rollout is proven to be no slower within 15 minutes.
        passes: bool,
    },
    /// A change is found.
    Found {
        /// In this share of rollouts within the half hour.
        share: f64,
        /// Median and ninth decile of the minutes until then.
        minutes: (f64, f64),
    },
    /// Never rolled back for being slower.
    NeverSlow,
}

/// Prior for pods when an earlier rollout has measured them.
const MEASURED: f64 = 0.01;
/// Prior when nothing was measured.
const UNKNOWN: f64 = 0.02;

fn same(world: World, at_most: f64) -> Cell {
    Cell { world, pod_sd: UNKNOWN, claim: Claim::FalseAlarms { at_most, passes: false } }
}

fn plain(name: &'static str) -> World {
    World::plain(name)
}

fn slow(name: &'static str, canary_pods: u32) -> World {
    World { rate: 2.0, pods: 4, canary_pods: Some(canary_pods), ..plain(name) }
}

fn large(name: &'static str) -> World {
    World { rate: 50.0, pods: 66, ..plain(name) }
}

/// Healthy revisions at 10 requests per second, pods alike. All of them are to be proven within a quarter of an hour.
pub fn same_at_10() -> Vec<Cell> {
    let claim = Claim::FalseAlarms { at_most: 0.01, passes: true };
    equal_pods(plain).into_iter().map(|world| Cell { claim, ..same(world, 0.01) }).collect()
}

/// The confounders of equal pods, on the fleet that `base` makes.
fn equal_pods(base: fn(&'static str) -> World) -> Vec<World> {
    vec![
        World { ..base("Surge") },
        World { layout: Layout::LatePods, ..base("weight first, pods later") },
        World { layout: Layout::Matched, ..base("equal load per pod") },
        World { layout: Layout::InPlace, pods: base("").pods * 6 / 7, ..base("InPlace, busy") },
        World { pods: base("").pods * 6 / 7, ..base("busy fleet (u = 0.8)") },
        World { arrivals: Arrivals::Ramp, ..base("demand doubles") },
        World { arrivals: Arrivals::Wandering, ..base("demand wanders") },
        World { arrivals: Arrivals::CodeTrace, ..base("code trace") },
        World { cache_tokens: 40_000, ..base("a third of the cache") },
        World { loss: Loss::Share(0.5), ..base("half of the reports lost") },
        World { loss: Loss::UnderQueueing, ..base("reports lost under queueing") },
        World { loss: Loss::StableOnly, ..base("stable's reports lost") },
        World { late_s: 20.0, arrivals: Arrivals::Ramp, ..base("canary's reports late") },
        World { restarts: true, ..base("a canary pod restarts") },
        World { impatience: (0.8, 3.0), ..base("most users give up") },
        World { is_poisoned: true, ..base("poisoned conversations") },
        World { is_misfit: true, ..base("engine disobeys the model") },
    ]
}

/// Healthy revisions at 10 requests per second, pods that differ.
pub fn unequal_at_10() -> Vec<Cell> {
    let base = plain("").nodes;
    let nodes = |sd| super::world::Nodes { sd, ..base };
    vec![
        same(World { nodes: nodes(0.03), ..plain("pods differ by 3 %") }, 0.02),
        same(
            World {
                nodes: super::world::Nodes { is_heavy_tailed: true, ..nodes(0.03) },
                ..plain("pods differ, heavy tails")
            },
            0.02,
        ),
        same(
            World {
                nodes: super::world::Nodes { bad_canary: 0.15, ..base },
                ..plain("one canary node 15 % slow")
            },
            0.02,
        ),
        same(
            World {
                nodes: super::world::Nodes { bad_stable: 0.15, ..base },
                ..plain("one stable node 15 % slow")
            },
            0.02,
        ),
        same(
            World { nodes: super::world::Nodes { clock_sd: 0.05, ..base }, ..plain("clocks wander by 5 %") },
            0.02,
        ),
    ]
}

/// The hardest healthy one: everything at once.
pub fn hardest() -> Cell {
    let base = plain("").nodes;
    let world = World {
        is_misfit: true,
        nodes: super::world::Nodes { sd: 0.03, ..base },
        arrivals: Arrivals::Ramp,
        loss: Loss::Share(0.5),
        ..plain("misfit, pods differ, ramp, loss")
    };
    same(world, 0.06)
}

/// Healthy revisions at 2 requests per second.
pub fn same_at_2() -> Vec<Cell> {
    let base = plain("").nodes;
    let uneven = super::world::Nodes { sd: 0.03, ..base };
    vec![
        same(slow("2 rps, 4 + 1 pods", 1), 0.01),
        same(slow("2 rps, 4 + 2 pods", 2), 0.01),
        same(World { layout: Layout::Matched, ..slow("2 rps, equal load", 2) }, 0.01),
        Cell {
            pod_sd: MEASURED,
            ..same(World { confirms: true, ..slow("2 rps, 4 + 1, pods measured", 1) }, 0.01)
        },
        Cell { pod_sd: MEASURED, ..same(slow("2 rps, 4 + 2, pods measured", 2), 0.01) },
        same(World { nodes: uneven, ..slow("2 rps, 4 + 2, pods differ by 3 %", 2) }, 0.02),
        Cell {
            pod_sd: MEASURED,
            ..same(World { nodes: uneven, ..slow("2 rps, same, measured wrongly as 1 %", 2) }, 0.06)
        },
    ]
}

/// Healthy revisions at 50 requests per second.
pub fn same_at_50() -> Vec<Cell> {
    equal_pods(large)
        .into_iter()
        .map(|world| same(World { name: leak(&format!("50 rps, {}", world.name)), ..world }, 0.01))
        .collect()
}

/// Names of cells live as long as the program; there are a few dozen.
fn leak(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

fn found(world: World, share: f64, minutes: (f64, f64)) -> Cell {
    Cell { world, pod_sd: UNKNOWN, claim: Claim::Found { share, minutes } }
}

/// True changes at 10 requests per second.
pub fn changes_at_10() -> Vec<Cell> {
    let with = |name, change| World { change, ..plain(name) };
    let same = Change::NOTHING;
    vec![
        found(with("decode +5 %", Change { decode: 1.05, ..same }), 0.9, (30.0, 30.0)),
        found(with("decode +10 %", Change { decode: 1.1, ..same }), 1.0, (2.0, 2.5)),
        found(with("prefill +10 %", Change { prefill: 1.1, ..same }), 1.0, (2.0, 2.5)),
        found(with("decode +20 %", Change { decode: 1.2, ..same }), 1.0, (1.5, 2.0)),
        found(with("prefill +20 %", Change { prefill: 1.2, ..same }), 1.0, (1.5, 2.0)),
        found(with("decode +50 %", Change { decode: 1.5, ..same }), 1.0, (1.0, 1.0)),
        found(with("prefill +50 %", Change { prefill: 1.5, ..same }), 1.0, (1.0, 1.0)),
        found(with("3 % of requests ×5", Change { tail: 0.03, ..same }), 1.0, (2.0, 3.0)),
        found(with("cache never hits", Change { loses_cache: true, ..same }), 1.0, (1.0, 1.0)),
        found(with("+150 ms outside the engine", Change { outside_ms: 150.0, ..same }), 1.0, (2.0, 2.5)),
        found(with("4 slots instead of 8", Change { slots: Some(4), ..same }), 1.0, (1.0, 1.5)),
        found(with("errors 0.5 → 10 %", Change { error_rate: Some(0.1), ..same }), 1.0, (1.5, 2.5)),
        found(with("errors 0.5 → 50 %", Change { error_rate: Some(0.5), ..same }), 1.0, (0.8, 1.0)),
        Cell {
            claim: Claim::NeverSlow,
            ..found(with("talks 20 % longer", Change { length: 1.2, ..same }), 0.0, (0.0, 0.0))
        },
    ]
}

/// True changes at 2 requests per second, with pods measured by an earlier rollout.
pub fn changes_at_2() -> Vec<Cell> {
    let with = |name, change| World { change, ..slow(name, 2) };
    let same = Change::NOTHING;
    let cells = vec![
        found(with("2 rps, decode +10 %", Change { decode: 1.1, ..same }), 0.95, (2.0, 3.0)),
        found(with("2 rps, prefill +10 %", Change { prefill: 1.1, ..same }), 0.95, (8.0, 12.0)),
        found(with("2 rps, errors 0.5 → 10 %", Change { error_rate: Some(0.1), ..same }), 0.95, (6.0, 11.0)),
        found(with("2 rps, cache never hits", Change { loses_cache: true, ..same }), 0.95, (1.5, 2.0)),
    ];
    cells.into_iter().map(|cell| Cell { pod_sd: MEASURED, ..cell }).collect()
}

/// A situation in which the verdict drives the weight.
#[derive(Debug, Clone)]
pub struct Driven {
    /// What is simulated and believed.
    pub cell: Cell,
    /// What is claimed of its end.
    pub asked: Asked,
}

/// What is claimed of rollouts that the verdict drives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Asked {
    /// At least this share is promoted within half an hour, in this median of minutes.
    Promoted {
        /// The share.
        share: f64,
        /// The median.
        minutes: f64,
    },
    /// At most this share is promoted (upper 95 % bound).
    NotPromoted {
        /// The share.
        at_most: f64,
    },
    /// At most so many canary requests are served until the end, in the median.
    Exposure {
        /// Requests.
        at_most: f64,
    },
    /// At most this share is rolled back for being slower (upper 95 % bound).
    NeverSlow {
        /// The share.
        at_most: f64,
    },
    /// At least this share is promoted and canary users miss at most so many points more objectives, in the median.
    Held {
        /// The share.
        share: f64,
        /// The difference of shares.
        points: f64,
    },
}

/// What happens when the verdict drives the weight.
pub fn driven() -> Vec<Driven> {
    let same = Change::NOTHING;
    let with = |name, change, asked| Driven {
        cell: Cell { world: World { change, ..plain(name) }, pod_sd: UNKNOWN, claim: Claim::NeverSlow },
        asked,
    };
    let healthy = |world, pod_sd, share, minutes| Driven {
        cell: Cell { world, pod_sd, claim: Claim::NeverSlow },
        asked: Asked::Promoted { share, minutes },
    };
    let held = |world, share, points| Driven {
        cell: Cell { world, pod_sd: UNKNOWN, claim: Claim::NeverSlow },
        asked: Asked::Held { share, points },
    };
    let small = World { rate: 2.0, pods: 4, ..plain("driven: 2 rps, same revision, pods measured") };
    vec![
        healthy(plain("driven: same revision"), UNKNOWN, 0.99, 10.0),
        healthy(small, MEASURED, 0.85, 18.0),
        with("driven: decode +10 %", Change { decode: 1.1, ..same }, Asked::NotPromoted { at_most: 0.01 }),
        with("driven: prefill +10 %", Change { prefill: 1.1, ..same }, Asked::NotPromoted { at_most: 0.01 }),
        with("driven: decode +5 %", Change { decode: 1.05, ..same }, Asked::NotPromoted { at_most: 0.1 }),
        with(
            "driven: errors 0.5 → 2 %",
            Change { error_rate: Some(0.02), ..same },
            Asked::NotPromoted { at_most: 0.05 },
        ),
        with("driven: decode +20 %", Change { decode: 1.2, ..same }, Asked::Exposure { at_most: 100.0 }),
        with("driven: prefill +20 %", Change { prefill: 1.2, ..same }, Asked::Exposure { at_most: 100.0 }),
        with("driven: talks 20 % longer", Change { length: 1.2, ..same }, Asked::NeverSlow { at_most: 0.01 }),
        held(World { pods: 12, ..plain("driven: busy fleet (u = 0.8)") }, 0.95, 0.05),
        held(
            World { pods: 12, room: Some(6), ..plain("driven: busy fleet, room for six canary pods") },
            0.85,
            0.08,
        ),
    ]
}
