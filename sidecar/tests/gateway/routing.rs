//! Which revision and which pod.

use std::collections::HashSet;

use serde_json::json;
use sidecar::gateway::view::{KillSwitch, Mirror, ModelView, StickyKey, Strategy, View};

use crate::harness::{Front, Pod, chat, model, tiny, until, view, with_canary};

async fn asked_with(front: &Front, headers: &str, body: &str) -> String {
    let mut client = front.connect().await;
    client.post("/v1/chat/completions", headers, body).await;
    client.reply().await.header("x-inferno-revision").unwrap().to_owned()
}

fn canary(stable: &Pod, canary: &Pod, weight: u16) -> ModelView {
    with_canary(model("tiny", &[("tiny-a", &[stable]), ("tiny-b", &[canary])]), weight)
}

#[tokio::test]
async fn a_weight_acts_on_the_next_request_and_keeps_conversations() {
    let ((stable, _), (new, _)) = (Pod::echo().await, Pod::echo().await);
    let front = Front::new(view([canary(&stable, &new, 0)])).await;
    let body = |number: usize| chat(json!({"messages": [{"role": "user", "content": format!("{number}")}]}));
    let mut before = HashSet::new();
    for weight in [0, 3_000, 6_000, 10_000] {
        front.app().take(view([canary(&stable, &new, weight)]));
        let mut on_canary = HashSet::new();
        for number in 0..60 {
            if asked_with(&front, "", &body(number)).await == "tiny-b" {
                on_canary.insert(number);
            }
        }
        assert!(on_canary.is_superset(&before), "raising the weight moves nobody back");
        assert_eq!(on_canary.is_empty(), weight == 0);
        assert_eq!(on_canary.len() == 60, weight == 10_000);
        before = on_canary;
    }
    front.app().take(view([canary(&stable, &new, 0)]));
    assert_eq!(asked_with(&front, "", &body(0)).await, "tiny-a");
}

#[tokio::test]
async fn the_header_names_a_revision_and_the_kill_switch_overrules_it() {
    let ((stable, _), (new, _)) = (Pod::echo().await, Pod::echo().await);
    let split = canary(&stable, &new, 0);
    let front = Front::new(view([split.clone()])).await;
    let wish = "x-inferno-revision: tiny-b\r\n";
    assert_eq!(asked_with(&front, wish, &chat(json!({}))).await, "tiny-b");
    assert_eq!(asked_with(&front, "", &chat(json!({}))).await, "tiny-a");
    front.app().take(view([ModelView { kill_switch: KillSwitch::Rollout, ..canary(&stable, &new, 10_000) }]));
    assert_eq!(asked_with(&front, wish, &chat(json!({}))).await, "tiny-a");
    front.app().take(view([ModelView { kill_switch: KillSwitch::Model, ..split }]));
    let reply = front.reply(json!({})).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "model_disabled"));
}

#[tokio::test]
async fn a_revision_asked_for_is_not_stuck_behind_those_who_wait_for_the_stable_one() {
    let (new, _) = Pod::echo().await;
    let front =
        Front::new(view([with_canary(model("tiny", &[("tiny-a", &[]), ("tiny-b", &[&new])]), 0)])).await;
    let _waiting = front.chat(json!({})).await;
    until("it waits", || front.app().room.has_waiting("tiny")).await;
    let wish = "x-inferno-revision: tiny-b\r\n";
    assert_eq!(asked_with(&front, wish, &chat(json!({}))).await, "tiny-b");
}

#[tokio::test]
async fn a_canary_that_has_no_pod_costs_nobody_a_request() {
    let (stable, _) = Pod::echo().await;
    let mut gone = Pod::new().await;
    gone.closes().await;
    let front = Front::new(view([canary(&stable, &gone, 10_000)])).await;
    assert_eq!(asked_with(&front, "", &chat(json!({}))).await, "tiny-a");
}

#[tokio::test]
async fn sessions_stay_with_their_pod() {
    for strategy in [Strategy::PrefixAware, Strategy::SessionAffinity] {
        let pods = [Pod::echo().await.0, Pod::echo().await.0, Pod::echo().await.0];
        let pods: Vec<&Pod> = pods.iter().collect();
        let front = Front::new(View { strategy, ..view([tiny(&pods)]) }).await;
        let mut seen = HashSet::new();
        for session in 0..12 {
            let mut of_session = HashSet::new();
            for turn in 0..4 {
                let mut client = front.connect().await;
                let headers = format!("x-inferno-session: s{session}\r\n");
                client.post("/v1/chat/completions", &headers, &chat(json!({"turn": turn}))).await;
                of_session.insert(client.reply().await.body);
            }
            assert_eq!(of_session.len(), 1, "session {session} with {strategy:?}");
            seen.extend(of_session);
        }
        assert!(seen.len() > 1, "{strategy:?} uses one pod only");
    }
}

#[tokio::test]
async fn round_robin_goes_round() {
    let pods = [Pod::echo().await.0, Pod::echo().await.0];
    let front =
        Front::new(View { strategy: Strategy::RoundRobin, ..view([tiny(&[&pods[0], &pods[1]])]) }).await;
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(front.reply(json!({})).await.body);
    }
    assert_eq!((&bodies[0], &bodies[1]), (&bodies[2], &bodies[3]));
    assert_ne!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn aliases_and_several_models_find_their_pods() {
    let ((tiny_pod, tiny_at), (other_pod, other_at)) = (Pod::echo().await, Pod::echo().await);
    let front = Front::new(view([tiny(&[&tiny_pod]), model("other", &[("other-a", &[&other_pod])])])).await;
    for (name, at) in [("tiny", tiny_at), ("family/small:1", tiny_at), ("other", other_at)] {
        assert_eq!(front.reply(json!({"model": name})).await.json()["pod"], at.to_string(), "{name}");
    }
}

#[tokio::test]
async fn a_mirror_gets_copies_and_delays_nobody() {
    let (stable, _) = Pod::echo().await;
    let mut watched = Pod::new().await;
    let mut model = canary(&stable, &watched, 0);
    model.traffic.mirror = Some(Mirror { revision: "tiny-b".to_owned(), percent: 100 });
    model.traffic.sticky_key = StickyKey::Request;
    let front = Front::new(view([model.clone()])).await;
    let reply = front.reply(json!({"n": 1})).await;
    assert_eq!(reply.header("x-inferno-revision"), Some("tiny-a"));
    // The client has its answer; the copy has none yet.
    let mut copy = watched.asked().await;
    assert_eq!((&copy.body, copy.header("x-inferno-mirror")), (&chat(json!({"n": 1})), Some("1")));
    copy.streams().await;
    copy.chunk("data: {}\n\n").await;
    copy.done().await;
    let answered = "inferno_gateway_mirrored_total{model=\"tiny\",outcome=\"answered\"}";
    until("the copy is read to its end", || front.metric(answered) == 1).await;
    let counts: Vec<_> = front.app().board().models[0]
        .arms
        .iter()
        .map(|arm| arm.requests.load(std::sync::atomic::Ordering::Relaxed))
        .collect();
    assert_eq!(counts, [1, 0], "copies are no requests of the canary");

    front.app().take(view([ModelView { kill_switch: KillSwitch::Rollout, ..model }]));
    front.reply(json!({})).await;
    front.is_idle().await;
    assert!(watched.asked_before().is_none());
}
