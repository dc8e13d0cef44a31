use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::gateway::view::{EndpointView, Strategy};

fn address(pod: u8) -> SocketAddr {
    ([10, 0, 0, pod], 8080).into()
}

/// A revision with pods 0 to `pods`, those of `unready` not ready.
fn revision(pods: u8, unready: &[u8]) -> RevisionView {
    let view = |pod: u8| EndpointView {
        address: address(pod),
        pod: format!("pod-{pod}"),
        is_ready: !unready.contains(&pod),
        is_leaving: false,
    };
    RevisionView { name: "r".into(), slots: 4, endpoints: (0..pods).map(view).collect() }
}

/// A fleet that has been ready for long, and the time.
fn fleet(strategy: Strategy, pods: u8) -> (Fleet, Instant) {
    let start = Instant::now();
    let fleet = Fleet::new();
    fleet.update(strategy, &revision(pods, &[]), start);
    (fleet, start + Duration::from_secs(60))
}

fn chat(deep: u64, shallow: u64) -> Ask {
    let key = |name: u64| Some(super::super::ask::hash(&name.to_le_bytes()));
    Ask { deep: key(deep), shallow: key(shallow), output_tokens: 100, ..Ask::default() }
}

fn session(name: &str) -> Ask {
    Ask { session: Some(name.into()), output_tokens: 100, ..Ask::default() }
}

fn tokens(fleet: &Fleet, now: Instant) -> Vec<u64> {
    fleet.states(now).iter().map(|state| state.tokens).collect()
}

/// Splitmix64: numbers that look random and are always the same.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[test]
fn a_session_stays_with_its_pod_while_that_is_ready_and_returns_to_it() {
    for strategy in [Strategy::PrefixAware, Strategy::SessionAffinity] {
        let (fleet, now) = fleet(strategy, 5);
        let home = |now| fleet.choose(&session("ann"), &[], now, 0).unwrap().address();
        let first = home(now);
        assert!((0..10).all(|_| home(now) == first));
        let pod = (0..5).find(|pod| address(*pod) == first).unwrap();
        fleet.update(strategy, &revision(5, &[pod]), now);
        let second = home(now);
        assert_ne!(second, first);
        fleet.update(strategy, &revision(5, &[]), now);
        assert_eq!(home(now), first);
    }
}

#[test]
fn an_affine_session_is_never_moved_by_load_and_a_prefix_aware_one_is() {
    let leases = |strategy| {
        let (fleet, now) = fleet(strategy, 4);
        let leases: Vec<_> =
            (0..40).map(|_| fleet.choose(&session("ann"), &[], now, 7).unwrap().address()).collect();
        let held: Vec<_> = (0..40).map(|_| fleet.choose(&session("ann"), &[], now, 7).unwrap()).collect();
        let moved = held.iter().filter(|lease| lease.address() != leases[0]).count();
        (moved, tokens(&fleet, now).into_iter().max())
    };
    assert_eq!(leases(Strategy::SessionAffinity).0, 0);
    let (moved, most) = leases(Strategy::PrefixAware);
    assert!(moved >= 27, "{moved}");
    // 40 requests of 200 tokens at 4 pods: 2,000 each in the mean.
    assert!(most <= Some(2_500), "{most:?}");
}

#[test]
fn nothing_new_goes_to_unready_or_avoided_pods_and_old_leases_finish() {
    let (fleet, now) = fleet(Strategy::LeastLoad, 2);
    let lease = fleet.choose(&Ask::default(), &[address(1)], now, 5).unwrap();
    assert_eq!((lease.address(), lease.pod(), lease.is_draining()), (address(0), "pod-0", false));
    fleet.update(Strategy::LeastLoad, &revision(2, &[0]), now);
    assert!(lease.is_draining());
    for random in 0..50 {
        assert_eq!(fleet.choose(&Ask::default(), &[], now, random << 31).unwrap().address(), address(1));
    }
    assert!(fleet.choose(&Ask::default(), &[address(1)], now, 0).is_none());
    fleet.update(Strategy::LeastLoad, &revision(0, &[]), now);
    assert!(fleet.is_empty_of_ready() && fleet.places() == 0);
    assert!(fleet.choose(&Ask::default(), &[], now, 0).is_none());
    assert!(lease.is_draining());
}

