//! The README is a promise: every command in it is run here, in its order.

use std::process::Command;

use tests::release::{install, install_now, repository};

use crate::scene::Turn;

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let _turn = Turn::alone();
    install();
    let blocks = shell_blocks(&std::fs::read_to_string(repository().join("README.md")).unwrap());
    let (make, cluster): (Vec<&String>, Vec<&String>) =
        blocks.iter().partition(|block| block.starts_with("make "));
    check_make(&make);
    assert!(cluster.len() >= 5, "{blocks:?}");

    let mut script = String::from("set -euxo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    script.extend(cluster.into_iter().map(String::as_str));
    let image =
        std::env::var("INFERNO_TEST_SIDECAR_IMAGE").unwrap_or("registry.test/inferno-sidecar:dev".into());
    let registry = image.rsplit_once('/').expect("an image has a registry").0;
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(repository())
        .env("REGISTRY", registry)
        .output()
        .unwrap();
    let printed =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // The README ends with the removal; the tests after this one want the product back.
    install_now();
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("data: [DONE]"), "curl saw the stream's end:\n{printed}");
}

/// `make` targets are run by `tests/all` itself, around these tests; here they only must exist.
fn check_make(blocks: &[&String]) {
    let makefile = std::fs::read_to_string(repository().join("Makefile")).unwrap();
    for line in blocks.iter().flat_map(|block| block.lines()) {
        let target = line.trim_start_matches("make ").split(' ').next().unwrap();
        assert!(makefile.contains(&format!("\n{target}:")), "{line}: no such target");
    }
}

/// The contents of all blocks marked `sh`.
fn shell_blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in markdown.lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}
