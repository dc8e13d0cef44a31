//! Why a model has as many pods as it has, and why its canary is judged as it is: the last judgements with all that they
//! were made from, at `/explain/NAMESPACE/MODEL`; and the command that asks for them, replays them and prints why.
//! They hold counts and times of requests and names of pods, never a word of a request.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::{Args, ValueEnum};
use judgement::explain::Record;

use crate::load::Loads;
use crate::metrics::Metrics;
use crate::trial::Trials;

/// A record is some 100 KiB of JSON, made and read in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Args)]
pub struct Options {
    /// The model, as NAMESPACE/NAME.
    #[arg(required_unless_present = "file", value_parser = model)]
    model: Option<(String, String)>,
    /// The operator to ask: the one that leads.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    operator: reqwest::Url,
    /// Explains what `--output json` has printed earlier, and asks nobody.
    #[arg(long, conflicts_with = "model")]
    file: Option<PathBuf>,
    /// What is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The reasons, for people.
    Text,
    /// The judgements with all that they were made from.
    Json,
}

fn model(text: &str) -> Result<(String, String), &'static str> {
    let parts = text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let (namespace, name) = parts.ok_or("write NAMESPACE/NAME, as in ml/qwen3-8b")?;
    Ok((namespace.to_owned(), name.to_owned()))
}

/// What the judgements are read from.
#[derive(Clone)]
struct Sources {
    loads: Loads,
    trials: Trials,
    metrics: Metrics,
}

/// The endpoint.
pub fn router(loads: Loads, trials: Trials, metrics: Metrics) -> Router {
    Router::new().route("/explain/{namespace}/{model}", get(record)).with_state(Sources {
        loads,
        trials,
        metrics,
    })
}

async fn record(State(sources): State<Sources>, Path(key): Path<(String, String)>) -> Response {
    if sources.metrics.is_leader.get() == 0 {
        let advice = "this operator stands by; ask the one that holds the Lease inferno-operator\n";
        return (StatusCode::SERVICE_UNAVAILABLE, advice).into_response();
    }
    let record = Record { decision: sources.loads.decision(&key), trial: sources.trials.trial(&key) };
    if record == Record::default() {
        let (namespace, name) = key;
        let advice = format!(
            "nothing is judged of model {namespace}/{name}: it has no spec.autoscaling that decides and no canary with \
             traffic, or it is not there\n"
        );
        return (StatusCode::NOT_FOUND, advice).into_response();
    }
    Json(record).into_response()
}

/// Asks, replays and prints.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let text = match (&options.file, &options.model) {
        (Some(file), _) => tokio::fs::read_to_string(file).await.context(file.display().to_string())?,
        (None, Some(model)) => ask(&options.operator, model).await?,
        (None, None) => bail!("name a model as NAMESPACE/NAME, or a file with --file"),
    };
    let record: Record = serde_json::from_str(&text).context("this is no record of judgements")?;
    match options.output {
        Output::Json => println!("{text}"),
        Output::Text => println!("{}", record.explain()?.trim_end()),
    }
    Ok(())
}

async fn ask(operator: &reqwest::Url, (namespace, name): &(String, String)) -> anyhow::Result<String> {
    let url = operator.join(&format!("/explain/{namespace}/{name}"))?;
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    let answer = client.get(url.clone()).send().await.with_context(|| format!("ask {url}"))?;
    let (status, text) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        bail!("{}", text.trim_end());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_with_its_namespace() {
        assert_eq!(model("ml/qwen3"), Ok(("ml".to_owned(), "qwen3".to_owned())));
        for wrong in ["qwen3", "/qwen3", "ml/", ""] {
            assert!(model(wrong).is_err(), "{wrong}");
        }
    }
}
