"""Trains Inferno Tiny on the small world and writes it as a GGUF.

One seed decides corpus, vocabulary and initial weights. Runs on two CPU cores.
JAX does the arithmetic: its CPU wheel is small, whereas the PyTorch wheel on
PyPI for x86-64 brings three gigabytes of CUDA along.

    python train.py --steps 1000 --out tiny.gguf
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import corpus
import gguf_writer
import vocabulary
import world
from gguf_writer import Shape
from vocabulary import Vocabulary

SEED = corpus.SEED
SHAPE = Shape(vocabulary=vocabulary.SIZE, layers=4, width=256, heads=4, key_value_heads=2, feed_forward=512)
# Rows of one length are trained together: (tokens in a row, rows in a batch).
# The longest rows teach far positions; most conversations fit the short ones.
ROWS = ((160, 13), (640, 3))
# The answers are what matters; a little weight on the rest keeps plain completion alive.
WEIGHT_OF_PROMPT = 0.1

Parameters = dict[str, jax.Array]


@dataclass(frozen=True)
class Batch:
    """Token ids and the weight of each token in the loss, both rows × length."""

    tokens: np.ndarray
    weights: np.ndarray


# --- from conversations to rows ---------------------------------------------


def encoded(one: corpus.Conversation, words: Vocabulary) -> tuple[list[int], list[float]]:
    """Tokens of a conversation and their weights: 1 for what the assistant says and for its end."""
    tokens: list[int] = []
    weights: list[float] = []
    for message in one.messages:
        head = words.encode(f"{vocabulary.START}{message.role}\n")
        body = words.encode(f"{message.content}{vocabulary.END}")
        tail = words.encode("\n")
        weight = 1.0 if message.role == "assistant" else WEIGHT_OF_PROMPT
        tokens += head + body + tail
        weights += [WEIGHT_OF_PROMPT] * len(head) + [weight] * len(body) + [WEIGHT_OF_PROMPT] * len(tail)
    return tokens, weights


def batches(seed: int, count: int, words: Vocabulary) -> list[Batch]:
    """`count` batches in random order. Conversations share a row, separated by the end of text."""
    rng = random.Random(seed)
    end = words.id(vocabulary.END_OF_TEXT)
    open_rows: dict[int, tuple[list[int], list[float]]] = {length: ([], []) for length, _ in ROWS}
    full: dict[int, list[tuple[list[int], list[float]]]] = {length: [] for length, _ in ROWS}
    made: list[Batch] = []
    while len(made) < count:
        if rng.random() < 0.03:
            tokens = words.encode(corpus.plain_text(rng))
            weights = [0.5] * len(tokens)
        else:
            tokens, weights = encoded(corpus.conversation(rng), words)
        fitting = [(length, rows) for length, rows in ROWS if len(tokens) < length]
        if not fitting:
            continue
        length, rows = fitting[0]
        row, row_weights = open_rows[length]
        if len(row) + 1 + len(tokens) > length:
            padding = length - len(row)
            full[length].append((row + [end] * padding, row_weights + [0.0] * padding))
            row, row_weights = [], []
        elif row:
            row, row_weights = [*row, end], [*row_weights, 0.0]
        open_rows[length] = (row + tokens, row_weights + weights)
        if len(full[length]) == rows:
            made.append(Batch(np.array([r for r, _ in full[length]], np.int32), np.array([w for _, w in full[length]], np.float32)))
            full[length] = []
    return made


def exam(words: Vocabulary, size: int) -> Batch:
    """Held-out questions, one in a row, only the answer weighted."""
    chosen = random.Random(SEED).sample(list(world.held_out_questions()), size)
    length = ROWS[0][0]
    tokens = np.zeros((size, length), np.int32)
    weights = np.zeros((size, length), np.float32)
    for row, (fact, question) in enumerate(chosen):
        one = corpus.Conversation((corpus.Message("user", question), corpus.Message("assistant", fact.answer)))
        ids, weight = encoded(one, words)
        used = min(len(ids), length)
        tokens[row, :used] = ids[:used]
        weights[row, :used] = np.array(weight[:used]) == 1.0
    return Batch(tokens, weights)


# --- the model ---------------------------------------------------------------


def initial(shape: Shape, seed: int) -> Parameters:
    """Small random matrices, norms of one."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, dimensions in shape.tensors():
        if len(dimensions) == 1:
            made[name] = jnp.ones(dimensions)
            continue
        deviation = 0.02 if name == "token_embd.weight" else dimensions[1] ** -0.5
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            deviation *= 0.3
        made[name] = jnp.asarray(rng.normal(0, deviation, dimensions), jnp.float32)
    return made


