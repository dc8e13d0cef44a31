use crds::model::{ComparedMetric, PodVariation};
use crds::report::{
    self, ArmCounts as Arms, DecodeWork, GatewayModel, Load, Phase, RequestWork, ShadowCounts, Work,
};
use judgement::rollout::{Metric, Part};
use proptest::prelude::*;

use super::*;
use crate::figures::rounded;

const START: Millis = Millis(10_000_000);

/// A report of a pod that has finished `finished` requests and says the last five of them.
fn pod_report(uid: &str, revision: &str, uptime_ms: u64, finished: u64, call_micros: u64) -> Report {
    let row = |ordinal: u64| RequestWork {
        ordinal,
        uncached_tokens: 100 + u32::try_from(ordinal % 7).unwrap() * 20,
        prompt_tokens: 150 + u32::try_from(ordinal % 5).unwrap() * 30,
        prefill_micros: (100 + ordinal % 7 * 20) * call_micros / 50,
        ttft_micros: (110 + ordinal % 7 * 20) * call_micros / 50,
        output_tokens: 50,
        decode_steps: 49,
        is_unqueued: true,
        attempt: 1,
        ..RequestWork::default()
    };
    let calls = 50 * finished;
    let work = Work {
        decode: vec![DecodeWork { batch: 2, calls, micros: calls * call_micros, kv_tokens: 300 * calls }],
        requests: finished,
        first_attempts: finished,
        recent: (finished.saturating_sub(4).max(1)..=finished).map(row).collect(),
        ..Work::default()
    };
    Report {
        namespace: "default".into(),
        pod: uid.into(),
        pod_uid: uid.into(),
        model: "tiny".into(),
        revision: revision.into(),
        sequence: 1,
        uptime_ms,
        phase: Phase::Serving,
        opened: None,
        load: Some(Load { slots: 4, work, ..Load::default() }),
    }
}

fn gateway_report(uid: &str, uptime_ms: u64, stable: u64, canary: u64) -> GatewayReport {
    let arm = |revision: &str, new_conversations_total| Arms {
        revision: revision.into(),
        new_conversations_total,
        ..Arms::default()
    };
    GatewayReport {
        namespace: "default".into(),
        pool: "cpu".into(),
        pod: uid.into(),
        pod_uid: uid.into(),
        sequence: 1,
        uptime_ms,
        models: vec![GatewayModel {
            model: "tiny".into(),
            arms: vec![arm("tiny-a", stable), arm("tiny-b", canary)],
            ..GatewayModel::default()
        }],
    }
}

fn standing(weight_basis_points: u16) -> Standing {
    let ready = |revision: &str| ReadyPod {
        revision: revision.into(),
        node_class: String::new(),
        ready_at: START - 600_000,
    };
    let pods = [("a1", "tiny-a"), ("a2", "tiny-a"), ("b1", "tiny-b"), ("b2", "tiny-b")];
    Standing {
        stable: "tiny-a".into(),
        canary: Some("tiny-b".into()),
        weight_basis_points,
        step_ends: None,
        analysis: Analysis::default(),
        variations: Vec::new(),
        pods: pods.map(|(uid, revision)| (uid.to_owned(), ready(revision))).into(),
    }
}

fn key() -> ModelKey {
    ("default".to_owned(), "tiny".to_owned())
}

/// Ordinals of the rows that are handed over, as far as they tell.
fn rows(pods: &mut Pods) -> Vec<(u32, u32)> {
    let taken = pods.take(|_| true);
    taken.iter().flat_map(|(_, pod)| &pod.rows).map(|row| (row.uncached_tokens, row.prompt_tokens)).collect()
}

/// What the first `count` rows after `from` look like.
fn expected(from: u64, count: u64) -> Vec<(u32, u32)> {
    let mut pods = Pods::default();
    for finished in from + 1..=from + count {
        let mut report = pod_report("p", "tiny-a", finished, finished, 20_000);
        let recent = &mut report.load.as_mut().unwrap().work.recent;
        recent.drain(..recent.len() - 1);
        pods.hear(&report, START);
    }
    rows(&mut pods)
}

/// Two hundred seconds before and six hundred with half of the traffic; the canary's calls take so long.
fn trial(trials: &Trials, canary_micros: u64) -> Option<Seen> {
    trial_of(trials, canary_micros, &standing(0), |_| {})
}

