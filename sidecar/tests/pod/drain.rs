//! SIGTERM, as the kubelet sends it to the program.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::harness::{PATIENCE, Received, TestClient, endless, serve_line, until};

struct Program {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    client: TestClient,
}

impl Program {
    async fn ready(flags: &[&str]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_inferno-sidecar"))
            .args(serve_line(flags))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = wait_for_line(&mut log, "listening").await;
        let client = TestClient::new(format!("http://{}", line["address"].as_str().unwrap()));
        client.becomes_ready().await;
        Program { child, log, client }
    }

    async fn terminate(&mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(pid).status().await.unwrap().success());
        wait_for_line(&mut self.log, "draining").await;
    }

    async fn exit_code(mut self) -> Option<i32> {
        // Its log is read, so that it can write.
        let (status, ()) = tokio::join!(timeout(PATIENCE, self.child.wait()), async {
            while let Ok(Some(_)) = self.log.next_line().await {}
        });
        status.expect("it ends").unwrap().code()
    }
}

async fn wait_for_line(log: &mut Lines<BufReader<ChildStderr>>, message: &str) -> Value {
    let found = async {
        loop {
            let line = log.next_line().await.unwrap().expect("the program still writes");
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == message {
                return line;
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no line says {message}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_finishes_and_newcomers_are_turned_away_after_a_while() {
    let flags = ["--context-length", "8192", "--endpoint-propagation-seconds", "1", "--drain-seconds", "100"];
    let mut program = Program::ready(&flags).await;
    let client = program.client.clone();
    let running = client.stream(endless()).await;
    program.terminate().await;

    let ready = client.get("/readyz").send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let late = client.chat(json!({"max_tokens": 1})).send().await.unwrap();
    assert_eq!((late.status().as_u16(), &late.headers()["connection"]), (200, &"close".parse().unwrap()));

    let reading = tokio::spawn(Received::read(running));
    until("newcomers are turned away", async || {
        let Ok(response) = client.chat(json!({"max_tokens": 1})).send().await else { return false };
        response.status() == 503 && response.headers().contains_key("retry-after")
    })
    .await;
    let received = reading.await.unwrap();
    assert!(received.is_clean && received.is_done);
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_ends_with_an_error_and_a_cut() {
    let flags = [
        "--context-length",
        "32768",
        "--parallel-slots",
        "1",
        "--endpoint-propagation-seconds",
        "0",
        "--drain-seconds",
        "1",
    ];
    let mut program = Program::ready(&flags).await;
    let running = program.client.stream(endless()).await;
    program.terminate().await;
    let received = Received::read(running).await;
    assert_eq!(received.error()["code"], "draining");
    assert!(!received.is_clean && !received.is_done);
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_model_is_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let (model, log) = (folder.path().join("model.gguf"), folder.path().join("log"));
    std::fs::write(&model, "<html>not a model</html>").unwrap();
    let mut line = serve_line(&[]);
    line[2] = model.display().to_string();
    let status = Command::new(env!("CARGO_BIN_EXE_inferno-sidecar"))
        .args(line)
        .env("INFERNO_TERMINATION_LOG", &log)
        .stderr(Stdio::null())
        .status();
    assert_eq!(timeout(PATIENCE, status).await.unwrap().unwrap().code(), Some(1));
    let failure: Value = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    assert_eq!(failure["reason"], "NotGGUF", "{failure}");
}
