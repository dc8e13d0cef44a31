"""The test bed's images and the users' Dockerfiles must put the same product files in the same places."""

import importlib.machinery
import importlib.util
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

CLUSTER = Path(__file__).resolve().parent
REPOSITORY = CLUSTER.parent.parent
DOCKERFILES = {
    "operator/Dockerfile": "operator",
    "sidecar/Dockerfile": "sidecar",
    "sidecar/Dockerfile.cuda": "sidecar",
}


def load_image_script():
    loader = importlib.machinery.SourceFileLoader("image", str(CLUSTER / "image"))
    spec = importlib.util.spec_from_loader("image", loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["image"] = module
    loader.exec_module(module)
    return module


sys.dont_write_bytecode = True
image = load_image_script()


def final_stage(dockerfile: str) -> list[list[str]]:
    """The instructions of the last stage, as words, continuation lines joined and comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / dockerfile).read_text(), flags=re.MULTILINE)
    instructions = [line.split() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    start = max(index for index, words in enumerate(instructions) if words[0] == "FROM")
    return instructions[start:]


def copied(dockerfile: str) -> list[str]:
    return sorted(words[-1] for words in final_stage(dockerfile) if words[0] in ("COPY", "ADD"))


def pack(picture) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        return image.archive(picture, image.layer(picture, Path(scratch)))


def unpacked(content: bytes) -> tuple[dict, dict[str, tarfile.TarInfo]]:
    """An archive's image configuration and the entries of its layer."""
    outer = tarfile.open(fileobj=io.BytesIO(content))
    blob = lambda described: outer.extractfile("blobs/sha256/" + described["digest"].split(":")[1]).read()
    index = json.loads(outer.extractfile("index.json").read())
    manifest = json.loads(blob(index["manifests"][0]))
    layer = tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][0])))
    return json.loads(blob(manifest["config"])), {entry.name: entry for entry in layer.getmembers()}


class DockerfilesAgreeWithTheTestBed(unittest.TestCase):
    def test_same_files_in_the_same_places(self):
        for dockerfile, name in DOCKERFILES.items():
            with self.subTest(dockerfile):
                listed = subprocess.run([CLUSTER / "image", "--list", name], capture_output=True, text=True, check=True)
                self.assertEqual(copied(dockerfile), listed.stdout.split())

    def test_same_user_and_entry_point(self):
        for dockerfile, name in DOCKERFILES.items():
            with self.subTest(dockerfile):
                said = {words[0]: " ".join(words[1:]) for words in final_stage(dockerfile)}
                self.assertEqual(said["USER"], f"{image.USER}:{image.USER}")
                self.assertEqual(json.loads(said["ENTRYPOINT"]), [image.images()[name].entrypoint])

    def test_every_base_image_has_a_version(self):
        for dockerfile in DOCKERFILES:
            stages = re.findall(r"^FROM (\S+)", (REPOSITORY / dockerfile).read_text(), re.MULTILINE)
            for base in stages:
                with self.subTest(f"{dockerfile}: {base}"):
                    self.assertRegex(base, r":(?!latest$)\S+$")

    def test_what_is_copied_from_the_repository_exists(self):
        for dockerfile in DOCKERFILES:
            for words in re.findall(r"^COPY (?!--from)(.*)$", (REPOSITORY / dockerfile).read_text(), re.MULTILINE):
                for source in words.split()[:-1]:
                    with self.subTest(f"{dockerfile}: {source}"):
                        self.assertTrue((REPOSITORY / source).exists())

    def test_no_reference_is_latest(self):
        for name, picture in image.images().items():
            self.assertRegex(picture.reference, r":(?!latest$)[\w.-]+$", name)


class AnImage(unittest.TestCase):
    def setUp(self):
        # A dynamically linked program that every machine has.
        self.picture = image.Image("registry.test/probe:1", "/usr/bin/env", {"/usr/bin/env": Path("/usr/bin/env")})

    def test_has_the_same_bytes_when_the_inputs_are_the_same(self):
        self.assertEqual(pack(self.picture), pack(self.picture))

    def test_holds_the_library_closure_and_the_loader(self):
        _, entries = unpacked(pack(self.picture))
        names = {Path(name).name for name in entries}
        self.assertIn("libc.so.6", names)
        self.assertTrue(any(name.startswith("ld-linux") for name in names), names)

    def test_runs_as_nobody_special_with_a_writable_tmp(self):
        config, entries = unpacked(pack(self.picture))
        self.assertEqual(config["config"]["User"], "10001:10001")
        self.assertEqual(entries["tmp"].mode, 0o1777)
        self.assertTrue(all(entry.uid == 0 and entry.mtime == 0 for entry in entries.values()))

    def test_its_program_finds_its_libraries_in_the_layer_alone(self):
        with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as root:
            content = image.layer(self.picture, Path(scratch))
            subprocess.run(["tar", "-x", "-C", root], input=content, check=True)
            loader = next(path for path in Path(root).rglob("ld-linux*") if path.is_file())
            folders = ":".join({str(path.parent) for path in Path(root).rglob("*.so*")})
            command = [loader, "--inhibit-cache", "--library-path", folders, "--list", f"{root}/usr/bin/env"]
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = re.findall(r"(/\S+) \(0x", listed)
            self.assertTrue(found)
            self.assertTrue(all(path.startswith(root) for path in found), listed)


if __name__ == "__main__":
    unittest.main()
