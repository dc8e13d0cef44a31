//! The body of `/v1/completions`, read into prompts and parameters.

use engine::Token;
use serde_json::{Map, Value};

use super::fields::{Fields, Refusal, wrong_type};
use super::parameters::Parameters;

/// Generations of one request, prompts × choices: a client that wants more sends more requests.
const GENERATIONS_MAX: usize = 64;

/// A text completion request.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// At least one.
    pub prompts: Vec<Prompt>,
    /// Everything else.
    pub parameters: Parameters,
}

/// What is to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text, in which control tokens have no meaning.
    Text(String),
    /// Tokens of the model's own vocabulary.
    Tokens(Vec<Token>),
}

impl CompletionRequest {
    /// Reads a body.
    pub fn read(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let fields = Fields::of_body(body);
        let mut parameters = Parameters::read(&fields)?;
        refuse_unsupported(&fields, parameters.choices)?;
        // 5 is OpenAI's bound; llama-server and vLLM allow more, and so does the engine.
        parameters.logprobs = fields.integer("logprobs", 0, 20)?.map(|top| u8::try_from(top).unwrap_or(20));
        let prompts = prompts(&fields)?;
        if prompts.len() * parameters.choices as usize > GENERATIONS_MAX {
            let message = format!("and 'n' ask for more than {GENERATIONS_MAX} generations");
            return Err(fields.invalid("prompt", message));
        }
        Ok(Self { prompts, parameters })
    }
}

fn refuse_unsupported(fields: &Fields<'_>, choices: u32) -> Result<(), Refusal> {
    if fields.string("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Refusal::unsupported("suffix", "insertion before a suffix is not supported"));
    }
    if fields.boolean("echo")?.unwrap_or(false) {
        return Err(Refusal::unsupported("echo", "'echo' is not supported by this server"));
    }
    match fields.integer("best_of", 1, i64::MAX)? {
        Some(best_of) if best_of != i64::from(choices) => {
            Err(Refusal::unsupported("best_of", "'best_of' other than 'n' is not supported by this server"))
        }
        _ => Ok(()),
    }
}

fn prompts(fields: &Fields<'_>) -> Result<Vec<Prompt>, Refusal> {
    let value = fields.value("prompt").ok_or_else(|| fields.missing("prompt"))?;
    let items = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text.clone())]),
        Value::Array(items) => items,
        other => return Err(wrong_type("prompt".into(), "a string, tokens, or an array of these", other)),
    };
    match items.first() {
        None => Err(fields.invalid("prompt", "must not be empty")),
        Some(Value::Number(_)) => Ok(vec![Prompt::Tokens(tokens("prompt", items)?)]),
        Some(_) if items.len() > GENERATIONS_MAX => {
            Err(fields.invalid("prompt", format!("has more than {GENERATIONS_MAX} prompts")))
        }
        Some(_) => items.iter().enumerate().map(prompt).collect(),
    }
}

fn prompt((index, value): (usize, &Value)) -> Result<Prompt, Refusal> {
    let path = format!("prompt[{index}]");
    match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(ids) => Ok(Prompt::Tokens(tokens(&path, ids)?)),
        other => Err(wrong_type(path, "a string or an array of tokens", other)),
    }
}

/// Ids that fit a token; whether the model has them is asked later.
fn tokens(path: &str, ids: &[Value]) -> Result<Vec<Token>, Refusal> {
    let read = |(index, id): (usize, &Value)| {
        let token = id.as_i64().and_then(|id| Token::try_from(id).ok()).filter(|token| *token >= 0);
        token.ok_or_else(|| wrong_type(format!("{path}[{index}]"), "a token id", id))
    };
    ids.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(prompt: &Value) -> Result<Vec<Prompt>, Refusal> {
        let body = json!({"model": "m", "prompt": prompt});
        CompletionRequest::read(body.as_object().unwrap()).map(|request| request.prompts)
    }

    #[test]
    fn every_shape_of_prompt_is_read() {
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(check(&json!("a")), Ok(vec![text("a")]));
        assert_eq!(check(&json!(["a", "b"])), Ok(vec![text("a"), text("b")]));
        assert_eq!(check(&json!([1, 2])), Ok(vec![Prompt::Tokens(vec![1, 2])]));
        assert_eq!(
            check(&json!([[1], [2, 3]])),
            Ok(vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])])
        );
    }

    #[test]
    fn bad_prompts_are_refused_by_name() {
        for (prompt, param) in [
            (json!(null), "prompt"),
            (json!([]), "prompt"),
            (json!({}), "prompt"),
            (json!([1, "a"]), "prompt[1]"),
            (json!([[1], [-2]]), "prompt[1][0]"),
            (json!(["a", 5]), "prompt[1]"),
            (json!(vec!["a"; 65]), "prompt"),
        ] {
            let refusal = check(&prompt).expect_err(&prompt.to_string());
            assert_eq!(refusal.param.as_deref(), Some(param), "{prompt}");
        }
    }
}
