use crds::report::{DecodeWork, Load, Phase, Work};
use proptest::prelude::*;

use super::*;

const START: Millis = Millis(10_000_000);

fn gateway(uid: &str, uptime_ms: u64, arrivals: u64, held: u32) -> GatewayReport {
    let bins = (uptime_ms < 1_000_000).then(Vec::new);
    GatewayReport {
        namespace: "default".into(),
        pool: "cpu".into(),
        pod: uid.into(),
        pod_uid: uid.into(),
        sequence: uptime_ms / 2_000,
        uptime_ms,
        models: vec![GatewayModel {
            model: "tiny".into(),
            held: [0, 0, held, 0],
            held_prompt_tokens: 100 * u64::from(held),
            held_output_tokens: 200 * u64::from(held),
            arrivals_total: arrivals,
            arrived_prompt_tokens_total: 100 * arrivals,
            arrived_output_tokens_total: 200 * arrivals,
            recent_arrivals: bins,
            ..GatewayModel::default()
        }],
    }
}

fn pod(uid: &str, phase: Phase, finished: u64, queued: u32) -> Report {
    let work = Work {
        requests: finished,
        prompt_tokens: 100 * finished,
        uncached_tokens: 100 * finished,
        decoded_tokens: 49 * finished,
        prefill_us: 50_000 * finished,
        decode: vec![DecodeWork {
            batch: 2,
            calls: 50 * finished,
            micros: 1_000_000 * finished,
            kv_tokens: 0,
        }],
        ..Work::default()
    };
    Report {
        namespace: "default".into(),
        pod: uid.into(),
        pod_uid: uid.into(),
        model: "tiny".into(),
        revision: "tiny-a".into(),
        sequence: 1,
        uptime_ms: 1,
        phase,
        opened: None,
        load: Some(Load {
            prompt_tokens_total: 100 * finished,
            output_tokens_total: 50 * finished,
            slots: 4,
            slots_busy: 1,
            queued: [0, 0, queued, 0],
            queued_prompt_tokens: 100 * u64::from(queued),
            work,
            ..Load::default()
        }),
    }
}

fn standing(ready: u32, pending: usize, min: u32) -> Standing {
    Standing {
        policy: Policy::between(min, 8),
        objectives: Objectives::default(),
        ready,
        pending: vec![START; pending],
        last_ready_at: None,
        load_ms: 30_000,
        is_canary_judged: false,
        assumed: PodModel {
            slots: 4,
            prefill_tokens_per_second: 1_000,
            step_base_us: 20_000,
            step_per_request_us: 5_000,
            kv_tokens: None,
        },
        is_guess: true,
        pods: ["p1".to_owned()].into(),
    }
}

fn key() -> ModelKey {
    ("default".to_owned(), "tiny".to_owned())
}

fn loads() -> Loads {
    Loads::new(Clock::start()).unwrap()
}

fn model(loads: &Loads, read: impl FnOnce(&mut Model)) {
    loads.with(|models| read(models.get_mut(&key()).unwrap()));
}

#[test]
fn requests_that_wait_at_zero_are_answered_with_pods_at_once() {
    let loads = loads();
    loads.leads(START);
    loads.hear_gateway(&gateway("g1", 1_000, 0, 0), START);
    let look = loads.look(key(), standing(0, 0, 0), START + 100);
    assert_eq!((look.decision.current, look.decision.desired), (0, 0), "{}", look.decision.sentence);
    // Twenty requests of 200 tokens each, 100 ms later: far sooner than the next look would be.
    loads.hear_gateway(&gateway("g1", 1_200, 20, 20), START + 200);
    let look = loads.look(key(), standing(0, 0, 0), START + 300);
    assert!(look.decision.desired >= 2, "{}", look.decision.sentence);
}

#[test]
fn a_decision_holds_until_it_is_time_or_the_standing_is_another() {
    let loads = loads();
    loads.leads(START);
    loads.hear_gateway(&gateway("g1", 1_000, 0, 0), START);
    let at = |after, standing| loads.look(key(), standing, START + after).decision.at;
    assert_eq!(at(0, standing(1, 0, 1)), START);
    assert_eq!(at(3_000, standing(1, 0, 1)), START);
    assert_eq!(at(3_500, standing(0, 1, 1)), START, "a pod that is late is still ordered");
    assert_eq!(at(3_600, standing(1, 1, 1)), START + 3_600);
    assert_eq!(at(7_601, standing(1, 1, 1)), START + 7_601);
}

