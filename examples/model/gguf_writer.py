"""Writes a llama-architecture GGUF: metadata, vocabulary, then one tensor at a time.

Knows names and layout of the file. Must not know where weights come from: it
takes a function from tensor name and shape to values, so that a model larger
than memory can be written. Query and key weights are expected in the
interleaved rotary order of llama.cpp's `llama` architecture, so no
permutation happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType

import vocabulary
from vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """Sizes of a llama-architecture model with tied input and output embeddings."""

    vocabulary: int
    layers: int
    width: int
    heads: int
    key_value_heads: int
    feed_forward: int
    context: int = 2048
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every tensor's GGUF name and its shape (rows = outputs, columns = inputs)."""
        key_value = self.key_value_heads * self.head_width
        yield "token_embd.weight", (self.vocabulary, self.width)
        for layer in range(self.layers):
            yield f"blk.{layer}.attn_norm.weight", (self.width,)
            yield f"blk.{layer}.attn_q.weight", (self.width, self.width)
            yield f"blk.{layer}.attn_k.weight", (key_value, self.width)
            yield f"blk.{layer}.attn_v.weight", (key_value, self.width)
            yield f"blk.{layer}.attn_output.weight", (self.width, self.width)
            yield f"blk.{layer}.ffn_norm.weight", (self.width,)
            yield f"blk.{layer}.ffn_gate.weight", (self.feed_forward, self.width)
            yield f"blk.{layer}.ffn_up.weight", (self.feed_forward, self.width)
            yield f"blk.{layer}.ffn_down.weight", (self.width, self.feed_forward)
        yield "output_norm.weight", (self.width,)

    def parameters(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(shape)) for _, shape in self.tensors())


FILE_TYPES = {
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "Q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}

Weights = Callable[[str, tuple[int, ...]], np.ndarray]


def write(
    path: Path,
    shape: Shape,
    words: Vocabulary,
    weights: Weights,
    file_type: str,
    name: str,
    description: str,
) -> None:
    """Writes the whole file; asks `weights` for each tensor once, in file order."""
    matrix_type, declared = FILE_TYPES[file_type]
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape, declared, name, description)
    _add_vocabulary(writer, shape, words)
    for tensor, dimensions in shape.tensors():
        kind = _kind(dimensions, matrix_type)
        writer.add_tensor_info(tensor, dimensions, np.dtype(np.float32), _bytes(dimensions, kind), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, dimensions in shape.tensors():
        values = np.ascontiguousarray(weights(tensor, dimensions), dtype=np.float32)
        if values.shape != dimensions:
            raise ValueError(f"{tensor} has shape {values.shape}, wanted {dimensions}")
        writer.write_tensor_data(gguf.quants.quantize(values, _kind(dimensions, matrix_type)))
    writer.close()


def _kind(dimensions: tuple[int, ...], matrix_type: GGMLQuantizationType) -> GGMLQuantizationType:
    # llama.cpp wants norms as F32 whatever the matrices are.
    return matrix_type if len(dimensions) > 1 else GGMLQuantizationType.F32


def _bytes(dimensions: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if dimensions[-1] % block:
        raise ValueError(f"{dimensions} has rows that are not whole blocks of {kind.name}")
    return int(np.prod(dimensions)) // block * size


def _describe(
    writer: gguf.GGUFWriter, shape: Shape, declared: LlamaFileType, name: str, description: str
) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_author("The Inferno authors")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_description(description)
    writer.add_file_type(declared)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)


def _add_vocabulary(writer: gguf.GGUFWriter, shape: Shape, words: Vocabulary) -> None:
    kinds = [
        gguf.TokenType.CONTROL if token in vocabulary.SPECIALS else gguf.TokenType.NORMAL
        for token in words.tokens
    ]
    # Padding tokens decode to visible text, so that a benchmark that samples them still streams.
    padding = [f"Ġpad{number}" for number in range(len(words.tokens), shape.vocabulary)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words.tokens + padding)
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * len(padding))
    writer.add_token_merges(words.merges)
    writer.add_bos_token_id(words.id(vocabulary.END_OF_TEXT))
    writer.add_eos_token_id(words.id(vocabulary.END))
    writer.add_eot_token_id(words.id(vocabulary.END))
    writer.add_pad_token_id(words.id(vocabulary.END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(vocabulary.CHAT_TEMPLATE)
