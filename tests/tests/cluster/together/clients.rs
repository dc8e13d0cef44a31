//! Clients as they are: the official Python SDK, through the gateway's name.

use std::process::Command;

use tests::release::{base_url, repository};

use crate::scene::{Scene, demo_spec};

#[test]
fn the_official_openai_client_gets_a_plain_and_a_streamed_answer() {
    let scene = Scene::beside_others("python", &demo_spec());
    scene.ready();
    let output = Command::new(repository().join("target/testbed/venv/bin/python"))
        .arg(repository().join("examples/clients/openai_chat.py"))
        .args(["--base-url", &base_url().unwrap(), "--model", "python"])
        .output()
        .unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    let models = printed.lines().find_map(|line| line.strip_prefix("models: ")).unwrap_or_default();
    assert!(models.split(", ").any(|name| name == "python"), "its model is listed: {printed}");
    for line in ["plain:", "streamed:", "finish reason: stop"] {
        assert!(printed.contains(line), "{line:?} is missing in\n{printed}");
    }
}
