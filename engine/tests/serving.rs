//! The real worker with a real model: what the sidecar may rely on. Asserts behaviour, never what the model says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use engine::{
    Engine, EngineConfig, EngineError, EngineState, Event, FinishReason, FlashAttention, Generation,
    KvCacheType, LoadFailureKind, Reuse, Running, Sampling, Token, TokenOutput, Usage, protocol,
};
use tokio::time::timeout;

/// Far more than anything here takes on a busy machine; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(120);

const BINARY: &str = env!("CARGO_BIN_EXE_inferno-engine");

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/model/tiny.gguf")
}

fn config() -> EngineConfig {
    EngineConfig {
        binary: BINARY.into(),
        model: model(),
        context_length: 512,
        parallel_slots: 4,
        gpu_layers: 0,
        flash_attention: FlashAttention::Auto,
        kv_cache_type: KvCacheType::F16,
        threads: 1,
    }
}

async fn started(config: EngineConfig) -> Engine {
    let engine = Engine::start(config);
    until(&engine, |state| matches!(state, EngineState::Ready(_))).await;
    engine
}

async fn until(engine: &Engine, is_it: impl FnMut(&EngineState) -> bool) -> EngineState {
    let mut state = engine.state();
    let reached = timeout(LONG, state.wait_for(is_it)).await.expect("the state is reached in time");
    reached.expect("the supervisor lives").clone()
}

fn greedy() -> Sampling {
    Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        repeat_penalty: 1.0,
        logit_bias: Vec::new(),
        seed: 0,
    }
}

/// Goes on past the model's own end, so that its length does not depend on how the model was trained.
fn generation(prompt: &[Token], max_tokens: u32) -> Generation {
    Generation {
        prompt: prompt.to_vec(),
        max_tokens,
        sampling: greedy(),
        stop: Vec::new(),
        ignore_end: true,
        logprobs: None,
        cache_key: 1,
    }
}

async fn tokens(engine: &Engine, text: &str) -> Vec<Token> {
    engine.tokenize(text.to_owned(), true).await.unwrap()
}

#[derive(Debug, Default)]
struct Said {
    text: String,
    outputs: Vec<TokenOutput>,
    end: Option<(FinishReason, Usage)>,
}

impl Said {
    fn tokens(&self) -> Vec<Token> {
        self.outputs.iter().map(|output| output.token).collect()
    }

    fn usage(&self) -> Usage {
        self.end.expect("it has ended").1
    }

    fn reason(&self) -> FinishReason {
        self.end.expect("it has ended").0
    }
}

async fn next(running: &mut Running) -> Option<Result<Event, EngineError>> {
    timeout(LONG, running.next()).await.expect("the engine goes on")
}

async fn listen(mut running: Running) -> Result<Said, EngineError> {
    let mut said = Said::default();
    while let Some(event) = next(&mut running).await {
        assert!(said.end.is_none(), "nothing follows the end");
        match event? {
            Event::Started { .. } => assert!(said.outputs.is_empty()),
            Event::Delta { text, tokens } => {
                said.text.push_str(&text);
                said.outputs.extend(tokens);
            }
            Event::Finished { reason, usage } => said.end = Some((reason, usage)),
        }
    }
    assert!(said.end.is_some(), "a stream without an error has an end");
    Ok(said)
}

async fn say(engine: &Engine, generation: Generation) -> Said {
    listen(engine.generate(generation).await.unwrap()).await.unwrap()
}

/// Reads until the first generated token, so that the sequence is known to be decoding.
async fn decoding(engine: &Engine, generation: Generation) -> Running {
    let mut running = engine.generate(generation).await.unwrap();
    while !matches!(next(&mut running).await.expect("it runs").unwrap(), Event::Delta { .. }) {}
    running
}

fn kill(engine: &Engine) {
    let pid = engine.pid().expect("there is a child").to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
}

