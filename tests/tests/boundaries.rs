//! The arrows between our crates, as `cargo tree` sees them. A crate boundary is the only wall in this repository
//! that a tired reviewer cannot overlook, so it is a test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of our crates each crate may depend on in what it ships.
const ARROWS: [(&str, &[&str]); 6] = [
    ("inferno-judgement", &[]),
    ("inferno-engine", &[]),
    ("inferno-crds", &[]),
    ("inferno-sidecar", &["inferno-engine", "inferno-crds", "inferno-judgement"]),
    ("inferno-operator", &["inferno-crds", "inferno-judgement"]),
    (
        "tests",
        &["inferno-engine", "inferno-crds", "inferno-sidecar", "inferno-operator", "inferno-judgement"],
    ),
];

/// Names of all packages below `package` in its normal (shipped) dependency tree.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_arrow_between_our_crates_is_a_drawn_one() {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (package, allowed) in ARROWS {
        let turned: Vec<String> = tree(package)
            .into_iter()
            .filter(|name| ours.contains(name.as_str()) && !allowed.contains(&name.as_str()))
            .collect();
        assert!(turned.is_empty(), "{package} must not depend on {turned:?}; ARCHITECTURE.md says why");
    }
}

#[test]
fn llama_cpp_lives_in_the_engine_process_only() {
    for package in ["inferno-sidecar", "inferno-operator", "inferno-crds"] {
        let found: Vec<String> =
            tree(package).into_iter().filter(|name| name.starts_with("llama-cpp")).collect();
        assert!(found.is_empty(), "{package} would link {found:?}: an abort in C++ would end it");
    }
    assert!(tree("inferno-engine").contains("llama-cpp-sys-2"), "the check above looks for the right name");
}

#[test]
fn the_engine_knows_neither_http_nor_kubernetes() {
    let outside = ["axum", "hyper", "reqwest", "kube", "kube-client", "k8s-openapi"];
    let found: Vec<String> =
        tree("inferno-engine").into_iter().filter(|name| outside.contains(&name.as_str())).collect();
    assert!(
        found.is_empty(),
        "the engine speaks frames on a socket and nothing else, but depends on {found:?}"
    );
}

/// Of the sidecar's crate only the gateway's watch knows Kubernetes: routing is tested from a value, and works on when
/// the API server is away because it cannot ask it.
#[test]
fn only_the_gateways_watch_knows_kubernetes() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/src");
    let may_know = source.join("gateway/kubernetes");
    let names = [
        "kube::",
        "k8s_openapi::",
        "crds::InferenceModel",
        "crds::InferencePool",
        "crds::model",
        "crds::pool",
    ];
    let knows = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        names.iter().any(|name| text.contains(name))
    };
    let (inside, outside): (Vec<_>, Vec<_>) =
        rust_files(&source).into_iter().filter(knows).partition(|file| file.starts_with(&may_know));
    assert!(outside.is_empty(), "only {} may know Kubernetes, not {outside:?}", may_know.display());
    assert!(!inside.is_empty(), "the check above looks for the right names");
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let inside = folders.iter().flat_map(|folder| rust_files(folder));
    inside.chain(files.into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "rs"))).collect()
}
