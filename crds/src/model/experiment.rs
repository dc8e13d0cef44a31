//! Feature flags and A/B experiments: which requests differ from the others, and in what.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use std::hash::Hasher;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use super::rollout::StickyKey;

/// Something that a share of the requests has and the others have not.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeatureFlag {
    /// Its name, by which the header x-inferno-flags of a response tells that it is on.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name of a feature flag may have lower-case letters, digits and '-', beginning with a letter"))]
    pub name: String,
    /// Share of the keys for which it is on. A larger share takes it from nobody.
    #[schemars(range(min = 0, max = 100))]
    pub enabled_percent: i32,
    /// What keeps a client on its side. Default: Conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_key: Option<StickyKey>,
    /// What requests for which it is on ask for unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<RequestParameters>,
}

/// Variants that are compared with one another. Nothing follows from the comparison by itself.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.variants.map(variant, variant.weightPercent).sum() <= 100").message("spec.experiments: the weightPercent of an experiment's variants must not exceed 100 together; whoever is in none takes no part"))]
pub struct Experiment {
    /// Its name, by which the header x-inferno-experiment of a response tells the variant.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name of an experiment may have lower-case letters, digits and '-', beginning with a letter"))]
    pub name: String,
    /// What keeps a client in its variant. Default: Conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_key: Option<StickyKey>,
    /// The first is the one that the others are compared with.
    #[schemars(length(min = 2, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub variants: Vec<Variant>,
}

/// One of the ways in which an experiment answers.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name of a variant may have lower-case letters, digits and '-', beginning with a letter"))]
    pub name: String,
    /// Share of the keys. What all variants leave of 100 takes no part.
    #[schemars(range(min = 0, max = 100))]
    pub weight_percent: i32,
    /// Another InferenceModel of the same pool that answers instead. As long as it cannot, this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub model: Option<String>,
    /// What its requests ask for unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<RequestParameters>,
}

/// What a request asks for if it does not say itself; a client's own value always counts. Numbers with a fraction are
/// written as text.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestParameters {
    /// `temperature`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]([.][0-9]{1,4})?$') && double(self) <= 2.0").message("temperature is a number from 0 to 2, written as text such as \"0.7\""))]
    pub temperature: Option<String>,
    /// `top_p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]([.][0-9]{1,4})?$') && double(self) <= 1.0").message("topP is a number from 0 to 1, written as text such as \"0.9\""))]
    pub top_p: Option<String>,
    /// `top_k`; 0 is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub top_k: Option<i32>,
    /// `min_p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]([.][0-9]{1,4})?$') && double(self) <= 1.0").message("minP is a number from 0 to 1, written as text such as \"0.05\""))]
    pub min_p: Option<String>,
    /// `frequency_penalty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^-?[0-9]([.][0-9]{1,4})?$') && double(self) >= -2.0 && double(self) <= 2.0").message("frequencyPenalty is a number from -2 to 2, written as text such as \"0.5\""))]
    pub frequency_penalty: Option<String>,
    /// `presence_penalty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^-?[0-9]([.][0-9]{1,4})?$') && double(self) >= -2.0 && double(self) <= 2.0").message("presencePenalty is a number from -2 to 2, written as text such as \"0.5\""))]
    pub presence_penalty: Option<String>,
    /// `repeat_penalty`; 1 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]([.][0-9]{1,4})?$') && double(self) >= 0.1").message("repeatPenalty is a number from 0.1 to 9.9999, written as text such as \"1.1\""))]
    pub repeat_penalty: Option<String>,
    /// `max_tokens`. More than the context has room for is refused, as it is of a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_tokens: Option<i32>,
    /// The system message of a chat that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8_192))]
    pub system_prompt: Option<String>,
}

/// Tells one definition of a flag or an experiment from another: figures of two definitions are not added up.
pub fn definition(declared: &impl Serialize) -> String {
    let text = serde_json::to_vec(declared).expect("a declaration is JSON");
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(&text);
    format!("{:016x}", hasher.finish())
}
