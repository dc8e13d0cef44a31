//! Models fetched from real servers on loopback, good ones and bad ones.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use clap::Parser;
use crds::report::{Failure, Phase, Reason};
use sha2::{Digest, Sha256};
use sidecar::fetch::{self, Options};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::harness::model;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

async fn serve(router: Router) -> SocketAddr {
    sidecar::web::install_tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A fresh volume, and the path on it.
fn volume() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("models/tiny.gguf");
    (folder, path)
}

async fn fetch_to(output: &Path, flags: &[&str]) -> Result<(), Failure> {
    let output = output.display().to_string();
    let line = [&["fetch", "--output", &output, "--retry-seconds", "1"], flags].concat();
    let options = Line::try_parse_from(line).unwrap().options;
    let start = Phase::Downloading { bytes_done: 0, bytes_total: None, seconds_left: None, last_error: None };
    fetch::fetch(&options, &watch::Sender::new(start)).await
}

fn content() -> Vec<u8> {
    std::fs::read(model()).unwrap()
}

fn sha256() -> String {
    hex::encode(Sha256::digest(content()))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_fetched_once_and_left_alone_afterwards() {
    let address = serve(sidecar::files::router(model().parent().unwrap().to_owned())).await;
    let (_folder, output) = volume();
    let url = format!("http://{address}/tiny.gguf");
    fetch_to(&output, &["--url", &url, "--sha256", &sha256()]).await.unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), content());
    assert_eq!(names(output.parent().unwrap()), ["tiny.gguf", "tiny.gguf.lock"]);
    let nowhere = "http://127.0.0.1:9/tiny.gguf";
    fetch_to(&output, &["--url", nowhere, "--sha256", &sha256()]).await.expect("the file is here already");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_source_has_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = content();
    std::fs::write(folder.path().join("tiny.gguf"), &bytes).unwrap();
    std::fs::write(folder.path().join("short.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(folder.path().join("text.gguf"), "This is a text.".repeat(100)).unwrap();
    std::fs::write(folder.path().join("empty.gguf"), "").unwrap();
    let secret = get(|| async { StatusCode::UNAUTHORIZED });
    let router = sidecar::files::router(folder.path().to_owned()).route("/secret.gguf", secret);
    let base = format!("http://{}", serve(router).await);
    let wrong = "0".repeat(64);
    for (url, sha256, reason) in [
        (format!("{base}/tiny.gguf"), Some(&wrong), Reason::DigestMismatch),
        (format!("{base}/short.gguf"), None, Reason::ModelTruncated),
        (format!("{base}/text.gguf"), Some(&wrong), Reason::NotGGUF),
        (format!("{base}/missing.gguf"), None, Reason::SourceNotFound),
        (format!("{base}/secret.gguf"), None, Reason::SourceForbidden),
        ("http://127.0.0.1:9/tiny.gguf".into(), None, Reason::SourceUnreachable),
        ("http://no-such-host.invalid/tiny.gguf".into(), None, Reason::SourceUnreachable),
        ("http://169.254.169.254/latest/tiny.gguf".into(), None, Reason::SourceForbidden),
    ] {
        let (_volume, output) = volume();
        let flags: Vec<&str> = match sha256 {
            Some(sha256) => vec!["--url", &url, "--sha256", sha256],
            None => vec!["--url", &url],
        };
        let failure = fetch_to(&output, &flags).await.expect_err(&url);
        assert_eq!(failure.reason, reason, "{url}: {}", failure.message);
        assert!(!output.exists(), "nothing bad is published");
    }
    let (_volume, output) = volume();
    assert!(fetch_to(&output, &["--url", &format!("{base}/empty.gguf")]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_asked_in_the_hubs_way() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hub = {
        let seen = seen.clone();
        move |request: Request| {
            let authorization = request.headers().get(header::AUTHORIZATION).cloned();
            seen.lock().unwrap().push((request.uri().path().to_owned(), authorization));
            async { content() }
        }
    };
    let endpoint = format!("http://{}", serve(Router::new().fallback(hub)).await);
    let (_folder, output) = volume();
    let flags = [
        "--repository",
        "me/models",
        "--revision",
        "v1",
        "--file",
        "q8/tiny.gguf",
        "--endpoint",
        &endpoint,
        "--token",
        "t",
    ];
    fetch_to(&output, &flags).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].0, "/me/models/resolve/v1/q8/tiny.gguf");
    assert_eq!(seen[0].1.as_ref().unwrap(), "Bearer t");
}

/// A server that breaks off now and then, and what it was asked.
#[derive(Clone)]
struct Flaky {
    content: Arc<Vec<u8>>,
    /// Bytes sent before it breaks off, by request; the last one holds for all further.
    cuts: Arc<Vec<usize>>,
    etags: Arc<Vec<&'static str>>,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Flaky {
    fn new(cuts: Vec<usize>, etags: Vec<&'static str>) -> Self {
        Self {
            content: Arc::new(content()),
            cuts: Arc::new(cuts),
            etags: Arc::new(etags),
            asked: Arc::default(),
        }
    }

    async fn start(&self) -> String {
        let router = self.router();
        format!("http://{}/tiny.gguf", serve(router).await)
    }

    fn router(&self) -> Router {
        let answer = async |State(flaky): State<Flaky>, headers: HeaderMap| flaky.answer(&headers);
        Router::new().fallback(answer).with_state(self.clone())
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(headers.clone());
            asked.len() - 1
        };
        let of = |list: &[usize]| list[number.min(list.len() - 1)];
        let etag = self.etags[number.min(self.etags.len() - 1)];
        let whole = self.content.len();
        let range =
            headers.get(header::RANGE).and_then(|range| range.to_str().unwrap().strip_prefix("bytes="));
        let is_same = headers.get(header::IF_RANGE).is_some_and(|if_range| if_range == etag);
        let from = range.and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok()).filter(|_| is_same);
        let rest = self.content[from.unwrap_or(0)..].to_vec();
        let cut = of(&self.cuts).min(rest.len());
        let is_cut = cut < rest.len();
        let length = rest.len();
        let pieces = pieces(&rest[..cut], is_cut);
        let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        response.headers_mut().insert(header::ETAG, etag.parse().unwrap());
        if let Some(from) = from {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {from}-{}/{whole}", whole - 1);
            response.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
        }
        response
    }
}

