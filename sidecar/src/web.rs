//! HTTP clients as this process makes them: one TLS provider, the system's roots and the public ones.

use reqwest::{Certificate, ClientBuilder};

/// Installs the TLS provider; the first call counts.
pub fn install_tls() {
    // An error says that one is installed already, which is what we want.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// The beginning of every client. An image without a certificate store still knows the public roots.
pub fn client() -> ClientBuilder {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    let roots = roots.iter().filter_map(|root| Certificate::from_der(root).ok());
    ClientBuilder::new()
        .user_agent(concat!("inferno-sidecar/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_merge(roots)
}
