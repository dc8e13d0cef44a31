//! The only file that touches llama.cpp. The model goes through the safe wrapper; the context is made through the
//! raw interface, because the wrapper's safe functions can corrupt memory (sequence ids beyond the context's) or
//! abort (batches beyond its size). Every precondition of llama.cpp is asserted here before the call.
//! Must not know sockets, queues or sampling.

use std::{
    ffi::{CStr, c_char, c_void},
    io::Write,
    marker::PhantomData,
    path::Path,
    ptr::NonNull,
    sync::OnceLock,
};

use llama_cpp_2::{
    llama_backend::LlamaBackend,
    model::{LlamaModel, params::LlamaModelParams},
    token::LlamaToken,
    token_type::LlamaTokenAttr,
};
use llama_cpp_sys_2 as sys;

use crate::{
    pieces::Pieces,
    request::{FlashAttention, KvCacheType, Token},
    sequence::Vocabulary,
};

// `Model::pointer` reads the wrapper as the pointer that it is transparent over.
const _: () = assert!(size_of::<LlamaModel>() == size_of::<*mut sys::llama_model>());
const _: () = assert!(align_of::<LlamaModel>() == align_of::<*mut sys::llama_model>());

/// llama.cpp, initialised. There is one per process.
#[derive(Debug)]
pub(crate) struct Backend {
    backend: LlamaBackend,
}

impl Backend {
    /// Warnings and errors of llama.cpp go to standard error, the rest nowhere.
    pub(crate) fn start() -> Backend {
        // SAFETY: `log` has the signature that is asked for, needs no user data and never unwinds.
        unsafe { sys::llama_log_set(Some(log), std::ptr::null_mut()) };
        let backend = LlamaBackend::init().expect("the worker initialises llama.cpp once");
        Backend { backend }
    }
}

/// The first error that llama.cpp has told: why it refuses a model. Those behind it only say that it does.
static FIRST_ERROR: OnceLock<String> = OnceLock::new();

unsafe extern "C" fn log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if !(sys::GGML_LOG_LEVEL_WARN..=sys::GGML_LOG_LEVEL_ERROR).contains(&level) || text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a text that ends with NUL and lives during this call.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_string_lossy();
    if level == sys::GGML_LOG_LEVEL_ERROR {
        FIRST_ERROR.get_or_init(|| text.trim().to_owned());
    }
    // Nowhere to report to if standard error is closed.
    let _ = write!(std::io::stderr(), "llama.cpp: {text}");
}

/// A loaded model; may be shared between threads.
#[derive(Debug)]
pub(crate) struct Model {
    inner: LlamaModel,
    vocabulary: usize,
    control_tokens: Pieces,
    offloads: bool,
}

/// What llama.cpp says about a model.
#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) trained_context_length: u32,
    pub(crate) layers: u32,
    pub(crate) parameters: u64,
    pub(crate) size_bytes: u64,
    pub(crate) chat_template: Option<String>,
    pub(crate) bos_text: String,
    pub(crate) eos_text: String,
    pub(crate) adds_bos: bool,
}

impl Model {
    /// What llama.cpp says is wrong with the file, if it refuses it.
    pub(crate) fn load(
        backend: &Backend,
        path: &Path,
        gpu_layers: u32,
        mut progress: impl FnMut(u8) + 'static,
    ) -> Result<Model, String> {
        let parameters =
            LlamaModelParams::default().with_n_gpu_layers(gpu_layers).with_progress_callback(move |share| {
                progress(percent(share));
                true
            });
        let inner = LlamaModel::load_from_file(&backend.backend, path, &parameters)
            .map_err(|_| FIRST_ERROR.get().cloned().unwrap_or_default())?;
        let vocabulary = usize::try_from(inner.vocab().n_tokens())
            .ok()
            .filter(|size| *size > 0)
            .ok_or("it has no vocabulary")?;
        let control_tokens = control_tokens(&inner);
        Ok(Model { inner, vocabulary, control_tokens, offloads: backend.backend.supports_gpu_offload() })
    }

    /// Whether text can be generated token by token: no encoder, something to decode.
    pub(crate) fn can_generate(&self) -> bool {
        // SAFETY: the pointer is that of a live model, which these functions only read.
        unsafe {
            sys::llama_model_has_decoder(self.pointer())
                && !sys::llama_model_has_encoder(self.pointer())
                && !sys::llama_model_is_diffusion(self.pointer())
        }
    }

    /// Whether the memory of a sequence can be cut at any position.
    pub(crate) fn can_cut_memory(&self) -> bool {
        !self.inner.is_recurrent() && !self.inner.is_hybrid()
    }

    /// Whether there is an accelerator to put layers on.
    pub(crate) fn offloads(&self) -> bool {
        self.offloads
    }

