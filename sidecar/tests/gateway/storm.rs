//! Many clients of all kinds at once, some of which leave, and pods that fail among them. Afterwards nothing may be left
//! over, and every request must have been counted once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Asked, Front, Pod, tiny, until, view};

const CLIENTS: u64 = 300;

/// A pod that answers well, breaks connections and refuses, by the dice.
fn unreliable(mut pod: Pod, seed: u64) {
    tokio::spawn(async move {
        let mut dice = fastrand::Rng::with_seed(seed);
        while let Some(asked) = pod.next().await {
            tokio::spawn(behave(asked, dice.u8(..)));
        }
    });
}

async fn behave(mut asked: Asked, dice: u8) {
    let is_stream = asked.body.contains("\"stream\":true");
    match dice {
        0..20 => drop(asked),
        20..40 => asked.try_refuse(503, "draining").await,
        40..60 => asked.try_refuse(429, "queue_full").await,
        _ if is_stream => {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let events = if dice < 90 { "8\r\ndata: 1\n\r\n" } else { "f\r\ndata: [DONE]\n\n \r\n0\r\n\r\n" };
            if asked.try_say(head).await && asked.try_say(events).await && dice >= 90 {
                asked.keep();
            }
        }
        _ => asked.try_answer(200, "{}").await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_over_and_everything_is_counted() {
    let pods = [Pod::new().await, Pod::new().await, Pod::new().await];
    let known = view([tiny(&pods.iter().collect::<Vec<_>>())]);
    let front = Arc::new(Front::new(known).await);
    for (pod, seed) in pods.into_iter().zip(1..) {
        unreliable(pod, seed);
    }
    let clients = (0..CLIENTS).map(|number| {
        let front = front.clone();
        async move {
            let is_stream = number % 2 == 0;
            let fields = json!({"stream": is_stream, "user": number.to_string(), "deadline_ms": 3_000});
            let mut line = front.chat(fields).await;
            match number % 3 {
                0 => drop(line),
                1 => drop(tokio::time::timeout(Duration::from_micros(number * 20), line.reply()).await),
                _ => {
                    let reply = line.reply().await;
                    // Nobody has half an answer that looks whole.
                    let is_stream = reply.status == 200 && is_stream;
                    assert!(!is_stream || reply.is_whole == reply.body.contains("[DONE]"), "{reply:?}");
                }
            }
        }
    });
    futures::future::join_all(clients).await;
    front.is_idle().await;
    assert!(!front.app().room.has_waiting("tiny"));
    let text = front.app().render(std::time::Instant::now()).unwrap();
    let counted = text.lines().filter(|line| line.starts_with("inferno_gateway_requests_total{"));
    let counted: u64 = counted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    let arrivals = front.app().board().models[0].arrivals.sums()[0];
    assert!(counted >= arrivals && counted <= CLIENTS, "{counted} counted, {arrivals} arrived of {CLIENTS}");
    until("the bodies' room is given back", || front.app().bodies.available_permits() == 256 << 10).await;
}
