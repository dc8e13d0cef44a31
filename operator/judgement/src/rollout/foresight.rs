//! What a rollout with so many pods will be able to tell, said before it begins.

use std::fmt;

use super::budget::Budget;
use super::judge::{PASS_ALPHA, PASS_EFFECT};
use super::policy::Analysis;
use super::verdict::Metric;
use crate::statistics::sizes;

/// Canary pods that are worth proposing.
const PODS_PROPOSED_MAX: u32 = 100;

/// How sharp a rollout is, at best, that has such pods.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foresight {
    /// Canary pods where it has most.
    pub canary_pods: u32,
    /// Stable pods beside them.
    pub stable_pods: u32,
    /// Canary pods below which speed is not judged but for the worst.
    pub pods_min: u32,
    /// How much pods differ as far as that is known, as a standard deviation of ln speed.
    pub pod_sd: f64,
    /// The slowdown that is accepted, as a share.
    pub tolerance: f64,
    /// A slowdown below this share (0.12 is 12 %) leads to a rollback by luck only. No less than is tolerated.
    pub unseen_below: f64,
    /// Canary pods with which a revision that is not slower is proven to be within tolerance in four of five rollouts;
    /// `None` if with no number of them.
    pub pods_needed: Option<u32>,
}

impl Foresight {
    /// Whether pods are too few to prove that nothing is slower than tolerated.
    pub fn is_blind(&self) -> bool {
        self.pods_needed.is_none_or(|needed| self.canary_pods < needed)
    }
}

/// In one sentence, without its full stop.
impl fmt::Display for Foresight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { canary_pods, stable_pods, pods_min, pod_sd, tolerance, unseen_below, pods_needed } = *self;
        let pods = if canary_pods == 1 { "pod" } else { "pods" };
        let tenths = |share: f64| (share * 1_000.0).round() / 10.0;
        let (tolerated, unseen) = (tenths(tolerance), (unseen_below * 100.0).ceil());
        if !self.is_blind() {
            return write!(
                formatter,
                "{canary_pods} canary {pods} beside {stable_pods} can prove that nothing is {tolerated} % slower"
            );
        }
        if canary_pods < pods_min {
            write!(
                formatter,
                "with {canary_pods} canary {pods} a slowdown below {unseen} % cannot be told from a slow node"
            )?;
        } else {
            write!(
                formatter,
                "with {canary_pods} canary {pods} beside {stable_pods} it can hardly be proven that nothing is {tolerated} % slower, \
                 or found what is less than {unseen} % slower, if pods of one revision differ by {} %",
                tenths(pod_sd)
            )?;
        }
        match pods_needed {
            Some(needed) => write!(formatter, "; {needed} canary pods could prove {tolerated} %"),
            None => Ok(()),
        }
    }
}

/// Canary pods beside `stable_pods` with which `analysis` can rule out `effect` (of ln speed) when pods differ by `pod_sd`:
/// the boundary of a pass and one standard error of room fit below it. `None` if it takes more than are worth proposing.
pub(super) fn pods_to_pass(analysis: &Analysis, pod_sd: f64, stable_pods: u32, effect: f64) -> Option<u32> {
    let fewest = u32::try_from(analysis.min_canary_pods).unwrap_or(u32::MAX).max(1);
    let proves = |pods: &u32| {
        sizes::smallest_seen(pod_sd, (*pods, stable_pods), PASS_EFFECT * effect, PASS_ALPHA) <= effect
    };
    (fewest..=PODS_PROPOSED_MAX).find(proves)
}