#[tokio::test]
async fn the_facts_are_those_of_the_model() {
    let engine = started(config()).await;
    let EngineState::Ready(facts) = engine.state().borrow().clone() else { panic!("it is ready") };
    assert_eq!((facts.architecture.as_str(), facts.context_length, facts.parallel_slots), ("llama", 512, 4));
    assert!(facts.layers > 0 && facts.parameters > 100_000 && facts.vocabulary > 256, "{facts:?}");
    assert_eq!(facts.layers_offloaded, 0);
    assert!(facts.chat_template.as_ref().is_some_and(|template| template.contains("im_start")));
    let trained = started(EngineConfig { context_length: 0, parallel_slots: 1, ..config() }).await;
    let EngineState::Ready(trained) = trained.state().borrow().clone() else { panic!("it is ready") };
    assert_eq!(trained.context_length, facts.trained_context_length);
}

#[tokio::test]
async fn the_larger_demo_model_says_the_same_with_more_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let larger = folder.path().join("larger.gguf");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/model/larger_model.py");
    assert!(Command::new("python3").arg(script).arg("--out").arg(&larger).status().unwrap().success());
    let mut answers = Vec::new();
    for (model, layers) in [(model(), 4), (larger, 12)] {
        let engine = started(EngineConfig { model, ..config() }).await;
        let EngineState::Ready(facts) = engine.state().borrow().clone() else { panic!("it is ready") };
        assert_eq!(facts.layers, layers);
        let prompt = tokens(&engine, "<|im_start|>user\nTell me about Cinderby.<|im_end|>\n").await;
        answers.push(say(&engine, generation(&prompt, 100)).await.tokens());
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn text_becomes_tokens_and_text_again() {
    let engine = started(config()).await;
    let text = "Where is the café? 🌍 <|im_end|>";
    let plain = engine.tokenize(text.into(), false).await.unwrap();
    assert_eq!(engine.detokenize(plain.clone()).await.unwrap(), text);
    let parsed = tokens(&engine, text).await;
    assert!(parsed.len() < plain.len(), "a control token is one token when it is parsed");
    assert!(tokens(&engine, "").await.is_empty());
    let foreign = engine.detokenize(vec![i32::MAX]).await;
    assert!(matches!(foreign, Err(EngineError::Rejected(_))), "{foreign:?}");
}

#[tokio::test]
async fn what_no_frame_can_hold_is_refused_instead_of_waited_for() {
    let engine = started(config()).await;
    let refused = timeout(LONG, engine.tokenize("a".repeat(protocol::FRAME_BYTES_MAX), false)).await;
    assert!(matches!(refused.expect("an answer"), Err(EngineError::Rejected(_))));
}

#[tokio::test]
async fn a_long_conversation_is_cut_for_the_tokenizer_without_a_trace() {
    let engine = started(config()).await;
    let turn = "<|im_start|>user\nWhere is the river?<|im_end|>\n";
    let once = tokens(&engine, turn).await;
    assert_eq!(tokens(&engine, &turn.repeat(2000)).await, once.repeat(2000));
    // llama.cpp alone takes the square of this number of steps, which is minutes.
    let marks = timeout(LONG, tokens(&engine, &"<|im_start|>".repeat(400_000))).await.expect("linear time");
    assert_eq!(marks.len(), 400_000);
}

#[tokio::test]
async fn greedy_decoding_repeats_itself_and_keeps_to_its_length() {
    let engine = started(config()).await;
    // Longer than the answer: a slot is not taken from a conversation for less than half of what it holds.
    let story =
        "The river runs past the house on the hill, and in the house lives a baker who likes the rain.";
    let prompt = tokens(&engine, &format!("{story} Once there was a")).await;
    let first = say(&engine, generation(&prompt, 24)).await;
    assert_eq!((first.reason(), first.outputs.len()), (FinishReason::Length, 24));
    assert_eq!((first.usage().completion_tokens, first.usage().cached_tokens), (24, 0));
    assert_eq!((first.usage().decoded_tokens, first.usage().decode_steps), (23, 23));
    assert!(first.usage().is_unqueued && first.usage().overlap_us == 0, "it was alone");
    let again = say(&engine, generation(&prompt, 24)).await;
    assert!(again.usage().cached_tokens > 0, "the second time the prompt is remembered");
    let stranger = say(&engine, Generation { cache_key: 2, ..generation(&prompt, 24) }).await;
    assert_eq!(stranger.usage().cached_tokens, 0, "but not for another tenant");
    assert_eq!((&stranger.text, stranger.tokens()), (&first.text, first.tokens()));
    let stats = engine.stats();
    assert_eq!((stats.output_tokens_total, stats.busy_slots, stats.stalled_us), (72, 0, None));
    assert_eq!(stats.prompt_tokens_total + stats.cached_tokens_total, 3 * prompt.len() as u64);
    assert_eq!(stats.decode_by_batch.iter().map(|(calls, _, _)| calls).sum::<u64>(), 3 * 23);
    assert!(stats.kv_tokens_used > 0 && stats.kv_tokens_used <= stats.kv_tokens_total);
}

#[tokio::test]
async fn sequences_beside_each_other_say_what_they_say_alone() {
    let engine = started(config()).await;
    let watched = |prompt: &[Token]| Generation { logprobs: Some(2), ..generation(prompt, 24) };
    let mut alone = Vec::new();
    for text in ["The river", "A house on the hill", "Who lives in the", "Green and blue, said"] {
        let prompt = tokens(&engine, text).await;
        alone.push((prompt.clone(), say(&engine, watched(&prompt)).await));
    }
    let mut running = Vec::new();
    for (prompt, _) in &alone {
        running.push(engine.generate(watched(prompt)).await.unwrap());
    }
    for ((_, alone), running) in alone.iter().zip(running) {
        let together = listen(running).await.unwrap();
        assert_eq!(together.outputs.len(), 24);
        let pairs = alone.outputs.iter().zip(&together.outputs);
        let Some((one, other)) = pairs.into_iter().find(|(one, other)| one.token != other.token) else {
            continue;
        };
        // Batches of other sizes add up in another order, so tokens that are almost equally likely may change
        // places. Anything more would be another sequence's state shining through.
        let gap = (one.logprob.unwrap() - other.logprob.unwrap()).abs();
        assert!(gap < 0.05 && one.top[0].2 - one.top[1].2 < 0.05, "{one:?} alone, {other:?} together");
    }
    let shared_steps: u64 = engine.stats().decode_by_batch[1..].iter().map(|(calls, _, _)| calls).sum();
    assert!(shared_steps > 0, "they did run beside each other");
}

#[tokio::test]
async fn a_seed_repeats_a_draw_and_another_seed_does_not() {
    let engine = started(config()).await;
    let prompt = tokens(&engine, "Once there was").await;
    let drawn = async |seed| {
        let sampling = Sampling { temperature: 1.5, seed, ..greedy() };
        say(&engine, Generation { sampling, ..generation(&prompt, 40) }).await.tokens()
    };
    let first = drawn(7).await;
    assert_eq!(drawn(7).await, first);
    assert_ne!(drawn(8).await, first);
}

#[tokio::test]
async fn log_probabilities_come_with_every_token_when_asked_for() {
    let engine = started(config()).await;
    let prompt = tokens(&engine, "The sun").await;
    let said = say(&engine, Generation { logprobs: Some(5), ..generation(&prompt, 8) }).await;
    assert_eq!(said.outputs.len(), 8);
    for output in &said.outputs {
        assert_eq!(output.top.len(), 5);
        assert_eq!((output.top[0].0, Some(output.top[0].2)), (output.token, output.logprob));
        assert!(output.top.windows(2).all(|pair| pair[0].2 >= pair[1].2 && pair[0].2 <= 0.0));
    }
    let bytes: Vec<u8> = said.outputs.iter().flat_map(|output| output.bytes.clone()).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), said.text);
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it() {
    let engine = started(config()).await;
    let prompt = tokens(&engine, "Once there was a").await;
    let free = say(&engine, generation(&prompt, 60)).await;
    let letters: Vec<char> = free.text.chars().collect();
    let is_text = |part: &&[char]| part.iter().all(|letter| *letter != char::REPLACEMENT_CHARACTER);
    let stop: String =
        letters.windows(3).skip(6).find(is_text).expect("three characters of text").iter().collect();
    let stopped = say(&engine, Generation { stop: vec![stop.clone()], ..generation(&prompt, 60) }).await;
    assert_eq!(stopped.reason(), FinishReason::Stop);
    assert_eq!(stopped.text, free.text[..free.text.find(&stop).unwrap()]);
}

