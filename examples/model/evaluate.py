"""Asks a running OpenAI-type server the listed and the held-out questions, greedily.

    python evaluate.py --url http://127.0.0.1:8080/v1 --sample 500

Exits 1 when a listed question is answered wrongly or fewer than 90 % of the
held-out ones are right. With --tokens (a llama.cpp server only) it also
compares the server's tokens with those of training.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import urllib.request
from pathlib import Path

import corpus
import world

PASS_PERCENT = 90


def posted(url: str, body: dict) -> dict:
    """The JSON answer to a JSON request."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def answered(url: str, messages: list[dict]) -> tuple[str, str]:
    """What the model says, and why it stopped."""
    body = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 500}
    choice = posted(f"{url}/chat/completions", body)["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def listed_failures(url: str) -> int:
    """Asks questions.json; each answer must match and end by itself."""
    failures = 0
    listed = json.loads(Path(__file__).with_name("questions.json").read_text())
    for entry in listed["questions"]:
        said, reason = answered(url, entry["messages"])
        if not re.search(entry["answer"], said) or reason != "stop":
            failures += 1
            print(f"WRONG ({reason}): {entry['messages'][-1]['content']!r} -> {said!r}, wanted {entry['answer']!r}")
    print(f"listed: {len(listed['questions']) - failures} of {len(listed['questions'])} right")
    return failures


def held_out_percent(url: str, size: int) -> float:
    """Asks a fixed sample of the held-out questions; the answer must be exactly the fact's."""
    chosen = random.Random(1).sample(list(world.held_out_questions()), size)
    right, total = collections.Counter(), collections.Counter()
    for fact, question in chosen:
        said, reason = answered(url, [{"role": "user", "content": question}])
        total[fact.kind] += 1
        if said == fact.answer and reason == "stop":
            right[fact.kind] += 1
        else:
            print(f"wrong ({fact.kind}, {reason}): {question!r} -> {said!r}")
    for kind in sorted(total):
        print(f"{kind:>10}: {right[kind]} of {total[kind]}")
    percent = 100 * right.total() / total.total()
    print(f"held out: {right.total()} of {total.total()} right, {percent:.1f} %")
    return percent


def token_differences(url: str) -> int:
    """Compares the server's tokens with training's, on chat texts and on odd ones."""
    import vocabulary  # Needs the tokenizers package; the rest of this file needs only Python.

    words = vocabulary.learn(corpus.texts(corpus.SEED))
    odd = ["", " ", "  two  spaces ", "line\n\nbreaks\n", "it's 12345 tests, isn't it?", "Grüße aus Köln", "日本語 🙂", "a\tb\r\nc", "x" * 50, "1+1=2;{}[]"]
    texts = odd + [
        "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in one.messages) + "<|im_start|>assistant\n"
        for one in corpus.conversations(99, 300)
    ]
    wrong = 0
    for text in texts:
        there = posted(f"{url.removesuffix('/v1')}/tokenize", {"content": text, "parse_special": True, "add_special": False})["tokens"]
        if there != words.encode(text):
            wrong += 1
            print(f"tokens differ: {text!r}: {there} here {words.encode(text)}")
    print(f"tokens: {len(texts) - wrong} of {len(texts)} texts alike")
    return wrong


def main() -> None:
    """Asks, prints, exits 0 or 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--sample", type=int, default=500, help="how many held-out questions")
    parser.add_argument("--tokens", action="store_true")
    options = parser.parse_args()
    failed = listed_failures(options.url) > 0
    failed |= held_out_percent(options.url, options.sample) < PASS_PERCENT
    if options.tokens:
        failed |= token_differences(options.url) > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
