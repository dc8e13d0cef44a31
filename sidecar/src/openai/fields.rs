//! A JSON object whose fields are read by name, so that every complaint names the parameter it is about.
//! Knows JSON types and ranges, not what the parameters mean.

use serde_json::{Map, Value};

/// A request that cannot be served as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of complaint.
    pub complaint: Complaint,
    /// The parameter it is about, as the client wrote it: `messages[1].role`.
    pub param: Option<String>,
    /// For the client.
    pub message: String,
}

/// Kinds of complaint that a client would act on differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// The body is not a JSON object.
    InvalidJson,
    /// A required parameter is missing.
    MissingParameter,
    /// A value has the wrong type.
    InvalidType,
    /// A value is out of range or not one of the allowed ones.
    InvalidValue,
    /// The parameter asks for something that this server does not do.
    UnsupportedParameter,
    /// Prompt and answer do not fit the context.
    ContextLengthExceeded,
    /// The model's chat template does not accept these messages.
    InvalidMessages,
}

impl Refusal {
    /// A complaint about one parameter.
    pub fn new(complaint: Complaint, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { complaint, param: Some(param.into()), message: message.into() }
    }

    /// This server does not do that.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Complaint::UnsupportedParameter, param, message)
    }
}

/// The fields of an object. A `null` counts as absent everywhere, as in OpenAI's own API.
pub struct Fields<'a> {
    path: String,
    values: &'a Map<String, Value>,
}

/// The object in a request's body.
pub fn parse_body(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let refusal = |message: String| Refusal { complaint: Complaint::InvalidJson, param: None, message };
    match serde_json::from_slice(body) {
        Ok(Value::Object(values)) => Ok(values),
        Ok(_) => Err(refusal("the body must be a JSON object".into())),
        Err(error) => Err(refusal(format!("the body is not valid JSON: {error}"))),
    }
}

/// How JSON calls the type of a value.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The fields of a request's body.
    pub fn of_body(values: &'a Map<String, Value>) -> Self {
        Self { path: String::new(), values }
    }

    /// The fields of a nested value, which must be an object.
    pub fn of_value(path: String, value: &'a Value) -> Result<Self, Refusal> {
        match value {
            Value::Object(values) => Ok(Self { path, values }),
            other => Err(wrong_type(path, "an object", other)),
        }
    }

    /// The full name of a field.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The raw value, unless absent or null.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// A boolean.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.read(name, "a boolean", Value::as_bool)
    }

    /// A string.
    pub fn string(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.read(name, "a string", Value::as_str)
    }

    /// A string that has to be there.
    pub fn required_string(&self, name: &str) -> Result<&'a str, Refusal> {
        self.string(name)?.ok_or_else(|| self.missing(name))
    }

    /// An array.
    pub fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Refusal> {
        self.read(name, "an array", Value::as_array)
    }

    /// A nested object.
    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, Refusal> {
        self.value(name).map(|value| Fields::of_value(self.path(name), value)).transpose()
    }

    /// An integer within bounds.
    pub fn integer(&self, name: &str, min: i64, max: i64) -> Result<Option<i64>, Refusal> {
        // Some clients write integers as 5.0.
        let as_integer = |value: &Value| match value.as_f64() {
            Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
                let whole = number as i64;
                value.as_i64().or(Some(whole))
            }
            _ => None,
        };
        let Some(number) = self.read(name, "an integer", as_integer)? else { return Ok(None) };
        if (min..=max).contains(&number) {
            return Ok(Some(number));
        }
        Err(self.out_of_range(name, &number.to_string(), &min.to_string(), &max.to_string()))
    }

    /// A number within bounds.
    pub fn number(&self, name: &str, min: f64, max: f64) -> Result<Option<f32>, Refusal> {
        let Some(number) = self.read(name, "a number", Value::as_f64)? else { return Ok(None) };
        if !(min..=max).contains(&number) {
            return Err(self.out_of_range(name, &number.to_string(), &min.to_string(), &max.to_string()));
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounds are small; precision is not needed")]
        Ok(Some(number as f32))
    }

    /// A required parameter is not there.
    pub fn missing(&self, name: &str) -> Refusal {
        let path = self.path(name);
        let message = format!("missing required parameter '{path}'");
        Refusal::new(Complaint::MissingParameter, path, message)
    }

    /// A parameter's value is not one of the allowed ones.
    pub fn invalid(&self, name: &str, message: impl std::fmt::Display) -> Refusal {
        let path = self.path(name);
        let message = format!("'{path}' {message}");
        Refusal::new(Complaint::InvalidValue, path, message)
    }

    fn out_of_range(&self, name: &str, number: &str, min: &str, max: &str) -> Refusal {
        self.invalid(name, format!("is {number} and must be between {min} and {max}"))
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        as_type: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        as_type(value).map(Some).ok_or_else(|| wrong_type(self.path(name), expected, value))
    }
}

/// A value of the wrong type.
pub fn wrong_type(path: String, expected: &str, found: &Value) -> Refusal {
    let message = format!("'{path}' must be {expected}, not {}", type_name(found));
    Refusal::new(Complaint::InvalidType, path, message)
}
