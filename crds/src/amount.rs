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

/// A part of something, as a quantity: `0.1`, `50m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fraction(pub String);

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

impl Amount {
    /// As a number of whole CPU cores, rounded up: `500m` and `1` are 1, `1500m` and `1.5` are 2. `None` when it is
    /// written in a unit that counts no cores.
    pub fn whole_cores(&self) -> Option<u32> {
        let cores = match self.0.strip_suffix('m') {
            Some(thousandths) => thousandths.parse::<u32>().ok()?.div_ceil(1_000),
            None => match self.0.split_once('.') {
                Some((whole, fraction)) => {
                    let has_more = fraction.bytes().any(|digit| digit != b'0');
                    whole.parse::<u32>().ok()?.checked_add(u32::from(has_more))?
                }
                None => self.0.parse().ok()?,
            },
        };
        Some(cores.max(1))
    }
}

impl Fraction {
    /// In thousandths; `None` when it is no number with at most three decimals, or ten and more.
    pub fn thousandths(&self) -> Option<u32> {
        if let Some(thousandths) = self.0.strip_suffix('m') {
            return thousandths.parse().ok().filter(|thousandths| *thousandths < 10_000);
        }
        let (whole, decimals) = self.0.split_once('.').unwrap_or((&self.0, "0"));
        let whole: u32 = whole.parse().ok().filter(|whole| *whole < 10)?;
        let missing = 3_usize.checked_sub(decimals.len())?;
        let decimals: u32 = decimals.parse().ok()?;
        Some(1_000 * whole + decimals * 10_u32.pow(u32::try_from(missing).ok()?))
    }
}

impl JsonSchema for Fraction {
    fn schema_name() -> Cow<'static, str> {
        "Fraction".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 5,
            "pattern": r"^([0-9](\.[0-9]{1,3})?|[0-9]{1,4}m)$",
        })
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

impl<'de> Deserialize<'de> for Fraction {
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

    #[test]
    fn cores_are_rounded_up_to_whole_ones() {
        let check = |text: &str, cores| assert_eq!(Amount(text.to_owned()).whole_cores(), cores, "{text}");
        for (text, cores) in
            [("100m", 1), ("1", 1), ("1500m", 2), ("1.5", 2), ("2.0", 2), ("16", 16), ("0", 1)]
        {
            check(text, Some(cores));
        }
        check("1Gi", None);
    }

    #[test]
    fn fractions_are_read_in_thousandths() {
        let check =
            |text: &str, expected| assert_eq!(Fraction(text.to_owned()).thousandths(), expected, "{text}");
        for (text, thousandths) in
            [("0", 0), ("0.1", 100), ("0.05", 50), ("1.125", 1_125), ("50m", 50), ("9", 9_000)]
        {
            check(text, Some(thousandths));
        }
        for text in ["", "m", ".5", "0.1234", "10", "10000m", "-1", "1e3", "0."] {
            check(text, None);
        }
    }

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
