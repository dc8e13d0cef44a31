//! The judge of a canary on made-up evidence: what it says, what it must not say yet, and that it says it again.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "made-up figures are small and positive"
)]

use judgement::rollout::{
    Analysis, Arm, CountTotals, DecodeTotal, Evidence, FinishedRequest, Method, Metric, Observation, Outcome,
    PodReport, Reason, Tolerances, UserMetric, judge, learned,
};
use proptest::prelude::*;

const TICK_MS: u64 = 10_000;
const LEARN_MS: u64 = 300_000;

/// A fleet that does the same in every tick, but for what a test changes.
#[derive(Clone)]
struct Fleet {
    control: usize,
    canary: usize,
    /// Time of a decode call of each canary pod, as a factor; the last one holds for the rest.
    decode: Vec<f64>,
    prefill: f64,
    /// First attempts that fail, per tick and pod.
    errors: u64,
    class: &'static str,
    analysis: Analysis,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            control: 6,
            canary: 2,
            decode: vec![1.0],
            prefill: 1.0,
            errors: 0,
            class: "a",
            analysis: Analysis::default(),
        }
    }
}

impl Fleet {
    /// A report of one pod at tick `tick`. A little noise, the same every time, keeps the equations well posed.
    fn report(&self, arm: Arm, number: usize, tick: u64) -> PodReport {
        let is_canary = arm == Arm::Canary;
        let noise = |salt: u64| {
            let mut value = (tick + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ (number as u64 + 7 * salt).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            value ^= value >> 31;
            value = value.wrapping_mul(0x94d0_49bb_1331_11eb);
            1.0 + 0.04 * ((value >> 11) as f64 / (1_u64 << 53) as f64 - 0.5)
        };
        let slow = if is_canary { self.decode[number.min(self.decode.len() - 1)] } else { 1.0 };
        let decode = (1..=3_u32).map(|batch| {
            // Sums over all ticks so far; what is in the context goes up and down.
            let mut total = DecodeTotal { batch, ..DecodeTotal::default() };
            for tick in 0..=tick {
                let kv = u64::from(batch) * (900 + 10 * (tick % 7));
                total.calls += 300;
                total.kv_tokens += 300 * kv;
                let micros = 300.0 * (f64::from(18_000 + 2_000 * batch) + 0.6 * kv as f64);
                total.micros += (micros * slow * (1.0 + 0.003 * (number as f64 % 3.0 - 1.0))) as u64;
            }
            total
        });
        let requests = (0..6_u32).map(|at| {
            let uncached = 20 + 150 * ((at + tick as u32) % 6);
            let factor = if is_canary { self.prefill } else { 1.0 };
            let overlap = 250 * ((at + 2 * tick as u32) % 5);
            let micros = factor
                * noise(u64::from(at) + 1)
                * f64::from(10_000 + 333 * uncached)
                * (1.0 + 0.33 * f64::from(overlap) / 1_000.0);
            FinishedRequest {
                uncached_tokens: uncached,
                prompt_tokens: uncached + 500 * (at % 3),
                prefill_micros: micros as u64,
                overlap_permille: overlap as u16,
                ttft_micros: micros as u64 + 30_000,
                inter_token_micros: Some(25_000),
                output_tokens: 100,
                decode_steps: 100,
                is_unqueued: true,
                ..FinishedRequest::default()
            }
        });
        let errors = if is_canary { self.errors * (tick + 1) } else { 0 };
        PodReport {
            pod: format!("{arm:?}-{number}"),
            arm,
            node_class: self.class.to_owned(),
            known_slowness: 0.0,
            ready_at_ms: 0,
            decode: decode.collect(),
            counts: CountTotals {
                first_attempts: 6 * (tick + 1),
                first_attempt_errors: errors,
                ..CountTotals::default()
            },
            requests: requests.collect(),
        }
    }

    fn observation(&self, tick: u64) -> Observation {
        let at_ms = TICK_MS * tick;
        let has_traffic = at_ms > LEARN_MS;
        let canary = if has_traffic { self.canary } else { 0 };
        let control = (0..self.control).map(|number| self.report(Arm::Control, number, tick));
        let pods = control.chain((0..canary).map(|number| self.report(Arm::Canary, number, tick))).collect();
        Observation {
            at_ms,
            weight_basis_points: if has_traffic { 2_500 } else { 0 },
            pods,
            ..Observation::default()
        }
    }

    /// The evidence after so many seconds with canary traffic.
    fn after(&self, seconds: u64) -> Evidence {
        let mut evidence = Evidence::new(self.analysis.clone(), "a");
        for tick in 0..=(LEARN_MS / 1_000 + seconds) / 10 {
            evidence.observe(&self.observation(tick));
        }
        evidence
    }
}

#[track_caller]
fn check(fleet: &Fleet, seconds: u64, outcome: Outcome, reason: Reason) {
    let verdict = judge(&fleet.after(seconds));
    assert_eq!((verdict.outcome, verdict.reason), (outcome, reason), "{}", verdict.sentence);
}

/// A fleet whose analysis only tells of these respects.
fn telling(report_only: &[Metric], fleet: Fleet) -> Fleet {
    let analysis = Analysis { report_only: report_only.to_vec(), ..fleet.analysis };
    Fleet { analysis, ..fleet }
}

#[test]
fn what_is_only_reported_decides_nothing_and_is_told_all_the_same() {
    let slower = Fleet { decode: vec![1.3], ..Fleet::default() };
    check(&slower, 600, Outcome::Rollback, Reason::DecodeSlower);
    // Its prompts are as fast, and nobody asks for more.
    let told = telling(&[Metric::Decode], slower.clone());
    check(&told, 600, Outcome::Pass, Reason::WithinTolerance);
    let verdict = judge(&told.after(600));
    let decode = verdict.metrics.iter().find(|found| found.metric == Metric::Decode).unwrap();
    assert!((0.2..0.4).contains(&decode.estimate), "{decode:?}");
    assert_eq!(verdict.sentence, "prefill is proven to be less than 5 % slower");
    // Another respect decides as before.
    let read_slowly = Fleet { prefill: 1.3, ..slower };
    check(&telling(&[Metric::Decode], read_slowly), 600, Outcome::Rollback, Reason::PrefillSlower);

    let failing = Fleet { errors: 2, ..Fleet::default() };
    check(&failing, 600, Outcome::Rollback, Reason::MoreErrors);
    let told = telling(&[Metric::ErrorRate], failing);
    check(&told, 600, Outcome::Pass, Reason::WithinTolerance);
    assert!(judge(&told.after(600)).is_error_rate_proven, "nobody asks for that either");
}

#[test]
fn an_equal_revision_passes() {
    check(&Fleet::default(), 600, Outcome::Pass, Reason::WithinTolerance);
}

#[test]
fn slower_decoding_is_rolled_back_and_the_sentence_says_by_how_much() {
    let fleet = Fleet { decode: vec![1.15], ..Fleet::default() };
    check(&fleet, 300, Outcome::Rollback, Reason::DecodeSlower);
    let verdict = judge(&fleet.after(300));
    assert!(verdict.sentence.contains("15 % slower"), "{}", verdict.sentence);
    assert!(verdict.sentence.contains("tolerance.decodePercent"), "{}", verdict.sentence);
    let decode = verdict.metrics.iter().find(|found| found.metric == Metric::Decode).unwrap();
    assert!((0.13..0.17).contains(&decode.estimate) && decode.lower > 0.0 && decode.upper > decode.estimate);
    assert!(decode.e_value >= 100.0 && verdict.budget_used >= 0.2);
}

#[test]
fn what_the_early_rule_has_seen_is_what_its_sentence_says() {
    let fleet = Fleet { decode: vec![2.0], ..Fleet::default() };
    check(&fleet, 70, Outcome::Rollback, Reason::DecodeSlower);
    let verdict = judge(&fleet.after(70));
    assert!(verdict.sentence.contains("100 % slower"), "{}", verdict.sentence);
}

#[test]
fn slower_prompts_are_rolled_back() {
    let fleet = Fleet { prefill: 1.15, ..Fleet::default() };
    check(&fleet, 300, Outcome::Rollback, Reason::PrefillSlower);
}

#[test]
fn a_heavier_model_passes_when_its_owner_said_so() {
    let tolerances = Tolerances { decode: 0.3, ..Tolerances::default() };
    let analysis = Analysis { tolerances, ..Analysis::default() };
    check(
        &Fleet { decode: vec![1.15], analysis, ..Fleet::default() },
        600,
        Outcome::Pass,
        Reason::WithinTolerance,
    );
}

#[test]
fn one_bad_node_of_three_is_not_the_revision() {
    let fleet = Fleet { canary: 3, decode: vec![1.3, 1.0, 1.0], ..Fleet::default() };
    let verdict = judge(&fleet.after(600));
    assert_ne!(verdict.outcome, Outcome::Rollback, "{}", verdict.sentence);
}

#[test]
fn a_lone_slow_pod_is_suspect_until_it_is_critical() {
    check(
        &Fleet { canary: 1, decode: vec![1.2], ..Fleet::default() },
        600,
        Outcome::Suspect,
        Reason::ConfirmingPod,
    );
    check(
        &Fleet { canary: 1, decode: vec![1.9], ..Fleet::default() },
        600,
        Outcome::Rollback,
        Reason::DecodeSlower,
    );
}

#[test]
fn a_lone_pod_never_passes_on_speed() {
    check(&Fleet { canary: 1, ..Fleet::default() }, 1_200, Outcome::Continue, Reason::Watching);
}

#[test]
fn errors_are_found_though_stable_has_none() {
    check(&Fleet { errors: 1, ..Fleet::default() }, 60, Outcome::Rollback, Reason::MoreErrors);
}

#[test]
fn pods_on_another_kind_of_node_are_no_control() {
    check(&Fleet { class: "b", ..Fleet::default() }, 300, Outcome::Inconclusive, Reason::NoComparableControl);
}

#[test]
fn the_same_evidence_after_a_restart_gives_the_same_verdict_bit_for_bit() {
    for fleet in [Fleet::default(), Fleet { decode: vec![1.08, 1.02], errors: 1, ..Fleet::default() }] {
        let evidence = fleet.after(400);
        let stored = serde_json::to_string(&evidence).unwrap();
        let mut read: Evidence = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, evidence);
        assert_eq!(judge(&read), judge(&evidence));
        // And it goes on from there as if nothing had happened.
        let mut evidence = evidence;
        for tick in 71..100 {
            evidence.observe(&fleet.observation(tick));
            read.observe(&fleet.observation(tick));
        }
        assert_eq!(judge(&read), judge(&evidence));
        let verdict = judge(&evidence);
        assert_eq!(
            serde_json::from_str::<judgement::rollout::Verdict>(&serde_json::to_string(&verdict).unwrap())
                .unwrap(),
            verdict
        );
    }
}

