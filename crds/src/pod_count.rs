//! A number of pods, as itself or as a part of a fleet.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Pods: `2`, or `25%` of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PodCount {
    /// So many.
    Pods(i32),
    /// A part of the fleet.
    Percent(String),
}

impl PodCount {
    /// Of a fleet of so many pods, a part of a pod as a whole one.
    pub fn rounded_up(&self, fleet: i32) -> i32 {
        self.hundredths(fleet).saturating_add(99) / 100
    }

    /// Of a fleet of so many pods, without what is only part of a pod.
    pub fn rounded_down(&self, fleet: i32) -> i32 {
        self.hundredths(fleet) / 100
    }

    fn hundredths(&self, fleet: i32) -> i32 {
        match self {
            Self::Pods(pods) => pods.saturating_mul(100),
            Self::Percent(text) => text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok())
                .unwrap_or(0_i32)
                .saturating_mul(fleet),
        }
        .max(0)
    }
}

impl std::fmt::Display for PodCount {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pods(pods) => write!(formatter, "{pods}"),
            Self::Percent(text) => formatter.write_str(text),
        }
    }
}

impl JsonSchema for PodCount {
    fn schema_name() -> Cow<'static, str> {
        "PodCount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maximum": 100_000,
            "maxLength": 4,
            "pattern": "^([1-9][0-9]?|100)%$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_fleet_is_rounded_as_its_use_wants() {
        let check = |text: &str, fleet, up, down| {
            let count: PodCount = serde_json::from_str(text).unwrap();
            assert_eq!((count.rounded_up(fleet), count.rounded_down(fleet)), (up, down), "{text} of {fleet}");
            assert_eq!(serde_json::to_string(&count).unwrap(), text);
        };
        check("3", 10, 3, 3);
        check("0", 10, 0, 0);
        check(r#""25%""#, 10, 3, 2);
        check(r#""100%""#, 7, 7, 7);
        check(r#""1%""#, 3, 1, 0);
        check(r#""25%""#, 0, 0, 0);
        check(r#""many""#, 10, 0, 0);
    }
}