/// The same of a canary that stands as `usual`, and tells each look with the seconds since it had traffic.
fn trial_of(
    trials: &Trials,
    canary_micros: u64,
    usual: &Standing,
    mut tell: impl FnMut((u64, &Seen)),
) -> Option<Seen> {
    let mut seen = None;
    for step in 0..400_u64 {
        let now = START + 2_000 * step;
        let weight_basis_points = if step < 100 { 0 } else { 5_000 };
        if step % 5 == 0 {
            seen = trials.look(key(), Standing { weight_basis_points, ..usual.clone() }, now);
            if let Some(seen) = &seen {
                tell((2 * step.saturating_sub(100), seen));
            }
        }
        for (number, uid) in ["a1", "a2", "b1", "b2"].into_iter().enumerate() {
            let is_canary = uid.starts_with('b');
            // Calls of pods differ by 1 %.
            let micros = if is_canary { canary_micros } else { 20_000 } + 200 * (number as u64 % 2);
            let finished = if is_canary { step.saturating_sub(100) * 2 } else { step * 2 };
            let revision = if is_canary { "tiny-b" } else { "tiny-a" };
            trials.hear_pod(&pod_report(uid, revision, 2_000 * step, finished, micros), now);
        }
        let canary = step.saturating_sub(103);
        trials.hear_gateway(&gateway_report("g1", 2_000 * step, step * 2 - canary, canary), now);
        trials.turn(now);
    }
    seen
}

fn samples(seen: &Seen) -> (u64, u64) {
    let decode = seen.verdict.metrics.iter().find(|found| found.metric == Metric::Decode).unwrap();
    (decode.samples_canary, decode.samples_control)
}

#[test]
fn a_test_at_fixed_times_looks_once_and_before_the_step_is_over() {
    let analysis = Analysis { method: Method::FixedHorizonWelch { steps: 1 }, ..Analysis::default() };
    // 300 s after the traffic began.
    let usual = Standing { analysis, step_ends: Some(START + 500_000), ..standing(0) };
    let first_failing = |usual: &Standing| {
        let mut first = None;
        trial_of(&Trials::default(), 23_000, usual, |(second, seen)| {
            let is_failing = seen.verdict.metrics.iter().any(|found| {
                found.metric == Metric::Decode && found.standing == judgement::rollout::Standing::Failing
            });
            first = first.or(is_failing.then_some(second));
        });
        first
    };
    let looked = first_failing(&usual).unwrap();
    assert!((290..=300).contains(&looked), "in the last ten seconds of the step, not at {looked} s");
    assert_eq!(first_failing(&Standing { step_ends: None, ..usual }), None, "no end, no look");
}

#[test]
fn a_canary_that_is_as_fast_is_not_accused() {
    let trials = Trials::default();
    let seen = trial(&trials, 20_000).unwrap();
    assert!(matches!(seen.verdict.outcome, Outcome::Continue | Outcome::Pass), "{:#?}", seen.verdict);
    let (canary, stable) = samples(&seen);
    assert!(canary > 20 && stable > 20, "{canary} and {stable}");
    assert_eq!(trials.turn(START + 900_000).outcomes.values().sum::<i64>(), 1);
}

#[test]
fn a_canary_that_is_slower_is_found() {
    let seen = trial(&Trials::default(), 26_000).unwrap();
    assert_eq!(seen.verdict.outcome, Outcome::Rollback, "{:#?}", seen.verdict);
    let first_token = &seen.clients[0];
    assert_eq!(
        (first_token.metric, seen.clients.len()),
        (ComparedMetric::FirstToken, 1),
        "rows say no time between tokens"
    );
    let (canary, stable) =
        (first_token.canary_microseconds.unwrap(), first_token.stable_microseconds.unwrap());
    assert!(canary.p50 > stable.p50 && canary.p99 >= canary.p95, "{first_token:?}");
    assert!(canary.mean > stable.mean && (canary.p50 / 2..canary.p99).contains(&canary.mean), "{canary:?}");
    let found = first_token.comparison.unwrap();
    assert!((2_000..4_000).contains(&found.difference_basis_points), "30 % more per call: {found:?}");
    assert!(found.lower_basis_points > 0 && found.t_thousandths > 2_000, "{found:?}");
    assert!(found.p_millionths < 50_000, "{found:?}");
    assert!(found.samples > 100 && found.recommended_samples.is_some(), "{found:?}");
}

