//! Amounts of resources and bytes as Kubernetes writes them. YAML writers leave out quotes, so a plain number is
//! accepted too. Knows only the notation.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// An amount of any resource: `500m`, `2`, `4Gi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Amount(pub String);

/// A number of bytes: `256Mi`, `500Gi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ByteSize(pub String);

/// Suffixes of [`ByteSize`] and what each multiplies by.
const BYTE_UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

impl ByteSize {
    /// The number of bytes; `None` when it is not an integer with a known unit or exceeds 64 bits.
    pub fn bytes(&self) -> Option<u64> {
        let (digits, unit) = BYTE_UNITS
            .iter()
            .find_map(|(suffix, unit)| Some((self.0.strip_suffix(suffix)?, *unit)))
            .unwrap_or((&self.0, 1));
        digits.parse::<u64>().ok()?.checked_mul(unit)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 24,
            "pattern": r"^[0-9]{1,15}(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
        })
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 24,
            "pattern": r"^[0-9]{1,15}(k|M|G|T|Ki|Mi|Gi|Ti)?$",
        })
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer).map(Self)
    }
}

fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(serde::de::Error::custom("an amount such as 2, \"500m\" or \"4Gi\" was expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(ByteSize(text.to_owned()).bytes(), expected, "{text}");
    }

    #[test]
    fn reads_every_unit() {
        check("17", Some(17));
        check("2k", Some(2_000));
        check("256Mi", Some(268_435_456));
        check("500Gi", Some(536_870_912_000));
        check("1T", Some(1_000_000_000_000));
    }

    #[test]
    fn refuses_what_is_no_number_of_bytes() {
        check("", None);
        check("Gi", None);
        check("1.5Gi", None);
        check("500m", None);
        check("999999999999999Ti", None);
    }

    #[test]
    fn accepts_numbers_without_quotes() {
        assert_eq!(serde_json::from_str::<Amount>("2").unwrap(), Amount("2".into()));
        assert_eq!(serde_json::from_str::<Amount>("\"500m\"").unwrap(), Amount("500m".into()));
        assert!(serde_json::from_str::<Amount>("[]").is_err());
    }
}
