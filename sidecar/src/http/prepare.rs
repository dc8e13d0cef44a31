//! From a body to generations with their places in the queue. All that can be wrong with a request is found here,
//! before any status line is sent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use engine::{EngineError, Generation, ModelFacts, Token};

use super::app::App;
use super::error::ApiError;
use super::headers::{MEASURED, PRIORITY, READ_TIMEOUT, TENANT, attempt, random_id};
use crate::generate::Wanted;
use crate::openai::answer::{Endpoint, Envelope};
use crate::openai::chat::{ChatRequest, Message};
use crate::openai::completion::{CompletionRequest, Prompt};
use crate::openai::fields::parse_body;
use crate::openai::parameters::{StreamOptions, fit};
use crate::openai::template::ChatTemplate;
use crate::openai::veil::Veil;
use crate::openai::{Complaint, Parameters, Refusal};
use crate::queue::{Ticket, Tier};

/// Pause before the engine is asked again after it was lost between its "ready" and our question.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Pieces into which control texts may break a prompt. Each costs the engine a call; a conversation about the model's
/// own format has some dozens.
const PIECES_MAX: usize = 1_024;

/// Memory of one queued prompt token.
const TOKEN_BYTES: u64 = size_of::<Token>() as u64;

/// A valid request, in the queue.
pub struct Prepared {
    /// What is the same in every part of the answer.
    pub envelope: Envelope,
    /// Generations: all choices of the first prompt, then of the next.
    pub choices: Vec<Wanted>,
    /// Choices of each prompt.
    pub choices_per_prompt: usize,
    /// Whether and how the answer is streamed.
    pub stream: Option<StreamOptions>,
    /// How urgent it was born.
    pub tier: Tier,
    /// When it came.
    pub arrived: Instant,
}

/// What is to be generated, before tokens.
enum Asked {
    Chat(ChatRequest),
    Completion(CompletionRequest),
}

impl Asked {
    fn parameters(&self) -> &Parameters {
        match self {
            Self::Chat(request) => &request.parameters,
            Self::Completion(request) => &request.parameters,
        }
    }
}

/// Reads, checks, tokenizes and queues.
pub async fn prepare(
    app: &App,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: &[u8],
    arrived: Instant,
) -> Result<Prepared, ApiError> {
    let asked = read(endpoint, body)?;
    let parameters = asked.parameters();
    if !app.serves(&parameters.model) {
        return Err(ApiError::ModelNotFound(parameters.model.clone()));
    }
    let manner = Manner::of(app, headers, parameters, arrived)?;
    let facts = app.facts(manner.deadline).await?;
    check_token_ids(parameters.sampling.logit_bias.iter().map(|(token, _)| *token), &facts, "logit_bias")?;
    let (prompts, param) = tokens(app, &asked, &facts, manner.deadline).await?;

    let mut choices = Vec::with_capacity(prompts.len() * parameters.choices as usize);
    for prompt in prompts {
        let output_max = app.settings.output_tokens_max;
        let max_tokens = fit(prompt.len(), parameters.max_tokens, output_max, facts.context_length, param)?;
        for number in 0..parameters.choices {
            choices.push(Wanted {
                generation: generation(parameters, prompt.clone(), max_tokens, number, manner.tenant),
                queued: app.source.queue.submit(manner.ticket(body.len(), prompt.len(), arrived))?,
                attempt: manner.attempt,
            });
        }
    }
    Ok(Prepared {
        envelope: Envelope {
            is_measured: headers.contains_key(MEASURED),
            ..envelope(app, endpoint, parameters)
        },
        choices,
        choices_per_prompt: parameters.choices as usize,
        stream: parameters.stream,
        tier: manner.tier,
        arrived,
    })
}

fn read(endpoint: Endpoint, body: &[u8]) -> Result<Asked, Refusal> {
    let body = parse_body(body)?;
    match endpoint {
        Endpoint::Chat => ChatRequest::read(&body).map(Asked::Chat),
        Endpoint::Completion => CompletionRequest::read(&body).map(Asked::Completion),
    }
}

/// How a request is to be treated, from its parameters and headers.
struct Manner {
    tier: Tier,
    tenant: u64,
    deadline: Instant,
    attempt: u8,
}

impl Manner {
    fn of(
        app: &App,
        headers: &HeaderMap,
        parameters: &Parameters,
        arrived: Instant,
    ) -> Result<Self, ApiError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let by_header = match text(PRIORITY) {
            Some(name) => Some(Tier::named(name).ok_or_else(|| {
                let message = format!("the header '{PRIORITY}' must be one of vip, high, normal, low");
                Refusal::new(Complaint::InvalidValue, PRIORITY.as_str(), message)
            })?),
            None => None,
        };
        // Whoever hangs up after its read time-out need not be waited for longer, unless it names a deadline itself.
        let client_waits = text(READ_TIMEOUT).and_then(|seconds| seconds.parse::<u32>().ok());
        let undeclared = client_waits.map_or(app.settings.default_timeout, |seconds| {
            app.settings.default_timeout.min(Duration::from_secs(seconds.into()))
        });
        Ok(Self {
            tier: parameters.priority.or(by_header).unwrap_or(app.settings.default_priority),
            tenant: tenant_key(text(TENANT).or(parameters.user.as_deref()).unwrap_or("")),
            deadline: arrived + parameters.deadline.unwrap_or(undeclared),
            attempt: attempt(headers),
        })
    }

    fn ticket(&self, body_bytes: usize, prompt_tokens: usize, arrived: Instant) -> Ticket {
        let prompt_tokens = prompt_tokens as u64;
        Ticket {
            tier: self.tier,
            tenant: self.tenant,
            prompt_tokens,
            bytes: body_bytes as u64 + prompt_tokens * TOKEN_BYTES,
            arrived,
            deadline: self.deadline,
        }
    }
}