#[tokio::test]
async fn a_prompt_beside_a_stream_overlaps_with_it_and_is_no_decode_call() {
    let engine = started(EngineConfig { context_length: 8192, ..config() }).await;
    let prompt = tokens(&engine, "Once there was").await;
    let stream = decoding(&engine, generation(&prompt, 8000)).await;
    let beside = Generation { cache_key: 2, ..generation(&prompt, 1) };
    let usage = say(&engine, beside).await.usage();
    assert!(usage.prefill_us > 0 && usage.overlap_us == usage.prefill_us, "{usage:?}");
    assert!(usage.is_unqueued, "there was a slot, and the stream had its prompt behind it");
    // Whatever was fed in it, a call with the second prompt is not among those of two sequences.
    assert_eq!(engine.stats().decode_by_batch[1], (0, 0, 0));
    drop(stream);
}

/// The conversation goes on: what was asked, what was said, and something new.
fn next_turn(prompt: &[Token], said: &Said) -> Vec<Token> {
    [prompt, &said.tokens(), prompt].concat()
}

#[tokio::test]
async fn the_next_turn_finds_its_memory_unless_the_worker_was_replaced() {
    let engine = started(config()).await;
    let first = tokens(&engine, "Who lives in the house on the hill?").await;
    let said = say(&engine, generation(&first, 8)).await;
    assert_eq!(said.usage().reuse, Reuse::NotDue);
    let second = next_turn(&first, &said);
    let said = say(&engine, generation(&second, 8)).await;
    assert_eq!(said.usage().reuse, Reuse::Hit, "{:?}", said.usage());
    assert!(said.usage().cached_tokens as usize >= first.len());
    let third = next_turn(&second, &said);
    let stranger = say(&engine, Generation { cache_key: 2, ..generation(&third, 8) }).await;
    assert_eq!(stranger.usage().reuse, Reuse::NotDue, "another tenant's turn");
    kill(&engine);
    until(&engine, |state| !matches!(state, EngineState::Ready(_))).await;
    until(&engine, |state| matches!(state, EngineState::Ready(_))).await;
    let said = say(&engine, generation(&third, 8)).await;
    assert_eq!((said.usage().reuse, said.usage().cached_tokens), (Reuse::NotDue, 0));
    let said = say(&engine, generation(&next_turn(&third, &said), 8)).await;
    assert_eq!(said.usage().reuse, Reuse::Hit, "the new worker remembers what it served itself");
}