#[test]
fn whoever_decides_is_woken_when_the_answer_changes_and_only_then() {
    let loads = loads();
    loads.leads(START);
    let mut arrivals = 0;
    let mut woken = Vec::new();
    for second in (0..80_u64).step_by(2) {
        // From 40 s on, 20 requests a second.
        arrivals += if second < 40 { 0 } else { 40 };
        let now = START + 1_000 * second;
        loads.hear_gateway(&gateway("g1", 1_000 * second, arrivals, 0), now);
        if second == 0 {
            loads.look(key(), standing(1, 0, 1), now);
        }
        if !loads.turn(now).is_empty() {
            let look = loads.look(key(), standing(1, 0, 1), now);
            woken.push((second, look.decision.desired));
        }
    }
    assert!(woken.iter().all(|(second, _)| *second >= 40), "{woken:?}");
    assert!(woken.first().is_some_and(|(second, desired)| *second < 60 && *desired > 1), "{woken:?}");
}

#[test]
fn nobody_is_looked_at_whom_nobody_asks_about() {
    let loads = loads();
    loads.hear_gateway(&gateway("g1", 1_000, 0, 0), START);
    assert_eq!(loads.turn(START + 5_000), vec![]);
    loads.look(key(), standing(1, 0, 1), START + 5_000);
    loads.rest(&key());
    loads.hear_gateway(&gateway("g1", 60_000, 10_000, 50), START + 60_000);
    assert_eq!(loads.turn(START + 60_000), vec![]);
}

#[test]
fn a_new_operator_hears_of_the_past_from_the_gateways() {
    let loads = loads();
    // A gateway that runs for days, and does not tell its past in this report: nothing is known of it yet.
    let mut report = gateway("g1", 200_000_000, 5_000, 0);
    loads.hear_gateway(&report, START);
    model(&loads, |model| assert!(model.gateways.is_empty()));
    report.models[0].recent_arrivals = Some(vec![[30, 3_000, 6_000]; 90]);
    loads.hear_gateway(&report, START);
    let look = loads.look(key(), standing(1, 0, 1), START + 100);
    // Three requests per second of 200 tokens at 40 ms for four: 6 pods, seen 100 ms after the start.
    assert!(look.decision.figures.demand > 4.0, "{:?}", look.decision.figures);
    assert!(look.decision.desired > 4, "{}", look.decision.sentence);
}

#[test]
fn a_gateway_that_comes_back_does_not_tell_its_past_twice() {
    let loads = loads();
    let mut report = gateway("g1", 200_000_000, 5_000, 0);
    report.models[0].recent_arrivals = Some(vec![[30, 3_000, 6_000]; 90]);
    loads.hear_gateway(&report, START);
    let high = |now| loads.look(key(), standing(1, 0, 1), now).decision.figures.high;
    let before = high(START + 100);
    // As busy as ever, but nobody was heard for two minutes.
    report.uptime_ms += 120_000;
    report.models[0].arrivals_total += 360;
    loads.hear_gateway(&report, START + 120_000);
    let after = high(START + 120_100);
    assert!((after - before).abs() < 0.2 * before, "{before} and {after}");
}

/// Requests that were counted as arrived at gateway `g1`.
fn counted(loads: &Loads) -> u64 {
    let mut counted = 0;
    model(loads, |model| {
        // The next report, of nothing new, shows what has been counted.
        let report = gateway("g1", u64::MAX, 0, 0);
        let mut gateway = model.gateways["g1"].clone();
        let sample = gateway.next(&report, &report.models[0], &mut model.learned.clone(), START);
        counted = sample.unwrap().counters.arrived.requests;
    });
    counted
}

#[test]
fn what_came_twice_or_late_counts_once_and_a_restart_goes_on() {
    let loads = loads();
    let hear = |uptime_ms, arrivals, after| {
        loads.hear_gateway(&gateway("g1", uptime_ms, arrivals, 0), START + after);
        counted(&loads)
    };
    assert_eq!(hear(2_000, 10, 0), 0, "the past is in the bins");
    assert_eq!(hear(4_000, 15, 2_000), 5);
    assert_eq!(hear(4_000, 15, 2_000), 5, "twice");
    assert_eq!(hear(60_000, 25, 58_000), 15);
    assert_eq!(hear(40_000, 20, 58_500), 15, "a late one");
    assert_eq!(hear(2_000, 3, 64_000), 18, "a new process");
}

