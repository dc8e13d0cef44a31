//! The simulator of the two judgements; `simulate --help` says what it can do.
#![forbid(unsafe_code)]

use clap::Parser as _;
use tests::simulator::cli::Cli;

fn main() -> anyhow::Result<()> {
    Cli::parse().run()
}
