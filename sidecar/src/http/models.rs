//! The list of models: this server's one, under each of its names. Never asks the engine, never tells paths.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::app::App;
use super::error::ApiError;
use crate::openai::answer::model_json;

/// `GET /v1/models`.
pub async fn list(State(app): State<App>) -> Json<Value> {
    let settings = &app.settings;
    let names = [&settings.model_name].into_iter().chain(&settings.aliases);
    let data: Vec<_> = names.map(|name| model_json(name, app.created)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// `GET /v1/models/{id}`; ids may contain slashes.
pub async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    if app.serves(&id) { Ok(Json(model_json(&id, app.created))) } else { Err(ApiError::ModelNotFound(id)) }
}