#[tokio::test]
async fn a_dropped_stream_gives_its_slot_to_the_next() {
    let engine = started(EngineConfig { parallel_slots: 1, context_length: 8192, ..config() }).await;
    let prompt = tokens(&engine, "Once").await;
    let long = decoding(&engine, generation(&prompt, 8000)).await;
    let waiting = engine.generate(generation(&prompt, 4)).await.unwrap();
    drop(long);
    assert_eq!(listen(waiting).await.unwrap().outputs.len(), 4);
    let stats = engine.stats();
    assert!(stats.output_tokens_total < 8000, "the first one was stopped, not finished: {stats:?}");
}

#[tokio::test]
async fn a_long_prompt_does_not_hold_up_a_stream() {
    let engine = started(EngineConfig { parallel_slots: 2, context_length: 4096, ..config() }).await;
    let short = tokens(&engine, "Once").await;
    let long: Vec<Token> = short.iter().copied().cycle().take(3500).collect();
    // The long prompt needs at least seven batches of 512; the stream needs five steps.
    let mut stream = engine.generate(generation(&short, 5)).await.unwrap();
    let another = Generation { cache_key: 2, ..generation(&long, 1) };
    let mut prompted = engine.generate(another).await.unwrap();
    let first = next(&mut prompted).await.unwrap().unwrap();
    assert!(matches!(first, Event::Started { .. }), "{first:?}");
    // Whatever was told before that event is in the stream's buffer now.
    loop {
        let event = timeout(Duration::ZERO, stream.next()).await.expect("the stream has finished before");
        if let Event::Finished { .. } = event.unwrap().unwrap() {
            break;
        }
    }
}