    pub(crate) fn details(&self) -> Details {
        let vocab = self.inner.vocab();
        let text = |token: LlamaToken| {
            let is_token = usize::try_from(token.0).is_ok_and(|token| token < self.vocabulary);
            let bytes = if is_token { vocab.token_to_piece(token, true, None) } else { Vec::new() };
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Details {
            trained_context_length: self.inner.n_ctx_train(),
            layers: self.inner.n_layer(),
            parameters: self.inner.n_params(),
            size_bytes: self.inner.size(),
            chat_template: self.inner.chat_template(None).ok().and_then(|template| template.to_string().ok()),
            bos_text: text(vocab.bos()),
            eos_text: text(vocab.eos()),
            adds_bos: vocab.should_add_bos(),
        }
    }

    /// Bytes of keys and values per token of context, as far as the model's sizes tell.
    pub(crate) fn kv_bytes_per_token(&self, kind: KvCacheType) -> u64 {
        let heads = u64::from(self.inner.n_head().max(1));
        let width = u64::try_from(self.inner.n_embd()).unwrap_or(0) / heads;
        let values = 2 * u64::from(self.inner.n_layer()) * u64::from(self.inner.n_head_kv()) * width;
        match kind {
            KvCacheType::F16 => values * 2,
            KvCacheType::Q8_0 => values * 34 / 32,
            KvCacheType::Q4_0 => values * 18 / 32,
        }
    }

    pub(crate) fn tokenize(&self, text: &str, parse_special: bool) -> Vec<Token> {
        let pieces = if parse_special { self.control_tokens.cut(text) } else { vec![text] };
        let vocab = self.inner.vocab();
        let tokens =
            pieces.into_iter().flat_map(|piece| vocab.tokenize(piece.as_bytes(), false, parse_special));
        tokens.map(|token| token.0).collect()
    }

    /// The texts that become control tokens when special tokens are parsed.
    pub(crate) fn control_texts(&self) -> Vec<String> {
        let vocab = self.inner.vocab();
        let is_parsed = |token: &LlamaToken| {
            let attributes = vocab.attr(*token);
            attributes.contains(LlamaTokenAttr::Control) || attributes.contains(LlamaTokenAttr::Unknown)
        };
        let texts = vocab.tokens().filter(is_parsed).map(|token| vocab.token_to_piece(token, true, None));
        texts.filter_map(|text| String::from_utf8(text).ok()).filter(|text| !text.is_empty()).collect()
    }

    /// The text of a token, that of control tokens included.
    pub(crate) fn text_bytes(&self, token: Token) -> Vec<u8> {
        self.piece(token, true)
    }

    fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        self.assert_token(token);
        self.inner.vocab().token_to_piece(LlamaToken(token), special, None)
    }

    fn assert_token(&self, token: Token) {
        let is_token = usize::try_from(token).is_ok_and(|token| token < self.vocabulary);
        assert!(is_token, "token {token} is outside the vocabulary");
    }

    fn pointer(&self) -> *mut sys::llama_model {
        // SAFETY: `LlamaModel` is `repr(transparent)` over a non-null pointer to the model; size and alignment
        // are asserted above. The pointer is only used while `self` lives.
        unsafe { (&raw const self.inner).cast::<*mut sys::llama_model>().read() }
    }
}

/// The texts at which a long text may be cut. A token that swallows the spaces before it needs those spaces.
fn control_tokens(model: &LlamaModel) -> Pieces {
    let vocab = model.vocab();
    let may_begin = |token: &LlamaToken| {
        let attributes = vocab.attr(*token);
        attributes.contains(LlamaTokenAttr::Control) && !attributes.contains(LlamaTokenAttr::LStrip)
    };
    let texts = vocab.tokens().filter(may_begin).map(|token| vocab.token_to_piece(token, true, None));
    Pieces::new(texts.collect())
}

impl Vocabulary for Model {
    fn size(&self) -> usize {
        self.vocabulary
    }

    fn bytes(&self, token: Token) -> Vec<u8> {
        self.piece(token, false)
    }

    fn is_end(&self, token: Token) -> bool {
        self.assert_token(token);
        self.inner.vocab().is_eog(LlamaToken(token))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100 before")]
fn percent(share: f32) -> u8 {
    (share * 100.0).clamp(0.0, 100.0) as u8
}

/// Sizes of a context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextSize {
    /// Tokens of each slot.
    pub(crate) context_length: u32,
    pub(crate) slots: u32,
    /// Tokens of one batch; at least `slots`.
    pub(crate) batch_tokens: u32,
    pub(crate) threads: u32,
    pub(crate) flash_attention: FlashAttention,
    pub(crate) kv_cache_type: KvCacheType,
}

/// One token of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) token: Token,
    pub(crate) position: usize,
    pub(crate) slot: usize,
    pub(crate) wants_logits: bool,
}