#[test]
fn an_observation_from_the_past_changes_nothing() {
    let fleet = Fleet::default();
    let mut evidence = fleet.after(200);
    let before = evidence.clone();
    evidence.observe(&fleet.observation(3));
    assert_eq!(evidence, before);
}

#[test]
fn a_fixed_horizon_is_judged_at_the_end_of_a_step_only() {
    let analysis = Analysis { method: Method::FixedHorizonWelch { steps: 3 }, ..Analysis::default() };
    let fleet = Fleet { decode: vec![1.12], canary: 3, analysis, ..Fleet::default() };
    let mut evidence = fleet.after(600);
    assert_eq!(judge(&evidence).outcome, Outcome::Continue);
    evidence.observe(&Observation { ends_step: true, ..fleet.observation(91) });
    assert_eq!(judge(&evidence).reason, Reason::DecodeSlower);
    evidence.observe(&fleet.observation(92));
    assert_eq!(judge(&evidence).outcome, Outcome::Continue, "the look is over; the caller has acted on it");
}

#[test]
fn a_group_sequential_analysis_looks_as_the_requests_come_in() {
    let method = Method::GroupSequential { expected_requests: 600 };
    let analysis = Analysis { method, ..Analysis::default() };
    let fleet = Fleet { decode: vec![1.12], canary: 3, analysis, ..Fleet::default() };
    let said: Vec<u64> =
        (1..=60).filter(|tick| judge(&fleet.after(10 * tick)).outcome == Outcome::Rollback).collect();
    assert!(!said.is_empty() && said.len() <= 5, "looks with a rollback: {said:?}");
}