#[test]
fn what_a_rollout_has_shown_of_pods_is_what_the_next_one_begins_with() {
    let begins_with = |trials: &Trials| {
        let pod_sd = |course: &Course| rounded(course.analysis().pod_sd * 10_000.0);
        trials.with(|models| models[&key()].course.as_ref().map(pod_sd)).unwrap()
    };
    let trials = Trials::default();
    let seen = trial(&trials, 20_000).unwrap();
    assert_eq!(begins_with(&trials), 200, "nothing was known");
    let learned = seen.learned.unwrap();
    assert_eq!(learned.node_class, "");
    assert!((50..200).contains(&learned.basis_points), "pods differ by 1 %: {learned:?}");

    let restarted = Trials::default();
    let of_others = PodVariation { node_class: "gpu=other".into(), basis_points: 900 };
    let usual = Standing { variations: vec![of_others, learned.clone()], ..standing(0) };
    let again = trial_of(&restarted, 20_000, &usual, |_| {}).unwrap();
    assert_eq!(begins_with(&restarted), learned.basis_points);
    assert!(again.learned.unwrap().basis_points <= learned.basis_points, "each rollout makes it surer");

    let now = START + 810_000;
    restarted.look(key(), standing(5_000), now);
    restarted.turn(now);
    assert_eq!(begins_with(&restarted), learned.basis_points, "nothing changes in the middle");
    let absurd = PodVariation { node_class: String::new(), basis_points: 0 };
    let (trusting, usual) = (Trials::default(), Standing { variations: vec![absurd], ..standing(0) });
    trial_of(&trusting, 20_000, &usual, |_| {});
    assert_eq!(begins_with(&trusting), 50);
}

#[test]
fn another_outcome_wakes_its_model_once() {
    let trials = Trials::default();
    trial(&trials, 26_000);
    let now = START + 800_000;
    trials.with(|models| models.values_mut().for_each(|trial| trial.verdict = None));
    let wake = Wake { namespace: "default".to_owned(), model: "tiny".to_owned() };
    assert_eq!(trials.turn(now + 10_000).wake, [wake]);
    assert_eq!(trials.turn(now + 20_000).wake, []);
}

#[test]
fn a_revision_that_comes_again_has_nothing_held_against_it() {
    let trials = Trials::default();
    assert_eq!(trial(&trials, 26_000).unwrap().verdict.outcome, Outcome::Rollback);
    let now = START + 801_000;
    trials.look(key(), Standing { canary: None, ..standing(0) }, now);
    trials.look(key(), standing(0), now + 500);
    trials.turn(now + 10_000);
    assert_eq!(trials.look(key(), standing(0), now + 10_000), None, "it has had no traffic");
}

#[test]
fn another_canary_begins_anew_and_none_has_no_verdict() {
    let trials = Trials::default();
    trial(&trials, 20_000);
    let now = START + 800_000;
    assert!(trials.look(key(), standing(5_000), now).is_some_and(|seen| seen.canary == "tiny-b"));
    let other = Standing { canary: Some("tiny-c".into()), ..standing(5_000) };
    assert_eq!(trials.look(key(), other, now), None);
    assert_eq!(trials.look(key(), standing(5_000), now), None, "it is a newcomer again");
    let over = Standing { canary: None, ..standing(0) };
    assert_eq!(trials.look(key(), over, now), None);
}

#[test]
fn what_stable_pods_cost_is_learned_before_there_is_a_canary_and_from_the_recent_past() {
    let subject = |canary: Option<&str>| Subject {
        stable: "tiny-a".into(),
        canary: canary.map(str::to_owned),
        node_class: String::new(),
        variation: None,
        analysis: Analysis::default(),
    };
    let mut course = Course::new(subject(None), 4, START);
    for step in 0..1_000_u64 {
        let now = START + 10_000 * step;
        course.observe(&Observation { at_ms: now.0, ..Observation::default() }, now);
        let age = course.age_ms(now);
        assert!(age <= 610_000 && (step < 60 || age >= 290_000), "{age} at {step}");
    }
    assert!(course.goes_on(&subject(Some("tiny-b"))), "a first canary finds it");
    assert!(!course.goes_on(&subject(None)), "its end is the end");
    assert!(!course.goes_on(&subject(Some("tiny-c"))));
    assert_eq!(course.verdict(), None);
}

