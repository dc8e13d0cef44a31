//! The child process: check the file, load the model, then its threads: one decodes, one reads the socket, two
//! tokenize. Ends when its socket ends, so that it never outlives the sidecar. Must not know why it was started.

use std::{
    fs::File,
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::lock,
    decoding::{Decoding, Task, Told},
    gguf::{self, GgufError, GgufFacts},
    llama::{Backend, Context, ContextSize, Details, Model},
    memory::{self, Demand},
    protocol::{self, FromWorker, ToWorker},
    request::{FlashAttention, KvCacheType, LoadFailure, LoadFailureKind, ModelFacts},
    sequence::Vocabulary,
    supervisor::EXIT_LOAD_FAILED,
};

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The GGUF file (the first part of a split model).
    pub model: PathBuf,
    /// Context length of each slot; 0 means the length that the model was trained with.
    pub context_length: u32,
    /// How many sequences are decoded side by side.
    pub parallel_slots: u32,
    /// Layers to offload; `u32::MAX` means all.
    pub gpu_layers: u32,
    /// Flash attention.
    pub flash_attention: FlashAttention,
    /// Number format of the key-value cache.
    pub kv_cache_type: KvCacheType,
    /// Threads; 0 means as many as the process may use.
    pub threads: u32,
    /// Tokens of one batch.
    pub batch_tokens: u32,
}

/// Frames that may wait for the loop; then the socket fills and the sidecar's sender waits.
const TASKS_WAITING_MAX: usize = 1024;
/// Texts that may wait for the tokenizer.
const TEXTS_WAITING_MAX: usize = 64;
/// Threads that tokenize: with two, a text of megabytes does not hold up the short ones behind it.
const TOKENIZERS: usize = 2;
/// How long the loop may take to end after the socket did; then the process ends without it.
const FAREWELL: Duration = Duration::from_secs(3);
/// Context of a slot when none is asked for. Models are trained for 131,072 tokens and more; for four slots of an
/// 8B model that would be 64 GiB of cache beside 5 GiB of weights. 8,192 take 4 GiB and hold a long conversation.
const CONTEXT_DEFAULT_MAX: u32 = 8_192;

