//! Messages to text, by the model's own chat template (Jinja) or by ChatML when it has none. A template comes from a
//! model file, so it is not trusted: its work and its output are bounded. Pure; `now` is an argument.

use std::io;

use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

use super::chat::Message;
use super::fields::{Complaint, Refusal};

/// Instructions of one rendering. A message costs some dozens, so the longest conversation allowed needs a tenth.
const FUEL: u64 = 2_000_000;

/// Bytes that a rendering may add to what the messages hold; templates add a few dozen per message.
const OUTPUT_SLACK: usize = 1 << 20;

/// What models without a template get.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A model's chat template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
    bos_text: String,
    eos_text: String,
}

impl ChatTemplate {
    /// The model's template, or ChatML.
    pub fn new(source: Option<&str>, bos_text: &str, eos_text: &str) -> Self {
        Self {
            source: source.unwrap_or(CHATML).to_owned(),
            bos_text: bos_text.to_owned(),
            eos_text: eos_text.to_owned(),
        }
    }

    /// The prompt for these messages, up to where the assistant speaks.
    pub fn render(&self, messages: &[Message], now: Timestamp) -> Result<String, Refusal> {
        self.try_render(messages, now).map_err(|error| {
            // The template's own words, if it raised them: they tell the client what it does not accept.
            let why = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            let message = format!("the model's chat template does not accept these messages: {why}");
            Refusal::new(Complaint::InvalidMessages, "messages", message)
        })
    }

    fn try_render(&self, messages: &[Message], now: Timestamp) -> Result<String, Error> {
        let environment = environment(now)?;
        let template = environment.template_from_named_str("chat_template", &self.source)?;
        let held: usize = messages.iter().map(|message| message.content.len()).sum();
        let mut prompt = Bounded { text: Vec::new(), bytes_max: 2 * held + OUTPUT_SLACK };
        template.render_captured_to(
            context! {
                messages => messages.iter().map(message_value).collect::<Vec<_>>(),
                add_generation_prompt => true,
                bos_token => self.bos_text.as_str(),
                eos_token => self.eos_text.as_str(),
            },
            &mut prompt,
        )?;
        String::from_utf8(prompt.text)
            .map_err(|_| Error::new(ErrorKind::BadSerialization, "the template cut a character"))
    }
}

fn message_value(message: &Message) -> Value {
    let mut fields = vec![("role", message.role), ("content", message.content.as_str())];
    // Templates ask whether there is a name, so an absent one must not be there.
    fields.extend(message.name.as_deref().map(|name| ("name", name)));
    Value::from_pairs(fields)
}

/// As the hub's libraries set it up.
fn environment<'source>(now: Timestamp) -> Result<Environment<'source>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: String| -> Result<String, Error> {
        let zoned = now.to_zoned(jiff::tz::TimeZone::UTC);
        jiff::fmt::strtime::format(&format, &zoned)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    Ok(environment)
}

/// Collects output up to a limit.
struct Bounded {
    text: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.bytes_max {
            return Err(io::Error::other("the rendered prompt is too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &'static str, content: &str) -> Message {
        Message { role, content: content.into(), name: None }
    }

    fn check(source: Option<&str>, messages: &[Message]) -> Result<String, Refusal> {
        let now = Timestamp::from_second(1_750_000_000).unwrap();
        ChatTemplate::new(source, "<s>", "</s>").render(messages, now)
    }

    #[test]
    fn a_model_without_a_template_gets_chatml() {
        let prompt = check(None, &[message("system", "Be brief."), message("user", "Hi")]).unwrap();
        assert_eq!(
            prompt,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn templates_may_use_python_methods_and_the_date() {
        let source = "{{ bos_token }}{{ messages[0].content.strip().upper() }} {{ strftime_now('%Y-%m') }}";
        assert_eq!(check(Some(source), &[message("user", " hi ")]).unwrap(), "<s>HI 2025-06");
    }

    #[test]
    fn what_a_template_raises_is_the_clients_message() {
        let source = "{{ raise_exception('roles must alternate') }}";
        let refusal = check(Some(source), &[message("user", "hi")]).unwrap_err();
        assert_eq!(refusal.complaint, Complaint::InvalidMessages);
        assert!(refusal.message.ends_with("roles must alternate"), "{}", refusal.message);
    }

    #[test]
    fn endless_work_and_endless_output_end() {
        let work =
            "{% for i in range(9999) %}{% for j in range(9999) %}{% set x = i %}{% endfor %}{% endfor %}";
        let output = "{% for i in range(9999) %}{{ 'x' * 1000 }}{% endfor %}";
        for source in [work, output] {
            assert!(check(Some(source), &[message("user", "hi")]).is_err());
        }
    }
}
