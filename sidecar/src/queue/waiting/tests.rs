//! What must hold of the queue, as properties and as named cases. The clock is a variable.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn limits() -> Limits {
    Limits { requests: 200, prompt_tokens: 100_000, bytes: 1_000_000, age: HOUR }
}

fn ticket(tier: Tier, tenant: u64, now: Instant) -> Ticket {
    Ticket { tier, tenant, prompt_tokens: 10, bytes: 100, arrived: now, deadline: now + HOUR }
}

fn order<T>(waiting: &mut Waiting<T>, now: Instant) -> Vec<T> {
    std::iter::from_fn(|| waiting.pop(now)).map(|popped| popped.item).collect()
}

#[test]
fn a_vip_behind_a_hundred_low_goes_first() {
    let now = Instant::now();
    for waited in [0, 15, 25, 60] {
        let mut waiting = Waiting::new(limits());
        for _ in 0..100 {
            waiting.push(ticket(Tier::Low, 1, now), "low", now).unwrap();
        }
        let later = now + Duration::from_secs(waited);
        for _ in 0..20 {
            waiting.pop(later);
        }
        waiting.push(ticket(Tier::Vip, 1, later), "vip", later).unwrap();
        let place = order(&mut waiting, later).iter().position(|item| *item == "vip").unwrap();
        assert!(place <= 1, "place {place} when the others have waited {waited} s");
    }
}

#[test]
fn each_limit_has_its_name() {
    let now = Instant::now();
    let check = |limits: Limits, expected: FullLimit| {
        let mut waiting = Waiting::new(limits);
        waiting.push(ticket(Tier::Normal, 1, now), (), now).unwrap();
        assert_eq!(waiting.push(ticket(Tier::Vip, 1, now), (), now).unwrap_err().which, expected);
    };
    check(Limits { requests: 1, ..limits() }, FullLimit::Requests);
    check(Limits { prompt_tokens: 19, ..limits() }, FullLimit::PromptTokens);
    check(Limits { bytes: 199, ..limits() }, FullLimit::Bytes);
}

#[test]
fn the_late_leave_with_the_reason() {
    let now = Instant::now();
    let mut waiting = Waiting::new(Limits { age: Duration::from_secs(60), ..limits() });
    let soon = Ticket { deadline: now + Duration::from_secs(5), ..ticket(Tier::Low, 1, now) };
    waiting.push(soon, "deadline", now).unwrap();
    waiting.push(ticket(Tier::Low, 1, now), "age", now).unwrap();
    assert_eq!(waiting.next_end(), Some(now + Duration::from_secs(5)));
    assert_eq!(waiting.expire(now + Duration::from_secs(4)), []);
    assert_eq!(waiting.expire(now + Duration::from_secs(5)), [("deadline", Expired::Deadline)]);
    assert_eq!(waiting.expire(now + Duration::from_secs(60)), [("age", Expired::Age)]);
    assert!(waiting.is_empty());
}

#[test]
fn a_near_deadline_overtakes() {
    let now = Instant::now();
    let mut waiting = Waiting::new(limits());
    waiting.push(ticket(Tier::High, 1, now), "high", now).unwrap();
    let soon = Ticket { deadline: now + Duration::from_secs(9), ..ticket(Tier::Low, 2, now) };
    waiting.push(soon, "soon", now).unwrap();
    assert_eq!(order(&mut waiting, now), ["soon", "high"]);
}

#[test]
fn tenants_share_a_tier_by_tokens() {
    let now = Instant::now();
    let mut waiting = Waiting::new(limits());
    for _ in 0..50 {
        let long = Ticket { prompt_tokens: 90, ..ticket(Tier::Normal, 1, now) };
        waiting.push(long, "long", now).unwrap();
        waiting.push(ticket(Tier::Normal, 2, now), "short", now).unwrap();
    }
    let first: Vec<_> = order(&mut waiting, now).into_iter().take(40).collect();
    let long = first.iter().filter(|item| **item == "long").count();
    assert!((3..=5).contains(&long), "9 times the tokens, a ninth of the admissions: {long} of 40");
}

