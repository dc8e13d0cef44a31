"""Writes a model with random weights of a wanted shape, for benchmarks only.

It answers nonsense at the speed of a real model of that size. The vocabulary
is that of Inferno Tiny, filled up with padding tokens that decode to visible text. Tensors are
made and written one after another, so memory stays near the largest tensor.

    python random_model.py --shape 0.5B --type Q4_0 --out build/random-0.5B-Q4_0.gguf
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np

import corpus
import gguf_writer
import vocabulary
from gguf_writer import Shape
from vocabulary import Vocabulary

SHAPES = {
    "15M": Shape(vocabulary=6144, layers=8, width=384, heads=6, key_value_heads=2, feed_forward=1024, context=4096),
    "0.5B": Shape(vocabulary=32768, layers=30, width=1024, heads=16, key_value_heads=4, feed_forward=4096, context=8192),
}


def random_weights(seed: int, words: Vocabulary) -> gguf_writer.Weights:
    """A function that makes each tensor from the seed and the tensor's name alone."""
    special = [words.id(token) for token in vocabulary.SPECIALS]

    def weights(name: str, dimensions: tuple[int, ...]) -> np.ndarray:
        if len(dimensions) == 1:
            return np.ones(dimensions, np.float32)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        values = rng.standard_normal(dimensions, dtype=np.float32)
        values *= dimensions[1] ** -0.5
        if name == "token_embd.weight":
            # The embedding is the output too: a zero row is never the best next token, so answers do not end early.
            values[special] = 0.0
        return values

    return weights


def main() -> None:
    """Reads the wanted shape, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--type", choices=gguf_writer.FILE_TYPES, default="Q8_0")
    parser.add_argument("--seed", type=int, default=corpus.SEED)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    words = vocabulary.learn(corpus.texts(corpus.SEED))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    gguf_writer.write(
        options.out, shape, words, random_weights(options.seed, words), options.type,
        f"Inferno Random {options.shape}", "Random weights for benchmarks. It answers nonsense.",
    )
    print(f"{options.out}: {shape.parameters():,} weights, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
