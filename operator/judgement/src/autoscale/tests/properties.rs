//! What must hold of every decision, whatever was seen.

use proptest::prelude::*;

use super::*;

fn history() -> impl Strategy<Value = (History, Millis)> {
    let levels = (0_u64..60, 0_u64..64).prop_map(|(queued, in_flight)| Levels {
        queued: requests(queued),
        in_flight,
        kv_tokens: 0,
    });
    // Calm, then busy: the shapes that matter, at up to 15 requests per second.
    (prop::collection::vec(0_u64..10, 1..200), prop::collection::vec(0_u64..30, 0..100), levels).prop_map(
        |(mut calm, busy, levels)| {
            calm.extend(busy);
            let now = end(calm.len());
            (watched(seen(&reports(&calm, levels)), now), now)
        },
    )
}

fn portion() -> impl Strategy<Value = Portion> {
    prop_oneof![(1_u32..5).prop_map(Portion::Pods), (1_u32..=100).prop_map(Portion::Percent)]
}

fn fleet() -> impl Strategy<Value = Current> {
    (0_u32..20, prop::collection::vec(0_u64..200_000, 0..6), 1_u64..400_000, any::<bool>()).prop_map(
        |(pods, pending, load_ms, is_canary_judged)| Current {
            pending: pending.into_iter().map(|offset| START + offset).collect(),
            load_ms,
            is_canary_judged,
            ..ready(pods)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_decision_replays_bit_for_bit_also_from_json((history, now) in history(), current in fleet()) {
        let decision = decide(&Policy::between(1, 24), &history, &current, now);
        prop_assert_eq!(&replay(&decision), &decision);
        let stored: Decision = serde_json::from_str(&serde_json::to_string(&decision).unwrap()).unwrap();
        prop_assert_eq!(&stored, &decision);
        prop_assert_eq!(&replay(&stored), &decision);
    }

    #[test]
    fn it_stays_between_the_bounds((history, now) in history(), current in fleet(), min in 0_u32..5, more in 0_u32..30) {
        let decision = decide(&Policy::between(min, min + more), &history, &current, now);
        prop_assert!(decision.desired <= min + more);
        prop_assert!(decision.desired >= min);
    }

    #[test]
    fn at_most_a_third_is_taken_away((history, now) in history(), current in fleet()) {
        let decision = decide(&Policy::between(1, 100), &history, &current, now);
        prop_assert!(decision.current - decision.desired.min(decision.current) <= (decision.current / 3).max(1));
    }

    #[test]
    fn within_each_period_no_more_goes_than_the_rule_lets_go(
        (history, now) in history(), pods in 1_u32..20, portion in portion(), period_seconds in 1_u32..200, looks in 1_u64..60,
    ) {
        let rule = Rule { portion, period_seconds };
        let scale_down = ScaleDown::Least([Some(rule), None, None, None]);
        let policy = Policy { scale_down, hold_seconds: 0, ..Policy::between(0, 40) };
        let (mut history, mut there, mut gone) = (history, pods, Vec::new());
        for look in 0..looks {
            let at = now + 4_000 * look;
            // Everybody reports on; nobody comes.
            for sample in history.quiet_reports(at) {
                history.observe(sample);
            }
            let decision = decide(&policy, &history, &ready(there), at);
            history.settle(&decision);
            if decision.desired < there {
                gone.push((at, there - decision.desired));
            }
            there = decision.desired;
            let in_period = gone.iter().filter(|(then, _)| at.since(*then) < 1_000 * u64::from(period_seconds));
            let sum: u32 = in_period.map(|(_, pods)| pods).sum();
            let most = match portion {
                Portion::Pods(count) => count,
                Portion::Percent(percent) => ((there + sum) * percent).div_ceil(100),
            };
            prop_assert!(sum <= most, "{sum} of {} in {period_seconds} s: {gone:?}", there + sum);
        }
    }

    #[test]
    fn a_rise_is_made_beyond_the_tolerance_or_not_at_all((history, now) in history(), current in fleet(), tolerance in 0_u32..2_000) {
        let policy = Policy { rise_tolerance_thousandths: tolerance, ..Policy::between(1, 100) };
        let decision = decide(&policy, &history, &current, now);
        let without = decide(&Policy::between(1, 100), &history, &current, now);
        let is_waited_for = current.ready == 0 && !history.levels().queued.is_empty();
        let (desired, there) = (u64::from(decision.desired), u64::from(decision.current));
        if desired > there && there > 0 && !is_waited_for {
            prop_assert!(desired * 1_000 > there * u64::from(1_000 + tolerance));
        }
        prop_assert_eq!(decision.wanted, without.wanted);
        if there == 0 || is_waited_for || without.desired < without.current {
            prop_assert_eq!(decision.desired, without.desired);
        }
    }

    #[test]
    fn nothing_is_taken_away_in_the_first_two_minutes((history, now) in history(), current in fleet(), age in 0_u64..120_000) {
        let current = Current { started_at: now - age, ..current };
        let decision = decide(&Policy::between(0, 100), &history, &current, now);
        prop_assert!(decision.desired >= decision.current);
    }

    #[test]
    fn nothing_is_taken_away_on_old_reports((history, now) in history(), current in fleet(), silence in 6_001_u64..1_000_000) {
        let decision = decide(&Policy::between(0, 100), &history, &current, now + silence);
        prop_assert!(decision.desired >= decision.current);
    }

    #[test]
    fn nothing_is_taken_away_while_a_canary_is_judged((history, now) in history(), current in fleet()) {
        let current = Current { is_canary_judged: true, ..current };
        let decision = decide(&Policy::between(1, 100), &history, &current, now);
        prop_assert!(decision.desired >= decision.current);
    }

    #[test]
    fn a_higher_price_never_buys_more((history, now) in history(), current in fleet(), price in 1_u32..20, more in 1_u32..20) {
        let wanted = |late_price_percent| {
            let policy = Policy { late_price_percent, ..Policy::between(1, 24) };
            decide(&policy, &history, &current, now).wanted
        };
        prop_assert!(wanted(price + more) <= wanted(price));
    }

    #[test]
    fn a_stricter_goal_never_finds_less_late((history, now) in history(), current in fleet(), late_ms in 50_u32..3_000, more in 1_u32..3_000) {
        let prices = |late_ms| {
            let policy = Policy { late_ms, ..Policy::between(1, 24) };
            decide(&policy, &history, &current, now).figures.prices
        };
        for (strict, lax) in prices(late_ms).iter().zip(prices(late_ms + more)) {
            prop_assert_eq!(strict.replicas, lax.replicas);
            prop_assert!(strict.late >= lax.late - 1e-9, "{strict:?} {lax:?}");
        }
    }

    #[test]
    fn a_higher_maximum_never_buys_less((history, now) in history(), current in fleet(), max in 1_u32..30, more in 1_u32..30) {
        let wanted = |max| decide(&Policy::between(1, max), &history, &current, now).wanted;
        prop_assert!(wanted(max + more) >= wanted(max));
    }

    #[test]
    fn another_pod_is_never_late_more((history, now) in history(), current in fleet()) {
        let decision = decide(&Policy::between(1, 24), &history, &current, now);
        for pair in decision.figures.prices.windows(2) {
            prop_assert!(pair[1].late <= pair[0].late + 1e-9, "{pair:?}");
        }
    }

    #[test]
    fn repeated_and_reordered_reports_change_nothing(arrivals in prop::collection::vec(0_u64..20, 2..60), place in 0_usize..60) {
        let samples = reports(&arrivals, Levels::default());
        let mut twice = samples.clone();
        twice.insert(samples.len(), samples[place % samples.len()]);
        prop_assert_eq!(seen(&twice), seen(&samples));
    }

    #[test]
    fn lost_reports_lose_no_request(arrivals in prop::collection::vec(0_u64..20, 20..60), lost in prop::collection::vec(any::<bool>(), 60)) {
        let samples = reports(&arrivals, Levels::default());
        // The first begins the count and the last ends it.
        let kept: Vec<Sample> = samples
            .iter()
            .enumerate()
            .filter(|(index, _)| *index == 0 || index + 1 == samples.len() || !lost[*index])
            .map(|(_, sample)| *sample)
            .collect();
        let all = |history: &History| history.arrived(history.known_ms(), 0);
        let (full, thin) = (all(&seen(&samples)), all(&seen(&kept)));
        prop_assert!((full.prompt - thin.prompt).abs() < 1e-6 * (1.0 + full.prompt));
    }
}