#[test]
fn pods_that_were_ready_are_asked_while_none_is_until_their_breakers_bar_them() {
    let (fleet, now) = fleet(Strategy::PrefixAware, 2);
    let mut view = revision(4, &[0, 1, 2, 3]);
    view.endpoints[1].is_leaving = true;
    fleet.update(Strategy::PrefixAware, &view, now);
    assert!(fleet.is_empty_of_ready() && fleet.places() == 0, "nobody waits for a doubtful pod");
    let choose = |now| fleet.choose(&session("ann"), &[], now, 0);
    for _ in 0..5 {
        let mut lease = choose(now).expect("pod 0 is worth a try");
        assert_eq!(lease.address(), address(0), "1 leaves; 2 and 3 never were ready");
        lease.failed(now);
    }
    assert!(choose(now).is_none(), "barred");
    assert!(choose(now + Duration::from_secs(10)).is_some(), "a probe");
    fleet.update(Strategy::PrefixAware, &revision(4, &[0, 1, 2]), now);
    assert_eq!(choose(now).unwrap().address(), address(3), "one ready pod, and no other is worth a try");
}

#[test]
fn a_pod_that_is_listed_again_still_has_its_load_and_another_on_its_address_has_none() {
    let (fleet, now) = fleet(Strategy::LeastLoad, 1);
    let lease = fleet.choose(&Ask::default(), &[], now, 0).unwrap();
    fleet.update(Strategy::LeastLoad, &revision(0, &[]), now);
    fleet.update(Strategy::LeastLoad, &revision(1, &[]), now);
    assert_eq!(tokens(&fleet, now), [Ask::default().work()]);
    assert!(!lease.is_draining());

    let mut other = revision(1, &[]);
    other.endpoints[0].pod = "next".into();
    fleet.update(Strategy::LeastLoad, &other, now);
    assert_eq!(tokens(&fleet, now), [0]);
    assert!(lease.is_draining());
    drop(lease);
    fleet.update(Strategy::LeastLoad, &other, now);
    assert!(fleet.gone.lock().unwrap().is_empty(), "pods without requests are forgotten");
}

#[test]
fn round_robin_goes_around() {
    let (fleet, now) = fleet(Strategy::RoundRobin, 3);
    let pods: Vec<_> = (0..6).map(|_| fleet.choose(&session("x"), &[], now, 9).unwrap().address()).collect();
    assert_eq!(pods, [0, 1, 2, 0, 1, 2].map(address));
}

#[test]
fn of_two_pods_the_one_that_is_done_earlier_is_chosen() {
    let (fleet, now) = fleet(Strategy::LeastLoad, 2);
    let at = |pod: u8| fleet.choose(&Ask::default(), &[address(1 - pod)], now, 0).unwrap();
    let busy = at(0);
    for random in [0, u64::MAX, 1 << 31, 77] {
        assert_eq!(fleet.choose(&Ask::default(), &[], now, random).unwrap().address(), address(1));
    }
    // Pod 0 is ten times as fast; one request there is still done earlier than none at pod 1.
    for (pod, took) in [(0, 100), (1, 1_000)] {
        at(pod).succeeded(now, Duration::from_millis(took));
    }
    assert_eq!(fleet.choose(&Ask::default(), &[], now, 0).unwrap().address(), address(0));
    drop(busy);
}

