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

/// Suffixes of [`Amount`] by their power of ten, and of two.
const DECIMAL_UNITS: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_UNITS: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
/// More than any node has, and so little that a million of them can be added up.
const THOUSANDTHS_MAX: u128 = 1 << 100;

impl Amount {
    /// In thousandths, rounded up, of whatever Kubernetes itself writes: `500m` is 500, `1Ki` is 1 024 000, `1e3` is
    /// 1 000 000. `None` when it is no amount, is negative, or exceeds all bounds.
    pub fn thousandths(&self) -> Option<i128> {
        let text = self.0.strip_prefix('+').unwrap_or(&self.0);
        let is_of_number = |character: char| character.is_ascii_digit() || character == '.';
        let (number, unit) = text.split_at(text.find(|each| !is_of_number(each)).unwrap_or(text.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        let (twos, tens) = powers(unit)?;
        let tens = tens.checked_add(3)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let multiple = digits.checked_mul(1_u128.checked_shl(twos)?)?;
        let power = 10_u128.checked_pow(tens.unsigned_abs());
        let value = match (tens >= 0, power) {
            (true, power) => multiple.checked_mul(power?)?,
            (false, Some(power)) => multiple.div_ceil(power),
            (false, None) => u128::from(multiple > 0),
        };
        i128::try_from(value).ok().filter(|_| value <= THOUSANDTHS_MAX)
    }

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

/// Powers of two and of ten that a suffix stands for.
fn powers(unit: &str) -> Option<(u32, i32)> {
    if let Some((_, twos)) = BINARY_UNITS.iter().find(|(suffix, _)| *suffix == unit) {
        return Some((*twos, 0));
    }
    if let Some((_, tens)) = DECIMAL_UNITS.iter().find(|(suffix, _)| *suffix == unit) {
        return Some((0, *tens));
    }
    Some((0, unit.strip_prefix(['e', 'E'])?.parse().ok()?))
}

impl Fraction {
    /// In thousandths; `None` when it is no number below ten.
    pub fn thousandths(&self) -> Option<u32> {
        let thousandths = Amount(self.0.clone()).thousandths()?;
        u32::try_from(thousandths).ok().filter(|thousandths| *thousandths < 10_000)
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
    fn thousandths_are_read_in_every_notation_of_kubernetes() {
        let check =
            |text: &str, expected| assert_eq!(Amount(text.to_owned()).thousandths(), expected, "{text}");
        for (text, expected) in [
            ("0", 0),
            ("2", 2_000),
            ("+2", 2_000),
            ("1.5", 1_500),
            (".5", 500),
            ("3.", 3_000),
            ("500m", 500),
            ("1500u", 2),
            ("1n", 1),
            ("0n", 0),
            ("2k", 2_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("16Ei", 18_446_744_073_709_551_616_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("1e3", 1_000_000),
            ("12E-2", 120),
            ("1e-300", 1),
            ("1e-2147483648", 1),
        ] {
            check(text, Some(expected));
        }
        for text in ["", ".", "-1", "m", "1.2.3", "1 Gi", "five", "1e", "1e999", "99999999999Ei"] {
            check(text, None);
        }
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
        for text in ["", "m", "10", "10000m", "-1", "1e3"] {
            check(text, None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[-+0-9.eEinumkKMGTP ]{0,45}|\\PC{0,20}") {
            if let Some(thousandths) = Amount(text).thousandths() {
                assert!(thousandths >= 0);
            }
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