#[test]
fn pods_that_end_are_not_taken_for_silent_ones() {
    let stale = |phase: Phase, exists: bool| {
        let loads = loads();
        loads.leads(START);
        loads.hear_pod(&pod("p1", Phase::Serving, 10, 0), START);
        loads.hear_pod(&pod("p1", phase, 20, 0), START + 2_000);
        let now = START + 15_000;
        loads.hear_gateway(&gateway("g1", 100_000, 0, 0), now);
        let mut standing = standing(1, 0, 1);
        standing.pods = if exists { ["p1".to_owned()].into() } else { BTreeSet::new() };
        loads.look(key(), standing.clone(), now);
        // The next report of the gateway tells how the pods stand.
        loads.hear_gateway(&gateway("g1", 102_000, 0, 0), now + 2_000);
        let look = loads.look(key(), standing, now + 5_000);
        look.decision.limits.contains(&Limit::Stale)
    };
    assert!(stale(Phase::Serving, true), "it should have said something");
    assert!(!stale(Phase::Draining, true), "it had said that it goes");
    assert!(!stale(Phase::Serving, false), "the API server says that it has gone");
}

#[test]
fn what_a_pod_can_do_is_measured_and_outlives_it() {
    let loads = loads();
    loads.hear_pod(&pod("p1", Phase::Serving, 0, 0), START);
    let look = |now| loads.look(key(), standing(1, 0, 1), now);
    assert!(!look(START).is_measured);
    loads.hear_pod(&pod("p1", Phase::Serving, 100, 0), START + 2_000);
    let found = look(START + 5_000);
    assert!(found.is_measured);
    let pod = found.decision.inputs.current.pod;
    assert_eq!((pod.slots, pod.prefill_tokens_per_second), (4, 2_000));
    assert!((16_000..20_000).contains(&pod.step_base_us), "{pod:?}");
    let without = Standing { pods: BTreeSet::new(), ..standing(0, 0, 0) };
    let later = loads.look(key(), without, START + 900_000);
    assert!(later.is_measured && later.decision.inputs.current.pod == pod);
}

#[test]
fn goals_change_what_is_late_and_how_full_a_pod_is_planned() {
    let loads = loads();
    loads.hear_pod(&pod("p1", Phase::Serving, 0, 0), START);
    let look = |ttft_ms, inter_token_ms, now| {
        let objectives = Objectives {
            ttft_ms: Some(ttft_ms),
            inter_token_ms: Some(inter_token_ms),
            ..Objectives::default()
        };
        loads.look(key(), Standing { objectives, ..standing(1, 0, 1) }, now)
    };
    let reckoned = |look: &Look| {
        let inputs = &look.decision.inputs;
        (inputs.policy.late_ms, inputs.current.pod.slots, look.pod.slots)
    };
    let guessed = look(600, 1, START + 1_000);
    assert_eq!((reckoned(&guessed), guessed.aims.inter_token.unwrap().least_us), ((200, 4, 4), None));
    // A prompt of 100 tokens takes 50 ms, and a step of `b` requests (1 + b/10)/1.2 · 20 ms.
    loads.hear_pod(&pod("p1", Phase::Serving, 100, 0), START + 2_000);
    assert_eq!(reckoned(&look(600, 21, START + 6_000)), (200, 2, 4));
    assert_eq!(reckoned(&look(600, 200, START + 11_000)), (200, 4, 4));
    let out = look(49, 18, START + 16_000);
    assert_eq!(reckoned(&out), (700, 4, 4), "what cannot be met is not pursued");
    assert!(out.aims.first_token.unwrap().is_out_of_reach && out.aims.inter_token.unwrap().is_out_of_reach);
    assert_eq!(judgement::autoscale::replay(&out.decision), out.decision);
}

#[test]
fn what_was_found_of_a_goal_counts_at_the_next_look() {
    let loads = loads();
    let mut now = START;
    // Measured by an operator before this one: a single request takes so long for each token.
    let mut is_out = |token_us: u32| {
        now = now + 1_000;
        let objectives = Objectives { inter_token_ms: Some(20), ..Objectives::default() };
        let assumed =
            PodModel { step_base_us: token_us, step_per_request_us: 0, ..standing(1, 0, 1).assumed };
        let standing = Standing { objectives, assumed, is_guess: false, ..standing(1, 0, 1) };
        loads.look(key(), standing, now).aims.inter_token.unwrap().is_out_of_reach
    };
    assert_eq!([19_900, 20_100, 19_900, 18_000, 19_900].map(&mut is_out), [false, true, true, false, false]);
}

