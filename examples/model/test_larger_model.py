"""The larger model is the demo model with more blocks that change nothing. Needs only Python."""

import hashlib
import unittest
from pathlib import Path

import larger_model
from larger_model import BLOCKS, OUTPUTS, TINY

LARGER = Path(__file__).with_name("larger.gguf.sha256")


class LargerModelTest(unittest.TestCase):
    """What the tests of canaries rely on; that it loads and answers the engine's tests say."""

    def setUp(self):
        self.content = TINY.read_bytes()
        self.tiny = larger_model.read(self.content)

    def larger(self, blocks=BLOCKS):
        return larger_model.write(larger_model.deepened(self.tiny, blocks))

    def test_it_has_the_committed_digest(self):
        digest, name = LARGER.read_text().split()
        self.assertEqual(name, "larger.gguf")
        self.assertEqual(hashlib.sha256(self.larger()).hexdigest(), digest)

    def test_with_as_many_blocks_as_before_it_is_the_same_file(self):
        self.assertEqual(self.larger(self.tiny.blocks), self.content)

    def test_what_was_there_stays_and_what_is_added_adds_nothing(self):
        larger = larger_model.read(self.larger())
        self.assertEqual((larger.blocks, larger.facts), (BLOCKS, self.tiny.facts))
        self.assertEqual((larger.before, larger.after), (self.tiny.before, self.tiny.after))
        self.assertEqual(larger.tensors[: len(self.tiny.tensors)], self.tiny.tensors)
        added = larger.tensors[len(self.tiny.tensors) :]
        of_block = {tensor.of_block()[1] for tensor in self.tiny.tensors if tensor.of_block()}
        names = {tensor.of_block() for tensor in added}
        self.assertEqual(names, {(block, name) for block in range(self.tiny.blocks, BLOCKS) for name in of_block})
        for tensor in added:
            self.assertEqual(any(tensor.data), tensor.of_block()[1] not in OUTPUTS, tensor.name)

    def test_what_cannot_be_made_is_refused(self):
        with self.assertRaisesRegex(ValueError, "4 blocks already"):
            self.larger(3)
        with self.assertRaisesRegex(ValueError, "not a GGUF file"):
            larger_model.read(b"<!DOCTYPE html>")
        with self.assertRaisesRegex(ValueError, "too early"):
            larger_model.read(self.content[:2000])


if __name__ == "__main__":
    unittest.main()