#[test]
fn power_of_two_keeps_unequal_requests_level() {
    let (fleet, now) = fleet(Strategy::LeastLoad, 10);
    let mut numbers = Numbers(1);
    let leases: Vec<_> = (0..2_000)
        .map(|_| {
            let output_tokens = u32::try_from(numbers.below(500)).unwrap();
            fleet.choose(&Ask { output_tokens, ..Ask::default() }, &[], now, numbers.next()).unwrap()
        })
        .collect();
    let tokens = tokens(&fleet, now);
    let mean = tokens.iter().sum::<u64>() / 10;
    assert!(tokens.iter().all(|tokens| tokens.abs_diff(mean) * 20 < mean), "{tokens:?}");
    drop(leases);
}

#[test]
fn a_broken_pod_is_left_alone_and_probed_once() {
    let (fleet, now) = fleet(Strategy::RoundRobin, 2);
    for _ in 0..5 {
        fleet.choose(&Ask::default(), &[address(1)], now, 0).unwrap().failed(now);
    }
    assert_eq!(fleet.states(now)[0].passage, Passage::Barred);
    let choose = |now| fleet.choose(&Ask::default(), &[], now, 0).unwrap();
    assert!((0..10).all(|_| choose(now).address() == address(1)));
    let later = now + Duration::from_secs(10);
    let leases: Vec<_> = (0..10).map(|_| choose(later)).collect();
    assert_eq!(leases.iter().filter(|lease| lease.address() == address(0)).count(), 1);
    drop(leases);
    let mut leases: Vec<_> = (0..2).map(|_| choose(later)).collect();
    for lease in &mut leases {
        lease.answered(later);
    }
    assert_eq!(fleet.states(later)[0].passage, Passage::Free);
}

#[test]
fn pods_that_are_all_broken_are_tried_all_the_same() {
    let (fleet, now) = fleet(Strategy::PrefixAware, 1);
    for _ in 0..5 {
        fleet.choose(&chat(1, 1), &[], now, 0).unwrap().failed(now);
    }
    assert!(fleet.choose(&chat(1, 1), &[], now, 0).is_some());
}

/// The part of 4,000 requests (all still in flight) that a pod gets which became ready `ready_s` ago beside 4 old ones.
fn share_of_new(strategy: Strategy, ready_s: u64) -> f64 {
    let start = Instant::now();
    let fleet = Fleet::new();
    fleet.update(strategy, &revision(5, &[4]), start);
    let ready_at = start + Duration::from_secs(60);
    fleet.update(strategy, &revision(5, &[]), ready_at);
    let now = ready_at + Duration::from_secs(ready_s);
    let mut numbers = Numbers(3);
    let leases: Vec<_> = (0..4_000)
        .map(|_| fleet.choose(&chat(numbers.next(), numbers.next()), &[], now, numbers.next()).unwrap())
        .collect();
    leases.iter().filter(|lease| lease.address() == address(4)).count() as f64 / 4_000.0
}

#[test]
fn a_new_pod_s_share_grows_over_ten_seconds() {
    for strategy in [Strategy::LeastLoad, Strategy::PrefixAware] {
        let shares: Vec<_> = [0, 5, 10].map(|ready_s| share_of_new(strategy, ready_s)).into();
        assert!(shares[0] < 0.05 && shares[0] > 0.0, "{strategy:?} {shares:?}");
        assert!(shares[0] < shares[1] && shares[1] < shares[2], "{strategy:?} {shares:?}");
        assert!((0.15..0.25).contains(&shares[2]), "{strategy:?} {shares:?}");
    }
}

#[test]
fn pods_that_start_together_hold_nothing_back() {
    let now = Instant::now();
    let fleet = Fleet::new();
    fleet.update(Strategy::PrefixAware, &revision(3, &[]), now);
    let mut numbers = Numbers(5);
    let _leases: Vec<_> = (0..300)
        .map(|_| fleet.choose(&chat(numbers.next(), numbers.next()), &[], now, numbers.next()).unwrap())
        .collect();
    let tokens = tokens(&fleet, now);
    assert!(tokens.iter().all(|tokens| *tokens <= 300 * 200 / 3 * 5 / 4), "{tokens:?}");
}