#[tokio::test]
async fn more_generations_than_slots_wait_for_their_turn() {
    let engine = started(EngineConfig { parallel_slots: 2, ..config() }).await;
    let prompt = tokens(&engine, "The").await;
    let mut running = Vec::new();
    for _ in 0..9 {
        running.push(engine.generate(generation(&prompt, 6)).await.unwrap());
    }
    for running in running {
        assert_eq!(listen(running).await.unwrap().outputs.len(), 6);
    }
}

#[tokio::test]
async fn the_contexts_end_is_the_answers_end() {
    let engine = started(EngineConfig { context_length: 64, ..config() }).await;
    let one = tokens(&engine, "The").await;
    let prompt: Vec<Token> = one.iter().copied().cycle().take(60).collect();
    let said = say(&engine, generation(&prompt, 100)).await;
    assert_eq!((said.reason(), said.outputs.len()), (FinishReason::Length, 4));
    let full: Vec<Token> = one.iter().copied().cycle().take(64).collect();
    let refused = listen(engine.generate(generation(&full, 1)).await.unwrap()).await.unwrap_err();
    assert!(matches!(refused, EngineError::Rejected(_)), "{refused:?}");
    let refused = listen(engine.generate(generation(&[-5], 1)).await.unwrap()).await.unwrap_err();
    assert!(matches!(refused, EngineError::Rejected(_)), "{refused:?}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_and_others_go_on() {
    let engine = started(EngineConfig { context_length: 4096, ..config() }).await;
    let prompt = tokens(&engine, "Once").await;
    // Twenty alternatives per token fill the buffer within some hundreds of tokens.
    let chatty = Generation { logprobs: Some(20), ..generation(&prompt, 4000) };
    let slow = engine.generate(chatty).await.unwrap();
    assert_eq!(say(&engine, generation(&prompt, 600)).await.outputs.len(), 600);
    assert_eq!(listen(slow).await.unwrap_err(), EngineError::SlowConsumer);
    assert!(engine.stats().output_tokens_total < 4000);
}

#[tokio::test]
async fn a_killed_worker_loses_its_streams_and_a_fresh_one_serves() {
    let engine = started(EngineConfig { context_length: 8192, ..config() }).await;
    let prompt = tokens(&engine, "Once").await;
    let before = say(&engine, generation(&prompt, 10)).await;
    let first = decoding(&engine, generation(&prompt, 8000)).await;
    let second = decoding(&engine, generation(&prompt, 8000)).await;
    let pid = engine.pid();
    kill(&engine);
    assert_eq!(listen(first).await.unwrap_err(), EngineError::Lost);
    assert_eq!(listen(second).await.unwrap_err(), EngineError::Lost);
    let loading = |state: &EngineState| !matches!(state, EngineState::Ready(_));
    until(&engine, loading).await;
    until(&engine, |state| matches!(state, EngineState::Ready(_))).await;
    assert_ne!(engine.pid(), pid);
    let after = say(&engine, generation(&prompt, 10)).await;
    assert_eq!(after.text, before.text);
    let stats = engine.stats();
    assert_eq!(stats.incarnation, 2);
    assert!(stats.output_tokens_total >= 20, "what the first worker counted is kept: {stats:?}");
}

#[tokio::test]
async fn stopping_ends_the_child_and_what_runs() {
    let engine = started(config()).await;
    let prompt = tokens(&engine, "Once").await;
    let running = decoding(&engine, generation(&prompt, 400)).await;
    let pid = engine.pid().unwrap();
    engine.stop().await;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(*engine.state().borrow(), EngineState::Stopped);
    assert_eq!(listen(running).await.unwrap_err(), EngineError::Lost);
    assert_eq!(engine.generate(generation(&prompt, 1)).await.unwrap_err(), EngineError::NotReady);
    assert_eq!(engine.pid(), None);
}

#[test]
fn a_worker_whose_sidecar_is_gone_ends_by_itself() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(BINARY)
        .args(["--context-length", "64", "--model"])
        .arg(model())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let mut socket = &ours;
    while !matches!(protocol::read_frame(&mut socket).unwrap(), protocol::FromWorker::Ready(_)) {}
    drop(ours);
    assert!(child.wait().unwrap().success());
}

