"""The byte-level BPE vocabulary and the chat format, in one place.

Knows how text becomes tokens. Must not know what the text says (world.py) or
how the file is written (gguf_writer.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SIZE = 1024
START, END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIALS = [START, END, END_OF_TEXT]

# ChatML. llama.cpp and every OpenAI server that reads Jinja understands this form.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in id order, the merges in rank order, and the tokenizer that uses them."""

    tokens: list[str]
    merges: list[str]
    tokenizer: Tokenizer

    def id(self, token: str) -> int:
        """The id of a token that must exist."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(token)
        return found

    def encode(self, text: str) -> list[int]:
        """Token ids; special tokens written in the text become special tokens."""
        return self.tokenizer.encode(text).ids


def learn(texts: Iterable[str]) -> Vocabulary:
    """Trains a vocabulary of SIZE tokens. The same texts give the same vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    # The regular expression inside ByteLevel is GPT-2's; gguf_writer says "gpt-2" for that reason.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return from_json(tokenizer.to_str())


def from_json(text: str) -> Vocabulary:
    """Reads the tokenizer's own JSON form."""
    tokenizer = Tokenizer.from_str(text)
    model = json.loads(text)["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    if len(tokens) != tokenizer.get_vocab_size():
        raise ValueError("token ids have gaps")
    return Vocabulary(tokens, merges, tokenizer)
