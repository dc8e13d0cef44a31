//! The gateway before a real pod: the sidecar with the real engine and the demo model.
//!
//! Needs the program `inferno-engine`: `make test` builds it first; by hand, `cargo build -p inferno-engine`.

use std::path::{Path, PathBuf};

use clap::Parser;
use crds::report::DrawKind;
use serde_json::{Value, json};
use sidecar::gateway::view::{DrawView, EndpointView, LotView, Mirror, RevisionView, StickyKey};
use sidecar::report::Identity;
use sidecar::serve::{Options, Server};

use crate::harness::{Front, model, tiny, until, view};

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
}

fn engine_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("INFERNO_ENGINE_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("inferno-engine");
    let how = "build it with `cargo build -p inferno-engine`, or name it in INFERNO_ENGINE_BINARY";
    assert!(path.exists(), "the tests need the engine's program at {}: {how}", path.display());
    path
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/model")
}

async fn pod(model: &Path, revision: &str) -> Server {
    pod_of("tiny", model, revision).await
}

async fn pod_of(name: &str, model: &Path, revision: &str) -> Server {
    let (model, engine) = (model.display().to_string(), engine_binary().display().to_string());
    let line = ["serve", "--model", &model, "--model-name", name, "--engine-binary", &engine];
    let line = line.iter().chain(&["--listen", "127.0.0.1:0", "--threads", "1"]);
    let options = CommandLine::try_parse_from(line).unwrap().options;
    let identity = Identity { revision: revision.into(), ..Identity::from_environment() };
    Server::start(options, identity).await.unwrap()
}

fn revision(server: &Server, name: &str) -> RevisionView {
    let endpoint =
        EndpointView { address: server.address, pod: name.to_owned(), is_ready: true, is_leaving: false };
    RevisionView { name: name.into(), slots: 4, endpoints: vec![endpoint] }
}

/// The pod is listed while it still loads, as a Service without readiness would list it; its requests wait, and what it
/// then says passes.
#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_the_model_and_both_kinds_of_answers_pass() {
    let server = pod(&examples().join("tiny.gguf"), "tiny-a").await;
    let mut model = tiny(&[]);
    model.revisions = vec![revision(&server, "tiny-a")];
    let front = Front::new(view([model])).await;
    let fields = json!({"max_tokens": 5, "temperature": 0, "ignore_eos": true});
    let plain = front.reply(fields.clone()).await;
    assert_eq!(plain.status, 200, "{plain:?}");
    assert_eq!(plain.header("x-inferno-revision"), Some("tiny-a"));
    let answer = plain.json();
    assert_eq!(answer["usage"]["completion_tokens"], 5);
    let said = answer["choices"][0]["message"]["content"].as_str().unwrap();

    let mut fields = fields;
    fields["stream"] = json!(true);
    let stream = front.reply(fields).await;
    assert!(stream.is_whole && stream.body.ends_with("data: [DONE]\n\n"), "{stream:?}");
    let events = stream.body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: {"));
    let events = events.map(|event| serde_json::from_str::<Value>(&format!("{{{event}")).unwrap());
    let text: String = events
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, said);

    let wrong = front.reply(json!({"max_tokens": -1})).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &json!("max_tokens")));
    front.is_idle().await;
    server.stop().await;
}

