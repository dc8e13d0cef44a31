//! What the operator hears.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use crds::report::{Part, Phase, REPORT_PATH, Report, RequestWork, Work};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::engine_loss::kill_engine;
use crate::harness::{PATIENCE, Pod, Received, endless, until};

/// An operator that only listens.
struct Operator {
    url: String,
    reports: mpsc::UnboundedReceiver<Report>,
    last_sequence: u64,
    /// Every row heard so far, by its ordinal, which counts from 1.
    rows: Vec<RequestWork>,
}

impl Operator {
    async fn listening() -> Operator {
        let (sender, reports) = mpsc::unbounded_channel::<Report>();
        let intake = async |State(reports): State<mpsc::UnboundedSender<Report>>,
                            Json(report): Json<Report>| {
            drop(reports.send(report));
        };
        let router = Router::new().route(REPORT_PATH, post(intake)).with_state(sender);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Operator { url, reports, last_sequence: 0, rows: Vec::new() }
    }

    /// The first report whose work is this.
    async fn hears(&mut self, is_it: impl Fn(&Work) -> bool) -> Report {
        loop {
            let report = timeout(PATIENCE, self.reports.recv()).await.expect("a report").unwrap();
            assert!(report.sequence > self.last_sequence, "sequence numbers grow");
            self.last_sequence = report.sequence;
            let Some(load) = &report.load else { continue };
            load.work.recent.iter().for_each(|row| self.hear_row(*row));
            if is_it(&load.work) {
                return report;
            }
        }
    }

    /// A row that comes again is the same, and a new one follows the last.
    fn hear_row(&mut self, row: RequestWork) {
        let at = usize::try_from(row.ordinal).unwrap() - 1;
        if at == self.rows.len() {
            self.rows.push(row);
        }
        assert_eq!(self.rows.get(at), Some(&row));
    }

