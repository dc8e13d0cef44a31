//! A server under test and a client for it. Waits for conditions, never for time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sidecar::report::Identity;
use sidecar::serve::{Options, Server};

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The engine's program: named by the environment, or beside the tests.
pub(crate) fn engine_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("INFERNO_ENGINE_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("inferno-engine");
    let how = "build it with `cargo build -p inferno-engine`, or name it in INFERNO_ENGINE_BINARY";
    assert!(path.exists(), "the tests need the engine's program at {}: {how}", path.display());
    path
}

/// The demo model.
pub(crate) fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/model/tiny.gguf")
}

/// The command line of a server with these flags beside the necessary ones.
pub(crate) fn serve_line(flags: &[&str]) -> Vec<String> {
    let (model, engine) = (model().display().to_string(), engine_binary().display().to_string());
    let necessary = [
        "serve",
        "--model",
        &model,
        "--model-name",
        "tiny",
        "--alias",
        "family/small:1",
        "--engine-binary",
        &engine,
    ];
    necessary
        .iter()
        .chain(&["--listen", "127.0.0.1:0", "--threads", "1"])
        .chain(flags)
        .map(ToString::to_string)
        .collect()
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// A server in this process.
pub(crate) struct Pod {
    pub(crate) server: Server,
    pub(crate) client: TestClient,
}

impl Pod {
    /// A server that is ready.
    pub(crate) async fn ready(flags: &[&str]) -> Pod {
        sidecar::web::install_tls();
        let options = Line::try_parse_from(serve_line(flags)).unwrap().options;
        let identity = Identity { revision: "tiny-abc12".into(), ..Identity::from_environment() };
        let server = Server::start(options, identity).await.unwrap();
        let client = TestClient::new(format!("http://{}", server.address));
        client.becomes_ready().await;
        Pod { server, client }
    }

    /// Requests that wait now.
    pub(crate) fn queued(&self) -> usize {
        self.server.app.source.queue.snapshot().requests
    }

    /// Waits until so many requests wait.
    pub(crate) async fn has_queued(&self, requests: usize) {
        until("the queue has that length", async || self.queued() == requests).await;
    }

    /// A stream that holds a slot until it is dropped: it has said something and has thousands of tokens to go.
    pub(crate) async fn hog(&self) -> Response {
        let mut response = self.client.stream(endless()).await;
        assert!(response.chunk().await.unwrap().is_some());
        response
    }
}

/// Runs into the context's end, which takes seconds.
pub(crate) fn endless() -> Value {
    json!({"ignore_eos": true, "user": "hog"})
}

/// A client of one server.
#[derive(Clone)]
pub(crate) struct TestClient {
    base: String,
    http: Client,
}

impl TestClient {
    pub(crate) fn new(base: String) -> Self {
        sidecar::web::install_tls();
        Self { base, http: sidecar::web::client().timeout(PATIENCE).build().unwrap() }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base))
    }

    /// A chat request about a greeting, with these fields beside the necessary ones.
    #[expect(clippy::needless_pass_by_value, reason = "callers write the fields in place")]
    pub(crate) fn chat(&self, fields: Value) -> RequestBuilder {
        self.post("/v1/chat/completions").json(&chat_body(&fields))
    }

    /// The answer to it, which must be one.
    pub(crate) async fn answer(&self, fields: Value) -> Value {
        let response = self.chat(fields).send().await.unwrap();
        let status = response.status();
        let body = response.text().await.unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The streamed answer to it, of which the headers have come.
    pub(crate) async fn stream(&self, mut fields: Value) -> Response {
        fields["stream"] = json!(true);
        let response = self.chat(fields).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response
    }

    pub(crate) async fn becomes_ready(&self) {
        until("the server is ready", async || {
            self.get("/readyz").send().await.is_ok_and(|response| response.status() == 200)
        })
        .await;
    }
}

/// The body of [`TestClient::chat`].
pub(crate) fn chat_body(fields: &Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hello there"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// Waits until a condition holds that nobody announces.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let holds = async {
        while !condition().await {
            ticks.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, holds).await.is_ok(), "waited in vain until {what}");
}

/// A stream as it was received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Comments, in order.
    pub(crate) comments: Vec<String>,
    /// Events' data, in order, without `[DONE]`.
    pub(crate) events: Vec<Value>,
    /// `[DONE]` was the last event.
    pub(crate) is_done: bool,
    /// The connection ended as HTTP wants it.
    pub(crate) is_clean: bool,
}

impl Received {
    /// Reads to the end, however that comes.
    pub(crate) async fn read(mut response: Response) -> Received {
        let mut bytes = Vec::new();
        let is_clean = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let mut received = Received { is_clean, ..Received::default() };
        for frame in String::from_utf8(bytes).unwrap().split_terminator("\n\n") {
            assert!(!received.is_done, "something came after [DONE]: {frame}");
            if let Some(comment) = frame.strip_prefix(": ") {
                received.comments.push(comment.to_owned());
            } else if frame == "data: [DONE]" {
                received.is_done = true;
            } else {
                let data = frame.strip_prefix("data: ").unwrap_or_else(|| panic!("a frame: {frame}"));
                received.events.push(serde_json::from_str(data).unwrap());
            }
        }
        received
    }

    /// The text of one choice.
    pub(crate) fn text(&self, index: usize) -> String {
        let of_choice = |event: &Value| {
            let choice = event["choices"].get(0).filter(|choice| choice["index"] == index)?;
            choice["delta"]["content"].as_str().or(choice["text"].as_str()).map(str::to_owned)
        };
        self.events.iter().filter_map(of_choice).collect()
    }

    /// The error frame, which must be the last.
    pub(crate) fn error(&self) -> &Value {
        &self.events.last().expect("an event")["error"]
    }
}