/// Serves until the socket on standard input ends.
pub fn run(options: &Options) -> ExitCode {
    // A half-alive worker would look like a slow one.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let socket = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => UnixStream::from(socket),
        Err(error) => {
            eprintln!("inferno-engine: standard input must be a socket: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Ok(writer) = socket.try_clone() else { return ExitCode::FAILURE };
    let sink = Sink { socket: Arc::new(Mutex::new(writer)) };
    match serve(options, socket, &sink) {
        Ok(()) => ExitCode::SUCCESS,
        Err(End::LoadFailed(failure)) => {
            eprintln!("inferno-engine: {failure}");
            sink.send(&FromWorker::Failed(failure));
            ExitCode::from(u8::try_from(EXIT_LOAD_FAILED).expect("a small constant"))
        }
        Err(End::Broken(message)) => {
            eprintln!("inferno-engine: {message}");
            ExitCode::FAILURE
        }
    }
}

enum End {
    LoadFailed(LoadFailure),
    Broken(String),
}

fn failure(kind: LoadFailureKind, message: impl Into<String>) -> End {
    End::LoadFailed(LoadFailure { kind, message: message.into() })
}

/// The socket's writing side. Frames are written whole; the other side always reads, because its reading task
/// never waits for anything else.
#[derive(Debug, Clone)]
struct Sink {
    socket: Arc<Mutex<UnixStream>>,
}

impl Sink {
    fn send(&self, frame: &FromWorker) {
        // If nobody listens any more, the reading thread sees the same and ends the process.
        let _ = self.try_send(frame);
    }

    /// An answer that is too large for a frame is replaced by a refusal, so that nobody waits for it.
    fn answer(&self, id: u64, frame: &FromWorker) {
        if let Err(error @ protocol::FrameError::TooLarge { .. }) = self.try_send(frame) {
            self.send(&FromWorker::Refused { id, why: error.to_string() });
        }
    }

    fn try_send(&self, frame: &FromWorker) -> Result<(), protocol::FrameError> {
        let bytes = protocol::encode(frame)?;
        Ok(lock(&self.socket).write_all(&bytes)?)
    }
}

fn serve(options: &Options, socket: UnixStream, sink: &Sink) -> Result<(), End> {
    // From the beginning, so that a sidecar that dies while a large model is loaded leaves nothing behind.
    let inboxes = start_reading(socket, sink);
    let facts = pre_flight(&options.model)?;
    let backend = Backend::start();
    let progress = sink.clone();
    let mut told = None;
    let model = Model::load(&backend, &options.model, options.gpu_layers, move |percent| {
        if told.replace(percent) != Some(percent) {
            progress.send(&FromWorker::Loading { percent });
        }
    });
    let model = model.map_err(|why| {
        failure(LoadFailureKind::Invalid, format!("llama.cpp cannot load this model: {why}"))
    })?;
    if !model.can_generate() {
        return Err(failure(LoadFailureKind::Invalid, "this model does not generate text token by token"));
    }
    let model = Arc::new(model);
    let details = model.details();
    let size = size(options, &details)?;
    check_memory(options, &model, &details, &size)?;
    let context = Context::new(&model, size).ok_or_else(|| {
        let (length, slots) = (size.context_length, size.slots);
        let message = format!("a context of {length} tokens for each of {slots} slots cannot be created");
        failure(LoadFailureKind::DoesNotFit, message)
    })?;
    let decoding = Decoding::new(&model, context, size);
    sink.send(&FromWorker::Ready(model_facts(facts, details, &size, options, &model)));
    let texts = Arc::new(Mutex::new(inboxes.texts));
    for _ in 0..TOKENIZERS {
        let (vocabulary, texts, answers) = (model.clone(), texts.clone(), sink.clone());
        spawn("tokenize", move || answer_texts(&vocabulary, &texts, &answers));
    }
    let tell = |told: Told| sink.send(&FromWorker::Step { outputs: told.outputs, stats: told.stats });
    decoding.run(&inboxes.tasks, tell).map_err(|error| End::Broken(error.to_string()))
}

/// Everything that can be said about the file without llama.cpp, which may abort on what it does not expect.
fn pre_flight(path: &Path) -> Result<GgufFacts, End> {
    let missing =
        |error: std::io::Error| failure(LoadFailureKind::Missing, format!("the model file: {error}"));
    let mut file = File::open(path).map_err(missing)?;
    gguf::inspect(&mut file).map_err(|error| {
        let kind = match &error {
            GgufError::NotGguf { .. } => LoadFailureKind::NotGguf,
            GgufError::Truncated { .. } => LoadFailureKind::Truncated,
            GgufError::Invalid { .. } => LoadFailureKind::Invalid,
            GgufError::Io(_) => LoadFailureKind::Missing,
        };
        failure(kind, error.to_string())
    })
}

fn size(options: &Options, details: &Details) -> Result<ContextSize, End> {
    let slots = options.parallel_slots;
    let slots_max = Context::slots_max();
    if slots == 0 || slots as usize > slots_max {
        return Err(failure(
            LoadFailureKind::Program,
            format!("{slots} slots are not within 1 and {slots_max}"),
        ));
    }
    let context_length = match options.context_length {
        0 => details.trained_context_length.min(CONTEXT_DEFAULT_MAX),
        length => length,
    };
    if context_length < 2 {
        return Err(failure(LoadFailureKind::Invalid, "a context of fewer than two tokens holds no answer"));
    }
    let is_quantized = options.kv_cache_type != KvCacheType::F16;
    let flash_attention = match (options.flash_attention, is_quantized) {
        (FlashAttention::Off, true) => {
            let message = "a quantized key-value cache needs flash attention, which is off";
            return Err(failure(LoadFailureKind::Program, message));
        }
        (FlashAttention::Auto, true) => FlashAttention::On,
        (asked, _) => asked,
    };
    let threads = match options.threads {
        0 => thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
        threads => threads,
    };
    Ok(ContextSize {
        context_length,
        slots,
        // A batch holds a token of every slot and still some of a prompt.
        batch_tokens: options.batch_tokens.max(slots + 32),
        threads: threads.min(512),
        flash_attention,
        kv_cache_type: options.kv_cache_type,
    })
}

/// Only for models that stay in main memory; an accelerator's memory is llama.cpp's to judge.
fn check_memory(options: &Options, model: &Model, details: &Details, size: &ContextSize) -> Result<(), End> {
    if model.offloads() && options.gpu_layers > 0 {
        return Ok(());
    }
    let tokens = u64::from(size.context_length) * u64::from(size.slots);
    // A recurrent model's memory does not grow with the context.
    let per_token = if model.can_cut_memory() { model.kv_bytes_per_token(size.kv_cache_type) } else { 0 };
    let demand = Demand { weights: details.size_bytes, context: tokens.saturating_mul(per_token) };
    let cgroup = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
    let limit = memory::limit(cgroup.as_deref(), meminfo.as_deref());
    memory::check(demand, limit).map_err(|message| failure(LoadFailureKind::DoesNotFit, message))
}

fn model_facts(
    facts: GgufFacts,
    details: Details,
    size: &ContextSize,
    options: &Options,
    model: &Model,
) -> ModelFacts {
    ModelFacts {
        architecture: facts.architecture,
        quantization: facts.quantization,
        trained_context_length: details.trained_context_length,
        context_length: size.context_length,
        parallel_slots: size.slots,
        vocabulary: u32::try_from(model.size()).unwrap_or(u32::MAX),
        layers: details.layers,
        layers_offloaded: if model.offloads() { options.gpu_layers.min(details.layers) } else { 0 },
        parameters: details.parameters,
        size_bytes: details.size_bytes,
        chat_template: details.chat_template,
        bos_text: details.bos_text,
        eos_text: details.eos_text,
        control_texts: model.control_texts(),
        adds_bos: details.adds_bos,
    }
}

/// What the reading thread hands on.
struct Inboxes {
    tasks: Receiver<Task>,
    texts: Receiver<ToWorker>,
}

fn start_reading(socket: UnixStream, sink: &Sink) -> Inboxes {
    let (tasks, tasks_in) = mpsc::sync_channel(TASKS_WAITING_MAX);
    let (texts, texts_in) = mpsc::sync_channel(TEXTS_WAITING_MAX);
    let refusals = sink.clone();
    spawn("read", move || {
        read_socket(socket, &tasks, &texts, &refusals);
        // The loop ends after its step when its inbox closes. If it hangs, or still loads the model, the process
        // ends without it.
        drop((tasks, texts));
        thread::sleep(FAREWELL);
        std::process::abort();
    });
    Inboxes { tasks: tasks_in, texts: texts_in }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .expect("a process at its start can have a thread");
}

fn read_socket(mut socket: UnixStream, tasks: &SyncSender<Task>, texts: &SyncSender<ToWorker>, sink: &Sink) {
    loop {
        let is_taken = match protocol::read_frame(&mut socket) {
            Ok(ToWorker::Start { id, generation }) => {
                tasks.send(Task::Start { id, generation, arrived: Instant::now() }).is_ok()
            }
            Ok(ToWorker::Cancel { id }) => tasks.send(Task::Cancel { id }).is_ok(),
            // The reader must stay free for cancels, so it does not wait for the tokenizer.
            Ok(text) => hand_over(text, texts, sink),
            Err(protocol::FrameError::Closed) => return,
            Err(error) => {
                eprintln!("inferno-engine: {error}");
                return;
            }
        };
        if !is_taken {
            return;
        }
    }
}

fn hand_over(text: ToWorker, texts: &SyncSender<ToWorker>, sink: &Sink) -> bool {
    match texts.try_send(text) {
        Ok(()) => true,
        Err(mpsc::TrySendError::Full(ToWorker::Tokenize { id, .. } | ToWorker::Detokenize { id, .. })) => {
            sink.send(&FromWorker::Refused { id, why: "too many texts wait for the tokenizer".into() });
            true
        }
        Err(_) => false,
    }
}

fn answer_texts(model: &Model, texts: &Mutex<Receiver<ToWorker>>, sink: &Sink) {
    // The lock is held while waiting: whoever has it takes the next text and lets the other one wait.
    let next = || lock(texts).recv();
    while let Ok(text) = next() {
        match text {
            ToWorker::Tokenize { id, text, parse_special } => {
                sink.answer(id, &FromWorker::Tokens { id, tokens: model.tokenize(&text, parse_special) });
            }
            ToWorker::Detokenize { id, tokens } => sink.answer(id, &detokenized(model, id, &tokens)),
            ToWorker::Start { .. } | ToWorker::Cancel { .. } => unreachable!("these go to the loop"),
        }
    }
}

fn detokenized(model: &Model, id: u64, tokens: &[i32]) -> FromWorker {
    let exists = |token: &i32| usize::try_from(*token).is_ok_and(|token| token < model.size());
    if let Some(token) = tokens.iter().find(|token| !exists(token)) {
        return FromWorker::Refused { id, why: format!("the token {token} is not in the vocabulary") };
    }
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| model.text_bytes(*token)).collect();
    FromWorker::Text { id, text: String::from_utf8_lossy(&bytes).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_too_large_for_a_frame_becomes_a_refusal() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sink = Sink { socket: Arc::new(Mutex::new(ours)) };
        sink.answer(7, &FromWorker::Tokens { id: 7, tokens: vec![i32::MAX; protocol::FRAME_BYTES_MAX / 4] });
        let frame = protocol::read_frame(&mut theirs).unwrap();
        assert!(matches!(frame, FromWorker::Refused { id: 7, .. }), "{frame:?}");
    }
}
