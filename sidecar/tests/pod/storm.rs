//! Many clients of all kinds at once, some of which leave, and an engine that is killed among them. Afterwards nothing
//! may be left over, and every request must have been counted once.

use std::process::Command;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Pod, Received, TestClient, until};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    Stream,
    LeavesAtOnce,
    LeavesMidStream,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_over_and_everything_is_counted() {
    let pod = Pod::ready(&["--parallel-slots", "3"]).await;
    let mut dice = fastrand::Rng::with_seed(3);
    let kinds = [Kind::Plain, Kind::Stream, Kind::LeavesAtOnce, Kind::LeavesMidStream];
    let clients = (0..120).map(|number| {
        let kind = kinds[dice.usize(..kinds.len())];
        let fields = json!({
            "max_tokens": dice.u32(1..60),
            "ignore_eos": true,
            "n": dice.u32(1..3),
            "priority": dice.choice(["vip", "high", "normal", "low"]),
            "user": dice.u32(..5).to_string(),
        });
        let (client, engine) = (pod.client.clone(), pod.server.app.source.engine.clone());
        async move {
            if number == 60 {
                let pid = engine.pid().expect("an engine runs").to_string();
                assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            }
            behave(&client, kind, fields).await;
        }
    });
    join_all(clients).await;

    let app = &pod.server.app;
    until("nothing is in flight", async || app.lifecycle.in_flight() == 0).await;
    assert_eq!(pod.queued(), 0);
    until("no slot is busy", async || app.source.engine.stats().busy_slots == 0).await;
    let metrics = &app.source.metrics;
    let families = metrics.requests.clone();
    let ended: u64 = ["completed", "refused", "queue_full", "expired", "cancelled", "failed", "unavailable"]
        .iter()
        .map(|outcome| families.with_label_values(&[*outcome]).get())
        .sum();
    assert_eq!(ended, metrics.arrivals.get());
    let refused = families.with_label_values(&["refused"]).get();
    assert_eq!(refused, 0, "no client asked for anything wrong");
    pod.client.answer(json!({"max_tokens": 2, "n": 3})).await;
}

async fn behave(client: &TestClient, kind: Kind, fields: Value) {
    match kind {
        Kind::Plain => {
            let answer = client.answer(fields.clone()).await;
            assert_eq!(answer["usage"]["completion_tokens"], tokens(&fields));
        }
        Kind::Stream => {
            let received = Received::read(client.stream(fields).await).await;
            // Those that the kill met have an error frame; nobody has half an answer that looks whole.
            assert_eq!(received.is_done, received.is_clean);
            assert!(received.is_done || received.error()["code"] == "engine_lost");
        }
        Kind::LeavesAtOnce => {
            let asking = tokio::spawn(client.chat(fields).send());
            tokio::task::yield_now().await;
            asking.abort();
        }
        Kind::LeavesMidStream => {
            let mut response = client.stream(fields).await;
            assert!(response.chunk().await.is_ok());
        }
    }
}

fn tokens(fields: &Value) -> u64 {
    fields["max_tokens"].as_u64().unwrap() * fields["n"].as_u64().unwrap()
}
