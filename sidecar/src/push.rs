//! Sends a message to every address of the operator's headless Service, because each replica must know it when it
//! becomes the leader. Losing one only delays: whatever is sent holds sums or the state of now.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Url};
use serde::Serialize;

/// One address gets this long; less than the pace of any sender, so that messages do not pile up behind a dead replica.
pub const SEND_MAX: Duration = Duration::from_millis(1_500);

/// Operators run in a handful of replicas; more addresses than this are a mistake in the Service.
const ADDRESSES_MAX: usize = 16;

/// A way to the operator; clones share its connections.
#[derive(Debug, Clone)]
pub struct Push {
    client: Client,
    url: Url,
}

impl Push {
    /// To `path` at the Service that `url` names.
    pub fn new(url: &Url, path: &str) -> reqwest::Result<Self> {
        let mut url = url.clone();
        url.set_path(path);
        Ok(Self { client: crate::web::client().timeout(SEND_MAX).build()?, url })
    }

    /// Sends to all addresses at once; what fails is only logged.
    pub async fn send<T: Serialize + Sync>(&self, message: &T) {
        let addresses = match tokio::time::timeout(SEND_MAX, resolve(&self.url)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return tracing::debug!(%error, "the operator's address is unknown"),
            Err(_) => return tracing::debug!("the operator's address was not found in time"),
        };
        let sends = addresses.into_iter().take(ADDRESSES_MAX).map(|address| self.send_to(address, message));
        futures::future::join_all(sends).await;
    }

    async fn send_to<T: Serialize + Sync>(&self, address: SocketAddr, message: &T) {
        let mut url = self.url.clone();
        if url.set_ip_host(address.ip()).is_err() {
            return;
        }
        match self.client.post(url).json(message).send().await {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => tracing::debug!(%address, status = %response.status(), "report refused"),
            Err(error) => tracing::debug!(%address, %error, "report not delivered"),
        }
    }
}

async fn resolve(url: &Url) -> std::io::Result<Vec<SocketAddr>> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}
