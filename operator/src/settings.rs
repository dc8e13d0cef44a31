//! The command line of the operator. Everything after it sees only what it means.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use crds::pool::ImagePullPolicy;

use crate::controller::Scope;
use crate::explain;
use crate::objects::Installation;

/// The control plane of Inferno.
#[derive(Debug, Parser)]
#[command(name = "inferno-operator", version)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch pools and models and keep them served.
    Run(Box<Settings>),
    /// Print the custom resource definitions as YAML.
    Crd,
    /// Print why a model has as many pods as it has, and why its canary is judged as it is.
    Explain(explain::Options),
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Image of the serving pods, unless their pool names another.
    #[arg(long, env = "INFERNO_SIDECAR_IMAGE")]
    pub sidecar_image: String,
    /// When the kubelet pulls that image.
    #[arg(long, env = "INFERNO_SIDECAR_PULL_POLICY", value_enum, default_value = "if-not-present")]
    pub sidecar_pull_policy: PullPolicy,
    /// Where pods send their reports; without it they send none and progress is shown without numbers.
    #[arg(long, env = "INFERNO_REPORT_URL")]
    pub report_url: Option<String>,
    /// Namespaces to watch, separated by commas; `*` is all of them. Default: the operator's own.
    #[arg(long, env = "INFERNO_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Address of /metrics, /healthz, /readyz and /explain.
    #[arg(long, env = "INFERNO_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address of the intake for reports.
    #[arg(long, env = "INFERNO_REPORTS_LISTEN", default_value = "0.0.0.0:8090")]
    pub reports_listen: SocketAddr,
    /// Whether a model must give one token before it is Ready.
    #[arg(long, env = "INFERNO_PROBE", value_enum, default_value = "gateway")]
    pub probe: Probe,
    /// Directory with one file per receiver of notifications; without it there are none.
    #[arg(long, env = "INFERNO_RECEIVERS_DIRECTORY")]
    pub receivers_directory: Option<PathBuf>,
    /// Name of the cluster in notifications.
    #[arg(long, env = "INFERNO_CLUSTER_NAME")]
    pub cluster_name: Option<String>,
    /// Name of the Lease that only one operator holds.
    #[arg(long, env = "INFERNO_LEASE_NAME", default_value = "inferno-operator")]
    pub lease_name: String,
    /// The operator's own namespace; default: that of the kubeconfig.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// The operator's own name in the election.
    #[arg(long, env = "POD_NAME", default_value = "inferno-operator")]
    pub name: String,
}

/// When the kubelet pulls an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// At each start.
    #[value(alias = "Always")]
    Always,
    /// When the node does not have it.
    #[value(alias = "IfNotPresent")]
    IfNotPresent,
    /// Never.
    #[value(alias = "Never")]
    Never,
}

/// Whether a model must give one token before it is Ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Yes, through its pool's gateway.
    Gateway,
    /// No; for an operator that runs outside of the cluster's network.
    Off,
}

impl Settings {
    /// What every pod gets.
    pub fn installation(&self) -> Installation {
        Installation {
            sidecar_image: self.sidecar_image.clone(),
            sidecar_pull_policy: match self.sidecar_pull_policy {
                PullPolicy::Always => ImagePullPolicy::Always,
                PullPolicy::IfNotPresent => ImagePullPolicy::IfNotPresent,
                PullPolicy::Never => ImagePullPolicy::Never,
            },
            report_url: self.report_url.clone().filter(|url| !url.is_empty()),
        }
    }

    /// Where the operator looks; its own namespace is always among it.
    pub fn scope(&self, own_namespace: &str) -> Scope {
        let named: BTreeSet<String> = self
            .watch_namespaces
            .iter()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        if named.contains("*") {
            return Scope::Cluster;
        }
        Scope::Namespaces(named.into_iter().chain([own_namespace.to_owned()]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: &Scope) {
        let line = ["inferno-operator", "run", "--sidecar-image", "sidecar:dev"];
        let parsed = CommandLine::try_parse_from(line.iter().chain(arguments)).unwrap();
        let Command::Run(settings) = parsed.command else { panic!("not run") };
        assert_eq!(settings.scope("inferno-system"), *expected);
    }

    fn namespaces(names: &[&str]) -> Scope {
        Scope::Namespaces(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn the_own_namespace_is_always_watched() {
        check(&[], &namespaces(&["inferno-system"]));
        check(&["--watch-namespaces", ""], &namespaces(&["inferno-system"]));
        check(&["--watch-namespaces", "a,b"], &namespaces(&["a", "b", "inferno-system"]));
    }

    #[test]
    fn a_star_is_the_whole_cluster() {
        check(&["--watch-namespaces", "*"], &Scope::Cluster);
    }

    #[test]
    fn pull_policies_are_read_as_kubernetes_writes_them() {
        let line = ["inferno-operator", "run", "--sidecar-image", "s", "--sidecar-pull-policy", "Never"];
        let Command::Run(settings) = CommandLine::try_parse_from(line).unwrap().command else {
            panic!("not run")
        };
        assert_eq!(settings.installation().sidecar_pull_policy, ImagePullPolicy::Never);
    }
}
