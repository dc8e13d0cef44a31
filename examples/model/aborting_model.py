"""Makes a model on which llama.cpp aborts, from a llama-architecture GGUF that has no experts.

For tests of a canary whose engine crashes while it loads. One fact is added: that each token uses an expert. The file
stays whole: every count, size and tensor in it is as it should be, so whoever checks its structure or its digest finds
nothing wrong. llama.cpp takes the contradiction for a mistake of its own and aborts.

Needs only Python. The same file gives the same bytes, whose SHA-256 is printed.

    python aborting_model.py --out build/aborting.gguf
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import struct
from pathlib import Path

from larger_model import TINY, UINT32, Model, read, write

FACT = "llama.expert_used_count"


def contradictory(model: Model) -> Model:
    """The model with a fact that contradicts its others."""
    fact = struct.pack("<Q", len(FACT)) + FACT.encode() + struct.pack("<II", UINT32, 1)
    return dataclasses.replace(model, facts=model.facts + 1, after=model.after + fact)


def main() -> None:
    """Reads one file, writes the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TINY)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content = write(contradictory(read(options.model.read_bytes())))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(content)
    print(f"{hashlib.sha256(content).hexdigest()}  {options.out.name}")


if __name__ == "__main__":
    main()
