//! The engine is killed while it works.

use std::process::Command;

use serde_json::json;

use crate::harness::{Pod, Received, endless, until};

pub(crate) fn kill_engine(pod: &Pod) {
    let pid = pod.server.app.source.engine.pid().expect("an engine runs");
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_an_error_and_a_cut_and_nothing_that_waited_is_lost() {
    let pod = Pod::ready(&["--parallel-slots", "1", "--context-length", "32768"]).await;
    let stream = pod.hog().await;
    let waiting: Vec<_> = (0..3)
        .map(|number| {
            tokio::spawn(pod.client.chat(json!({"max_tokens": 2, "user": number.to_string()})).send())
        })
        .collect();
    pod.has_queued(3).await;
    kill_engine(&pod);
    let received = Received::read(stream).await;
    assert_eq!(received.error()["code"], "engine_lost");
    assert!(!received.is_clean, "a clean end would pass for success");
    assert!(!received.is_done);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    }
    pod.client.answer(json!({"max_tokens": 2})).await;
    assert_eq!(pod.server.app.source.engine.stats().incarnation, 2);
    assert_eq!(pod.client.get("/healthz").send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_answer_of_which_nothing_was_sent_is_begun_anew() {
    let pod = Pod::ready(&["--parallel-slots", "1", "--context-length", "4096"]).await;
    let answer = tokio::spawn({
        let client = pod.client.clone();
        async move { client.answer(endless()).await }
    });
    until("it runs", async || pod.server.app.source.engine.stats().busy_slots == 1).await;
    kill_engine(&pod);
    let answer = answer.await.unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(pod.server.app.source.metrics.requeued.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_while_it_is_away_wait_for_it() {
    let pod = Pod::ready(&[]).await;
    kill_engine(&pod);
    let answers = (0..4).map(|_| pod.client.answer(json!({"max_tokens": 2})));
    futures::future::join_all(answers).await;
}
