//! The models that the test bed serves from inside the cluster, as the source of a spec.

use serde_json::{Value, json};

use crate::release::{SYSTEM_NAMESPACE, repository};

/// The demo model.
pub fn demo_model() -> Value {
    source("tiny.gguf")
}

/// The demo model with three times as many blocks, of which the added ones change nothing: it gives the same answers,
/// and each token costs more than twice as much. Same architecture, tokenizer and vocabulary.
pub fn larger_demo_model() -> Value {
    source("larger.gguf")
}

/// The demo model with a fact that contradicts its others: the file is whole, and llama.cpp aborts while it loads it.
pub fn aborting_demo_model() -> Value {
    source("aborting.gguf")
}

/// The digest that is committed for a model.
pub fn digest(file: &str) -> String {
    let path = repository().join("examples/model").join(format!("{file}.sha256"));
    let text = std::fs::read_to_string(&path).expect("each model has its digest beside it");
    text.split_whitespace().next().expect("the digest comes first").to_owned()
}

fn source(file: &str) -> Value {
    let url = format!("http://inferno-demo-model.{SYSTEM_NAMESPACE}.svc/{file}");
    json!({"http": {"url": url}, "sha256": digest(file)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_are_three() {
        let sources = [demo_model(), larger_demo_model(), aborting_demo_model()];
        let digests: std::collections::BTreeSet<_> =
            sources.iter().map(|source| source["sha256"].as_str()).collect();
        assert_eq!(digests.len(), 3);
        for source in &sources {
            assert_eq!(source["sha256"].as_str().map(str::len), Some(64));
        }
    }
}
