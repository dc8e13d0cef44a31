"""The corpus is what the README says it is. Needs only Python: python -m unittest test_world"""

import hashlib
import itertools
import json
import re
import unittest
from pathlib import Path

import corpus
import world

CORPUS_DIGEST = "a2d21889c87aaa947fed811d7abaabc773f10444663c7b44c179ef1072f33811"


class WorldTest(unittest.TestCase):
    """Properties of the corpus that training and evaluation rely on."""

    def test_same_seed_gives_the_written_down_corpus(self):
        self.assertEqual(corpus.digest(7, 2000), CORPUS_DIGEST)

    def test_another_seed_gives_another_corpus(self):
        self.assertNotEqual(corpus.digest(7, 50), corpus.digest(8, 50))

    def test_a_question_has_one_answer(self):
        answers = {}
        for fact in every_fact():
            for question in fact.questions:
                known = answers.setdefault(question.lower().rstrip("?.!"), fact.answer)
                self.assertEqual(known, fact.answer, question)

    def test_every_fact_can_be_learned_and_some_are_examined(self):
        for fact in every_fact():
            self.assertFalse(all(map(world.held_out, fact.questions)), fact.answer)
        self.assertGreater(len(list(world.held_out_questions())), 1000)

    def test_held_out_questions_do_not_leak_into_training(self):
        held = {plain(question) for _, question in world.held_out_questions()}
        asked = {
            plain(message.content)
            for one in corpus.conversations(7, 2000)
            for message in one.messages
            if message.role == "user"
        }
        self.assertEqual(held & asked, set())

    def test_holding_out_ignores_case_and_punctuation(self):
        for _, question in itertools.islice(world.held_out_questions(), 200):
            self.assertTrue(world.held_out(question.lower().rstrip("?.!")), question)

    def test_conversations_alternate_and_end_with_an_answer(self):
        for one in corpus.conversations(7, 300):
            roles = [message.role for message in one.messages]
            spoken = roles[1:] if roles[0] == "system" else roles
            self.assertEqual(spoken, ["user", "assistant"] * (len(spoken) // 2))

    def test_readme_shows_the_animals_as_they_are(self):
        self.assertIn(world.table(), Path(__file__).with_name("README.md").read_text())

    def test_the_committed_model_has_the_committed_digest(self):
        digest, name = Path(__file__).with_name("tiny.gguf.sha256").read_text().split()
        self.assertEqual(hashlib.sha256(Path(__file__).with_name(name).read_bytes()).hexdigest(), digest)

    def test_the_listed_questions_expect_what_the_world_says(self):
        answers = {question: fact.answer for fact in every_fact() for question in fact.questions}
        listed = json.loads(Path(__file__).with_name("questions.json").read_text())
        for entry in listed["questions"]:
            question = entry["messages"][-1]["content"]
            if question in answers and len(entry["messages"]) == 1:
                self.assertRegex(answers[question], re.compile(entry["answer"]))


def every_fact():
    """All facts of all kinds."""
    return [fact for group in world.facts().values() for fact in group]


def plain(text):
    """The words of a question alone."""
    return "".join(c for c in text.lower() if c.isalnum() or c in " +-*").strip()


if __name__ == "__main__":
    unittest.main()
