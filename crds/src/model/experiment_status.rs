//! What was found of feature flags and experiments. For people: nothing follows from it by itself.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::figures::{ComparedMetric, Comparison, Figures};

/// One experiment, or a flag as an experiment of `on` and `off`. It is rewritten when a tenth more has been answered.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStatus {
    /// Its name.
    pub name: String,
    /// Which definition the figures are of; another one begins them anew.
    pub definition: String,
    /// Its requests in all variants.
    pub requests: i64,
    /// What clients of each variant saw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub variants: Vec<VariantStatus>,
    /// Each other variant against the first one, or `on` against `off`, where both have answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<VariantComparison>,
}

/// What clients of one variant saw. A client's own retries do not count.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantStatus {
    /// Its name.
    pub name: String,
    /// Requests that have ended.
    pub requests: i64,
    /// Those of them that ended with a status from 500, with 429, or broke off.
    pub errors: i64,
    /// Those of them whose client left.
    pub cancelled: i64,
    /// Those of them that the variant's own model could not answer, so that this model did. Their times do not count.
    pub fallbacks: i64,
    /// From a request's arrival to its first token; of streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_microseconds: Option<Figures>,
    /// Mean time between the tokens of an answer; of streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inter_token_microseconds: Option<Figures>,
    /// From a request's arrival to the end of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_microseconds: Option<Figures>,
    /// Tokens of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<Figures>,
}

/// One measure of a variant against that of the variant which it is compared with.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantComparison {
    /// The variant.
    pub variant: String,
    /// The variant that it is compared with.
    pub against: String,
    /// What is compared.
    pub metric: ComparedMetric,
    /// The variant against the other.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// All of it for people.
    pub message: String,
}