/// What `canary_pods` beside `stable_pods` can tell by `analysis`, whose `pod_sd` is what is known of how pods differ. `None`
/// where speed decides nothing, or there is nothing to compare.
pub fn foresee(analysis: &Analysis, canary_pods: u32, stable_pods: u32) -> Option<Foresight> {
    let tolerances = analysis.tolerances;
    let respects = [(Metric::Decode, tolerances.decode), (Metric::Prefill, tolerances.prefill)];
    let judged = respects.into_iter().filter(|(metric, _)| analysis.decides(*metric));
    // The stricter one is the harder to prove; both gates have the same alpha.
    let tolerance = judged.map(|(_, tolerance)| tolerance).min_by(f64::total_cmp)?;
    if canary_pods == 0 || stable_pods == 0 {
        return None;
    }
    let (alpha, effect) = (Budget::of(analysis.false_rollback).decode, tolerance.ln_1p());
    let pods_min = u32::try_from(analysis.min_canary_pods).unwrap_or(u32::MAX);
    let seen = sizes::smallest_seen(analysis.pod_sd, (canary_pods, stable_pods), effect, alpha).exp_m1();
    let floor = if canary_pods < pods_min { analysis.critical } else { tolerance };
    Some(Foresight {
        canary_pods,
        stable_pods,
        pods_min,
        pod_sd: analysis.pod_sd,
        tolerance,
        unseen_below: seen.max(floor),
        pods_needed: pods_to_pass(analysis, analysis.pod_sd, stable_pods, effect),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_sd(pod_sd: f64) -> Analysis {
        Analysis { pod_sd, ..Analysis::default() }
    }

    #[test]
    fn a_lone_pod_tells_what_no_node_explains() {
        let lone = foresee(&with_sd(0.005), 1, 1).unwrap();
        assert!((lone.unseen_below - 0.5).abs() < 1e-12 && lone.is_blind(), "{lone:?}");
        let unsure = foresee(&with_sd(0.2), 1, 1).unwrap();
        assert!(unsure.unseen_below > 0.5, "{unsure:?}");
        let said = "with 1 canary pod a slowdown below 50 % cannot be told from a slow node; 2 canary pods could prove 5 %";
        assert_eq!(lone.to_string(), said);
    }

    #[test]
    fn it_is_said_with_what_is_known_of_the_pods() {
        let said = |sd, canary, stable| foresee(&with_sd(sd), canary, stable).unwrap().to_string();
        let few = "with 2 canary pods beside 1 it can hardly be proven that nothing is 5 % slower, or found what is less than \
                   12 % slower, if pods of one revision differ by 2 %";
        assert_eq!(said(0.02, 2, 1), few);
        let more = said(0.018, 2, 4);
        assert!(more.ends_with("differ by 1.8 %; 3 canary pods could prove 5 %"), "{more}");
        assert_eq!(said(0.005, 2, 1), "2 canary pods beside 1 can prove that nothing is 5 % slower");
    }

    /// What `simulate canary` proves of the same revision: beside 14 pods that differ by 3 % eight are enough (88 % of rollouts),
    /// beside four that differ by 1 % two are (98 %), and beside four that differ by 3 % they are not (42 %).
    #[test]
    fn what_is_foreseen_is_what_rollouts_show() {
        let is_blind = |sd, canary, stable| foresee(&with_sd(sd), canary, stable).unwrap().is_blind();
        assert_eq!([is_blind(0.03, 8, 14), is_blind(0.01, 2, 4), is_blind(0.03, 2, 4)], [false, false, true]);
    }

    #[test]
    fn nothing_is_foreseen_where_speed_decides_nothing_or_nobody_is_there() {
        let report_only = vec![Metric::Decode, Metric::Prefill];
        assert_eq!(foresee(&Analysis { report_only, ..Analysis::default() }, 3, 14), None);
        assert_eq!((foresee(&with_sd(0.02), 0, 4), foresee(&with_sd(0.02), 4, 0)), (None, None));
    }

    proptest! {
        #[test]
        fn more_pods_and_pods_that_are_more_alike_see_no_less(
            sd in 0.001..0.05, stable in 1_u32..60, canary in 1_u32..99
        ) {
            let unseen = |sd, canary, stable| foresee(&with_sd(sd), canary, stable).unwrap().unseen_below;
            let here = unseen(sd, canary, stable);
            prop_assert!(unseen(sd, canary + 1, stable) <= here);
            prop_assert!(unseen(sd, canary, stable + 1) <= here);
            prop_assert!(unseen(0.9 * sd, canary, stable) <= here);
            let is_blind = |sd, canary, stable| foresee(&with_sd(sd), canary, stable).unwrap().is_blind();
            prop_assert!(is_blind(sd, canary, stable) || !is_blind(sd, canary + 1, stable + 1));
            prop_assert!(is_blind(sd, canary, stable) || !is_blind(0.9 * sd, canary, stable));
        }
    }
}
