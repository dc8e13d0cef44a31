//! The body of `/v1/chat/completions`, read into messages and parameters.

use serde_json::{Map, Value};

use super::fields::{Complaint, Fields, Refusal, wrong_type};
use super::parameters::Parameters;

/// Messages of one request. Longer conversations than this do not fit any context that we serve.
const MESSAGES_MAX: usize = 4_096;

/// A chat request.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The conversation.
    pub messages: Vec<Message>,
    /// Everything else.
    pub parameters: Parameters,
}

/// One message, as the template sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`; OpenAI's `developer` becomes `system`, which templates know.
    pub role: &'static str,
    /// The text; parts are joined.
    pub content: String,
    /// The speaker, if named.
    pub name: Option<String>,
}

impl Message {
    /// All that its writer could choose freely.
    pub fn texts(&self) -> impl Iterator<Item = &str> + Clone {
        [Some(self.content.as_str()), self.name.as_deref()].into_iter().flatten()
    }

    /// The message with other texts in the same places.
    #[must_use]
    pub fn with_texts(&self, change: impl Fn(&str) -> String) -> Self {
        Self { role: self.role, content: change(&self.content), name: self.name.as_deref().map(change) }
    }
}

impl ChatRequest {
    /// Reads a body.
    pub fn read(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let fields = Fields::of_body(body);
        let mut parameters = Parameters::read(&fields)?;
        parameters.logprobs = logprobs(&fields)?;
        Ok(Self { messages: messages(&fields)?, parameters })
    }
}

fn logprobs(fields: &Fields<'_>) -> Result<Option<u8>, Refusal> {
    let top = fields.integer("top_logprobs", 0, 20)?;
    if fields.boolean("logprobs")?.unwrap_or(false) {
        return Ok(Some(top.map_or(0, |top| u8::try_from(top).unwrap_or(20))));
    }
    match top {
        Some(1..) => Err(fields.invalid("top_logprobs", "needs 'logprobs' to be true")),
        _ => Ok(None),
    }
}

fn messages(fields: &Fields<'_>) -> Result<Vec<Message>, Refusal> {
    let messages = fields.array("messages")?.ok_or_else(|| fields.missing("messages"))?;
    if messages.is_empty() {
        return Err(fields.invalid("messages", "must have at least one message"));
    }
    if messages.len() > MESSAGES_MAX {
        return Err(fields.invalid("messages", format!("has more than {MESSAGES_MAX} messages")));
    }
    let read = |(index, value)| message(&Fields::of_value(format!("messages[{index}]"), value)?);
    messages.iter().enumerate().map(read).collect()
}

fn message(fields: &Fields<'_>) -> Result<Message, Refusal> {
    let role = match fields.required_string("role")? {
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => "tool",
        _ => return Err(fields.invalid("role", "must be one of developer, system, user, assistant, tool")),
    };
    if fields.array("tool_calls")?.is_some_and(|calls| !calls.is_empty()) {
        return Err(Refusal::unsupported(
            fields.path("tool_calls"),
            "tool calling is not supported by this server",
        ));
    }
    let content = match fields.value("content") {
        Some(content) => content_text(fields.path("content"), content)?,
        None if role == "assistant" => String::new(),
        None => return Err(fields.missing("content")),
    };
    Ok(Message { role, content, name: fields.string("name")?.map(str::to_owned) })
}

fn content_text(path: String, content: &Value) -> Result<String, Refusal> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        other => return Err(wrong_type(path, "a string or an array of parts", other)),
    };
    let text_of = |(index, part): (usize, &Value)| {
        let fields = Fields::of_value(format!("{path}[{index}]"), part)?;
        match fields.required_string("type")? {
            "text" => Ok(fields.required_string("text")?.to_owned()),
            "refusal" => Ok(fields.required_string("refusal")?.to_owned()),
            kind => {
                let message = format!("parts of type '{kind}' are not supported: this model reads text only");
                Err(Refusal::new(Complaint::UnsupportedParameter, fields.path("type"), message))
            }
        }
    };
    parts.iter().enumerate().map(text_of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: &Value) -> Result<ChatRequest, Refusal> {
        ChatRequest::read(body.as_object().unwrap())
    }

    #[test]
    fn parts_are_joined_and_roles_mapped() {
        let request = check(&json!({"model": "m", "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null},
        ]}))
        .unwrap();
        let read: Vec<_> = request.messages.iter().map(|m| (m.role, m.content.as_str())).collect();
        assert_eq!(read, [("system", "be brief"), ("user", "ab"), ("assistant", "")]);
    }

    #[test]
    fn bad_messages_are_refused_by_name() {
        let messages = |messages: Value| json!({"model": "m", "messages": messages});
        let user = json!({"role": "user", "content": "x"});
        for (body, param) in [
            (json!({"model": "m"}), "messages"),
            (json!({"messages": [user.clone()]}), "model"),
            (messages(json!([])), "messages"),
            (messages(json!("hello")), "messages"),
            (messages(json!(["hello"])), "messages[0]"),
            (messages(json!([user, {"role": "narrator", "content": "x"}])), "messages[1].role"),
            (messages(json!([{"role": "user"}])), "messages[0].content"),
            (messages(json!([{"role": "user", "content": 5}])), "messages[0].content"),
            (
                messages(json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])),
                "messages[0].content[0].type",
            ),
            (
                json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}),
                "top_logprobs",
            ),
        ] {
            let refusal = check(&body).expect_err(&body.to_string());
            assert_eq!(refusal.param.as_deref(), Some(param), "{body}");
        }
    }
}
