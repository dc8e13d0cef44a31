//! Named situations, and what must come of them.

use super::*;

#[test]
fn steady_demand_keeps_what_it_needs() {
    // 5 conversations per second are 5.4 pods; at 80 % that is 7.
    let history = steady(900, 10);
    let decision = decide(&Policy::between(1, 24), &history, &ready(7), end(900));
    assert!((decision.figures.demand - 5.45).abs() < 0.1, "{:?}", decision.figures);
    assert!((6..=8).contains(&decision.desired), "{}", decision.sentence);
}

#[test]
fn a_step_is_answered_at_once_and_within_the_surge_bound() {
    let mut arrivals = vec![2; 600];
    arrivals.extend([16; 10]);
    let history = seen(&reports(&arrivals, Levels { queued: requests(80), in_flight: 16, kv_tokens: 0 }));
    let decision = decide(&Policy::between(1, 24), &history, &ready(2), end(610));
    // 8.7 pods are proven soon; the bound is 1.3 · 8.7 / 0.8 = 14.
    assert!((11..=14).contains(&decision.desired), "{}", decision.sentence);
    assert_eq!(decision.winner, Winner::SurgeLimit, "{}", decision.sentence);
    assert!(decision.limits.contains(&Limit::Surge));
    let unbound = Policy { surge_percent: 0, ..Policy::between(1, 24) };
    assert!(decide(&unbound, &history, &ready(2), end(610)).desired > decision.desired);
}

#[test]
fn a_stricter_goal_keeps_more_and_a_decision_from_before_goals_replays() {
    // Every minute ten seconds of thrice the load: queues of seconds, which are late or not by the goal alone.
    let minute = [[12; 5].as_slice(), &[4; 25]].concat();
    let history = watched(steady_of(&minute.repeat(30)), end(900));
    let decision = |late_ms| {
        let policy = Policy { late_ms, ..Policy::between(1, 24) };
        decide(&policy, &history, &ready(5), end(900))
    };
    let wanted = [700, 4_000, 10_000].map(|late_ms| decision(late_ms).wanted);
    assert!(wanted[0] > wanted[1] && wanted[1] > wanted[2], "{wanted:?}");
    let mut stored = serde_json::to_value(decision(700)).unwrap();
    stored["inputs"]["policy"].as_object_mut().unwrap().remove("late_ms");
    let stored: Decision = serde_json::from_value(stored).unwrap();
    assert_eq!(replay(&stored), decision(700));
}

#[test]
fn after_a_start_what_was_seen_keeps_pods_and_orders_none() {
    // A minute of load, four minutes of hardly any: the highest 3 % are those of the minute.
    let history = watched(steady_of(&[[6; 30].as_slice(), &[0; 120]].concat()), end(150));
    let young = |pods| Current { started_at: end(150) - 300_000, ..ready(pods) };
    let decision = |current: &Current| decide(&Policy::between(1, 24), &history, current, end(150));
    let (few, old) = (decision(&young(1)), decision(&ready(1)));
    assert!(few.figures.high > 2.0, "{:?}", few.figures);
    assert_eq!((few.wanted, few.desired), (old.wanted, old.desired), "{}", few.sentence);
    let kept = decision(&young(3));
    assert_eq!((kept.wanted, kept.winner), (3, Winner::ColdStart), "{}", kept.sentence);
    assert!(decision(&ready(3)).wanted < 3, "an old operator lets them go");
}

#[test]
fn a_fleet_that_must_not_grow_to_its_demand_is_kept_whole() {
    let history = seen(&reports(&[16; 900], Levels { queued: requests(300), in_flight: 32, kv_tokens: 0 }));
    let decision = decide(&Policy::between(1, 4), &history, &ready(4), end(900));
    assert_eq!((decision.wanted, decision.winner), (4, Winner::MaxReplicas), "{}", decision.sentence);
}

#[test]
fn silence_is_not_zero() {
    let history = steady(900, 10);
    let now = end(900) + 30_000;
    let decision = decide(&Policy::between(1, 24), &history, &ready(8), now);
    assert!((decision.figures.demand - 5.45).abs() < 0.1, "demand is what was last known");
    assert_eq!(decision.desired, 8);
    assert!(decision.limits.contains(&Limit::Stale));
    let mut history = history;
    history.settle(&decision);
    assert_eq!(history.wanted_max(now, 90_000), 0, "such a look is not remembered");
}