/// llama.cpp could not process a batch; the number is its own.
#[derive(Debug, thiserror::Error)]
#[error("llama.cpp refused a batch with {0}")]
pub(crate) struct DecodeError(i32);

/// The model's memory for all slots, and the arrays that batches are handed over in.
pub(crate) struct Context<'model> {
    pointer: NonNull<sys::llama_context>,
    threads: NonNull<sys::ggml_threadpool>,
    model: PhantomData<&'model Model>,
    vocabulary: usize,
    size: ContextSize,
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    counts: Vec<i32>,
    slots: Vec<sys::llama_seq_id>,
    slot_pointers: Vec<*mut sys::llama_seq_id>,
    outputs: Vec<i8>,
}

/// How many rounds an idle compute thread spins before it sleeps, in llama.cpp's unit (its default is 50, about
/// a tenth of a second). The pause between two steps is below a millisecond; longer spinning would take the
/// core from the sidecar.
const POLL: u32 = 1;

/// llama.cpp rounds each slot's length up to this itself, and warns about it.
const CONTEXT_STEP: u32 = 256;

impl<'model> Context<'model> {
    /// How many slots llama.cpp can hold.
    pub(crate) fn slots_max() -> usize {
        // SAFETY: returns a constant.
        unsafe { sys::llama_max_parallel_sequences() }
    }

