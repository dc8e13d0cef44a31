//! The product as it is installed for the tests: by its own chart, once per run.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::kubectl::{NAMESPACE, apply_anywhere, command};

/// Namespace of the operator.
pub const SYSTEM_NAMESPACE: &str = "inferno-system";

static INSTALLED: OnceLock<()> = OnceLock::new();
static PROXY: OnceLock<Proxy> = OnceLock::new();

/// The receiver of notifications that the installation knows: a webhook on the node itself, where a test may listen.
pub const RECEIVER: &str = "audit";
/// Its port.
pub const RECEIVER_PORT: u16 = 18_080;
/// What its messages are signed with.
pub const SIGNING_KEY: &str = "a key of the tests alone";

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Installs the chart if this run has not done so yet.
pub fn install() {
    INSTALLED.get_or_init(install_now);
}

/// Installs the chart, or brings it back to the tests' settings.
pub fn install_now() {
    install_for(NAMESPACE).expect("the chart installs");
}

/// Installs the chart for an operator that looks after these namespaces; `*` is all of them.
///
/// # Errors
/// It does not install.
pub fn install_for(namespaces: &str) -> Result<()> {
    apply_receiver()?;
    let script = repository().join("tests/install");
    let script = script.to_str().context("the repository's path is UTF-8")?;
    command("env", &[&format!("INFERNO_TEST_NAMESPACES={namespaces}"), script]).map(drop)
}

/// The Secret that the installation mounts. It is there first, or the kubelet would bring it a minute later.
fn apply_receiver() -> Result<()> {
    let path = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    let node = command("kubectl", &["get", "nodes", "--output", path])?;
    let receiver = json!({
        "type": "Webhook", "url": format!("http://{node}:{RECEIVER_PORT}/"), "signingKey": SIGNING_KEY,
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "inferno-receivers", "namespace": SYSTEM_NAMESPACE},
        "stringData": {RECEIVER: receiver.to_string()},
    });
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [namespace, secret]});
    apply_anywhere(&objects.to_string())?;
    Ok(())
}

/// Name of the pool in which the tests create their models.
pub const POOL: &str = "cpu";

/// The OpenAI base URL of the pool: its gateway's own name where names of the cluster resolve (inside the sandbox), and
/// the API server's service proxy on a foreign cluster.
///
/// # Errors
/// The proxy does not start.
pub fn base_url() -> Result<String> {
    if std::env::var_os("INFERNO_TEST_KUBECONFIG").is_none() {
        return Ok(format!("http://{POOL}-gateway.{NAMESPACE}.svc/v1"));
    }
    Ok(format!("{}/api/v1/namespaces/{NAMESPACE}/services/{POOL}-gateway:80/proxy/v1", api_proxy()?))
}

/// `http://…` of the API server, without a slash at its end and without credentials.
///
/// # Errors
/// The proxy does not start.
pub fn api_proxy() -> Result<String> {
    if PROXY.get().is_none() {
        let _ = PROXY.set(Proxy::start()?);
    }
    Ok(format!("http://{}", PROXY.get().context("set above")?.address))
}

/// `kubectl proxy` on a free port; it ends with the test program.
struct Proxy {
    address: String,
    _process: Child,
}

impl Proxy {
    fn start() -> Result<Self> {
        use std::io::{BufRead as _, BufReader};
        let mut process = std::process::Command::new("kubectl")
            .args(["proxy", "--port", "0"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("kubectl proxy")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("piped")?).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().context("kubectl proxy names its address")?.to_owned();
        Ok(Self { address, _process: process })
    }
}
