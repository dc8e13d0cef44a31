//! Facts of a JSON body, read in one pass without a tree: texts are hashed where they stand, everything else is skipped.
//! A field of another type counts as absent, the last of two equal names counts, a body that is not one JSON object
//! gives nothing.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use twox_hash::XxHash64;

use crate::queue::Tier;

/// What the shallow key covers: enough to tell one system prompt from another, and ahead of the dates and names that
/// many carry further down.
const SHALLOW_BYTES: usize = 256;

/// What the deep key of a text completion covers: it has no first message, and what follows differs from turn to turn.
const PROMPT_BYTES: usize = 1_024;

/// The longest deadline that the pods accept, a day.
pub(super) const DEADLINE_MS_MAX: u64 = 86_400_000;

/// What the gateway reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BodyFacts {
    pub(super) model: Option<String>,
    pub(super) is_stream: bool,
    pub(super) user: Option<String>,
    pub(super) tier: Option<Tier>,
    pub(super) deadline: Option<Duration>,
    pub(super) output_tokens: Option<u64>,
    pub(super) deep: Option<u64>,
    pub(super) shallow: Option<u64>,
    pub(super) has_answer: bool,
}

impl BodyFacts {
    /// Reads a body; `None` when it is not one JSON object.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let facts = json.deserialize_map(BodyVisitor).ok()?;
        json.end().ok()?;
        Some(facts)
    }
}

/// The visits of values that do not count.
macro_rules! skip {
    ($($visit:ident($type:ty)),+) => {
        $(fn $visit<E: de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        })+

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = BodyFacts;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BodyFacts, A::Error> {
        let mut facts = BodyFacts::default();
        let (mut safety_identifier, mut max_tokens) = (None, None);
        while let Some(name) = map.next_key::<Scalar<'de>>()? {
            match name.as_text().unwrap_or_default() {
                "model" => facts.model = map.next_value::<Scalar<'de>>()?.into_text(),
                "stream" => facts.is_stream = matches!(map.next_value()?, Scalar::Bool(true)),
                "user" => facts.user = map.next_value::<Scalar<'de>>()?.into_text(),
                "safety_identifier" => safety_identifier = map.next_value::<Scalar<'de>>()?.into_text(),
                "priority" => facts.tier = map.next_value::<Scalar<'de>>()?.as_text().and_then(Tier::named),
                "deadline_ms" => facts.deadline = map.next_value::<Scalar<'de>>()?.into_millis(),
                "max_completion_tokens" => {
                    facts.output_tokens = map.next_value::<Scalar<'de>>()?.into_number();
                }
                "max_tokens" => max_tokens = map.next_value::<Scalar<'de>>()?.into_number(),
                "messages" => {
                    let mut opening = Opening::default();
                    map.next_value_seed(Messages(&mut opening))?;
                    facts.has_answer = opening.has_answer;
                    (facts.deep, facts.shallow) = (opening.deep(), opening.shallow);
                }
                "prompt" => {
                    let mut digest = Digest::new(PROMPT_BYTES);
                    map.next_value_seed(Texts { digest: &mut digest })?;
                    (facts.deep, facts.shallow) = (digest.whole(), digest.head());
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        facts.user = facts.user.or(safety_identifier);
        facts.output_tokens = facts.output_tokens.or(max_tokens);
        Ok(facts)
    }
}

// === Single values ===

/// A value of one line, or anything else.
#[derive(Default)]
enum Scalar<'de> {
    Text(Cow<'de, str>),
    Number(u64),
    Bool(bool),
    #[default]
    Other,
}

impl Scalar<'_> {
    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Empty texts are as good as none.
    fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text.into_owned()),
            _ => None,
        }
    }

    fn into_number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    fn into_millis(self) -> Option<Duration> {
        self.into_number().filter(|ms| (1..=DEADLINE_MS_MAX).contains(ms)).map(Duration::from_millis)
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }

    skip!(visit_i64(i64), visit_f64(f64));

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

// === Texts ===