#[test]
fn what_was_generated_counts_afterwards() {
    let now = Instant::now();
    let mut waiting = Waiting::new(limits());
    for _ in 0..10 {
        waiting.push(ticket(Tier::Normal, 1, now), "talker", now).unwrap();
        waiting.push(ticket(Tier::Normal, 2, now), "other", now).unwrap();
    }
    let first = waiting.pop(now).unwrap();
    let talker = first.ticket.tenant;
    waiting.settle(first.tier, talker, 30, 10);
    // 2 × 30 − 10 tokens more: the other may take five of 10 tokens each before it is the talker's turn again.
    for _ in 0..5 {
        assert_ne!(waiting.pop(now).unwrap().ticket.tenant, talker);
    }
}

#[test]
fn one_that_is_put_back_keeps_its_place() {
    let now = Instant::now();
    let mut waiting = Waiting::new(limits());
    for number in 0..5 {
        waiting.push(ticket(Tier::Normal, 1, now), number, now).unwrap();
    }
    let first = waiting.pop(now).unwrap();
    waiting.put_back(first.id, first.ticket, first.item, now);
    assert_eq!(order(&mut waiting, now), [0, 1, 2, 3, 4]);
}

#[test]
fn drain_time_follows_the_measured_pace_and_forgets_idle_time() {
    let now = Instant::now();
    let mut waiting = Waiting::new(limits());
    for _ in 0..100 {
        waiting.push(ticket(Tier::Normal, 1, now), (), now).unwrap();
    }
    let mut then = now;
    for _ in 0..50 {
        then += Duration::from_millis(500);
        waiting.pop(then);
    }
    assert_eq!(waiting.drain_time(40, then), Duration::from_secs(20));
    assert_eq!(waiting.drain_time(100_000, then), RETRY_AFTER_MAX);
    while waiting.pop(then).is_some() {}
    let next_day = then + 24 * HOUR;
    waiting.push(ticket(Tier::Normal, 1, next_day), (), next_day).unwrap();
    assert!(waiting.drain_time(10, next_day) <= Duration::from_secs(10), "the night was not drain time");
}