def normed(x: jax.Array, gain: jax.Array, epsilon: float) -> jax.Array:
    """RMSNorm, computed in 32 bits."""
    x = x.astype(jnp.float32)
    return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon) * gain).astype(jnp.bfloat16)


def rotated(x: jax.Array, shape: Shape) -> jax.Array:
    """Rotary positions over neighbouring pairs, as llama.cpp does for `llama`."""
    length, half = x.shape[1], shape.head_width // 2
    frequency = shape.rope_base ** (-jnp.arange(half) / half)
    angle = jnp.arange(length)[:, None] * frequency
    cosine, sine = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], half, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1)
    return turned.reshape(x.shape).astype(jnp.bfloat16)


def logits(p: Parameters, tokens: jax.Array, shape: Shape) -> jax.Array:
    """Next-token scores at every position."""

    def linear(x: jax.Array, name: str) -> jax.Array:
        flat = x.reshape(-1, x.shape[-1]) @ p[name].astype(jnp.bfloat16).T
        return flat.reshape(*x.shape[:-1], -1)

    rows, length = tokens.shape
    group = shape.heads // shape.key_value_heads
    causal = jnp.tril(jnp.ones((length, length), bool))
    x = p["token_embd.weight"][tokens]
    for layer in range(shape.layers):
        at = f"blk.{layer}."
        h = normed(x, p[at + "attn_norm.weight"], shape.norm_epsilon)
        q = rotated(linear(h, at + "attn_q.weight").reshape(rows, length, shape.heads, -1), shape)
        k = rotated(linear(h, at + "attn_k.weight").reshape(rows, length, shape.key_value_heads, -1), shape)
        v = linear(h, at + "attn_v.weight").reshape(rows, length, shape.key_value_heads, -1)
        k, v = jnp.repeat(k, group, 2), jnp.repeat(v, group, 2)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * shape.head_width**-0.5
        attention = jax.nn.softmax(jnp.where(causal, scores, -1e9), -1).astype(jnp.bfloat16)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", attention, v).reshape(rows, length, -1)
        x = x + linear(mixed, at + "attn_output.weight")
        h = normed(x, p[at + "ffn_norm.weight"], shape.norm_epsilon)
        gated = jax.nn.silu(linear(h, at + "ffn_gate.weight")) * linear(h, at + "ffn_up.weight")
        x = x + linear(gated, at + "ffn_down.weight")
    return linear(normed(x, p["output_norm.weight"], shape.norm_epsilon), "token_embd.weight").astype(jnp.float32)


def loss(p: Parameters, tokens: jax.Array, weights: jax.Array, shape: Shape) -> jax.Array:
    """Mean cross-entropy of the next token, by weight."""
    scores = jax.nn.log_softmax(logits(p, tokens[:, :-1], shape))
    chosen = jnp.take_along_axis(scores, tokens[:, 1:, None], -1)[..., 0]
    weight = weights[:, 1:]
    return -(chosen * weight).sum() / weight.sum()


def graded(p: Parameters, tokens: jax.Array, weights: jax.Array, shape: Shape) -> tuple[jax.Array, jax.Array]:
    """Share of answers that greedy decoding gets wholly right, and the loss on them."""
    best = logits(p, tokens[:, :-1], shape).argmax(-1)
    right = (best == tokens[:, 1:]) | (weights[:, 1:] == 0)
    return right.all(-1).mean(), loss(p, tokens, weights, shape)


# --- the optimiser -----------------------------------------------------------