#[test]
fn answers_in_time_are_counted_from_what_pods_report() {
    let loads = loads();
    let report = |in_time: u64, late: u64| {
        let mut report = pod("p1", Phase::Serving, 0, 0);
        let mut counts = vec![0; 34];
        (counts[5], counts[20]) = (in_time, late);
        report.load.as_mut().unwrap().ttft_ms_buckets_total = counts;
        report
    };
    loads.hear_pod(&report(100, 0), START);
    loads.hear_pod(&report(109, 1), START + 2_000);
    let objectives = Objectives { ttft_ms: Some(500), inter_token_ms: Some(5), ..Objectives::default() };
    let look = loads.look(key(), Standing { objectives, ..standing(1, 0, 1) }, START + 2_000);
    let expected = Attained { first_token_percent: Some(90), inter_token_percent: None };
    assert_eq!(look.attained, expected, "what was before the first report is not of these minutes");
}

#[test]
fn a_pod_that_is_planned_half_full_is_measured_by_what_it_does_when_full() {
    // Somebody always waits, and the pod does exactly what its four slots can.
    let learned = |inter_token_ms| {
        let loads = loads();
        for second in (0..120_u64).step_by(2) {
            let now = START + 1_000 * second;
            // Each request costs 0.3 s of the pod by its own figures: 50 tokens of 23.3 ms for four, and half its prompt.
            loads.hear_pod(&pod("p1", Phase::Serving, 20 + second * 10 / 3, 5), now);
            let objectives = Objectives { inter_token_ms, ..Objectives::default() };
            loads.look(key(), Standing { objectives, ..standing(1, 0, 1) }, now);
            loads.turn(now);
        }
        let mut calibration = 0.0;
        model(&loads, |model| calibration = model.last.as_ref().unwrap().figures.calibration);
        calibration
    };
    assert!((learned(None) - 1.0).abs() < 0.1, "{}", learned(None));
    assert!((learned(Some(21)) - learned(None)).abs() < 1e-9, "{}", learned(Some(21)));
}

#[test]
fn a_decision_replays_from_what_it_has_stored() {
    let loads = loads();
    loads.hear_pod(&pod("p1", Phase::Serving, 0, 3), START);
    loads.hear_gateway(&gateway("g1", 2_000, 10, 0), START);
    loads.hear_pod(&pod("p1", Phase::Serving, 100, 5), START + 2_000);
    let decision = loads.look(key(), standing(1, 0, 1), START + 2_000).decision;
    assert_eq!(judgement::autoscale::replay(&decision), decision);
}

#[test]
fn decisions_are_metrics() {
    let (loads, metrics) = (loads(), crate::metrics::Metrics::new().unwrap());
    metrics.show(loads.clone()).unwrap();
    loads.hear_gateway(&gateway("g1", 1_000, 0, 0), START);
    loads.look(key(), standing(2, 0, 1), START);
    loads.look(key(), standing(2, 0, 1), START + 1_000);
    let text = metrics.render();
    let labels = r#"{model="tiny",namespace="default"}"#;
    assert!(text.contains(&format!("inferno_operator_autoscale_current_replicas{labels} 2")), "{text}");
    assert!(text.contains(&format!("inferno_operator_autoscale_desired_replicas{labels} 2")), "{text}");
    assert!(text.contains("inferno_operator_autoscale_decisions_total{winner=\"Hold\"} 1"), "{text}");
}

#[test]
fn memory_is_bounded() {
    let loads = loads();
    for number in 0..MODELS_MAX as u64 + 10 {
        let mut report = gateway("g1", 1_000, 0, 0);
        report.models[0].model = number.to_string();
        loads.hear_gateway(&report, START + number);
    }
    loads.with(|models| {
        assert_eq!(models.len(), MODELS_MAX);
        assert!(!models.contains_key(&("default".to_owned(), "0".to_owned())), "the silent make room");
    });
    for number in 0..GATEWAYS_MAX + 10 {
        loads.hear_gateway(&gateway(&number.to_string(), 1_000, 0, 0), START);
    }
    model(&loads, |model| assert_eq!(model.gateways.len(), GATEWAYS_MAX));
}

proptest! {
    #[test]
    fn however_often_each_report_comes_each_arrival_counts_once(
        deliveries in proptest::collection::vec(0_usize..3, 1..60),
    ) {
        let loads = loads();
        loads.hear_gateway(&gateway("g1", 1_000, 0, 0), START);
        let mut last = 0;
        for (number, copies) in (1_u64..).zip(deliveries) {
            for _ in 0..copies {
                let report = gateway("g1", 1_000 + 2_000 * number, 7 * number, 0);
                loads.hear_gateway(&report, START + 2_000 * number);
                last = 7 * number;
            }
            // A gateway that was silent for a minute is gone, and comes back with its bins.
            prop_assert!(counted(&loads) == last || number > 30);
        }
    }
}
