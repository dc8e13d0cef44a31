//! Reads the head of a GGUF file before llama.cpp sees it: facts about the model, and proof that every count,
//! string and tensor lies within limits and inside the file. Safe Rust over any source; must not know llama.cpp.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom},
};

/// Everything before the tensor data. The largest vocabularies in use need about 20 MiB.
const HEAD_BYTES_MAX: u64 = 64 << 20;
/// The longest string: chat templates and token merges stay far below.
const STRING_BYTES_MAX: u64 = 16 << 20;
/// llama.cpp's own limit is 64 bytes for tensor names; keys are of that kind too.
const NAME_BYTES_MAX: u64 = 1024;
const ENTRIES_MAX: u64 = 65_536;
const TENSORS_MAX: u64 = 131_072;
const ALIGNMENT_MAX: u64 = 1 << 20;
const DIMENSIONS_MAX: u32 = 4;
/// The fixed part of the file: magic, version and two counts.
const FIXED_BYTES: u64 = 24;

/// Facts of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufFacts {
    /// `general.architecture`.
    pub architecture: String,
    /// Type of most tensor bytes: `Q8_0`.
    pub quantization: String,
    /// Context length that the model was trained with; 0 if the file does not say.
    pub context_length: u64,
    /// Layers; 0 if the file does not say.
    pub layers: u64,
    /// Values in all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Tensors in this file.
    pub tensors: u64,
    /// Files that make up the model; 1 for most.
    pub parts: u64,
    /// The file's length must be at least this.
    pub file_bytes: u64,
}

/// Why a file is no model file.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// It begins differently: a web page, a text, another format.
    #[error("the file does not begin with GGUF but with {:?}", String::from_utf8_lossy(first))]
    NotGguf {
        /// Its first bytes, at most 16.
        first: Vec<u8>,
    },
    /// It ends too early.
    #[error("the file has {has} bytes but needs at least {needs}")]
    Truncated {
        /// What its own head asks for, as far as that could be read.
        needs: u64,
        /// What it has.
        has: u64,
    },
    /// It contradicts itself or exceeds a limit.
    #[error("the file is not a valid model: {what}")]
    Invalid {
        /// What is wrong and where.
        what: String,
    },
    /// It cannot be read.
    #[error("the file cannot be read")]
    Io(#[from] std::io::Error),
}

/// Reads and checks the head of a GGUF file of version 2 or 3.
pub fn inspect(source: &mut (impl Read + Seek)) -> Result<GgufFacts, GgufError> {
    let length = source.seek(SeekFrom::End(0))?;
    source.seek(SeekFrom::Start(0))?;
    let mut head = Head { source: BufReader::with_capacity(64 << 10, source), position: 0, length };
    head.magic()?;
    let tensors = head.u64()?;
    let entries = head.u64()?;
    limit(tensors, TENSORS_MAX, "tensors")?;
    limit(entries, ENTRIES_MAX, "metadata entries")?;
    let metadata = Metadata::read(&mut head, entries)?;
    let alignment = metadata.alignment()?;
    let tensors = (0..tensors).map(|_| Tensor::read(&mut head)).collect::<Result<Vec<_>, _>>()?;
    let data_at = head.position.next_multiple_of(alignment);
    let file_bytes = check_layout(&tensors, data_at, alignment)?;
    if file_bytes > length {
        return Err(GgufError::Truncated { needs: file_bytes, has: length });
    }
    Ok(GgufFacts {
        architecture: metadata.architecture.clone(),
        quantization: dominant_type(&tensors).to_owned(),
        context_length: metadata.number("context_length"),
        layers: metadata.number("block_count"),
        parameters: tensors.iter().map(|tensor| tensor.values).fold(0, u64::saturating_add),
        tensor_bytes: tensors.iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add),
        tensors: tensors.len() as u64,
        parts: metadata.numbers.get("split.count").copied().unwrap_or(1).max(1),
        file_bytes,
    })
}

/// The part of the file that is being read, with its limits.
struct Head<R> {
    source: BufReader<R>,
    position: u64,
    length: u64,
}