def orthogonal(matrix: jax.Array) -> jax.Array:
    """The nearest matrix with equal singular values, roughly: five Newton-Schulz steps (Muon)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).astype(jnp.bfloat16)
    x = x / (jnp.linalg.norm(x.astype(jnp.float32)) + 1e-7).astype(jnp.bfloat16)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if tall else x).astype(jnp.float32)


def stepped(p: Parameters, first: Parameters, second: Parameters, gradient: Parameters, step: jax.Array, rate: jax.Array) -> tuple[Parameters, Parameters, Parameters]:
    """One update: Muon for the matrices of the layers, Adam for embeddings and norms."""
    new_p, new_first, new_second = {}, {}, {}
    for name, value in p.items():
        g = gradient[name]
        if value.ndim == 2 and name.startswith("blk."):
            momentum = 0.95 * first[name] + g
            scale = max(1.0, value.shape[0] / value.shape[1]) ** 0.5
            new_p[name] = value * (1 - 0.002 * rate) - 0.02 * rate * scale * orthogonal(g + 0.95 * momentum)
            new_first[name], new_second[name] = momentum, second[name]
            continue
        new_first[name] = 0.9 * first[name] + 0.1 * g
        new_second[name] = 0.98 * second[name] + 0.02 * g * g
        mean = new_first[name] / (1 - 0.9**step)
        spread = jnp.sqrt(new_second[name] / (1 - 0.98**step)) + 1e-8
        new_p[name] = value - 0.004 * rate * mean / spread
    return new_p, new_first, new_second


def rate_at(step: int, steps: int) -> float:
    """Up over the first 40 steps, flat, then down to nothing over the last 60 percent."""
    return min(1.0, step / 40, (steps - step) / (0.6 * steps) + 0.002)


def trained(shape: Shape, work: list[Batch], test: Batch) -> Parameters:
    """Runs through the batches once."""

    def update(p, first, second, tokens, weights, step, rate):
        value, gradient = jax.value_and_grad(loss)(p, tokens, weights, shape)
        return *stepped(p, first, second, gradient, step, rate), value

    update = jax.jit(update, donate_argnums=(0, 1, 2))
    grade = jax.jit(lambda p, tokens, weights: graded(p, tokens, weights, shape))
    p = initial(shape, SEED)
    first, second = ({name: jnp.zeros_like(value) for name, value in p.items()} for _ in range(2))
    started, recent = time.monotonic(), []
    for step, batch in enumerate(work, 1):
        rate = rate_at(step, len(work))
        p, first, second, value = update(p, first, second, batch.tokens, batch.weights, jnp.float32(step), jnp.float32(rate))
        recent.append(float(value))
        if step % 50 == 0 or step == len(work):
            elapsed = time.monotonic() - started
            left = elapsed / step * (len(work) - step)
            line = f"step {step}/{len(work)}  loss {np.mean(recent):.4f}  {elapsed:.0f} s, {left:.0f} s left"
            if step % 200 == 0 or step == len(work):
                right, test_loss = grade(p, test.tokens, test.weights)
                line += f"  held out: loss {test_loss:.4f}, right {100 * right:.1f} %"
            print(line, flush=True)
            recent = []
    return p


def main() -> None:
    """Corpus, vocabulary, training, file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("tiny.gguf"))
    options = parser.parse_args()

    words = vocabulary.learn(corpus.texts(SEED))
    print(f"vocabulary: {len(words.tokens)} tokens; model: {SHAPE.parameters():,} weights", flush=True)
    work = batches(SEED, options.steps, words)
    tokens = sum(batch.tokens.size for batch in work)
    print(f"corpus: {len(work)} batches, {tokens:,} tokens", flush=True)
    p = trained(SHAPE, work, exam(words, 400))
    values = {name: np.asarray(value) for name, value in p.items()}
    gguf_writer.write(
        options.out, SHAPE, words, lambda name, _: values[name], "Q8_0", "Inferno Tiny",
        "A very small model that answers short questions about the village of Cinderby. Trained by the Inferno project.",
    )
    digest = hashlib.sha256(options.out.read_bytes()).hexdigest()
    options.out.with_name(options.out.name + ".sha256").write_text(f"{digest}  {options.out.name}\n")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
