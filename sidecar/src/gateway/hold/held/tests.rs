use proptest::prelude::*;

use super::*;

const LIMITS: HoldLimits = HoldLimits { requests_max: 4, bytes_max: 1_000, timeout_ms: 60_000 };

fn request(tier: Tier, arrived: Instant) -> HeldRequest {
    HeldRequest {
        tier,
        bytes: 10,
        prompt_tokens: 5,
        output_tokens: 7,
        arrived,
        deadline: arrived + Duration::from_secs(100),
    }
}

fn after(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// A room with Normal requests of the given names.
fn with(names: &[&'static str], now: Instant) -> (Held<&'static str>, Vec<HeldId>) {
    let mut held = Held::default();
    let enter = |name: &&'static str| held.enter(request(Tier::Normal, now), *name, &LIMITS).unwrap();
    let ids = names.iter().map(enter).collect();
    (held, ids)
}

fn gone(names: &[&'static str]) -> Vec<(&'static str, Turn)> {
    names.iter().map(|name| (*name, Turn::Go)).collect()
}

#[test]
fn the_most_urgent_go_first_and_only_as_many_as_there_are_places() {
    let now = Instant::now();
    let mut held = Held::default();
    for (name, tier) in [("low", Tier::Low), ("a", Tier::Normal), ("b", Tier::Normal), ("vip", Tier::Vip)] {
        held.enter(request(tier, now), name, &LIMITS).unwrap();
    }
    assert_eq!(held.turns(now), []);
    held.open(2);
    assert_eq!(held.turns(now), gone(&["vip", "a"]));
    assert_eq!(held.turns(now), [], "two are going");
    held.open(4);
    assert_eq!(held.turns(now), gone(&["b", "low"]));
}

#[test]
fn waiting_lifts_a_request_over_fresher_ones() {
    let now = Instant::now();
    let mut held = Held::default();
    held.enter(request(Tier::Low, now), "old", &LIMITS).unwrap();
    let later = after(now, 25_000);
    held.enter(request(Tier::Normal, later), "new", &LIMITS).unwrap();
    held.open(1);
    assert_eq!(held.turns(later), gone(&["old"]));
}

#[test]
fn a_request_that_leaves_gives_its_place_to_the_next() {
    let now = Instant::now();
    let (mut held, ids) = with(&["a", "b", "c"], now);
    held.leave(ids[1]);
    held.open(1);
    assert_eq!(held.turns(now), gone(&["a"]));
    held.leave(ids[0]);
    held.leave(ids[0]);
    assert_eq!(held.turns(now), gone(&["c"]), "b had left from the middle");
}

#[test]
fn who_enters_an_open_room_goes_at_once() {
    let now = Instant::now();
    let mut held = Held::default();
    held.open(1);
    held.enter(request(Tier::Normal, now), "a", &LIMITS).unwrap();
    assert_eq!(held.turns(now), gone(&["a"]));
}

#[test]
fn a_flap_costs_nobody_his_place() {
    let now = Instant::now();
    let (mut held, ids) = with(&["a", "b"], now);
    held.open(1);
    assert_eq!(held.turns(now), gone(&["a"]));
    held.open(0);
    assert!(held.back(ids[0], "a", now));
    assert!(!held.back(ids[0], "a", now), "it waits already");
    assert_eq!(held.turns(now), []);
    held.open(1);
    assert_eq!(held.turns(now), gone(&["a"]), "before b, and without a pause");
}

#[test]
fn who_comes_back_to_an_open_room_tries_again_after_a_growing_pause() {
    let now = Instant::now();
    let (mut held, ids) = with(&["a"], now);
    held.open(1);
    let mut at = now;
    for pause_ms in [250, 500, 1_000, 2_000, 2_000] {
        assert_eq!(held.turns(at), gone(&["a"]));
        held.back(ids[0], "a", at);
        assert_eq!(held.next_at(ids[0], at), Some(after(at, pause_ms)));
        assert_eq!(held.turns(after(at, pause_ms - 1)), []);
        held.open(1);
        assert_eq!(held.turns(after(at, pause_ms - 1)), [], "one more view with the same pods ends no pause");
        at = after(at, pause_ms);
    }
    held.open(0);
    held.open(1);
    assert_eq!(held.turns(at), gone(&["a"]), "pods that become ready do");
}

#[test]
fn a_pause_holds_nobody_else_up() {
    let now = Instant::now();
    let (mut held, ids) = with(&["a", "b"], now);
    held.open(1);
    assert_eq!(held.turns(now), gone(&["a"]));
    held.back(ids[0], "a", now);
    assert_eq!(held.turns(now), gone(&["b"]));
}

#[test]
fn the_late_are_told_and_leave_at_their_deadline() {
    let now = Instant::now();
    let (mut held, ids) = with(&["a"], now);
    assert_eq!(held.next_at(ids[0], now), Some(after(now, 100_000)));
    assert_eq!(held.turns(after(now, 99_999)), []);
    assert_eq!(held.turns(after(now, 100_000)), [("a", Turn::Expired)]);
    assert!(held.is_empty());
    assert_eq!(held.counts(now), HeldCounts::default());
    assert!(!held.back(ids[0], "a", now), "the place is gone");
}

#[test]
fn limits_count_those_that_are_going_too() {
    let now = Instant::now();
    let (mut held, ids) = with(&["a", "b", "c", "d"], now);
    held.open(4);
    assert_eq!(held.turns(now).len(), 4);
    assert_eq!(held.enter(request(Tier::Vip, now), "e", &LIMITS), Err(HoldRefusal::Requests));
    held.leave(ids[0]);
    let large = HeldRequest { bytes: 971, ..request(Tier::Vip, now) };
    assert_eq!(held.enter(large, "e", &LIMITS), Err(HoldRefusal::Bytes));
    assert!(held.enter(HeldRequest { bytes: 970, ..large }, "e", &LIMITS).is_ok());
}

#[test]
fn counts_are_of_those_that_wait() {
    let now = Instant::now();
    let mut held = Held::default();
    held.enter(request(Tier::Vip, now), "a", &LIMITS).unwrap();
    held.enter(request(Tier::Low, after(now, 500)), "b", &LIMITS).unwrap();
    let counts = held.counts(after(now, 2_000));
    assert_eq!(
        counts,
        HeldCounts {
            by_tier: [1, 0, 0, 1],
            bytes: 20,
            prompt_tokens: 10,
            output_tokens: 14,
            oldest_ms: 2_000
        }
    );
    held.open(1);
    held.turns(now);
    let counts = held.counts(after(now, 2_000));
    assert_eq!(
        counts,
        HeldCounts { by_tier: [0, 0, 0, 1], bytes: 10, prompt_tokens: 5, output_tokens: 7, oldest_ms: 1_500 }
    );
}

/// What can happen to a room.
#[derive(Debug, Clone)]
enum Event {
    Enter { tier: usize, bytes: u64, within_ms: u64 },
    Open(usize),
    Leave(prop::sample::Index),
    Back(prop::sample::Index),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..4_usize, 0..400_u64, 0..20_000_u64)
            .prop_map(|(tier, bytes, within_ms)| Event::Enter { tier, bytes, within_ms }),
        2 => (0..4_usize).prop_map(Event::Open),
        1 => any::<prop::sample::Index>().prop_map(Event::Leave),
        2 => any::<prop::sample::Index>().prop_map(Event::Back),
        2 => (0..3_000_u64).prop_map(Event::Wait),
    ]
}

proptest! {
    /// Whatever happens: the sums are right, no more go than there are places (but those that went before the places
    /// became fewer), and nobody waits who could go.
    #[test]
    fn nobody_is_lost_or_counted_twice(events in prop::collection::vec(event(), 1..80)) {
        let mut now = Instant::now();
        let mut held = Held::default();
        let mut waiting: BTreeMap<HeldId, HeldRequest> = BTreeMap::new();
        let mut going: BTreeMap<HeldId, HeldRequest> = BTreeMap::new();
        let mut next = 0_u64;
        for event in events {
            let went_before = going.len();
            match event {
                Event::Enter { tier, bytes, within_ms } => {
                    let tier = crate::queue::tier::TIERS[tier];
                    let deadline = after(now, within_ms);
                    let request = HeldRequest { bytes, deadline, ..request(tier, now) };
                    // Ids count up with each admission, so the item can be the id itself.
                    let result = held.enter(request, HeldId(next), &LIMITS);
                    let all = waiting.values().chain(going.values());
                    let bytes_before: u64 = all.map(|request| request.bytes).sum();
                    let fits = waiting.len() + going.len() < 4 && bytes_before + bytes <= 1_000;
                    prop_assert_eq!(result.is_ok(), fits);
                    if let Ok(id) = result {
                        prop_assert_eq!(id, HeldId(next));
                        waiting.insert(id, request);
                        next += 1;
                    }
                }
                Event::Open(places) => held.open(places),
                Event::Leave(which) if next > 0 => {
                    let id = HeldId(which.index(usize::try_from(next).unwrap()) as u64);
                    held.leave(id);
                    waiting.remove(&id);
                    going.remove(&id);
                }
                Event::Back(which) if !going.is_empty() => {
                    let id = *which.get(&going.keys().copied().collect::<Vec<_>>());
                    prop_assert!(held.back(id, id, now));
                    waiting.insert(id, going.remove(&id).unwrap());
                }
                Event::Wait(ms) => now = after(now, ms),
                Event::Leave(_) | Event::Back(_) => {}
            }
            for (id, turn) in held.turns(now) {
                let request = waiting.remove(&id).expect("only who waits has a turn");
                prop_assert_eq!(turn == Turn::Expired, request.deadline <= now);
                if turn == Turn::Go {
                    going.insert(id, request);
                }
            }
            prop_assert!(going.len() <= held.places().max(went_before));
            for (id, request) in &waiting {
                prop_assert!(request.deadline > now);
                let next_at = held.next_at(*id, now).expect("who waits has an end");
                prop_assert!(next_at > now && next_at <= request.deadline);
                let pauses = held.entries[id].not_before.is_some_and(|at| at > now);
                prop_assert!(pauses || going.len() >= held.places(), "{:?} could go", id);
            }
            let counts = held.counts(now);
            prop_assert_eq!(counts.by_tier.iter().sum::<u32>() as usize, waiting.len());
            prop_assert_eq!(counts.bytes, waiting.values().map(|request| request.bytes).sum::<u64>());
            prop_assert_eq!(held.has_waiting(), !waiting.is_empty());
            prop_assert_eq!(held.is_empty(), waiting.is_empty() && going.is_empty());
        }
    }
}
