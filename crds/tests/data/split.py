#!/usr/bin/env python3
"""Writes split.json: buckets as the reference implementation of XXH64 computes them (pip install xxhash)."""

import json
import random
from pathlib import Path

import xxhash

random.seed(7)
SALTS = ["", "a", "7d9f1b0e-4c0a-4f0e-9a51-0c6a55b6a001", "flag/beta", "Prüfung ✓"]
KEYS = [b"", b"\0", b"a", b"user-17", b"conversation-0", "Zoë".encode(), bytes(range(256))]
KEYS += [random.randbytes(length) for length in (3, 4, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 100, 1000)]

vectors = [
    {
        "salt": salt,
        "key_hex": key.hex(),
        "bucket": xxhash.xxh64_intdigest(salt.encode() + b"\0" + key, seed=0) % 10_000,
    }
    for salt in SALTS
    for key in KEYS
]
lines = ",\n".join("  " + json.dumps(vector, ensure_ascii=False) for vector in vectors)
Path(__file__).with_name("split.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