#[test]
fn a_pod_that_begins_anew_counts_from_one() {
    let mut pods = Pods::default();
    pods.hear(&pod_report("p", "tiny-a", 100_000, 3, 20_000), START);
    assert_eq!(rows(&mut pods), expected(0, 3));
    pods.hear(&pod_report("p", "tiny-a", 1_000, 2, 20_000), START + 5_000);
    assert_eq!(rows(&mut pods), expected(0, 2));
    // A late one of the process before.
    pods.hear(&pod_report("p", "tiny-a", 102_000, 5, 20_000), START + 5_500);
    pods.hear(&pod_report("p", "tiny-a", 2_000, 3, 20_000), START + 6_000);
    assert_eq!(rows(&mut pods), expected(2, 1));
}

#[test]
fn a_request_is_two_rows_each_taken_once_and_what_is_not_told_is_not_zero() {
    let mut report = pod_report("p", "tiny-a", 1_000, 2, 20_000);
    let recent = &mut report.load.as_mut().unwrap().work.recent;
    recent[0] = RequestWork { part: report::Part::Prompt, ..recent[0] };
    recent[1] = RequestWork {
        part: report::Part::Answer,
        inter_token_micros: Some(21_000),
        in_flight_before: Some(3),
        was_cancelled: true,
        ..recent[1]
    };
    let mut pods = Pods::default();
    pods.hear(&report, START);
    pods.hear(&Report { uptime_ms: 3_000, ..report }, START + 2_000);
    let taken = pods.take(|_| true);
    let [prompt, answer] = taken[0].1.rows[..] else { panic!("{taken:?}") };
    assert_eq!((prompt.part, answer.part), (Part::Prompt, Part::Answer));
    assert_eq!((prompt.in_flight_before, prompt.inter_token_micros), (u16::MAX, None), "not told");
    assert_eq!((answer.in_flight_before, answer.inter_token_micros), (3, Some(21_000)));
    assert!(answer.was_cancelled && !prompt.was_cancelled);
}

#[test]
fn pods_come_and_go_and_memory_is_bounded() {
    let mut pods = Pods::default();
    for number in 0..2_000_u64 {
        pods.hear(&pod_report(&number.to_string(), "tiny-a", 1_000, 1, 20_000), START + number);
    }
    assert_eq!(pods.take(|_| true).len(), 512);
    assert_eq!(pods.take(|_| true).len(), 0, "nothing new");
    pods.hear(&pod_report("late", "tiny-a", 1_000, 1, 20_000), START + 100_000);
    assert_eq!(pods.take(|_| true).len(), 1, "the silent made room");
}

#[test]
fn conversations_are_counted_from_a_gateways_first_report_on() {
    let mut gateways = Gateways::default();
    let mut hear = |uptime_ms, stable, canary, after| {
        let report = gateway_report("g1", uptime_ms, stable, canary);
        gateways.hear(&report, &report.models[0], START + after);
        let new = gateways.take();
        (new.get("tiny-a").copied().unwrap_or(0), new.get("tiny-b").copied().unwrap_or(0))
    };
    assert_eq!(hear(100_000, 50, 40, 0), (0, 0), "nobody knows when");
    assert_eq!(hear(102_000, 53, 41, 2_000), (3, 1));
    assert_eq!(hear(102_000, 53, 41, 2_100), (0, 0), "twice");
    assert_eq!(hear(101_000, 52, 41, 2_200), (0, 0), "late");
    assert_eq!(hear(1_000, 2, 1, 5_000), (2, 1), "a new process");
    assert_eq!(hear(3_000, 1, 1, 7_000), (0, 0), "never negative");
}

#[test]
fn conversations_of_a_moment_in_which_the_weight_changed_do_not_count() {
    let mut trial = Trial::new(standing(5_000), START);
    let mut count = |since: u64, stable: u64| {
        let report = gateway_report("g1", since + 10_000, stable, 0);
        trial.gateways.hear(&report, &report.models[0], START + since);
        trial.observation(Some(START + since), false, START + since + 10_000).new_conversations.control
    };
    assert_eq!(count(0, 10), 0);
    assert_eq!(count(4_000, 20), 0, "not settled");
    assert_eq!(count(5_000, 27), 7);
}