#[test]
fn a_free_slot_is_not_overload() {
    let (fleet, now) = fleet(Strategy::PrefixAware, 8);
    let home = fleet.choose(&chat(1, 1), &[], now, 0).unwrap();
    let more: Vec<_> = (0..4).map(|_| fleet.choose(&chat(1, 1), &[], now, 0).unwrap()).collect();
    let same = more.iter().filter(|lease| lease.address() == home.address()).count();
    assert_eq!(same, 3, "four slots, and the fifth goes on");
}

#[test]
fn conversations_with_a_rare_system_prompt_share_a_pod_and_a_popular_one_spreads() {
    let (fleet, now) = fleet(Strategy::PrefixAware, 10);
    let mut rare = Vec::new();
    let mut popular = std::collections::BTreeSet::new();
    for conversation in 0..400 {
        let lease = fleet.choose(&chat(conversation, 1), &[], now, 0).unwrap();
        popular.insert(lease.address());
        drop(lease);
        if conversation % 100 == 0 {
            rare.push(fleet.choose(&chat(1_000 + conversation, 2), &[], now, 0).unwrap().address());
        }
    }
    assert!(rare.iter().all(|address| *address == rare[0]), "{rare:?}");
    assert_eq!(popular.len(), 10);
}

/// Conversations as they come: each with one of `prompts` system prompts, turn after turn with a growing history; as many
/// are in flight as `in_flight`. Returns the part of turns that came back to their pod, the largest load that a choice
/// made as a multiple of the mean, and the part of choices after which the chosen pod was above 1.25.
fn conversations(pods: u8, in_flight: usize, prompts: u64, turns: usize) -> (f64, f64, f64) {
    struct Conversation {
        name: u64,
        prompt: u64,
        turn: u32,
        pod: Option<SocketAddr>,
        lease: Option<Lease>,
    }
    let (fleet, now) = fleet(Strategy::PrefixAware, pods);
    let mut numbers = Numbers(11);
    let mut names = 0;
    let mut begin = |numbers: &mut Numbers| {
        names += 1;
        Conversation { name: names, prompt: numbers.below(prompts), turn: 0, pod: None, lease: None }
    };
    let mut all: Vec<_> = (0..in_flight).map(|_| begin(&mut numbers)).collect();
    let (mut again, mut returned, mut largest, mut above) = (0, 0, 0.0_f64, 0);
    for step in 0..turns + in_flight {
        // At first everybody comes; then answers end in a random order.
        let which =
            if step < in_flight { step } else { usize::try_from(numbers.below(in_flight as u64)).unwrap() };
        let conversation = &mut all[which];
        conversation.lease = None;
        if conversation.turn >= 12 {
            *conversation = begin(&mut numbers);
        }
        conversation.turn += 1;
        let ask = Ask {
            prompt_tokens: 200 + 150 * conversation.turn,
            output_tokens: u32::try_from(50 + numbers.below(300)).unwrap(),
            ..chat(conversation.name, conversation.prompt)
        };
        let lease = fleet.choose(&ask, &[], now, numbers.next()).unwrap();
        let before = conversation.pod.replace(lease.address());
        let chosen = lease.address();
        conversation.lease = Some(lease);
        if step < in_flight {
            continue;
        }
        if let Some(before) = before {
            again += 1;
            returned += usize::from(before == chosen);
        }
        let states = fleet.states(now);
        let mean = states.iter().map(|state| state.tokens as f64).sum::<f64>() / f64::from(pods);
        let load = states.iter().find(|state| state.address == chosen).unwrap().tokens as f64 / mean;
        largest = largest.max(load);
        above += usize::from(load > 1.25);
    }
    (f64::from(u32::try_from(returned).unwrap()) / f64::from(again), largest, above as f64 / turns as f64)
}