#[test]
fn more_errors_are_ruled_out_sooner_where_more_are_tolerated() {
    let proven = |errors| {
        let tolerances = Tolerances { errors, ..Tolerances::default() };
        let analysis = Analysis { tolerances, ..Analysis::default() };
        let fleet = Fleet { analysis, ..Fleet::default() };
        (1..60).find(|tick| judge(&fleet.after(tick * 10)).is_error_rate_proven)
    };
    let (usual, lenient) = (proven(0.01).unwrap(), proven(0.03).unwrap());
    assert!(lenient < usual, "{lenient} of {usual} ticks");
    assert_eq!(proven(0.0), None, "that nothing is worse at all cannot be proven");
}

#[test]
fn people_get_their_figures() {
    let evidence = Fleet::default().after(300);
    let figures = evidence.steps()[0].figures(UserMetric::Ttft, 0.05);
    let welch = figures.welch.unwrap();
    assert!(welch.p_greater > 0.01 && welch.interval.0 < 0.0 && welch.interval.1 > 0.0, "{welch:?}");
    assert!(
        figures.canary_ms.unwrap()[0] > 30.0
            && figures.canary_ms.unwrap()[2] >= figures.canary_ms.unwrap()[0]
    );
    assert!(figures.achieved > 300 && figures.recommended.unwrap() > 0);
}

