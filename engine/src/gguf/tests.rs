use std::io::Cursor;

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn number(mut self, bytes: &[u8]) -> Writer {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn string(self, text: &str) -> Writer {
        self.number(&(text.len() as u64).to_le_bytes()).number(text.as_bytes())
    }

    fn entry(self, key: &str, kind: u32, value: &[u8]) -> Writer {
        self.string(key).number(&kind.to_le_bytes()).number(value)
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Writer {
        let count = u32::try_from(dimensions.len()).unwrap();
        self = self.string(name).number(&count.to_le_bytes());
        for size in dimensions {
            self = self.number(&size.to_le_bytes());
        }
        self.number(&kind.to_le_bytes()).number(&offset.to_le_bytes())
    }

    fn pad(mut self, extra: usize) -> Vec<u8> {
        let aligned = self.bytes.len().next_multiple_of(32);
        self.bytes.resize(aligned + extra, 0);
        self.bytes
    }
}

fn text(value: &str) -> Vec<u8> {
    Writer::default().string(value).bytes
}

fn begin(tensors: u64, entries: u64) -> Writer {
    let fixed = Writer::default().number(b"GGUF").number(&3u32.to_le_bytes());
    fixed.number(&tensors.to_le_bytes()).number(&entries.to_le_bytes())
}

fn architecture(writer: Writer) -> Writer {
    writer.entry("general.architecture", STRING, &text("llama"))
}

/// A small file that is in order: two tensors of 128 and 68 bytes.
fn small() -> Vec<u8> {
    let tokens = [&STRING.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &text("b")].concat();
    let types = [&5u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[0; 8]].concat();
    architecture(begin(2, 5))
        .entry("llama.context_length", UINT32, &2048u32.to_le_bytes())
        .entry("llama.block_count", UINT32, &6u32.to_le_bytes())
        .entry("tokenizer.ggml.tokens", ARRAY, &tokens)
        .entry("tokenizer.ggml.token_type", ARRAY, &types)
        .tensor("first", &[32], 0, 0)
        .tensor("second", &[32, 2], 8, 128)
        .pad(128 + 68)
}

fn check_invalid(bytes: &[u8], part: &str) {
    match inspect(&mut Cursor::new(bytes)) {
        Err(GgufError::Invalid { what }) => assert!(what.contains(part), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_facts_of_a_small_file() {
    let bytes = small();
    let facts = inspect(&mut Cursor::new(&bytes)).unwrap();
    let expected = GgufFacts {
        architecture: "llama".into(),
        quantization: "F32".into(),
        context_length: 2048,
        layers: 6,
        parameters: 96,
        tensor_bytes: 196,
        tensors: 2,
        parts: 1,
        file_bytes: bytes.len() as u64,
    };
    assert_eq!(facts, expected);
}

#[test]
fn another_format_is_named_by_its_first_bytes() {
    match inspect(&mut Cursor::new(b"<!DOCTYPE html><html>")) {
        Err(GgufError::NotGguf { first }) => assert_eq!(first, b"<!DOCTYPE html><"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn huge_counts_are_refused_without_memory_being_taken() {
    check_invalid(&begin(1 << 63, 0).pad(0), "tensors exceed");
    check_invalid(&begin(0, 1 << 63).pad(0), "metadata entries exceed");
    check_invalid(&begin(0, 1).string(&"k".repeat(2000)).pad(0), "key exceed");
    let strings = [&STRING.to_le_bytes()[..], &(1u64 << 60).to_le_bytes()].concat();
    let file = begin(0, 1).entry("tokenizer.ggml.tokens", ARRAY, &strings).pad(0);
    assert!(matches!(inspect(&mut Cursor::new(file)), Err(GgufError::Truncated { .. })));
}

#[test]
fn an_alignment_of_a_gigabyte_is_refused() {
    let file = architecture(begin(0, 2)).entry("general.alignment", UINT32, &(1u32 << 30).to_le_bytes());
    check_invalid(&file.pad(0), "alignment of 1073741824");
}

#[test]
fn tensors_must_be_aligned_apart_and_possible() {
    let one = |dimensions: &[u64], kind, offset| {
        architecture(begin(1, 1)).tensor("t", dimensions, kind, offset).pad(512)
    };
    check_invalid(&one(&[32], 0, 3), "not aligned");
    check_invalid(&one(&[33], 8, 0), "impossible dimensions");
    check_invalid(&one(&[1 << 40, 1 << 40], 0, 0), "impossible dimensions");
    check_invalid(&one(&[32], 77, 0), "unknown type 77");
    check_invalid(&one(&[32], 0, u64::MAX - 31), "beyond any file");
    let two = architecture(begin(2, 1)).tensor("a", &[32], 0, 0).tensor("b", &[32], 0, 32).pad(512);
    check_invalid(&two, "overlaps");
    let twins = architecture(begin(2, 1)).tensor("a", &[32], 0, 0).tensor("a", &[32], 0, 128).pad(512);
    check_invalid(&twins, "occurs twice");
}

#[test]
fn a_tokenizer_whose_arrays_differ_in_length_is_refused() {
    let tokens = [&STRING.to_le_bytes()[..], &1u64.to_le_bytes(), &text("a")].concat();
    let types = [&5u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[0; 8]].concat();
    let file = architecture(begin(0, 3)).entry("tokenizer.ggml.tokens", ARRAY, &tokens).entry(
        "tokenizer.ggml.token_type",
        ARRAY,
        &types,
    );
    check_invalid(&file.pad(0), "does not match the 1 tokens");
}

#[test]
fn truncation_at_any_byte_is_called_truncation() {
    let whole = small();
    for length in 0..whole.len() {
        match inspect(&mut Cursor::new(&whole[..length])) {
            Err(GgufError::Truncated { needs, has }) => {
                assert_eq!(has, length as u64);
                assert!(needs > has && needs <= whole.len() as u64, "{length}: needs {needs}");
            }
            other => panic!("at {length}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = small();
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(facts) = inspect(&mut Cursor::new(&bytes)) {
            prop_assert!(facts.file_bytes <= bytes.len() as u64);
        }
    }

    #[test]
    fn any_bytes_after_the_magic_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [b"GGUF\x03\x00\x00\x00".as_slice(), &rest].concat();
        let _ = inspect(&mut Cursor::new(&bytes));
    }
}
