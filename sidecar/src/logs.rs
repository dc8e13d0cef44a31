//! What a process says about itself: one JSON object per line, on standard error.

use tracing_subscriber::EnvFilter;

/// Begins to log what `INFERNO_LOG` asks for, and without it everything from `info` on.
pub fn install() {
    let filter = EnvFilter::try_from_env("INFERNO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