/// Two hashes of one text: of its first `limit` bytes and of its first [`SHALLOW_BYTES`].
struct Digest {
    whole: XxHash64,
    head: XxHash64,
    bytes: usize,
    limit: usize,
}

impl Digest {
    fn new(limit: usize) -> Self {
        Self { whole: XxHash64::with_seed(0), head: XxHash64::with_seed(0), bytes: 0, limit }
    }

    fn write(&mut self, text: &[u8]) {
        let left = |limit: usize| limit.saturating_sub(self.bytes).min(text.len());
        self.whole.write(&text[..left(self.limit)]);
        self.head.write(&text[..left(SHALLOW_BYTES)]);
        self.bytes = self.bytes.saturating_add(text.len());
    }

    fn whole(&self) -> Option<u64> {
        (self.bytes > 0).then(|| self.whole.finish())
    }

    fn head(&self) -> Option<u64> {
        (self.bytes > 0).then(|| self.head.finish())
    }
}

/// Writes the texts (and token ids) of a prompt or of a message's content into a digest. Of a part only what the model
/// sees counts: marks such as `cache_control` wander from turn to turn.
struct Texts<'digest> {
    digest: &'digest mut Digest,
}

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.digest.write(text.as_bytes());
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, token: u64) -> Result<(), E> {
        self.digest.write(&token.to_le_bytes());
        Ok(())
    }

    skip!(visit_i64(i64), visit_f64(f64), visit_bool(bool));

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Texts { digest: self.digest })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Scalar<'de>>()? {
            let counts = matches!(
                name.as_text().unwrap_or_default(),
                "text"
                    | "refusal"
                    | "image_url"
                    | "input_audio"
                    | "file"
                    | "url"
                    | "data"
                    | "file_id"
                    | "file_data"
            );
            if counts {
                map.next_value_seed(Texts { digest: self.digest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

// === Conversations ===

/// The beginning of a conversation, and whether it has gone on.
#[derive(Default)]
struct Opening {
    /// Over role and content of every message up to the user's first.
    hasher: Option<XxHash64>,
    shallow: Option<u64>,
    has_user: bool,
    has_answer: bool,
}

impl Opening {
    fn deep(&self) -> Option<u64> {
        self.hasher.as_ref().map(Hasher::finish)
    }

    fn add(&mut self, role: Option<&str>, content: &Digest) {
        match role.unwrap_or_default() {
            "assistant" => self.has_answer = true,
            "user" => self.has_user = true,
            _ => {}
        }
        let hasher = self.hasher.get_or_insert_with(|| XxHash64::with_seed(0));
        hasher.write(role.unwrap_or_default().as_bytes());
        // The length keeps two messages apart from one that has both their texts.
        hasher.write_u64(content.bytes as u64);
        hasher.write_u64(content.whole.finish());
        if self.shallow.is_none() {
            self.shallow = content.head();
        }
    }
}

/// Reads an array of messages; anything else is skipped.
struct Messages<'opening>(&'opening mut Opening);

impl<'de> DeserializeSeed<'de> for Messages<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Messages<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<(), A::Error> {
        let opening = self.0;
        while !(opening.has_user && opening.has_answer) {
            if messages.next_element_seed(Message(opening))?.is_none() {
                return Ok(());
            }
        }
        while messages.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    skip!(visit_str(&str), visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_bool(bool));
}

/// Reads one message; its content only as long as that belongs to the opening.
struct Message<'opening>(&'opening mut Opening);

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let opening = self.0;
        let mut role: Option<Scalar<'de>> = None;
        let mut content = Digest::new(usize::MAX);
        while let Some(name) = map.next_key::<Scalar<'de>>()? {
            match name.as_text().unwrap_or_default() {
                "role" => role = Some(map.next_value()?),
                "content" if !opening.has_user => {
                    content = Digest::new(usize::MAX);
                    map.next_value_seed(Texts { digest: &mut content })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let role = role.as_ref().and_then(Scalar::as_text);
        if !opening.has_user {
            opening.add(role, &content);
        } else if role == Some("assistant") {
            opening.has_answer = true;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    skip!(visit_str(&str), visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_bool(bool));
}