#[test]
fn after_a_silence_it_looks_for_half_a_hold_before_it_takes_pods_away() {
    let quiet = vec![1; 900];
    let mut sample = *reports(&quiet, Levels::default()).last().unwrap();
    let mut history = watched(seen(&reports(&quiet, Levels::default())), sample.at);
    assert!(decide(&Policy::between(1, 24), &history, &ready(9), sample.at).desired < 9, "it would have");
    sample.at = sample.at + 200_000;
    let back = sample.at;
    let mut first = None;
    while first.is_none() {
        sample.sequence += 1;
        sample.at = sample.at + 4_000;
        history.observe(sample);
        let decision = decide(&Policy::between(1, 24), &history, &ready(9), sample.at);
        history.settle(&decision);
        first = (decision.desired < 9).then(|| sample.at.since(back));
        assert!(sample.at.since(back) < 200_000, "never: {}", decision.sentence);
    }
    assert!((45_000..60_000).contains(&first.unwrap()), "after {first:?} ms");
}

#[test]
fn a_scale_down_waits_for_the_hold_and_keeps_its_pace() {
    let mut history = steady(900, 4);
    let policy = Policy::between(1, 24);
    let mut pods = 9;
    let mut downs: Vec<u64> = Vec::new();
    let mut sample = *reports(&[4; 900], Levels::default()).last().unwrap();
    // At the beginning all nine were wanted once.
    let mut earlier = decide(&policy, &history, &ready(9), sample.at);
    earlier.wanted = 9;
    history.settle(&earlier);
    let begin = sample.at;
    for _ in 0..60 {
        sample.sequence += 1;
        sample.at = sample.at + 4_000;
        sample.counters.arrived += requests(8);
        history.observe(sample);
        let decision = decide(&policy, &history, &ready(pods), sample.at);
        history.settle(&decision);
        if decision.desired < pods {
            downs.push(sample.at.since(begin));
            assert!(pods - decision.desired <= (pods / 3).max(1));
        } else if decision.wanted < pods {
            assert_eq!(decision.winner, Winner::Hold);
            assert!(
                decision.no_scale_down_before.is_some_and(|end| end > sample.at),
                "{}",
                decision.sentence
            );
        }
        pods = decision.desired;
    }
    assert!(downs[0] > 90_000, "the first after {} ms", downs[0]);
    assert!(downs.windows(2).all(|pair| pair[1] - pair[0] >= 15_000), "{downs:?}");
    assert!(pods <= 4, "{pods} pods for 2.2 of demand");
}

/// How many of `pods` are there at each look of 4 s while nobody comes.
fn shrinking(policy: Policy, pods: u32, looks: u64) -> (Vec<u32>, Decision) {
    let policy = Policy { hold_seconds: 0, ..policy };
    let mut history = watched(steady(900, 0), end(900));
    let (mut there, mut seen, mut last) = (pods, Vec::new(), None);
    for look in 0..looks {
        let at = end(900) + 4_000 * look;
        for sample in history.quiet_reports(at) {
            history.observe(sample);
        }
        let decision = decide(&policy, &history, &ready(there), at);
        history.settle(&decision);
        there = decision.desired;
        seen.push(there);
        last = Some(decision);
    }
    (seen, last.unwrap())
}

/// At most four rules.
fn rules(some: &[(Portion, u32)]) -> [Option<Rule>; 4] {
    let mut rules = [None; 4];
    for (rule, (portion, period_seconds)) in rules.iter_mut().zip(some) {
        *rule = Some(Rule { portion: *portion, period_seconds: *period_seconds });
    }
    rules
}

#[test]
fn rules_say_how_many_pods_go_in_a_period() {
    let policy = |scale_down| Policy { scale_down, ..Policy::between(1, 24) };
    let (one, half) = ((Portion::Pods(1), 12), (Portion::Percent(50), 20));
    let check = |scale_down, expected: &[u32]| {
        let (seen, last) = shrinking(policy(scale_down), 9, expected.len() as u64);
        assert_eq!(seen, expected, "{}", last.sentence);
    };
    check(ScaleDown::Usual, &[6, 6, 6, 6, 4, 4]);
    check(ScaleDown::Least(rules(&[one])), &[8, 8, 8, 7, 7, 7, 6]);
    check(ScaleDown::Most(rules(&[one, half])), &[4, 4, 4, 3, 3, 2, 2]);
    check(ScaleDown::Least(rules(&[one, half])), &[8, 8, 8, 7, 7, 7, 6]);
    check(ScaleDown::Never, &[9, 9]);
}

