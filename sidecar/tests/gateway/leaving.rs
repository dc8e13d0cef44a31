//! SIGTERM, as the kubelet sends it to the program.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

use crate::harness::{Line, Pod, chat, soon, tiny, view};

struct Program {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    address: String,
    admin_address: String,
    view: tempfile::NamedTempFile,
}

impl Program {
    async fn serving(view: &sidecar::gateway::view::View) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), serde_json::to_vec(view).unwrap()).unwrap();
        let path = file.path().display().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_inferno-gateway"))
            .args(["--view-file", &path, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--endpoint-propagation-seconds", "1", "--drain-seconds", "100"])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = wait_for_line(&mut log, "listening").await;
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        Self { address: text("address"), admin_address: text("admin_address"), child, log, view: file }
    }

    async fn connect(&self) -> Line {
        Line::new(TcpStream::connect(&self.address).await.unwrap())
    }

    async fn readiness(&self) -> u16 {
        let mut line = Line::new(TcpStream::connect(&self.admin_address).await.unwrap());
        line.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        line.reply().await.status
    }

    async fn terminate(&mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(pid).status().await.unwrap().success());
        wait_for_line(&mut self.log, "draining").await;
    }
}

async fn wait_for_line(log: &mut Lines<BufReader<ChildStderr>>, message: &str) -> Value {
    soon(message, async {
        loop {
            let line = log.next_line().await.unwrap().expect("the program still writes");
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == message {
                return line;
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_runs_finishes_and_newcomers_are_served_to_the_end() {
    let mut pod = Pod::new().await;
    let mut program = Program::serving(&view([tiny(&[&pod])])).await;
    assert_eq!(program.readiness().await, 200);
    let idle = program.connect().await;
    let mut running = program.connect().await;
    running.post("/v1/chat/completions", "", &chat(json!({"stream": true}))).await;
    let mut asked = pod.asked().await;
    asked.streams().await;
    asked.chunk("data: {}\n\n").await;
    running.read_to("data: {}").await;

    program.terminate().await;
    assert_eq!(program.readiness().await, 503);
    for mut line in [program.connect().await, idle] {
        line.post("/v1/chat/completions", "", &chat(json!({}))).await;
        pod.asked().await.answer(200, "\"ok\"").await;
        let reply = line.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    }
    asked.done().await;
    running.read_to("data: [DONE]").await;
    let status = soon("the program to end", program.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_view_in_a_file_acts_when_it_changes_and_stays_when_it_is_spoilt() {
    let (pod, address) = Pod::echo().await;
    let mut program = Program::serving(&view([])).await;
    let mut line = program.connect().await;
    line.post("/v1/chat/completions", "", &chat(json!({}))).await;
    assert_eq!(line.reply().await.status, 404);
    let known = serde_json::to_vec(&view([tiny(&[&pod])])).unwrap();
    let path = program.view.path().to_owned();
    std::fs::write(&path, known).unwrap();
    let mut asks = async || {
        line.post("/v1/chat/completions", "", &chat(json!({}))).await;
        line.reply().await
    };
    soon("the view to be read", async { while asks().await.status != 200 {} }).await;
    std::fs::write(&path, "spoilt").unwrap();
    wait_for_line(&mut program.log, "the last good view stays").await;
    assert_eq!(asks().await.json()["pod"], address.to_string());
}
