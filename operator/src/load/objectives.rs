//! What goals for answers mean for the reckoning: which wait is late, and with how many requests at once a pod is
//! planned. A goal that a pod misses even for a single request changes neither: more pods would not meet it. Pure.

use judgement::autoscale::{PodModel, Policy};

/// The part of the goal for a first token that a request may wait: the rest is its prompt, beside those of others.
const WAIT_SHARE: u32 = 3;

/// A goal that was out of reach is within it again when a pod meets it with a tenth of its own time to spare: what pods are
/// measured to do changes by some percent with what they are asked.
const SPARE_SHARE: u64 = 10;

/// Answers in time, of a hundred, with which people are content: one slow answer in twenty.
const ATTAINMENT_PERCENT: u32 = 95;

/// Goals for answers, as the user has set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objectives {
    /// From a request's arrival to its first token, milliseconds.
    pub ttft_ms: Option<u32>,
    /// From one token to the next, milliseconds.
    pub inter_token_ms: Option<u32>,
    /// So many of the answers should come in time, percent.
    pub attainment_percent: u32,
}

/// The goals beside what a pod can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aims {
    /// The goal for a first token, if there is one.
    pub first_token: Option<Aim>,
    /// The goal for each further token, if there is one.
    pub inter_token: Option<Aim>,
}

/// A goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    /// What it is, microseconds.
    pub goal_us: u64,
    /// What a pod takes that has nothing else to do, microseconds; `None` before it was measured.
    pub least_us: Option<u64>,
    /// Whether a pod alone takes longer, or did and has not a tenth to spare yet: no number of pods meets the goal. What was
    /// not measured may be met.
    pub is_out_of_reach: bool,
}

impl Default for Objectives {
    /// None.
    fn default() -> Self {
        Self { ttft_ms: None, inter_token_ms: None, attainment_percent: ATTAINMENT_PERCENT }
    }
}

impl Objectives {
    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.ttft_ms.is_none() && self.inter_token_ms.is_none()
    }

    /// The goals beside what `pod` can do; `None` before a pod was measured. Of an average prompt no cache holds `prompt`
    /// tokens. `before` is what was found last.
    pub(super) fn aims(&self, pod: Option<&PodModel>, prompt: Option<f64>, before: Aims) -> Aims {
        let first_token_us = |pod: &PodModel| Some(prompt_us(pod, prompt?));
        let inter_token_us =
            |pod: &PodModel| u64::from(pod.step_base_us) + u64::from(pod.step_per_request_us);
        let aim = |goal_ms: u32, least_us, before| Aim::new(1_000 * u64::from(goal_ms), least_us, before);
        Aims {
            first_token: self.ttft_ms.map(|ms| aim(ms, pod.and_then(first_token_us), before.first_token)),
            inter_token: self.inter_token_ms.map(|ms| aim(ms, pod.map(inter_token_us), before.inter_token)),
        }
    }
}

/// Time to read so many tokens while nothing else runs, microseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a mean of counts is not negative, and the cast saturates"
)]
fn prompt_us(pod: &PodModel, tokens: f64) -> u64 {
    (tokens * 1e6 / f64::from(pod.prefill_tokens_per_second.max(1))).round() as u64
}

impl Aim {
    fn new(goal_us: u64, least_us: Option<u64>, before: Option<Self>) -> Self {
        let was_out = before.is_some_and(|before| before.goal_us == goal_us && before.is_out_of_reach);
        let with_spare = |least: u64| if was_out { least + least / SPARE_SHARE } else { least };
        let is_out_of_reach = least_us.is_some_and(|least| with_spare(least) > goal_us);
        Self { goal_us, least_us, is_out_of_reach }
    }
}

impl Aims {
    /// The policy with the wait that is late for these goals.
    pub(super) fn policy(&self, policy: Policy) -> Policy {
        let Some(aim) = self.first_token.filter(|aim| !aim.is_out_of_reach) else { return policy };
        let late_ms = aim.goal_us / 1_000 / u64::from(WAIT_SHARE);
        Policy { late_ms: u32::try_from(late_ms).unwrap_or(u32::MAX).max(1), ..policy }
    }

