"""The aborting model is the demo model with one fact more. Needs only Python."""

import hashlib
import unittest
from pathlib import Path

import aborting_model
import larger_model

DIGEST = Path(__file__).with_name("aborting.gguf.sha256")


class AbortingModelTest(unittest.TestCase):
    """That llama.cpp aborts on it the engine's tests say."""

    def setUp(self):
        self.tiny = larger_model.read(larger_model.TINY.read_bytes())
        self.content = larger_model.write(aborting_model.contradictory(self.tiny))

    def test_it_has_the_committed_digest(self):
        digest, name = DIGEST.read_text().split()
        self.assertEqual(name, "aborting.gguf")
        self.assertEqual(hashlib.sha256(self.content).hexdigest(), digest)

    def test_it_is_a_whole_file_with_the_same_tensors(self):
        read = larger_model.read(self.content)
        self.assertEqual((read.blocks, read.facts), (self.tiny.blocks, self.tiny.facts + 1))
        self.assertEqual(read.tensors, self.tiny.tensors)


if __name__ == "__main__":
    unittest.main()
