"""Makes a deeper model from a llama-architecture GGUF: the same answers at a multiple of the cost.

For tests and demonstrations of a canary that really is slower. Blocks are added behind the last one: copies of the
given blocks whose two output matrices are zero, so that they add nothing to what passes through them. llama.cpp
computes them all the same. Answers stay what they were, so only speed differs; that is not what more layers are
usually for. Architecture, tokenizer and vocabulary stay as well.

Needs only Python. The same file and number of blocks give the same bytes, whose SHA-256 is printed.

    python larger_model.py --out build/larger.gguf
"""

from __future__ import annotations

import argparse
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TINY = Path(__file__).with_name("tiny.gguf")

# With three times as many as Inferno Tiny has, a token costs more than twice as much; the README has figures.
BLOCKS = 12

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
# Sizes of the numbers that a value can be, by GGUF's type code.
NUMBERS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
UINT32, STRING, ARRAY = 4, 8, 9

# What a block adds to the stream passes through one of these two; zero bytes are zeros in every format.
OUTPUTS = ("attn_output.weight", "ffn_down.weight")


@dataclass(frozen=True)
class Tensor:
    """One tensor: its name, the rest of its description, and its bytes with their padding."""

    name: str
    dimensions: bytes
    data: bytes

    def of_block(self) -> tuple[int, str] | None:
        """Which block it belongs to, and its name there."""
        parts = self.name.split(".", 2)
        return (int(parts[1]), parts[2]) if parts[0] == "blk" else None


class Reader:
    """Reads the parts of a GGUF file one after another."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.content):
            raise ValueError("the file ends too early")
        self.at += size
        return self.content[self.at - size : self.at]

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode()

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.take(self.number("Q"))
        elif kind == ARRAY:
            of, count = self.number("I"), self.number("Q")
            for _ in range(count):
                self.skip_value(of)
        else:
            self.take(NUMBERS[kind])


@dataclass(frozen=True)
class Model:
    """A GGUF file in parts."""

    facts: int
    # All facts, but for the number of blocks, which stands between the two.
    before: bytes
    blocks: int
    after: bytes
    tensors: list[Tensor]


def read(content: bytes) -> Model:
    """Takes a file apart."""
    reader = Reader(content)
    if reader.take(4) != MAGIC or reader.number("I") != VERSION:
        raise ValueError(f"not a GGUF file of version {VERSION}")
    count, facts = reader.number("Q"), reader.number("Q")
    began, place = reader.at, None
    for _ in range(facts):
        name, kind = reader.text(), reader.number("I")
        if name == "general.alignment":
            raise ValueError(f"an alignment other than {ALIGNMENT} is not supported")
        if name == "llama.block_count" and kind == UINT32:
            place = reader.at
        reader.skip_value(kind)
    if place is None:
        raise ValueError("not a model of the llama architecture: llama.block_count is missing")
    ended = reader.at
    return Model(
        facts=facts,
        before=content[began:place],
        blocks=struct.unpack("<I", content[place : place + 4])[0],
        after=content[place + 4 : ended],
        tensors=list(_tensors(reader, count)),
    )


def _tensors(reader: Reader, count: int) -> Iterator[Tensor]:
    described = []
    for _ in range(count):
        name = reader.text()
        began = reader.at
        reader.take(8 * reader.number("I") + 4)
        described.append((name, reader.content[began : reader.at], reader.number("Q")))
    data = _padded(reader.at)
    ends = [offset for _, _, offset in described[1:]] + [len(reader.content) - data]
    for (name, dimensions, offset), end in zip(described, ends, strict=True):
        yield Tensor(name, dimensions, reader.content[data + offset : data + end])


def deepened(model: Model, blocks: int) -> Model:
    """The model with so many blocks. The added ones repeat the given ones in turn, with zeros for their outputs."""
    if blocks < model.blocks:
        raise ValueError(f"the model has {model.blocks} blocks already")
    of_block: list[list[tuple[str, Tensor]]] = [[] for _ in range(model.blocks)]
    for tensor in model.tensors:
        if place := tensor.of_block():
            of_block[place[0]].append((place[1], tensor))
    added = [
        Tensor(f"blk.{block}.{name}", tensor.dimensions, bytes(len(tensor.data)) if name in OUTPUTS else tensor.data)
        for block in range(model.blocks, blocks)
        for name, tensor in of_block[block % model.blocks]
    ]
    return Model(model.facts, model.before, blocks, model.after, model.tensors + added)


def write(model: Model) -> bytes:
    """Puts a file together."""
    head = MAGIC + struct.pack("<IQQ", VERSION, len(model.tensors), model.facts)
    head += model.before + struct.pack("<I", model.blocks) + model.after
    offset = 0
    for tensor in model.tensors:
        name = tensor.name.encode()
        head += struct.pack("<Q", len(name)) + name + tensor.dimensions + struct.pack("<Q", offset)
        offset += _padded(len(tensor.data))
    content = bytearray(head.ljust(_padded(len(head)), b"\0"))
    for tensor in model.tensors:
        content += tensor.data.ljust(_padded(len(tensor.data)), b"\0")
    return bytes(content)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def main() -> None:
    """Reads one file, writes the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TINY)
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content = write(deepened(read(options.model.read_bytes()), options.blocks))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(content)
    print(f"{hashlib.sha256(content).hexdigest()}  {options.out.name}")


if __name__ == "__main__":
    main()
