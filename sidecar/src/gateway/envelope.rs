//! A request as it goes to pods: what belongs to the connection with the client is taken off, everything else stays
//! byte for byte.

use std::net::{IpAddr, SocketAddr};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Uri, Version};

/// Tells a pod that it is not the first that was asked.
const ATTEMPT: HeaderName = HeaderName::from_static("x-inferno-attempt");
/// Tells a pod that nobody will see the answer.
const MIRROR: HeaderName = HeaderName::from_static("x-inferno-mirror");
/// On whose behalf proxies ask.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// An old way to say `connection`.
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Not in the registry of header names, and yet of the connection.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What is of one connection only, beside what `connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// A request that can be sent several times.
#[derive(Debug, Clone)]
pub struct Envelope {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
    /// What the client wants to speak instead of HTTP.
    upgrade: Option<HeaderValue>,
}

impl Envelope {
    /// From the client's request, which came from `client`. The request's id is among the headers already.
    pub fn new(method: Method, uri: &Uri, mut headers: HeaderMap, body: Bytes, client: IpAddr) -> Self {
        let upgrade = upgrade(&headers).cloned();
        strip(&mut headers);
        // It was for us: the body is here.
        headers.remove(header::EXPECT);
        append_client(&mut headers, client);
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Self { method, path, headers, body, upgrade }
    }

    /// The request for this pod.
    pub fn to(&self, address: SocketAddr, attempt: u32) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        if !headers.contains_key(header::HOST)
            && let Ok(host) = HeaderValue::from_str(&address.to_string())
        {
            headers.insert(header::HOST, host);
        }
        if attempt > 1 {
            headers.insert(ATTEMPT, HeaderValue::from(attempt));
        }
        if let Some(upgrade) = &self.upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, upgrade.clone());
        }
        request
    }

    /// The same as a copy whose answer nobody sees.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let mut copy = self.clone();
        copy.headers.insert(MIRROR, HeaderValue::from_static("1"));
        copy
    }

    /// The same with this body, if there is one, and with its headers as `mark` leaves them.
    #[must_use]
    pub fn changed(&self, body: Option<Vec<u8>>, mark: impl FnOnce(&mut HeaderMap)) -> Self {
        let mut changed = self.clone();
        if let Some(body) = body {
            changed.body = Bytes::from(body);
            // The length is that of the body that is sent.
            changed.headers.remove(header::CONTENT_LENGTH);
        }
        mark(&mut changed.headers);
        changed
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Bytes of the body.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether the client wants to speak something else than HTTP.
    pub fn is_upgrade(&self) -> bool {
        self.upgrade.is_some()
    }
}

/// What the client wants to speak instead of HTTP, if it says so in both places. That is WebSocket; the wish for another
/// version of HTTP is of the connection, and not granted.
pub fn upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let is_meant = connection_names(headers).contains(&header::UPGRADE);
    (is_meant && protocol.as_bytes().eq_ignore_ascii_case(b"websocket")).then_some(protocol)
}

/// Takes off what is of one connection only.
pub fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        for name in connection_names(headers) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn connection_names(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

fn append_client(headers: &mut HeaderMap, client: IpAddr) {
    let client = client.to_canonical().to_string();
    let mut all = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        all.extend_from_slice(value.as_bytes());
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(client.as_bytes());
    if let Ok(all) = HeaderValue::from_maybe_shared(Bytes::from(all)) {
        headers.insert(FORWARDED_FOR, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(headers: &[(&str, &str)]) -> HeaderMap {
        let named = headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        });
        let mut map = HeaderMap::new();
        named.for_each(|(name, value)| {
            map.append(name, value);
        });
        let uri = Uri::from_static("/v1/chat/completions?a=%20b");
        let client = IpAddr::from([10, 0, 0, 7]);
        let envelope = Envelope::new(Method::POST, &uri, map, Bytes::from_static(b"{}"), client);
        let request = envelope.to("[::1]:8080".parse().unwrap(), 2);
        assert_eq!(request.uri(), "/v1/chat/completions?a=%20b");
        request.headers().clone()
    }

    #[test]
    fn what_is_of_the_connection_stays_behind() {
        let headers = sent(&[
            ("connection", "close, X-Only-Here"),
            ("x-only-here", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
            ("x-kept", "a"),
            ("x-kept", "b"),
        ]);
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(headers["host"], "[::1]:8080");
        let kept: Vec<_> = headers.get_all("x-kept").iter().collect();
        assert_eq!(kept, ["a", "b"]);
        assert_eq!(headers["x-inferno-attempt"], "2");
    }

    #[test]
    fn the_client_is_added_to_those_before_it() {
        assert_eq!(sent(&[])["x-forwarded-for"], "10.0.0.7");
        let headers = sent(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "5.6.7.8")]);
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 5.6.7.8, 10.0.0.7");
    }

    #[test]
    fn an_upgrade_that_is_meant_goes_on() {
        let headers = sent(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
    }
}
