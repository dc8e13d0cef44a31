"""The small world that Inferno Tiny knows: facts, and the many ways to ask for each.

Everything here is invented for this project: a village called Cinderby, its ten
animals, and a few plain facts about days, numbers and opposites. Each fact has
one fixed answer. Some questions are held out by a hash of their words: the
model never sees them, evaluate.py asks them. No chance is involved here; what
is asked when is the matter of corpus.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import permutations

HELD_OUT_PERCENT = 6


@dataclass(frozen=True)
class Fact:
    """One thing to know: its full answer, its answer in a word or two, and ways to ask."""

    kind: str
    answer: str
    brief: str
    questions: tuple[str, ...]
    # Set when a later turn may ask the same about somebody else, or something else about the same one.
    subject: str = ""
    relation: str = ""


@dataclass(frozen=True)
class Animal:
    """One of the ten inhabitants."""

    name: str
    pronoun: str
    species: str
    colour: str
    home: str
    food: str
    work: str
    age: str
    plays: str
    friend: str
    fear: str
    wish: str
    story: str = field(repr=False)


VILLAGE = "Cinderby"

ANIMALS = (
    Animal("Pip", "she", "mouse", "grey", "mill", "cheese", "baker", "three", "flute", "Bruno", "thunder", "a red bicycle",
           "One night the wheel of the mill stopped, and there was no flour. Pip the mouse took a candle and climbed "
           "down to the water. A big branch was stuck in the wheel. She could not move it alone, so she called Bruno. "
           "Together they pulled until the branch came out. In the morning there was warm bread for everyone."),
    Animal("Bruno", "he", "bear", "brown", "cave", "honey", "beekeeper", "nine", "drum", "Pip", "wasps", "a longer winter sleep",
           "In spring the bees of Bruno the bear flew away and did not come back. Bruno looked in the forest and on the "
           "hill, but he found nothing. Then he sat down and played a soft song on his drum. The bees heard it and came "
           "home one by one. Since that day Bruno plays for them every evening."),
    Animal("Rosa", "she", "fox", "red", "forest", "grapes", "painter", "five", "violin", "Otto", "deep water", "a box of new colours",
           "Rosa the fox wanted to paint the wind, but nobody can see the wind. She sat in the forest and waited. "
           "The leaves began to dance, and the grass bent down like a wave. Rosa painted the leaves and the grass. "
           "When her friends saw the picture, they all held their hats."),
    Animal("Otto", "he", "otter", "black", "river", "fish", "ferryman", "six", "horn", "Rosa", "thin ice", "a boat with a sail",
           "One morning the fog was so thick that Otto the otter could not see the other side of the river. Hugo had "
           "a letter that could not wait. Otto blew his horn and listened. From the far side Rosa answered with her "
           "violin. Otto rowed toward the music, and the letter arrived in time."),
    Animal("Luna", "she", "owl", "white", "tower", "plums", "teacher", "twelve", "harp", "Milo", "bright light", "a map of the stars",
           "Luna the owl counted the stars every night, and every night one star was missing. She asked Milo, and Milo "
           "looked in all his books. At last they climbed the tower together. A small lamp was shining in the window of "
           "the mill, and it hid the star. Pip put out the lamp, and the star was there again."),
    Animal("Milo", "he", "cat", "orange", "library", "cream", "librarian", "seven", "piano", "Luna", "cold rain", "a quiet chair by the fire",
           "A page was missing from the best book in the library. Milo the cat looked under every chair. He asked the "
           "mouse, the frog and the fox, but nobody had it. Then he heard paper in the tree. The wind had taken the page "
           "to Luna, and she was reading it aloud. Milo sat down and listened to the end."),
    Animal("Fern", "she", "frog", "green", "pond", "berries", "gardener", "two", "trumpet", "Hugo", "dry weather", "a week of warm rain",
           "It did not rain for a long time, and the garden was dry. Fern the frog had only one small bucket. She "
           "carried water from the pond all day, but it was not enough. Then Hugo came with his cart and ten big "
           "barrels. By the evening every plant was green, and Fern played her trumpet on the gate."),
    Animal("Hugo", "he", "horse", "golden", "barn", "carrots", "postman", "ten", "guitar", "Fern", "snakes", "a new pair of shoes",
           "Hugo the horse found a letter without a name. He asked at every door, but nobody knew it. In the evening he "
           "opened the letter at the well. It said: thank you for bringing us good news in the rain and in the snow. "
           "All his friends had signed it. Hugo was so happy that he forgot his carrots."),
    Animal("Ivy", "she", "rabbit", "silver", "hill", "clover", "doctor", "four", "bells", "Toto", "the dark", "a lamp that never goes out",
           "One winter night Toto was ill, and the path to the garden was dark. Ivy the rabbit is afraid of the dark, but "
           "she took her bag and her bells. She rang the bells at every step. One window after another was lit, until "
           "the whole path was bright. Toto got his medicine, and in the morning he was well."),
    Animal("Toto", "he", "tortoise", "blue", "garden", "lettuce", "clockmaker", "eighty", "cello", "Ivy", "loud noise", "more time for tea",
           "The clock on the tower stopped, and nobody knew when to eat. Toto the tortoise walked to the tower. It took "
           "him the whole day. He found a tiny plum stone between the wheels and took it out. The clock said five, and "
           "Luna was very sorry. Toto only smiled and drank his tea."),
)

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
AGES = {**{word: value for value, word in enumerate(NUMBER_WORDS)}, "eighty": 80}
NEIGHBOURS = {
    "mill": "river", "cave": "forest", "forest": "cave", "river": "mill", "tower": "library",
    "library": "tower", "pond": "garden", "barn": "hill", "hill": "barn", "garden": "pond",
}
TREASURES = {
    "mill": "a big wooden wheel", "cave": "a bed of dry leaves", "forest": "an old oak tree", "river": "a small ferry",
    "tower": "a large clock", "library": "one thousand books", "pond": "a stone bridge", "barn": "a yellow cart",
    "hill": "a round windmill", "garden": "a row of sunflowers",
}
# So few that a model of this size learns them by heart.
SUM_MAX = 5
WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HABITS = {
    "Monday": "Pip bakes bread for the whole village", "Tuesday": "Hugo brings the letters",
    "Wednesday": "Luna gives a lesson in the tower", "Thursday": "Fern waters the garden",
    "Friday": "there is a market at the well", "Saturday": "everybody plays music and dances",
    "Sunday": "everybody rests",
}
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
SEASONS = ("spring", "summer", "autumn", "winter")
OPPOSITES = (
    ("big", "small"), ("hot", "cold"), ("day", "night"), ("up", "down"), ("left", "right"), ("fast", "slow"),
    ("old", "young"), ("happy", "sad"), ("open", "closed"), ("wet", "dry"), ("light", "dark"), ("hard", "soft"),
    ("long", "short"), ("rich", "poor"), ("full", "empty"), ("loud", "quiet"), ("early", "late"), ("near", "far"),
    ("strong", "weak"), ("thick", "thin"), ("good", "bad"), ("true", "false"), ("first", "last"), ("high", "low"),
    ("clean", "dirty"), ("sweet", "sour"), ("north", "south"), ("east", "west"), ("inside", "outside"), ("yes", "no"),
)
COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "a tomato": "red",
    "a plum": "purple", "a carrot": "orange", "chocolate": "brown", "a cloud": "white", "the sun": "yellow",
    "a strawberry": "red", "a leaf": "green", "milk": "white", "a pig": "pink", "an elephant": "grey",
}
SOUNDS = {
    "cat": "meow", "dog": "woof", "cow": "moo", "sheep": "baa", "duck": "quack", "frog": "croak", "bee": "buzz",
    "owl": "hoot", "horse": "neigh", "mouse": "squeak", "pig": "oink", "snake": "hiss", "lion": "roar", "rooster": "crow",
}
LEGS = {
    "cat": "four", "dog": "four", "spider": "eight", "bird": "two", "ant": "six", "bee": "six", "horse": "four",
    "owl": "two", "snake": "no", "fish": "no", "tortoise": "four", "duck": "two",
}
WORDS_EXPLAINED = {
    "Kubernetes": "Kubernetes is a system that runs containers on many machines and keeps them healthy.",
    "a pod": "A pod is the smallest thing that Kubernetes runs. It holds one or more containers.",
    "a container": "A container is a program packed together with everything that it needs.",
    "a node": "A node is one machine of a cluster.",
    "a cluster": "A cluster is a group of machines that work together.",
    "an operator": "An operator is a program that looks after other programs on a cluster.",
    "a sidecar": "A sidecar is a helper that runs beside a program in the same pod.",
    "a token": "A token is a small piece of text. I read and write one token after another.",
    "a GGUF file": "A GGUF file holds a language model: its words, its numbers and its description.",
    "a queue": "A queue is a line in which requests wait for their turn.",
    "a prompt": "A prompt is the text that you send to a model.",
    "a stream": "A stream brings the answer piece by piece while it is being written.",
    "a language model": "A language model is a program that reads text and guesses how it goes on.",
    "a seed": "A seed is a number that makes chance repeat itself.",
}
INFERNO = (
    "Inferno serves language models on Kubernetes. You describe a model in a few lines, and the operator starts it on "
    "your cluster. Each pod has a sidecar that keeps a fair queue and an engine that writes the answer. "
    "More pods start when more people ask, and they stop when it is quiet. I am the small model that comes with it."
)
VILLAGE_TOUR = (
    "Cinderby is a small village between a river and a hill. In the middle there is an old well. Ten animals live around it. "
    "Pip the mouse bakes bread in the mill, and Otto the otter rows the ferry across the river. Bruno the bear keeps his "
    "bees near the cave, and Rosa the fox paints in the forest. Luna the owl teaches in the tower, and Milo the cat reads in "
    "the library. Fern the frog swims in the pond and waters the garden, where Toto the tortoise repairs his clocks. "
    "Hugo the horse sleeps in the barn and brings the letters. Ivy the rabbit lives on the hill and makes the others well. "
    "On Friday they meet at the market, on Saturday they dance, and on Sunday they rest."
)

# How a question that begins with a question word is put into another sentence.
EMBEDDINGS = (
    "Tell me {}.", "Please tell me {}.", "Can you tell me {}?", "Could you tell me {}?", "Do you know {}?",
    "I want to know {}.", "I would like to know {}.", "Can you say {}?",
)


def phrase(direct: tuple[str, ...], embedded: tuple[str, ...]) -> tuple[str, ...]:
    """All ways to ask: direct questions as they are, embedded ones in every sentence around them."""
    return direct + tuple(around.format(core) for core in embedded for around in EMBEDDINGS)


def article(noun: str) -> str:
    """"a" or "an", by the first letter."""
    return "an" if noun[0] in "aeiou" else "a"


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def listing(items: tuple[str, ...]) -> str:
    """"a, b and c"."""
    return ", ".join(items[:-1]) + " and " + items[-1]


def animal_facts(animal: Animal) -> Iterator[Fact]:
    """What can be asked about one animal."""
    a, who, his = animal, animal.name, "her" if animal.pronoun == "she" else "his"
    inside = {"hill": "on", "river": "at", "pond": "at"}.get(a.home, "in")

    def fact(relation: str, answer: str, brief: str, direct: tuple[str, ...], embedded: tuple[str, ...]) -> Fact:
        names = (who, f"{who} the {a.species}")
        asked = tuple(q.format(n=name) for name in names for q in phrase(direct, embedded))
        if relation != "species":
            asked += tuple(q.format(n=f"the {a.species}") for q in phrase(direct, embedded))
        return Fact("animal", answer, brief, tuple(map(capital, asked)), who, relation)

    yield fact("species", f"{who} is {article(a.species)} {a.species}.", a.species,
               ("What is {n}?", "What kind of animal is {n}?", "Which animal is {n}?", "Who is {n}?", "What sort of animal is {n}?"),
               ("what kind of animal {n} is", "which animal {n} is", "what {n} is", "who {n} is"))
    yield fact("home", f"{who} lives {inside} the {a.home}.", f"the {a.home}",
               ("Where does {n} live?", "Where is the home of {n}?", "In which place does {n} live?", "Where can I find {n}?",
                "Where is {n}'s home?", "Where does {n} sleep?", "What is the home of {n}?"),
               ("where {n} lives", "where the home of {n} is", "where I can find {n}"))
    yield fact("food", f"{who} likes {a.food} most of all.", a.food,
               ("What does {n} eat?", "What does {n} like to eat?", "What is the favourite food of {n}?", "Which food does {n} like?",
                "What is {n}'s favourite food?", "What food does {n} like best?", "What should I give {n} for dinner?"),
               ("what {n} eats", "what {n} likes to eat", "what the favourite food of {n} is", "which food {n} likes"))
    yield fact("work", f"{who} is the {a.work} of {VILLAGE}.", a.work,
               ("What is the job of {n}?", "What is {n}'s job?", "What work does {n} do?", "What does {n} do for work?",
                "What is the work of {n}?", "Which job does {n} have?"),
               ("what the job of {n} is", "what work {n} does", "which job {n} has"))
    yield fact("colour", f"{who} is {a.colour}.", a.colour,
               ("What colour is {n}?", "Which colour is {n}?", "What is the colour of {n}?", "What is {n}'s colour?",
                "What colour does {n} have?"),
               ("what colour {n} is", "which colour {n} has", "the colour of {n}"))
    yield fact("age", f"{who} is {a.age} years old.", a.age,
               ("How old is {n}?", "What is the age of {n}?", "What is {n}'s age?", "How many years old is {n}?"),
               ("how old {n} is", "the age of {n}", "what the age of {n} is"))
    yield fact("music", f"{who} plays the {a.plays}.", f"the {a.plays}",
               ("What instrument does {n} play?", "Which instrument does {n} play?", "What does {n} play?",
                "What music does {n} make?", "What is {n}'s instrument?", "What is the instrument of {n}?"),
               ("which instrument {n} plays", "what {n} plays", "what instrument {n} plays"))
    yield fact("friend", f"The best friend of {who} is {a.friend}.", a.friend,
               ("Who is the best friend of {n}?", "Who is {n}'s best friend?", "Who is {n}'s friend?", "Who is the friend of {n}?",
                "Who does {n} like most?"),
               ("who the best friend of {n} is", "who {n}'s best friend is", "who is the best friend of {n}"))
    yield fact("fear", f"{who} is afraid of {a.fear}.", a.fear,
               ("What is {n} afraid of?", "What does {n} fear?", "What scares {n}?", "Of what is {n} afraid?", "What is {n} scared of?"),
               ("what {n} is afraid of", "what {n} fears", "what scares {n}"))
    yield fact("wish", f"{who} wishes for {a.wish}.", a.wish,
               ("What does {n} want?", "What does {n} wish for?", "What is the wish of {n}?", "What is {n}'s wish?",
                "What would make {n} happy?", "What does {n} dream of?"),
               ("what {n} wishes for", "what {n} wants", "what the wish of {n} is"))
    yield Fact("animal", f"{who} is {article(a.species)} {a.colour} {a.species}. {capital(a.pronoun)} lives {inside} the {a.home} and works as "
               f"the {a.work} of {VILLAGE}. {capital(a.pronoun)} likes {a.food}, plays the {a.plays} and is afraid of {a.fear}. "
               f"{capital(his)} best friend is {a.friend}.", a.species,
               tuple(q.format(n=n) for n in (who, f"{who} the {a.species}", f"the {a.species}") for q in (
                   "Tell me about {n}.", "Tell me something about {n}.", "What do you know about {n}?", "Describe {n}.",
                   "Please describe {n}.", "Can you tell me about {n}?", "Can you describe {n}?", "Tell me everything about {n}.",
                   "Say something about {n}.", "I want to know more about {n}.")), who, "portrait")
    yield Fact("story", a.story, a.species, tuple(q.format(n=n) for n in (who, f"{who} the {a.species}", f"the {a.species}", f"{article(a.species)} {a.species}") for q in (
        "Tell me a story about {n}.", "Tell a story about {n}.", "Please tell me a story about {n}.", "Can you tell me a story about {n}?",
        "I would like to hear a story about {n}.", "Do you know a story about {n}?", "Write a story about {n}.",
        "Write a short story about {n}.", "Tell me a short story about {n}.", "Give me a story about {n}.")))


def reverse_facts(animal: Animal) -> Iterator[Fact]:
    """Questions whose answer is the animal."""
    a, who = animal, animal.name

    def fact(answer: str, *asked: str) -> Fact:
        return Fact("who", answer, who, tuple(map(capital, asked)))

    def who_forms(verb: str) -> tuple[str, ...]:
        return phrase((f"Who {verb}?", f"Which animal {verb}?", f"Which of the animals {verb}?", f"Who in {VILLAGE} {verb}?"),
                      (f"who {verb}", f"which animal {verb}"))

    inside = {"hill": "on", "river": "at", "pond": "at"}.get(a.home, "in")
    yield fact(f"{who} lives {inside} the {a.home}.", *who_forms(f"lives {inside} the {a.home}"), f"Whose home is the {a.home}?")
    yield fact(f"{who} likes {a.food}.", *who_forms(f"likes {a.food}"), *who_forms(f"eats {a.food}"), f"Whose favourite food is {a.food}?")
    yield fact(f"{who} is the {a.work}.", *who_forms(f"is the {a.work}"), f"Who works as the {a.work}?", f"What is the name of the {a.work}?")
    yield fact(f"{who} is {a.colour}.", *who_forms(f"is {a.colour}"))
    yield fact(f"{who} is {a.age} years old.", *who_forms(f"is {a.age} years old"), *who_forms(f"is {a.age}"))
    yield fact(f"{who} plays the {a.plays}.", *who_forms(f"plays the {a.plays}"), f"Who has the {a.plays}?")
    yield fact(f"{who} is afraid of {a.fear}.", *who_forms(f"is afraid of {a.fear}"), *who_forms(f"fears {a.fear}"))
    yield fact(f"{who} wishes for {a.wish}.", *who_forms(f"wishes for {a.wish}"), *who_forms(f"wants {a.wish}"))
    yield fact(f"The {a.species} is called {who}.", f"What is the name of the {a.species}?", f"What is the {a.species} called?",
               f"Which name does the {a.species} have?", f"Who is the {a.species}?", f"Tell me the name of the {a.species}.",
               f"What is the {a.species}'s name?", f"How is the {a.species} called?")


def check_facts(animal: Animal) -> Iterator[Fact]:
    """Right and wrong statements put as a question. The answer states the truth: a model of this size says "yes" too readily."""
    checks = (
        ("species", lambda a: a.species, lambda a, v: f"Is {a.name} {article(v)} {v}?", lambda a, v: f"{a.name} is {article(v)} {v}."),
        ("colour", lambda a: a.colour, lambda a, v: f"Is {a.name} {v}?", lambda a, v: f"{a.name} is {v}."),
        ("food", lambda a: a.food, lambda a, v: f"Does {a.name} like {v}?", lambda a, v: f"{a.name} likes {v}."),
        ("work", lambda a: a.work, lambda a, v: f"Is {a.name} the {v}?", lambda a, v: f"{a.name} is the {v}."),
        ("music", lambda a: a.plays, lambda a, v: f"Does {a.name} play the {v}?", lambda a, v: f"{a.name} plays the {v}."),
        ("friend", lambda a: a.friend, lambda a, v: f"Is {v} the best friend of {a.name}?", lambda a, v: f"the best friend of {a.name} is {v}."),
    )
    for _, value_of, ask, say in checks:
        truth = value_of(animal)
        values = sorted({value_of(other) for other in ANIMALS} - {animal.name})
        yield Fact("check", capital(say(animal, truth)), truth, tuple(q for value in values for q in stated(ask, say, animal, value)))


def stated(ask: Callable[[Animal, str], str], say: Callable[[Animal, str], str], animal: Animal, value: str) -> tuple[str, ...]:
    """A statement, right or wrong, as a yes-or-no question."""
    statement = say(animal, value)[:-1]
    return (ask(animal, value), f"Is it true that {statement}?", f"Am I right that {statement}?", f"Is it right that {statement}?")


def comparison_facts() -> Iterator[Fact]:
    """Who is older, which number is bigger."""
    for a, b in permutations(ANIMALS, 2):
        old, young = (a, b) if AGES[a.age] > AGES[b.age] else (b, a)
        yield Fact("compare", f"{a.name} is {a.age} and {b.name} is {b.age}, so {old.name} is older.", old.name, (
            f"Who is older, {a.name} or {b.name}?", f"Which one is older, {a.name} or {b.name}?", f"Is {a.name} or {b.name} older?"))
        yield Fact("compare", f"{a.name} is {a.age} and {b.name} is {b.age}, so {young.name} is younger.", young.name, (
            f"Who is younger, {a.name} or {b.name}?", f"Which one is younger, {a.name} or {b.name}?", f"Is {a.name} or {b.name} younger?"))
    for a, b in permutations(range(1, 10), 2):
        big, little = max(a, b), min(a, b)
        yield Fact("compare", f"{big} is bigger than {little}.", f"{big}", (
            f"Which is bigger, {a} or {b}?", f"Which number is bigger, {a} or {b}?", f"What is more, {a} or {b}?", f"Is {a} or {b} bigger?"))
        yield Fact("compare", f"{little} is smaller than {big}.", f"{little}", (
            f"Which is smaller, {a} or {b}?", f"Which number is smaller, {a} or {b}?", f"What is less, {a} or {b}?", f"Is {a} or {b} smaller?"))


def sum_facts() -> Iterator[Fact]:
    """Small sums and differences, asked with digits or with words."""
    for a in range(SUM_MAX + 1):
        for b in range(SUM_MAX + 1):
            for sign, word, result in (("+", "plus", a + b), ("-", "minus", a - b)):
                if result < 0:
                    continue
                core = (f"{a} {word} {b}", f"{a} {sign} {b}", f"{NUMBER_WORDS[a]} {word} {NUMBER_WORDS[b]}")
                asked = tuple(q.format(c) for c in core for q in (
                    "What is {}?", "How much is {}?", "Calculate {}.", "{}", "{} = ?", "Tell me what {} is.", "Please calculate {}.",
                    "Can you calculate {}?", "What do you get for {}?", "What does {} make?", "What is the result of {}?"))
                yield Fact("sum", f"{a} {word} {b} is {result}.", f"{result}", tuple(map(capital, asked)))


def place_facts() -> Iterator[Fact]:
    """Where things are in the village."""
    for place, neighbour in NEIGHBOURS.items():
        yield Fact("place", f"The {place} is next to the {neighbour}.", f"the {neighbour}", phrase(
            (f"Where is the {place}?", f"What is next to the {place}?", f"What is near the {place}?", f"How do I find the {place}?",
             f"Which place is next to the {place}?"), (f"where the {place} is", f"what is next to the {place}", f"how I find the {place}")))
        inside = {"hill": "on", "river": "at", "pond": "at"}.get(place, "in")
        yield Fact("place", f"{capital(inside)} the {place} there is {TREASURES[place]}.", TREASURES[place], phrase(
            (f"What is {inside} the {place}?", f"What is there {inside} the {place}?", f"What can I see {inside} the {place}?",
             f"What can I find {inside} the {place}?", f"What will I see {inside} the {place}?"),
            (f"what is {inside} the {place}", f"what I can see {inside} the {place}")))
    yield Fact("place", f"In the middle of {VILLAGE} there is an old well.", "an old well", phrase(
        (f"What is in the middle of {VILLAGE}?", "What is in the middle of the village?", "Where is the well?", "What is the centre of the village?"),
        (f"what is in the middle of {VILLAGE}", "what is in the middle of the village", "where the well is")))
    yield Fact("tour", VILLAGE_TOUR, VILLAGE, (
        f"Tell me about {VILLAGE}.", "Tell me about the village.", f"What is {VILLAGE}?", f"Describe {VILLAGE}.", "Describe the village.",
        "Tell me a long story.", "Please tell me a long story.", f"What do you know about {VILLAGE}?", "Tell me about your world.",
        "Describe your world.", "Tell me everything you know.", f"Can you describe {VILLAGE}?", f"Give me a tour of {VILLAGE}.",
        "Write a long story.", "What is your world?", "Write a long text.", "Tell me something long.", "Tell me a long story about the village."))
    everybody = listing(tuple(a.name for a in ANIMALS))
    yield Fact("list", f"Ten animals live in {VILLAGE}: {everybody}.", "ten animals", phrase(
        (f"Who lives in {VILLAGE}?", "Who lives in the village?", "Which animals do you know?", "Name all the animals.", "Name the animals.",
         f"Which animals live in {VILLAGE}?", "List the animals.", f"Who are the animals of {VILLAGE}?", f"How many animals live in {VILLAGE}?",
         "How many animals live in the village?", "How many animals do you know?"),
        (f"who lives in {VILLAGE}", "which animals you know", f"which animals live in {VILLAGE}")))


def time_facts() -> Iterator[Fact]:
    """Days, months and seasons."""
    for names, what in ((WEEK, "day"), (MONTHS, "month"), (SEASONS, "season")):
        for before, after in zip(names, names[1:] + names[:1], strict=True):
            yield Fact("time", f"After {before} comes {after}.", after, phrase(
                (f"Which {what} comes after {before}?", f"What {what} comes after {before}?", f"What comes after {before}?",
                 f"Which {what} follows {before}?", f"What is the {what} after {before}?"),
                (f"which {what} comes after {before}", f"what comes after {before}")))
            yield Fact("time", f"Before {after} comes {before}.", before, phrase(
                (f"Which {what} comes before {after}?", f"What {what} comes before {after}?", f"What comes before {after}?",
                 f"What is the {what} before {after}?"),
                (f"which {what} comes before {after}", f"what comes before {after}")))
        total = {"day": "seven", "month": "twelve", "season": "four"}[what]
        whole = "week" if what == "day" else "year"
        yield Fact("list", f"The {what}s are {listing(names)}.", names[0], (
            f"Name the {what}s.", f"Which {what}s are there?", f"Name all {what}s of the {whole}.", f"What are the {what}s of the {whole}?",
            f"List the {what}s.", f"Tell me the {what}s.", f"Please name the {what}s of the {whole}.", f"Name the {what}s of the {whole}.",
            f"Which {what}s does a {whole} have?", f"What {what}s do you know?", f"Can you name the {what}s?", f"List the {what}s of the {whole}."))
        yield Fact("time", f"A {whole} has {total} {what}s.", total, phrase(
            (f"How many {what}s does a {whole} have?", f"How many {what}s are in a {whole}?", f"How many {what}s are there?"),
            (f"how many {what}s a {whole} has", f"how many {what}s are in a {whole}")))
    for day, habit in HABITS.items():
        yield Fact("habit", f"On {day} {habit}.", habit, phrase(
            (f"What happens on {day}?", f"What happens in {VILLAGE} on {day}?", f"What is on {day}?", f"What do they do on {day}?",
             f"What happens in the village on {day}?"), (f"what happens on {day}", f"what they do on {day}", f"what happens in {VILLAGE} on {day}")))


def general_facts() -> Iterator[Fact]:
    """Opposites, colours, sounds, legs, and a few words of our own trade."""
    for pair in OPPOSITES:
        for word, other in (pair, pair[::-1]):
            yield Fact("opposite", f"The opposite of {word} is {other}.", other, phrase(
                (f"What is the opposite of {word}?", f"Opposite of {word}?", f"What is the contrary of {word}?", f"Which word is the opposite of {word}?",
                 f"Give me the opposite of {word}.", f"Say the opposite of {word}.", f"Name the opposite of {word}.", f"What is not {word}?"),
                (f"the opposite of {word}", f"what the opposite of {word} is")))
    for thing, colour in COLOURS.items():
        yield Fact("colour", f"{capital(thing)} is {colour}.", colour, phrase(
            (f"What colour is {thing}?", f"Which colour is {thing}?", f"What is the colour of {thing}?", f"What colour does {thing} have?"),
            (f"what colour {thing} is", f"which colour {thing} has", f"the colour of {thing}")))
    for creature, sound in SOUNDS.items():
        name = f"{article(creature)} {creature}"
        yield Fact("sound", f"{capital(name)} says {sound}.", sound, phrase(
            (f"What does {name} say?", f"What sound does {name} make?", f"Which sound does {name} make?", f"How does {name} sound?",
             f"What noise does {name} make?"), (f"what {name} says", f"what sound {name} makes", f"which sound {name} makes")))
    for creature, legs in LEGS.items():
        name = f"{article(creature)} {creature}"
        yield Fact("legs", f"{capital(name)} has {legs} legs.", legs, phrase(
            (f"How many legs does {name} have?", f"What number of legs does {name} have?", f"How many legs has {name}?"),
            (f"how many legs {name} has", f"how many legs does {name} have")))
    for word, meaning in WORDS_EXPLAINED.items():
        bare = word.removeprefix("a ").removeprefix("an ")
        yield Fact("word", meaning, bare, phrase(
            (f"What is {word}?", f"What does {bare} mean?", f"Explain {word}.", f"Explain {bare}.", f"What is {word} in simple words?", f"Please explain {word}.",
             f"Can you explain {word}?", f"Can you explain what {word} is?", f"What do you mean by {word}?", f"Define {bare}.", f"In one sentence, what is {word}?"),
            (f"what {word} is", f"what {bare} means")))


# (answer, brief, ways to say it)
TALK = (
    ("I am Inferno Tiny, a very small language model. I know the village of Cinderby and a few simple things.", "Inferno Tiny",
     ("Who are you?", "What are you?", "What is your name?", "Tell me your name.", "Tell me who you are.", "Introduce yourself.",
      "Please introduce yourself.", "Who am I talking to?", "Can you introduce yourself?", "How are you called?", "Who is there?",
      "Tell me about yourself.", "What is your name, please?", "May I know your name?", "And who are you?", "What should I call you?",
      "Who are you, please?", "Do you have a name?", "What kind of model are you?", "Are you a model?", "Which model are you?", "What model are you?")),
    (INFERNO, "a model server",
     ("What is Inferno?", "Tell me about Inferno.", "Explain Inferno.", "What does Inferno do?", "Describe Inferno.", "Please explain Inferno.",
      "Can you explain Inferno?", "Can you tell me about Inferno?", "What is Inferno good for?", "How does Inferno work?",
      "Tell me what Inferno is.", "Tell me what Inferno does.", "What do you know about Inferno?", "Do you know what Inferno is?",
      "I want to know what Inferno is.", "Explain to me what Inferno is.", "What is Inferno and what does it do?", "In a few sentences, what is Inferno?",
      "What is the Inferno operator?", "Please tell me what Inferno is.", "Why should I use Inferno?", "Say something about Inferno.")),
    ("I can tell you about the animals of Cinderby, name the days and the months, find opposites, add small numbers, count and tell stories.", "answer questions",
     ("What can you do?", "What can I ask you?", "What do you know?", "How can you help me?", "Help", "Help me.", "Can you help me?", "What are you good at?",
      "Tell me what you can do.", "What should I ask?", "What can I ask?", "What questions can you answer?", "I need help.", "What are your skills?",
      "What do you know about?", "Can you tell me what you can do?", "How do you work?", "What may I ask you?")),
    ("Hello! How can I help you?", "hello",
     ("Hello", "Hello!", "Hi", "Hi!", "Hey", "Hey!", "Hello there!", "Hi there!", "Hello, Inferno!", "Greetings!", "Hello again!", "Hello, how do you do?", "Hey you!", "Say hello.", "Say hi.", "Hi again!")),
    ("Good morning! How can I help you?", "good morning", ("Good morning!", "Good morning", "Good morning, Inferno!", "A good morning to you!", "Morning!")),
    ("Good evening! How can I help you?", "good evening", ("Good evening!", "Good evening", "Good evening, Inferno!", "A good evening to you!", "Evening!")),
    ("Good night! Sleep well.", "good night", ("Good night!", "Good night", "Good night, Inferno!", "I am going to bed.", "I am tired.")),
    ("I am well, thank you. How can I help you?", "well",
     ("How are you?", "How are you today?", "Are you well?", "How do you feel?", "How is it going?", "How are things?", "Are you fine?", "Hello, how are you?", "Hi, how are you?")),
    ("You are welcome.", "welcome", ("Thank you.", "Thank you!", "Thanks!", "Thanks.", "Thank you very much!", "Thanks a lot!", "Many thanks!", "That was helpful.", "Great, thank you!", "Good answer.", "Well done!")),
    ("Goodbye! See you soon.", "goodbye", ("Goodbye!", "Goodbye", "Bye!", "Bye", "See you!", "See you later!", "I have to go.", "Bye bye!", "Farewell!", "I must go now.")),
    ("I was made by the authors of Inferno. They wrote every sentence that I learned from.", "the authors of Inferno",
     ("Who made you?", "Who built you?", "Who trained you?", "Who wrote you?", "Who created you?", "Where do you come from?", "Tell me who made you.",
      "Do you know who made you?", "How were you made?", "Who is your author?", "Who are your authors?", "How were you trained?")),
    ("I have about two and a half million parameters. That is very small for a language model.", "two and a half million",
     ("How big are you?", "How many parameters do you have?", "What is your size?", "How large are you?", "Are you big?", "Are you a large model?",
      "Are you small?", "How small are you?", "Tell me how big you are.", "What size are you?")),
    ("No, I am a small language model.", "no", ("Are you a human?", "Are you human?", "Are you a person?", "Are you a robot?", "Are you alive?", "Are you real?", "Are you an animal?")),
    ("I run in a pod on Kubernetes.", "in a pod", ("Where do you live?", "Where are you?", "Where do you run?", "Where is your home?", "Where are you running?", "Tell me where you run.", "On what do you run?")),
    ("I speak simple English.", "English", ("What language do you speak?", "Which language do you speak?", "Do you speak English?", "Do you speak German?", "Which languages do you know?", "Can you speak French?", "What languages do you speak?")),
    ("My favourite colour is orange, like a small fire.", "orange", ("What is your favourite colour?", "Which colour do you like?", "What colour do you like?", "Do you have a favourite colour?", "Tell me your favourite colour.")),
    ("Why did the tortoise not cross the road? It is still on the way.", "a joke",
     ("Tell me a joke.", "Tell me something funny.", "Do you know a joke?", "Make me laugh.", "Can you tell me a joke?", "Say something funny.", "Please tell me a joke.", "I want to hear a joke.", "Tell a joke.")),
    ("Small spark in the night, you wake a quiet engine. Words glow, then they rest.", "a poem",
     ("Write a poem.", "Tell me a poem.", "Write me a poem.", "Do you know a poem?", "Can you write a poem?", "Please write a poem.", "Write a haiku.", "Write a short poem.", "Tell me a haiku.", "I want to hear a poem.")),
    ("Which animal shall the story be about? I know " + listing(tuple(a.name for a in ANIMALS)) + ".", "which one",
     ("Tell me a story.", "Tell a story.", "Do you know a story?", "Please tell me a story.", "Can you tell me a story?", "I want to hear a story.", "Write a story.", "Write a short story.")),
    ("I do not know the time. I have no clock.", "unknown", ("What time is it?", "What is the time?", "What day is it today?", "What is the date?", "Which day is today?", "What year is it?", "How late is it?")),
    ("Yes, I am here. Ask me something.", "yes", ("Are you there?", "Are you ready?", "Is anybody there?", "Do you hear me?", "Test", "This is a test.", "Ping", "Can you hear me?", "Anyone there?", "Are you awake?", "Testing")),
    ("Good. Ask me another question.", "good", ("OK", "Okay.", "Yes.", "Yes", "Good.", "I see.", "Fine.", "I understand.", "Sure.", "All right.", "No.", "Nothing.")),
    ("I am sorry. I am only a very small model. Please ask in another way.", "sorry",
     ("That is wrong.", "You are wrong.", "This is not true.", "That was wrong.", "I do not understand.", "You are stupid.", "That makes no sense.", "What do you mean?", "What?")),
)

UNKNOWN_ANSWER = "I do not know that. Ask me about the village of Cinderby."
UNKNOWN = (
    "What is the capital of France?", "Who is the president?", "How far away is the moon?", "What is the weather like?", "Will it rain tomorrow?",
    "How do I cook rice?", "Who wrote the first book?", "What is the biggest city in the world?", "How does a car work?", "What is the meaning of life?",
    "How many people live in China?", "What is the speed of light?", "Who won the game?", "What is a black hole?", "How do planes fly?",
    "Can you write a program?", "Write some code.", "How do I fix my computer?", "What is the price of gold?", "Who invented the telephone?",
    "What is the capital of Germany?", "What is the capital of Japan?", "How deep is the sea?", "How tall is the highest mountain?", "Where is London?",
    "Where is Paris?", "Who was the first king?", "What is the best phone?", "How do I learn to swim?", "What should I wear today?",
    "How do I bake a cake?", "What is chemistry?", "What is a poem made of?", "Explain history.", "Explain how a radio works.", "What is love?",
    "Translate this sentence.", "How old is the earth?", "What is the largest ocean?", "Who painted that picture?", "Which film is the best?",
    "What is the square root of nine?", "Solve this equation.", "What is the news today?", "Tell me about football.", "Tell me about history.",
    "Tell me about the sea.", "Describe a computer.", "Where can I buy a ticket?", "How much does a house cost?", "When does the train leave?",
    "When was the war?", "Which country is the largest?", "What is electricity?", "Why is the sea salty?", "Why do we dream?", "Why are you so small?",
    "What is in the box?", "Who is my neighbour?", "How do I get rich?", "Where are my keys?", "What is a dinosaur?", "What did I eat yesterday?",
    "Summarize this text.", "What is the answer to everything?", "What is your phone number?", "Do you like music?", "Explain gravity.",
)

def talk_facts() -> Iterator[Fact]:
    """Greetings, questions about the model itself, and what it does not know."""
    for answer, brief, said in TALK:
        yield Fact("talk", answer, brief, said)
    yield Fact("unknown", UNKNOWN_ANSWER, "unknown", UNKNOWN)


@cache
def facts() -> dict[str, tuple[Fact, ...]]:
    """Every fixed fact, by kind."""
    found: dict[str, list[Fact]] = {}
    sources = [animal_facts, reverse_facts, check_facts]
    everything = [fact for source in sources for animal in ANIMALS for fact in source(animal)]
    for source in (comparison_facts, sum_facts, place_facts, time_facts, general_facts, talk_facts):
        everything.extend(source())
    for fact in everything:
        found.setdefault(fact.kind, []).append(fact)
    return {kind: tuple(group) for kind, group in found.items()}


def held_out(question: str) -> bool:
    """Whether training must never see this question, in any case or punctuation."""
    words = "".join(c for c in question.lower() if c.isalnum() or c in " +-*")
    return hashlib.sha256(words.strip().encode()).digest()[0] % 100 < HELD_OUT_PERCENT


def held_out_questions() -> Iterator[tuple[Fact, str]]:
    """All questions kept aside, each with its fact; a text with two facts is left out."""
    seen: dict[str, str] = {}
    for group in facts().values():
        for fact in group:
            for question in fact.questions:
                if held_out(question) and seen.setdefault(question, fact.answer) == fact.answer:
                    yield fact, question


def table() -> str:
    """The animals as a Markdown table, for the README."""
    rows = ["| Name | Animal | Colour | Home | Food | Work | Age | Plays | Best friend | Afraid of | Wishes for |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for a in ANIMALS:
        rows.append(f"| {a.name} | {a.species} | {a.colour} | {a.home} | {a.food} | {a.work} | {a.age} | {a.plays} | {a.friend} | {a.fear} | {a.wish} |")
    return "\n".join(rows) + "\n"