#[test]
fn what_the_rules_hold_is_told_and_until_when() {
    let one = ScaleDown::Least(rules(&[(Portion::Pods(1), 60)]));
    let (_, held) = shrinking(Policy { scale_down: one, ..Policy::between(1, 24) }, 9, 3);
    assert_eq!((held.desired, held.winner), (8, Winner::Hold));
    assert!(held.limits.contains(&Limit::ScaleDownRules));
    assert_eq!(held.no_scale_down_before, Some(end(900) + 60_000));
    let expected = "7 would do, 8 stay: the rules on scale-downs let no more go yet. No scale-down for 52 s.";
    assert_eq!(held.sentence, expected);
    let (_, never) = shrinking(Policy { scale_down: ScaleDown::Never, ..Policy::between(0, 24) }, 9, 100);
    assert_eq!((never.wanted, never.desired, never.no_scale_down_before), (0, 9, None), "{}", never.sentence);
    // To zero the rules count too, and the bounds of the user count more than they.
    let (to_zero, _) = shrinking(Policy { scale_down: one, ..Policy::between(0, 24) }, 2, 20);
    assert_eq!((to_zero[0], to_zero[14], to_zero[15]), (1, 1, 0));
    let (lowered, _) = shrinking(Policy { scale_down: one, ..Policy::between(1, 4) }, 9, 1);
    assert_eq!(lowered, [4]);
}

#[test]
fn a_small_rise_is_not_made_and_never_keeps_anybody_waiting() {
    let history = seen(&reports(&[12; 600], Levels { queued: requests(6), in_flight: 40, kv_tokens: 0 }));
    let decided = |tolerance, current: &Current| {
        let policy = Policy { rise_tolerance_thousandths: tolerance, ..Policy::between(1, 24) };
        decide(&policy, &history, current, end(600))
    };
    let right = decided(0, &ready(7)).desired;
    assert!(right > 7, "{right}");
    let enough = 1_000 * (right - 7) / 7 + 1;
    let held = decided(enough, &ready(7));
    assert_eq!((held.desired, held.wanted, held.winner), (7, right, Winner::Tolerance));
    assert!(
        held.sentence.contains(&format!("{right} pods would be right, 7 stay: a rise by")),
        "{}",
        held.sentence
    );
    assert_eq!(decided(enough - 1, &ready(7)).desired, right);
    assert!(decided(9_000, &ready(0)).desired > 1, "from zero");
    let starting = Current { pending: vec![end(600) + 60_000], ..ready(0) };
    assert!(decided(9_000, &starting).desired > 1, "somebody waits, and no pod is ready");
    let minimum = Policy { rise_tolerance_thousandths: 9_000, ..Policy::between(9, 24) };
    assert!(decide(&minimum, &history, &ready(7), end(600)).desired >= 9, "bounds count more");
}

#[test]
fn to_zero_only_after_the_idle_time_and_from_zero_for_all_that_waits() {
    let mut arrivals = vec![0; 300];
    arrivals[0] = 1;
    arrivals[1] = 1;
    let policy = Policy::between(0, 24);
    let idle = |reports_count: usize| {
        let history = seen(&reports(&arrivals[..reports_count], Levels::default()));
        decide(&policy, &history, &ready(1), end(reports_count))
    };
    assert_eq!(idle(140).desired, 1, "after 278 s: {}", idle(140).sentence);
    assert_eq!(idle(160).desired, 0, "after 318 s");
    assert_eq!(idle(160).winner, Winner::Idle);
    let history = seen(&reports(&arrivals[..160], Levels::default()));
    assert_eq!(
        decide(&Policy::between(1, 24), &history, &ready(1), end(160)).desired,
        1,
        "a minimum of 1 holds"
    );
    // Thirty requests have come in the last 4 s and nobody is there.
    let mut back = arrivals[..160].to_vec();
    back.extend([15, 15]);
    let history = seen(&reports(&back, Levels { queued: requests(30), in_flight: 0, kv_tokens: 0 }));
    let decision = decide(&policy, &history, &ready(0), end(162));
    assert!(decision.desired >= 4, "{} at once: {}", decision.desired, decision.sentence);
}

#[test]
fn bounds_are_named_by_who_set_them() {
    let history = seen(&reports(&[16; 600], Levels { queued: requests(200), in_flight: 16, kv_tokens: 0 }));
    let winner = |policy: Policy| decide(&policy, &history, &ready(2), end(600)).winner;
    assert_eq!(winner(Policy::between(1, 4)), Winner::MaxReplicas);
    assert_eq!(winner(Policy { capacity_replicas: Some(4), ..Policy::between(1, 24) }), Winner::Capacity);
    let schedule = Some(ScheduleBounds { min_replicas: None, max_replicas: Some(4) });
    assert_eq!(winner(Policy { schedule, ..Policy::between(1, 24) }), Winner::Schedule);
    let quiet = steady(600, 0);
    let schedule = Some(ScheduleBounds { min_replicas: Some(5), max_replicas: None });
    let decision = decide(&Policy { schedule, ..Policy::between(1, 24) }, &quiet, &ready(1), end(600));
    assert_eq!((decision.desired, decision.winner), (5, Winner::Schedule));
    let low = decide(&Policy::between(1, 4), &quiet, &ready(9), end(600));
    assert_eq!((low.desired, low.winner), (4, Winner::MaxReplicas), "a lowered maximum is not held back");
}

