//! A plain file server with ranges: the source of the demo model, and of tests.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tower_http::services::ServeDir;

/// `inferno-sidecar files`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The folder to serve.
    #[arg(long, env = "INFERNO_DIRECTORY")]
    pub directory: PathBuf,
    /// Where to listen.
    #[arg(long, env = "INFERNO_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// The server's only route.
pub fn router(directory: PathBuf) -> Router {
    Router::new().fallback_service(ServeDir::new(directory).append_index_html_on_directories(false))
}

/// Serves until the process is told to end.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen).await.context("the listen address cannot be used")?;
    tracing::info!(directory = %options.directory.display(), listen = %options.listen, "serving files");
    let end = crate::serve::told_to_end()?;
    // Downloads resume elsewhere by range; waiting for them would only delay the pod's end.
    tokio::select! {
        served = async { axum::serve(listener, router(options.directory)).await } => served.context("the file server ended"),
        () = end => Ok(()),
    }
}