#[test]
fn conversations_return_to_their_pod_within_the_bound() {
    for prompts in [1, 20, 60, 100, 400] {
        let (returned, largest, above) = conversations(8, 8 * 64, prompts, 20_000);
        println!(
            "{prompts} prompts: {:.1} % return, largest load {largest:.3}, above {above}",
            returned * 100.0
        );
        assert!(returned >= 0.9, "{prompts} system prompts: {returned}");
        assert!(largest <= 1.25, "{prompts} system prompts: {largest}");
    }
}

#[test]
fn a_quiet_fleet_keeps_conversations_together_too() {
    for prompts in [1, 20] {
        let (returned, ..) = conversations(4, 8, prompts, 20_000);
        println!("{prompts} prompts, two requests per pod: {:.1} % return", returned * 100.0);
        assert!(returned >= 0.8, "{prompts} system prompts: {returned}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However clients come and leave, on whatever threads and with whatever verdict: when all have left, nothing is in
    /// flight, and nothing is ever below zero.
    #[test]
    fn guards_give_back_exactly_what_they_took(
        works in prop::collection::vec((0..10_000_u32, 0..6_u8, any::<u64>()), 1..120),
        updates in prop::collection::vec(prop::collection::vec(0..4_u8, 0..4), 0..6),
    ) {
        let (fleet, now) = fleet(Strategy::PrefixAware, 4);
        let total: u64 = works.iter().map(|(output_tokens, ..)| u64::from(*output_tokens) * 2 + 1).sum();
        std::thread::scope(|scope| {
            for chunk in works.chunks(works.len().div_ceil(4)) {
                let fleet = &fleet;
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for (output_tokens, end, random) in chunk {
                        let ask = Ask { output_tokens: *output_tokens, ..chat(random % 8, random % 3) };
                        let Some(mut lease) = fleet.choose(&ask, &[], now, *random) else { continue };
                        match end {
                            0 => lease.failed(now),
                            1 => lease.answered(now),
                            2 => lease.succeeded(now, Duration::from_millis(5)),
                            3 => kept.push(lease),
                            _ => drop(lease),
                        }
                        assert!(fleet.states(now).iter().all(|state| state.tokens <= total), "below zero");
                    }
                });
            }
            for unready in &updates {
                fleet.update(Strategy::PrefixAware, &revision(4, unready), now);
            }
        });
        fleet.update(Strategy::PrefixAware, &revision(4, &[]), now);
        let left: u64 = fleet.states(now).iter().map(|state| state.tokens + state.requests).sum();
        prop_assert_eq!(left, 0);
    }

    /// With any requests in flight, a pod that was chosen by its keys is below the bound or had a free slot.
    #[test]
    fn the_bound_is_kept(seed: u64, pods in 2..12_u8, requests in 1..400_usize) {
        let (fleet, now) = fleet(Strategy::PrefixAware, pods);
        let mut numbers = Numbers(seed);
        let mut leases = Vec::new();
        for _ in 0..requests {
            let output_tokens = u32::try_from(100 + numbers.below(100)).unwrap();
            let ask = Ask { output_tokens, ..chat(numbers.below(20), numbers.below(3)) };
            let lease = fleet.choose(&ask, &[], now, numbers.next()).unwrap();
            let states = fleet.states(now);
            let mean = states.iter().map(|state| state.tokens as f64).sum::<f64>() / f64::from(pods);
            let chosen = states.iter().find(|state| state.address == lease.address()).unwrap();
            prop_assert!(chosen.requests <= 4 || chosen.tokens as f64 <= 1.25 * mean, "{:?}", chosen);
            leases.push(lease);
            if numbers.below(3) == 0 {
                let which = usize::try_from(numbers.below(leases.len() as u64)).unwrap();
                drop(leases.swap_remove(which));
            }
        }
    }
}