#[test]
fn a_rollout_teaches_the_next_one() {
    let fleet = Fleet { canary: 3, decode: vec![1.1, 1.0, 1.0], ..Fleet::default() };
    let learned = learned(&fleet.after(900)).unwrap();
    let of = |name: &str| learned.slowness.iter().find(|(pod, _)| pod == name).unwrap().1;
    assert!(of("Canary-0") > of("Canary-1") + 0.05, "{learned:?}");
    assert!((0.005..0.03).contains(&learned.pod_sd));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Below the minimum of blocks and pods nothing is said about speed but the critical; whatever the fleet is.
    #[test]
    fn no_verdict_on_speed_below_the_minimum(
        slow in 0.7_f64..1.45,
        prefill in 0.7_f64..1.45,
        canary in 1_usize..4,
        seconds in 0_u64..90,
    ) {
        let fleet = Fleet { decode: vec![slow], prefill, canary, ..Fleet::default() };
        let verdict = judge(&fleet.after(seconds));
        // Two blocks after 30 s of warming: 90 s. Before, only the early rule may speak, and only beyond 20 %.
        if seconds < 90 && (slow < 1.19 && prefill < 1.19 || canary < 2) {
            prop_assert!(!matches!(verdict.outcome, Outcome::Rollback | Outcome::Pass), "{}", verdict.sentence);
        }
        if canary < 2 {
            prop_assert!(!matches!(verdict.outcome, Outcome::Rollback | Outcome::Pass), "{}", verdict.sentence);
        }
    }

    /// A slower canary never looks better to any gate on decoding.
    #[test]
    fn slower_is_never_better(slow in 1.0_f64..1.4, more in 1.0_f64..1.3) {
        let decode = |factor| {
            let verdict = judge(&Fleet { decode: vec![factor], ..Fleet::default() }.after(200));
            *verdict.metrics.iter().find(|found| found.metric == Metric::Decode).unwrap()
        };
        let (one, other) = (decode(slow), decode(slow * more));
        prop_assert!(other.estimate >= one.estimate - 1e-6 && other.e_value >= one.e_value * 0.999);
    }
}
