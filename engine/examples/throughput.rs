//! Speed of the worker with one model, in tokens per second, to be put beside `llama-bench -p 512 -n 128`:
//! `cargo run -p inferno-engine --example throughput -- MODEL [THREADS]`. Times include the way through the socket.

use std::time::Instant;

use anyhow::{Context, bail};
use engine::{
    Engine, EngineConfig, EngineState, Event, FlashAttention, Generation, KvCacheType, Running, Sampling,
    Token,
};

const PROMPT_TOKENS: u32 = 512;
const OUTPUT_TOKENS: u32 = 128;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().context("usage: throughput MODEL [THREADS]")?;
    let threads = arguments.next().map_or(Ok(0), |threads| threads.parse())?;
    let example = std::env::current_exe()?;
    let folder =
        example.parent().and_then(|folder| folder.parent()).context("examples lie in target/PROFILE")?;
    let engine = Engine::start(EngineConfig {
        binary: folder.join("inferno-engine"),
        model: model.into(),
        context_length: 2048,
        parallel_slots: 8,
        gpu_layers: 0,
        flash_attention: FlashAttention::Auto,
        kv_cache_type: KvCacheType::F16,
        threads,
    });
    let is_settled =
        |state: &EngineState| matches!(state, EngineState::Ready(_) | EngineState::Failed { .. });
    let state = engine.state().wait_for(is_settled).await?.clone();
    let EngineState::Ready(facts) = state else { bail!("{state:?}") };
    println!("{} {} {} parameters", facts.architecture, facts.quantization, facts.parameters);

    let words = engine.tokenize("the river and the hill".into(), false).await?;
    let prompt: Vec<Token> = words.iter().copied().cycle().take(PROMPT_TOKENS as usize).collect();
    for round in 0..5 {
        let began = Instant::now();
        finish(engine.generate(generation(&prompt, 1, round)).await?).await?;
        report("prompt", 1, PROMPT_TOKENS, began);
    }
    for streams in [1, 1, 4, 8] {
        let mut running = Vec::new();
        for _ in 0..streams {
            running.push(engine.generate(generation(&words, OUTPUT_TOKENS, 99)).await?);
        }
        let began = Instant::now();
        for running in running {
            finish(running).await?;
        }
        report("output", streams, OUTPUT_TOKENS * streams, began);
    }
    engine.stop().await;
    Ok(())
}

fn report(what: &str, streams: u32, tokens: u32, began: Instant) {
    println!("{what}, {streams} at once: {:.0} tokens/s", f64::from(tokens) / began.elapsed().as_secs_f64());
}

async fn finish(mut running: Running) -> anyhow::Result<()> {
    while let Some(event) = running.next().await {
        if let Event::Finished { .. } = event? {
            return Ok(());
        }
    }
    bail!("the stream has no end")
}

/// Another key in each round, so that nothing is remembered.
fn generation(prompt: &[Token], max_tokens: u32, cache_key: u64) -> Generation {
    let sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        repeat_penalty: 1.0,
        logit_bias: Vec::new(),
        seed: 0,
    };
    Generation {
        prompt: prompt.to_vec(),
        max_tokens,
        sampling,
        stop: Vec::new(),
        ignore_end: true,
        logprobs: None,
        cache_key,
    }
}
