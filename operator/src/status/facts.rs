//! Facts and short strings of a status. Pure.

use crds::model::{InferenceModel, ModelFacts, Placement};
use crds::report::OpenedModel;

use super::Situation;
use crate::conduct::Conducted;
use crate::problem::one_line;
use crate::revision::Revision;

/// The file. A server does not hash what it opens. But it has only been started because the declared digest was found.
pub(super) fn facts(model: &InferenceModel, opened: &OpenedModel) -> ModelFacts {
    ModelFacts {
        architecture: one_line(&opened.architecture),
        quantization: one_line(&opened.quantization),
        size_bytes: i64::try_from(opened.size_bytes).unwrap_or(i64::MAX),
        trained_context_length: i64::from(opened.trained_context_length),
        context_length: i64::from(opened.context_length),
        sha256: opened.sha256.as_deref().map(one_line).or_else(|| model.spec.source.sha256.clone()),
    }
}

/// Where its layers are.
pub(super) fn placement(opened: &OpenedModel) -> Placement {
    Placement {
        layers_total: i32::try_from(opened.layers_total).unwrap_or(i32::MAX),
        layers_offloaded: i32::try_from(opened.layers_offloaded).unwrap_or(i32::MAX),
    }
}

/// The hash at the end of a revision's name.
pub(super) fn short(revision: &str) -> &str {
    revision.rsplit('-').next().unwrap_or(revision)
}

/// The serving revision, and the one that replaces it or runs beside it.
pub(super) fn revision_summary(situation: &Situation<'_>, stable: Option<&str>) -> String {
    match stable.filter(|stable| *stable != situation.target) {
        Some(stable) => format!("{}→{}", short(stable), short(situation.target)),
        None => short(situation.target).to_owned(),
    }
}

/// Ready and asked-for replicas.
pub(super) fn replicas_summary(model: &InferenceModel, situation: &Situation<'_>) -> String {
    let of = |revision: Option<&Revision>| revision.map_or(0, |revision| revision.ready);
    let (current, keeper) = (of(situation.current), of(situation.roles.keeper));
    let is_in_place = situation.conducted.is_some_and(Conducted::is_in_place);
    let serving = if is_in_place { current + keeper } else { current.max(keeper) };
    let asked = if model.spec.suspend == Some(true) { 0 } else { situation.asked };
    format!("{serving}/{asked}")
}