    /// The rows heard so far that tell an end.
    fn ends(&self) -> Vec<RequestWork> {
        self.rows.iter().filter(|row| row.part != Part::Prompt).copied().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_hears_of_phases_and_of_work_done() {
    let mut operator = Operator::listening().await;
    let pod = Pod::ready(&["--report-url", &operator.url]).await;
    pod.client.answer(json!({"max_tokens": 5, "ignore_eos": true})).await;
    let report = operator.hears(|work| work.requests == 1).await;
    assert_eq!(report.phase, Phase::Serving);
    assert_eq!(report.revision, "tiny-abc12");
    let opened = report.opened.unwrap();
    assert_eq!((opened.architecture.as_str(), opened.layers_offloaded), ("llama", 0));
    let load = report.load.unwrap();
    assert_eq!((load.arrivals_total, load.slots, load.work.requests), (1, 4, 1));
    assert_eq!(load.ttft_ms_buckets_total.iter().sum::<u64>(), 1);
    assert!(load.output_tokens_total >= 5 && load.prompt_tokens_total > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_a_row_that_says_what_it_cost() {
    let mut operator = Operator::listening().await;
    let pod = Pod::ready(&["--report-url", &operator.url]).await;
    pod.client.answer(json!({"max_tokens": 5, "ignore_eos": true})).await;
    operator.hears(|work| work.requests == 1).await;
    let next_turn = json!([
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": "Good morning."},
        {"role": "user", "content": "Where is the river?"},
    ]);
    let again = pod.client.chat(json!({"messages": next_turn, "max_tokens": 3, "ignore_eos": true}));
    let again = again.header("x-stainless-retry-count", "1").header("x-inferno-attempt", "3");
    assert_eq!(again.send().await.unwrap().status(), 200);
    let work = operator.hears(|work| work.requests == 2).await.load.unwrap().work;

    let parts: Vec<Part> = operator.rows.iter().map(|row| row.part).collect();
    assert_eq!(parts, [Part::Prompt, Part::Answer, Part::Prompt, Part::Answer]);
    for pair in operator.rows.chunks(2) {
        let prompt = RequestWork {
            ordinal: pair[0].ordinal,
            part: Part::Prompt,
            inter_token_micros: Some(0),
            output_tokens: 0,
            decode_steps: 0,
            ..pair[1]
        };
        assert_eq!(pair[0], prompt, "an answer repeats the figures of its prompt");
    }
    let ends = operator.ends();
    let [first, second] = ends.as_slice() else { panic!("two ends: {ends:?}") };
    assert_eq!((first.attempt, second.attempt), (1, 3));
    assert_eq!((first.output_tokens, first.decode_steps), (5, 4));
    assert_eq!((second.output_tokens, second.decode_steps), (3, 2));
    assert_eq!((first.is_reuse_eligible, first.uncached_tokens), (false, first.prompt_tokens));
    assert!(second.is_reuse_eligible && second.is_reuse_hit, "{second:?}");
    assert!(second.prompt_tokens > first.prompt_tokens);
    assert!(second.uncached_tokens <= second.prompt_tokens - first.prompt_tokens, "{first:?} {second:?}");
    for row in [first, second] {
        assert!(row.prefill_micros > 0 && row.ttft_micros >= row.prefill_micros, "{row:?}");
        assert!(row.overlap_permille == 0 && !row.has_failed, "nothing ran beside it: {row:?}");
        assert_eq!((row.in_flight_before, row.was_cancelled), (Some(0), false), "{row:?}");
        assert!(row.inter_token_micros.is_some_and(|micros| micros > 0), "{row:?}");
    }
    assert_eq!((work.first_attempts, work.first_attempt_errors), (1, 0));
    assert_eq!((work.reuse_eligible, work.reuse_hits), (1, 1));
    assert_eq!((work.decode_steps, work.decoded_tokens, work.overlap_micros), (6, 6, 0));
    assert_eq!(work.prefill_us, first.prefill_micros + second.prefill_micros);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waited_for_a_slot_is_told_from_who_went_straight_through() {
    let mut operator = Operator::listening().await;
    let slot = ["--parallel-slots", "1", "--context-length", "32768", "--report-url", &operator.url];
    let pod = Pod::ready(&slot).await;
    let hog = pod.hog().await;
    let waiting = tokio::spawn(pod.client.chat(json!({"max_tokens": 2})).send());
    // Far beyond what reading and tokenizing take, so that most of it is time in the queue.
    let queue = &pod.server.app.source.queue;
    until("it waits", async || queue.snapshot().oldest > Duration::from_millis(500)).await;
    drop(hog);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    let work = operator.hears(|work| work.requests == 1).await.load.unwrap().work;
    let ends = operator.ends();
    let [hog, waiting] = ends.as_slice() else { panic!("two ends: {ends:?}") };
    assert!(waiting.has_waited && !waiting.is_unqueued && !waiting.was_cancelled, "{waiting:?}");
    assert_eq!((hog.in_flight_before, waiting.in_flight_before), (Some(0), Some(1)));
    assert!(hog.was_cancelled && !hog.has_failed && hog.output_tokens > 0 && hog.ttft_micros > 0, "{hog:?}");
    assert!(hog.inter_token_micros.is_some_and(|micros| micros > 0), "{hog:?}");
    assert_eq!(work.waited, 1);
    assert_eq!(work.first_attempts, 2, "the one whose client left had a first token too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_told_while_its_answer_goes_on_and_who_leaves_the_queue_is_told_too() {
    let mut operator = Operator::listening().await;
    let slot = ["--parallel-slots", "1", "--context-length", "32768", "--report-url", &operator.url];
    let pod = Pod::ready(&slot).await;
    let hog = pod.hog().await;
    operator.hears(|work| !work.recent.is_empty()).await;
    let [prompt] = operator.rows[..] else { panic!("one row: {:?}", operator.rows) };
    assert!(prompt.part == Part::Prompt && prompt.prefill_micros > 0 && prompt.ttft_micros > 0, "{prompt:?}");

    let waiting = tokio::spawn(pod.client.chat(json!({"max_tokens": 2})).send());
    let queue = &pod.server.app.source.queue;
    until("it waits", async || queue.snapshot().oldest > Duration::from_millis(50)).await;
    waiting.abort();
    operator.hears(|work| work.recent.iter().any(|row| row.was_cancelled)).await;
    let [left] = operator.ends()[..] else { panic!("one end: {:?}", operator.rows) };
    assert!(left.was_cancelled && left.has_waited && left.ttft_micros == 0, "{left:?}");
    assert_eq!((left.part, left.in_flight_before), (Part::Whole, Some(1)));
    drop(hog);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_engine_is_a_failed_attempt_whether_or_not_the_client_sees_it() {
    let mut operator = Operator::listening().await;
    let slot = ["--parallel-slots", "1", "--context-length", "4096", "--report-url", &operator.url];
    let pod = Pod::ready(&slot).await;
    let engine = &pod.server.app.source.engine;
    let answer = tokio::spawn({
        let client = pod.client.clone();
        async move { client.answer(endless()).await }
    });
    until("it runs", async || engine.stats().busy_slots == 1).await;
    kill_engine(&pod);
    answer.await.unwrap();
    let unseen = operator.hears(|work| work.requests == 1).await.load.unwrap();
    assert_eq!((unseen.errors_total, unseen.work.errors), (0, 0), "it was begun anew");
    assert_eq!((unseen.work.first_attempts, unseen.work.first_attempt_errors), (1, 1));

    let stream = pod.hog().await;
    kill_engine(&pod);
    assert!(!Received::read(stream).await.is_clean);
    let seen = operator.hears(|work| work.first_attempts == 2 && work.errors == 1).await.load.unwrap();
    assert_eq!((seen.errors_total, seen.work.first_attempt_errors, seen.work.requests), (1, 2, 1));
    let ends = operator.ends();
    let facts: Vec<_> = ends.iter().map(|row| (row.attempt, row.has_failed)).collect();
    assert_eq!(facts, [(1, true), (2, false), (1, true)]);
    assert!(!ends[1].is_unqueued, "it met a lost engine");
    assert!(ends[2].output_tokens > 0 && ends[2].ttft_micros > 0);
}
