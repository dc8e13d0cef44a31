use std::time::Duration;

use super::*;
use crate::gateway::hold::held::PAUSE_MIN;
use crate::queue::Tier;

fn request(tier: Tier, seconds: u64) -> HeldRequest {
    let now = tokio_now();
    HeldRequest {
        tier,
        bytes: 1,
        prompt_tokens: 5,
        output_tokens: 7,
        arrived: now,
        deadline: now + Duration::from_secs(seconds),
    }
}

fn enter(room: &HoldRoom) -> Ticket {
    let limits = HoldLimits::default();
    room.enter("chat", request(Tier::Normal, 60), &limits, tokio_now()).unwrap()
}

/// Whether the turn has come.
fn has_turn(ticket: &mut Ticket) -> bool {
    let wait = std::pin::pin!(ticket.wait());
    futures::FutureExt::now_or_never(wait) == Some(Turn::Go)
}

#[tokio::test]
async fn a_ready_pod_wakes_who_waits() {
    let room = HoldRoom::new();
    let mut ticket = enter(&room);
    assert!(!has_turn(&mut ticket));
    let waiting = tokio::spawn(async move { ticket.wait().await });
    tokio::task::yield_now().await;
    room.wake("other", 1, tokio_now());
    assert!(room.has_waiting("chat"), "another model's pods are of no use");
    room.wake("chat", 1, tokio_now());
    assert_eq!(waiting.await.unwrap(), Turn::Go);
}

#[tokio::test]
async fn who_enters_just_after_the_wake_up_goes_too() {
    let room = HoldRoom::new();
    room.wake("chat", 1, tokio_now());
    assert!(has_turn(&mut enter(&room)));
    room.rest("chat", tokio_now());
    assert!(!has_turn(&mut enter(&room)));
}

#[tokio::test]
async fn a_dropped_ticket_lets_the_next_one_go_also_when_it_was_never_asked() {
    let room = HoldRoom::new();
    let (first, second, mut third) = (enter(&room), enter(&room), enter(&room));
    room.wake("chat", 1, tokio_now());
    assert!(!has_turn(&mut third));
    drop(second);
    drop(first);
    assert!(has_turn(&mut third));
    drop(third);
    room.rest("chat", tokio_now());
    assert!(room.lock().is_empty(), "nothing is remembered of a closed and empty model");
}

#[tokio::test]
async fn a_deadline_is_kept_without_anybody_s_doing_and_frees_the_room() {
    let room = HoldRoom::new();
    let limits = HoldLimits { requests_max: 1, ..HoldLimits::default() };
    let soon = HeldRequest { deadline: tokio_now() + Duration::from_millis(20), ..request(Tier::Low, 0) };
    let mut ticket = room.enter("chat", soon, &limits, tokio_now()).unwrap();
    assert_eq!(ticket.wait().await, Turn::Expired);
    assert!(tokio_now() >= soon.deadline);
    ticket.back(tokio_now());
    assert_eq!(ticket.wait().await, Turn::Expired, "what is over stays over");
    assert!(room.enter("chat", request(Tier::Low, 5), &limits, tokio_now()).is_ok());
    assert_eq!(
        room.enter("chat", request(Tier::Low, 5), &HoldLimits { bytes_max: 0, ..limits }, tokio_now()).err(),
        Some(HoldRefusal::Bytes)
    );
}

#[tokio::test]
async fn who_comes_back_while_pods_are_ready_tries_again_without_a_message() {
    let room = HoldRoom::new();
    room.wake("chat", 1, tokio_now());
    let mut ticket = enter(&room);
    assert_eq!(ticket.wait().await, Turn::Go);
    assert_eq!(ticket.wait().await, Turn::Go, "the same answer until it comes back");
    let back_at = tokio_now();
    ticket.back(back_at);
    assert!(!has_turn(&mut ticket), "not at once");
    assert_eq!(ticket.wait().await, Turn::Go);
    assert!(tokio_now() >= back_at + PAUSE_MIN);
    ticket.back(tokio_now());
    room.rest("chat", tokio_now());
    room.wake("chat", 1, tokio_now());
    assert!(has_turn(&mut ticket), "a pod that becomes ready ends the pause");
}

#[tokio::test]
async fn a_wait_can_be_given_up_and_taken_up_again() {
    let room = HoldRoom::new();
    let mut ticket = enter(&room);
    for _ in 0..3 {
        assert!(!has_turn(&mut ticket));
    }
    room.wake("chat", 1, tokio_now());
    assert_eq!(ticket.wait().await, Turn::Go);
}

#[tokio::test]
async fn changes_are_told_and_counted() {
    let room = HoldRoom::new();
    let mut changed = room.changed();
    changed.borrow_and_update();
    let entered = tokio_now();
    let request = HeldRequest { arrived: entered, ..request(Tier::Normal, 60) };
    let ticket = room.enter("chat", request, &HoldLimits::default(), entered).unwrap();
    assert!(changed.has_changed().unwrap());
    changed.borrow_and_update();
    let counts = room.counts("chat", entered + Duration::from_millis(1_500));
    assert_eq!(
        counts,
        HeldCounts { by_tier: [0, 0, 1, 0], bytes: 1, prompt_tokens: 5, output_tokens: 7, oldest_ms: 1_500 }
    );
    drop(ticket);
    assert!(changed.has_changed().unwrap());
    assert_eq!(room.counts("chat", tokio_now()), HeldCounts::default());
}

/// Entering, waking, resting, flapping and leaving from many threads at once: everybody has his turn in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_threads() {
    let room = HoldRoom::new();
    let flapping = std::thread::spawn({
        let room = room.clone();
        move || {
            for _ in 0..2_000 {
                room.rest("chat", Instant::now());
                room.wake("chat", 3, Instant::now());
            }
        }
    });
    let visitors = (0..200_u32).map(|number| {
        let room = room.clone();
        tokio::spawn(async move {
            let mut ticket = enter(&room);
            if number % 5 == 0 {
                return;
            }
            assert_eq!(ticket.wait().await, Turn::Go);
            if number % 3 == 0 {
                ticket.back(Instant::now());
                assert_eq!(ticket.wait().await, Turn::Go);
            }
        })
    });
    futures::future::try_join_all(visitors).await.unwrap();
    tokio::task::spawn_blocking(move || flapping.join().unwrap()).await.unwrap();
    room.rest("chat", Instant::now());
    assert!(room.lock().is_empty());
}
