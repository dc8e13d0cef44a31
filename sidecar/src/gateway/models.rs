//! The list of models: what the view knows, also at zero. Never asks a pod.

use serde_json::{Value, json};

use super::app::{Board, ModelBoard};
use super::forward::now_ms;
use super::outlook::{Cause, outlook};
use super::view::KillSwitch;
use crate::http::ApiError;
use crate::openai::answer::model_json;

/// The list, one entry for each model.
pub fn list(board: &Board) -> Value {
    let data: Vec<_> = board.models.iter().map(|model| entry(model, &model.view.served_name)).collect();
    json!({"object": "list", "data": data})
}

/// One model under the name by which it was asked for.
pub fn retrieve(board: &Board, name: &str) -> Result<Value, ApiError> {
    let model = board.find(name).ok_or_else(|| ApiError::ModelNotFound(name.to_owned()))?;
    Ok(entry(model, name))
}

fn entry(model: &ModelBoard, name: &str) -> Value {
    let mut entry = model_json(name, model.view.created);
    entry["state"] = state(model).into();
    entry["aliases"] = model.view.aliases.clone().into();
    entry
}

/// In one word.
fn state(model: &ModelBoard) -> &'static str {
    let view = &model.view;
    if view.kill_switch == KillSwitch::Model {
        return "disabled";
    }
    if view.is_ready() {
        return "ready";
    }
    match outlook(view, now_ms()).obstacle {
        Some(Cause::Suspended) => "suspended",
        Some(Cause::Disabled) => "disabled",
        Some(Cause::Failed(_) | Cause::NoCapacity(_)) => "failed",
        None | Some(Cause::Starting(_)) if view.start.wanted == 0 => "zero",
        None | Some(Cause::Starting(_)) => "starting",
    }
}
