//! A request's body with what its lots ask for: only what the client leaves out is filled in. Pure.

use serde_json::{Map, Value, json};

use crate::gateway::view::LotView;

/// Names of one parameter: with either of them a client has said it.
const SYNONYMS: [[&str; 2]; 2] =
    [["max_tokens", "max_completion_tokens"], ["repeat_penalty", "repetition_penalty"]];

/// Roles that tell a model how to behave.
const SYSTEM_ROLES: [&str; 2] = ["system", "developer"];

/// The body with the parameters of these lots, of which the first that says one counts, and with the name of the model
/// that is to answer. `None`: it stays as it is, because nothing changes or because it is not for us to read.
pub fn fill<'lots>(
    body: &[u8],
    lots: impl Iterator<Item = &'lots LotView>,
    model: Option<&str>,
) -> Option<Vec<u8>> {
    let lots: Vec<&LotView> = lots.filter(|lot| lot.asks_for_something()).collect();
    if lots.is_empty() && model.is_none() {
        return None;
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let mut has_changed = false;
    if let Some(model) = model {
        fields.insert("model".to_owned(), json!(model));
        has_changed = true;
    }
    for (name, value) in lots.iter().flat_map(|lot| &lot.parameters) {
        if !is_said(&fields, name) {
            fields.insert(name.clone(), value.clone());
            has_changed = true;
        }
    }
    if let Some(prompt) = lots.iter().find_map(|lot| lot.system_prompt.as_ref()) {
        has_changed |= instruct(&mut fields, prompt);
    }
    has_changed.then(|| serde_json::to_vec(&fields).expect("JSON stays JSON"))
}

/// Whether the client has said the parameter; null says nothing.
fn is_said(fields: &Map<String, Value>, name: &str) -> bool {
    let synonyms = SYNONYMS.iter().find(|names| names.contains(&name)).map_or(&[][..], |names| &names[..]);
    let mut names = std::iter::once(name).chain(synonyms.iter().copied());
    names.any(|name| fields.get(name).is_some_and(|value| !value.is_null()))
}

/// Begins a conversation that has no system message with this one.
fn instruct(fields: &mut Map<String, Value>, prompt: &str) -> bool {
    let Some(Value::Array(messages)) = fields.get_mut("messages") else { return false };
    let is_system =
        |message: &Value| message["role"].as_str().is_some_and(|role| SYSTEM_ROLES.contains(&role));
    if messages.is_empty() || messages.iter().any(is_system) {
        return false;
    }
    messages.insert(0, json!({"role": "system", "content": prompt}));
    true
}

impl LotView {
    fn asks_for_something(&self) -> bool {
        !self.parameters.is_empty() || self.system_prompt.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lot(parameters: Value, system_prompt: Option<&str>) -> LotView {
        let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
        LotView { parameters, system_prompt: system_prompt.map(str::to_owned), ..LotView::default() }
    }

    fn check(body: &Value, lots: &[LotView], expected: Option<&Value>) {
        let filled = fill(body.to_string().as_bytes(), lots.iter(), None);
        let filled = filled.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
        assert_eq!(filled.as_ref(), expected, "{body}");
    }

    #[test]
    fn what_a_client_says_counts_and_null_says_nothing() {
        let warm = [lot(json!({"temperature": 0.7, "max_tokens": 5, "repeat_penalty": 1.1}), None)];
        let all = |more: Value| -> Value {
            let mut body = json!({"temperature": 0.7, "max_tokens": 5, "repeat_penalty": 1.1});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        check(&json!({"a": 1}), &warm, Some(&all(json!({"a": 1}))));
        check(&json!({"temperature": 0}), &warm, Some(&all(json!({"temperature": 0}))));
        check(&json!({"temperature": null}), &warm, Some(&all(json!({}))));
        let said = json!({"max_completion_tokens": 9, "repetition_penalty": 1.0, "temperature": 1});
        check(&said, &warm, None);
    }

    #[test]
    fn the_first_lot_that_says_something_counts() {
        let lots = [
            lot(json!({"top_k": 1}), None),
            lot(json!({"top_k": 2, "min_p": 0.1}), Some("Be brief.")),
            lot(json!({}), Some("Be kind.")),
        ];
        let filled = json!({
            "top_k": 1, "min_p": 0.1,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}],
        });
        check(&json!({"messages": [{"role": "user", "content": "x"}]}), &lots, Some(&filled));
    }

    #[test]
    fn a_conversation_keeps_its_own_system_message() {
        let brief = [lot(json!({}), Some("Be brief."))];
        for role in SYSTEM_ROLES {
            check(&json!({"messages": [{"role": "user"}, {"role": role, "content": "x"}]}), &brief, None);
        }
        check(&json!({"messages": []}), &brief, None);
        check(&json!({"prompt": "x"}), &brief, None);
        check(&json!({"messages": "x"}), &brief, None);
    }

    #[test]
    fn another_model_is_named_where_the_client_named_its_own() {
        let filled = fill(br#"{"model":"a","n":1}"#, [].iter(), Some("b")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&filled).unwrap(), json!({"model": "b", "n": 1}));
    }

    #[test]
    fn what_is_no_object_and_what_needs_nothing_stays_as_it_is() {
        let warm = [lot(json!({"temperature": 0.7}), None)];
        for body in [&b"[1]"[..], b"", b"{\"a\":", b"\xff"] {
            assert_eq!(fill(body, warm.iter(), None), None);
        }
        assert_eq!(fill(b"{ }", [LotView::default()].iter(), None), None);
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_says_is_changed(said in proptest::collection::btree_map("[a-z_]{1,6}", 0..9_i64, 0..8)) {
            let lots = [lot(json!({"temperature": 0.7, "top_k": 3, "a": 1, "b": 2}), None)];
            let body = json!(said).to_string();
            let filled = fill(body.as_bytes(), lots.iter(), None).unwrap_or_else(|| body.into_bytes());
            let filled: Map<String, Value> = serde_json::from_slice(&filled).unwrap();
            for (name, value) in &said {
                prop_assert_eq!(&filled[name], &json!(value));
            }
        }
    }
}
