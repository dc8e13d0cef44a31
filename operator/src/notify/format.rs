//! A message as each kind of receiver reads it. Pure.

use crds::notification::Severity;
use hmac::{Hmac, Mac};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;
use url::Url;

use super::message::{Effect, Message};
use super::receiver::Receiver;
use super::routing::Letter;

/// `PagerDuty` refuses longer summaries.
const SUMMARY_CHARS_MAX: usize = 1_024;

/// What is sent. It holds keys, so it cannot be shown.
pub struct Posting {
    /// Where to.
    pub url: Url,
    /// Besides Content-Type.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

/// What to send of a letter at `now`; nothing if the receiver has no use for it.
pub fn posting(receiver: &Receiver, letter: &Letter, now: Timestamp) -> Option<Posting> {
    let message = &letter.message;
    match receiver {
        // There messages are incidents, and what neither begins nor ends one would be an incident of its own.
        Receiver::PagerDuty { url, routing_key } => {
            let body = pagerduty(message, routing_key)?.to_string();
            Some(Posting { url: url.clone(), headers: vec![], body })
        }
        _ if letter.is_closing_only => None,
        Receiver::Slack { url } => {
            Some(Posting { url: url.clone(), headers: vec![], body: slack(message).to_string() })
        }
        Receiver::Webhook { url, signing_key } => {
            let body = webhook(message).to_string();
            let timestamp = now.as_second();
            let headers = vec![
                ("x-inferno-delivery", message.id.clone()),
                ("x-inferno-timestamp", timestamp.to_string()),
                ("x-inferno-signature", signature(signing_key, timestamp, &body)),
            ];
            Some(Posting { url: url.clone(), headers, body })
        }
    }
}

fn slack(message: &Message) -> Value {
    let severity = format!("{:?}", message.severity);
    let text = format!(
        "*{severity}* · `{}` · *{}*\n{}",
        escaped(&message.whereabouts()),
        escaped(&message.reason),
        escaped(&message.text)
    );
    json!({ "text": text })
}

/// The three characters that mean something to Slack.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn pagerduty(message: &Message, routing_key: &str) -> Option<Value> {
    let key = message.incident_key();
    match message.effect {
        Effect::Tells => None,
        Effect::Closes => {
            Some(json!({"routing_key": routing_key, "event_action": "resolve", "dedup_key": key}))
        }
        Effect::Opens => {
            let summary = format!("{}: {}: {}", message.whereabouts(), message.reason, message.text);
            Some(json!({
                "routing_key": routing_key,
                "event_action": "trigger",
                "dedup_key": key,
                "client": "Inferno",
                "payload": {
                    "summary": summary.chars().take(SUMMARY_CHARS_MAX).collect::<String>(),
                    "source": message.whereabouts(),
                    "severity": pagerduty_severity(message.severity),
                    "timestamp": message.at.to_string(),
                    "component": message.name,
                    "group": message.namespace,
                    "class": message.reason,
                    "custom_details": webhook(message),
                },
            }))
        }
    }
}

fn pagerduty_severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// The body that webhooks get; its schema is in docs/notifications.md.
fn webhook(message: &Message) -> Value {
    json!({
        "version": 1,
        "id": message.id,
        "time": message.at.to_string(),
        "cluster": message.cluster,
        "object": {"kind": message.kind, "namespace": message.namespace, "name": message.name},
        "revision": message.revision,
        "phase": message.phase,
        "event": message.event,
        "severity": message.severity,
        "reason": message.reason,
        "message": message.text,
        "incident": message.incident_key(),
        "effect": format!("{:?}", message.effect),
        "dedupKey": message.dedup_key(),
    })
}

/// `sha256=` and the HMAC over timestamp, a dot, and the body. The timestamp is signed, so that an old message cannot be
/// sent again as a new one.
fn signature(key: &str, timestamp: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key may have any length");
    mac.update(format!("{timestamp}.{body}").as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::sample;
    use super::super::receiver::parse;
    use super::*;

    const SLACK: &str = "{type: Slack, url: 'https://hooks.slack.com/x'}";
    const PAGERDUTY: &str = "{type: PagerDuty, routingKey: r}";
    const WEBHOOK: &str = "{type: Webhook, url: 'https://a/b', signingKey: 0123456789abcdef}";

    fn sent(receiver: &str, severity: Severity, effect: Effect, is_closing_only: bool) -> Option<Posting> {
        let letter = Letter { message: sample(severity, effect), is_closing_only };
        posting(&parse(receiver).unwrap(), &letter, Timestamp::from_second(1_800_000_010).unwrap())
    }

    fn body(posting: &Posting) -> Value {
        serde_json::from_str(&posting.body).unwrap()
    }

    #[test]
    fn slack_gets_a_text_without_surprises() {
        let posting = sent(SLACK, Severity::Critical, Effect::Opens, false).unwrap();
        let expected = "*Critical* · `north: default/tiny` · *EngineLost*\nthe engine keeps dying; look at &lt;its&gt; \
                        log &amp; raise memory";
        assert_eq!(body(&posting), json!({ "text": expected }));
        assert!(sent(SLACK, Severity::Info, Effect::Closes, true).is_none());
    }

    #[test]
    fn pagerduty_gets_beginnings_and_ends_of_one_incident() {
        let posting = sent(PAGERDUTY, Severity::Critical, Effect::Opens, false).unwrap();
        assert_eq!(posting.url.as_str(), PAGERDUTY_DEFAULT);
        let trigger = body(&posting);
        assert_eq!(
            (&trigger["event_action"], &trigger["payload"]["severity"]),
            (&json!("trigger"), &json!("critical"))
        );
        assert_eq!(trigger["payload"]["source"], "north: default/tiny");
        let resolve = body(&sent(PAGERDUTY, Severity::Info, Effect::Closes, true).unwrap());
        assert_eq!(resolve["event_action"], "resolve");
        assert_eq!(resolve["dedup_key"], trigger["dedup_key"]);
        assert!(sent(PAGERDUTY, Severity::Info, Effect::Tells, false).is_none());
    }

    const PAGERDUTY_DEFAULT: &str = "https://events.pagerduty.com/v2/enqueue";

    #[test]
    fn webhooks_are_signed_with_their_time() {
        let posting = sent(WEBHOOK, Severity::Warning, Effect::Opens, false).unwrap();
        let header = |name: &str| {
            posting
                .headers
                .iter()
                .find(|(header, _)| *header == name)
                .map(|(_, value)| value.clone())
                .unwrap()
        };
        assert_eq!(header("x-inferno-timestamp"), "1800000010");
        assert_eq!(header("x-inferno-delivery"), "0123456789abcdef0123456789abcdef");
        assert_eq!(
            header("x-inferno-signature"),
            signature("0123456789abcdef", 1_800_000_010, &posting.body)
        );
        assert_eq!(body(&posting)["dedupKey"], "default/tiny/tiny-8f2aa/Failed/EngineLost");
    }

    /// Computed with `printf '1800000010.{}' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn a_signature_is_what_openssl_computes() {
        assert_eq!(signature("0123456789abcdef", 1_800_000_010, "{}"), OPENSSL);
    }

    const OPENSSL: &str = "sha256=35ce3bd23758ef4dfa91604635e1e407153763b3f15a9f473feed1e5866a5fa1";
}
