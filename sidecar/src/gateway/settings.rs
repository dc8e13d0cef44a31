//! The command line of a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// The front door of a pool: one address for all its models.
#[derive(Debug, Clone, Parser)]
#[command(name = "inferno-gateway", version)]
pub struct Settings {
    /// Name of the InferencePool that is served.
    #[arg(long, env = "INFERNO_POOL", required_unless_present = "view_file", conflicts_with = "view_file")]
    pub pool: Option<String>,
    /// The pool's namespace; default: that of the kubeconfig.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Serve what this JSON file says instead of what a cluster says; it is read again when it changes.
    #[arg(long, env = "INFERNO_VIEW_FILE")]
    pub view_file: Option<PathBuf>,
    /// Where clients are listened to.
    #[arg(long, env = "INFERNO_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where /metrics, /healthz, /readyz and /view are.
    #[arg(long, env = "INFERNO_ADMIN_LISTEN", default_value = "0.0.0.0:8081")]
    pub admin_listen: SocketAddr,
    /// The operator's intake for reports; none outside a cluster.
    #[arg(long, env = "INFERNO_REPORT_URL")]
    pub report_url: Option<reqwest::Url>,
    /// Threads that serve; 0 is as many as there are processors.
    #[arg(long, env = "INFERNO_THREADS", default_value_t = 0)]
    pub threads: usize,
    /// How long requests are served as ever after SIGTERM, until nobody is sent here any more.
    #[arg(long, env = "INFERNO_ENDPOINT_PROPAGATION_SECONDS", default_value_t = 5)]
    pub endpoint_propagation_seconds: u32,
    /// How long requests may take to end after SIGTERM.
    #[arg(long, env = "INFERNO_DRAIN_SECONDS", default_value_t = 320)]
    pub drain_seconds: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Settings, clap::Error> {
        Settings::try_parse_from([&["inferno-gateway"], line].concat())
    }

    #[test]
    fn serves_either_a_pool_or_a_file() {
        assert_eq!(parse(&["--pool", "cpu"]).unwrap().pool.as_deref(), Some("cpu"));
        assert!(parse(&["--view-file", "view.json"]).is_ok());
        assert!(parse(&[]).is_err() && parse(&["--pool", "cpu", "--view-file", "view.json"]).is_err());
    }
}
