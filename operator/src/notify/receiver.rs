//! A receiver as the installation's Secret describes it: one small YAML document per key. What it holds is secret: no
//! message of this file quotes it. Pure.

use std::fmt;

use serde_yaml::{Mapping, Value};
use url::{Host, Url};

/// Where the Events API v2 of `PagerDuty` is; customers in Europe name another.
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Shorter keys can be guessed.
const SIGNING_KEY_CHARS_MIN: usize = 16;

/// Where messages go, and the keys for it.
#[derive(Clone, PartialEq, Eq)]
pub enum Receiver {
    /// An incoming webhook of Slack, or of whoever understands the same.
    Slack {
        /// Its address, which is its key.
        url: Url,
    },
    /// A service of `PagerDuty`.
    PagerDuty {
        /// The Events API v2.
        url: Url,
        /// Which service.
        routing_key: String,
    },
    /// Somebody's own receiver.
    Webhook {
        /// Its address.
        url: Url,
        /// What messages are signed with.
        signing_key: String,
    },
}

/// Types and no values: what is secret must not get into a log.
impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Slack { .. } => "Slack(…)",
            Self::PagerDuty { .. } => "PagerDuty(…)",
            Self::Webhook { .. } => "Webhook(…)",
        })
    }
}

/// Reads a receiver. The error names the field and the cure.
pub fn parse(text: &str) -> Result<Receiver, String> {
    // What the parser says may quote the text.
    let document: Value = serde_yaml::from_str(text).map_err(|_| "it is no YAML document".to_owned())?;
    let Value::Mapping(fields) = document else {
        return Err("it must be a YAML document with the fields type and url".to_owned());
    };
    let (receiver, known) = match field(&fields, "type")?.unwrap_or_default() {
        "Slack" => (Receiver::Slack { url: url(&fields, None, false)? }, &["type", "url"][..]),
        "PagerDuty" => {
            let routing_key = needed(&fields, "routingKey")?.to_owned();
            let url = url(&fields, Some(PAGERDUTY_URL), false)?;
            (Receiver::PagerDuty { url, routing_key }, &["type", "url", "routingKey"][..])
        }
        "Webhook" => {
            let signing_key = signing_key(&fields)?;
            let url = url(&fields, None, true)?;
            (Receiver::Webhook { url, signing_key }, &["type", "url", "signingKey"][..])
        }
        _ => return Err("type must be Slack, PagerDuty or Webhook".to_owned()),
    };
    if fields.keys().any(|key| key.as_str().is_none_or(|key| !known.contains(&key))) {
        return Err(format!("it has a field that its type does not have; there are {}", known.join(", ")));
    }
    Ok(receiver)
}

fn field<'fields>(fields: &'fields Mapping, name: &str) -> Result<Option<&'fields str>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim())),
        Some(_) => Err(format!("{name} must be a string; put it in quotes")),
    }
}

fn needed<'fields>(fields: &'fields Mapping, name: &str) -> Result<&'fields str, String> {
    field(fields, name)?.filter(|text| !text.is_empty()).ok_or_else(|| format!("{name} is missing"))
}

fn signing_key(fields: &Mapping) -> Result<String, String> {
    let key = needed(fields, "signingKey")?;
    if key.chars().count() < SIGNING_KEY_CHARS_MIN {
        return Err(format!(
            "signingKey must have at least {SIGNING_KEY_CHARS_MIN} characters, such as openssl rand -hex 32 prints"
        ));
    }
    Ok(key.to_owned())
}

/// Keys travel to Slack and `PagerDuty`, so the way there is encrypted, unless it does not leave the pod. A webhook gets a
/// signature and no key; inside a cluster plain HTTP is usual.
fn url(fields: &Mapping, default: Option<&str>, may_be_plain: bool) -> Result<Url, String> {
    let text = match (field(fields, "url")?, default) {
        (Some(text), _) => text,
        (None, Some(default)) => default,
        (None, None) => return Err("url is missing".to_owned()),
    };
    let url = Url::parse(text).map_err(|_| "url is no URL".to_owned())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("url must not contain a user or a password".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if may_be_plain || is_loopback(&url) => Ok(url),
        "http" => Err("url must begin with https://, because a key travels there".to_owned()),
        _ => Err("url must begin with https://".to_owned()),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t-s3cr3t-s3cr3t";

    fn check(text: &str, expected: Result<&str, &str>) {
        let found = parse(&text.replace("SECRET", SECRET));
        let shown = format!("{found:?}");
        assert!(!shown.contains(SECRET), "{shown}");
        let found = found.map(|receiver| format!("{receiver:?}"));
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            _ => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn three_kinds_are_known() {
        check("{type: Slack, url: 'https://hooks.slack.com/services/SECRET'}", Ok("Slack(…)"));
        check("{type: PagerDuty, routingKey: SECRET}", Ok("PagerDuty(…)"));
        check(
            "{type: PagerDuty, routingKey: SECRET, url: 'https://events.eu.pagerduty.com/v2/enqueue'}",
            Ok("PagerDuty(…)"),
        );
        check("{type: Webhook, url: 'http://hooks.ops.svc/x', signingKey: SECRET}", Ok("Webhook(…)"));
    }

    #[test]
    fn a_mistake_names_the_field_and_quotes_nothing() {
        check("https://hooks.slack.com/services/SECRET", Err("must be a YAML document"));
        check("type: [SECRET", Err("no YAML"));
        check("{type: SECRET}", Err("Slack, PagerDuty or Webhook"));
        check("{type: Slack, url: 'https://user:SECRET@a/b'}", Err("a user or a password"));
        check("{type: Slack, url: 'SECRET'}", Err("url is no URL"));
        check("{type: Slack, url: 'http://hooks.slack.com/SECRET'}", Err("https://"));
        check("{type: Slack, url: 'https://a', SECRET: b}", Err("there are type, url"));
        check("{type: PagerDuty, url: 'https://a/SECRET'}", Err("routingKey is missing"));
        check("{type: PagerDuty, routingKey: 123}", Err("quotes"));
        check("{type: Webhook, url: 'https://a', signingKey: short}", Err("at least 16"));
        check("{type: Webhook, url: 'file:///SECRET', signingKey: SECRET}", Err("https://"));
    }
}
