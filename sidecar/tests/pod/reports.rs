//! What the operator hears.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use crds::report::{Phase, REPORT_PATH, Report};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::{PATIENCE, Pod};

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_hears_of_phases_and_of_work_done() {
    let (reports, mut heard) = mpsc::unbounded_channel::<Report>();
    let intake = async |State(reports): State<mpsc::UnboundedSender<Report>>, Json(report): Json<Report>| {
        drop(reports.send(report));
    };
    let router = Router::new().route(REPORT_PATH, post(intake)).with_state(reports);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let pod = Pod::ready(&["--report-url", &url]).await;
    pod.client.answer(json!({"max_tokens": 5, "ignore_eos": true})).await;
    let mut last_sequence = 0;
    let report = loop {
        let report = timeout(PATIENCE, heard.recv()).await.expect("a report").unwrap();
        assert!(report.sequence > last_sequence, "sequence numbers grow");
        last_sequence = report.sequence;
        if report.load.as_ref().is_some_and(|load| load.completed_total == 1) {
            break report;
        }
    };
    assert_eq!(report.phase, Phase::Serving);
    assert_eq!(report.revision, "tiny-abc12");
    let opened = report.opened.unwrap();
    assert_eq!((opened.architecture.as_str(), opened.layers_offloaded), ("llama", 0));
    let load = report.load.unwrap();
    assert_eq!((load.arrivals_total, load.slots, load.work.requests), (1, 4, 1));
    assert_eq!(load.ttft_ms_buckets_total.iter().sum::<u64>(), 1);
    assert!(load.output_tokens_total >= 5 && load.prompt_tokens_total > 0);
}