#[test]
fn weights_hold_over_a_long_run() {
    let now = Instant::now();
    let mut waiting = Waiting::new(limits());
    let mut served = [0i64; 4];
    for tier in TIERS {
        (0..5).for_each(|_| drop(waiting.push(ticket(tier, 1, now), tier, now)));
    }
    for _ in 0..1_500 {
        let popped = waiting.pop(now).unwrap();
        served[popped.item.index()] += 1;
        waiting.push(ticket(popped.item, 1, now), popped.item, now).unwrap();
    }
    for (count, expected) in served.into_iter().zip([800, 400, 200, 100]) {
        assert!((count - expected).abs() <= 5, "{served:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { tier: usize, tenant: u64, tokens: u64, bytes: u64, left_s: u64 },
    Pop,
    Cancel(usize),
    PutBack,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4usize, 0..5u64, 0..60u64, 0..600u64, 1..90u64).prop_map(
            |(tier, tenant, tokens, bytes, left_s)| Step::Push { tier, tenant, tokens, bytes, left_s }
        ),
        2 => Just(Step::Pop),
        1 => (0..40usize).prop_map(Step::Cancel),
        1 => Just(Step::PutBack),
        1 => (0..15u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens: limits are kept, every request leaves exactly once, sums equal the entries' and the
    /// indices agree with them.
    #[test]
    fn accounts_for_every_request(steps in prop::collection::vec(step(), 1..200)) {
        let limits = Limits { requests: 20, prompt_tokens: 500, bytes: 5_000, age: Duration::from_secs(45) };
        let mut now = Instant::now();
        let mut waiting = Waiting::new(limits);
        let (mut inside, mut number) = (std::collections::BTreeMap::new(), 0u32);
        let mut last: Option<Popped<u32>> = None;
        for step in steps {
            match step {
                Step::Push { tier, tenant, tokens, bytes, left_s } => {
                    let ticket = Ticket {
                        tier: TIERS[tier], tenant, prompt_tokens: tokens, bytes, arrived: now,
                        deadline: now + Duration::from_secs(left_s),
                    };
                    number += 1;
                    if let Ok(id) = waiting.push(ticket, number, now) {
                        inside.insert(id, (number, ticket));
                        let tokens: u64 = inside.values().map(|(_, ticket)| ticket.prompt_tokens).sum();
                        let bytes: u64 = inside.values().map(|(_, ticket)| ticket.bytes).sum();
                        prop_assert!(inside.len() <= limits.requests);
                        prop_assert!(tokens <= limits.prompt_tokens && bytes <= limits.bytes);
                    }
                }
                Step::Pop => {
                    let popped = waiting.pop(now);
                    prop_assert_eq!(popped.is_none(), inside.is_empty());
                    if let Some(popped) = &popped {
                        prop_assert_eq!(inside.remove(&popped.id).map(|(item, _)| item), Some(popped.item));
                    }
                    last = popped;
                }
                Step::Cancel(place) => {
                    if let Some(id) = inside.keys().nth(place).copied() {
                        let (item, _) = inside.remove(&id).unwrap();
                        prop_assert_eq!(waiting.cancel(id), Some(item));
                        prop_assert_eq!(waiting.cancel(id), None);
                    }
                }
                Step::PutBack => {
                    if let Some(popped) = last.take().filter(|_| inside.len() < limits.requests) {
                        inside.insert(popped.id, (popped.item, popped.ticket));
                        waiting.put_back(popped.id, popped.ticket, popped.item, now);
                    }
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    for (item, _) in waiting.expire(now) {
                        inside.retain(|_, (other, _)| *other != item);
                    }
                    let too_late = |ticket: &Ticket| ticket.deadline.min(ticket.arrived + limits.age) <= now;
                    prop_assert!(!inside.values().any(|(_, ticket)| too_late(ticket)));
                }
            }
            let snapshot = waiting.snapshot(now);
            prop_assert_eq!(snapshot.requests, inside.len());
            prop_assert_eq!(snapshot.by_tier.iter().sum::<usize>(), inside.len());
            prop_assert_eq!(snapshot.bytes, inside.values().map(|(_, ticket)| ticket.bytes).sum::<u64>());
            for (id, (_, ticket)) in &inside {
                let tier = tier::effective(ticket.tier, ticket.arrived, ticket.deadline, now);
                prop_assert_eq!(waiting.entries[id].tier, tier, "filed under the tier of now");
            }
        }
        let rest = order(&mut waiting, now).len();
        prop_assert_eq!(rest, inside.len());
    }

    /// Under an endless stream of more urgent requests by others, and without any lift by age, a Low request is
    /// served after a number of admissions that depends only on what its own tenant had put before it.
    #[test]
    fn nobody_waits_for_ever(
        before in prop::collection::vec((0..4usize, 0..3u64, 1..8u64), 0..20),
        stream in prop::collection::vec((0..3usize, 0..6u64, 1..8u64), 1..10),
    ) {
        let now = Instant::now();
        let mut waiting = Waiting::new(limits());
        let make = |tier: usize, tenant, tokens| {
            Ticket { prompt_tokens: tokens, ..ticket(TIERS[tier], tenant, now) }
        };
        for (tier, tenant, tokens) in &before {
            waiting.push(make(*tier, *tenant, *tokens), "before", now).unwrap();
        }
        waiting.push(make(3, 0, 5), "victim", now).unwrap();
        // Low gets one admission in 15; in there three tenants take turns by tokens, at most 8 × 20 of debt each.
        let bound = 15 * (20 + 3 * 160);
        let mut admissions = 0;
        for (tier, tenant, tokens) in stream.iter().cycle() {
            waiting.push(make(*tier, 10 + *tenant, *tokens), "stream", now).unwrap();
            admissions += 1;
            prop_assert!(admissions <= bound, "still waiting after {} admissions", admissions);
            if waiting.pop(now).unwrap().item == "victim" {
                break;
            }
        }
    }

    /// With time passing, whoever has waited 30 s counts as VIP, whatever was asked for.
    #[test]
    fn age_lifts_everybody_to_the_top(tier in 0..4usize, waited_s in 30..3_000u64) {
        let now = Instant::now();
        let mut waiting = Waiting::new(limits());
        waiting.push(ticket(TIERS[tier], 1, now), (), now).unwrap();
        let popped = waiting.pop(now + Duration::from_secs(waited_s)).unwrap();
        prop_assert_eq!(popped.tier, Tier::Vip);
    }
}