/// The canary has the larger demo model, which says the same and takes longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_larger_model_that_says_the_same_is_seen_to_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let larger = folder.path().join("larger.gguf");
    let script = std::process::Command::new("python3")
        .arg(examples().join("larger_model.py"))
        .arg("--out")
        .arg(&larger)
        .status();
    assert!(script.unwrap().success());
    let servers = [pod(&examples().join("tiny.gguf"), "tiny-a").await, pod(&larger, "tiny-b").await];
    let is_ready = |server: &Server| server.app.is_ready(std::time::Instant::now());
    until("both pods are ready", || servers.iter().all(is_ready)).await;
    let mut model = tiny(&[]);
    model.revisions = vec![revision(&servers[0], "tiny-a"), revision(&servers[1], "tiny-b")];
    model.traffic.mirror = Some(Mirror { revision: "tiny-b".into(), percent: 100 });
    let front = Front::new(view([model])).await;
    for is_stream in [false, true] {
        let fields = json!({"max_tokens": 40, "temperature": 0, "ignore_eos": true, "stream": is_stream});
        assert_eq!(front.reply(fields).await.status, 200);
    }
    let counts = || front.app().board().models[0].arms[1].shadow_counts().unwrap_or_default();
    until("both copies are compared", || counts().compared_total == 2).await;
    let counts = counts();
    println!("{counts:?}");
    assert_eq!(
        (counts.answered_total, counts.deterministic_same_text_total, counts.streamed_total),
        (2, 2, 1)
    );
    assert_eq!(counts.canary_characters_total, counts.stable_characters_total);
    assert!(counts.stable_first_micros_total > 0 && counts.canary_first_micros_total > 0);
    assert!(counts.stable_characters_total > 40, "{counts:?}");
    front.is_idle().await;
    for server in servers {
        server.stop().await;
    }
}

/// One variant has one token, the other another model; real pods say how many tokens they gave.
#[tokio::test(flavor = "multi_thread")]
async fn variants_answer_as_they_are_declared() {
    let file = examples().join("tiny.gguf");
    let servers = [pod(&file, "tiny-a").await, pod_of("other", &file, "other-a").await];
    let is_ready = |server: &Server| server.app.is_ready(std::time::Instant::now());
    until("both pods are ready", || servers.iter().all(is_ready)).await;
    let lot = |name: &str, model: Option<&str>, parameters: Value| LotView {
        name: name.into(),
        weight_basis_points: 5_000,
        model: model.map(str::to_owned),
        parameters: parameters.as_object().unwrap().clone(),
        ..LotView::default()
    };
    let mut base = tiny(&[]);
    base.revisions = vec![revision(&servers[0], "tiny-a")];
    base.draws = vec![DrawView {
        kind: DrawKind::Experiment,
        name: "length".into(),
        salt: "uid/experiment/length".into(),
        sticky_key: StickyKey::User,
        lots: vec![
            lot("one", None, json!({"max_tokens": 1})),
            lot("four", Some("other"), json!({"max_tokens": 4})),
        ],
        ..DrawView::default()
    }];
    let mut other = model("other", &[]);
    other.revisions = vec![revision(&servers[1], "other-a")];
    other.traffic.table.stable = "other-a".into();
    let front = Front::new(view([base, other])).await;
    for user in 0..20 {
        let fields = json!({"user": user.to_string(), "temperature": 0, "ignore_eos": true});
        let plain = front.reply(fields.clone()).await;
        let (variant, tokens, revision) = match plain.header("x-inferno-experiment").unwrap() {
            "length=one" => (0, 1, "tiny-a"),
            "length=four" => (1, 4, "other-a"),
            other => panic!("{other}"),
        };
        assert_eq!(plain.json()["usage"]["completion_tokens"], tokens, "{plain:?}");
        assert_eq!(plain.header("x-inferno-revision"), Some(revision));
        let mut fields = fields;
        fields["stream"] = json!(true);
        let stream = front.reply(fields).await;
        assert!(stream.is_whole && stream.body.ends_with("data: [DONE]\n\n"), "{stream:?}");
        assert!(stream.body.contains(&format!(": {tokens} tokens\n\n")), "variant {variant}: {stream:?}");
    }
    front.is_idle().await;
    let sums = front.app().board().models[0].tallies[0].sums().unwrap();
    let [one, four] = sums.lots.as_slice() else { panic!("{sums:?}") };
    assert_eq!(one.requests_total + four.requests_total, 40);
    for (lot, tokens, gaps) in [(one, 1, 0), (four, 4, four.requests_total / 2)] {
        let measured = [&lot.output_tokens, &lot.duration, &lot.first_token, &lot.inter_token];
        let requests = lot.requests_total;
        assert!(requests > 4, "{requests} of 40, half of which are expected");
        assert_eq!(measured.map(|sample| sample.count), [requests, requests, requests / 2, gaps]);
        assert!((lot.output_tokens.sum - (tokens * requests) as f64).abs() < 1e-9);
    }
    for server in servers {
        server.stop().await;
    }
}