    /// The pod with as many slots as it can fill without missing the goal for further tokens: the most requests whose
    /// common step, α + β·requests, is not longer than that.
    pub(super) fn planned(&self, pod: PodModel) -> PodModel {
        let is_known = |aim: &Aim| aim.least_us.is_some() && !aim.is_out_of_reach;
        let Some(aim) = self.inter_token.filter(is_known) else { return pod };
        let room_us = aim.goal_us.saturating_sub(pod.step_base_us.into());
        let fits = room_us.checked_div(pod.step_per_request_us.into()).unwrap_or(u64::MAX);
        let slots = u32::try_from(fits).unwrap_or(u32::MAX).min(pod.slots).max(1);
        PodModel { slots, ..pod }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A step of `b` requests takes 18 + 2·b ms, and a prompt of 3 000 tokens a second.
    const POD: PodModel = PodModel {
        slots: 8,
        prefill_tokens_per_second: 3_000,
        step_base_us: 18_000,
        step_per_request_us: 2_000,
        kv_tokens: None,
    };

    fn aims(ttft_ms: Option<u32>, inter_token_ms: Option<u32>) -> Aims {
        Objectives { ttft_ms, inter_token_ms, ..Objectives::default() }.aims(
            Some(&POD),
            Some(600.0),
            Aims::default(),
        )
    }

    fn late_ms(aims: Aims) -> u32 {
        aims.policy(Policy::between(1, 9)).late_ms
    }

    #[test]
    fn a_third_of_the_goal_may_be_waited() {
        assert_eq!(late_ms(aims(None, None)), 700);
        assert_eq!(late_ms(aims(Some(3_000), None)), 1_000);
        assert_eq!(late_ms(aims(Some(201), None)), 67);
    }

    #[test]
    fn a_pod_is_planned_with_as_many_requests_as_keep_the_pace() {
        let slots = |goal_ms| aims(None, goal_ms).planned(POD).slots;
        assert_eq!([None, Some(100), Some(34), Some(33), Some(21), Some(20)].map(slots), [8, 8, 8, 7, 1, 1]);
        let flat = PodModel { step_per_request_us: 0, ..POD };
        assert_eq!(
            Objectives { inter_token_ms: Some(18), ..Objectives::default() }
                .aims(Some(&flat), None, Aims::default())
                .planned(flat),
            flat
        );
    }

    #[test]
    fn what_no_number_of_pods_can_meet_is_not_pursued() {
        // A prompt of 600 tokens takes 200 ms, and a single request 20 ms for each token.
        let out = aims(Some(199), Some(19));
        assert!(out.first_token.unwrap().is_out_of_reach && out.inter_token.unwrap().is_out_of_reach);
        assert_eq!((late_ms(out), out.planned(POD)), (700, POD));
        assert!(!aims(Some(200), None).first_token.unwrap().is_out_of_reach);
    }

    #[test]
    fn a_goal_at_what_a_pod_can_do_does_not_come_and_go() {
        let goals = Objectives { inter_token_ms: Some(20), ..Objectives::default() };
        let mut before = Aims::default();
        // A single request takes 18 ms and this for each token.
        for (each_us, is_out) in
            [(2_000, false), (2_100, true), (1_900, true), (200, true), (100, false), (1_900, false)]
        {
            let pod = PodModel { step_per_request_us: each_us, ..POD };
            before = goals.aims(Some(&pod), None, before);
            assert_eq!(before.inter_token.unwrap().is_out_of_reach, is_out, "{each_us}");
        }
        // Another goal is looked at anew.
        before = goals.aims(Some(&PodModel { step_per_request_us: 9_000, ..POD }), None, before);
        let eased =
            Objectives { inter_token_ms: Some(21), ..Objectives::default() }.aims(Some(&POD), None, before);
        assert!(!eased.inter_token.unwrap().is_out_of_reach);
    }

    #[test]
    fn before_a_pod_was_measured_no_goal_is_out_of_reach_and_all_slots_count() {
        let unknown = Objectives { ttft_ms: Some(1), inter_token_ms: Some(1), ..Objectives::default() }.aims(
            None,
            Some(600.0),
            Aims::default(),
        );
        assert!(
            !unknown.first_token.unwrap().is_out_of_reach && !unknown.inter_token.unwrap().is_out_of_reach
        );
        assert_eq!(unknown.planned(POD), POD);
    }

    proptest! {
        #[test]
        fn a_planned_batch_keeps_the_goal_and_one_more_would_not(
            base in 0_u32..50_000, each in 0_u32..10_000, slots in 1_u32..64, goal_ms in 1_u32..100,
        ) {
            let pod = PodModel { slots, step_base_us: base, step_per_request_us: each, ..POD };
            let aims = Objectives { inter_token_ms: Some(goal_ms), ..Objectives::default() }.aims(Some(&pod), None, Aims::default());
            let planned = aims.planned(pod).slots;
            let step_us = |batch: u32| u64::from(base) + u64::from(each) * u64::from(batch);
            prop_assert!((1..=slots).contains(&planned));
            if !aims.inter_token.unwrap().is_out_of_reach {
                prop_assert!(step_us(planned) <= 1_000 * u64::from(goal_ms));
                prop_assert!(planned == slots || step_us(planned + 1) > 1_000 * u64::from(goal_ms));
            }
        }

        #[test]
        fn a_stricter_goal_never_plans_a_pod_with_more(goal_ms in 20_u32..100, more in 0_u32..100) {
            let slots = |goal_ms| aims(None, Some(goal_ms)).planned(POD).slots;
            prop_assert!(slots(goal_ms) <= slots(goal_ms + more));
        }
    }
}
