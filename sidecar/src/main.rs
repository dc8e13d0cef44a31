//! The sidecar's program: parse, build, join.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sidecar::{fetch, files, logs, serve, web};

/// The data plane of Inferno.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a model.
    Serve(Box<serve::Options>),
    /// Fetch a model.
    Fetch(Box<fetch::Options>),
    /// Serve files.
    Files(files::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    logs::install();
    web::install_tls();
    let result = match Arguments::parse().command {
        Command::Serve(options) => serve::run(*options).await,
        Command::Fetch(options) => fetch::run(*options).await,
        Command::Files(options) => files::run(options).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}
