//! Feature flags and experiments become draws. Pure.

use crds::InferenceModel;
use crds::model::experiment::definition;
use crds::model::{Experiment, FeatureFlag, RequestParameters};
use crds::report::DrawKind;
use crds::split::BUCKETS;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::sticky_key;
use crate::gateway::view::{DrawView, LotView};

/// Buckets of one percent.
const PERCENT: u16 = BUCKETS / 100;

/// All draws of a model. Each has a salt of its own: with a shared one the same clients would be first everywhere.
pub(super) fn draws(object: &InferenceModel) -> Vec<DrawView> {
    let uid = object.uid().unwrap_or_default();
    let flags = object.spec.feature_flags.iter().map(|declared| flag(&uid, declared));
    let experiments = object.spec.experiments.iter().map(|declared| experiment(&uid, declared));
    flags.chain(experiments).collect()
}

fn flag(uid: &str, declared: &FeatureFlag) -> DrawView {
    let on = basis_points(declared.enabled_percent);
    let off = LotView { name: "off".to_owned(), weight_basis_points: BUCKETS - on, ..LotView::default() };
    DrawView {
        kind: DrawKind::Flag,
        name: declared.name.clone(),
        salt: format!("{uid}/flag/{}", declared.name),
        sticky_key: sticky_key(declared.sticky_key),
        definition: definition(declared),
        lots: vec![lot("on", on, None, declared.parameters.as_ref()), off],
    }
}

fn experiment(uid: &str, declared: &Experiment) -> DrawView {
    let lots = declared.variants.iter().map(|variant| {
        let weight = basis_points(variant.weight_percent);
        lot(&variant.name, weight, variant.model.as_deref(), variant.parameters.as_ref())
    });
    DrawView {
        kind: DrawKind::Experiment,
        name: declared.name.clone(),
        salt: format!("{uid}/experiment/{}", declared.name),
        sticky_key: sticky_key(declared.sticky_key),
        definition: definition(declared),
        lots: lots.collect(),
    }
}

fn lot(
    name: &str,
    weight_basis_points: u16,
    model: Option<&str>,
    parameters: Option<&RequestParameters>,
) -> LotView {
    LotView {
        name: name.to_owned(),
        weight_basis_points,
        model: model.map(str::to_owned),
        parameters: parameters.map(fields).unwrap_or_default(),
        system_prompt: parameters.and_then(|parameters| parameters.system_prompt.clone()),
    }
}

fn basis_points(percent: i32) -> u16 {
    u16::try_from(percent.clamp(0, 100)).unwrap_or(0) * PERCENT
}

/// The fields of a request's body, by their names there. What is no number is left out; the API server refuses it.
fn fields(parameters: &RequestParameters) -> Map<String, Value> {
    let number = |text: &Option<String>| text.as_ref()?.parse::<f64>().ok().map(|number| json!(number));
    let count = |count: Option<i32>| count.map(|count| json!(count));
    let all = [
        ("temperature", number(&parameters.temperature)),
        ("top_p", number(&parameters.top_p)),
        ("top_k", count(parameters.top_k)),
        ("min_p", number(&parameters.min_p)),
        ("frequency_penalty", number(&parameters.frequency_penalty)),
        ("presence_penalty", number(&parameters.presence_penalty)),
        ("repeat_penalty", number(&parameters.repeat_penalty)),
        ("max_tokens", count(parameters.max_tokens)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
