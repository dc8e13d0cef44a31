//! The child process: parse the command line, serve the socket on standard input.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use engine::{FlashAttention, KvCacheType, worker};

/// Runs a GGUF model for the process that started this one, over the socket on standard input.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The GGUF file (the first part of a split model).
    #[arg(long)]
    model: PathBuf,
    /// Tokens of context for each slot; 0 is the length that the model was trained with.
    #[arg(long, default_value_t = 0)]
    context_length: u32,
    /// Sequences decoded side by side.
    #[arg(long, default_value_t = 4)]
    parallel_slots: u32,
    /// Layers to offload, or `all`.
    #[arg(long, default_value = "0", value_parser = gpu_layers)]
    gpu_layers: u32,
    /// `auto`, `on` or `off`.
    #[arg(long, default_value = "auto", value_parser = flash_attention)]
    flash_attention: FlashAttention,
    /// `f16`, `q8_0` or `q4_0`.
    #[arg(long, default_value = "f16", value_parser = kv_cache_type)]
    kv_cache_type: KvCacheType,
    /// Threads; 0 is as many as the process may use.
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Tokens of one batch.
    #[arg(long, default_value_t = 512)]
    batch_tokens: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    worker::run(&worker::Options {
        model: arguments.model,
        context_length: arguments.context_length,
        parallel_slots: arguments.parallel_slots,
        gpu_layers: arguments.gpu_layers,
        flash_attention: arguments.flash_attention,
        kv_cache_type: arguments.kv_cache_type,
        threads: arguments.threads,
        batch_tokens: arguments.batch_tokens,
    })
}

fn gpu_layers(text: &str) -> Result<u32, String> {
    if text == "all" { Ok(u32::MAX) } else { text.parse().map_err(|_| "a number or `all`".to_owned()) }
}

fn flash_attention(text: &str) -> Result<FlashAttention, String> {
    match text {
        "auto" => Ok(FlashAttention::Auto),
        "on" => Ok(FlashAttention::On),
        "off" => Ok(FlashAttention::Off),
        _ => Err("one of auto, on, off".to_owned()),
    }
}

fn kv_cache_type(text: &str) -> Result<KvCacheType, String> {
    match text {
        "f16" => Ok(KvCacheType::F16),
        "q8_0" => Ok(KvCacheType::Q8_0),
        "q4_0" => Ok(KvCacheType::Q4_0),
        _ => Err("one of f16, q8_0, q4_0".to_owned()),
    }
}
