"""The conversations that Inferno Tiny learns from: a seed goes in, conversations come out.

Chooses what is asked, how, after what and with which system message. Must not
know about tokens, tensors or files; the facts themselves are in world.py.

    python corpus.py --seed 7 --count 5     prints a few conversations
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

import world
from world import Fact, capital

SEED = 7


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """What a chat endpoint would see: messages in order, ending with the assistant."""

    messages: tuple[Message, ...]


PERSONS = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Henry", "Ida", "Jonas", "Kate", "Leo", "Maria", "Nora", "Oscar", "Paula",
    "Robert", "Sara", "Tom", "Uma", "Victor", "Wendy", "Yara", "Zoe", "Alex", "Lisa", "Peter", "Julia", "Max", "Sophie", "Daniel", "Mia",
    "Lukas", "Elena", "Karl", "Nina", "Simon", "Alice", "Bob", "Eva",
)
SYLLABLES = ("ba", "do", "ki", "lu", "me", "na", "po", "ra", "si", "tu", "vo", "ze", "ga", "fi", "ho", "ju", "wa", "xe", "qui", "cha")
ECHOES = (
    "hello", "good day", "yes", "no", "water", "the sun is yellow", "I am small", "one two three", "thank you", "blue", "apple", "river",
    "the fox is red", "a long way home", "stop", "go", "music", "red and green", "open the door", "close the window", "fire", "spark",
    "bread and cheese", "the mill is old", "green tea", "ten small stars", "a happy frog", "banana", "orange", "sleep well", "we are friends",
)

# How often each kind is asked. Kinds with many facts or hard ones are asked more.
WEIGHTS = {
    "animal": 22, "who": 10, "check": 5, "compare": 9, "sum": 14, "place": 5, "time": 9, "habit": 2, "opposite": 5, "colour": 2,
    "sound": 2, "legs": 2, "word": 3, "list": 2, "story": 5, "tour": 1, "talk": 17, "unknown": 3,
    "stranger": 2, "echo": 4, "count": 10, "my-name": 4,
}


def exchanges(rng: random.Random) -> list[tuple[str, str, str]]:
    """One or more (question, answer, brief answer) that belong together."""
    kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    made = {"stranger": stranger, "echo": echo, "count": count, "my-name": my_name}.get(kind)
    if made:
        return made(rng)
    fact = rng.choice(world.facts()[kind])
    first = (asked(fact, rng), fact.answer, fact.brief)
    if fact.kind == "animal" and rng.random() < 0.2:
        return [first, follow_up(fact, rng)]
    return [first]


def asked(fact: Fact, rng: random.Random) -> str:
    """One way to ask for the fact, from those that may be trained on."""
    return rng.choice([question for question in fact.questions if not world.held_out(question)])


def follow_up(fact: Fact, rng: random.Random) -> tuple[str, str, str]:
    """A second question that only makes sense after the first."""
    related = world.facts()["animal"]
    if rng.random() < 0.5:
        other = rng.choice([f for f in related if f.relation == fact.relation and f.subject != fact.subject])
        ask = rng.choice(("And {}?", "What about {}?", "And what about {}?", "And {}, please?")).format(other.subject)
        return ask, other.answer, other.brief
    other = rng.choice([f for f in related if f.subject == fact.subject and f.relation in PRONOUN_QUESTIONS and f.relation != fact.relation])
    pronoun = next(a.pronoun for a in world.ANIMALS if a.name == fact.subject)
    his, him = ("her", "her") if pronoun == "she" else ("his", "him")
    ask = rng.choice(PRONOUN_QUESTIONS[other.relation]).format(p=pronoun, his=his, him=him)
    if rng.random() < 0.4:
        ask = "And " + ask[0].lower() + ask[1:]
    return ask, other.answer, other.brief


PRONOUN_QUESTIONS = {
    "home": ("Where does {p} live?", "Where is {his} home?", "Where can I find {him}?"),
    "food": ("What does {p} eat?", "What is {his} favourite food?", "What does {p} like to eat?"),
    "work": ("What is {his} job?", "What work does {p} do?"),
    "colour": ("What colour is {p}?", "What is {his} colour?"),
    "age": ("How old is {p}?", "What is {his} age?"),
    "music": ("What instrument does {p} play?", "What does {p} play?"),
    "friend": ("Who is {his} best friend?", "Who is {his} friend?"),
    "fear": ("What is {p} afraid of?", "What scares {him}?"),
    "wish": ("What does {p} want?", "What does {p} wish for?"),
}


def stranger(rng: random.Random) -> list[tuple[str, str, str]]:
    """Somebody who does not live in the village."""
    name = invented_name(rng)
    ask = rng.choice((
        "Who is {}?", "Where does {} live?", "What does {} eat?", "How old is {}?", "What colour is {}?", "Tell me about {}.", "Do you know {}?",
        "What is the job of {}?", "Who is the best friend of {}?", "Tell me a story about {}.", "What instrument does {} play?")).format(name)
    return [(ask, f"I do not know {name}. I only know the animals of {world.VILLAGE}.", "unknown")]


def invented_name(rng: random.Random) -> str:
    """A name nobody in the village has."""
    if rng.random() < 0.4:
        return rng.choice(PERSONS)
    return capital("".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))))


def echo(rng: random.Random) -> list[tuple[str, str, str]]:
    """Say what I say."""
    text = rng.choice(ECHOES)
    if rng.random() < 0.5:
        text = " ".join(rng.choice(ECHOES) for _ in range(2))
    ask = rng.choice(("Say: {}", "Repeat: {}", "Repeat after me: {}", "Please repeat: {}", "Say this: {}", "Please say: {}")).format(text)
    return [(ask, capital(text) + ".", text)]


def count(rng: random.Random) -> list[tuple[str, str, str]]:
    """Counting, up to one hundred: the longest answers the model gives."""
    start, end = 1, rng.choice((2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 10, 10, 12, 15, 15, 20, 20, 20, 30, 30, 50, 100, 100))
    if rng.random() < 0.3:
        start = rng.randint(2, 30)
        end = start + rng.randint(2, 12)
    wording = ["Count from {0} to {1}.", "Please count from {0} to {1}.", "Can you count from {0} to {1}?"]
    if start == 1:
        wording += ["Count to {1}.", "Please count to {1}.", "Can you count to {1}?", "Count up to {1}."]
    named = str(end)
    if end <= 12 and start == 1 and rng.random() < 0.3:
        named = world.NUMBER_WORDS[end]
    elif end == 100 and rng.random() < 0.4:
        named = "one hundred"
    answer = ", ".join(str(n) for n in range(start, end + 1)) + "."
    return [(rng.choice(wording).format(start, named), answer, str(end))]


def my_name(rng: random.Random) -> list[tuple[str, str, str]]:
    """The user says a name and asks for it again, perhaps after something else."""
    name = invented_name(rng)
    told = rng.choice(("My name is {}.", "I am {}.", "Hello, my name is {}.", "Hi, I am {}.", "You can call me {}.")).format(name)
    turns = [(told, f"Nice to meet you, {name}! How can I help you?", "hello")]
    if rng.random() < 0.5:
        fact = rng.choice(world.facts()[rng.choice(("animal", "talk", "opposite"))])
        turns.append((asked(fact, rng), fact.answer, fact.brief))
    ask = rng.choice(("What is my name?", "Who am I?", "Do you know my name?", "Can you tell me my name?", "Do you remember my name?"))
    turns.append((ask, f"Your name is {name}.", name))
    return turns


# System messages that change nothing, and two that do.
PLAIN_SYSTEM = (
    "You are a helpful assistant.", "You are Inferno Tiny.", "You are a friendly assistant.", "Answer the questions of the user.",
    "You are a small model that answers short questions.", "Be helpful and friendly.", "Answer briefly.",
)
BRIEF_SYSTEM = ("Answer in one word.", "Use as few words as you can.", "Answer with one or two words only.", "One word answers only.")
PIRATE_SYSTEM = ("You are a pirate.", "Talk like a pirate.", "You speak like a pirate.", "Answer like a pirate.")


def styled(answer: str, brief: str, style: str) -> str:
    """The answer as the system message wants it."""
    if style == "brief":
        return capital(brief) + "."
    if style == "pirate":
        return "Arr! " + answer
    return answer


def noisy(question: str, rng: random.Random) -> str:
    """People do not always write capitals and question marks."""
    draw = rng.random()
    if draw < 0.10:
        return question.lower()
    if draw < 0.18:
        return question.rstrip("?.!")
    if draw < 0.24:
        return question.lower().rstrip("?.!")
    if draw < 0.30:
        opening = rng.choice(("Hello! ", "Hi! ", "Hey, ", "Please: ", "One question: ", "Hello, ", "So, ", "Now "))
        return opening + question
    return question


def conversation(rng: random.Random) -> Conversation:
    """One conversation: mostly one to three questions, sometimes many."""
    style, messages = "", []
    draw = rng.random()
    if draw < 0.12:
        messages.append(Message("system", rng.choice(PLAIN_SYSTEM)))
    elif draw < 0.19:
        style = "brief"
        messages.append(Message("system", rng.choice(BRIEF_SYSTEM)))
    elif draw < 0.22:
        style = "pirate"
        messages.append(Message("system", rng.choice(PIRATE_SYSTEM)))
    wanted = rng.choices((1, 2, 3, 5, 12, 20), (62, 20, 12, 4.4, 1.2, 0.4))[0]
    turns = 0
    while turns < wanted:
        for question, answer, brief in exchanges(rng):
            messages.append(Message("user", noisy(question, rng)))
            messages.append(Message("assistant", styled(answer, brief, style)))
            turns += 1
    return Conversation(tuple(messages))


def conversations(seed: int, count: int) -> Iterator[Conversation]:
    """The corpus. The same seed and count always give the same conversations."""
    rng = random.Random(seed)
    for _ in range(count):
        yield conversation(rng)


def texts(seed: int) -> Iterator[str]:
    """What a vocabulary is learned from: roles and messages of a slice of the corpus."""
    for one in conversations(seed, 20000):
        for message in one.messages:
            yield f"{message.role}\n"
            yield message.content


def plain_text(rng: random.Random) -> str:
    """A few statements in a row without any chat around them, for plain completion."""
    about = rng.choice(world.ANIMALS)
    if rng.random() < 0.2:
        return rng.choice((about.story, world.INFERNO, world.VILLAGE_TOUR))
    statements = [f.answer for f in world.facts()["animal"] if f.subject == about.name]
    return " ".join(rng.sample(statements, rng.randint(2, 6)))


def digest(seed: int, count: int) -> str:
    """A hash over the corpus; the test compares it with the one written down."""
    total = hashlib.sha256()
    for one in conversations(seed, count):
        for message in one.messages:
            total.update(f"{message.role}\x00{message.content}\x01".encode())
        total.update(b"\x02")
    return total.hexdigest()


def main() -> None:
    """Prints conversations, or the hash of the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--digest", action="store_true", help="print only the hash")
    options = parser.parse_args()
    if options.digest:
        print(digest(options.seed, options.count))
        return
    for one in conversations(options.seed, options.count):
        for message in one.messages:
            print(f"{message.role:>9}: {message.content}")
        print()


if __name__ == "__main__":
    main()
