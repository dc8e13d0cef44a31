//! The gateway's program: parse, build, join.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use sidecar::gateway::{run, settings::Settings};
use sidecar::{logs, web};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    logs::install();
    web::install_tls();
    match run::run(Settings::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}