impl<R: Read + Seek> Head<R> {
    fn magic(&mut self) -> Result<(), GgufError> {
        let first: Vec<u8> = self.source.fill_buf()?.iter().copied().take(16).collect();
        let seen = first.len().min(4);
        if first[..seen] != b"GGUF"[..seen] {
            return Err(GgufError::NotGguf { first });
        }
        self.expect_bytes(FIXED_BYTES)?;
        self.u32()?;
        match self.u32()? {
            2 | 3 => Ok(()),
            other => Err(invalid(format!("version {other} is not one of 2 and 3"))),
        }
    }

    /// Says what is missing before anything is allocated or read.
    fn expect_bytes(&self, count: u64) -> Result<(), GgufError> {
        let needs = self.position.saturating_add(count);
        if needs > self.length {
            return Err(GgufError::Truncated { needs, has: self.length });
        }
        if needs > HEAD_BYTES_MAX {
            return Err(invalid(format!("its head exceeds {HEAD_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.expect_bytes(N as u64)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| self.ended(error))?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self, bytes_max: u64, what: &str) -> Result<Vec<u8>, GgufError> {
        let count = self.u64()?;
        limit(count, bytes_max, what)?;
        self.expect_bytes(count)?;
        let mut bytes = vec![0; usize::try_from(count).expect("below a limit of 16 MiB")];
        self.source.read_exact(&mut bytes).map_err(|error| self.ended(error))?;
        self.position += count;
        Ok(bytes)
    }

    fn name(&mut self, what: &str) -> Result<String, GgufError> {
        let bytes = self.bytes(NAME_BYTES_MAX, what)?;
        String::from_utf8(bytes).map_err(|_| invalid(format!("a {what} is not UTF-8")))
    }

    fn skip(&mut self, count: u64) -> Result<(), GgufError> {
        self.expect_bytes(count)?;
        self.source.seek_relative(i64::try_from(count).expect("below the limit of the head"))?;
        self.position += count;
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), GgufError> {
        let count = self.u64()?;
        limit(count, STRING_BYTES_MAX, "bytes in a string")?;
        self.skip(count)
    }

    /// A file that shrinks while it is read is a truncated one.
    fn ended(&self, error: std::io::Error) -> GgufError {
        if error.kind() == ErrorKind::UnexpectedEof {
            GgufError::Truncated { needs: self.position + 1, has: self.position }
        } else {
            GgufError::Io(error)
        }
    }
}

/// The entries that we look at.
#[derive(Debug, Default)]
struct Metadata {
    architecture: String,
    numbers: HashMap<String, u64>,
    /// Element type and count of the tokenizer's arrays.
    arrays: HashMap<String, (u32, u64)>,
}

/// Value types of GGUF that are told apart here.
const UINT32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

impl Metadata {
    fn read<R: Read + Seek>(head: &mut Head<R>, entries: u64) -> Result<Metadata, GgufError> {
        let mut metadata = Metadata::default();
        let mut keys = HashSet::new();
        for _ in 0..entries {
            let key = head.name("key")?;
            let kind = head.u32()?;
            metadata.value(head, &key, kind)?;
            if !keys.insert(key.clone()) {
                return Err(invalid(format!("the key {key} occurs twice")));
            }
        }
        if metadata.architecture.is_empty() {
            return Err(invalid("it has no general.architecture".into()));
        }
        metadata.check_tokenizer()?;
        Ok(metadata)
    }

    fn value<R: Read + Seek>(&mut self, head: &mut Head<R>, key: &str, kind: u32) -> Result<(), GgufError> {
        match kind {
            STRING if key == "general.architecture" => self.architecture = head.name("architecture")?,
            STRING => head.skip_string()?,
            ARRAY => self.array(head, key)?,
            _ => {
                let number = unsigned(head, kind, key)?;
                if let Some(number) = number {
                    self.numbers.insert(key.to_owned(), number);
                }
            }
        }
        Ok(())
    }

    fn array<R: Read + Seek>(&mut self, head: &mut Head<R>, key: &str) -> Result<(), GgufError> {
        let kind = head.u32()?;
        let count = head.u64()?;
        match kind {
            STRING => {
                // Each string needs at least its length, so that this count is bounded by the file.
                head.expect_bytes(count.saturating_mul(8))?;
                for _ in 0..count {
                    head.skip_string()?;
                }
            }
            ARRAY => return Err(invalid(format!("{key} is an array of arrays"))),
            _ => head.skip(count.saturating_mul(scalar_bytes(kind, key)?))?,
        }
        if key.starts_with("tokenizer.") {
            self.arrays.insert(key.to_owned(), (kind, count));
        }
        Ok(())
    }

    /// llama.cpp reads these side by side.
    fn check_tokenizer(&self) -> Result<(), GgufError> {
        const INT32: u32 = 5;
        const FLOAT32: u32 = 6;
        let Some((kind, tokens)) = self.arrays.get("tokenizer.ggml.tokens") else { return Ok(()) };
        if *kind != STRING {
            return Err(invalid("tokenizer.ggml.tokens is not an array of strings".into()));
        }
        for (key, element) in [("tokenizer.ggml.token_type", INT32), ("tokenizer.ggml.scores", FLOAT32)] {
            let Some((kind, count)) = self.arrays.get(key) else { continue };
            if *kind != element || count != tokens {
                return Err(invalid(format!("{key} does not match the {tokens} tokens")));
            }
        }
        let merges = self.arrays.get("tokenizer.ggml.merges");
        if merges.is_some_and(|(kind, _)| *kind != STRING) {
            return Err(invalid("tokenizer.ggml.merges is not an array of strings".into()));
        }
        Ok(())
    }

    fn alignment(&self) -> Result<u64, GgufError> {
        let alignment = self.numbers.get("general.alignment").copied().unwrap_or(32);
        if !alignment.is_power_of_two() || alignment > ALIGNMENT_MAX {
            return Err(invalid(format!(
                "an alignment of {alignment} is not a power of two up to {ALIGNMENT_MAX}"
            )));
        }
        Ok(alignment)
    }

    /// `<architecture>.<name>`, or 0.
    fn number(&self, name: &str) -> u64 {
        self.numbers.get(&format!("{}.{name}", self.architecture)).copied().unwrap_or(0)
    }
}

/// Reads a scalar; its value if it is an unsigned integer.
fn unsigned<R: Read + Seek>(head: &mut Head<R>, kind: u32, key: &str) -> Result<Option<u64>, GgufError> {
    const UINT64: u32 = 10;
    match kind {
        UINT32 => Ok(Some(head.u32()?.into())),
        UINT64 => Ok(Some(head.u64()?)),
        2 => Ok(Some(u16::from_le_bytes(head.array()?).into())),
        _ => {
            head.skip(scalar_bytes(kind, key)?)?;
            Ok(None)
        }
    }
}

fn scalar_bytes(kind: u32, key: &str) -> Result<u64, GgufError> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(invalid(format!("{key} has the unknown type {kind}"))),
    }
}

struct Tensor {
    name: String,
    kind: &'static TensorKind,
    values: u64,
    bytes: u64,
    offset: u64,
}

impl Tensor {
    fn read<R: Read + Seek>(head: &mut Head<R>) -> Result<Tensor, GgufError> {
        let name = head.name("tensor name")?;
        let count = head.u32()?;
        if count > DIMENSIONS_MAX {
            return Err(invalid(format!("the tensor {name} has {count} dimensions")));
        }
        let dimensions = (0..count).map(|_| head.u64()).collect::<Result<Vec<_>, _>>()?;
        let kind = head.u32()?;
        let offset = head.u64()?;
        let kind = TENSOR_KINDS
            .iter()
            .find(|known| known.id == kind)
            .ok_or_else(|| invalid(format!("the tensor {name} has the unknown type {kind}")))?;
        let (values, bytes) = size(kind, &dimensions)
            .ok_or_else(|| invalid(format!("the tensor {name} has impossible dimensions {dimensions:?}")))?;
        Ok(Tensor { name, kind, values, bytes, offset })
    }
}

/// Values and bytes of a tensor; `None` if there is no such tensor.
fn size(kind: &TensorKind, dimensions: &[u64]) -> Option<(u64, u64)> {
    let row = dimensions.first().copied().unwrap_or(1);
    let values = dimensions.iter().try_fold(1u64, |product, size| product.checked_mul(*size))?;
    // llama.cpp counts in signed numbers.
    if !row.is_multiple_of(kind.block_values) || values == 0 || i64::try_from(values).is_err() {
        return None;
    }
    Some((values, (values / kind.block_values).checked_mul(kind.block_bytes)?))
}

/// Every tensor aligned, none overlapping another; returns where the last one ends.
fn check_layout(tensors: &[Tensor], data_at: u64, alignment: u64) -> Result<u64, GgufError> {
    let mut names = HashSet::new();
    let mut by_offset: Vec<&Tensor> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    let mut end = 0u64;
    for tensor in by_offset {
        let name = &tensor.name;
        if !names.insert(name) {
            return Err(invalid(format!("the tensor {name} occurs twice")));
        }
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(invalid(format!("the tensor {name} is not aligned to {alignment} bytes")));
        }
        if tensor.offset < end {
            return Err(invalid(format!("the tensor {name} overlaps another one")));
        }
        end = tensor
            .offset
            .checked_add(tensor.bytes)
            .filter(|end| end.checked_add(data_at).is_some())
            .ok_or_else(|| invalid(format!("the tensor {name} ends beyond any file")))?;
    }
    Ok(data_at + end)
}

fn dominant_type(tensors: &[Tensor]) -> &'static str {
    let mut bytes: HashMap<&'static str, u64> = HashMap::new();
    for tensor in tensors {
        let sum = bytes.entry(tensor.kind.name).or_default();
        *sum = sum.saturating_add(tensor.bytes);
    }
    bytes.into_iter().max_by_key(|(name, bytes)| (*bytes, *name)).map_or("none", |(name, _)| name)
}

