//! What came of feature flags and experiments: gateways count, here it is added up, compared and told. Nothing follows
//! from it by itself.
//!
//! In reading order: `heard` (sums of all gateways), `compare` (two variants beside each other), `tell` (the status), and
//! here the handle on all models.

mod compare;
mod heard;
pub mod tell;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crds::model::InferenceModelSpec;
use crds::model::experiment::definition;
use crds::report::{DrawKind, DrawSums, GatewayReport};
use judgement::autoscale::Millis;

use crate::held::ModelKey;
use heard::Heard;

/// Models whose figures are kept. Each takes some 100 KiB for each flag or experiment.
const MODELS_MAX: usize = 1_000;
/// Who was not spoken of for so long makes room for others.
const SILENT_MS_MAX: u64 = 3_600_000;

/// One flag or experiment under one definition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrawKey {
    /// Which of both.
    pub kind: DrawKind,
    /// Its name.
    pub name: String,
    /// Tells one definition from another.
    pub definition: String,
}

/// What a spec declares now.
pub fn declared(spec: &InferenceModelSpec) -> Vec<DrawKey> {
    let key = |kind, name: &String, definition| DrawKey { kind, name: name.clone(), definition };
    let flags = spec.feature_flags.iter().map(|flag| key(DrawKind::Flag, &flag.name, definition(flag)));
    let experiments = spec.experiments.iter();
    let experiments = experiments.map(|each| key(DrawKind::Experiment, &each.name, definition(each)));
    flags.chain(experiments).collect()
}

/// The figures of all models. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Experiments {
    models: Arc<Mutex<HashMap<ModelKey, Model>>>,
}

#[derive(Debug, Default)]
struct Model {
    told: Millis,
    heard: Heard,
}

impl Experiments {
    /// Takes in a report of a gateway.
    pub fn hear(&self, report: &GatewayReport, now: Millis) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        for of_model in report.models.iter().filter(|model| !model.draws.is_empty()) {
            let key = (report.namespace.clone(), of_model.model.clone());
            if !models.contains_key(&key) && models.len() >= MODELS_MAX {
                models.retain(|_, model| now.since(model.told) <= SILENT_MS_MAX);
                if models.len() >= MODELS_MAX {
                    continue;
                }
            }
            let model = models.entry(key).or_default();
            model.told = now;
            model.heard.hear(&report.pod_uid, &of_model.draws);
        }
    }

    /// The sums of what is declared now, in the same order; what was declared before is forgotten.
    pub fn look(&self, key: &ModelKey, declared: &[DrawKey]) -> Vec<DrawSums> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if declared.is_empty() {
            models.remove(key);
        }
        models.get_mut(key).map(|model| model.heard.look(declared)).unwrap_or_default()
    }

    /// Nobody wants to know of this model any more.
    pub fn rest(&self, key: &ModelKey) {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