#[test]
fn key_value_caches_are_a_floor() {
    let levels = Levels { queued: requests(10), in_flight: 40, kv_tokens: 400_000 };
    let history = seen(&reports(&[2; 600], levels));
    let mut current = ready(3);
    current.pod.kv_tokens = Some(100_000);
    let decision = decide(&Policy::between(1, 24), &history, &current, end(600));
    // (400 000 + 10·1 366) / 90 000 are 4.6 pods.
    assert_eq!((decision.desired, decision.winner), (5, Winner::KvCache), "{}", decision.sentence);
}

#[test]
fn under_a_queue_it_learns_what_a_pod_really_does() {
    let mut history = History::default();
    let mut sample = reports(&[0], Levels { queued: requests(50), in_flight: 16, kv_tokens: 0 })[0];
    let mut calibrate = |history: &mut History, no_queue_ms: u64| {
        for _ in 0..60 {
            sample.sequence += 1;
            sample.at = sample.at + 4_000;
            sample.counters.no_queue_ms += no_queue_ms;
            // Two pods work for 4 s each and do 70 % of their model: 5.6 of 8 pod-seconds.
            sample.counters.done += Tokens { requests: 0, prompt: 5_940, output: 1_085 };
            history.observe(sample);
            history.calibrate(&ready(2));
        }
        history.calibration()
    };
    let learned = calibrate(&mut history, 0);
    assert!((learned - 0.7).abs() < 0.01, "{learned}");
    let before = history.calibration();
    assert!((calibrate(&mut history, 1) - before).abs() < 1e-9, "without a queue it learns nothing");
}

#[test]
fn a_restart_loses_no_history_that_sources_remember() {
    let mut arrivals = vec![2; 450];
    arrivals.extend([12; 60]);
    arrivals.extend([2; 390]);
    let samples = reports(&arrivals, Levels::default());
    let whole = seen(&samples);
    let ten_seconds = |chunk: &[u64]| requests(chunk.iter().sum());
    // The first report begins the count; the rest are 899 of 2 s, the newest 10 s first.
    let bins: Vec<Tokens> = arrivals[1..].rchunks(5).map(ten_seconds).collect();
    let mut again = History::default();
    again.recall(&Recollection { sample: *samples.last().unwrap(), bins });
    let decision = |history: &History| decide(&Policy::between(1, 24), history, &ready(4), end(900));
    let (before, after) = (decision(&whole), decision(&again));
    assert!(
        (before.figures.high - after.figures.high).abs() < 0.3,
        "{} {}",
        before.figures.high,
        after.figures.high
    );
    assert!((before.figures.demand - after.figures.demand).abs() < 0.1);
    assert_eq!(before.wanted, after.wanted);
    assert!(decision(&seen(&samples[899..])).figures.high < 0.1, "without it nothing is known");
}

#[test]
fn memory_is_bounded() {
    let mut history = History::default();
    for second in 0..20_000_u64 {
        let sample = Sample {
            source: second % 2_000,
            started_at: Millis(0),
            sequence: second,
            at: START + 20 * second,
            counters: Counters { arrived: requests(second), ..Counters::default() },
            levels: Levels::default(),
        };
        history.observe(sample);
        if second % 100 == 0 {
            let decision = decide(&Policy::between(1, 24), &history, &ready(2), sample.at);
            history.settle(&decision);
        }
    }
    let bytes = serde_json::to_string(&history).unwrap().len();
    assert!(bytes < 400_000, "{bytes} bytes");
}

#[test]
fn a_wide_range_is_searched_too() {
    // 1 000 conversations per second: 1 090 pods of demand.
    let history = watched(steady(900, 2_000), end(900));
    let policy = Policy { surge_percent: 0, ..Policy::between(1, 3_000) };
    let decision = decide(&policy, &history, &ready(1_500), end(900));
    assert!(
        (1_100..1_300).contains(&decision.desired),
        "{} of {}",
        decision.desired,
        decision.figures.demand
    );
    assert!(decision.figures.prices.len() < 300, "{} prices", decision.figures.prices.len());
}

#[test]
fn the_sentence_names_pod_saving_and_price() {
    let mut arrivals = vec![2; 600];
    arrivals.extend([6; 20]);
    let history = seen(&reports(&arrivals, Levels { queued: requests(2), in_flight: 16, kv_tokens: 0 }));
    let policy = Policy { surge_percent: 0, ..Policy::between(1, 24) };
    let sentence = decide(&policy, &history, &ready(2), end(620)).sentence;
    assert!(sentence.starts_with("pod "), "{sentence}");
    assert!(
        sentence.contains("late pod-seconds in the next 180 s (")
            && sentence.contains("its price is 9; pod "),
        "{sentence}"
    );
}
