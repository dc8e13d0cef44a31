//! Which addresses may be asked. A model's source is named by a user of the cluster, and the pod that asks stands
//! inside it: addresses at which clouds give out credentials are refused, whatever name leads to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The name leads to addresses that may not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{host}' leads to {address}, an address that models may not be fetched from")]
pub struct Forbidden {
    host: String,
    address: IpAddr,
}

/// Whether this address may be asked.
pub fn is_allowed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_allowed_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(inner) => is_allowed_v4(inner),
            None => is_allowed_v6(address),
        },
    }
}

fn is_allowed_v4(address: Ipv4Addr) -> bool {
    // The metadata service of one cloud lies in the shared address space instead of the link-local one.
    const SHARED_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    let is_odd = address.is_link_local() || address.is_multicast() || address.is_broadcast();
    !is_odd && !address.is_unspecified() && address != SHARED_METADATA
}

fn is_allowed_v6(address: Ipv6Addr) -> bool {
    // The metadata service of another cloud lies in the unique local space.
    const LOCAL_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
    let is_odd = address.is_unicast_link_local() || address.is_multicast() || address.is_unspecified();
    !is_odd && address != LOCAL_METADATA
}

/// An address written as a number does not meet the resolver, so it is looked at before.
pub fn check_literal(url: &Url) -> Result<(), Forbidden> {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if !is_allowed(address) => Err(Forbidden { host: host.to_owned(), address }),
        _ => Ok(()),
    }
}

/// The system's resolver, without forbidden answers. The connection goes to the very addresses that were looked at.
pub struct Guarded;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let forbidden = found.iter().map(SocketAddr::ip).find(|address| !is_allowed(*address));
            if let Some(address) = forbidden {
                return Err(Forbidden { host, address }.into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// The refusal inside a failed request, if that is why it failed.
pub fn refusal_in(error: &reqwest::Error) -> Option<Forbidden> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(forbidden) = error.downcast_ref::<Forbidden>() {
            return Some(forbidden.clone());
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_refused_in_every_spelling() {
        for host in [
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "100.100.100.200",
            "0.0.0.0",
            "2852039166",
            "0xa9fea9fe",
        ] {
            let url = Url::parse(&format!("http://{host}/latest/meta-data")).unwrap();
            assert!(check_literal(&url).is_err(), "{host}");
        }
    }

    #[test]
    fn ordinary_addresses_are_allowed() {
        for host in ["10.0.0.5", "192.168.1.1", "93.184.216.34", "[2606:2800::1]", "127.0.0.1", "hub.example"]
        {
            let url = Url::parse(&format!("http://{host}/m.gguf")).unwrap();
            assert!(check_literal(&url).is_ok(), "{host}");
        }
    }
}