#[test]
fn conversations_of_a_moment_in_which_no_canary_pod_was_ready_do_not_count() {
    let trials = Trials::default();
    trials.look(key(), standing(5_000), START);
    let away = || {
        let mut standing = standing(5_000);
        standing.pods.retain(|_, pod| pod.revision == "tiny-a");
        standing
    };
    let count = |at: u64, standing: Standing, stable: u64| {
        trials.look(key(), standing, START + at);
        trials.hear_gateway(&gateway_report("g", 100_000 + at, stable, 0), START + at);
        trials.with(|models| {
            let trial = models.get_mut(&key()).unwrap();
            trial.observation(Some(START + at - 2_000), false, START + at).new_conversations.control
        })
    };
    count(10_000, standing(5_000), 0);
    assert_eq!(count(12_000, standing(5_000), 10), 10);
    assert_eq!(count(14_000, away(), 20), 0, "stable gets what the canary cannot take");
    assert_eq!(count(18_000, standing(5_000), 30), 0, "its pods are just back");
    assert_eq!(count(24_000, standing(5_000), 40), 10);
}

#[test]
fn copies_of_a_canary_are_added_up_over_gateways_until_there_is_another() {
    let trials = Trials::default();
    trials.look(key(), standing(0), START);
    let hear = |uid: &str, uptime_ms: u64, compared_total: u64, after: u64| {
        let mut report = gateway_report(uid, uptime_ms, 0, 0);
        report.models[0].arms[1].shadow = Some(ShadowCounts { compared_total, ..ShadowCounts::default() });
        trials.hear_gateway(&report, START + after);
        trials.shadow(&key()).map_or(0, |seen| seen.counts.compared_total)
    };
    assert_eq!(trials.shadow(&key()), None);
    assert_eq!(hear("g1", 100_000, 7, 0), 7, "all that it has counted is this canary's");
    assert_eq!(hear("g2", 100_000, 3, 0), 10);
    assert_eq!(hear("g1", 102_000, 9, 2_000), 12);
    assert_eq!(hear("g1", 101_000, 8, 2_100), 12, "late");
    assert_eq!(hear("g1", 1_000, 1, 5_000), 13, "a new process");
    let other = Standing { canary: Some("tiny-c".into()), ..standing(0) };
    trials.look(key(), other, START + 6_000);
    assert_eq!(trials.shadow(&key()), None);
}

#[test]
fn models_that_nobody_asks_about_are_not_kept() {
    let trials = Trials::default();
    trials.hear_pod(&pod_report("a1", "tiny-a", 1_000, 1, 20_000), START);
    trials.hear_gateway(&gateway_report("g1", 1_000, 1, 1), START);
    trials.with(|models| assert!(models.is_empty()));
    for number in 0..MODELS_MAX as u64 + 10 {
        trials.look(("default".into(), number.to_string()), standing(0), START + number);
    }
    trials.with(|models| assert_eq!(models.len(), MODELS_MAX));
    trials.turn(START + STANDING_MS_MAX + 2_000);
    trials.with(|models| assert!(models.is_empty()));
}

proptest! {
    #[test]
    fn each_row_is_taken_once_however_reports_come(
        copies in proptest::collection::vec(0_usize..3, 1..80),
        swaps in proptest::collection::vec(0_usize..200, 0..20),
        takes in proptest::collection::vec(any::<bool>(), 1..20),
    ) {
        let mut deliveries: Vec<u64> =
            (1_u64..).zip(&copies).flat_map(|(number, copies)| std::iter::repeat_n(number, *copies)).collect();
        let swapped = swaps.len();
        for swap in swaps {
            if swap + 1 < deliveries.len() {
                deliveries.swap(swap, swap + 1);
            }
        }
        let mut pods = Pods::default();
        let (mut taken, mut newest) = (0, 0);
        for (step, number) in deliveries.iter().enumerate() {
            let report = pod_report("p", "tiny-a", 100_000 + 2_000 * number, *number, 20_000);
            newest = newest.max(*number);
            pods.hear(&report, START + 2_000 * newest);
            if takes[step % takes.len()] {
                taken += rows(&mut pods).len();
            }
        }
        taken += rows(&mut pods).len();
        let last = newest;
        prop_assert!(taken as u64 <= last, "{taken} rows of {last} requests");
        // Each report repeats four older rows: if no five in a row are lost or late, nothing is missing.
        let is_dense = swapped < 5 && copies.iter().all(|copies| *copies > 0);
        prop_assert!(!is_dense || taken as u64 == last, "{taken} rows of {last} requests");
    }
}
