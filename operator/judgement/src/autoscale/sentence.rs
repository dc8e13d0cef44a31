//! A decision in one English sentence, or two.

use std::fmt::Write as _;

use super::decision::{Decision, Limit, Price, Winner};

/// What the decision would say to a person.
pub(super) fn of(decision: &Decision) -> String {
    let mut text = reason(decision);
    if let Some(end) = decision.no_scale_down_before {
        // Writing to a string cannot fail.
        let _ = write!(text, " No scale-down for {} s.", end.since(decision.at).div_ceil(1_000));
    }
    text
}

fn reason(decision: &Decision) -> String {
    let Decision { current, desired, wanted, .. } = *decision;
    match decision.winner {
        Winner::Idle => "nothing has come for so long that no pod is needed.".to_owned(),
        Winner::Hold | Winner::Canary => format!("{wanted} would do, {desired} stay: {}.", held_by(decision)),
        Winner::Tolerance => format!(
            "{} would be right, {desired} stay: a rise by at most {} % of them is tolerated.",
            pods(wanted),
            f64::from(decision.inputs.policy.rise_tolerance_thousandths) / 10.0
        ),
        Winner::ColdStart => format!(
            "{} until there is history: demand is {:.1}, and was at most {:.1} in 97 % of what was seen.",
            pods(desired),
            decision.figures.demand,
            decision.figures.high
        ),
        Winner::KvCache => format!("the key-value caches need {}.", pods(desired)),
        Winner::MaxReplicas | Winner::Capacity | Winner::Schedule
            if desired < current || wanted > desired =>
        {
            format!("no more than {} allowed: {}.", pods(desired), bound(decision.winner))
        }
        Winner::MaxReplicas | Winner::Capacity | Winner::SurgeLimit => {
            format!("{}; one more would pay, but {}.", margin(decision), bound(decision.winner))
        }
        Winner::MinReplicas | Winner::Schedule => format!("{}: {}.", pods(desired), bound(decision.winner)),
        Winner::Price => {
            format!("no pod beyond {desired} saves more late work than it costs{}.", next(decision))
        }
        Winner::History | Winner::Level | Winner::Trend | Winner::Backlog => {
            format!("{}{}.", margin(decision), next(decision))
        }
    }
}

fn pods(count: u32) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

/// What the last pod saves and costs.
fn margin(decision: &Decision) -> String {
    let figures = &decision.figures;
    let last = decision.wanted;
    let (Some(saved), Some(price)) = (saved(&figures.prices, last), cost(&figures.prices, last)) else {
        return pods(last);
    };
    format!(
        "pod {last} saves {saved:.0} late pod-seconds in the next {:.0} s ({}), its price is {price:.0}",
        figures.horizon_s,
        because(decision),
    )
}

fn because(decision: &Decision) -> String {
    let figures = &decision.figures;
    match decision.winner {
        Winner::History => format!(
            "History: {} of {} like moments were followed by a burst",
            figures.bursts, figures.like_moments
        ),
        Winner::Backlog => format!("Backlog: {:.0} pod-seconds wait", figures.queue),
        Winner::Trend => format!(
            "Trend: demand is {:.1} pods and grows by {:.1} a minute",
            figures.demand,
            figures.slope * 60.0
        ),
        _ => format!("demand is {:.1} pods", figures.demand),
    }
}

/// What one more pod would save.
fn next(decision: &Decision) -> String {
    let more = decision.wanted + 1;
    saved(&decision.figures.prices, more)
        .map_or_else(String::new, |saved| format!("; pod {more} would save only {saved:.0}"))
}

fn saved(prices: &[Price], replicas: u32) -> Option<f64> {
    let late = |count: u32| prices.iter().find(|price| price.replicas == count).map(|price| price.late);
    Some(late(replicas.checked_sub(1)?)? - late(replicas)?)
}

/// What the last of `replicas` pods costs; less for one that is there, since taking it away costs something too.
fn cost(prices: &[Price], replicas: u32) -> Option<f64> {
    let paid = |count: u32| {
        let price = prices.iter().find(|price| price.replicas == count)?;
        Some(price.total - price.late)
    };
    Some(paid(replicas)? - paid(replicas.checked_sub(1)?)?)
}

const fn bound(winner: Winner) -> &'static str {
    match winner {
        Winner::SurgeLimit => "that much demand is not proven yet",
        Winner::Capacity => "there is no hardware for more",
        Winner::Schedule => "a schedule is active",
        Winner::MinReplicas => "the minimum",
        _ => "the maximum is reached",
    }
}

fn held_by(decision: &Decision) -> &'static str {
    let by = |limit| decision.limits.contains(&limit);
    if by(Limit::Canary) {
        "a canary is being judged"
    } else if by(Limit::Stale) {
        "some source is silent, and what it sees is unknown"
    } else if by(Limit::Start) {
        "the controller has just started"
    } else if by(Limit::Pace) {
        "pods were taken away a moment ago"
    } else if by(Limit::ScaleDownRules) {
        "the rules on scale-downs let no more go yet"
    } else {
        "more was wanted a moment ago"
    }
}