    /// `None` if the memory cannot be had, or the model does not support what is asked.
    pub(crate) fn new(model: &'model Model, size: ContextSize) -> Option<Context<'model>> {
        assert!(
            size.slots >= 1 && size.slots as usize <= Self::slots_max(),
            "slots within llama.cpp's limit"
        );
        assert!(size.batch_tokens >= size.slots, "a batch holds a token of every slot");
        let slot = size.context_length.checked_next_multiple_of(CONTEXT_STEP)?;
        let total = slot.checked_mul(size.slots).filter(|total| i32::try_from(*total).is_ok())?;
        let threads = i32::try_from(size.threads).ok().filter(|threads| (1..=512).contains(threads))?;
        // SAFETY: plain constructors of parameter structs; the pool is freed in `drop` or below.
        let (mut parameters, pool) = unsafe {
            let mut pool = sys::ggml_threadpool_params_default(threads);
            pool.poll = POLL;
            (sys::llama_context_default_params(), NonNull::new(sys::ggml_threadpool_new(&raw mut pool))?)
        };
        parameters.n_ctx = total;
        parameters.n_batch = size.batch_tokens;
        parameters.n_ubatch = size.batch_tokens;
        parameters.n_seq_max = size.slots;
        // One choice per slot and step; the default reserves scores for every token of a batch.
        parameters.n_outputs_max = size.slots;
        parameters.n_outputs_max_per_seq = 1;
        parameters.n_threads = threads;
        parameters.n_threads_batch = threads;
        parameters.flash_attn_type = flash_attention(&size);
        parameters.type_k = kv_type(size.kv_cache_type);
        parameters.type_v = kv_type(size.kv_cache_type);
        parameters.no_perf = true;
        // Each slot has its own memory: no slot can take another's room, and attention looks at its own tokens.
        parameters.kv_unified = false;
        // SAFETY: the model outlives the context by the lifetime `'model`; the parameters hold no pointers.
        let context = unsafe { sys::llama_init_from_model(model.pointer(), parameters) };
        let Some(context) = NonNull::new(context) else {
            // SAFETY: the pool was made above and is in use nowhere.
            unsafe { sys::ggml_threadpool_free(pool.as_ptr()) };
            return None;
        };
        // SAFETY: both live until `drop`, which frees the context first.
        unsafe { sys::llama_attach_threadpool(context.as_ptr(), pool.as_ptr(), pool.as_ptr()) };
        // SAFETY: the context is live.
        let length = unsafe { sys::llama_n_ctx_seq(context.as_ptr()) };
        let made = Context {
            pointer: context,
            threads: pool,
            model: PhantomData,
            vocabulary: model.vocabulary,
            size,
            tokens: Vec::new(),
            positions: Vec::new(),
            counts: Vec::new(),
            slots: Vec::new(),
            slot_pointers: Vec::new(),
            outputs: Vec::new(),
        };
        (length >= size.context_length).then_some(made)
    }

    /// Processes a batch and waits for its end. The scores of entries that want them can then be read.
    pub(crate) fn decode(&mut self, entries: &[Entry]) -> Result<(), DecodeError> {
        self.fill(entries);
        let batch = sys::llama_batch {
            n_tokens: i32::try_from(entries.len()).expect("`fill` has checked the batch's size"),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.slot_pointers.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        };
        // SAFETY: all arrays have `n_tokens` elements and live in `self`; sizes, tokens, slots and positions were
        // checked by `fill`; the context is live and `&mut self` makes this the only call into it.
        let result = unsafe {
            let result = sys::llama_decode(self.pointer.as_ptr(), batch);
            sys::llama_synchronize(self.pointer.as_ptr());
            result
        };
        if result == 0 { Ok(()) } else { Err(DecodeError(result)) }
    }

    /// The scores behind the entry at `index` of the last batch, which must have wanted them.
    pub(crate) fn logits(&self, index: usize) -> &[f32] {
        assert!(self.outputs.get(index) == Some(&1), "entry {index} of the last batch wanted no scores");
        let index = i32::try_from(index).expect("below the batch's size");
        // SAFETY: the entry was marked for output in the last batch, so that a row of `vocabulary` scores
        // exists; it stays valid until the next call that takes `&mut self`.
        unsafe {
            let row = sys::llama_get_logits_ith(self.pointer.as_ptr(), index);
            assert!(!row.is_null(), "a marked entry has scores");
            std::slice::from_raw_parts(row, self.vocabulary)
        }
    }

    /// Removes what a slot holds from position `from` on. False if the memory cannot be cut there; then all of
    /// it has been removed.
    pub(crate) fn forget(&mut self, slot: usize, from: usize) -> bool {
        assert!(slot < self.size.slots as usize, "slot {slot} is beyond the context's");
        let slot = sys::llama_seq_id::try_from(slot).expect("below the context's slots");
        let from = sys::llama_pos::try_from(from).expect("positions are below the context's length");
        // SAFETY: the context is live and the slot exists; removing a whole sequence never fails.
        unsafe {
            let memory = sys::llama_get_memory(self.pointer.as_ptr());
            if sys::llama_memory_seq_rm(memory, slot, from, -1) {
                return true;
            }
            sys::llama_memory_seq_rm(memory, slot, -1, -1);
        }
        false
    }

    fn fill(&mut self, entries: &[Entry]) {
        let size = &self.size;
        assert!(!entries.is_empty() && entries.len() <= size.batch_tokens as usize, "the batch's size");
        let wanted = entries.iter().filter(|entry| entry.wants_logits).count();
        assert!(wanted <= size.slots as usize, "one choice per slot");
        self.tokens.clear();
        self.positions.clear();
        self.slots.clear();
        self.outputs.clear();
        for entry in entries {
            let is_token = usize::try_from(entry.token).is_ok_and(|token| token < self.vocabulary);
            assert!(is_token, "token {} is outside the vocabulary", entry.token);
            assert!(entry.slot < size.slots as usize, "slot {} is beyond the context's", entry.slot);
            assert!(entry.position < size.context_length as usize, "position beyond the slot's context");
            self.tokens.push(entry.token);
            self.positions.push(i32::try_from(entry.position).expect("below the context's length"));
            self.slots.push(i32::try_from(entry.slot).expect("below the context's slots"));
            self.outputs.push(i8::from(entry.wants_logits));
        }
        self.counts.clear();
        self.counts.resize(entries.len(), 1);
        // Each entry names one slot: its element of `slots`, which is not moved until the next `fill`.
        self.slot_pointers.clear();
        self.slot_pointers.extend(self.slots.iter_mut().map(std::ptr::from_mut));
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: both were made in `new` and are freed once; the context goes first because it uses the pool.
        unsafe {
            sys::llama_free(self.pointer.as_ptr());
            sys::ggml_threadpool_free(self.threads.as_ptr());
        }
    }
}

fn flash_attention(size: &ContextSize) -> sys::llama_flash_attn_type {
    match size.flash_attention {
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
    }
}

fn kv_type(kind: KvCacheType) -> sys::ggml_type {
    match kind {
        KvCacheType::F16 => sys::GGML_TYPE_F16,
        KvCacheType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvCacheType::Q4_0 => sys::GGML_TYPE_Q4_0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TENSOR_KINDS;

    #[test]
    fn the_pre_flight_reader_knows_the_tensor_types_as_llama_cpp_stores_them() {
        for kind in TENSOR_KINDS {
            let id = sys::ggml_type::try_from(kind.id).unwrap();
            // SAFETY: ids of the table are below GGML_TYPE_COUNT, which the assertion checks.
            let (values, bytes) = unsafe {
                assert!(id < sys::GGML_TYPE_COUNT);
                (sys::ggml_blck_size(id), sys::ggml_type_size(id))
            };
            assert_eq!(u64::try_from(values).unwrap(), kind.block_values, "{}", kind.name);
            assert_eq!(bytes as u64, kind.block_bytes, "{}", kind.name);
        }
    }
}