/// Tenants are told apart by number below the edge.
fn tenant_key(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The prompts in tokens, and the parameter that they came from.
async fn tokens(
    app: &App,
    asked: &Asked,
    facts: &Arc<ModelFacts>,
    deadline: Instant,
) -> Result<(Vec<Vec<Token>>, &'static str), ApiError> {
    match asked {
        Asked::Chat(request) => Ok((vec![chat_tokens(app, request, facts, deadline).await?], "messages")),
        Asked::Completion(request) => {
            let bos = if facts.adds_bos {
                tokenize(app, &facts.bos_text, true, "prompt", deadline).await?
            } else {
                Vec::new()
            };
            let mut prompts = Vec::with_capacity(request.prompts.len());
            for prompt in &request.prompts {
                prompts.push(match prompt {
                    Prompt::Text(text) => {
                        let text = tokenize(app, text, false, "prompt", deadline).await?;
                        [bos.as_slice(), text.as_slice()].concat()
                    }
                    Prompt::Tokens(tokens) => {
                        check_token_ids(tokens.iter().copied(), facts, "prompt")?;
                        tokens.clone()
                    }
                });
            }
            Ok((prompts, "prompt"))
        }
    }
}

/// The conversation in tokens. The template's control texts become control tokens, the users' do not.
async fn chat_tokens(
    app: &App,
    request: &ChatRequest,
    facts: &ModelFacts,
    deadline: Instant,
) -> Result<Vec<Token>, ApiError> {
    let refusal = |why: &str| Refusal::new(Complaint::InvalidValue, "messages", format!("'messages' {why}"));
    let written = request.messages.iter().flat_map(Message::texts);
    let veil = Veil::new(&facts.control_texts, &written)
        .ok_or_else(|| refusal("use every character of the private use area"))?;
    let messages: Vec<_> = request
        .messages
        .iter()
        .map(|message| message.with_texts(|text| veil.over(text).into_owned()))
        .collect();
    let template = ChatTemplate::new(facts.chat_template.as_deref(), &facts.bos_text, &facts.eos_text);
    let mut text = template.render(&messages, jiff::Timestamp::now())?;
    // Many templates write the token themselves; then it must not come twice.
    if facts.adds_bos && !text.starts_with(&facts.bos_text) {
        text.insert_str(0, &facts.bos_text);
    }
    if veil.lift(&text).nth(PIECES_MAX).is_some() {
        return Err(refusal("contain too many texts of the model's control tokens").into());
    }
    let mut tokens = Vec::new();
    for piece in veil.lift(&text) {
        tokens.extend(tokenize(app, piece, true, "messages", deadline).await?);
    }
    Ok(tokens)
}

/// Asks the engine, and asks again when it was lost meanwhile.
async fn tokenize(
    app: &App,
    text: &str,
    parse_special: bool,
    param: &str,
    deadline: Instant,
) -> Result<Vec<Token>, ApiError> {
    loop {
        app.facts(deadline).await?;
        match app.tokenize(text.to_owned(), parse_special).await {
            Ok(tokens) => return Ok(tokens),
            Err(EngineError::Rejected(why)) => {
                return Err(Refusal::new(Complaint::InvalidValue, param, why).into());
            }
            Err(_) if Instant::now() >= deadline => return Err(ApiError::EngineLost),
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

fn check_token_ids(
    mut ids: impl Iterator<Item = Token>,
    facts: &ModelFacts,
    param: &'static str,
) -> Result<(), Refusal> {
    let vocabulary = facts.vocabulary;
    match ids.find(|id| u32::try_from(*id).map_or(true, |id| id >= vocabulary)) {
        None => Ok(()),
        Some(id) => {
            let message = format!(
                "'{param}' has the token id {id}, and this model's vocabulary has {vocabulary} tokens; token ids of \
                 another model's tokenizer cannot be used"
            );
            Err(Refusal::new(Complaint::InvalidValue, param, message))
        }
    }
}

fn generation(
    parameters: &Parameters,
    prompt: Vec<Token>,
    max_tokens: u32,
    number: u32,
    tenant: u64,
) -> Generation {
    let mut sampling = parameters.sampling.clone();
    // Choices of one request differ, and differ in the same way each time the same seed is given.
    sampling.seed = parameters.seed.map_or_else(|| fastrand::u32(..), |seed| seed.wrapping_add(number));
    Generation {
        prompt,
        max_tokens,
        sampling,
        stop: parameters.stop.clone(),
        ignore_end: parameters.ignore_end,
        logprobs: parameters.logprobs,
        cache_key: tenant,
    }
}

fn envelope(app: &App, endpoint: Endpoint, parameters: &Parameters) -> Envelope {
    let prefix = match endpoint {
        Endpoint::Chat => "chatcmpl-",
        Endpoint::Completion => "cmpl-",
    };
    Envelope {
        endpoint,
        id: random_id(prefix),
        created: jiff::Timestamp::now().as_second().max(app.created),
        model: parameters.model.clone(),
        has_logprobs: parameters.logprobs.is_some(),
        includes_usage: parameters.stream.is_some_and(|stream| stream.include_usage),
        is_measured: false,
    }
}