fn limit(count: u64, max: u64, what: &str) -> Result<(), GgufError> {
    if count > max { Err(invalid(format!("{count} {what} exceed the limit of {max}"))) } else { Ok(()) }
}

fn invalid(what: String) -> GgufError {
    GgufError::Invalid { what }
}

/// How a tensor type is stored.
#[derive(Debug)]
pub(crate) struct TensorKind {
    pub(crate) id: u32,
    pub(crate) name: &'static str,
    pub(crate) block_values: u64,
    pub(crate) block_bytes: u64,
}

const fn kind(id: u32, name: &'static str, block_values: u64, block_bytes: u64) -> TensorKind {
    TensorKind { id, name, block_values, block_bytes }
}

/// The types that the pinned llama.cpp knows; a test of the worker compares this table with it.
pub(crate) const TENSOR_KINDS: &[TensorKind] = &[
    kind(0, "F32", 1, 4),
    kind(1, "F16", 1, 2),
    kind(2, "Q4_0", 32, 18),
    kind(3, "Q4_1", 32, 20),
    kind(6, "Q5_0", 32, 22),
    kind(7, "Q5_1", 32, 24),
    kind(8, "Q8_0", 32, 34),
    kind(9, "Q8_1", 32, 36),
    kind(10, "Q2_K", 256, 84),
    kind(11, "Q3_K", 256, 110),
    kind(12, "Q4_K", 256, 144),
    kind(13, "Q5_K", 256, 176),
    kind(14, "Q6_K", 256, 210),
    kind(15, "Q8_K", 256, 292),
    kind(16, "IQ2_XXS", 256, 66),
    kind(17, "IQ2_XS", 256, 74),
    kind(18, "IQ3_XXS", 256, 98),
    kind(19, "IQ1_S", 256, 50),
    kind(20, "IQ4_NL", 32, 18),
    kind(21, "IQ3_S", 256, 110),
    kind(22, "IQ2_S", 256, 82),
    kind(23, "IQ4_XS", 256, 136),
    kind(24, "I8", 1, 1),
    kind(25, "I16", 1, 2),
    kind(26, "I32", 1, 4),
    kind(27, "I64", 1, 8),
    kind(28, "F64", 1, 8),
    kind(29, "IQ1_M", 256, 56),
    kind(30, "BF16", 1, 2),
    kind(34, "TQ1_0", 256, 54),
    kind(35, "TQ2_0", 256, 66),
    kind(39, "MXFP4", 32, 17),
    kind(40, "NVFP4", 64, 36),
    kind(41, "Q1_0", 128, 18),
    kind(42, "Q2_0", 64, 18),
];

#[cfg(test)]
mod tests;
