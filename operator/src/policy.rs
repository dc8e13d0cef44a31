//! Whether a pool's policy allows a model's source. Pure. The pods are what fetches: this only refuses early what
//! the pool's owner does not want.

use crds::model::Source;
use crds::pool::{SourcePolicy, SourceScheme};
use url::Url;

use crate::problem::{Problem, Reason};

/// Where Hugging Face-type sources are, unless they say.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Refuses a source that the policy of pool `pool_name` does not allow.
pub fn check_source(source: &Source, policy: Option<&SourcePolicy>, pool_name: &str) -> Result<(), Problem> {
    let Some(policy) = policy else { return Ok(()) };
    let place = Place::of(source)?;
    if !policy.allowed_schemes.is_empty() && !policy.allowed_schemes.contains(&place.scheme) {
        return Err(Problem::new(
            Reason::SourceNotAllowed,
            format!(
                "{} is a source of kind {}, but spec.sourcePolicy.allowedSchemes of pool {pool_name} allows only {}; \
                 use another source or another pool",
                place.field,
                scheme_name(place.scheme),
                policy
                    .allowed_schemes
                    .iter()
                    .map(|scheme| scheme_name(*scheme))
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
        ));
    }
    if !policy.allowed_hosts.is_empty()
        && !policy.allowed_hosts.iter().any(|allowed| covers(allowed, &place.host))
    {
        return Err(Problem::new(
            Reason::SourceNotAllowed,
            format!(
                "{} points at {}, but spec.sourcePolicy.allowedHosts of pool {pool_name} allows only {}; use another \
                 source or another pool",
                place.field,
                place.host,
                policy.allowed_hosts.join(", "),
            ),
        ));
    }
    if policy.require_digest == Some(true) && source.sha256.is_none() {
        return Err(Problem::new(
            Reason::DigestRequired,
            format!(
                "spec.source.sha256 is missing, but spec.sourcePolicy.requireDigest of pool {pool_name} demands it"
            ),
        ));
    }
    Ok(())
}

/// Where a source is, for the policy.
struct Place {
    field: &'static str,
    scheme: SourceScheme,
    host: String,
}

impl Place {
    fn of(source: &Source) -> Result<Self, Problem> {
        let (field, text) = match (&source.http, &source.hugging_face) {
            (Some(http), _) => ("spec.source.http.url", http.url.as_str()),
            (None, Some(hub)) => {
                ("spec.source.huggingFace.endpoint", hub.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT))
            }
            (None, None) => {
                return Err(Problem::new(
                    Reason::SourceNotAllowed,
                    "spec.source: exactly one of http and huggingFace must be set",
                ));
            }
        };
        let refuse = |what: &str| Problem::new(Reason::SourceNotAllowed, format!("{field} {what}"));
        let url = Url::parse(text).map_err(|error| refuse(&format!("is not a URL: {error}")))?;
        // The parser has normalised the host: lower case, IDNA in ASCII, no odd spellings of IPv4 addresses.
        let host = url.host_str().ok_or_else(|| refuse("names no host"))?;
        let host = host.strip_suffix('.').unwrap_or(host).to_owned();
        let scheme = match (source.http.is_some(), url.scheme()) {
            (true, "http") => SourceScheme::Http,
            (true, "https") => SourceScheme::Https,
            (true, _) => return Err(refuse("must begin with http:// or https://")),
            (false, _) => SourceScheme::HuggingFace,
        };
        Ok(Self { field, scheme, host })
    }
}

fn covers(allowed: &str, host: &str) -> bool {
    match allowed.strip_prefix("*.") {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => allowed == host,
    }
}

fn scheme_name(scheme: SourceScheme) -> &'static str {
    match scheme {
        SourceScheme::Http => "HTTP",
        SourceScheme::Https => "HTTPS",
        SourceScheme::HuggingFace => "HuggingFace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, policy: &str, expected: Result<(), (Reason, &str)>) {
        let source: Source = serde_json::from_str(source).unwrap();
        let policy: SourcePolicy = serde_json::from_str(policy).unwrap();
        match (check_source(&source, Some(&policy), "cpu"), expected) {
            (Ok(()), Ok(())) => {}
            (Err(problem), Err((reason, part))) => {
                assert_eq!(problem.reason, reason);
                assert!(problem.message.contains(part), "{} lacks {part}", problem.message);
            }
            (found, expected) => panic!("found {found:?}, expected {expected:?}"),
        }
    }

    const FILE: &str = r#"{"http": {"url": "http://models.default.svc/tiny.gguf"}}"#;
    const HUB: &str = r#"{"huggingFace": {"repository": "a/b", "files": ["c.gguf"]}}"#;

    #[test]
    fn an_empty_policy_allows_everything() {
        check(FILE, "{}", Ok(()));
        check(HUB, "{}", Ok(()));
    }

    #[test]
    fn schemes_are_matched() {
        check(FILE, r#"{"allowedSchemes": ["HTTP"]}"#, Ok(()));
        check(
            FILE,
            r#"{"allowedSchemes": ["HTTPS", "HuggingFace"]}"#,
            Err((Reason::SourceNotAllowed, "HTTPS, HuggingFace")),
        );
        check(HUB, r#"{"allowedSchemes": ["HuggingFace"]}"#, Ok(()));
    }

    #[test]
    fn hosts_are_matched_whole_or_below_a_star() {
        check(FILE, r#"{"allowedHosts": ["models.default.svc"]}"#, Ok(()));
        check(FILE, r#"{"allowedHosts": ["*.default.svc"]}"#, Ok(()));
        check(
            FILE,
            r#"{"allowedHosts": ["default.svc"]}"#,
            Err((Reason::SourceNotAllowed, "models.default.svc")),
        );
        check(
            FILE,
            r#"{"allowedHosts": ["*.models.default.svc"]}"#,
            Err((Reason::SourceNotAllowed, "spec.source.http.url")),
        );
        check(HUB, r#"{"allowedHosts": ["huggingface.co"]}"#, Ok(()));
        check(
            HUB,
            r#"{"allowedHosts": ["hub.internal"]}"#,
            Err((Reason::SourceNotAllowed, "huggingface.co")),
        );
    }

    #[test]
    fn odd_spellings_of_a_host_are_normalised_first() {
        let policy = r#"{"allowedHosts": ["models.default.svc"]}"#;
        check(r#"{"http": {"url": "HTTP://MODELS.default.svc.:80/x.gguf"}}"#, policy, Ok(()));
        check(r#"{"http": {"url": "http://models.default.svc\\@evil.test/x"}}"#, policy, Ok(()));
        check(
            r#"{"http": {"url": "http://0x7f.1/models.default.svc"}}"#,
            policy,
            Err((Reason::SourceNotAllowed, "127.0.0.1")),
        );
        check(
            r#"{"http": {"url": "http://evilmodels.default.svc/"}}"#,
            r#"{"allowedHosts": ["*.models.default.svc"]}"#,
            Err((Reason::SourceNotAllowed, "evil")),
        );
    }

    #[test]
    fn a_digest_can_be_demanded() {
        check(FILE, r#"{"requireDigest": true}"#, Err((Reason::DigestRequired, "spec.source.sha256")));
        check(FILE, r#"{"requireDigest": false}"#, Ok(()));
        let with_digest = format!(r#"{{"http": {{"url": "http://a/b"}}, "sha256": "{}"}}"#, "a".repeat(64));
        check(&with_digest, r#"{"requireDigest": true}"#, Ok(()));
    }
}