/// The bytes in pieces, and then perhaps a broken connection.
fn pieces(bytes: &[u8], is_cut: bool) -> Vec<std::io::Result<Vec<u8>>> {
    let pieces = bytes.chunks(64 << 10).map(|piece| Ok(piece.to_vec()));
    pieces.chain(is_cut.then(|| Err(std::io::Error::other("cut")))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_where_it_was() {
    let flaky = Flaky::new(vec![1_000_000, 500_000, usize::MAX], vec!["\"v1\""]);
    let (_folder, output) = volume();
    fetch_to(&output, &["--url", &flaky.start().await, "--sha256", &sha256()]).await.unwrap();
    let asked = flaky.asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    let starts: Vec<_> = asked[1..].iter().map(|headers| headers[header::RANGE].to_str().unwrap()).collect();
    let start_of =
        |range: &str| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap();
    assert!(start_of(starts[0]) > 0 && start_of(starts[1]) > start_of(starts[0]), "{starts:?}");
    assert!(asked[1..].iter().all(|headers| headers[header::IF_RANGE] == "\"v1\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_container_goes_on_where_the_last_one_was() {
    let (_folder, output) = volume();
    let flaky = Flaky::new(vec![1_000_000, 0, 0, 0, 0, 0, 0, 0], vec!["\"v1\""]);
    let address = flaky.start().await;
    let failure = fetch_to(&output, &["--url", &address]).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SourceUnreachable);
    let left = std::fs::metadata(output.with_file_name("tiny.gguf.part")).unwrap().len();
    assert!(left > 0);

    let address: reqwest::Url = address.parse().unwrap();
    let flaky = Flaky::new(vec![usize::MAX], vec!["\"v1\""]);
    let router = flaky.router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let again = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    // The same source at its new address: what is known about the partial file names the old one.
    let note = output.with_file_name("tiny.gguf.part.json");
    let text = std::fs::read_to_string(&note).unwrap();
    let again = format!("127.0.0.1:{}", again.port());
    std::fs::write(&note, text.replace(&format!("127.0.0.1:{}", address.port().unwrap()), &again)).unwrap();
    fetch_to(&output, &["--url", &format!("http://{again}/tiny.gguf"), "--sha256", &sha256()]).await.unwrap();
    let asked = flaky.asked.lock().unwrap();
    assert_eq!(asked[0][header::RANGE], format!("bytes={left}-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_meanwhile_is_fetched_from_its_beginning() {
    let flaky = Flaky::new(vec![1_000_000, usize::MAX], vec!["\"v1\"", "\"v2\""]);
    let (_folder, output) = volume();
    fetch_to(&output, &["--url", &flaky.start().await, "--sha256", &sha256()]).await.unwrap();
    assert_eq!(flaky.asked.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_stays_with_its_host_and_redirects_are_looked_at() {
    let elsewhere = Flaky::new(vec![usize::MAX], vec!["\"v1\""]);
    let target = elsewhere.start().await;
    let router = Router::new()
        .route("/away", get(move || async move { Redirect::temporary(&target) }))
        .route("/metadata", get(|| async { Redirect::temporary("http://169.254.169.254/x.gguf") }))
        .route("/round", get(|| async { Redirect::temporary("/round").into_response() }));
    let base = format!("http://{}", serve(router).await);
    let (_folder, output) = volume();
    fetch_to(&output, &["--url", &format!("{base}/away"), "--token", "secret"]).await.unwrap();
    assert!(!elsewhere.asked.lock().unwrap()[0].contains_key(header::AUTHORIZATION));

    for (path, reason) in [("metadata", Reason::SourceForbidden), ("round", Reason::SourceUnreachable)] {
        let (_folder, output) = volume();
        let failure = fetch_to(&output, &["--url", &format!("{base}/{path}")]).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_on_one_volume_fetch_once() {
    let server = Flaky::new(vec![usize::MAX], vec!["\"v1\""]);
    let url = server.start().await;
    let (_folder, output) = volume();
    let digest = sha256();
    let flags = ["--url", url.as_str(), "--sha256", digest.as_str()];
    let (first, second) = tokio::join!(fetch_to(&output, &flags), fetch_to(&output, &flags));
    first.unwrap();
    second.unwrap();
    assert_eq!(server.asked.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_leaves_its_reason_behind() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let status = tokio::process::Command::new(env!("CARGO_BIN_EXE_inferno-sidecar"))
        .args(["fetch", "--url", "http://127.0.0.1:9/x.gguf", "--retry-seconds", "0", "--output"])
        .arg(folder.path().join("x.gguf"))
        .env("INFERNO_TERMINATION_LOG", &log)
        .stderr(std::process::Stdio::null())
        .status();
    assert_eq!(status.await.unwrap().code(), Some(1));
    let failure: Failure = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    assert_eq!(failure.reason, Reason::SourceUnreachable);
}