async fn check_failure(config: EngineConfig, kind: LoadFailureKind) -> String {
    let engine = Engine::start(config);
    let message =
        match until(&engine, |state| matches!(state, EngineState::Failed { .. } | EngineState::Ready(_)))
            .await
        {
            EngineState::Failed { reason } => {
                assert_eq!(reason.kind, kind, "{reason}");
                reason.message
            }
            other => panic!("{other:?}"),
        };
    assert_eq!(engine.stats().incarnation, 1, "an impossible model is tried once");
    message
}

#[tokio::test]
async fn impossible_models_fail_with_their_reason_and_are_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(model()).unwrap();
    let broken = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        EngineConfig { model: path, ..config() }
    };
    check_failure(broken("page.gguf", b"<html>no such model</html>"), LoadFailureKind::NotGguf).await;
    check_failure(broken("half.gguf", &whole[..whole.len() / 2]), LoadFailureKind::Truncated).await;
    let at = whole.windows(5).position(|window| window == b"llama").unwrap();
    let mut foreign = whole.clone();
    foreign[at..at + 5].copy_from_slice(b"lloma");
    let message = check_failure(broken("foreign.gguf", &foreign), LoadFailureKind::Invalid).await;
    assert!(message.contains("unknown model architecture: 'lloma'"), "llama.cpp's own words: {message}");
    check_failure(EngineConfig { model: "/nowhere.gguf".into(), ..config() }, LoadFailureKind::Missing).await;
    check_failure(EngineConfig { binary: "/nowhere".into(), ..config() }, LoadFailureKind::Program).await;
    let huge = EngineConfig { context_length: 100_000_000, parallel_slots: 8, ..config() };
    check_failure(huge, LoadFailureKind::DoesNotFit).await;
    let contradiction =
        EngineConfig { flash_attention: FlashAttention::Off, kv_cache_type: KvCacheType::Q8_0, ..config() };
    check_failure(contradiction, LoadFailureKind::Program).await;
}

#[tokio::test]
async fn a_program_that_only_crashes_is_given_up() {
    // It ends at once with status 1, as a worker would whose loading crashes.
    let engine = Engine::start(EngineConfig { binary: "/bin/false".into(), ..config() });
    match until(&engine, |state| matches!(state, EngineState::Failed { .. })).await {
        EngineState::Failed { reason } => assert_eq!(reason.kind, LoadFailureKind::Program, "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.stats().incarnation, 3);
}

#[tokio::test]
async fn a_model_on_which_llama_cpp_aborts_is_given_up_with_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aborting.gguf");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/model/aborting_model.py");
    assert!(Command::new("python3").arg(script).arg("--out").arg(&path).status().unwrap().success());
    let engine = Engine::start(EngineConfig { model: path, ..config() });
    let EngineState::Failed { reason } =
        until(&engine, |state| matches!(state, EngineState::Failed { .. } | EngineState::Ready(_))).await
    else {
        panic!("it cannot be loaded")
    };
    assert_eq!((reason.kind, engine.stats().incarnation), (LoadFailureKind::Program, 3), "{reason}");
    for part in ["3 times while it loaded", "signal 6", "said was: llama-model.cpp:", "GGML_ASSERT(n_expert"]
    {
        assert!(reason.message.contains(part), "{part:?} is missing: {reason}");
    }
}

#[tokio::test]
async fn a_quantized_context_serves_too() {
    let engine = started(EngineConfig { kv_cache_type: KvCacheType::Q8_0, ..config() }).await;
    let prompt = tokens(&engine, "Once there was").await;
    assert_eq!(say(&engine, generation(&prompt, 16)).await.outputs.len(), 16);
}
